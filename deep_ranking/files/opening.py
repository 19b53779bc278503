"""Safe opening of user-supplied files: only regular files, without waiting, within a size limit."""

import errno
import io
import os
import stat

from deep_ranking.files.errors import InputError

# Opening a FIFO waits for a writer, unless it is opened with this flag. One may replace a file
# after the check, so files are opened with it too.
NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)
MAX_TEXT_BYTES = 1 << 20  # of settings and records; ours have a few thousand


def open_regular(
    path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> io.BufferedReader:
    """Open a regular file for reading: a FIFO would wait for ever, and a device may have no end.

    Args:
        path: the file.
        max_bytes: largest size that is opened; None for any.

    Returns:
        The open file, buffered.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is too large; `strerror` says which.
    """
    _check_regular(os.stat(path), path, max_bytes)  # first: opening alone may start a device
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | NON_BLOCKING))  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()), path, max_bytes)
    except OSError:
        file.close()
        raise
    return file


def read_text_file(
    path: str | os.PathLike[str], *, hint: str, max_bytes: int = MAX_TEXT_BYTES
) -> str:
    """Return the text of a whole file in UTF-8, such as JSON settings.

    Args:
        path: the file.
        hint: how to mend it if the file cannot be used, for errors.
        max_bytes: largest size that is read.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, is not a regular file, is too large, or is not UTF-8.
    """
    try:
        with open_regular(path, max_bytes=max_bytes) as file:
            return file.read(max_bytes).decode()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {hint}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; {hint}") from None


def _check_regular(
    status: os.stat_result, path: str | os.PathLike[str], max_bytes: int | None
) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    if max_bytes is not None and status.st_size > max_bytes:
        reason = f"{status.st_size:,} bytes are more than expected"
        raise OSError(errno.EFBIG, reason, os.fspath(path))
