"""Possible label errors: likely mislabelled images, duplicates across classes, confused classes.

Likely mislabelled images come from the embeddings, by the rule of the atlas of errors. The others
come from the nearest images of each image, as `RetrievalMetrics` has them when a set is searched
for in itself. Memory grows with that table, (images, nearest), not with images x images. These
functions take `labels`, an array (images,) of classes; `neighbours`, an integer array (images,
nearest) of rows, nearest first, without the image itself; and `distances`, a float array of that
shape, not negative.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import BoolArray, FloatArray, IntArray
from deep_ranking.images.near_copies import EQUAL_ERROR_SHARE
from deep_ranking.metrics.evaluation import EmbeddedImages, EmbeddingMetrics
from deep_ranking.reports.atlas.errors import doubted_labels, evidence


class Suspect(NamedTuple):
    """An image that is likely mislabelled.

    Attributes:
        row: the image.
        label: its class.
        proposed: the class that fits it best.
        evidence: why, in a sentence.
        witness: row of the nearest image of the proposed class.
    """

    row: int
    label: str
    proposed: str
    evidence: str
    witness: int


class Duplicate(NamedTuple):
    """Two almost equal images of different classes: their rows, first < second, and distance."""

    first: int
    second: int
    distance: float


class Confusion(NamedTuple):
    """How often the nearest wrong image of a class's images is of one other class.

    Attributes:
        label: the class.
        other: the other class.
        num_images: images of the class whose nearest wrong image is of the other.
        share: their share of the images of the class.
    """

    label: str
    other: str
    num_images: int
    share: float


@dataclass(frozen=True)
class LabelErrors:
    """Possible label errors among images.

    Attributes:
        suspects: images that are likely mislabelled, at most 30, the likeliest first.
        duplicates: near-duplicates across classes, at most 30, the nearest first.
        confusions: pairs of confused classes, at most 15, the most confused first.
        duplicate_distance: distance below which two images are near-duplicates.
    """

    suspects: list[Suspect]
    duplicates: list[Duplicate]
    confusions: list[Confusion]
    duplicate_distance: float


def find_label_errors(evaluation: EmbeddingMetrics, images: EmbeddedImages) -> LabelErrors:
    """Find possible label errors among images that were searched for in themselves.

    Near-duplicates are nearer than a tenth of the distance at equal error.

    Args:
        evaluation: `evaluate_embeddings(images)`, without another gallery.
        images: those images.
    """
    below = EQUAL_ERROR_SHARE * evaluation.whole["equal_error_threshold"]
    nearest = evaluation.retrieval.neighbours, evaluation.retrieval.distances
    return LabelErrors(
        likely_mislabelled(images.embeddings, images.labels, confirmed=images.confirmed),
        duplicates_across_classes(images.labels, *nearest, below=below),
        class_confusions(images.labels, nearest[0]),
        below,
    )


def likely_mislabelled(
    embeddings: FloatArray,
    labels: npt.NDArray[Any],
    *,
    limit: int | None = 30,
    confirmed: BoolArray | None = None,
) -> list[Suspect]:
    """Return the images that another class fits better than their own, by all other images.

    The rule is that of the atlas of errors, in `metrics.label_noise`.

    Args:
        embeddings: float array (images, dim), rows of unit length.
        labels: array (images,) of classes, two or more.
        limit: most suspects; None for all.
        confirmed: bool (images,), whose label is right, as a person said: they are no suspects.

    Returns:
        Suspects, the likeliest wrong label first.
    """
    names, codes = np.unique(labels, return_inverse=True)
    return [
        Suspect(
            each.row,
            str(names[codes[each.row]]),
            str(names[each.proposed]),
            evidence(each, own=str(names[codes[each.row]]), proposed=str(names[each.proposed])),
            each.witness,
        )
        for each in doubted_labels(embeddings, codes, limit=limit, confirmed=confirmed)
    ]


def duplicates_across_classes(
    labels: npt.NDArray[Any],
    neighbours: IntArray,
    distances: FloatArray,
    *,
    below: float,
    limit: int = 30,
) -> list[Duplicate]:
    """Return the pairs of images of different classes that are nearer than `below`, or at 0.

    A pair is found if either image is among the nearest of the other.

    Returns:
        At most `limit` pairs, each once, by rising distance; with equal distances, by rows.
    """
    tiny = (distances < below) | (distances == 0)
    rows, columns = np.nonzero(tiny & (labels[neighbours] != labels[:, np.newaxis]))
    ends = np.sort(np.stack([rows, neighbours[rows, columns]], axis=1), axis=1)
    near = distances[rows, columns]
    order = np.argsort(near, kind="stable")
    ends, first = np.unique(ends[order], axis=0, return_index=True)
    near = near[order[first]]
    chosen = np.argsort(near, kind="stable")[:limit]
    return [Duplicate(int(ends[pair, 0]), int(ends[pair, 1]), float(near[pair])) for pair in chosen]


def class_confusions(
    labels: npt.NDArray[Any], neighbours: IntArray, *, limit: int = 15
) -> list[Confusion]:
    """Count for each class the other classes that its nearest wrong images are of.

    Classes of one image are left out: every image near such an image is wrong. An image with no
    wrong neighbour counts as confused with no class.

    Returns:
        At most `limit` confusions by falling share; with equal shares, the pair of more images
        first, then by name.
    """
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    found = codes[neighbours]
    wrong = found != codes[:, np.newaxis]
    rows = np.flatnonzero(wrong.any(axis=1) & (sizes[codes] > 1))
    others = found[rows, wrong[rows].argmax(axis=1)]
    pairs, counts = np.unique(codes[rows] * len(names) + others, return_counts=True)
    firsts, seconds = np.divmod(pairs, len(names))
    shares = counts / sizes[firsts]
    return [
        Confusion(
            str(names[firsts[pair]]),
            str(names[seconds[pair]]),
            int(counts[pair]),
            float(shares[pair]),
        )
        for pair in np.lexsort([-counts, -shares])[:limit]
    ]
