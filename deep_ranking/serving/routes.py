"""The addresses of the API, and what answers at each."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from deep_ranking import __version__
from deep_ranking.serving import answers, explaining, forms, searching
from deep_ranking.serving.duplicates import duplicate_groups
from deep_ranking.serving.forms import (
    AN_ID,
    CURSOR,
    DEFAULT_TOP,
    Absent,
    Box,
    Form,
    Name,
    Top,
    described,
    read_box,
    read_form,
)
from deep_ranking.serving.image_ids import KnownImage
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.pictures import (
    JPEG,
    Picture,
    check_is_there,
    original,
    sent_size,
    small_picture,
)
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.query_images import Pair
from deep_ranking.serving.query_images import Query as SearchQuery
from deep_ranking.serving.serving_state import Serving
from deep_ranking.serving.settings import ServerSettings

Id = Annotated[str, Path(json_schema_extra=AN_ID)]
Cursor = Annotated[str | Absent, Query(json_schema_extra=CURSOR)]


def add_searches(router: APIRouter, serving: Serving) -> None:
    """Add what searches and compares."""

    @router.get("/health", summary="Whether the server answers")
    async def health() -> answers.Health:
        return answers.Health(
            version=__version__,
            collections=len(serving.served),
            allow_changes=serving.settings.allow_changes,
            teach=serving.teaching is not None,
            rater=serving.settings.rater,
            corrections=serving.correcting is not None,
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
        openapi_extra=described(
            forms.CompareFields, "first", "second", first="either", second="either"
        ),
    )
    async def compare(request: Request) -> answers.ComparisonAnswer:
        form = await read_form(request, forms.CompareFields, "first", "second")
        pair = _two_images(form)
        return await serving.on(
            form.fields.collection, lambda state: searching.compare_images(state, pair)
        )

    @router.post(
        "/explain",
        summary="Why two images are alike: the places that make them so",
        response_model=answers.ExplanationAnswer,
        responses={200: {"content": {JPEG: {"schema": {"type": "string", "format": "binary"}}}}},
        openapi_extra=described(
            forms.ExplainFields, "first", "second", first="either", second="either"
        ),
    )
    async def explain(request: Request) -> Any:
        form = await read_form(request, forms.ExplainFields, "first", "second")
        pair, name = _two_images(form), form.fields.collection
        if form.fields.as_ == "json":
            return await serving.explanation(
                name, lambda state: explaining.explain_images(state, pair)
            )
        picture = await serving.explanation(
            name, lambda state: explaining.picture_of_explanation(state, pair)
        )
        return Response(picture.data, media_type=picture.media_type)


def _two_images(form: Form) -> Pair:
    box = _box(form.fields)
    if any(len(form.parts[name]) != 1 for name in ("first", "second")):
        raise RequestError(422, "Send two images: first and second, each a file or an id.")
    first, second = form.parts["first"][0], form.parts["second"][0]
    return Pair(first, second, box)


def _box(fields: forms.SearchFields | forms.CompareFields) -> Box | None:
    return None if fields.box is None else read_box(fields.box)


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
        box=_box(fields),
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


def add_images(router: APIRouter, serving: Serving) -> None:
    """Add pictures of known images, and their neighbours."""
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
    async def image(request: Request, id: Id, collection: Name = None) -> Response:
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
        id: Id,
        size: Annotated[int, Query(ge=16, le=1024)] = 256,
        collection: Name = None,
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
        id: Id, top: Top = DEFAULT_TOP, cursor: Cursor = None, collection: Name = None
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
    check_is_there(*state.collection.place_of(image.path))
    tag = f'"{image.content.hex()[:32]}-{kind}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Content-Disposition": "inline"}
    known = request.headers.get("if-none-match", "")
    if tag in {each.strip().removeprefix("W/") for each in known.split(",")}:
        return Response(status_code=304, headers=headers)
    picture = make(state, image)
    return Response(picture.data, media_type=picture.media_type, headers=headers)


def add_duplicates(router: APIRouter, serving: Serving) -> None:
    """Add the duplicates."""

    @router.get("/duplicates", summary="Groups of duplicates, and which image of each to keep")
    async def duplicates(
        threshold: Annotated[float, Query(ge=0, le=2)] = 0.3,
        top: Top = DEFAULT_TOP,
        cursor: duplicate_groups.Cursor = None,
        collection: Name = None,
    ) -> answers.DuplicatesAnswer:
        state, found = await serving.found_duplicates(collection, threshold)
        return duplicate_groups.told(state, found, top, cursor)

    @router.post(
        "/duplicates/set_aside",
        summary="Move duplicates into a hidden folder; nothing is deleted",
        openapi_extra=described(forms.SetAsideFields, "image", image="ids"),
    )
    async def set_aside(request: Request) -> answers.SetAsideAnswer:
        _check_changes(serving.settings)
        form = await read_form(request, forms.SetAsideFields, "image")
        name, keeper, images = form.fields.collection, form.fields.keeper, form.parts["image"]
        _, found = await serving.found_duplicates(name, form.fields.threshold)
        done = await serving.on(
            name, lambda state: duplicate_groups.set_aside(state, found, keeper, images)
        )
        serving.duplicates.forget()
        return done

    @router.post(
        "/duplicates/undo",
        summary="Move back what was set aside",
        openapi_extra=described(forms.UndoFields),
    )
    async def undo(request: Request) -> answers.UndoAnswer:
        _check_changes(serving.settings)
        form = await read_form(request, forms.UndoFields)
        done = await serving.on(
            form.fields.collection,
            lambda state: duplicate_groups.undo_set_aside(state, form.fields.undo),
        )
        serving.duplicates.forget()
        return done

    @router.get("/duplicates/set_aside", summary="What can be undone, the newest first")
    async def set_aside_before(collection: Name = None) -> list[str]:
        return await serving.on(collection, duplicate_groups.undo_names)


def _check_changes(settings: ServerSettings) -> None:
    if not settings.allow_changes:
        raise RequestError(
            403, "This server changes nothing; start it with --allow_changes to allow it."
        )
