"""What the modes of search are worth on labelled images: plain rows, smoothed ones, ranked again.

Smoothing and re-ranking use what the searched images tell of each other (transductive), so their
figures are of a search in these images, and not of the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.metrics import Interval, bootstrap_interval, pair_distances
from deep_ranking.metrics.meaningless import meaningless_figures
from deep_ranking.metrics.ranking import Ranking, rank_gallery
from deep_ranking.metrics.retrieval import Gallery, RetrievalMetrics, retrieval_metrics
from deep_ranking.reports.compared_images import ComparedImages
from deep_ranking.search.reranking import (
    EXPANSION_POWER,
    NUM_EXPANDING,
    NUM_RERANKED,
    reciprocal_distances,
    reranking_in_words,
)
from deep_ranking.search.smoothing import smooth_rows, smoothed_query, smoothing_in_words

PLAIN, SMOOTHED, RERANKED = "plain", "smoothed", "re-ranked"
FIGURES = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_reciprocal_rank", "map_at_r")
SHOWN = ("recall_at_1", "mean_reciprocal_rank", "map_at_r")
"""In the table; the last of them that there is tells the gain."""

DEPTHS = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class SearchModes:
    """The figures of searches with and without smoothing and re-ranking.

    Attributes:
        figures: mode -> figure -> mean with its 95 % bootstrap interval over queries.
        leads: mode -> the lead of each figure over plain rows, likewise.
        smoothing: how rows are smoothed, in words; "" if they are not.
        has_queries_inside: whether each query is one of the searched images, so that its row has a
            part in the smoothed rows of its neighbours.
    """

    figures: dict[str, dict[str, Interval]]
    leads: dict[str, dict[str, Interval]]
    smoothing: str
    has_queries_inside: bool

    def heading(self) -> str:
        """Return what the table shows, in a few sentences."""
        parts = [f"smoothed {self.smoothing}"] if self.smoothing else []
        if any(RERANKED in mode for mode in self.figures):
            again = reranking_in_words(of_smoothed_rows=bool(self.smoothing))
            parts.append(f"{RERANKED}: {again}")
        inside = ""
        if self.has_queries_inside:
            inside = (
                " Each query is one of the searched images, as in a search for images like one of "
                "the collection; what a new photograph finds, --queries and --gallery tell."
            )
        return (
            f"Modes of search ({'; '.join(parts)}): they go by what the searched images tell of "
            f"each other, so they say nothing of the model.{inside}"
        )

    def rows(self) -> list[list[str]]:
        """Return the table: a row for each mode, with its lead over plain rows and their ratio."""
        names = [name for name in SHOWN if name in self.figures[PLAIN]]
        table = [["", *names, f"{names[-1]} over {PLAIN}"]]
        for mode, values in self.figures.items():
            gain = ""
            if mode in self.leads:
                lead = self.leads[mode][names[-1]]
                gain = f"{lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]"
                if plain := self.figures[PLAIN][names[-1]].mean:
                    gain += f", {values[names[-1]].mean / plain:.3f} times"
            table.append([mode, *(f"{values[name].mean:.3f}" for name in names), gain])
        return table

    def as_json(self) -> dict[str, Any]:
        """Return all figures as JSON can hold them."""
        return {
            "smoothing": self.smoothing,
            "queries_are_searched_images": self.has_queries_inside,
            "modes": {
                mode: {
                    "metrics": {name: value._asdict() for name, value in values.items()},
                    "over_plain": {
                        name: value._asdict() for name, value in self.leads.get(mode, {}).items()
                    },
                }
                for mode, values in self.figures.items()
            },
        }


def measure_modes(
    compared: ComparedImages,
    rows: Sequence[Float32Array],
    num_neighbours: int = 0,
    power: float = 1.0,
    *,
    rerank: bool = False,
    seed: int = 0,
) -> SearchModes:
    """Measure searches by plain rows, by smoothed ones, and ranked again.

    Args:
        compared: the images to search with and to search; each query's own content is left out of
            its results.
        rows: float32 (images, dim), unit rows of the queries and, if there is one, of the gallery.
        num_neighbours: K of `smooth_rows`; 0 for no smoothing.
        power: of the similarity.
        rerank: measure re-ranking, of the smoothed rows if there are any.
        seed: of the bootstrap.

    Raises:
        ValueError: as `retrieval_metrics`.
    """
    has_queries_inside = compared.gallery is None
    labels, *others = (images.classes_of_images() for images in compared.sets())
    queries, own = rows[0], np.arange(len(labels)) if has_queries_inside else compared.own
    gallery = Gallery(rows[-1], others[0] if others else labels, own)
    found = {PLAIN: retrieval_metrics(queries, labels, gallery, ks=DEPTHS)}
    name, how = PLAIN, ""
    if num_neighbours:
        smoothed = smooth_rows(gallery.embeddings, num_neighbours, power)
        queries = _moved(queries, gallery, num_neighbours - 1, power)
        gallery, name = gallery._replace(embeddings=smoothed), SMOOTHED
        found[name] = retrieval_metrics(queries, labels, gallery, ks=DEPTHS)
        how = smoothing_in_words(num_neighbours, power)
    if rerank:
        moved = _moved(queries, gallery, NUM_EXPANDING, EXPANSION_POWER)
        again = None if num_neighbours else _ranks_again(moved, gallery)
        name = RERANKED if name == PLAIN else f"{SMOOTHED}, {RERANKED}"
        found[name] = retrieval_metrics(moved, labels, gallery, ks=DEPTHS, reorder=again)
    left_out = meaningless_figures(
        found[PLAIN].num_positives, gallery.labels, found[PLAIN].most_ranked
    )
    names = [each for each in FIGURES if each not in left_out]
    return SearchModes(
        {mode: _means(each, names, seed) for mode, each in found.items()},
        {
            mode: {
                name: bootstrap_interval(
                    each.per_query[name] - found[PLAIN].per_query[name], seed=seed
                )
                for name in names
            }
            for mode, each in found.items()
            if mode != PLAIN
        },
        how,
        has_queries_inside,
    )


def _means(found: RetrievalMetrics, names: list[str], seed: int) -> dict[str, Interval]:
    return {name: bootstrap_interval(found.per_query[name], seed=seed) for name in names}


def _moved(queries: Float32Array, gallery: Gallery, count: int, power: float) -> Float32Array:
    """Return the queries moved towards their nearest rows, their own content left out."""
    moved = np.empty_like(queries, np.float32)
    rows = gallery.embeddings
    for ranking in rank_gallery(queries, rows, exclude=gallery.exclude, nearest=count):
        for place, query in enumerate(range(*ranking.queries.indices(len(queries)))):
            nearest = ranking.order[place, : min(count, int(ranking.num_ranked[place]))]
            moved[query] = smoothed_query(queries[query], rows[nearest], power)
    return moved


def _ranks_again(queries: Float32Array, gallery: Gallery) -> Callable[[Ranking], Ranking]:
    """Return what puts the first rows of a ranking in their new order."""

    def again(ranking: Ranking) -> Ranking:
        order, distances = ranking.order.copy(), ranking.distances.copy()
        asked = range(*ranking.queries.indices(len(queries)))
        with threadpool_limits(1):
            for place, query in enumerate(progress_bar(asked, title="ranking", unit="queries")):
                count = min(NUM_RERANKED, int(ranking.num_ranked[place]))
                first = order[place, :count]
                new = reciprocal_distances(queries[query], gallery.embeddings[first])
                order[place, :count] = first[np.argsort(new, kind="stable")]
                shown = order[place, : min(count, distances.shape[1])].astype(np.int64)
                asked_by = np.full(len(shown), query)
                distances[place, : len(shown)] = pair_distances(
                    queries, gallery.embeddings, asked_by, shown
                )
        return Ranking(ranking.queries, order, distances, ranking.num_ranked)

    return again
