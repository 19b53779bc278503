"""What a search finds: images with their distance, and how they are shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deep_ranking.files import printable
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.metrics import METRICS, cosine_at
from deep_ranking.search.collection.searchable import LeftOutShard

NO_MATCH = "no match"
COLUMNS = (
    "query",
    "rank",
    "distance",
    "smoothed_distance",
    "cosine",
    "hit_probability",
    "class",
    "path",
    "problem",
)
"""What JSON and CSV have of each result."""


class Hit(NamedTuple):
    """An image that was found. Hits are sorted by what ranks them, then by path.

    Attributes:
        ranked_by: what ranks it, such as the distance; smaller is better.
        path: relative to the collection's root.
        label: its class; "" for none.
        distance: Euclidean, 0 to 2, of the query to the image's own row.
        row: number of that row, which copies of an image share.
        smoothed_distance: likewise, to its smoothed row; None where rows are not smoothed.
    """

    ranked_by: float
    path: str
    label: str
    distance: float
    row: int
    smoothed_distance: float | None = None


@dataclass(frozen=True)
class Result:
    """One image found by a search.

    Attributes:
        rank: 1 for the nearest.
        distance: Euclidean, 0 (alike) to 2, of the query and the image.
        path: the image file, absolute.
        label: its class, as the collection stores it; "" for none.
        hit_probability: chance that it is of the query's class, in this collection; None where
            nothing is known of it, see `search.hit_probability`.
        problem: "gone" or "changed" if the file is not what was embedded; "" if it is, or if nobody
            looked.
        smoothed_distance: Euclidean, of the query and the image's smoothed row, by which results
            are ranked; None if they are ranked by `distance`.

    Example:
        >>> Result(1, 0.5, "photos/cat/0.png", "cat", None).cosine
        0.875
    """

    rank: int
    distance: float
    path: str
    label: str
    hit_probability: float | None
    problem: str = ""
    smoothed_distance: float | None = None

    @property
    def cosine(self) -> float:
        """Cosine of the two embeddings, 1 (alike) to -1."""
        return cosine_at(self.distance)


@dataclass(frozen=True)
class SearchResults:
    """The results of several queries: `results[i]` are those of query i, nearest first.

    Printed, it is the text of the command `search`; a notebook shows the images, each query before
    its results.

    Attributes:
        queries: the image files that were searched with.
        results: for each query its results.
        left_out: images of folders that cannot be read.
        embeddings: float32 (queries, dim), unit rows: what was searched with, after feedback.
        labels: the class of each query; "" where it is not known.
        note: what to do about results whose files are gone or changed; "" if all are there.
        min_probability: hits below it are left out; None for no limit.
        shards_left_out: the shards that were not searched, because they cannot be.
        ranking: that the results are ranked by smoothed rows, and how; "" if they are not.

    Example:
        >>> queries = ["photos/cat/1.png", "photos/dog/1.png"]
        >>> found = Collection.open("photos.index").search(queries, top=3)
        >>> [results[0].label for results in found]
        ['cat', 'dog']
    """

    queries: list[str]
    results: list[list[Result]]
    left_out: list[str]
    embeddings: Float32Array = field(repr=False)
    labels: list[str] = field(default_factory=list)
    note: str = ""
    min_probability: float | None = None
    ranking: str = ""
    shards_left_out: list[LeftOutShard] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.queries)

    def __iter__(self) -> Iterator[list[Result]]:
        """Yield the results of each query."""
        return iter(self.results)

    def __getitem__(self, number: int) -> list[Result]:
        """Return the results of a query."""
        return self.results[number]

    def __repr__(self) -> str:
        return "\n".join(filter(None, (self.text(), self.ranking, self.note)))

    def text(self, *, metric: str = METRICS[0]) -> str:
        """Return a line for each result: rank, distance (or cosine), chance of a hit, path.

        A mark follows the path of a file that is gone, or not what was embedded. A query without a
        result has the line "no match". The first lines name the shards that are left out.
        """
        lines = self._of_shards()
        for query, found in zip(self.queries, self.results, strict=True):
            if len(self.queries) > 1:
                lines.append(f"{printable(query)}:")
            width = len(str(len(found)))
            if not found:
                lines.append(f"{NO_MATCH}: {self._why_none()}")
            for each in found:
                value = each.cosine if metric == "cosine" else each.distance
                chance = in_words(each.hit_probability, before="  ", digits=3)
                mark = f"  ({each.problem})" if each.problem else ""
                lines.append(
                    f"{each.rank:{width}}  {value:.6f}{chance}  {printable(each.path)}{mark}"
                )
        return "\n".join(lines)

    def _of_shards(self) -> list[str]:
        """Return how many shards are left out, and which, each in a line."""
        left_out = self.shards_left_out
        if not left_out:
            return []
        lines = [f"{len(left_out)} of {counted(left_out[0].num_shards, 'shard')} left out:"]
        return lines + [printable(f"  {each.folder}: {each.reason}") for each in left_out]

    def _why_none(self) -> str:
        if self.min_probability is None:
            return "nothing found"
        return f"no hit is known to have a probability of {self.min_probability:g} or more"

    def rows(self) -> list[dict[str, Any]]:
        """Return all results as plain values, for JSON and CSV.

        A query without a result has a row of its own, with the problem "no match". So has, before
        all others, each shard that is left out, with its folder as the path.
        """
        pairs = zip(self.queries, self.results, strict=True)
        left_out = self.shards_left_out
        return [
            dict.fromkeys(COLUMNS)
            | {
                "path": str(each.folder),
                "problem": f"left out, {len(left_out)} of {each.num_shards} shards: {each.reason}",
            }
            for each in left_out
        ] + [row for query, found in pairs for row in as_rows(query, found)]

    def _repr_html_(self) -> str:
        left_out = "".join(map(paragraph, self._of_shards()))
        return left_out + image_rows(
            [
                [
                    (query, f"query {Path(query).name}{'' if found else f', {NO_MATCH}'}"),
                    *(_captioned(each) for each in found),
                ]
                for query, found in zip(self.queries, self.results, strict=True)
            ]
        )


def in_words(hit_probability: float | None, *, before: str = "", digits: int = 2) -> str:
    """Return the chance of a hit as people read it, such as "p(hit) 0.93"; "" for None."""
    return "" if hit_probability is None else f"{before}p(hit) {hit_probability:.{digits}f}"


def _captioned(found: Result) -> tuple[str, str]:
    chance = in_words(found.hit_probability, before=", ")
    label = found.label and f"{found.label}: "
    problem = found.problem and f", {found.problem}"
    return found.path, f"{label}{found.distance:.3f}{chance}{problem}"


def mean_recall(results: Sequence[Sequence[Result]], exact: Sequence[Sequence[Result]]) -> float:
    """Return the share of the exact results that a search found, as a mean over the queries."""
    shares = [
        np.isin([each.path for each in wanted], [each.path for each in found]).mean()
        for wanted, found in zip(exact, results, strict=True)
    ]
    return float(np.mean(shares))


def as_rows(query: str, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the results of a query as plain values, for JSON and CSV, "no match" for none."""
    if not results:
        return [dict.fromkeys(COLUMNS) | {"query": query, "problem": NO_MATCH}]
    return [
        {
            "query": query,
            "rank": each.rank,
            "distance": each.distance,
            "smoothed_distance": each.smoothed_distance,
            "cosine": each.cosine,
            "hit_probability": each.hit_probability,
            "class": each.label,
            "path": each.path,
            "problem": each.problem,
        }
        for each in results
    ]
