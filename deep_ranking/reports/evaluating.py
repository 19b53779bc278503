"""A model on images of known classes, beside features that need no training."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from deep_ranking.embedding.embed import embedded_images
from deep_ranking.files.array_types import Float32Array
from deep_ranking.images import ImageListing
from deep_ranking.images.hand_made_features import BASELINES, baseline_features
from deep_ranking.metrics import Interval, bootstrap_interval
from deep_ranking.metrics.evaluation import (
    EmbeddedImages,
    Evaluation,
    draw_triplets,
    evaluate,
    means_by_class,
)
from deep_ranking.model.network import untrained_backbone

MODEL = "model"
BACKBONE = "untrained backbone"
GAIN_METRIC = "map_at_r"
NUM_EXTREME_QUERIES = 5

Embedder = Callable[[list[str]], AbstractContextManager[Float32Array]]


@dataclass(frozen=True)
class ModelEvaluation:
    """How good a model is, beside features that need no training.

    Attributes:
        methods: the evaluation of each method; the model comes first.
        classes: for each class the means of its queries, of the model.
        queries: "worst" and "best" queries of the model: path and average precision.
        gain: lead of the model over the best untrained backbone in `GAIN_METRIC`; None without
            baselines.
    """

    methods: dict[str, Evaluation]
    classes: dict[str, dict[str, float]]
    queries: dict[str, list[dict[str, Any]]]
    gain: Interval | None

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


def evaluate_model(
    model: keras.Model,
    listings: Sequence[ImageListing],
    *,
    baselines: bool = False,
    weights: str | None = None,
    seed: int = 0,
) -> ModelEvaluation:
    """Evaluate a model on images of known classes.

    Args:
        model: from `build_network` or `load_model`.
        listings: images that are queries to each other; or queries, and the gallery to search.
        baselines: evaluate features without training as well.
        weights: of the untrained backbones, as in `NetworkConfig.weights`.
        seed: decides the triplets and the bootstrap samples.

    Raises:
        InputError: an image cannot be read, or the images are of a single class.
    """
    paths = [listing.files() for listing in listings]
    labels = [np.array(listing.classes)[listing.labels] for listing in listings]
    draw_triplets(*labels)  # refuses a single class before the long work
    methods: dict[str, Evaluation] = {}
    for name, embed in _embedders(model, weights, baselines=baselines).items():
        with ExitStack() as held:
            sets = [
                EmbeddedImages(images, of, held.enter_context(embed(images)))
                for images, of in zip(paths, labels, strict=True)
            ]
            methods[name] = evaluate(*sets, seed=seed)
    gain = None
    if baselines:
        backbones = [each for name, each in methods.items() if name.startswith(BACKBONE)]
        best = max(backbones, key=lambda each: each.intervals[GAIN_METRIC].mean)
        lead = methods[MODEL].per_query[GAIN_METRIC] - best.per_query[GAIN_METRIC]
        gain = bootstrap_interval(lead, seed=seed)
    return ModelEvaluation(
        methods,
        means_by_class(methods[MODEL], labels[0]),
        _extreme_queries(methods[MODEL], paths[0]),
        gain,
    )


def _extreme_queries(evaluation: Evaluation, paths: list[str]) -> dict[str, list[dict[str, Any]]]:
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


def _embedders(model: keras.Model, weights: str | None, *, baselines: bool) -> dict[str, Embedder]:
    """Return for each method a function from image paths to embeddings, open for a `with` block."""
    embedders: dict[str, Embedder] = {MODEL: partial(embedded_images, model)}
    if baselines:
        config = model.network_config
        network = untrained_backbone(config, weights)
        embedders[BACKBONE] = partial(embedded_images, network)
        if config.seen_size != config.image_size:
            network = untrained_backbone(config, weights, enlarged=True)
            embedders[f"{BACKBONE}, {config.seen_size} px"] = partial(embedded_images, network)
        embedders |= {name: partial(_baseline, name) for name in BASELINES}
    return embedders


def _baseline(name: str, paths: list[str]) -> AbstractContextManager[Float32Array]:
    return nullcontext(baseline_features(name, paths, progress=True))
