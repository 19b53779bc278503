"""The pages that the server sends: the one that searches, and the description of the API.

Their files are in `static/`, except for the design values, which the reports share. They load
nothing from elsewhere and hold nothing of the collections, so no token is needed for them.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from deep_ranking.files.design import TOKENS

STATIC = Path(__file__).parent / "static"
HTML, CSS, SCRIPT = "text/html; charset=utf-8", "text/css", "text/javascript"
MODULES = (
    "api", "box", "compared", "dom", "dots", "duplicates", "errors", "examples", "filters", "grid",
    "header", "heat", "intake", "lasso", "map", "page", "palette", "plane", "problem", "query",
    "rows", "search", "search_view", "sections", "state", "store", "thumbnails", "toast", "viewer",
    "views", "words",
)  # fmt: skip
STYLES = ("duplicates", "errors", "map", "page", "viewer")
FILES = {
    "/": ("index.html", HTML),
    "/page/tokens.css": (TOKENS.name, CSS),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/page/{name}.css": (f"{name}.css", CSS) for name in STYLES},
    **{f"/page/{name}.js": (f"{name}.js", SCRIPT) for name in MODULES},
    "/api/docs": ("docs.html", HTML),
    "/api/docs.css": ("docs.css", CSS),
    "/api/docs.js": ("docs.js", SCRIPT),
}
"""Each address, with its file and the type of that."""


def add_pages(api: FastAPI) -> None:
    """Add the pages and their files."""
    for address, (name, media_type) in FILES.items():
        api.add_api_route(
            address, _sender(name, media_type), include_in_schema=False, response_model=None
        )


def _sender(name: str, media_type: str) -> Callable[[], Awaitable[FileResponse]]:
    path = TOKENS if name == TOKENS.name else STATIC / name

    async def send() -> FileResponse:
        return FileResponse(path, media_type=media_type)

    return send
