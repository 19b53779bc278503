"""What the API answers about errors of a model, as models that its description is made from."""

from collections.abc import Callable, Mapping

from pydantic import BaseModel, Field

from deep_ranking.datasets.corrections import Corrections
from deep_ranking.reports.atlas.errors import (
    WrongNearest,
    confusion_examples,
    evidence,
)
from deep_ranking.serving.answers import ImageAnswer, in_plain_text, told_image
from deep_ranking.serving.errors.errors import CollectionErrors, corrected_class, is_confirmed
from deep_ranking.serving.image_ids import KnownImage

MOST_SUSPECTS, MOST_WRONG, MOST_FAR = 100, 60, 24
MOST_PAIRS, MOST_EXAMPLES = 12, 4
MOST_CORRECTIONS = 100


class SuspectAnswer(BaseModel):
    """An image whose label is likely wrong."""

    image: ImageAnswer
    proposed: str = Field(description="the class that fits it best")
    evidence: str
    witness: ImageAnswer = Field(description="the nearest image of that class")


class WrongAnswer(BaseModel):
    """An image whose nearest is of another class."""

    image: ImageAnswer
    nearest: ImageAnswer
    own: ImageAnswer = Field(description="the nearest image of its own class")
    lead: float = Field(description="by how much the nearest is nearer than that")


class ConfusedAnswer(BaseModel):
    """Two classes that the model takes for each other."""

    first: str
    second: str
    num_first: int = Field(description="images of the first whose nearest is of the second")
    num_second: int = Field(description="the other way round")
    examples: list[WrongAnswer]


class FarAnswer(BaseModel):
    """An image that is far from all of its class."""

    image: ImageAnswer
    own: ImageAnswer = Field(description="the nearest image of its class")
    cosine: float = Field(description="with the mean of the others of its class")
    usual: float = Field(description="the median of that in its class")


class ErrorsAnswer(BaseModel):
    """Where the model errs on the classes of a collection, the clearest first."""

    collection: str
    images: int = Field(description="images that were compared")
    left_out: int = Field(description="images with a class that were not, for there are so many")
    alone: int = Field(description="images alone in their class, which cannot be judged")
    classes: list[str]
    suspects: list[SuspectAnswer]
    num_suspects: int
    confused: list[ConfusedAnswer]
    num_confused: int
    wrong: list[WrongAnswer]
    num_wrong: int
    far: list[FarAnswer]
    num_far: int
    num_right: int = Field(
        description="labels that are not suspected, because somebody said that they are right"
    )
    since: int = Field(description="images that were corrected since these errors were found")


class CorrectionAnswer(BaseModel):
    """A correction that stands, or a label that is right: then both classes are the same."""

    path: str
    id: str | None = Field(description="of the image; null if the collection lacks it")
    from_class: str
    to_class: str = Field(description='"" for none')
    time: str


class CorrectionsAnswer(BaseModel):
    """The corrections that stand, and the labels that are right, the newest first; up to 100."""

    total: int
    corrections: list[CorrectionAnswer]


class KeptCorrectionAnswer(BaseModel):
    """A correction that is on the disk."""

    id: str
    from_class: str
    to_class: str
    is_new_class: bool = Field(description="whether no other image of the collection has the class")


class TakenBackCorrectionAnswer(BaseModel):
    """A correction that was taken back."""

    id: str
    class_: str = Field(alias="class", description="the class that the image has now")


def told_errors(
    name: str,
    found: CollectionErrors,
    contents: Callable[[list[str]], Mapping[str, bytes]],
    known: Corrections | None,
) -> ErrorsAnswer:
    """Return the first errors of each kind.

    Images that were corrected since, or are gone, are left out.

    Args:
        name: of the collection.
        found: its errors.
        contents: returns the content of images by their paths, of those that are there.
        known: the corrections that stand.
    """
    errors = found.errors
    changed, confirmed = set(), set()
    if known is not None:
        confirmed = {
            each.row
            for each in errors.likely
            if is_confirmed(known, found.images[each.row].path, found.images[each.row].label)
        }
        changed = {
            row
            for row, each in enumerate(found.images)
            if corrected_class(known, each.path, each.label) != each.label
        }
    doubted = {each.row for each in errors.likely}
    suspects = [each for each in errors.likely if each.row not in changed | confirmed]
    wrong = [each for each in errors.wrong if each.row not in doubted | changed]
    far = [each for each in errors.far if each.row not in changed]
    by_row = {each.row: each for each in errors.wrong}
    examples = [
        [by_row[row] for row in confusion_examples(errors, each) if row not in changed]
        for each in errors.confusions[:MOST_PAIRS]
    ]
    shown_wrong = [*wrong[:MOST_WRONG], *(one for each in examples for one in each[:MOST_EXAMPLES])]
    rows = {row for each in shown_wrong for row in (each.row, each.nearest, each.own)}
    rows |= {row for each in suspects[:MOST_SUSPECTS] for row in (each.row, each.witness)}
    rows |= {row for each in far[:MOST_FAR] for row in (each.row, each.own)}
    images = _images(found, sorted(rows), contents)

    def told_wrong(some: list[WrongNearest], most: int) -> list[WrongAnswer]:
        return [
            WrongAnswer(
                image=images[each.row],
                nearest=images[each.nearest],
                own=images[each.own],
                lead=each.lead,
            )
            for each in some[:most]
            if {each.row, each.nearest, each.own} <= images.keys()
        ]

    return ErrorsAnswer(
        collection=name,
        images=len(found.images),
        left_out=found.num_left_out,
        alone=errors.num_alone,
        classes=list(map(in_plain_text, found.names)),
        suspects=[
            SuspectAnswer(
                image=images[each.row],
                proposed=in_plain_text(found.names[each.proposed]),
                evidence=in_plain_text(
                    evidence(
                        each,
                        own=found.images[each.row].label,
                        proposed=found.names[each.proposed],
                    )
                ),
                witness=images[each.witness],
            )
            for each in suspects[:MOST_SUSPECTS]
            if {each.row, each.witness} <= images.keys()
        ],
        num_suspects=len(errors.suspects) - len(errors.likely) + len(suspects),
        confused=[
            ConfusedAnswer(
                first=in_plain_text(found.names[each.first]),
                second=in_plain_text(found.names[each.second]),
                num_first=each.num_first,
                num_second=each.num_second,
                examples=told_wrong(some, MOST_EXAMPLES),
            )
            for each, some in zip(errors.confusions, examples, strict=False)
        ],
        num_confused=len(errors.confusions),
        wrong=told_wrong(wrong, MOST_WRONG),
        num_wrong=len(wrong),
        far=[
            FarAnswer(
                image=images[each.row],
                own=images[each.own],
                cosine=each.cosine,
                usual=each.usual,
            )
            for each in far[:MOST_FAR]
            if {each.row, each.own} <= images.keys()
        ],
        num_far=len(far),
        num_right=errors.num_confirmed + len(confirmed - changed),
        since=len(changed),
    )


def _images(
    found: CollectionErrors,
    rows: list[int],
    contents: Callable[[list[str]], Mapping[str, bytes]],
) -> dict[int, ImageAnswer]:
    of_paths = contents([found.images[row].path for row in rows])
    told = {}
    for row in rows:
        each = found.images[row]
        if each.path in of_paths:
            image = KnownImage(each.path, each.label, each.row, of_paths[each.path])
            told[row] = told_image(image)
    return told


def told_corrections(
    known: Corrections, contents: Callable[[list[str]], Mapping[str, bytes]]
) -> CorrectionsAnswer:
    """Return the corrections that stand, and the labels that are right, the newest first.

    Args:
        known: them.
        contents: as for `told_errors`.
    """
    lines = list((known.right | known.standing).values())
    newest = sorted(lines, key=lambda each: each.time)[::-1][:MOST_CORRECTIONS]
    of_paths = contents([each.path for each in newest])
    return CorrectionsAnswer(
        total=len(lines),
        corrections=[
            CorrectionAnswer(
                path=in_plain_text(each.path),
                id=(
                    KnownImage(each.path, "", 0, of_paths[each.path]).image_id
                    if each.path in of_paths
                    else None
                ),
                from_class=in_plain_text(each.from_class),
                to_class=in_plain_text(each.to_class),
                time=each.time,
            )
            for each in newest
        ],
    )
