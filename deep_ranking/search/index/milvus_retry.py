"""Retry requests to Milvus while the server starts or is gone, and explain the final failure."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from deep_ranking.files import InputError
from deep_ranking.search.index.kinds import TOKEN_VARIABLE

Answer = TypeVar("Answer")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

COLLECTION_NOT_FOUND, PARAMETER_INVALID = 100, 1100
REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED")
FINAL = {*REFUSALS, "INVALID_ARGUMENT", "UNIMPLEMENTED", COLLECTION_NOT_FOUND, PARAMETER_INVALID}
RESUME = "run the same command again to resume"


def retry(action: Callable[[], Answer], *, seconds: float, uri: str, name: str) -> Answer:
    """Repeat a request until it succeeds, with growing pauses.

    pymilvus's own retries need a connection, so they do not help while the server is gone.

    Args:
        action: sends the request; it may fail halfway, and must tolerate a repetition.
        seconds: how long to keep trying.
        uri: address of the server, for the error.
        name: the Milvus collection, for the error.

    Returns:
        What the action returns.

    Raises:
        InputError: the server does not answer in time, refuses the token or the request, or no
            longer has the collection.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    end, pause = time.monotonic() + seconds, FIRST_PAUSE
    while True:
        try:
            return action()
        except (MilvusException, grpc.RpcError) as error:
            left = end - time.monotonic()
            if left <= 0 or _is_final(error):
                raise InputError(f"{uri}: {_explanation(error, uri, name, seconds)}") from None
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)


def _is_final(error: BaseException) -> bool:
    """Return whether the same request would fail again."""
    from pymilvus.exceptions import ConnectionConfigException, ParamError

    return (
        isinstance(error, ConnectionConfigException | ParamError)
        or bool(getattr(error, "is_input_error", False))
        or bool(_codes(error) & FINAL)
    )


def _explanation(error: BaseException, uri: str, name: str, seconds: float) -> str:
    codes, reason = _codes(error), _reason(error)
    if not codes.isdisjoint(REFUSALS):
        return (
            f"Milvus refuses the token, or there is none; set {TOKEN_VARIABLE} to USER:PASSWORD "
            "or an API key"
        )
    if COLLECTION_NOT_FOUND in codes:
        return f"the collection {name} is gone; run `index` again to make it"
    if uri.endswith(".db"):
        return (
            f"Milvus Lite cannot use this file ({reason}); another process may have it open: wait "
            f"for it, and {RESUME}"
        )
    if _is_final(error):
        return f"Milvus refuses the request ({reason})"
    return (
        f"Milvus does not answer, tried for {seconds:g} s ({reason}); check that it runs, and "
        f"{RESUME}"
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
