"""How much each shallow branch counts beside the backbone when the embedding layer starts whitened.

Where classes differ by colour, a branch helps; where they do not, it costs. The training classes
tell which: half of them whiten, the other half judge, and each branch gets the scale that orders
images of classes that the whitening did not see best. A scale of 0 leaves a branch out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float32Array, FloatArray
from deep_ranking.metrics.retrieval import average_precision_at_r

# Drawings need the largest: a backbone of photographs only disturbs there.
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 20.0)
# More images would take longer, and hardly change the choice.
MAX_IMAGES = 2000
NUM_HALVINGS = 2
SEED = 0
MIN_CLASSES = 4


def branch_scales(
    parts: Sequence[FloatArray], labels: npt.NDArray[np.integer], *, shrinkage: float
) -> list[float]:
    """Return the scale of each part but the last, chosen on classes that whitening did not see.

    Args:
        parts: the features of each branch, and those of the backbone last: float (images, dim).
        labels: integers (images,).
        shrinkage: as in `whitening_axes`.

    Returns:
        For each branch the one of `SCALES` with the largest mean MAP@R, the others being fixed at
        what was found for them so far, and at 0 before; 1 for all where there are fewer than
        `MIN_CLASSES` classes with two images.
    """
    if len(parts) == 1:
        return []
    rng = np.random.default_rng(SEED)
    numbers, counts = np.unique(labels, return_counts=True)
    if np.sum(counts > 1) < MIN_CLASSES:
        return [1.0] * (len(parts) - 1)
    chosen = rng.permutation(len(labels))[:MAX_IMAGES]
    parts, labels = [part[chosen].astype(np.float32) for part in parts], labels[chosen]
    folds = []
    for _ in range(NUM_HALVINGS):
        half = np.isin(labels, rng.permutation(numbers)[: len(numbers) // 2])
        for seen in (half, ~half):
            folds.append((labels[~seen], [_products(part, labels, seen) for part in parts]))
    scales = [0.0] * (len(parts) - 1)
    for branch in range(len(scales)):
        tried = [[*scales[:branch], scale, *scales[branch + 1 :]] for scale in SCALES]
        found = [_mean_map_at_r(folds, [*each, 1.0], shrinkage) for each in tried]
        scales = tried[int(np.argmax(found))]
    return scales


@dataclass(frozen=True)
class _Products:
    """Inner products of one part's features, with which a metric of all parts is computed.

    Attributes:
        judged: (judged, judged), of the images that judge, centred on the mean of the others.
        across: (judged, seen), with the others' deviations from their classes' means.
        within: (seen, seen), of these deviations.
        dim: number of features.
    """

    judged: Float32Array
    across: Float32Array
    within: Float32Array
    dim: int


def _products(
    part: Float32Array, labels: npt.NDArray[np.integer], seen: npt.NDArray[np.bool_]
) -> _Products:
    known, unknown = part[seen], part[~seen]
    _, members, counts = np.unique(labels[seen], return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), part.shape[1]), np.float32)
    np.add.at(means, members, known)
    deviations = (known - (means / counts[:, None])[members]) / np.sqrt(len(known))
    centred = unknown - known.mean(axis=0)
    return _Products(
        centred @ centred.T, centred @ deviations.T, deviations @ deviations.T, part.shape[1]
    )


def _mean_map_at_r(
    folds: Sequence[tuple[npt.NDArray[np.integer], Sequence[_Products]]],
    scales: Sequence[float],
    shrinkage: float,
) -> float:
    """Return MAP@R of the images that judge, whitened by the others, as a mean over the folds."""
    found = []
    for labels, products in folds:
        used = [(scale**2, each) for scale, each in zip(scales, products, strict=True) if scale]
        judged = np.sum([square * each.judged for square, each in used], axis=0)
        across = np.sum([square * each.across for square, each in used], axis=0)
        within = np.sum([square * each.within for square, each in used], axis=0)
        ridge = shrinkage * np.trace(within) / sum(each.dim for _, each in used)
        ridge = max(ridge, 1e-12)
        # x (S + ridge)^-1 y for the covariance S of the deviations (Woodbury's identity); times
        # ridge, which does not change the order.
        ridged = within + ridge * np.eye(len(within), dtype=np.float32)
        similarity = judged - across @ np.linalg.solve(ridged, across.T)
        lengths = np.sqrt(np.maximum(np.diag(similarity), 1e-12))
        similarity = similarity / lengths[:, None] / lengths
        np.fill_diagonal(similarity, -np.inf)  # last: a query does not find itself
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
        hits = labels[order] == labels[:, None]
        found.append(np.nanmean(average_precision_at_r(hits)))
    return float(np.mean(found))
