"""The addresses of a model's errors: what they are, corrections of classes, taking one back."""

from contextlib import closing
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from deep_ranking.serving.answers import in_plain_text
from deep_ranking.serving.errors.error_answers import (
    CorrectionsAnswer,
    ErrorsAnswer,
    KeptCorrectionAnswer,
    TakenBackCorrectionAnswer,
    told_corrections,
    told_errors,
)
from deep_ranking.serving.errors.errors import Correcting
from deep_ranking.serving.forms import AN_ID, Absent, Fields, Name, described, read_form
from deep_ranking.serving.image_ids import KnownImage, contents_of, find_by_id
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.serving_state import Serving

REFUSALS: dict[int | str, dict[str, str]] = {507: {"description": "the disk is full"}}


class CorrectedFields(Fields):
    """The fields of every request about the class of an image."""

    id: str = Field(description="of the image", json_schema_extra=AN_ID)
    who: str | Absent = Field(None, max_length=200, description="says so")


class CorrectFields(CorrectedFields):
    """The fields of a correction."""

    class_: str | Absent = Field(
        None, alias="class", max_length=1000, description="the right class; it may be a new one"
    )
    none: bool = Field(False, description="instead: the image belongs to no class")
    right: bool = Field(False, description="instead: the class that it has is right")


def add_errors(router: APIRouter, serving: Serving) -> None:
    """Add the errors and the corrections."""

    def correcting() -> Correcting:
        if serving.correcting is None:
            raise RequestError(
                403, "This server takes no corrections; start it with --corrections to allow them."
            )
        return serving.correcting

    @router.get("/errors", summary="Where the model errs on the classes of a collection")
    async def errors(
        collection: Name = None,
        anew: Annotated[
            bool, Query(description="find them again, with what was corrected since")
        ] = False,
    ) -> ErrorsAnswer:
        state, found = await serving.found_errors(collection, anew=anew)
        return await serving.on(
            collection,
            lambda _: told_errors(
                state.name,
                found,
                lambda paths: contents_of(state.collection, paths),
                None if serving.correcting is None else serving.correcting.read(),
            ),
        )

    @router.get("/errors/corrections", summary="The corrections that stand, the newest first")
    async def corrections(collection: Name = None) -> CorrectionsAnswer:
        kept = correcting()
        return await serving.on(
            collection,
            lambda state: told_corrections(
                kept.read(), lambda paths: contents_of(state.collection, paths)
            ),
        )

    @router.post(
        "/errors/correct",
        summary="Say that the class of an image is wrong, or right; what is kept is on the disk",
        openapi_extra=described(CorrectFields),
        responses=REFUSALS,
    )
    async def correct(request: Request) -> KeptCorrectionAnswer:
        kept = correcting()
        fields: CorrectFields = (await read_form(request, CorrectFields)).fields
        to_class = (fields.class_ or "").strip()
        if bool(to_class) + fields.none + fields.right != 1:
            raise RequestError(
                422, "class, none, right: send the right class, or none=true, or right=true."
            )

        def made(state: OpenState) -> KeptCorrectionAnswer:
            image = _image(state, fields.id)
            who = fields.who or ""
            done = kept.confirm(image, who) if fields.right else kept.correct(image, to_class, who)
            with closing(state.collection.images()) as table:
                is_new = bool(done.to_class) and done.to_class not in table.classes()
            return KeptCorrectionAnswer(
                id=fields.id,
                from_class=in_plain_text(done.from_class),
                to_class=in_plain_text(done.to_class),
                is_new_class=is_new,
            )

        return await serving.on(fields.collection, made)

    @router.post(
        "/errors/take_back",
        summary="Take back the last correction of an image",
        openapi_extra=described(CorrectedFields),
        responses=REFUSALS,
    )
    async def take_back(request: Request) -> TakenBackCorrectionAnswer:
        kept = correcting()
        fields: CorrectedFields = (await read_form(request, CorrectedFields)).fields

        def taken_back(state: OpenState) -> TakenBackCorrectionAnswer:
            label = kept.take_back(_image(state, fields.id), fields.who or "")
            return TakenBackCorrectionAnswer.model_validate(
                {"id": fields.id, "class": in_plain_text(label)}
            )

        return await serving.on(fields.collection, taken_back)


def _image(state: OpenState, given: str) -> KnownImage:
    found = find_by_id(state.collection, given)
    if found is None:
        raise RequestError(404, "id: no such image.")
    return found
