"""Connect to Milvus on the first request, and send requests again if they fail (`milvus_retry`).

The token and the certificate come from the environment and are never written to disk.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from deep_ranking.files import InputError
from deep_ranking.search.index.kinds import TOKEN_VARIABLE
from deep_ranking.search.index.milvus_retry import retry

Answer = TypeVar("Answer")

CERTIFICATE_VARIABLE = "DEEP_RANKING_MILVUS_CA"
CONNECT_SECONDS, REPLY_SECONDS = 10.0, 120.0


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
        self, method: str, name: str, *, timeout: float = REPLY_SECONDS, **arguments: Any
    ) -> Any:
        """Call a method of the client, again if it fails.

        Args:
            method: name of the client's method.
            name: the Milvus collection.
            timeout: seconds that the server may take to answer.
            **arguments: the method's other arguments.

        Raises:
            InputError: as for `retry`.
        """
        return self.retried(
            lambda: getattr(self.client(), method)(name, timeout=timeout, **arguments), name
        )

    def retried(self, action: Callable[[], Answer], name: str) -> Answer:
        """Return what an action on a Milvus collection returns; `retry` it if it fails."""
        return retry(action, seconds=self._retry_seconds, uri=self._uri, name=name)


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
