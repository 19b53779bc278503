"""The addresses of "not a duplicate": a picture leaves a group, and may come back."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, JsonValue

from deep_ranking.datasets.not_duplicates import NotDuplicatesLog, read_not_duplicates
from deep_ranking.files import InputError
from deep_ranking.sampling.implied_answers import implied_answers
from deep_ranking.serving.answers import ImageAnswer, in_plain_text, told_image
from deep_ranking.serving.forms import AN_ID, Absent, Fields, Name, described, read_form
from deep_ranking.serving.image_ids import find_by_path
from deep_ranking.serving.opened import OpenState, ServedCollection
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

    pairs: list[PairAnswer]
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

    async def told(served: ServedCollection) -> ToldApartAnswer:
        return await serving.on(served.name, lambda state: _told(served, state))

    @router.get("/duplicates/told_apart", summary="Pairs that people said are no duplicates")
    async def pairs(collection: Name = None) -> ToldApartAnswer:
        return await told(serving.named(collection))

    @router.post(
        "/duplicates/told_apart",
        summary="Say that an image is no duplicate of another; it leaves the group",
        openapi_extra=described(ToldApartFields),
    )
    async def tell_apart(request: Request) -> ToldApartAnswer:
        fields: ToldApartFields = (await read_form(request, ToldApartFields)).fields
        served = allowed(fields.collection)
        await serving.on(served.name, lambda state: _tell_apart(served, state, fields))
        return await told(served)

    @router.post(
        "/duplicates/alike",
        summary="Take back that two images are no duplicates",
        openapi_extra=described(AlikeFields),
    )
    async def take_back(request: Request) -> ToldApartAnswer:
        fields: AlikeFields = (await read_form(request, AlikeFields)).fields
        served = allowed(fields.collection)
        await asyncio.to_thread(_take_back, served, fields)
        return await told(served)


def _told(served: ServedCollection, state: OpenState) -> ToldApartAnswer:
    collection = state.one_index("A list of duplicates")
    pairs = read_not_duplicates(served.not_duplicates)
    told = []
    for pair, who in reversed(pairs.items()):
        paths = sorted(pair)
        found = [find_by_path(collection, path) for path in paths]
        told.append(
            PairAnswer(
                paths=[in_plain_text(path) for path in paths],
                images=[None if each is None else told_image(each) for each in found],
                who=in_plain_text(who),
            )
        )
    return ToldApartAnswer(pairs=told, implied=len(implied_answers(collection, pairs)))


def _tell_apart(served: ServedCollection, state: OpenState, fields: ToldApartFields) -> None:
    state.one_index("A list of duplicates")
    keeper, image = (known_image(state, given) for given in (fields.keeper, fields.image))
    if keeper.content == image.content:
        raise RequestError(422, "image: its file is equal to that of the keeper.")
    try:
        NotDuplicatesLog(served.not_duplicates).add(keeper.path, image.path, who=fields.rater or "")
    except InputError as error:
        raise _refused(error) from None


def _take_back(served: ServedCollection, fields: AlikeFields) -> None:
    try:
        if frozenset((fields.image, fields.other)) not in read_not_duplicates(
            served.not_duplicates
        ):
            raise RequestError(404, "image, other: nobody told these two apart.")
        log = NotDuplicatesLog(served.not_duplicates)
        log.take_back(fields.image, fields.other, who=fields.rater or "")
    except InputError as error:
        raise _refused(error) from None


def _refused(error: InputError) -> RequestError:
    """Return the answer to what cannot be kept, without the folder of the file."""
    text = str(error)
    return RequestError(
        409, f"It cannot be kept: {text.rpartition('/')[2] if '/' in text else text}"
    )
