"""Maps of collections: each is made once for a state of its collection, and kept on the disk."""

import multiprocessing
import sys
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from deep_ranking.files import InputError
from deep_ranking.files.installed import check_installed
from deep_ranking.serving.answers import MapProgress
from deep_ranking.serving.file_cache import FileCache, made_cache_folder
from deep_ranking.serving.map.map_file import SUFFIX, read_map_images
from deep_ranking.serving.map.map_process import make_map
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError

MOST_BYTES = 256 << 20  # of all maps; one of 100,000 images has 5 MB


class MadeMap(NamedTuple):
    """A map: its key, and its JSON."""

    key: str
    data: bytes


class _Job(NamedTuple):
    key: str
    process: Any
    progress: Any
    output: Any


class MapMaker:
    """Makes one map at a time, in a process of its own.

    The maps are kept in the user's cache folder, by the content of their collections: a restart
    finds them.

    Args:
        cache_bytes: 0 to keep nothing beyond the life of the server; else the maps have a bound of
            their own.
    """

    def __init__(self, cache_bytes: int) -> None:
        self._temporary: TemporaryDirectory[str] | None = None
        self._folder = made_cache_folder("maps") if cache_bytes else None
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[object, str]] = {}
        self._job: _Job | None = None

    def find(self, state: OpenState) -> MadeMap | MapProgress:
        """Return the map of a collection; or how far it is, which begins it if need be.

        Raises:
            RequestError: it cannot be made, or the collection has no images.
        """
        key = self._key(state)
        with self._lock:
            job, found = self._job, self._kept(key)
            if found is None and job is not None and job.process.is_alive():
                if job.key != key:
                    return MapProgress(status="waiting", placed=0, images=0)
                placed, images = job.progress[:]
                return MapProgress(status="being made", placed=placed, images=images)
            if found is None and job is not None and job.key == key:
                found = self._kept(key)  # it may have been finished just now
                if found is None and job.process.exitcode:
                    _tell_failure(job)
                    raise RequestError(
                        500, "The map could not be made; the server's own output says why."
                    )
            if found is None:
                self._begin(state, key)
                return MapProgress(status="being made", placed=0, images=0)
            return found

    def close(self) -> None:
        """Stop making a map, and remove what is not kept beyond the life of the server."""
        with self._lock:
            if self._job is not None:
                self._job.process.terminate()
                self._job.process.join()
                self._job.output.close()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _key(self, state: OpenState) -> str:
        """Return the key of a collection's map; it is read once for each state."""
        files, key = self._keys.get(state.name, (None, ""))
        if files != state.files:
            images = read_map_images(state.one_index("The map"))
            if not images.ids:
                raise RequestError(409, "The map shows images, and this collection has none.")
            key = images.key
            self._keys[state.name] = state.files, key
        return key

    def _kept(self, key: str) -> MadeMap | None:
        data = self._cache().find(key + SUFFIX)
        return None if data is None else MadeMap(key, data)

    def _begin(self, state: OpenState, key: str) -> None:
        try:
            check_installed("The map", "sklearn", extra="serve")
        except InputError as error:
            raise RequestError(409, str(error)) from None
        progress = self._context.RawArray("q", 2)
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=make_map,
            args=(theirs, state.collection.folder.absolute(), self._place(), MOST_BYTES, progress),
            daemon=True,
        )
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        if self._job is not None:
            self._job.output.close()
        self._job = _Job(key, process, progress, ours)

    def _cache(self) -> FileCache:
        return FileCache(self._place(), MOST_BYTES, suffix=SUFFIX)

    def _place(self) -> Path:
        if self._folder is None:
            self._temporary = TemporaryDirectory(prefix="deep_ranking_maps_")
            self._folder = Path(self._temporary.name)
        return self._folder


def _tell_failure(job: _Job) -> None:
    """Say once on standard error why a map was not made: the process's own may be discarded."""
    if job.output.closed:
        return
    text = f"the process that makes maps ended with exit status {job.process.exitcode}"
    with suppress(EOFError, OSError):
        text = job.output.recv()
    job.output.close()
    print(text, file=sys.stderr, flush=True)
