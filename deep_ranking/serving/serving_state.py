"""What all addresses of the API share: the collections, and the threads that work on them."""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from deep_ranking.files import InputError
from deep_ranking.search.collection.searchable import ShardError
from deep_ranking.search.duplicates import Duplicates, find_duplicates
from deep_ranking.serving.errors.errors import CollectionErrors, Correcting, find_collection_errors
from deep_ranking.serving.file_cache import open_thumbnail_cache
from deep_ranking.serving.image_ids import KnownImage, find_by_id
from deep_ranking.serving.learn.learning import Learning
from deep_ranking.serving.map.maps import MapMaker
from deep_ranking.serving.opened import OpenState, ServedCollection
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.settings import ServerSettings
from deep_ranking.serving.slow_results import SlowResult
from deep_ranking.serving.teach.teaching import Teaching
from deep_ranking.serving.workers import Workers

T = TypeVar("T")
MOST_THREADS = 4


class Serving:
    """What the addresses of the API share.

    Args:
        served: the collections, by name.
        settings: of the server.
        maps: what makes their maps.

    Attributes:
        learning: what learns from answers; None for nothing.

    Raises:
        InputError: nothing can be asked about the collection, or the file of ratings or of
            corrections cannot be used.
    """

    learning: Learning | None = None

    def __init__(
        self,
        served: Mapping[str, ServedCollection],
        settings: ServerSettings,
        maps: MapMaker,
    ) -> None:
        self.teaching: Teaching | None = None
        if settings.ratings is not None:
            (asked_about,) = served.values()
            self.teaching = Teaching(asked_about, settings.ratings, settings.rater)
        self.correcting: Correcting | None = None
        if settings.corrections is not None:
            (corrected,) = served.values()
            self.correcting = Correcting(corrected, settings.corrections)
        self.served = served
        self.settings = settings
        self.maps = maps
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        queue, seconds = settings.queue, settings.work_seconds
        self._searches = Workers(threads, queue=queue, seconds=seconds)
        self._pictures = Workers(threads, queue=queue, seconds=seconds)
        # One at a time: each embeds a hundred images, and searches must not wait behind them.
        self._explanations = Workers(1, queue=queue, seconds=seconds)
        patience = settings.work_seconds / 2
        self.duplicates: SlowResult[Duplicates] = SlowResult("duplicates", patience)
        self.errors: SlowResult[CollectionErrors] = SlowResult("errors", patience)
        self.cache = open_thumbnail_cache(settings.cache_bytes)

    def asking(self) -> Teaching:
        """Return what asks people.

        Raises:
            RequestError: this server asks nothing.
        """
        if self.teaching is None:
            raise RequestError(
                403, "This server asks no questions; start it with --teach to be asked."
            )
        return self.teaching

    def named(self, name: str | None) -> ServedCollection:
        """Return a collection by its name; the first for None.

        Raises:
            RequestError: there is none.
        """
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            raise RequestError(
                404, "collection: none of this name; /api/v1/collections lists them."
            )
        return self.served[name]

    async def on(self, name: str | None, function: Callable[[OpenState], T]) -> T:
        """Return what a function returns of a collection, on a thread for searches."""
        served = self.named(name)
        return await self._searches.run(_with_state, served, function)

    async def explanation(self, name: str | None, function: Callable[[OpenState], T]) -> T:
        """Return what a function returns of a collection, on the thread for explanations."""
        served = self.named(name)
        return await self._explanations.run(_with_state, served, function)

    async def picture(
        self, given: str, name: str | None, make: Callable[[OpenState, KnownImage], T]
    ) -> T:
        """Return what a function makes of an image of any collection, or of a named one."""
        among = list(self.served.values()) if name is None else [self.named(name)]

        def find() -> T:
            for each in among:
                found = _with_state(each, lambda state: _made(state, given, make))
                if found is not None:
                    return found[0]
            raise RequestError(404, "id: no such image.")

        return await self._pictures.run(find)

    async def found_duplicates(
        self, name: str | None, threshold: float
    ) -> tuple[OpenState, Duplicates]:
        """Return a collection and its duplicates."""
        served = self.named(name)
        state = await self._searches.run(served.current)
        collection = state.one_index("A list of duplicates")
        apart = frozenset(await self._searches.run(served.told_apart))
        try:
            key = (state.name, state.files, threshold, apart)
            found = await self.duplicates.find(
                key, lambda: find_duplicates(collection, threshold, not_duplicates=apart)
            )
            return state, found
        except (InputError, OSError) as error:
            raise served.refusal(error) from None

    async def found_errors(
        self, name: str | None, *, anew: bool
    ) -> tuple[OpenState, CollectionErrors]:
        """Return a collection and where its model errs on its classes."""
        served = self.named(name)
        state = await self._searches.run(served.current)
        collection = state.one_index("A list of errors")
        if anew:
            self.errors.forget()
        try:
            key = (state.name, state.files)
            return state, await self.errors.find(
                key, lambda: find_collection_errors(collection, self.correcting)
            )
        except (InputError, OSError) as error:
            raise served.refusal(error) from None


def _with_state(served: ServedCollection, function: Callable[[OpenState], T]) -> T:
    state = served.current()
    try:
        while True:
            try:
                return function(state)
            except ShardError as error:
                state.collection.leave_out(error)  # raises it, unless that is asked for
    except (InputError, OSError) as error:  # such as a damaged row, or Milvus that is down
        raise served.refusal(error) from None


def _made(
    state: OpenState, given: str, make: Callable[[OpenState, KnownImage], T]
) -> tuple[T] | None:
    image = find_by_id(state.collection, given)
    return None if image is None else (make(state, image),)
