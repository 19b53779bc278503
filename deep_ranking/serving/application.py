"""The server as an application: what each request passes, and what answers it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match

from deep_ranking import __version__
from deep_ranking.serving.answers import ErrorAnswer
from deep_ranking.serving.duplicates.told_apart_routes import add_told_apart
from deep_ranking.serving.errors.error_routes import add_errors
from deep_ranking.serving.forms import in_a_sentence, keep_uploads_in_memory
from deep_ranking.serving.guard import UNEXPECTED, Guard
from deep_ranking.serving.learn.learn_routes import add_learning
from deep_ranking.serving.learn.learning import Learning
from deep_ranking.serving.map.map_routes import add_map
from deep_ranking.serving.map.maps import MapMaker
from deep_ranking.serving.opened import ServedCollection
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.routes import add_duplicates, add_images, add_searches
from deep_ranking.serving.serving_state import Serving
from deep_ranking.serving.settings import ServerSettings
from deep_ranking.serving.static_pages import add_pages
from deep_ranking.serving.teach.example_routes import add_example_teaching
from deep_ranking.serving.teach.teach_routes import add_teaching

A_REFUSAL = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"content": A_REFUSAL, "description": text}
    for status, text in (
        (400, "the request cannot be read"),
        (401, "the token is missing or wrong"),
        (403, "this is not allowed"),
        (404, "there is no such image or collection"),
        (408, "the request took too long to arrive"),
        (409, "this cannot be done now"),
        (410, "the file of the image is gone or has changed"),
        (413, "the upload is too large"),
        (415, "the body is no form"),
        (421, "the server is not called so"),
        (422, "a field, or an image, cannot be used"),
        (500, "the server made an error"),
        (503, "the server is busy, or the collection cannot be used; Retry-After says when to try"),
    )
}
# FastAPI builds a validator of the model for every route and status that names it: once is enough.
REFUSALS[500] = {"model": ErrorAnswer, "description": REFUSALS[500]["description"]}


def create_application(
    served: Mapping[str, ServedCollection],
    settings: ServerSettings,
    maps: MapMaker | None = None,
    learning: Learning | None = None,
) -> Guard:
    """Return the server as an ASGI application.

    Args:
        served: the collections, by name; one or more.
        settings: of the server.
        maps: what makes their maps; the caller closes it.
        learning: what learns from answers, likewise; None for nothing.

    Raises:
        InputError: people cannot be asked about the collection, as the settings want.
    """
    api = FastAPI(
        title="Deep Ranking",
        version=__version__,
        description="Search collections of images by what they look like.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        redirect_slashes=False,
    )
    keep_uploads_in_memory(settings.upload_bytes)
    api.add_exception_handler(RequestError, _as_answer)
    api.add_exception_handler(RequestValidationError, _as_answer)
    api.add_exception_handler(Exception, _as_unexpected)
    serving = Serving(served, settings, maps or MapMaker(settings.cache_bytes))
    serving.learning = learning
    if serving.teaching is not None and learning is not None:
        serving.teaching.spaces = learning.spaces
    router = APIRouter(prefix="/api/v1", responses=REFUSALS)
    add_searches(router, serving)
    add_images(router, serving)
    add_duplicates(router, serving)
    add_map(router, serving)
    add_teaching(router, serving)
    add_example_teaching(router, serving)
    add_learning(router, serving)
    add_told_apart(router, serving)
    add_errors(router, serving)
    api.include_router(router)
    add_pages(api)
    api.add_exception_handler(405, _answer_to_other_methods([*router.routes, *api.routes]))
    return Guard(api, settings)


def _as_answer(_: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = RequestError(422, in_a_sentence(error.errors()))
    assert isinstance(error, RequestError)
    return JSONResponse({"detail": error.sentence}, error.status, headers=error.headers)


async def _as_unexpected(_: Request, error: Exception) -> Response:
    """Answer to an error of the server; Starlette raises it again, and the guard prints it."""
    return JSONResponse({"detail": UNEXPECTED}, 500)


def _answer_to_other_methods(
    routes: Sequence[BaseRoute],
) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return what answers with the methods of all routes; Starlette names those of one route."""

    async def answer(request: Request, _: Exception) -> Response:
        methods: set[str] = set()
        for route in routes:
            if isinstance(route, APIRoute) and route.matches(request.scope)[0] != Match.NONE:
                methods |= route.methods or set()
        sentence = "This address does not answer to this method."
        headers = {"Allow": ", ".join(sorted(methods))}
        return JSONResponse({"detail": sentence}, 405, headers)

    return answer
