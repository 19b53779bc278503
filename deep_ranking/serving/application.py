"""The API: its addresses, and what answers at each."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from deep_ranking import __version__
from deep_ranking.files import InputError
from deep_ranking.search.duplicates import Duplicates
from deep_ranking.serving import answers, duplicate_groups, forms, searching
from deep_ranking.serving.docs_page import add_docs
from deep_ranking.serving.forms import DEFAULT_TOP, MOST_TOP, Form, described, read_box, read_form
from deep_ranking.serving.guard import Guard
from deep_ranking.serving.image_ids import KnownImage, find_by_id
from deep_ranking.serving.opened import OpenState, ServedCollection
from deep_ranking.serving.pictures import (
    Picture,
    check_is_there,
    original,
    sent_size,
    small_picture,
)
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.query_images import Query as SearchQuery
from deep_ranking.serving.settings import ServerSettings
from deep_ranking.serving.thumbnail_cache import open_thumbnail_cache
from deep_ranking.serving.workers import Workers

T = TypeVar("T")
MOST_THREADS = 4
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.ErrorAnswer, "description": text}
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
Top = Annotated[int, Query(ge=1, le=MOST_TOP)]


class Serving:
    """What the addresses of the API share.

    Args:
        served: the collections, by name.
        settings: of the server.
    """

    def __init__(self, served: Mapping[str, ServedCollection], settings: ServerSettings) -> None:
        self.served = served
        self.settings = settings
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        queue, seconds = settings.queue, settings.work_seconds
        self._searches = Workers(threads, queue=queue, seconds=seconds)
        self._pictures = Workers(threads, queue=queue, seconds=seconds)
        self.duplicates = duplicate_groups.DuplicateFinder(settings.work_seconds / 2)
        self.cache = open_thumbnail_cache(settings.cache_bytes)

    def named(self, name: str | None) -> ServedCollection:
        """Return a collection by its name; the first for None.

        Raises:
            RequestError: there is none.
        """
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            raise RequestError(
                404, "collection: none of this name; /api/v1/collections lists them."
            )
        return self.served[name]

    async def on(self, name: str | None, function: Callable[[OpenState], T]) -> T:
        """Return what a function returns of a collection, on a thread for searches."""
        served = self.named(name)
        return await self._searches.run(_with_state, served, function)

    async def picture(
        self, given: str, name: str | None, make: Callable[[OpenState, KnownImage], T]
    ) -> T:
        """Return what a function makes of an image of any collection, or of a named one."""
        among = list(self.served.values()) if name is None else [self.named(name)]

        def find() -> T:
            for each in among:
                found = _with_state(each, lambda state: _made(state, given, make))
                if found is not None:
                    return found[0]
            raise RequestError(404, "id: no such image.")

        return await self._pictures.run(find)

    async def found_duplicates(
        self, name: str | None, threshold: float
    ) -> tuple[OpenState, Duplicates]:
        """Return a collection and its duplicates."""
        served = self.named(name)
        state = await self._searches.run(served.current)
        try:
            return state, await self.duplicates.find(state, threshold)
        except (InputError, OSError) as error:
            raise served.refusal(error) from None


def _with_state(served: ServedCollection, function: Callable[[OpenState], T]) -> T:
    state = served.current()
    try:
        return function(state)
    except (InputError, OSError) as error:  # such as a damaged row, or Milvus that is down
        raise served.refusal(error) from None


def _made(
    state: OpenState, given: str, make: Callable[[OpenState, KnownImage], T]
) -> tuple[T] | None:
    image = find_by_id(state.collection, given)
    return None if image is None else (make(state, image),)


def create_application(served: Mapping[str, ServedCollection], settings: ServerSettings) -> Guard:
    """Return the server as an ASGI application.

    Args:
        served: the collections, by name; one or more.
        settings: of the server.
    """
    api = FastAPI(
        title="Deep Ranking",
        version=__version__,
        description="Search collections of images by what they look like.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    forms.keep_uploads_in_memory(settings.upload_bytes)
    api.add_exception_handler(RequestError, _as_answer)
    api.add_exception_handler(RequestValidationError, _as_answer)
    serving = Serving(served, settings)
    router = APIRouter(prefix="/api/v1", responses=REFUSALS)
    _add_searches(router, serving)
    _add_images(router, serving)
    _add_duplicates(router, serving)
    api.include_router(router)
    add_docs(api)
    return Guard(api, settings)


def _as_answer(_: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = RequestError(422, forms.in_a_sentence(error.errors()))
    assert isinstance(error, RequestError)
    return JSONResponse({"detail": error.sentence}, error.status, headers=error.headers)


def _add_searches(router: APIRouter, serving: Serving) -> None:
    @router.get("/health", summary="Whether the server answers")
    async def health() -> answers.Health:
        return answers.Health(
            version=__version__,
            collections=len(serving.served),
            allow_changes=serving.settings.allow_changes,
        )

    @router.get("/collections", summary="What can be searched")
    async def collections() -> answers.CollectionsAnswer:
        found = [await serving.on(name, searching.describe_collection) for name in serving.served]
        return answers.CollectionsAnswer(collections=found)

    @router.post(
        "/search",
        summary="Find the images that are most like a query",
        response_model_exclude_unset=True,
        openapi_extra=described(forms.SearchFields, image="file", positive="many", negative="many"),
    )
    async def search(request: Request) -> answers.SearchAnswer:
        form = await read_form(request, forms.SearchFields, "image", "positive", "negative")
        query, wanted = _query(form), _wanted(form.fields)
        return await serving.on(
            form.fields.collection,
            lambda state: searching.search_collection(state, query, wanted),
        )

    @router.post(
        "/compare",
        summary="Compare two images",
        openapi_extra=described(forms.CompareFields, first="either", second="either"),
    )
    async def compare(request: Request) -> answers.Comparison:
        form = await read_form(request, forms.CompareFields, "first", "second")
        if any(len(form.parts[name]) != 1 for name in ("first", "second")):
            raise RequestError(422, "Send two images: first and second, each a file or an id.")
        first, second = form.parts["first"][0], form.parts["second"][0]
        return await serving.on(
            form.fields.collection, lambda state: searching.compare_images(state, first, second)
        )


def _query(form: Form) -> SearchQuery:
    uploads = form.parts["image"]
    if len(uploads) > 1 or any(isinstance(each, str) for each in uploads):
        raise RequestError(422, "image: expected one file.")
    fields = form.fields
    upload = uploads[0] if uploads else None
    return SearchQuery(
        upload=upload if isinstance(upload, bytes) else None,
        path=fields.path,
        image_id=fields.id,
        box=None if fields.box is None else read_box(fields.box),
        positive=form.parts["positive"],
        negative=form.parts["negative"],
    )


def _wanted(fields: forms.SearchFields) -> searching.Wanted:
    return searching.Wanted(
        fields.top,
        fields.cursor,
        fields.class_,
        fields.folder and fields.folder.rstrip("/"),
        fields.min_probability,
        fields.smooth,
        fields.rerank,
    )


def _add_images(router: APIRouter, serving: Serving) -> None:
    pictures: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "the browser has it"},
    }

    @router.get(
        "/images/{id}",
        summary="An image, as it is or as a JPEG that browsers show",
        response_class=Response,
        responses=pictures,
    )
    async def image(request: Request, id: str, collection: str | None = None) -> Response:
        return await serving.picture(
            id, collection, lambda state, each: _sent(request, state, each, "image", original)
        )

    @router.get(
        "/images/{id}/thumbnail",
        summary="A small picture of an image",
        response_class=Response,
        responses=pictures,
    )
    async def thumbnail(
        request: Request,
        id: str,
        size: Annotated[int, Query(ge=16, le=1024)] = 256,
        collection: str | None = None,
    ) -> Response:
        pixels = sent_size(size)

        def make(state: OpenState, each: KnownImage) -> Picture:
            return small_picture(state, each, pixels, serving.cache)

        return await serving.picture(
            id, collection, lambda state, each: _sent(request, state, each, str(pixels), make)
        )

    @router.get(
        "/images/{id}/neighbours",
        summary="The images that are nearest to an image",
        response_model_exclude_unset=True,
    )
    async def neighbours(
        id: str, top: Top = DEFAULT_TOP, cursor: str | None = None, collection: str | None = None
    ) -> answers.SearchAnswer:
        return await serving.on(
            collection, lambda state: searching.neighbours_of(state, id, top, cursor)
        )


def _sent(
    request: Request,
    state: OpenState,
    image: KnownImage,
    kind: str,
    make: Callable[[OpenState, KnownImage], Picture],
) -> Response:
    """Return a picture, or that the browser has it; the content and the kind name it."""
    check_is_there(state.root, image.path)
    tag = f'"{image.content.hex()[:32]}-{kind}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Content-Disposition": "inline"}
    known = request.headers.get("if-none-match", "")
    if tag in {each.strip().removeprefix("W/") for each in known.split(",")}:
        return Response(status_code=304, headers=headers)
    picture = make(state, image)
    return Response(picture.data, media_type=picture.media_type, headers=headers)


def _add_duplicates(router: APIRouter, serving: Serving) -> None:
    @router.get("/duplicates", summary="Groups of duplicates, and which image of each to keep")
    async def duplicates(
        threshold: Annotated[float, Query(ge=0, le=2)] = 0.3,
        top: Top = DEFAULT_TOP,
        cursor: str | None = None,
        collection: str | None = None,
    ) -> answers.DuplicatesAnswer:
        state, found = await serving.found_duplicates(collection, threshold)
        return duplicate_groups.told(state, found, top, cursor)

    @router.post(
        "/duplicates/set_aside",
        summary="Move duplicates into a hidden folder; nothing is deleted",
        openapi_extra=described(forms.SetAsideFields, image="many"),
    )
    async def set_aside(request: Request) -> answers.SetAsideAnswer:
        _check_changes(serving.settings)
        form = await read_form(request, forms.SetAsideFields, "image")
        images: Sequence[str] = [each for each in form.parts["image"] if isinstance(each, str)]
        name, keeper = form.fields.collection, form.fields.keeper
        _, found = await serving.found_duplicates(name, form.fields.threshold)
        return await serving.on(
            name, lambda state: duplicate_groups.set_aside(state, found, keeper, images)
        )

    @router.post(
        "/duplicates/undo",
        summary="Move back what was set aside",
        openapi_extra=described(forms.UndoFields),
    )
    async def undo(request: Request) -> answers.UndoAnswer:
        _check_changes(serving.settings)
        form = await read_form(request, forms.UndoFields)
        return await serving.on(
            form.fields.collection,
            lambda state: duplicate_groups.undo_set_aside(state, form.fields.undo),
        )

    @router.get("/duplicates/set_aside", summary="What can be undone, the newest first")
    async def set_aside_before(collection: str | None = None) -> list[str]:
        return await serving.on(collection, duplicate_groups.undo_names)


def _check_changes(settings: ServerSettings) -> None:
    if not settings.allow_changes:
        raise RequestError(
            403, "This server changes nothing; start it with --allow_changes to allow it."
        )
