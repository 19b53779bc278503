"""The addresses of "not a duplicate": a picture leaves a group, and may come back."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, JsonValue

from deep_ranking.datasets.not_duplicates import NotDuplicatesLog, checked_pair
from deep_ranking.files import InputError
from deep_ranking.sampling.implied_answers import implied_answers
from deep_ranking.serving.answers import ImageAnswer, in_plain_text, told_image
from deep_ranking.serving.duplicates.duplicate_groups import Cursor, place_of
from deep_ranking.serving.forms import (
    AN_ID,
    DEFAULT_TOP,
    Absent,
    Fields,
    Name,
    Top,
    described,
    read_form,
)
from deep_ranking.serving.image_ids import find_by_path
from deep_ranking.serving.kept_files import LOCK_SECONDS, told_of_file
from deep_ranking.serving.opened import TOLD_APART, OpenState, ServedCollection
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.query_images import known_image
from deep_ranking.serving.serving_state import Serving

TEXT: dict[str, JsonValue] = {"minLength": 1}


class ToldApartFields(Fields):
    """The fields of a request to tell two images apart."""

    keeper: str = Field(description="id of the image that is kept", json_schema_extra=AN_ID)
    image: str = Field(
        description="id of the one that is no duplicate of it", json_schema_extra=AN_ID
    )
    rater: str | Absent = Field(None, description="who says so")


class AlikeFields(Fields):
    """The fields of a request to take that back."""

    image: str = Field(description="path of one of the two, as it was told", json_schema_extra=TEXT)
    other: str = Field(description="path of the other one", json_schema_extra=TEXT)
    rater: str | Absent = Field(None, description="who says so")


class PairAnswer(BaseModel):
    """Two images that are no duplicates; an image is null if the collection lacks it."""

    paths: list[str]
    images: list[ImageAnswer | None]
    who: str


class ToldApartAnswer(BaseModel):
    """The pairs that are no duplicates, the last one first."""

    total: int = Field(description="pairs in all")
    pairs: list[PairAnswer]
    cursor: str | None = Field(description="to ask for the pairs before them; null for none")
    implied: int = Field(description="answers that follow from them, for what learns")


def add_told_apart(router: APIRouter, serving: Serving) -> None:
    """Add the addresses."""

    def allowed(collection: str | None) -> ServedCollection:
        served = serving.named(collection)
        if serving.settings.ratings is None and not serving.settings.allow_changes:
            raise RequestError(
                403, "This server changes nothing; start it with --teach or --allow_changes."
            )
        return served

    @router.get("/duplicates/told_apart", summary="Pairs that people said are no duplicates")
    async def pairs(
        top: Top = DEFAULT_TOP, cursor: Cursor = None, collection: Name = None
    ) -> ToldApartAnswer:
        served = serving.named(collection)
        return await serving.on(served.name, lambda state: _told(served, state, top, cursor))

    @router.post(
        "/duplicates/told_apart",
        summary="Say that an image is no duplicate of another; it leaves the group",
        openapi_extra=described(ToldApartFields),
    )
    async def tell_apart(request: Request) -> ToldApartAnswer:
        fields: ToldApartFields = (await read_form(request, ToldApartFields)).fields
        served = allowed(fields.collection)
        return await serving.on(served.name, lambda state: _tell_apart(served, state, fields))

    @router.post(
        "/duplicates/alike",
        summary="Take back that two images are no duplicates",
        openapi_extra=described(AlikeFields),
    )
    async def take_back(request: Request) -> ToldApartAnswer:
        fields: AlikeFields = (await read_form(request, AlikeFields)).fields
        served = allowed(fields.collection)
        return await serving.on(served.name, lambda state: _take_back(served, state, fields))


def _told(
    served: ServedCollection, state: OpenState, top: int = DEFAULT_TOP, cursor: str | None = None
) -> ToldApartAnswer:
    collection = state.one_index("A list of duplicates")
    pairs = served.told_apart()
    # A cursor counts from the oldest pair: a new one moves no other.
    place = place_of(cursor)
    end = len(pairs) if place is None else min(place, len(pairs))
    begin = max(0, end - top)
    told = []
    for pair, who in reversed(list(pairs.items())[begin:end]):
        paths = sorted(pair)
        found = [find_by_path(collection, path) for path in paths]
        told.append(
            PairAnswer(
                paths=[in_plain_text(path) for path in paths],
                images=[None if each is None else told_image(each) for each in found],
                who=in_plain_text(who),
            )
        )
    return ToldApartAnswer(
        total=len(pairs),
        pairs=told,
        cursor=str(begin) if begin else None,
        implied=len(implied_answers(collection, pairs)),
    )


def _tell_apart(
    served: ServedCollection, state: OpenState, fields: ToldApartFields
) -> ToldApartAnswer:
    state.one_index("A list of duplicates")
    keeper, image = (known_image(state, given) for given in (fields.keeper, fields.image))
    if keeper.content == image.content:
        raise RequestError(422, "image: its file is equal to that of the keeper.")
    _check_pair(keeper.path, image.path, fields.rater)
    served.told_apart()  # to a damaged file nothing is added
    with told_of_file(served.not_duplicates, TOLD_APART):
        _log(served).add(keeper.path, image.path, who=fields.rater or "")
    return _told(served, state)


def _take_back(served: ServedCollection, state: OpenState, fields: AlikeFields) -> ToldApartAnswer:
    if frozenset((fields.image, fields.other)) not in served.told_apart():
        raise RequestError(404, "image, other: nobody told these two apart.")
    _check_pair(fields.image, fields.other, fields.rater)
    with told_of_file(served.not_duplicates, TOLD_APART):
        _log(served).take_back(fields.image, fields.other, who=fields.rater or "")
    return _told(served, state)


def _log(served: ServedCollection) -> NotDuplicatesLog:
    return NotDuplicatesLog(served.not_duplicates, lock_seconds=LOCK_SECONDS)


def _check_pair(image: str, other: str, rater: str | None) -> None:
    try:
        checked_pair(image, other, rater or "")
    except InputError as error:
        raise RequestError(422, f"image, rater: {in_plain_text(str(error))}.") from None
