"""How much each shallow branch counts beside the backbone when the embedding layer starts whitened.

Where classes differ by colour, a branch helps; where they do not, it costs. The training classes
tell which: half of them whiten, the other half judge, and each branch gets the scale that orders
images of classes that the whitening did not see best. A scale of 0 leaves a branch out. Where
photographs search pictures of another domain, they judge by finding those: white backgrounds, say,
make colours tell less across domains than among photographs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import BoolArray, Float32Array, FloatArray
from deep_ranking.metrics.retrieval import average_precision_at_r

# Drawings need the largest: a backbone of photographs only disturbs there.
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 20.0)
# More images would take longer, and hardly change the choice.
MAX_IMAGES = 2000
NUM_HALVINGS = 2
SEED = 0
MIN_CLASSES = 4


def branch_scales(
    parts: Sequence[FloatArray],
    labels: npt.NDArray[np.integer],
    *,
    shrinkage: float,
    gallery: BoolArray | None = None,
) -> list[float]:
    """Return the scale of each part but the last, chosen on classes that whitening did not see.

    Args:
        parts: the features of each branch, and those of the backbone last: float (images, dim).
        labels: integers (images,).
        shrinkage: as in `whitening_axes`.
        gallery: bool (images,), images of another domain, which are searched for by the others and
            do not whiten; None where all images are searched for by all.

    Returns:
        For each branch the one of `SCALES` with the largest mean MAP@R, the others being fixed at
        what was found for them so far, and at 0 before; 1 for all where there are fewer than
        `MIN_CLASSES` classes with two images, or of two domains with one of each.
    """
    if len(parts) == 1:
        return []
    rng = np.random.default_rng(SEED)
    gallery = np.zeros(len(labels), bool) if gallery is None else gallery
    numbers, counts = np.unique(labels[~gallery], return_counts=True)
    judges = np.isin(numbers, labels[gallery]) if gallery.any() else counts > 1
    if np.sum(judges) < MIN_CLASSES:
        return [1.0] * (len(parts) - 1)
    chosen = rng.permutation(len(labels))[:MAX_IMAGES]
    # Of a shop, all pictures: there may be one of each product.
    chosen = np.union1d(chosen, np.flatnonzero(gallery)[:MAX_IMAGES])
    parts = [part[chosen].astype(np.float32) for part in parts]
    labels, gallery = labels[chosen], gallery[chosen]
    folds = []
    for _ in range(NUM_HALVINGS):
        half = np.isin(labels, rng.permutation(numbers)[: len(numbers) // 2])
        for judged in (half, ~half):
            whitens = ~judged & ~gallery
            products = [_products(part, labels, whitens, judged) for part in parts]
            folds.append(_Fold(labels[judged], gallery[judged], products))
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


@dataclass(frozen=True)
class _Fold:
    """Classes that judge: labels (judged,), which images are the gallery's, products of parts."""

    labels: npt.NDArray[np.integer]
    gallery: BoolArray
    products: Sequence[_Products]

    def hits(self, similarity: Float32Array) -> BoolArray:
        """Return for each query which of the images that it finds are of its class, best first."""
        queries, found = ~self.gallery, self.gallery
        if not found.any():  # last, and left out: a query does not find itself
            np.fill_diagonal(similarity, -np.inf)
            found = queries
        order = np.argsort(-similarity[np.ix_(queries, found)], axis=1, kind="stable")
        if not self.gallery.any():
            order = order[:, :-1]
        hits: BoolArray = self.labels[found][order] == self.labels[queries][:, None]
        return hits


def _products(
    part: Float32Array, labels: npt.NDArray[np.integer], whitens: BoolArray, judged: BoolArray
) -> _Products:
    known, unknown = part[whitens], part[judged]
    _, members, counts = np.unique(labels[whitens], return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), part.shape[1]), np.float32)
    np.add.at(means, members, known)
    deviations = (known - (means / counts[:, None])[members]) / np.sqrt(len(known))
    centred = unknown - known.mean(axis=0)
    return _Products(
        centred @ centred.T, centred @ deviations.T, deviations @ deviations.T, part.shape[1]
    )


def _mean_map_at_r(folds: Sequence[_Fold], scales: Sequence[float], shrinkage: float) -> float:
    """Return MAP@R of the images that judge, whitened by the others, as a mean over the folds."""
    found = []
    for fold in folds:
        pairs = zip(scales, fold.products, strict=True)
        used = [(scale**2, each) for scale, each in pairs if scale]
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
        precision = average_precision_at_r(fold.hits(similarity))
        if not np.isnan(precision).all():
            found.append(np.nanmean(precision))
    return float(np.mean(found))
