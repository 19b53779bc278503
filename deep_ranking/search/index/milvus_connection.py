"""Talking to Milvus: a client made on demand, requests made again, faults told in one line.

The token and the certificate come from the environment and are never written down.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from deep_ranking.files import InputError

Answer = TypeVar("Answer")

TOKEN_VARIABLE, CERTIFICATE_VARIABLE = "DEEP_RANKING_MILVUS_TOKEN", "DEEP_RANKING_MILVUS_CA"

CONNECT_SECONDS, REPLY_SECONDS = 10.0, 120.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

COLLECTION_NOT_FOUND, PARAMETER_INVALID = 100, 1100
REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED")
FINAL = (*REFUSALS, "INVALID_ARGUMENT", "UNIMPLEMENTED")
GOES_ON = "run the same command again, which goes on where it stopped"


class MilvusConnection:
    """A server or cluster of Milvus, or Milvus Lite in this process; nothing is sent until asked.

    Args:
        uri: URL of a server, or path of Milvus Lite's file.
        retry_seconds: how long a server that does not answer is asked again.

    Raises:
        InputError: pymilvus is missing; the URL has a password; or there is no such certificate.
    """

    def __init__(self, uri: str, *, retry_seconds: float) -> None:
        self._uri = uri
        self._retry_seconds = retry_seconds
        self._pymilvus = _pymilvus()
        self._options = _client_options(uri)
        self._client: Any = None

    def client(self) -> Any:
        """Give pymilvus' client; the first time it connects, which may fail: see `retried`."""
        if self._client is None:
            self._client = self._pymilvus.MilvusClient(
                self._uri, timeout=min(CONNECT_SECONDS, self._retry_seconds), **self._options
            )
        return self._client

    def ask(
        self, method: str, name: str, *, timeout: float = REPLY_SECONDS, **arguments: Any
    ) -> Any:
        """Call a method of the client, again if the server does not answer.

        Args:
            method: name of the client's method.
            name: the Milvus collection it is about.
            timeout: seconds that the server has for an answer.
            arguments: what else the method takes.

        Raises:
            InputError: see `retried`.
        """
        return self.retried(
            lambda: getattr(self.client(), method)(name, timeout=timeout, **arguments), name
        )

    def retried(self, action: Callable[[], Answer], name: str) -> Answer:
        """Do what may fail while a server starts or is gone, again, with growing pauses.

        pymilvus itself tries again only while it can connect, which to a server that is gone it
        cannot.

        Args:
            action: what is done; it may be done in part before it fails.
            name: the Milvus collection it is about.

        Raises:
            InputError: the server does not answer for too long, refuses the token or the request,
                or no longer has the collection.
        """
        end, pause = time.monotonic() + self._retry_seconds, FIRST_PAUSE
        while True:
            try:
                return action()
            except _faults() as error:
                left = end - time.monotonic()
                if left <= 0 or _is_final(error):
                    raise InputError(self._explained(error, name)) from None
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)

    def _explained(self, error: Exception, name: str) -> str:
        if any(code in REFUSALS for code in _codes(error)):
            return (
                f"{self._uri}: Milvus refuses the token, or there is none; set {TOKEN_VARIABLE} to "
                "USER:PASSWORD or an API key"
            )
        reason = _reason(error)
        if COLLECTION_NOT_FOUND in _codes(error):
            return f"{self._uri}: the collection {name} is gone; index anew"
        if self._uri.endswith(".db"):
            return (
                f"{self._uri}: Milvus Lite does not work on it ({reason}); another process may "
                f"have it open: wait for that, and {GOES_ON}"
            )
        return (
            f"{self._uri}: Milvus does not answer, tried for {self._retry_seconds:g} s ({reason}); "
            f"see that it runs, and {GOES_ON}"
        )


def _pymilvus() -> Any:
    """Import pymilvus, quietly: faults are told by our errors."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import pymilvus
    except ImportError:
        raise InputError(
            "an index in Milvus needs pymilvus: pip install 'deep-ranking[milvus]'"
        ) from None
    for name in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return pymilvus


def _client_options(uri: str) -> dict[str, Any]:
    """Give what the client needs besides the address, from the environment."""
    if "@" in uri.partition("://")[2]:
        raise InputError(
            f"{uri.partition('://')[0]}://...@...: a password in the address would be written to "
            f"disk; set {TOKEN_VARIABLE} to USER:PASSWORD instead"
        )
    options: dict[str, Any] = {}
    if token := os.environ.get(TOKEN_VARIABLE):
        options["token"] = token
    if uri.startswith("https://"):
        options["secure"] = True
        if certificate := os.environ.get(CERTIFICATE_VARIABLE):
            if not Path(certificate).is_file():
                raise InputError(f"{CERTIFICATE_VARIABLE}={certificate}: no such file")
            options["server_pem_path"] = certificate
    return options


def _faults() -> tuple[type[Exception], ...]:
    import grpc
    from pymilvus.exceptions import MilvusException

    return MilvusException, grpc.RpcError


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and its causes."""
    seen: set[int] = set()  # pymilvus makes an error its own cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ if error.__cause__ is not error else error.__context__


def _codes(error: BaseException) -> set[Any]:
    """Give the codes of an error and its causes: numbers of Milvus, names of gRPC."""
    codes: set[Any] = set()
    for each in _causes(error):
        code = getattr(each, "code", None)
        code = code() if callable(code) else code
        codes.add(getattr(code, "name", code))
    return codes


def _reason(error: BaseException) -> str:
    """Give what is wrong in one line: what gRPC says, if it does."""
    texts = [each.details() for each in _causes(error) if hasattr(each, "details")]
    text = str(texts[-1] if texts else getattr(error, "message", "") or error)
    return " ".join(text.split())[:300]


def _is_final(error: BaseException) -> bool:
    """Whether the same request would fail again."""
    from pymilvus.exceptions import ConnectionConfigException, ParamError

    return (
        isinstance(error, ConnectionConfigException | ParamError)
        or bool(getattr(error, "is_input_error", False))
        or bool(_codes(error) & {COLLECTION_NOT_FOUND, PARAMETER_INVALID, *FINAL})
    )
