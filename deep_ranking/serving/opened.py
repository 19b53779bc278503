"""The collections that a server has open, and how it notices that one has changed.

A sync by another process replaces `collection.json` and changes `images.sqlite`. Before each
request the server looks at both: if one has changed, it opens the collection anew. Requests that
run keep the state that they began with. Of shards, it looks at those of each.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deep_ranking.datasets.not_duplicates import Pair, path_beside, read_not_duplicates
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.content_digest import file_status
from deep_ranking.reports.occlusion import Occlusion
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.own_files import IMAGES, SETTINGS
from deep_ranking.search.collection.searchable import Searchable, ShardError
from deep_ranking.search.results import Result
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.shards import open_searchable
from deep_ranking.search.shards.list_file import listed_shards
from deep_ranking.serving.kept_files import told_of_file
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.recent import Recent

FileState = tuple[tuple[int, ...], ...]
UploadKey = tuple[bytes, tuple[float, ...] | None]
PairKey = tuple[bytes, bytes, tuple[float, ...] | None]
RANKED_KEPT = 12_000
"""Results of the last searches of a collection that are kept for their cursors: some 4 MB."""
MOST_ROWS, MOST_PAIRS = 128, 256  # that are kept: 2 MiB at most, and 0.2
RETRY_SECONDS = 5
SAY_SECONDS = 60.0
TOLD_APART = "pairs that are no duplicates"
LOOK_AGAIN_SECONDS = 60.0  # after which shards that are left out are tried again
PATIENCE_SECONDS = 2.0  # with the server of an index: whoever asks is told to try again instead


class RankedResults(NamedTuple):
    """The first results of a search.

    Attributes:
        depth: images that were searched for; where fewer were found, the collection has no more.
        results: nearest first.
    """

    depth: int
    results: Sequence[Result]


class OpenState:
    """One state of a collection, open to be searched.

    Args:
        name: what the API calls the collection.
        folder: of the collection, or a list of shards.
        before: an earlier state, whose model is taken over if it is the same.
        skip_unavailable: whether to leave out shards that cannot be searched.

    Attributes:
        name: as given.
        opened_at: when, in seconds of `time.monotonic`.
        files: what tells this state from others.
        collection: the collection.
        ranked: the results of the last searches, which cursors continue.
        upload_rows: rows of uploads, by the digest of the content and the box: each further page
            of results sends the upload again.
        explanations: by the digests of both contents, and the box of the first one.

    Raises:
        InputError: there is no collection, or it is damaged.
        OSError: it is gone.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        before: "OpenState | None" = None,
        *,
        skip_unavailable: bool = False,
    ) -> None:
        self.name = name
        self.opened_at = time.monotonic()
        self.files = _files_of(folder)  # first: a later change is seen next time
        self.collection: Searchable = open_searchable([folder], skip_unavailable=skip_unavailable)
        self._model = file_status(self.collection.model.stat())
        self.collection.retry_seconds = PATIENCE_SECONDS
        if before is not None and before._model_state() == self._model_state():
            self.collection.embedder = before.collection.embedder
        self.ranked: Recent[str, RankedResults] = Recent(RANKED_KEPT)
        self.upload_rows: Recent[UploadKey, Float32Array] = Recent(MOST_ROWS)
        self.explanations: Recent[PairKey, Occlusion] = Recent(MOST_PAIRS)
        self._searchers: dict[bool, Searcher] = {}
        self._lock = threading.Lock()
        self.searcher()

    def _model_state(self) -> tuple[tuple[int, ...], str]:
        return self._model, self.collection.settings.precision

    @property
    def order(self) -> str:
        """What decides the order of results, beside the images: the model, and which shards."""
        left_out = "".join(f" {each.name}" for each in self.collection.left_out)
        return self.collection.settings.fingerprint + left_out

    def one_index(self, what: str) -> Collection:
        """Return the collection, for what cannot work on several shards.

        Args:
            what: in words, such as "The map".

        Raises:
            RequestError: there are several shards.
        """
        if isinstance(self.collection, Collection):
            return self.collection
        raise RequestError(
            409,
            f"{what} is made of one index, and this collection is {self.collection.num_shards} "
            "shards, which are searched as one.",
        )

    @property
    def root(self) -> Path:
        """The folder of the images."""
        return Path(self.collection.settings.root)

    @property
    def is_smoothed(self) -> bool:
        """Whether the collection has smoothed rows."""
        return self.collection.settings.smoothing is not None

    def searcher(self, smooth: bool | None = None) -> Searcher:
        """Return what searches it, by the smoothed rows or not; None: as the collection has them.

        Raises:
            RequestError: it has no smoothed rows.
        """
        wanted = self.is_smoothed if smooth is None else smooth
        if wanted and not self.is_smoothed:
            raise RequestError(422, "smooth: this collection has no smoothed rows; leave it out.")
        with self._lock:
            if wanted not in self._searchers:
                self._searchers[wanted] = Searcher(self.collection, smooth=wanted)
            return self._searchers[wanted]


class ServedCollection:
    """A collection that a server serves, in its newest state.

    Args:
        name: what the API calls it.
        folder: of the collection, or a list of shards.
        skip_unavailable: whether to leave out shards that cannot be searched.

    Attributes:
        name: as given.
        folder: of the collection that is served now.
        not_duplicates: the file of pairs that were told apart, beside the folder as given.

    Raises:
        InputError: there is no collection, or it is damaged.
    """

    def __init__(self, name: str, folder: Path, *, skip_unavailable: bool = False) -> None:
        self.name = name
        self.folder = folder
        self._skip_unavailable = skip_unavailable
        self._is_looking = False  # for shards that are back
        self.not_duplicates = path_beside(folder)
        self._lock = threading.Lock()
        try:
            self._state = self._opened(folder, None)
        except OSError:
            Collection.open(folder)  # says what is missing
            raise
        self._said, self._say_again = "", 0.0

    def current(self) -> OpenState:
        """Return the collection as it is now; it is opened anew if it has changed.

        Raises:
            RequestError: it is gone, being rebuilt, or damaged.
        """
        with self._lock:
            try:
                if _files_of(self.folder) != self._state.files:
                    self._state = self._opened(self.folder, self._state)
            except (InputError, OSError) as error:
                raise self.refusal(error) from None
            age = time.monotonic() - self._state.opened_at
            if self._state.collection.left_out and age > LOOK_AGAIN_SECONDS:
                self._look_again()
            return self._state

    def _opened(self, folder: Path, before: OpenState | None) -> OpenState:
        return OpenState(self.name, folder, before, skip_unavailable=self._skip_unavailable)

    def _look_again(self) -> None:
        """Open all shards again on a thread of its own: no request waits for one that is down."""
        if self._is_looking:
            return
        self._is_looking = True
        before = self._state

        def look() -> None:
            try:
                state = self._opened(self.folder, before)
                with self._lock:
                    if self._state is before:
                        self._state = state
            except (InputError, OSError):
                before.opened_at = time.monotonic()  # they are down still
            finally:
                self._is_looking = False

        threading.Thread(target=look, name="shards", daemon=True).start()

    def go_to(self, folder: Path) -> None:
        """Serve the collection of another folder from the next request on.

        It is opened before, with its model, so that no request waits for it.

        Args:
            folder: of a collection of the same images.

        Raises:
            InputError: there is no collection, or it is damaged; the one before is served on.
        """
        with self._lock:
            before = self._state
        try:
            state = self._opened(folder, before)
        except OSError as error:
            raise InputError(f"{folder}: cannot be opened ({error.strerror})") from None
        state.collection.embedder.engine(1)
        with self._lock:
            self.folder, self._state = folder, state

    def told_apart(self) -> dict[Pair, str]:
        """Return the pairs that people told apart, each with who said so.

        Raises:
            RequestError: their file is damaged.
        """
        with told_of_file(self.not_duplicates, TOLD_APART):
            return read_not_duplicates(self.not_duplicates)

    def refusal(self, error: Exception) -> RequestError:
        """Return the answer to a collection that cannot be used; say why on standard error.

        The same is said once a minute, not for each request.
        """
        now = time.monotonic()
        if str(error) != self._said or now > self._say_again:
            self._said, self._say_again = str(error), now + SAY_SECONDS
            print(f"{self.name}: {error}", file=sys.stderr, flush=True)
        which = f"The collection {self.name}"
        if isinstance(error, ShardError):
            which = f"The shard {error.shard.name} of the collection {self.name}"
        return RequestError(
            503,
            f"{which} cannot be used at the moment: it is being rebuilt, gone or damaged. Try "
            "again later.",
            retry_after=RETRY_SECONDS,
        )


def open_served(
    folders: Sequence[Path], *, skip_unavailable: bool = False
) -> dict[str, ServedCollection]:
    """Open collections, by their names: those of their folders, with a number where two are equal.

    Args:
        folders: of the collections, or lists of shards.
        skip_unavailable: whether to leave out shards that cannot be searched.

    Raises:
        InputError: one is missing or damaged.
    """
    served: dict[str, ServedCollection] = {}
    for folder in folders:
        plain = name = Path(os.path.abspath(folder)).name.encode(errors="replace").decode() or "/"
        number = 1
        while name in served:
            number += 1
            name = f"{plain} ({number})"
        served[name] = ServedCollection(name, folder, skip_unavailable=skip_unavailable)
    return served


def _files_of(folder: Path) -> FileState:
    """Return what tells the state of a collection, or of all shards of a list, from others."""
    if not folder.is_file():
        return tuple(file_status((folder / name).stat()) for name in (SETTINGS, IMAGES))
    found: list[tuple[int, ...]] = [file_status(folder.stat())]
    for shard in listed_shards([folder]):
        for name in (SETTINGS, IMAGES):
            try:
                found.append(file_status((shard / name).stat()))
            except OSError:
                found.append(())
    return tuple(found)
