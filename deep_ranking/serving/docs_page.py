"""The page that shows the description of the API, from this machine alone."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse

FILES = {
    "/api/docs": ("docs.html", "text/html; charset=utf-8"),
    "/api/docs.css": ("docs.css", "text/css"),
    "/api/docs.js": ("docs.js", "text/javascript"),
}


def add_docs(api: FastAPI) -> None:
    """Add the page and its files; the address of the server alone leads to it."""
    for address, (name, media_type) in FILES.items():
        api.add_api_route(
            address, _sender(name, media_type), include_in_schema=False, response_model=None
        )

    @api.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("/api/docs")


def _sender(name: str, media_type: str) -> Callable[[], Awaitable[FileResponse]]:
    file = Path(__file__).parent / "static" / name

    async def send() -> FileResponse:
        return FileResponse(file, media_type=media_type)

    return send
