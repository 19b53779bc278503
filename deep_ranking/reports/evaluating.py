"""A model on images of known classes, beside features that need no training."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

import math
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.datasets import LabelledImages, read_folder, take_split
from deep_ranking.datasets.splits import TO_JUDGE
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.html import paragraph, table
from deep_ranking.files.words import listed
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.metrics import Interval, bootstrap_interval
from deep_ranking.metrics.evaluation import (
    EmbeddedImages,
    EmbeddingMetrics,
    draw_triplets,
    evaluate_embeddings,
    means_by_class,
)
from deep_ranking.reports.compared_images import ComparedImages, compare_contents
from deep_ranking.reports.evaluation_text import (
    MAX_WIDTH,
    aligned,
    class_lines,
    describe_gain,
    drawn_in_words,
    figures,
    format_metric,
    left_out_in_words,
    method_lines,
    metrics_shown,
    query_lines,
    query_measure,
    query_pictures,
    rank_in_words,
)
from deep_ranking.reports.evidence import Evidence, gather_evidence
from deep_ranking.reports.methods import BACKBONE, MODEL, embedders_of
from deep_ranking.reports.query_ranks import QueryRanks
from deep_ranking.reports.search_modes import SearchModes, measure_modes
from deep_ranking.search.collection.settings import DEFAULT_POWER

if TYPE_CHECKING:
    import keras

    from deep_ranking.embedding.embedder import Embedder

NUM_EXTREME_QUERIES = 5


@dataclass(frozen=True)
class Evaluation:
    """How good a model is, beside features that need no training.

    Printed, it is the table of the command `evaluate`; a notebook also shows the worst and the best
    queries, with a gallery each beside its nearest and its first right image.

    Attributes:
        methods: the metrics of each method; the model comes first.
        classes: for each class the means of its queries, of the model.
        queries: "worst" and "best" queries of the model: path and average precision; with a gallery
            by rank, and what `ranks` has of each.
        gain: lead of the model over the best untrained backbone in `gain_metric`; None without
            baselines.
        evidence: what was compared, what was left out and why, and how much the figures can say.
        ranks: with a gallery, the rank of the first right image of each query, by the model.
        modes: searches with and without smoothing and re-ranking; None if they were not asked for.

    Example:
        >>> found = evaluate(model, "photos")
        >>> sorted(found.classes)
        ['cat', 'dog', 'owl']
    """

    methods: dict[str, EmbeddingMetrics]
    classes: dict[str, dict[str, float]]
    queries: dict[str, list[dict[str, Any]]]
    gain: Interval | None
    evidence: Evidence
    ranks: QueryRanks | None = None
    modes: SearchModes | None = None

    @property
    def num_queries(self) -> int:
        """Number of images that were searched with."""
        return self.evidence.num_queries

    @property
    def num_gallery(self) -> int | None:
        """Number of images that were searched; None if these are the queries."""
        return self.evidence.num_gallery

    @property
    def gain_metric(self) -> str:
        """The metric that methods and classes are compared by.

        It is `map_at_r`, or `mean_reciprocal_rank` if no query has two right images in the gallery.
        """
        return _gain_metric(self.methods[MODEL])

    def __repr__(self) -> str:
        parts = [
            *(textwrap.fill(line, MAX_WIDTH, break_on_hyphens=False) for line in self._heading()),
            "",
            *method_lines(self.methods),
            *class_lines(self.classes, self.gain_metric),
        ]
        parts += query_lines(self.queries, self.num_gallery)
        if self.modes is not None:
            heading = textwrap.fill(self.modes.heading(), MAX_WIDTH, break_on_hyphens=False)
            parts += ["", heading, *aligned(self.modes.rows())]
        if self.gain is not None:
            gain = describe_gain(self.gain, self.gain_metric)
            parts += ["", textwrap.fill(gain, MAX_WIDTH)]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        first = next(iter(self.methods.values()))
        rows = [
            (metric, *(format_metric(each, metric) for each in self.methods.values()))
            for metric in metrics_shown(first)
        ]
        parts = [*map(paragraph, self._heading()), table(("metric", *self.methods), rows)]
        parts.append(paragraph(drawn_in_words(first)))
        if self.gain is not None:
            parts.append(paragraph(describe_gain(self.gain, self.gain_metric)))
        if self.modes is not None:
            names, *of_modes = self.modes.rows()
            parts += [paragraph(self.modes.heading()), table(names, of_modes)]
        for kind, queries in self.queries.items():
            parts.append(
                paragraph(f"{kind.capitalize()} queries ({query_measure(self.num_gallery)})")
            )
            parts.append(image_rows(query_pictures(queries, self.num_gallery)))
        return "\n".join(parts)

    def _heading(self) -> Iterator[str]:
        model = self.methods[MODEL]
        rank = model.whole.get("median_rank")
        yield from self.evidence.lines(
            None if rank is None else rank_in_words(rank, model.retrieval.most_ranked)
        )
        if model.left_out:
            one = model.retrieval.num_positives.max() <= 1
            yield left_out_in_words(model.left_out, one_right_image=bool(one))

    def as_json(self) -> dict[str, Any]:
        """Return all figures as JSON can hold them."""
        found: dict[str, Any] = {
            "methods": {
                name: {
                    "metrics": {key: value._asdict() for key, value in each.intervals.items()},
                    "intervals": {
                        key: value._asdict() for key, value in each.whole_intervals.items()
                    },
                    **each.whole,
                }
                for name, each in self.methods.items()
            },
            "classes": self.classes,
            "queries": self.queries,
            "compared": self.evidence.as_json(),
        }
        if self.ranks is not None:
            found |= {
                "num_queries": self.num_queries,
                "num_gallery": self.num_gallery,
                "num_without_right_image": int((~self.ranks.has_right_image).sum()),
                "classes_not_in_gallery": self.evidence.in_queries_only,
                "left_out": self.methods[MODEL].left_out,
                "ranks": list(self.ranks),
            }
        if self.modes is not None:
            found["search_modes"] = self.modes.as_json()
        if self.gain is not None:
            found["gain_over_backbone"] = {self.gain_metric: self.gain._asdict()}
        return {key: without_nan(value) for key, value in found.items()}


def evaluate(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
    dataset: str | os.PathLike[str] | LabelledImages,
    *,
    gallery: str | os.PathLike[str] | LabelledImages | None = None,
    baselines: bool = False,
    weights: str | None = "imagenet",
    smooth: int = 0,
    smooth_power: float = DEFAULT_POWER,
    rerank: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate a model on images of known classes, best of classes that it was not trained on.

    The rows of each method are kept by the content of the images, see `embedding.kept_rows`: a call
    that was cut goes on from there when it is made again.

    Args:
        model: model file, an `Embedder`, or a model from `build_network` or `load_model`.
        dataset: folder with one folder for each class, or the images of `read_folder`; each image
            is a query.
        gallery: the images to search, in the same way; None searches the queries, each for the
            others. Queries whose class is not in the gallery are counted, and are in no figure. The
            content of a query, its file, copies and links, is left out of its own results.
        baselines: evaluate features without training as well.
        weights: of the untrained backbones, as in `NetworkConfig.weights`.
        smooth: also measure searches in smoothed rows, over so many nearest; 0 for none.
        smooth_power: of the similarity, see `search.smoothing`.
        rerank: also measure searches whose first results are ranked again.
        seed: decides the triplets and the bootstrap samples.
        progress: called with the figures of each method as soon as it is done.

    Example:
        >>> found = evaluate(model, "photos")
        >>> 0 <= found.methods["model"].intervals["recall_at_1"].mean <= 1
        True

    Raises:
        InputError: a file or an image cannot be read, or the images are of a single class.
    """
    given = [dataset] if gallery is None else [dataset, gallery]
    images = [
        each if isinstance(each, LabelledImages) else take_split(read_folder(each), TO_JUDGE)
        for each in given
    ]
    _check_shared_classes(images)
    draw_triplets(*(each.classes_of_images() for each in images))  # refuses a single class
    from deep_ranking.embedding.embedder import opened_embedder

    network = opened_embedder(model)
    compared = compare_contents(*images)
    paths = [each.files() for each in compared.sets()]
    labels = [each.classes_of_images() for each in compared.sets()]
    _check_what_is_left(compared)
    methods: dict[str, EmbeddingMetrics] = {}
    modes = None
    for name, embed in embedders_of(network, weights, baselines=baselines).items():
        with ExitStack() as held:
            rows = [held.enter_context(embed(files)) for files in paths]
            methods[name] = _metrics_of_rows(compared, rows, seed=seed)
            if name == MODEL and (smooth or rerank):
                modes = measure_modes(
                    compared, rows, smooth, smooth_power, rerank=rerank, seed=seed
                )
        if progress is not None:
            progress(figures(name, methods[name]))
    gain = None
    if baselines:
        backbones = [each for name, each in methods.items() if name.startswith(BACKBONE)]
        metric = _gain_metric(methods[MODEL])
        best = max(backbones, key=lambda each: each.intervals[metric].mean)
        lead = methods[MODEL].per_query[metric] - best.per_query[metric]
        gain = bootstrap_interval(lead, seed=seed)
    ranks = None
    if gallery is not None:
        found = methods[MODEL].retrieval
        ranks = QueryRanks(paths[0], labels[0], paths[1], found, compared.own)
    return Evaluation(
        methods,
        means_by_class(methods[MODEL], labels[0]),
        _extreme_queries(methods[MODEL], paths[0], ranks),
        gain,
        gather_evidence(compared, methods[MODEL]),
        ranks,
        modes,
    )


def _metrics_of_rows(
    compared: ComparedImages, rows: Sequence[Float32Array], *, seed: int
) -> EmbeddingMetrics:
    """Return the metrics of one method, from a row for each query and each gallery image."""
    sets = [
        EmbeddedImages(images.files(), images.classes_of_images(), each)
        for images, each in zip(compared.sets(), rows, strict=True)
    ]
    return evaluate_embeddings(*sets, exclude=compared.own, seed=seed)


def _gain_metric(evaluation: EmbeddingMetrics) -> str:
    return "mean_reciprocal_rank" if "map_at_r" in evaluation.left_out else "map_at_r"


def _check_shared_classes(images: list[LabelledImages]) -> None:
    """Refuse queries and a gallery without a class in common, and name some of each."""
    names = [np.array(each.items.names)[each.items.sizes() > 0].tolist() for each in images]
    if set.intersection(*map(set, names)):
        return
    queries, gallery = (
        f"{each.root} has {listed(of)}" for each, of in zip(images, names, strict=True)
    )
    raise InputError(
        f"queries and gallery have no class in common: {queries}; {gallery}; give the folders that "
        "hold the same classes, or say by --label which folder is the class"
    )


def _check_what_is_left(compared: ComparedImages) -> None:
    """Refuse images that cannot be evaluated without the copies, and name those."""
    try:
        labels = [each.classes_of_images() for each in compared.sets()]
        draw_triplets(*labels, exclude=compared.own)
    except InputError as error:
        left_out = compared.content_left_out()
        raise InputError(f"{error}; left out: {left_out}" if left_out else str(error)) from None


def _extreme_queries(
    evaluation: EmbeddingMetrics, paths: list[str], ranks: QueryRanks | None
) -> dict[str, list[dict[str, Any]]]:
    """Return the worst and the best queries by rank, or else by average precision, with both."""
    values = evaluation.retrieval.per_query["mean_average_precision"]
    if ranks is None:
        rows = np.flatnonzero(~np.isnan(values)).tolist()
        order = sorted(rows, key=lambda row: (values[row], paths[row]))
    else:
        order = ranks.worst_first()

    def found(row: int) -> dict[str, Any]:
        query: dict[str, Any] = {"path": paths[row]} if ranks is None else ranks.of_query(row)
        if "mean_average_precision" not in evaluation.left_out:
            query["average_precision"] = float(values[row])
        return query

    worst, best = order[:NUM_EXTREME_QUERIES], order[::-1][:NUM_EXTREME_QUERIES]
    return {"worst": [found(row) for row in worst], "best": [found(row) for row in best]}


def without_nan(value: Any) -> Any:
    """Return the value with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
