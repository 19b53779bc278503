"""The chance that a hit is of the query's class, learned from a collection's own classes."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import NamedTuple
from zlib import crc32

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int64Array
from deep_ranking.files.content_digest import data_digest
from deep_ranking.model.hit_calibration import DEPTH, NO_CLASS, HitCalibration, Neighbourhood
from deep_ranking.model.hit_fitting import (
    first_images,
    fit_hits,
    neighbourhoods,
    queries_to_fit_on,
)
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.searchable import Searchable
from deep_ranking.search.hit_sampling import fit_sampled
from deep_ranking.search.index.base import Index, batches, read_rows
from deep_ranking.search.neighbours import nearest_of_other_classes
from deep_ranking.search.results import Hit
from deep_ranking.search.smoothing import SAME_CONTENT

QUERIES_AT_ONCE = 256
FIRST_WITH_HITS = 4  # version of a collection that learns the probability of a hit
MOST_LISTED = 200_000
"""Rows whose classes are all listed to draw queries; of more, SQLite draws them."""
KEPT_SHARE = 0.01
"""Of the images of a large collection: while less has changed, p(hit) is kept."""
NUM_GROUPS = 256  # of classes, whose sizes are stored
WAY_OF_LEARNING = 2  # 1: without the chance that the collection has the query's class


def fit_collection(collection: Collection, index: Index) -> HitCalibration | None:
    """Fit the chance of a hit to searches with up to 500 images of a collection.

    Each image is left out of its own results; then its whole class is.

    Args:
        collection: a synced one.
        index: its index, which holds all rows.

    Returns:
        The calibration; None where too few images have a class with another image.
    """
    embeddings = collection.embeddings()
    if len(embeddings) > MOST_LISTED:
        return fit_sampled(collection, index)
    classes = classes_of_rows(collection)
    queries = queries_to_fit_on(classes)
    near = [
        first_images(found[(found != query) & (found >= 0)])
        for part in batches(queries, QUERIES_AT_ONCE)
        for query, found in zip(
            part, index.search(read_rows(embeddings, part), DEPTH + 1).rows, strict=True
        )
    ]
    if not near:
        return None
    others = nearest_of_other_classes(
        index,
        embeddings,
        np.arange(len(classes)),
        classes,
        DEPTH,
        queries=queries,
    )
    around, without_class = (
        neighbourhoods(embeddings, queries, embeddings, each, classes)
        for each in (np.stack(near), others.astype(np.int64))
    )
    return fit_hits(classes[queries], around, without_class)


def learn_hits(collection: Collection, index: Index, *, is_changed: bool, is_new: bool) -> None:
    """Learn p(hit) of the images that a collection has now, unless what it has is still of them.

    A collection of more than `MOST_LISTED` rows keeps it until a hundredth of its images have
    changed, as the searches that it is learned from compare all rows. Its settings count them.

    Args:
        collection: a synced one; the caller holds its lock.
        index: its index, which holds all rows.
        is_changed: whether the index has just got or lost rows.
        is_new: whether it has just been made, of another kind than before.
    """
    settings, state = collection.settings, state_of_classes(collection)
    if not (is_changed or is_new) and state.digest == settings.hits_of:
        return
    behind = state.num_changed(settings.hits_sizes)
    is_large = state.num_rows > MOST_LISTED
    if is_large and not is_new and behind <= KEPT_SHARE * state.num_images:
        collection.change(hits_of=state.digest, hits_behind=behind)
        return
    collection.change(
        hits=fit_collection(collection, index),
        hits_of=state.digest,
        hits_sizes=state.sizes,
        hits_behind=0,
    )


class StateOfClasses(NamedTuple):
    """What p(hit) is learned from, in short.

    Attributes:
        digest: 16 hexadecimal digits that change with the rows in use or the size of a class.
            While they are the same, p(hit) need not be learned again. They are others than those of
            a version that learned it otherwise.
        sizes: `WAY_OF_LEARNING`; the rows that were ever stored; and the images of each of 256
            groups of classes.
    """

    digest: str
    sizes: list[int]

    @property
    def num_rows(self) -> int:
        """The rows that were ever stored."""
        return self.sizes[1]

    @property
    def num_images(self) -> int:
        """The images that can be found."""
        return sum(self.sizes[2:])

    def num_changed(self, before: Sequence[int]) -> int:
        """Return how many images have come, gone or changed their class since some sizes, or more.

        Copies of an image that is gone, and changes within a group, are not seen.
        """
        if before[:1] != self.sizes[:1] or len(before) != len(self.sizes):
            return self.num_images  # it was learned otherwise, or never
        changes = [abs(now - then) for now, then in zip(self.sizes, before, strict=True)]
        return max(changes[1], sum(changes[2:]))


def state_of_classes(collection: Collection) -> StateOfClasses:
    """Return what tells whether p(hit) is of the images that a collection has now."""
    classes = collection.classes()
    with closing(collection.images()) as images:
        num_rows = images.num_rows_needed()
        last = [num_rows - 1] if num_rows else []
        state = f"{WAY_OF_LEARNING} {classes} {images.num_rows()} {last}"
    groups = [0] * NUM_GROUPS
    for name, count in classes.items():
        groups[crc32(os.fsencode(name)) % NUM_GROUPS] += count
    return StateOfClasses(
        data_digest(os.fsencode(state)).hex()[:16], [WAY_OF_LEARNING, num_rows, *groups]
    )


def note_on_calibration(collection: Searchable) -> str:
    """Return what to do about p(hit) that an earlier version learned, in a line; "" for nothing."""
    calibration = collection.hit_calibration
    if calibration is None or calibration.presence is not None:
        return ""
    return (
        "p(hit) was learned by an earlier version, which took the query's class to be in the "
        f"collection: run `index --output {collection.folder}` again, which learns it anew."
    )


def check_least_probability(collection: Searchable, min_probability: float) -> None:
    """Refuse a least probability of a hit that is none, or where nothing tells the probability.

    Raises:
        InputError: so it is.
    """
    if not 0 <= min_probability <= 1:
        raise InputError(f"min_probability must be 0 to 1. Received: {min_probability}")
    folder, settings = collection.folder, collection.settings
    if collection.hit_calibration is not None:
        return
    if collection.num_shards:
        raise InputError(
            f"{folder}: nothing tells the probability of a hit over several shards: each has "
            "learned that of its own images alone; leave out --min_probability, or join the "
            "shards by `merge`"
        )
    if settings.version < FIRST_WITH_HITS:
        raise InputError(
            f"{folder}: made by an earlier version, which did not learn the probability of a "
            f"hit; run `index --output {folder}` again, which learns it"
        )
    raise InputError(
        f"{folder}: nothing tells the probability of a hit: its images have no classes, or too "
        "few or too small ones to learn it from; put images in folders of their classes and "
        "run `index` again, or leave out --min_probability"
    )


def classes_of_rows(collection: Collection) -> Int64Array:
    """Return the number of each row's class, `NO_CLASS` for none: int64 (all rows,).

    A number is the place of the class among their sorted names. A row of several files has the
    first of their classes.
    """
    found = np.full(len(collection.embeddings()), NO_CLASS, np.int64)
    with closing(collection.images()) as images:
        names = sorted(filter(None, images.classes()))
        numbers = {name: number for number, name in enumerate(names)}
        for image in images.images():
            number = numbers.get(image.label, NO_CLASS)
            if found[image.row] == NO_CLASS or NO_CLASS < number < found[image.row]:
                found[image.row] = number
    return found


def hit_chances(
    calibration: HitCalibration, around: Sequence[Sequence[Hit]], hits: Sequence[Sequence[Hit]]
) -> list[list[float | None]]:
    """Return the chance of each hit of each query to be of the query's class.

    Args:
        calibration: the collection's.
        around: for each query the images of the whole collection that are nearest to it, of 101
            rows or more if there are so many. Copies of an image count once, as in the searches
            that a calibration is learned from.
        hits: for each query its hits.

    Returns:
        0 to 1, never rising with distance; None for a hit without a class.
    """
    names = {hit.label for found in (*around, *hits) for hit in found if hit.label}
    numbers = {name: number for number, name in enumerate(sorted(names))}
    near = without_query(Neighbourhood(*_as_arrays(list(map(_distinct, around)), numbers)))
    distances, classes = _as_arrays(hits, numbers)
    chances = calibration.probabilities(distances, near)
    return [
        [
            None if classes[row, place] == NO_CLASS else float(chances[row, place])
            for place in range(len(found))
        ]
        for row, found in enumerate(hits)
    ]


def _distinct(found: Sequence[Hit]) -> list[Hit]:
    """Return one hit for each of the first 101 rows, with the first of its files' classes."""
    rows: dict[int, Hit] = {}
    for hit in found:
        before = rows.setdefault(hit.row, hit)
        if hit.label and (not before.label or hit.label < before.label):
            rows[hit.row] = hit
    return list(rows.values())[: DEPTH + 1]


def _as_arrays(
    queries: Sequence[Sequence[Hit]], numbers: Mapping[str, int]
) -> tuple[Float64Array, Int64Array]:
    """Return distances and numbers of classes, (queries, hits); infinite, `NO_CLASS` for none."""
    width = max(map(len, queries), default=0)
    distances = np.full((len(queries), width), np.inf)
    classes = np.full((len(queries), width), NO_CLASS, np.int64)
    for row, found in enumerate(queries):
        distances[row, : len(found)] = [hit.distance for hit in found]
        classes[row, : len(found)] = [numbers.get(hit.label, NO_CLASS) for hit in found]
    return distances, classes


def without_query(around: Neighbourhood) -> Neighbourhood:
    """Return the nearest 100 images of each query without the query itself, and its copies.

    A calibration learned from such neighbourhoods.

    Args:
        around: the nearest rows of each query, 101 if there are so many.
    """
    distances = np.where(around.distances < SAME_CONTENT, np.inf, around.distances)
    order = np.argsort(distances, axis=1, kind="stable")[:, :DEPTH]
    nearest: Float64Array = np.take_along_axis(distances, order, axis=1)
    return Neighbourhood(nearest, np.take_along_axis(around.classes, order, axis=1))
