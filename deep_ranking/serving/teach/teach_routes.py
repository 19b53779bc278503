"""The addresses of questions to people: what is known, the next one, answers, taking one back."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import Field

from deep_ranking.datasets.ratings import CHOSEN
from deep_ranking.serving.answers import told_image
from deep_ranking.serving.forms import AN_ID, Absent, Fields, Name, described, read_form
from deep_ranking.serving.image_ids import KnownImage
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.serving_state import Serving
from deep_ranking.serving.teach.teach_answers import (
    MOST_RATERS,
    KeptAnswer,
    NextAnswer,
    QuestionAnswer,
    TakenBackAnswer,
    TeachAnswer,
    told_between,
    told_rater,
    told_raters,
)
from deep_ranking.serving.teach.teaching import A, B, ShownQuestion, Teaching

SIDES = {"a": A, "b": B, "cannot_say": None}
REFUSALS: dict[int | str, dict[str, str]] = {507: {"description": "the disk is full"}}


class RaterFields(Fields):
    """The field of every request by a rater."""

    rater: str | Absent = Field(
        None, description="who answers; by default, whom the server was started with"
    )


class QuestionFields(RaterFields):
    """The fields of a request that may be about a question."""

    query: str | Absent = Field(None, description="id of the query", json_schema_extra=AN_ID)
    a: str | Absent = Field(None, description="id of the image on side A", json_schema_extra=AN_ID)
    b: str | Absent = Field(None, description="id of the image on side B", json_schema_extra=AN_ID)


class AnswerFields(RaterFields):
    """The fields of an answer."""

    query: str = Field(description="id of the query", json_schema_extra=AN_ID)
    a: str = Field(description="id of the image on side A", json_schema_extra=AN_ID)
    b: str = Field(description="id of the image on side B", json_schema_extra=AN_ID)
    answer: Literal["a", "b", "cannot_say"] = Field(description="which is more like the query")
    asked: Literal["informative", "random", "repeat", "imported"] = Field(
        "informative", description="of the question, as it was sent"
    )
    before: int = Field(0, ge=0, le=1_000_000, description="of the question, as it was sent")


def add_teaching(router: APIRouter, serving: Serving) -> None:
    """Add the questions."""

    @router.get("/teach", summary="What people answered about the collection")
    async def state(collection: Name = None) -> TeachAnswer:
        found = serving.asking()
        return await serving.on(collection, lambda state: _state(found, state))

    @router.post(
        "/teach/question",
        summary="The next question: which of a and b is more like the query?",
        openapi_extra=described(QuestionFields),
    )
    async def question(request: Request) -> NextAnswer:
        """Ask; ids name a question that the rater looks at, as if it were answered."""
        found = serving.asking()
        fields: QuestionFields = (await read_form(request, QuestionFields)).fields
        rater, pending = found.named(fields.rater), _ids(fields)
        return await serving.on(
            fields.collection, lambda state: _next(found, state, rater, pending)
        )

    @router.post(
        "/teach/answers",
        summary="Answer a question; what is confirmed is on the disk",
        openapi_extra=described(AnswerFields),
        responses=REFUSALS,
    )
    async def keep(request: Request) -> KeptAnswer:
        found = serving.asking()
        fields: AnswerFields = (await read_form(request, AnswerFields)).fields
        rater = found.named(fields.rater)

        def kept(state: OpenState) -> KeptAnswer:
            given = ShownQuestion(
                ("", "", ""), fields.asked, state.collection.settings.fingerprint, fields.before
            )
            ids = (fields.query, fields.a, fields.b)
            is_new = found.keep(state, rater, ids, SIDES[fields.answer], given)
            return KeptAnswer(already=not is_new, rater=told_rater(found.ratings(), rater))

        return await serving.on(fields.collection, kept)

    @router.post(
        "/teach/take_back",
        summary="Take back a rater's last answer that stands",
        openapi_extra=described(QuestionFields),
        responses=REFUSALS,
    )
    async def take_back(request: Request) -> TakenBackAnswer:
        """Take back; ids name the answer that is meant, so that no other one is taken back."""
        found = serving.asking()
        fields: QuestionFields = (await read_form(request, QuestionFields)).fields
        rater, expected = found.named(fields.rater), _ids(fields)

        def taken_back(state: OpenState) -> TakenBackAnswer:
            answer = found.take_back(rater, expected, state)
            again = found.show_again(state, rater, answer)
            side = (answer.side or A).lower() if answer.answer == CHOSEN else answer.answer
            return TakenBackAnswer(
                question=None if again is None else _question(*again),
                answer=side,
                rater=told_rater(found.ratings(), rater),
            )

        return await serving.on(fields.collection, taken_back)


def _ids(fields: QuestionFields) -> tuple[str, str, str] | None:
    if fields.query is not None and fields.a is not None and fields.b is not None:
        return fields.query, fields.a, fields.b
    if (fields.query, fields.a, fields.b) != (None, None, None):
        raise RequestError(422, "query, a, b: send all three of them, or none.")
    return None


def _state(teaching: Teaching, state: OpenState) -> TeachAnswer:
    pool, ratings = teaching.pool(state), teaching.ratings()
    known = pool.index_by_path(ratings.paths)
    gone = [path not in known for path in ratings.paths]
    raters = told_raters(ratings)
    return TeachAnswer(
        collection=state.name,
        rater=teaching.rater,
        images=len(pool.rows),
        left_out=pool.num_left_out,
        answers=len(ratings),
        gone=sum(any(gone[each] for each in row) for row in ratings.rows.tolist()),
        raters=raters[:MOST_RATERS],
        more_raters=max(0, len(raters) - MOST_RATERS),
        between=told_between(ratings),
    )


def _next(
    teaching: Teaching, state: OpenState, rater: str, pending: Sequence[str] | None
) -> NextAnswer:
    found = teaching.ask(state, rater, pending)
    return NextAnswer(
        question=None if found is None else _question(*found),
        rater=told_rater(teaching.ratings(), rater),
    )


def _question(shown: ShownQuestion, images: Sequence[KnownImage]) -> QuestionAnswer:
    query, a, b = map(told_image, images)
    return QuestionAnswer(query=query, a=a, b=b, asked=shown.asked, before=shown.before)
