"""A model on images of known classes, beside features that need no training."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

import math
import os
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.datasets import LabelledImages, read_folder, take_split
from deep_ranking.datasets.splits import TO_JUDGE
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.html import paragraph, table
from deep_ranking.files.words import counted, listed
from deep_ranking.images.hand_made_features import BASELINES
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.metrics import Interval, bootstrap_interval
from deep_ranking.metrics.evaluation import (
    EmbeddedImages,
    EmbeddingMetrics,
    draw_triplets,
    evaluate_embeddings,
    evaluate_triplets,
    means_by_class,
)
from deep_ranking.reports.evaluation_text import (
    MAX_WIDTH,
    WHOLE,
    class_lines,
    describe_gain,
    figures,
    format_interval,
    format_metric,
    method_lines,
    query_lines,
)
from deep_ranking.sampling.triplet_file import read_triplets, resolve_paths

if TYPE_CHECKING:
    import keras

MODEL = "model"
BACKBONE = "untrained backbone"
GAIN_METRIC = "map_at_r"
NUM_EXTREME_QUERIES = 5

Embedder = Callable[[list[str]], AbstractContextManager[Float32Array]]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is, beside features that need no training.

    Printed, it is the table of the command `evaluate`; a notebook also shows the worst and the best
    queries.

    Attributes:
        methods: the metrics of each method; the model comes first.
        classes: for each class the means of its queries, of the model.
        queries: "worst" and "best" queries of the model: path and average precision.
        gain: lead of the model over the best untrained backbone in `GAIN_METRIC`; None without
            baselines.
        num_queries: images that were searched with.
        num_gallery: images that were searched; None if these are the queries.

    Example:
        >>> found = evaluate(model, "photos")
        >>> sorted(found.classes)
        ['cat', 'dog', 'owl']
    """

    methods: dict[str, EmbeddingMetrics]
    classes: dict[str, dict[str, float]]
    queries: dict[str, list[dict[str, Any]]]
    gain: Interval | None
    num_queries: int
    num_gallery: int | None

    def __repr__(self) -> str:
        parts = [
            textwrap.fill(self._heading(), MAX_WIDTH),
            "",
            *method_lines(self.methods),
            *class_lines(self.classes),
        ]
        parts += query_lines(self.queries)
        if self.gain is not None:
            parts += ["", describe_gain(self.gain, GAIN_METRIC)]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        first = next(iter(self.methods.values()))
        rows = [
            (metric, *(format_metric(each, metric) for each in self.methods.values()))
            for metric in (*first.intervals, *WHOLE)
        ]
        parts = [paragraph(self._heading()), table(("metric", *self.methods), rows)]
        if self.gain is not None:
            parts.append(paragraph(describe_gain(self.gain, GAIN_METRIC)))
        for kind, queries in self.queries.items():
            shown = [(each["path"], f"{each['average_precision']:.3f}") for each in queries]
            parts += [paragraph(f"{kind.capitalize()} queries (average precision)")]
            parts.append(image_rows([shown]))
        return "\n".join(parts)

    def _heading(self) -> str:
        queries, classes = counted(self.num_queries, "query"), counted(len(self.classes), "class")
        rest = "each searched for among the others"
        if self.num_gallery is not None:
            rest = f"searched for in {counted(self.num_gallery, 'image')}"
        return f"{queries} of {classes}, {rest}; means with 95 % bootstrap intervals over queries."

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
        }
        if self.gain is not None:
            found["gain_over_backbone"] = {GAIN_METRIC: self.gain._asdict()}
        return {key: without_nan(value) for key, value in found.items()}


@dataclass(frozen=True)
class TripletEvaluation:
    """How a model orders given triplets.

    Attributes:
        num_triplets: triplets.
        num_images: images in them.
        similarity_precision: share of the triplets whose positive is nearer, with its interval.
        score_at_top_30: triplets in order minus those not, of those with an image among the
            query's 30 nearest.

    Example:
        >>> evaluate_on_triplets(model, "triplets.txt")
        48 triplets of 12 images.
        similarity precision  ...
    """

    num_triplets: int
    num_images: int
    similarity_precision: Interval
    score_at_top_30: int

    def __repr__(self) -> str:
        precision, score = self._figures()
        return (
            f"{counted(self.num_triplets, 'triplet')} of {counted(self.num_images, 'image')}.\n"
            f"similarity precision  {precision}\n"
            f"score at top 30       {score}"
        )

    def _repr_html_(self) -> str:
        precision, score = self._figures()
        rows = [("similarity precision", precision), ("score at top 30", score)]
        count = f"{counted(self.num_triplets, 'triplet')} of {counted(self.num_images, 'image')}"
        return table(("metric", count), rows)

    def _figures(self) -> tuple[str, str]:
        return format_interval(self.similarity_precision), f"{self.score_at_top_30:,}"

    def as_json(self) -> dict[str, Any]:
        """Return all figures as JSON can hold them."""
        return {
            "triplets": self.num_triplets,
            "similarity_precision": self.similarity_precision._asdict(),
            "score_at_top_30": self.score_at_top_30,
        }


def evaluate(
    model: "keras.Model | str | os.PathLike[str]",
    dataset: str | os.PathLike[str] | LabelledImages,
    *,
    gallery: str | os.PathLike[str] | LabelledImages | None = None,
    baselines: bool = False,
    weights: str | None = "imagenet",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate a model on images of known classes, best of classes that it was not trained on.

    The rows of each method are kept by the content of the images, see `embedding.kept_rows`: a call
    that was cut goes on from there when it is made again.

    Args:
        model: model file, or a model from `build_network` or `load_model`.
        dataset: folder with one folder for each class, or the images of `read_folder`; each image
            is a query.
        gallery: the images to search, in the same way; None searches the queries, each for the
            others.
        baselines: evaluate features without training as well.
        weights: of the untrained backbones, as in `NetworkConfig.weights`.
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
    paths = [each.files() for each in images]
    labels = [each.classes_of_images() for each in images]
    _check_shared_classes(images)
    draw_triplets(*labels)  # refuses a single class before the long work
    from deep_ranking.model.file import opened_model

    network = opened_model(model)
    methods: dict[str, EmbeddingMetrics] = {}
    for name, embed in _embedders(network, weights, baselines=baselines).items():
        with ExitStack() as held:
            sets = [
                EmbeddedImages(files, of, held.enter_context(embed(files)))
                for files, of in zip(paths, labels, strict=True)
            ]
            methods[name] = evaluate_embeddings(*sets, seed=seed)
        if progress is not None:
            progress(figures(name, methods[name]))
    gain = None
    if baselines:
        backbones = [each for name, each in methods.items() if name.startswith(BACKBONE)]
        best = max(backbones, key=lambda each: each.intervals[GAIN_METRIC].mean)
        lead = methods[MODEL].per_query[GAIN_METRIC] - best.per_query[GAIN_METRIC]
        gain = bootstrap_interval(lead, seed=seed)
    return Evaluation(
        methods,
        means_by_class(methods[MODEL], labels[0]),
        _extreme_queries(methods[MODEL], paths[0]),
        gain,
        len(paths[0]),
        None if gallery is None else len(paths[1]),
    )


def evaluate_on_triplets(
    model: "keras.Model | str | os.PathLike[str]",
    triplets: str | os.PathLike[str],
    *,
    seed: int = 0,
) -> TripletEvaluation:
    """Evaluate a model on the triplets of a file, such as those that people labelled.

    Args:
        model: as for `evaluate`.
        triplets: triplet file.
        seed: decides the bootstrap samples.

    Example:
        >>> evaluate_on_triplets(model, "triplets.txt").num_triplets
        48

    Raises:
        InputError: a file or an image cannot be read.
    """
    given = read_triplets(triplets)
    paths = resolve_paths(given, None)
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.model.file import opened_model

    with embedded_images(opened_model(model), paths) as embeddings:
        images = EmbeddedImages(paths, np.full(len(paths), ""), embeddings)
        precision, score = evaluate_triplets(images, given.rows, seed=seed)
    return TripletEvaluation(len(given), len(paths), precision, score)


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


def _extreme_queries(
    evaluation: EmbeddingMetrics, paths: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the worst and the best queries by average precision, each with its value."""
    values = evaluation.per_query["mean_average_precision"].tolist()
    order = sorted(
        (value, path) for value, path in zip(values, paths, strict=True) if not math.isnan(value)
    )
    queries = [{"path": path, "average_precision": value} for value, path in order]
    return {"worst": queries[:NUM_EXTREME_QUERIES], "best": queries[::-1][:NUM_EXTREME_QUERIES]}


def without_nan(value: Any) -> Any:
    """Return the value with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _embedders(
    model: "keras.Model", weights: str | None, *, baselines: bool
) -> dict[str, Embedder]:
    """Return for each method a function from image paths to embeddings, open for a `with` block."""
    from deep_ranking.embedding.kept_rows import kept_baseline_features, kept_embeddings
    from deep_ranking.model.network import untrained_backbone

    embedders: dict[str, Embedder] = {MODEL: partial(kept_embeddings, model)}
    if baselines:
        config = model.network_config
        network = untrained_backbone(config, weights)
        embedders[BACKBONE] = partial(kept_embeddings, network)
        if config.seen_size != config.image_size:
            network = untrained_backbone(config, weights, enlarged=True)
            embedders[f"{BACKBONE}, {config.seen_size} px"] = partial(kept_embeddings, network)
        embedders |= {name: partial(kept_baseline_features, name) for name in BASELINES}
    return embedders
