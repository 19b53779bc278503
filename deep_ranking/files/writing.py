"""Atomic writes: at every instant a path holds the last complete file, or no file."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.files.errors import InputError

if TYPE_CHECKING:
    from filelock import FileLock

WRITING = ".writing-"
REPLACED, LOCK = "replaced", "lock"
# Errors of a disk that is full, broken or read-only.
DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to, and replace `path` by that file at the end.

    The temporary file is in a hidden folder beside `path` and has its suffix, because some writers
    choose the format by it. If the block raises, the file is removed and `path` is unchanged. If
    the process is killed, the next write in the same folder removes it. The data is flushed to the
    disk before the exchange, so that a power cut cannot leave an empty file under the new name.

    Args:
        path: file to write, in a folder that exists.

    Yields:
        Path of the temporary file, which is empty.

    Raises:
        InputError: the folder does not exist or cannot be written to; `path` is a folder, a device
            or a pipe; or the disk is full.
    """
    with atomic_paths([Path(path)]) as temporaries:
        yield temporaries[0]


@contextmanager
def atomic_paths(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Write several files that belong together, each as `atomic_path` does.

    They are exchanged once all are on the disk. Several files cannot be exchanged in one step, so
    the first is removed before and comes back last: if the process stops between, the first is
    missing, which shows that the set is incomplete.

    Args:
        paths: files to write, in one folder.

    Yields:
        A temporary path for each.

    Raises:
        InputError: as `atomic_path`.
    """
    for path in paths:
        if path.exists() and not path.is_file():  # a device would be replaced by a file
            kind = "folder" if path.is_dir() else "device or pipe"
            raise InputError(f"{path}: is a {kind}; expected the name of a file to write")
    with _writing_folder(paths[0]) as work:
        temporaries = [work / f"{number}{path.suffix}" for number, path in enumerate(paths)]
        for temporary in temporaries:
            temporary.touch()
        yield temporaries
        for temporary in temporaries:
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())  # some writers make files that only they can read
        if len(paths) > 1:
            paths[0].unlink(missing_ok=True)
        for temporary, path in reversed(list(zip(temporaries, paths, strict=True))):
            temporary.replace(path)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder to write to, and replace `path` by it at the end.

    This is `atomic_path` for a folder. An existing folder cannot be exchanged in one step, so it is
    set aside first and removed last. If the process stops between, `path` is missing until the next
    write beside it restores it.

    Args:
        path: folder to write, in a folder that exists.

    Yields:
        Path of the temporary folder, which is empty.

    Raises:
        InputError: the parent folder does not exist or cannot be written to, `path` is a file, or
            the disk is full.
    """
    path = Path(path).resolve()  # if it is a link, replace its target
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; expected the name of a folder to write")
    with _writing_folder(path) as work:
        temporary = work / "folder"
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        (work / REPLACED).mkdir()
        if path.exists():
            path.rename(work / REPLACED / path.name)
        temporary.rename(path)


def disk_failure(error: BaseException) -> str | None:
    """Return the reason of an error, in a few words, if the disk caused it; None otherwise.

    HDF5, TensorFlow and others put the reason into longer texts, sometimes of many lines.
    """
    for number in DISK_FAILURES:
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return os.strerror(number)
    return None


@contextmanager
def _writing_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder `.writing-*` beside `path`, and remove it at the end.

    A process that is killed leaves its folder behind. Every writer holds a lock in its own folder,
    so the next one that writes beside `path` removes the folders whose lock nobody holds.
    """
    for left in sorted(path.parent.glob(f"{WRITING}*")):
        with suppress(OSError), _lock_of(left):
            _remove(left)
    work = path.parent / f"{WRITING}{uuid.uuid4().hex}"
    with ExitStack() as held:
        try:  # before the folder exists: an interrupt may come at any instant
            try:
                _begin(work, held)
            except OSError as error:
                raise InputError(
                    f"{path}: cannot be written ({error.strerror}); choose a folder you can write "
                    "to"
                ) from None
            yield work
        except Exception as error:
            reason = None if isinstance(error, InputError) else disk_failure(error)
            if reason is None:
                raise
            raise InputError(
                f"{path}: cannot be written ({reason}); free some room, or choose another place"
            ) from None
        finally:
            _remove(work)


def _begin(work: Path, held: ExitStack) -> None:
    """Make and lock a folder to write in."""
    while True:
        work.mkdir(mode=0o700, exist_ok=True)
        try:
            held.enter_context(_lock_of(work))
        except (TimeoutError, FileNotFoundError):
            continue  # another process took it for one that was left behind
        except OSError:
            return  # a file system without locks: folders that are left behind stay
        return


def _lock_of(work: Path) -> "FileLock":
    from filelock import FileLock  # late: it imports asyncio, and most programs write nothing

    return FileLock(work / LOCK, timeout=0, thread_local=False)


def _remove(work: Path) -> None:
    """Remove a folder to write in; first restore the folder that was not yet replaced, if any."""
    for folder in work.glob(f"{REPLACED}/*"):
        if not (work.parent / folder.name).exists():
            folder.rename(work.parent / folder.name)
    shutil.rmtree(work, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut, where the system can open folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and its parents, check that it can be written to, and return its path.

    Args:
        path: folder, which may exist.

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
