"""A model on given triplets, such as those that people labelled."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.files.html import table
from deep_ranking.files.words import counted
from deep_ranking.metrics import Interval
from deep_ranking.metrics.evaluation import EmbeddedImages
from deep_ranking.metrics.given_triplets import evaluate_triplets
from deep_ranking.reports.evaluation_text import format_interval
from deep_ranking.sampling.triplet_file import read_triplets, resolve_paths

if TYPE_CHECKING:
    import keras

    from deep_ranking.embedding.embedder import Embedder


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


def evaluate_on_triplets(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
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
    from deep_ranking.embedding.embedder import opened_embedder

    with embedded_images(opened_embedder(model), paths) as embeddings:
        images = EmbeddedImages(paths, np.full(len(paths), ""), embeddings)
        precision, score = evaluate_triplets(images, given.rows, seed=seed)
    return TripletEvaluation(len(given), len(paths), precision, score)
