"""The addresses of the map of a collection, and of what is known of the images chosen on it."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from deep_ranking.serving import answers
from deep_ranking.serving.forms import MOST_TOP, ImagesFields, Name, described, read_form
from deep_ranking.serving.image_ids import KnownImage, find_by_ids, find_by_path
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.serving_state import Serving

POLL_SECONDS = 1


def add_map(router: APIRouter, serving: Serving) -> None:
    """Add the map, and the images of ids."""
    others: dict[int | str, dict[str, Any]] = {
        202: {
            "model": answers.MapProgress,
            "description": "the map is being made; Retry-After says when to ask again",
        },
        304: {"description": "the browser has it"},
    }

    @router.get(
        "/map",
        summary="A map of a collection: similar images lie near each other",
        response_model=answers.MapAnswer,
        responses=others,
    )
    async def map_of(request: Request, collection: Name = None) -> Response:
        found = await serving.on(collection, serving.maps.find)
        if isinstance(found, answers.MapProgress):
            headers = {"Retry-After": str(POLL_SECONDS)}
            return JSONResponse(found.model_dump(), 202, headers=headers)
        headers = {"ETag": f'"{found.key}"', "Cache-Control": "private, no-cache"}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.data, media_type="application/json", headers=headers)

    @router.post(
        "/images",
        summary="What is known of images, by their ids or a path",
        openapi_extra=described(ImagesFields),
    )
    async def images_of(request: Request) -> answers.ImagesAnswer:
        form = await read_form(request, ImagesFields)
        path, name = form.fields.path, form.fields.collection
        ids = [each.strip() for each in (form.fields.ids or "").split(",") if each.strip()]
        if path is not None and not ids:
            return await serving.on(name, lambda state: _of_path(state, path))
        if path is not None or not 1 <= len(ids) <= MOST_TOP:
            raise RequestError(
                422, f"ids: expected 1 to {MOST_TOP} ids, separated by commas; or a path instead."
            )
        return await serving.on(name, lambda state: _of_ids(state, ids))


def _of_path(state: OpenState, path: str) -> answers.ImagesAnswer:
    found = find_by_path(state.collection, path)
    return _described(state, [] if found is None else [found], 1)


def _of_ids(state: OpenState, ids: list[str]) -> answers.ImagesAnswer:
    return _described(state, find_by_ids(state.collection, ids), len(ids))


def _described(state: OpenState, found: list[KnownImage], asked: int) -> answers.ImagesAnswer:
    return answers.ImagesAnswer(
        collection=state.name,
        images=list(map(answers.told_image, found)),
        unknown=asked - len(found),
    )
