"""Connect to Milvus, and retry requests while the server starts or is gone.

The token and the certificate come from the environment and are never written to disk.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

from deep_ranking.files import InputError
from deep_ranking.search.index.kinds import TOKEN_VARIABLE

Answer = TypeVar("Answer")

CERTIFICATE_VARIABLE = "DEEP_RANKING_MILVUS_CA"
CONNECT_SECONDS, REPLY_SECONDS = 10.0, 120.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

COLLECTION_NOT_FOUND, PARAMETER_INVALID = 100, 1100
REFUSALS = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
FINAL = {*REFUSALS, "INVALID_ARGUMENT", "UNIMPLEMENTED", COLLECTION_NOT_FOUND, PARAMETER_INVALID}
RESUME = "run the same command again to resume"


class MilvusConnection:
    """A connection to a Milvus server or cluster, or to Milvus Lite in this process.

    Args:
        uri: URL of a server, or path of Milvus Lite's file.
        retry_seconds: how long to retry when the server does not answer.

    Raises:
        InputError: pymilvus is missing, the URL has a password, or the certificate does not exist.
    """

    def __init__(self, uri: str, *, retry_seconds: float) -> None:
        self._uri = uri
        self._retry_seconds = retry_seconds
        self._pymilvus = _import_pymilvus()
        self._options = _client_options(uri)
        self._client: Any = None

    def client(self) -> Any:
        """Return pymilvus's client; the first call connects, which may fail: see `retried`."""
        if self._client is None:
            self._client = self._pymilvus.MilvusClient(
                self._uri, timeout=min(CONNECT_SECONDS, self._retry_seconds), **self._options
            )
        return self._client

    def ask(
        self,
        method: str,
        name: str,
        *,
        again: str | None = None,
        timeout: float = REPLY_SECONDS,
        **arguments: Any,
    ) -> Any:
        """Call a method of the client for a Milvus collection, again if it fails (`retried`).

        Args:
            method: the method.
            name: the Milvus collection.
            again: the method to call when it failed, which may have been carried out all the same.
            timeout: seconds to wait for an answer.
            **arguments: of the method.
        """
        methods = chain([method], repeat(again or method))
        return self.retried(
            lambda: getattr(self.client(), next(methods))(name, timeout=timeout, **arguments), name
        )

    def retried(self, action: Callable[[], Answer], name: str) -> Answer:
        """Repeat a request until it succeeds, with growing pauses, and return its answer.

        pymilvus's own retries need a connection, so they do not help while the server is gone.

        Args:
            action: sends the request; it may fail halfway, and must tolerate a repetition.
            name: the Milvus collection, for the error.

        Raises:
            InputError: the server does not answer in time, refuses the token or the request, or no
                longer has the collection.
        """
        import grpc

        end, pause = time.monotonic() + self._retry_seconds, FIRST_PAUSE
        while True:
            try:
                return action()
            except (self._pymilvus.MilvusException, grpc.RpcError) as error:
                left = end - time.monotonic()
                if left <= 0 or _is_final(error):
                    raise InputError(f"{self._uri}: {self._explanation(error, name)}") from None
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)

    def _explanation(self, error: BaseException, name: str) -> str:
        codes, reason = _codes(error), _reason(error)
        if codes & REFUSALS:
            return (
                f"Milvus refuses the token, or there is none; set {TOKEN_VARIABLE} to "
                "USER:PASSWORD or an API key"
            )
        if COLLECTION_NOT_FOUND in codes:
            return f"the collection {name} is gone; run `index` again to make it"
        if self._uri.endswith(".db"):
            return (
                f"Milvus Lite cannot use this file ({reason}); another process may have it open: "
                f"wait for it, and {RESUME}"
            )
        if _is_final(error):
            return f"Milvus refuses the request ({reason})"
        return (
            f"Milvus does not answer, tried for {self._retry_seconds:g} s ({reason}); check that "
            f"it runs, and {RESUME}"
        )


def _import_pymilvus() -> Any:
    """Import pymilvus and silence its logs, because our errors report its failures."""
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
    """Return the client's options from the environment."""
    scheme, _, address = uri.partition("://")
    if "@" in address:
        raise InputError(
            f"{scheme}://...@...: a password in the address would be written to disk; set "
            f"{TOKEN_VARIABLE} to USER:PASSWORD instead"
        )
    options: dict[str, Any] = {}
    if token := os.environ.get(TOKEN_VARIABLE):
        options["token"] = token
    if scheme == "https":
        options["secure"] = True
        if certificate := os.environ.get(CERTIFICATE_VARIABLE):
            if not Path(certificate).is_file():
                raise InputError(f"{CERTIFICATE_VARIABLE}={certificate}: no such file")
            options["server_pem_path"] = certificate
    return options


def _is_final(error: BaseException) -> bool:
    """Return whether the same request would fail again."""
    from pymilvus.exceptions import ConnectionConfigException, ParamError

    return (
        isinstance(error, ConnectionConfigException | ParamError)
        or bool(getattr(error, "is_input_error", False))
        or bool(_codes(error) & FINAL)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    seen: set[int] = set()  # pymilvus makes an error its own cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ if error.__cause__ is not error else error.__context__


def _codes(error: BaseException) -> set[Any]:
    """Return the codes of an error and its causes: Milvus's numbers, gRPC's names."""
    codes: set[Any] = set()
    for each in _causes(error):
        code = getattr(each, "code", None)
        code = code() if callable(code) else code
        codes.add(getattr(code, "name", code))
    return codes


def _reason(error: BaseException) -> str:
    """Return what is wrong in one line: gRPC's details if there are any."""
    texts = [each.details() for each in _causes(error) if hasattr(each, "details")]
    text = str(texts[-1] if texts else getattr(error, "message", "") or error)
    return " ".join(text.split())[:300]
