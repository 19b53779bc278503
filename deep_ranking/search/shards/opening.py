"""Open several collections to be searched as one."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import counted, listed
from deep_ranking.model.calibration import Calibration
from deep_ranking.search.collection import Collection, Settings
from deep_ranking.search.collection.folder import RETRY_SECONDS
from deep_ranking.search.collection.searchable import LeftOutShard, Searchable, ShardError
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.shards.list_file import listed_shards, short_names
from deep_ranking.search.shards.shard import Place, Shard, common_root
from deep_ranking.search.shards.sharded_index import KIND, ShardedIndex
from deep_ranking.search.shards.sharded_rows import ShardedRows
from deep_ranking.search.shards.sharded_table import ShardedTable

T = TypeVar("T")
SKIPPING_SECONDS = 5.0
"""How long a server that does not answer is asked again, where it may be left out."""


class Shards(Searchable):
    """Several collections of one model, which are searched as the one that `merge` would make.

    The shards are asked at once, and their answers merged by distance. An image that several of
    them have is found once. What no shard can tell of all of them is refused: smoothed rows, and
    the probability of a hit.

    Args:
        opened: the shards that can be searched.
        left_out: those that cannot, by number.
        folder: what names all of them in messages.
        skip_unavailable: whether to leave out those that fail later, too.

    Attributes:
        folder: as given.
        settings: of all rows.
        num_shards: how many shards there are, those that are left out among them.

    Example:
        >>> for part in (1, 2):
        ...     _ = index_images(f"part{part}", model="model.h5", images="photos", shard=(part, 2))
        >>> both = Shards.open(["part1", "part2"])
        >>> both
        part1, part2: 12 images in 2 shards
        >>> [each.label for each in both.search("photos/cat/0.png", top=2)[0]]
        ['cat', 'cat']
    """

    def __init__(
        self,
        opened: Sequence[Shard],
        left_out: dict[int, LeftOutShard],
        *,
        folder: Path,
        skip_unavailable: bool,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.num_shards = len(opened) + len(left_out)
        self.settings = _settings_of_all(opened)
        self._shards = {shard.place.number: shard for shard in opened}
        self._left_out = left_out
        self._skip_unavailable = skip_unavailable
        self.retry_seconds = SKIPPING_SECONDS if skip_unavailable else RETRY_SECONDS

    @classmethod
    def open(
        cls,
        folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        skip_unavailable: bool = False,
    ) -> Self:
        """Open shards.

        Args:
            folders: of collections; or a list of them, a text file with a folder in each line; or
                several of either.
            skip_unavailable: leave out shards that cannot be searched, now or later: `left_out`
                names them. By default, one that cannot be searched is an error.

        Raises:
            InputError: a shard is missing, damaged or there twice; or of another model or precision
                than most; or none can be searched.
        """
        several = [folders] if isinstance(folders, str | os.PathLike) else folders
        given = list(map(Path, several))
        names = listed_shards(given)
        opened: dict[Place, Collection] = {}
        failed: dict[Place, ShardError] = {}
        places = [
            Place(number, len(names), folder, name)
            for number, (folder, name) in enumerate(zip(names, short_names(names), strict=True))
        ]
        for place in places:
            try:
                with place.named_in_errors():
                    opened[place] = Collection.open(place.folder)
            except ShardError as error:
                failed[place] = error
        failed |= _of_other_models(opened)
        left_out = {error.number: error.shard for error in failed.values()}
        if failed and (not skip_unavailable or len(failed) == len(names)):
            first = failed[min(failed)]
            raise first if not skip_unavailable else _none_left(list(left_out.values()))
        there = [each for each in opened.items() if each[0] not in failed]
        roots = [collection.settings.root for _, collection in there]
        root = common_root(roots)
        if root is None:
            raise InputError(
                f"{there[0][0].folder}: its images are in {roots[0]}, and those of other shards in "
                f"{next(each for each in roots if each != roots[0])}: no folder holds both"
            )
        shards = [
            Shard(place, collection, collection.settings.root[len(root) :].strip("/"))
            for place, collection in there
        ]
        folder = Path(listed(list(map(str, given)))) if len(given) > 1 else given[0]
        return cls(shards, left_out, folder=folder, skip_unavailable=skip_unavailable)

    def __repr__(self) -> str:
        with closing(self.images()) as table:
            images = counted(len(table), "image")
        text = f"{self.folder}: {images} in {counted(len(self.there()), 'shard')}"
        names = [str(each.folder) for each in self.left_out]
        return f"{text}, {len(names)} left out: {listed(names)}" if names else text

    def there(self) -> list[Shard]:
        """Return the shards that are searched."""
        left_out = set(self._left_out)
        return [shard for number, shard in self._shards.items() if number not in left_out]

    @property
    def left_out(self) -> list[LeftOutShard]:
        """The shards that are left out, in their order."""
        return [each for _, each in sorted(self._left_out.items())]

    def leave_out(self, error: ShardError) -> None:
        """Go on without a shard that failed.

        Raises:
            ShardError: nobody asked to leave shards out.
            InputError: no other one is left.
        """
        if not self._skip_unavailable:
            raise error
        self._left_out = self._left_out | {error.number: error.shard}
        if not self.there():
            raise _none_left(self.left_out)

    @property
    def retry_seconds(self) -> float:
        """How long to retry when a server that has the index of a shard does not answer."""
        return self._retry_seconds

    @retry_seconds.setter
    def retry_seconds(self, seconds: float) -> None:
        self._retry_seconds = seconds
        for shard in self._shards.values():
            shard.collection.retry_seconds = seconds

    @property
    def model(self) -> Path:
        """Path of the model file of the first shard; all are of one model."""
        return self.there()[0].collection.model

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the model, of the first shard that has one."""
        found = (shard.collection.calibration for shard in self.there())
        return next((each for each in found if each is not None), None)

    def images(self) -> ShardedTable:
        """Open the tables of images."""
        return self._of_those_there(ShardedTable)

    def embeddings(self) -> ShardedRows:
        """Return the embeddings of all shards."""
        return self._of_those_there(lambda there: ShardedRows(there, self.settings.dimension))

    def rows(self) -> Int64Array:
        """Return the rows in use of all shards; several may have a row each of one content."""

        def joined(there: Sequence[Shard]) -> Int64Array:
            found = []
            for shard in there:
                with shard.place.named_in_errors():
                    found.append(shard.first_row + shard.collection.rows())
            return np.concatenate(found)

        return self._of_those_there(joined)

    def _of_those_there(self, make: Callable[[Sequence[Shard]], T]) -> T:
        """Return what a function returns of the shards that are there; one may fail meanwhile."""
        while True:
            try:
                return make(self.there())
            except ShardError as error:
                self.leave_out(error)

    def open_index(self) -> ShardedIndex:
        """Open the indexes, all at once.

        Raises:
            ShardError: one cannot be opened, and is not to be left out.
        """
        return ShardedIndex(self)

    def place_of(self, path: str) -> tuple[Path, str]:
        """Return the root of the shard that has an image, and the image's path below it.

        Raises:
            InputError: no shard has it.
        """
        inner = [(shard.collection.settings.root, shard.inner(path)) for shard in self.there()]
        places = {(root, own) for root, own in inner if own is not None}
        if len(places) > 1:  # a shard's images may lie in a folder of another one's
            with closing(self.images()) as table:
                owners = table.owners([path])
            places = {
                (self._shards[number].collection.settings.root, own)
                for number, own in owners.values()
            }
        for root, own in places:
            return Path(root), own
        raise InputError(f"{path}: no shard has this image")

    def parts_of(self, paths: Iterable[str]) -> list[tuple[Searchable, list[str]]]:
        """Return which shards have some images, each with those that it has."""
        with closing(self.images()) as table:
            owners = table.owners(list(paths))
        return [
            (shard.collection, [path for path, (number, _) in owners.items() if number == own])
            for own, shard in self._shards.items()
        ]

    def note(self) -> str:
        """Return what of the shards a search does not use, and which ones seem to be missing."""
        there = [shard.collection.settings for shard in self.there()]
        lines = []
        if any(each.smoothing is not None for each in there):
            lines.append(
                "Ranked by the plain rows: the smoothed rows of a shard know its own neighbours "
                "alone."
            )
        if any(each.hits is not None for each in there):
            lines.append(
                "No p(hit): each shard has learned that of its own images alone; an index that "
                "`merge` makes of them tells it."
            )
        parts = {each.shard for each in there if each.shard is not None}
        if not self._left_out and parts and len({total for _, total in parts}) == 1:
            total = next(iter(parts))[1]
            missing = [f"{i}/{total}" for i in range(1, total + 1) if (i, total) not in parts]
            if missing:
                lines.append(f"Not among the shards: part {listed(missing)} of index --shard.")
        return "\n".join(lines)


def open_searchable(
    given: Sequence[Path], *, skip_unavailable: bool = False
) -> Collection | Shards:
    """Open one collection, or several as one: more than one folder, or a list of them.

    Raises:
        InputError: as for `Collection.open` and `Shards.open`.
    """
    if len(given) == 1 and not given[0].is_file():
        return Collection.open(given[0])
    return Shards.open(given, skip_unavailable=skip_unavailable)


def _of_other_models(opened: dict[Place, Collection]) -> dict[Place, ShardError]:
    """Return the error of each shard whose rows do not compare with those of most shards."""
    made_by = {place: _made_by(collection.settings) for place, collection in opened.items()}
    if len(set(made_by.values())) < 2:
        return {}
    ((most, number),) = Counter(made_by.values()).most_common(1)
    return {
        place: place.failure(
            f"its rows are of {words}, and those of {counted(number, 'shard')} of {most}, which do "
            "not compare"
        )
        for place, words in made_by.items()
        if words != most
    }


def _made_by(settings: Settings) -> str:
    return (
        f"the model {settings.fingerprint} ({settings.dimension} numbers) in {settings.precision}"
    )


def _settings_of_all(opened: Sequence[Shard]) -> Settings:
    settings = [shard.collection.settings for shard in opened]
    roots = [each.root for each in settings]
    is_exact = all(each.index["kind"] == ExactIndex.kind for each in settings)
    return replace(
        settings[0],
        root=common_root(roots) or roots[0],
        shard=None,
        index={"kind": ExactIndex.kind if is_exact else KIND},
        hits=None,
        smoothing=None,
    )


def _none_left(left_out: Sequence[LeftOutShard]) -> InputError:
    first = left_out[0]
    return InputError(
        f"none of {counted(first.num_shards, 'shard')} can be searched; the first one, "
        f"{first.folder}: {first.reason}"
    )
