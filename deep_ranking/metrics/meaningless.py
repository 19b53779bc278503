"""Figures that say nothing, or nothing of their own, about a gallery."""

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Int64Array

TOP_K = 30
RECALL_DEPTHS = (1, 5, 10, 20, TOP_K)


def meaningless_figures(
    num_positives: Int64Array,
    gallery_labels: npt.NDArray[np.str_],
    num_ranked: int | None = None,
) -> dict[str, str]:
    """Return the figures that say nothing, or nothing of their own, when a gallery is searched.

    Args:
        num_positives: int64 (queries,), gallery images of each query's class.
        gallery_labels: array (gallery,) of classes.
        num_ranked: most images that any query ranks; by default the whole gallery.

    Returns:
        Name of the figure -> why, in a few words.

    Example:
        >>> sorted(meaningless_figures(np.array([2, 3]), np.repeat(["a", "b"], 15)))
        ['precision_at_30', 'score_at_top_30']
    """
    size = len(gallery_labels) if num_ranked is None else num_ranked
    found = {f"recall_at_{k}": f"1 in a gallery of {size}" for k in RECALL_DEPTHS[:-1] if k >= size}
    if size <= TOP_K:
        reason = f"all {size} images are among the {TOP_K} nearest"
        found |= dict.fromkeys(("precision_at_30", "score_at_top_30"), reason)
    if num_positives.max() <= 1:
        found |= dict.fromkeys(("r_precision", "map_at_r"), "equal to recall_at_1")
        found["mean_average_precision"] = "equal to mean_reciprocal_rank"
        found["precision_at_30"] = "1/30 at most"
        found["knn_accuracy"] = "one vote for the right class"
        found |= dict.fromkeys(("similarity_precision", "score_at_top_30"), "samples of the rank")
    if len(np.unique(gallery_labels)) == len(gallery_labels):
        found["nmi"] = "one image a class"
    return found
