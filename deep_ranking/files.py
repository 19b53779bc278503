"""Files of users opened without a wait, and atomic writes.

What is given as a file is opened only if it is one. And at every instant a path that is written
holds the last complete file, or none.
"""

import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deep_ranking.errors import InputError

# A FIFO that takes the place of a file between two looks at it is opened at once, and refused.
AT_ONCE = getattr(os, "O_NONBLOCK", 0)


def open_regular(
    path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> io.BufferedReader:
    """Open a regular file for reading: a FIFO would wait for ever, and a device need not end.

    Args:
        path: the file.
        max_bytes: size from which on it is not opened; None for any.

    Returns:
        The open file, buffered.

    Raises:
        OSError: it cannot be opened, is no regular file or too large; `strerror` says so.
    """
    _check_regular(os.stat(path), path, max_bytes)  # before it is opened: a device may do things
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | AT_ONCE))  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()), path, max_bytes)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(
    status: os.stat_result, path: str | os.PathLike[str], max_bytes: int | None
) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if max_bytes is not None and status.st_size > max_bytes:
        raise OSError(
            errno.EFBIG, f"{status.st_size:,} bytes are more than expected", os.fspath(path)
        )


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
    try:
        descriptor, name = tempfile.mkstemp(prefix=".writing-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a folder you can write to"
        ) from None
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a folder you can write to"
        ) from None
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner can read
        aside = Path(tempfile.mkdtemp(prefix=".replaced-", dir=path.parent))
        if path.exists():
            path.rename(aside / "folder")
        temporary.rename(path)
        shutil.rmtree(aside)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
