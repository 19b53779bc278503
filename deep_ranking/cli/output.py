"""What several commands print and write in the same way."""

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.installed import check_installed

# The formats of matplotlib that people open.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".tif", ".tiff", ".webp")
# Those of them that are pixels, which Pillow writes.
PIXEL_SUFFIXES = tuple(each for each in PICTURE_SUFFIXES if each not in (".pdf", ".svg"))


def picture_format(path: Path, *, otherwise: str = "") -> str:
    """Return the format, such as "png", that matplotlib writes under this name.

    Args:
        path: the picture to write.
        otherwise: what to do without matplotlib.

    Raises:
        InputError: the name does not end in one of `PICTURE_SUFFIXES`, or there is no matplotlib.
    """
    suffix = checked_suffix(path, PICTURE_SUFFIXES)
    check_installed("a picture", "matplotlib", otherwise=otherwise)
    return suffix[1:]


def checked_suffix(path: Path, suffixes: Sequence[str]) -> str:
    """Return how the name of a picture ends, such as ".png".

    Raises:
        InputError: it does not end in one of `suffixes`.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise InputError(f"{path}: the name of a picture must end in one of {', '.join(suffixes)}")
    return suffix


@contextmanager
def csv_output() -> Iterator[TextIO]:
    """Yield standard output for CSV: file names that are not Unicode keep their bytes.

    Other output escapes such bytes, which leads to no file.
    """
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # a notebook's
        yield sys.stdout
        return
    sys.stdout.flush()
    stream = io.TextIOWrapper(buffer, "utf-8", errors="surrogateescape", newline="")
    try:
        yield stream
        stream.flush()
    finally:
        stream.detach()


def check_output_file(path: Path, flag: str) -> None:
    """Refuse a file that cannot be written, before the long work.

    Raises:
        InputError: `path` is a folder, or the folder that holds it is missing or read-only.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder to write in; choose another {flag}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write in its folder; choose another {flag}")


def write_json(path: Path, report: dict[str, Any], *, what: str = "All of it is") -> None:
    """Write a report as JSON, and print `what` is in it."""
    _write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")
    print(f"{what} in {path}.")


def write_page(path: Path, html: str, *, silent: bool = False) -> None:
    """Write an HTML page and, unless `silent`, print where it is."""
    _write_text(path, html)
    if not silent:
        print(f"Pictures are in {path}.")


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
