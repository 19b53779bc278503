"""What the API answers, as models that its description is made from."""

import os
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, Field, JsonValue

from deep_ranking.serving.image_ids import KnownImage

IMAGES = "/api/v1/images"
WORDS = (
    (0.95, "very likely the same"),
    (0.75, "likely the same"),
    (0.4, "perhaps the same"),
    (0.1, "likely different"),
    (0.0, "very likely different"),
)


class ErrorAnswer(BaseModel):
    """Why a request was refused, and what to do."""

    detail: str


class Health(BaseModel):
    """That the server answers."""

    status: str = "ok"
    version: str
    collections: int
    allow_changes: bool
    teach: bool = Field(description="whether it asks people questions")
    rater: str = Field(description='who answers where a request names nobody; "" for nobody')
    corrections: bool = Field(description="whether it takes corrections of classes")


class ClassCount(BaseModel):
    """A class and the number of its images; "" is that of images without a class."""

    name: str
    images: int


class CollectionAnswer(BaseModel):
    """A collection that is served."""

    name: str
    images: int
    classes: list[ClassCount]
    index: str = Field(description="exact, clusters, hierarchy, milvus, or shards of several kinds")
    smoothed: bool
    precision: str
    probabilities: bool = Field(description="whether results have a probability")
    shards: int = Field(description="indexes that are searched as one; 0 for a single index")
    left_out: list[str] = Field(description="names of shards that cannot be searched")


class CollectionsAnswer(BaseModel):
    """All collections; the first one answers where none is named."""

    collections: list[CollectionAnswer]


class ImageAnswer(BaseModel):
    """An image of a collection."""

    id: str
    path: str = Field(description="relative to the collection's root")
    class_: str = Field(alias="class", description='"" for none')
    thumbnail: str = Field(description="address of a small picture, below this server")


class FoundImage(ImageAnswer):
    """An image that a search found."""

    rank: int = Field(description="1 for the nearest")
    distance: float = Field(description="Euclidean, of the embeddings: 0 (alike) to 2")
    probability: float | None = Field(description="that it is of the query's class, if known")
    problem: str = Field("", description='"gone" or "changed", if its file is not what was indexed')


class SearchAnswer(BaseModel):
    """What a search found, nearest first."""

    collection: str
    results: list[FoundImage]
    cursor: str | None = Field(description="what continues the search; null at its end")
    is_cut: bool = Field(description="whether it ends at the 10,000th result though there are more")
    ranked_by: str = Field(description='"distance", or what else ranks the results')
    shards: Annotated[
        int, Field(description="of several indexes that are searched as one: how many there are")
    ] = 0
    left_out: Annotated[
        list[str], Field(description="names of those that were not searched: they cannot be")
    ] = []


class ComparisonAnswer(BaseModel):
    """How alike two images are."""

    distance: float
    cosine: float
    probability: float | None = Field(description="that both are of one class, if known")
    words: str | None = Field(description="the probability in words")
    first: ImageAnswer | None = Field(description="the first image; null for an upload")
    second: ImageAnswer | None = Field(description="the second image, likewise")


class HeatAnswer(BaseModel):
    """Which places of an image make it like another one."""

    grid: list[list[float]] = Field(
        description="for each place, row by row, how much it counts: 1 the most; 0 for a place "
        "that does not, or that sets the two apart"
    )
    strongest: float = Field(description="how much the cosine falls, with the place of 1 covered")
    words: str = Field(description="what the places say")


class ExplanationAnswer(ComparisonAnswer):
    """How alike two images are, and which places make them so."""

    heat: list[HeatAnswer] = Field(description="of the first and of the second image")


class DuplicateAnswer(ImageAnswer):
    """One image of a group of duplicates."""

    distance: float = Field(description="to the image to keep")
    width: int
    height: int
    bytes: int
    stays: str = Field(description='why it cannot be set aside; "" if it can')


class GroupAnswer(BaseModel):
    """An image to keep, and its duplicates."""

    keeper: DuplicateAnswer
    why: str = Field(description="why this one is kept")
    others: list[DuplicateAnswer]


class DuplicatesAnswer(BaseModel):
    """Groups of duplicates, the largest first."""

    collection: str
    threshold: float
    total: int = Field(description="groups in all")
    summary: str
    groups: list[GroupAnswer]
    cursor: str | None = Field(description="what continues the list; null at its end")


class SetAsideAnswer(BaseModel):
    """What was moved, and what puts it back."""

    undo: str = Field(description="what to send to undo it")
    moved: int
    left: list[str] = Field(description="images that stay, each with the reason")


class UndoAnswer(BaseModel):
    """What was put back."""

    moved: int
    in_place: int = Field(description="images that were back already")
    left: list[str] = Field(description="images that could not be put back")


class ImagesAnswer(BaseModel):
    """What is known of images."""

    collection: str
    images: list[ImageAnswer] = Field(description="in the order of their ids")
    unknown: int = Field(description="ids or paths that the collection does not have")


class MapAnswer(BaseModel):
    """Where each image lies on the map: `ids`, `x`, `y` and `class` have an entry an image."""

    left_out: int = Field(description="images that are not on the map, because there are so many")
    classes: list[ClassCount]
    ids: list[str]
    x: list[int] = Field(description="0, on the left, to 65535")
    y: list[int] = Field(description="0, above, to 65535")
    class_: list[int] = Field(alias="class", description="number of the class in `classes`, from 0")


class MapProgress(BaseModel):
    """That the map is being made; the same request returns it later."""

    status: str = Field(description='"being made", or "waiting" for that of another collection')
    placed: int = Field(description="images that have their place already")
    images: int = Field(description="images in all; 0 until they are counted")


class GenerationAnswer(BaseModel):
    """A model that was taught, whose index can be shown."""

    generation: int
    time: str = Field(description="when it was made, UTC")
    answers: int = Field(description="that it learned from")
    is_better: bool = Field(description="whether it agrees with people more than before")
    words: str = Field(description="what its teaching reported")
    report: dict[str, JsonValue] = Field(description="the same as figures")


class LearningAnswer(BaseModel):
    """How far learning is, what was learned, and which of it is shown."""

    status: str = Field(description='"preparing", "ready", "learning" or "unavailable"')
    step: str = Field(description="what is done now, in words")
    done: int = Field(description="of this step")
    total: int = Field(description="of this step in all; 0 while that is not known")
    problem: str = Field(description="why nothing can be learned, or nothing was; else empty")
    made: int = Field(description="the generation that was made just now; 0 for none")
    shown: int = Field(description="the generation that is shown; 0 for the index itself")
    is_behind: bool = Field(description="whether the index has changed since what is shown")
    generations: list[GenerationAnswer] = Field(description="those to show, the newest first")


def thumbnail_of(image_id: str) -> str:
    """Return the address of an image's thumbnail."""
    return f"{IMAGES}/{image_id}/thumbnail"


def told_image(image: KnownImage) -> ImageAnswer:
    """Return what is told of an image of a collection."""
    return ImageAnswer.model_validate(
        {
            "id": image.image_id,
            "path": in_plain_text(image.path),
            "class": in_plain_text(image.label),
            "thumbnail": thumbnail_of(image.image_id),
        }
    )


def in_plain_text(path: str) -> str:
    """Return a path for JSON; bytes that are not UTF-8 become question marks."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def without_folders(text: str, folders: Mapping[str, str]) -> str:
    """Return a text for whoever asks: where things lie on this machine is left out.

    Args:
        text: such as the sentence of an error.
        folders: each with words for the folder itself; of what lies in one, the path from there is
            told.

    Example:
        >>> without_folders("/a/b.csv:2: no such class", {"/a": "the folder"})
        'b.csv:2: no such class'
    """
    words = dict(folders)
    words.pop(os.curdir, None)  # the parent of a mere name; a full stop is no folder
    longest_first = sorted(words, key=len, reverse=True)
    for folder in longest_first:
        text = text.replace(f"{folder}{os.sep}", "")
    for folder in longest_first:  # only now: one may begin the name of a file beside it
        text = text.replace(folder, words[folder])
    return in_plain_text(text)


def likeness_in_words(probability: float | None) -> str | None:
    """Return a probability as people say it; None for None.

    Example:
        >>> likeness_in_words(0.97)
        'very likely the same'
    """
    if probability is None:
        return None
    return next(words for least, words in WORDS if probability >= least)
