"""Addresses of object stores, such as s3://bucket/photos, opened by fsspec and its plug-ins.

Credentials and endpoints come from the environment and the files that each store's own tools use;
for S3, `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL` and their like.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from deep_ranking.files.errors import InputError

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
LOCAL = ("file", "local")
EXTRAS = {"s3": "s3", "s3a": "s3"}
"""For each protocol the extra of this package that brings its plug-in; fsspec names the others."""


class UnreachableError(InputError):
    """An object store does not answer, or not to these credentials."""


def is_address(text: str) -> bool:
    """Return whether a text is the address of an object store rather than a path.

    Example:
        >>> is_address("s3://bucket/photos"), is_address("photos"), is_address("file:///photos")
        (True, False, False)
    """
    found = ADDRESS.match(text)
    return found is not None and found[1].lower() not in LOCAL


def local_path(text: str) -> str:
    """Return a path, or the address file:///photos, as a path."""
    found = ADDRESS.match(text)
    return text[found.end() :] if found and found[1].lower() in LOCAL else text


def open_store(address: str) -> tuple[Any, str]:
    """Return the file system of an address, by fsspec, and the path of the address in it.

    Nothing is asked of a server yet.

    Raises:
        InputError: fsspec or its plug-in is not installed, or knows no such protocol.
    """
    if find_spec("fsspec") is None:
        raise InputError(f"{address}: needs fsspec, not installed here: {_pip('s3')}")
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    protocol = address.partition("://")[0].lower()
    try:
        # Listings are not kept: what a listing says of an object may be old when it is read.
        store, path = url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        hint = known_implementations.get(protocol, {}).get("err", str(error))
        if protocol in EXTRAS:
            hint = _pip(EXTRAS[protocol])
        raise InputError(
            f"{address}: its plug-in of fsspec is not installed here: {hint}"
        ) from None
    except ValueError as error:
        raise InputError(f"{address}: no address that fsspec opens ({error})") from None
    return store, path


@contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Turn any error of an object store into one line.

    Args:
        address: what is read, for errors.

    Raises:
        UnreachableError: there are no credentials, they do not suffice, there is no such bucket or
            object, or the store does not answer.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise UnreachableError(f"{address}: no such bucket, folder or object") from None
    except Exception as error:  # each plug-in raises errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        if "Credentials" in type(error).__name__:
            raise UnreachableError(
                f"{address}: no credentials ({reason}); for S3 set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from None
        if isinstance(error, PermissionError):
            raise UnreachableError(
                f"{address}: may not be read ({reason}); check the credentials and their rights"
            ) from None
        raise UnreachableError(f"{address}: cannot be read ({reason})") from None


def _pip(extra: str) -> str:
    return f'pip install "deep-ranking[{extra}]"'
