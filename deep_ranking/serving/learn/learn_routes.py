"""The addresses of learning from answers: how far it is, "learn now", and the way back."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import Field

from deep_ranking.serving.answers import LearningAnswer
from deep_ranking.serving.forms import Fields, Name, described, read_form
from deep_ranking.serving.learn.learning import Learning
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.serving_state import Serving


class ShownFields(Fields):
    """The fields of a request to show what was taught."""

    generation: int = Field(ge=0, description="what to show; 0 for the index itself")


def add_learning(router: APIRouter, serving: Serving) -> None:
    """Add the addresses; without `--teach`, each says so."""

    def taught(collection: str | None) -> Learning:
        serving.named(collection)
        if serving.learning is None:
            raise RequestError(403, "This server learns nothing; start it with --teach.")
        return serving.learning

    @router.get("/teach/learning", summary="How far learning from answers is, and what is shown")
    async def state(collection: Name = None) -> LearningAnswer:
        return await asyncio.to_thread(taught(collection).state)

    @router.post(
        "/teach/learn",
        status_code=202,
        summary="Begin to learn from all answers; what was learned is shown if it is better",
        openapi_extra=described(Fields),
    )
    async def learn(request: Request) -> LearningAnswer:
        learning = taught((await read_form(request, Fields)).fields.collection)
        learning.learn()
        return await asyncio.to_thread(learning.state)

    @router.post(
        "/teach/shown",
        summary="Show the index itself, or what was taught",
        openapi_extra=described(ShownFields),
    )
    async def show(request: Request) -> LearningAnswer:
        fields = (await read_form(request, ShownFields)).fields
        learning = taught(fields.collection)
        await asyncio.to_thread(learning.show, fields.generation)
        return await asyncio.to_thread(learning.state)
