"""Euclidean distances between rows of embeddings, exact and in bounded memory.

There are two ways. `row_distances` and `pair_distances` subtract in float64: use them for distances
that a person reads. They are accurate even for nearly equal images. `GalleryDistances` multiplies
matrices in float32, the only way to compare every query with every gallery row in time. Its
*squared* distances are accurate to about 4e-7 of the sum of both squared norms.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deep_ranking.files.array_types import Float64Array, FloatArray, IntArray
from deep_ranking.files.stored_rows import Rows

METRICS = ("euclidean", "cosine")
"""Names of the metrics that commands print (`--metric`)."""

MEMORY_LIMIT = 2**29
"""Bytes that a chunk of queries may take, besides the embeddings themselves."""

ROW_CHUNK_ELEMENTS = 2**21
"""Elements of each float64 work array of a chunk of rows: 16 MiB."""

PRODUCT_ELEMENTS = 2**24
"""Elements of a gallery block that is copied for a product: 64 MiB in float32."""

BYTES_PER_GALLERY_ROW = 48
"""Memory that one query takes for each gallery row, all its metrics included."""

TIGHT_CONE = 2**-7
"""Share of the mean squared norm: subtract the mean of a gallery that spreads less than this."""


def row_distances(first: FloatArray, second: FloatArray) -> Float64Array:
    """Return the Euclidean distance of each row of `first` to the same row of `second`.

    Args:
        first: float array (rows, dim); a memory-mapped array is read a chunk at a time.
        second: float array (rows, dim).

    Returns:
        Float64 array (rows,); exactly 0 for equal rows.

    Raises:
        ValueError: the shapes differ, or a row has a NaN or an infinity.
    """
    if first.shape != second.shape:
        raise ValueError(
            "Row distances need two arrays of one shape. "
            f"Received: {first.shape} and {second.shape}."
        )
    rows = np.arange(len(first))
    return pair_distances(first, second, rows, rows)


def pair_distances(
    first: Rows, second: Rows, first_rows: IntArray, second_rows: IntArray
) -> Float64Array:
    """Return the Euclidean distance of `first[first_rows[i]]` to `second[second_rows[i]]`.

    Args:
        first: float array (n, dim), in memory or of a store on disk.
        second: the same, (m, dim); may be the same array.
        first_rows: integer array (pairs,) of rows of `first`.
        second_rows: integer array (pairs,) of rows of `second`.

    Returns:
        Float64 array (pairs,), from differences in float64; exactly 0 for equal rows.

    Raises:
        ValueError: the dimensions differ, `first_rows` and `second_rows` differ in length, or a
            row that they name has a NaN or an infinity.
    """
    _check_dimensions(first, second)
    if np.shape(first_rows) != np.shape(second_rows):
        raise ValueError(
            "first_rows and second_rows must have one shape. "
            f"Received: shapes {np.shape(first_rows)} and {np.shape(second_rows)}."
        )
    distances = np.empty(len(first_rows))
    for pairs in row_chunks(len(distances), first.shape[1]):
        difference = first[first_rows[pairs]].astype(np.float64)
        difference -= second[second_rows[pairs]]  # (pairs, dim)
        distances[pairs] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    if not np.isfinite(distances).all():
        pair = int(np.argmin(np.isfinite(distances)))
        raise ValueError(
            "Embeddings must be finite. Received: NaN or infinity in row "
            f"{first_rows[pair]} or {second_rows[pair]} (pair {pair})."
        )
    return distances


def cosine_at(distance: float) -> float:
    """Return the cosine of two unit rows at a distance: 1 - distance^2 / 2, from 1 to -1."""
    return 1 - distance**2 / 2


def first_non_finite_row(embeddings: FloatArray) -> int | None:
    """Return the first row that has a NaN or an infinity, or None.

    Args:
        embeddings: float array (rows, dim); a memory-mapped array is read a chunk at a time.
    """
    for rows in row_chunks(*embeddings.shape):
        finite = np.isfinite(embeddings[rows]).all(axis=1)
        if not finite.all():
            return int(rows.start + np.argmin(finite))
    return None


def check_embeddings(embeddings: FloatArray, name: str) -> None:
    """Raise unless the array is a finite matrix with at least one row.

    Args:
        embeddings: float array (rows, dim).
        name: name of the array in the message.

    Raises:
        ValueError: the array is not a matrix, is empty, or has a NaN or an infinity; the message
            names the row.
    """
    if np.ndim(embeddings) != 2 or 0 in embeddings.shape:
        raise ValueError(
            f"{name} must be a matrix (rows, dim) with at least one row. "
            f"Received: shape {np.shape(embeddings)}."
        )
    if (row := first_non_finite_row(embeddings)) is not None:
        raise ValueError(f"{name} must be finite. Received: NaN or infinity in row {row}.")


def slices(count: int, step: int) -> Iterator[slice]:
    """Yield slices that cover `count` rows, `step` rows at a time, at least 1."""
    step = max(1, step)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def row_chunks(num_rows: int, dim: int) -> Iterator[slice]:
    """Return slices that cover `num_rows` rows of `dim` elements in chunks of bounded size."""
    return slices(num_rows, ROW_CHUNK_ELEMENTS // max(1, dim))


class GalleryDistances:
    """Squared distances from any queries to every row of one gallery.

    Ties: gallery rows that are equal element for element are at exactly the same distance from any
    query, so duplicate images and collapsed models are true ties. The matrix product alone does not
    ensure that: it may sum in another order at its edges. Different rows whose squared distances
    differ by less than the rounding of float32 (about 4e-7 of the sum of both squared norms) may
    come out in either order, or as a tie.

    The mean of a gallery in a tight cone (an untrained or collapsed network, nearly all cosines
    above 0.99) is subtracted first. This does not change the distances, but without it each would
    be the small difference of large products.

    Args:
        gallery: float array (rows, dim), finite; a memory-mapped array stays on the disk.
        memory_limit: bytes that a chunk of queries may take.

    Attributes:
        num_rows: rows of the gallery.
        exact_below: a hundredth of the mean squared norm. Where their value matters, compute
            squared distances below this from differences.

    Raises:
        ValueError: the gallery is not a matrix, is empty, or has a NaN or an infinity.
    """

    def __init__(self, gallery: FloatArray, *, memory_limit: int = MEMORY_LIMIT) -> None:
        check_embeddings(gallery, "gallery")
        self.num_rows = len(gallery)
        self._gallery = gallery
        self._memory_limit = memory_limit
        self._centre = _centre_of_tight_cone(gallery)
        self._gallery_norms = self._squared_norms(gallery)
        self.exact_below = 0.01 * float(self._gallery_norms.mean())
        self._first_equal = _first_equal_rows(gallery)
        in_place = gallery.dtype == np.float32 and self._centre is None
        step = self.num_rows if in_place else PRODUCT_ELEMENTS // gallery.shape[1]
        self._product_blocks = list(slices(self.num_rows, step))

    def query_chunks(self, num_queries: int) -> Iterator[slice]:
        """Return slices that cover the queries, as large as the memory limit allows."""
        return slices(num_queries, self._memory_limit // (BYTES_PER_GALLERY_ROW * self.num_rows))

    def squared(
        self, queries: FloatArray, exclude: IntArray | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the squared Euclidean distances of a chunk of queries to all gallery rows.

        Args:
            queries: float array (queries, dim), finite.
            exclude: integer array (queries, most), for each query the gallery rows to leave out,
                such as the query itself; -1 for none.

        Returns:
            Float32 array (queries, gallery), 0 or more; infinite at the excluded rows.

        Raises:
            ValueError: the dimensions differ.
        """
        _check_dimensions(queries, self._gallery)
        scaled = -2 * self._shifted(queries)  # exact, and saves one pass over the result
        squared = np.empty((len(queries), self.num_rows), np.float32)
        for rows in self._product_blocks:
            np.matmul(scaled, self._shifted(self._gallery[rows]).T, out=squared[:, rows])
        squared += self._gallery_norms
        # Last: adding a square never leaves -0.0, whose bits would sort behind all other numbers.
        squared += self._squared_norms(queries)[:, np.newaxis]
        np.maximum(squared, 0, out=squared)
        if self._first_equal is not None:
            repeated, first = self._first_equal
            squared[:, repeated] = squared[:, first]
        if exclude is not None:
            left_out = exclude >= 0
            squared[np.nonzero(left_out)[0], exclude[left_out]] = np.inf
        return squared

    def _shifted(self, embeddings: FloatArray) -> npt.NDArray[np.float32]:
        rows = np.asarray(embeddings, np.float32)
        return rows if self._centre is None else rows - self._centre

    def _squared_norms(self, embeddings: FloatArray) -> npt.NDArray[np.float32]:
        norms = np.empty(len(embeddings), np.float32)
        for rows in row_chunks(*embeddings.shape):
            chunk = self._shifted(embeddings[rows]).astype(np.float64)
            norms[rows] = np.einsum("ij,ij->i", chunk, chunk)
        return norms


def _check_dimensions(first: Rows, second: Rows) -> None:
    if not len(first.shape) == len(second.shape) == 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            "Distances need two matrices of one dimension. "
            f"Received: shapes {first.shape} and {second.shape}."
        )


def _centre_of_tight_cone(gallery: FloatArray) -> npt.NDArray[np.float32] | None:
    """Return the mean row if the rows lie close to it compared with their norm, else None."""
    total = np.zeros(gallery.shape[1])
    squared_norm = 0.0
    for rows in row_chunks(*gallery.shape):
        chunk = gallery[rows].astype(np.float64)
        total += chunk.sum(axis=0)
        squared_norm += float(np.vdot(chunk, chunk)) / len(gallery)
    centre = total / len(gallery)
    spread = squared_norm - float(centre @ centre)
    return centre.astype(np.float32) if spread < TIGHT_CONE * squared_norm else None


def _first_equal_rows(gallery: FloatArray) -> tuple[IntArray, IntArray] | None:
    """Return the rows that repeat an earlier row, and that row; None if all rows differ."""
    seen: dict[bytes, int] = {}
    repeated, first = [], []
    for rows in row_chunks(*gallery.shape):
        # Adding 0 turns -0.0 into 0.0: equal numbers get equal bytes.
        for row, values in enumerate(np.asarray(gallery[rows], np.float32) + 0, rows.start):
            earlier = seen.setdefault(hashlib.blake2b(values, digest_size=16).digest(), row)
            if earlier != row:
                repeated.append(row)
                first.append(earlier)
    return (np.array(repeated), np.array(first)) if repeated else None
