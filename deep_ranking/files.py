"""Atomic writes: at every instant a path holds the last complete file, or none."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deep_ranking.errors import InputError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, and put that file in the place of `path` at the end.

    The temporary file lies in the same folder, with the same suffix (writers choose their format
    by it). When the block raises, it is removed and `path` is what it was. Before the exchange the
    data is flushed to the disk, so that a power cut cannot leave an empty file under the new name.

    Args:
        path: file to write, in a folder that exists.

    Yields:
        Path of the temporary file, empty.

    Raises:
        InputError: the folder does not exist or cannot be written to, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    temporary = _beside(path, suffix=path.suffix)
    try:  # from before the file is there: an interrupt may come at any instant
        try:
            temporary.open("xb").close()
        except OSError as error:
            raise _not_writable(path, error) from None
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder to write to, and put it in the place of `path` at the end.

    As `atomic_path` does a file; but a folder that exists cannot be exchanged in one step: it is
    renamed first, and removed last. Stopped between, `path` is missing, and the earlier folder is
    beside it, in a folder .replaced-*.

    Args:
        path: folder to write, in a folder that exists.

    Yields:
        Path of the temporary folder, empty.

    Raises:
        InputError: the folder around it does not exist or cannot be written to, or `path` is a
            file.
    """
    path = Path(path).resolve()  # where it is a link, what it links to is replaced
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; expected the name of a folder to write")
    temporary = _beside(path)
    try:
        try:
            temporary.mkdir()
        except OSError as error:
            raise _not_writable(path, error) from None
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=path.parent))
        if path.exists():
            path.rename(aside / "folder")
        temporary.rename(path)
        shutil.rmtree(aside)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".writing-{uuid.uuid4().hex}{suffix}")


def _not_writable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror}); choose a folder you can write to"
    )


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and its parents, and check that it can be written to.

    Args:
        path: folder, which may exist.

    Returns:
        The same path.

    Raises:
        InputError: it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make this folder ({error.strerror})") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write in this folder; choose another one")
    return path
