"""Run a server until it is told to end."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS

from deep_ranking.files import InputError
from deep_ranking.files.cache_folder import cache_folder
from deep_ranking.serving.application import create_application
from deep_ranking.serving.guard import OF_ANSWERS, headers_of_all, in_json
from deep_ranking.serving.heap import return_large_blocks
from deep_ranking.serving.learn.generations import Generations
from deep_ranking.serving.learn.learning import Learning, load_tools
from deep_ranking.serving.learn.learning_process import Job
from deep_ranking.serving.map.maps import MapMaker
from deep_ranking.serving.opened import ServedCollection, open_served
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.settings import ServerSettings

BACKLOG = 512
MOST_OPEN = 8192
IDLE_SECONDS = 10.0
"""A connection that has sent no whole head of a first or next request by then is closed."""
CLOSING_SECONDS = 5
SENDING_SECONDS = 300.0
"""A connection that does not take its answer within that time is closed."""
NO_HTTP = RequestError(
    400, "This is no request of HTTP/1.1, or its head is too long.", headers={"Connection": "close"}
)


class _Protocol(H11Protocol):
    """HTTP/1.1; it closes connections that send nothing or take nothing, which keep their place."""

    _stalled: asyncio.TimerHandle | None = None
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        self._wait_for_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(SENDING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every error is answered; where an answer has begun, only close.

        Args:
            msg: what uvicorn would say.
        """
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers, body = in_json(NO_HTTP)
            headers += [(b"cache-control", b"no-store"), *headers_of_all(OF_ANSWERS)]
            start = h11.Response(status_code=NO_HTTP.status, headers=headers)
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait_for_request(self) -> None:
        """Close the connection in a while, unless a request is there by then.

        What arrives slowly does not count: uvicorn's own timer ends with the first byte.
        """
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Server(uvicorn.Server):
    """A server; a signal that the program was started to ignore stays ignored."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the server during the block."""
        ignored = [each for each in HANDLED_SIGNALS if signal.getsignal(each) is signal.SIG_IGN]
        with super().capture_signals():
            for each in ignored:
                signal.signal(each, signal.SIG_IGN)
            yield


def run_server(
    folders: Sequence[Path],
    settings: ServerSettings,
    announce: Callable[[ServerSettings], Any],
) -> None:
    """Serve collections until the process is told to end.

    Args:
        folders: of the collections, or lists of shards; one or more.
        settings: of the server.
        announce: called once it answers, with the settings: their port is the one it listens on.

    Raises:
        InputError: a collection or its model cannot be opened, the port is in use, or people
            cannot be asked about the collection.
    """
    _allow_connections()
    return_large_blocks()
    with ExitStack() as ends:
        listener = ends.enter_context(_listening(settings))
        maps = ends.enter_context(closing(MapMaker(settings.cache_bytes)))
        settings = replace(settings, port=listener.getsockname()[1])
        served = open_served(folders, skip_unavailable=settings.skip_unavailable)
        learning = None
        if settings.ratings is not None:
            learning = ends.enter_context(closing(_learning(served, folders[0], settings.ratings)))
        for each in served.values():
            each.current().collection.embedder.engine(1)  # opens the model
        config = uvicorn.Config(
            create_application(served, settings, maps, learning),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_level="critical",  # the guard prints what is needed
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        announce(settings)
        Server(config).run(sockets=[listener])


def _learning(served: Mapping[str, ServedCollection], index: Path, ratings: Path) -> Learning:
    """Return what learns from the answers on the one collection that is served."""
    kept_in = cache_folder() or Generations(index).folder
    job = Job(Path(os.path.abspath(index)), ratings.absolute(), kept_in / "features", load_tools)
    return Learning(next(iter(served.values())), job)


def _allow_connections() -> None:
    """Raise the number of files that the process may have open: each connection is one."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN if hard == resource.RLIM_INFINITY else min(MOST_OPEN, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listening(settings: ServerSettings) -> socket.socket:
    """Return a socket that listens at the address."""
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"{host}: not an address ({error.strerror}); check --host") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            f"{host} port {port}: cannot listen there ({error.strerror}); choose another --port"
        ) from None
    return listener
