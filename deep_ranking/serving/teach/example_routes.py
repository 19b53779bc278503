"""The addresses of "Teach this": what the examples of a search teach, and taking it back."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from deep_ranking.serving.forms import AN_ID, Absent, Fields, described, read_form
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.serving_state import Serving
from deep_ranking.serving.teach.example_answers import (
    answers_of_examples,
    keep_new,
    take_back_examples,
)


class ExampleFields(Fields):
    """The fields of a search whose examples teach, besides these."""

    id: str = Field(description="query: id of an image in the collection", json_schema_extra=AN_ID)
    rater: str | Absent = Field(None, description="whose answers they are")


class TakeBackFields(Fields):
    """The fields of a request to take that back."""

    answers: int = Field(ge=1, le=1000, description="how many, as they were told")
    rater: str | Absent = Field(None, description="whose they are")


class TaughtAnswer(BaseModel):
    """What examples taught, or how many answers were taken back."""

    answers: int = Field(description="answers that were kept, or taken back, now")
    already: int = Field(description="answers that stood already")


def add_example_teaching(router: APIRouter, serving: Serving) -> None:
    """Add the addresses."""

    @router.post(
        "/teach/examples",
        summary="Keep what the examples of a search say: a plus example is more like the query",
        openapi_extra=described(ExampleFields, "positive", positive="ids", negative="some"),
    )
    async def teach(request: Request) -> TaughtAnswer:
        found = serving.asking()
        form = await read_form(request, ExampleFields, "positive", "negative")
        fields: ExampleFields = form.fields
        rater = found.named(fields.rater)
        plus, minus = (_ids(form.parts[name], name) for name in ("positive", "negative"))

        def kept(state: OpenState) -> TaughtAnswer:
            answers = answers_of_examples(state, fields.id, plus, minus, rater)
            number = keep_new(found, answers)
            return TaughtAnswer(answers=number, already=len(answers) - number)

        return await serving.on(fields.collection, kept)

    @router.post(
        "/teach/examples/take_back",
        summary="Take back the last answers of a rater, which came from examples",
        openapi_extra=described(TakeBackFields),
    )
    async def take_back(request: Request) -> TaughtAnswer:
        found = serving.asking()
        fields: TakeBackFields = (await read_form(request, TakeBackFields)).fields
        rater = found.named(fields.rater)

        def taken_back(_: OpenState) -> TaughtAnswer:
            take_back_examples(found, rater, fields.answers)
            return TaughtAnswer(answers=fields.answers, already=0)

        return await serving.on(fields.collection, taken_back)


def _ids(given: Sequence[str | bytes], field: str) -> list[str]:
    ids = [each for each in given if isinstance(each, str)]
    if len(ids) < len(given):
        raise RequestError(
            422, f"{field}: answers are about images of the collection; leave your own out."
        )
    return ids
