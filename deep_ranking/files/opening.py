"""Safe opening of user-supplied files: only regular files are opened, and never with a wait."""

import errno
import io
import os
import stat

# A FIFO that replaces a file between the check and the opening is opened at once, then refused.
NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)


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
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | NON_BLOCKING))  # noqa: SIM115
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
