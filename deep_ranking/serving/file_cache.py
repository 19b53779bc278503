"""Files that can be made again, on disk within a bound: the least recently used goes first."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.cache_folder import cache_folder

KEPT_SHARE = 0.9  # of the bound, once it was reached: so that the folder is seldom listed


class FileCache:
    """A folder of files of one kind, such as thumbnails.

    Args:
        folder: the folder, which exists.
        most_bytes: of all files together. Several processes may share the folder; then it may be
            exceeded by what the others add meanwhile.
        suffix: of the names of the files.
    """

    def __init__(self, folder: Path, most_bytes: int, *, suffix: str = ".jpg") -> None:
        self._folder = folder
        self._most = most_bytes
        self._suffix = suffix
        self._lock = threading.Lock()
        self._num_bytes: int | None = None  # until one is added: a large folder takes long to list

    def find(self, name: str) -> bytes | None:
        """Return a file's bytes, and note that it was used; None if it is not here."""
        path = self._folder / name
        try:
            with open_regular(path, max_bytes=self._most) as file:
                data = file.read()
            os.utime(path)
        except OSError:
            return None
        return data or None

    def add(self, name: str, data: bytes) -> None:
        """Keep a file; where that fails, it is made again the next time."""
        if len(data) > self._most:
            return
        with suppress(OSError, InputError):
            with atomic_path(self._folder / name) as temporary:
                temporary.write_bytes(data)
            with self._lock:
                if self._num_bytes is None:
                    self._num_bytes = sum(size for _, size, _ in self._listed())
                else:
                    self._num_bytes += len(data)
                if self._num_bytes > self._most:
                    self._num_bytes = self._shrunk()

    def _shrunk(self) -> int:
        """Remove those that were not used for longest; return the bytes of the others."""
        listed = sorted(self._listed())
        num_bytes = sum(size for _, size, _ in listed)
        for _, size, path in listed:
            if num_bytes <= KEPT_SHARE * self._most:
                break
            with suppress(OSError):
                path.unlink()
                num_bytes -= size
        return num_bytes

    def _listed(self) -> list[tuple[int, int, Path]]:
        """Return time of use (ns), size and path of each file."""
        found = []
        for path in self._folder.glob(f"*{self._suffix}"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return found


def open_thumbnail_cache(most_bytes: int) -> FileCache | None:
    """Return the cache in the user's cache folder; None if there is none or `most_bytes` is 0."""
    folder = made_cache_folder("thumbnails") if most_bytes else None
    return None if folder is None else FileCache(folder, most_bytes)


def made_cache_folder(name: str) -> Path | None:
    """Return a folder in the user's cache folder, made if missing; None if it cannot be."""
    outer = cache_folder()
    if outer is None:
        return None
    with suppress(OSError):
        (outer / name).mkdir(mode=0o700, exist_ok=True)
        return outer / name
    return None
