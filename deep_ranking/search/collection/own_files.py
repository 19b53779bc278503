"""Which files belong to the folder of a collection, and who may write to it."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from deep_ranking.embedding.compiled.names import SUFFIX
from deep_ranking.files import InputError, atomic_path, make_folder, open_regular

SETTINGS, MODEL, IMAGES = "collection.json", "model.h5", "images.sqlite"
LOCK, HOLDER = "lock", "holder"
STORE = ("embeddings.bin", "keys.bin", "blocks.bin")
SMOOTHED = "smoothed.bin"
PARTS = "parts.json"
OWN_FILES = {MODEL, IMAGES, f"{IMAGES}-journal", LOCK, HOLDER, SMOOTHED, PARTS, *STORE}


def check_vacant(folder: Path) -> None:
    """Refuse a folder with files that do not belong to an unfinished collection."""
    names = {each.name for each in folder.iterdir() if not each.name.startswith(".writing-")}
    if others := {each for each in names - OWN_FILES if not each.endswith(SUFFIX)}:
        raise InputError(
            f"{folder}: holds other files, such as {min(others)}; choose a folder of its own"
        )


def check_own_files(folder: Path) -> None:
    """Refuse links, pipes and the like: a link would be written through, a pipe never ends."""
    names = OWN_FILES | {SETTINGS, "milvus.name", "milvus.state", f"{IMAGES}-wal", f"{IMAGES}-shm"}
    for each in sorted(folder.iterdir()):
        if each.name not in names and each.suffix not in (".faiss", SUFFIX):
            continue
        with suppress(FileNotFoundError):  # the journal of a change that ended meanwhile
            if not stat.S_ISREG(each.lstat().st_mode):
                raise InputError(
                    f"{each}: a link, or not a regular file; all files of an index must lie in its "
                    "folder"
                )


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a collection, or of a folder that is to become one.

    Raises:
        InputError: another process holds it, and which one; or the folder cannot be made, or holds
            other files.
    """
    from filelock import FileLock  # late: it imports asyncio, and searches lock nothing

    folder = make_folder(folder)
    check_own_files(folder)
    if not (folder / SETTINGS).exists():
        check_vacant(folder)  # before anything is written into it
    holder = folder / HOLDER
    try:
        with FileLock(folder / LOCK, timeout=0):
            name = f"process {os.getpid()} on {socket.gethostname()}"
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            with atomic_path(holder) as temporary:
                temporary.write_text(f"{name} since {since}\n", encoding="utf-8")
            yield
    except TimeoutError:
        try:
            with open_regular(holder) as file:
                who = file.read(1000).decode(errors="replace").strip()
        except OSError:
            who = "another process"
        raise InputError(f"{folder}: being written to by {who}; wait for it, or stop it") from None
