"""Relevance as the cosine of features: embeddings of a model, or of what nobody trained."""

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from deep_ranking.files.array_types import Float64Array, Int64Array
from deep_ranking.sampling.relevance.base import Relevance


class RowCosine(Relevance):
    """Cosine of two rows, 0 where they point away from each other.

    Args:
        rows: float (images, dim), rows of unit length; may be memory-mapped.
    """

    def __init__(self, rows: npt.NDArray[np.floating]) -> None:
        self._rows = rows
        self._threads = ThreadpoolController()

    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Give cosines."""
        left = np.asarray(self._rows[queries], np.float32)
        right = np.asarray(self._rows[candidates], np.float32)
        # Threads cost such small products more than they give, tenfold on a machine that is busy.
        with self._threads.limit(limits=1, user_api="blas"):
            cosines = left @ right.T
        return np.asarray(np.maximum(cosines, 0), float)
