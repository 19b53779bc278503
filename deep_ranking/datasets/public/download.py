"""Download one file of known digest, and continue a download that was interrupted.

The bytes that have arrived are in NAME.part, which is renamed to NAME once its digest is right.
"""

import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deep_ranking import __version__
from deep_ranking.files import InputError
from deep_ranking.files.content_digest import content_digest
from deep_ranking.files.progress_bar import progress_bar

if TYPE_CHECKING:
    from deep_ranking.files.progress_bar import ProgressBar

TIMEOUT = 30.0  # seconds without a byte
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds; a try that gets further starts again with the first
BLOCK = 1 << 18
TEMPORARY_STATUS_CODES = (408, 425, 429, 500, 502, 503, 504)  # a later try may succeed
OTHER_SOURCE = "give another address by --url, or the file itself by --archive"


class _ConnectionLostError(Exception):
    """The connection was lost before the end of the file, or could not be made: try again."""


class _NoConnectionError(_ConnectionLostError):
    """The connection could not be made."""


def partial_path(path: Path) -> Path:
    """Return the file that holds the bytes that have arrived so far."""
    return path.with_name(path.name + ".part")


def download(
    url: str, path: Path, *, sha256: str, num_bytes: int | None = None, progress: bool = False
) -> None:
    """Download a file, unless it exists.

    Args:
        url: address, http or https.
        path: file to write, in a folder that exists.
        sha256: digest of the file.
        num_bytes: size of the file, if known.
        progress: whether to show a progress bar on standard error, if that is a terminal.

    Raises:
        InputError: the address does not answer or has another file, the connection was lost again
            and again, or another file is at `path`. Bytes that may be continued are kept.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"{url}: expected an address that begins with http:// or https://")
    if path.exists():
        if not path.is_file() or content_digest(path).hex() != sha256:
            raise InputError(
                f"{path}: is in the way, and is not the archive that was expected; move it"
            )
        return
    part = partial_path(path)
    if part.exists() and not part.is_file():  # opening a FIFO would wait for ever
        raise InputError(f"{part}: is in the way, and is not a regular file; move it")
    if num_bytes is not None and _size(part) > num_bytes:
        part.unlink()
    with progress_bar(
        total=num_bytes, initial=_size(part), title=path.name, unit="B", shown=progress
    ) as bar:
        whole = _size(part) > 0 and content_digest(part).hex() == sha256
        if not whole and (num_bytes is None or _size(part) < num_bytes):
            _fetch_with_retries(url, part, num_bytes, bar)
    arrived = content_digest(part).hex()
    if arrived != sha256:
        part.unlink()  # there is nothing to continue
        raise InputError(
            f"{url}: what arrived has SHA-256 {arrived}, expected {sha256}; it was deleted. Run "
            f"the same command again; if that ends here too, {OTHER_SOURCE}"
        )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _fetch_with_retries(url: str, part: Path, num_bytes: int | None, bar: "ProgressBar") -> None:
    tries, first = 0, _size(part)
    furthest = first  # a part may be deleted; to download it again is not progress
    while True:
        try:
            _fetch(url, part, num_bytes, bar)
            return
        except _ConnectionLostError as error:
            tries = 1 if _size(part) > furthest else tries + 1
            furthest = max(furthest, _size(part))
            is_offline = isinstance(error, _NoConnectionError) and _size(part) == first
            if tries > len(RETRY_DELAYS) or is_offline:
                again = "run the same command again"
                if _size(part):
                    again = (
                        f"{part} keeps {_size(part):,} bytes, the same command goes on from there"
                    )
                raise InputError(f"{url}: {error}; {again}, or {OTHER_SOURCE}") from None
            time.sleep(RETRY_DELAYS[tries - 1])


def _fetch(url: str, part: Path, num_bytes: int | None, bar: "ProgressBar") -> None:
    """Request the missing bytes once, and append them to `part`."""
    with _response(url, part) as response:
        start = _size(part)
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status != 206 or found is None or int(found[1]) != start:
            start = 0  # the server sends the file from its beginning
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        if None not in (total, num_bytes) and total != num_bytes:
            raise InputError(
                f"{url}: has {total:,} bytes, expected {num_bytes:,}: not the archive; "
                f"{OTHER_SOURCE}"
            )
        expected = total if num_bytes is None else num_bytes
        missing, free = (expected or start) - start, shutil.disk_usage(part.parent).free
        if missing > free:
            raise InputError(
                f"{part.parent}: {missing:,} bytes are still to come, and {free:,} are free; "
                "choose an --output on another disk"
            )
        bar.total = expected
        bar.update(start - bar.n)
        with part.open("ab" if start else "wb") as file:
            while block := response.read(BLOCK):
                if expected is not None and file.tell() + len(block) > expected:
                    raise InputError(f"{part}: more arrives than the {expected:,} bytes expected")
                file.write(block)
                bar.update(len(block))
            if expected is not None and (written := file.tell()) < expected:
                raise _ConnectionLostError(
                    f"the connection was cut after {written:,} of {expected:,} bytes"
                )


@contextmanager
def _response(url: str, part: Path) -> Iterator[http.client.HTTPResponse]:
    """Ask for the bytes that `part` lacks; turn errors of the network into ours."""
    headers = {"User-Agent": f"deep-ranking/{__version__}", "Accept-Encoding": "identity"}
    if start := _size(part):
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answers {error.code} ({error.reason})"
        if error.code == 416 and start:  # the part is longer than the file
            part.unlink()
        elif error.code not in TEMPORARY_STATUS_CODES:
            raise InputError(f"{url}: {reason}; {OTHER_SOURCE}") from None
        raise _ConnectionLostError(reason) from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or str(error.reason)
        raise _NoConnectionError(f"cannot be reached ({reason})") from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _ConnectionLostError(f"the connection was cut ({error})") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{url}: not an address ({error})") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
