"""What stands before the API: who may ask, how much, and which headers every answer has.

It looks at each request before anything reads it, and holds the bodies of requests in memory,
within bounds: one that arrives slowly takes no thread from others.
"""

import asyncio
import hmac
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from deep_ranking.files import printable
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.settings import ServerSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

API, OF_A_COLLECTION = "/api/", "/api/v1/"
READING = ("GET", "HEAD")
OF_PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OF_ANSWERS = "default-src 'none'; frame-ancestors 'none'; sandbox"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
UNEXPECTED = "The server made an error; its own output says which."


class Guard:
    """An ASGI application that lets requests through to another one.

    Args:
        application: the application.
        settings: of the server.
    """

    def __init__(self, application: Application, settings: ServerSettings) -> None:
        self._application = application
        self._settings = settings
        self._held = self._sending = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application answer it."""
        if scope["type"] != "http":
            return
        begin, status = time.monotonic(), 0
        policy = OF_ANSWERS if scope["path"].startswith(OF_A_COLLECTION) else OF_PAGES

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                if all(name != b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = [*headers, *headers_of_all(policy)]
            body = message.get("body", b"")
            self._sending += len(body)
            try:
                await send(message)
            finally:
                self._sending -= len(body)

        try:
            await self._answer(scope, receive, guarded_send)
        except RequestError as error:
            await send_error(guarded_send, error)
        except Exception:
            traceback.print_exc()
            if not status:
                await send_error(guarded_send, RequestError(500, UNEXPECTED))
        if self._settings.log:
            seconds = time.monotonic() - begin
            path = printable(scope["path"])
            print(f"{scope['method']} {path} {status} {seconds:.3f} s", file=sys.stderr, flush=True)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = _single(scope)
        self._check_sender(scope, headers)
        if self._sending > self._settings.held_bytes:
            raise RequestError(503, "Too many answers are being sent; try again.", retry_after=5)
        if scope["method"] in READING:
            await self._application(scope, receive, send)
            return
        held = [0]
        try:
            body = await self._body(headers, receive, held)
            await self._application(scope, _replayed(body, receive), send)
        finally:
            self._held -= held[0]

    def _check_sender(self, scope: Message, headers: dict[bytes, bytes]) -> None:
        """Refuse requests that name another server, come from another site or lack the token."""
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._settings.is_own_host(host):
            raise RequestError(
                421, f"This server is not called so; open it as {self._settings.address}"
            )
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site")
        is_foreign = origin is not None and origin.decode("latin-1") != f"http://{host}"
        if scope["method"] not in READING and (is_foreign or site == b"cross-site"):
            raise RequestError(403, "Pages of other sites may not use this server.")
        token = self._settings.token
        if token is not None and scope["path"].startswith(OF_A_COLLECTION):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise RequestError(
                    401,
                    "This server needs its token, as the header: Authorization: Bearer TOKEN",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    async def _body(
        self, headers: dict[bytes, bytes], receive: Receive, held: list[int]
    ) -> bytearray:
        """Read the body of a request into memory; `held` gets its number of bytes."""
        most = self._settings.upload_bytes
        too_large = RequestError(
            413, f"The request is larger than {most:,} bytes; send a smaller image."
        )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError(400, "The request ended early.")
                    part = message.get("body", b"")
                    self._held += len(part)
                    held[0] += len(part)
                    if held[0] > most:
                        raise too_large
                    if self._held > self._settings.held_bytes:
                        raise RequestError(
                            503, "Too many uploads at once; try again.", retry_after=2
                        )
                    body += part
                    if not message.get("more_body", False):
                        return body
        except TimeoutError:
            raise RequestError(
                408, f"The request took longer than {self._settings.body_seconds:g} s to arrive."
            ) from None


def _single(scope: Message) -> dict[bytes, bytes]:
    """Return the headers by name; refuse a second one of those that decide who may ask."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in found and name in (b"host", b"origin", b"authorization", b"content-length"):
            raise RequestError(400, f"The header {name.decode('latin-1')} is there twice.")
        found[name] = value
    if {b"content-length", b"transfer-encoding"} <= found.keys():
        # A proxy that goes by the other one would see the requests begin at other places.
        raise RequestError(
            400, "The request has two lengths; send one.", headers={"Connection": "close"}
        )
    return found


def _replayed(body: bytearray, receive: Receive) -> Receive:
    """Return a function that hands the body on at once, then waits for the end of the request."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        whole = bytes(body)
        body.clear()
        return {"type": "http.request", "body": whole, "more_body": False}

    return replay


def headers_of_all(policy: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer has, with a content security policy."""
    return [*HEADERS, (b"content-security-policy", policy.encode())]


def in_json(error: RequestError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the headers and the body of the answer to an error."""
    body = json.dumps({"detail": error.sentence}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **error.headers,
    }
    return [(name.lower().encode(), text.encode()) for name, text in headers.items()], body


async def send_error(send: Send, error: RequestError) -> None:
    """Send an error as an answer in JSON."""
    headers, body = in_json(error)
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
