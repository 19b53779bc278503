import numpy as np
import pytest

from deep_ranking.metrics import distances, pair_distances, row_distances
from deep_ranking.metrics.distances import GalleryDistances, first_non_finite_row


def unit_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def all_squared(queries, gallery):
    differences = queries[:, np.newaxis].astype(np.float64) - gallery
    return (differences**2).sum(axis=2)


def test_row_distances_of_a_right_triangle():
    # 3, 4, 5; and a row with itself.
    found = row_distances(np.float32([[0, 3], [1, 1]]), np.float32([[4, 0], [1, 1]]))
    assert found.tolist() == [5.0, 0.0]
    assert found.dtype == np.float64


def test_row_distances_keep_their_precision_for_nearly_equal_rows():
    first = unit_rows(5, 300)
    second = first.copy()
    second[:, 7] += np.float32(2**-20)
    moved = np.abs(second[:, 7].astype(np.float64) - first[:, 7])
    assert np.allclose(row_distances(first, second), moved, rtol=1e-12)


def test_row_distances_do_not_depend_on_the_chunk(monkeypatch):
    first, second = unit_rows(23, 17), unit_rows(23, 17, seed=1)
    whole = row_distances(first, second)
    monkeypatch.setattr(distances, "ROW_CHUNK_ELEMENTS", 5 * 17)
    assert np.array_equal(row_distances(first, second), whole)
    expected = np.sqrt(all_squared(first, second).diagonal())
    assert np.allclose(whole, expected, rtol=1e-12)


def test_pair_distances_are_those_of_the_rows_named():
    first, second = unit_rows(6, 5), unit_rows(9, 5, seed=1)
    rows, columns = np.array([0, 5, 5, 2]), np.array([8, 1, 1, 0])
    expected = [np.linalg.norm(first[i] - second[j]) for i, j in zip(rows, columns, strict=True)]
    assert np.allclose(pair_distances(first, second, rows, columns), expected)


def test_different_shapes_are_refused_with_both():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        row_distances(unit_rows(4, 3), unit_rows(5, 3))
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(4, 2\)"):
        pair_distances(unit_rows(4, 3), unit_rows(4, 2), np.arange(4), np.arange(4))
    with pytest.raises(ValueError, match=r"\(4,\) and \(3,\)"):
        pair_distances(unit_rows(4, 3), unit_rows(4, 3), np.arange(4), np.arange(3))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(4, 2\)"):
        GalleryDistances(unit_rows(4, 2)).squared(unit_rows(2, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(bad, monkeypatch):
    monkeypatch.setattr(distances, "ROW_CHUNK_ELEMENTS", 10)
    rows = unit_rows(9, 4)
    assert first_non_finite_row(rows) is None
    rows[[6, 8], 2] = bad
    assert first_non_finite_row(rows) == 6
    with pytest.raises(ValueError, match=r"gallery must be finite.* row 6\."):
        GalleryDistances(rows)
    with pytest.raises(ValueError, match=r"row 0 or 8 \(pair 1\)"):
        pair_distances(rows, rows, np.array([1, 0]), np.array([2, 8]))


@pytest.mark.parametrize("shape", [(3,), (0, 4), (4, 0), (2, 2, 2)])
def test_only_a_matrix_with_rows_is_a_gallery(shape):
    with pytest.raises(ValueError, match="must be a matrix"):
        GalleryDistances(np.ones(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_squared_distances_equal_differences_squared(dtype, monkeypatch):
    queries, gallery = unit_rows(7, 33).astype(dtype), unit_rows(40, 33, seed=1).astype(dtype)
    expected = all_squared(queries, gallery)
    assert np.allclose(GalleryDistances(gallery).squared(queries), expected, atol=1e-6)
    monkeypatch.setattr(distances, "PRODUCT_ELEMENTS", 6 * 33)
    assert np.allclose(GalleryDistances(gallery).squared(queries), expected, atol=1e-6)


def test_a_tight_cone_keeps_its_distances():
    # All cosines are above 0.9999999: products of such rows in float32 are nothing but rounding.
    gallery = unit_rows(1, 64) + 1e-5 * unit_rows(30, 64, seed=1)
    gallery = gallery.astype(np.float32)
    expected = all_squared(gallery[:5], gallery)
    assert np.allclose(GalleryDistances(gallery).squared(gallery[:5]), expected, rtol=1e-3)


def test_equal_gallery_rows_are_equally_far_whatever_the_order_of_additions(monkeypatch):
    matmul = np.matmul

    def matmul_with_rounding(first, second, out):
        matmul(first, second, out=out)
        out += np.float32(1e-7) * np.arange(out.shape[1], dtype=np.float32)

    monkeypatch.setattr(np, "matmul", matmul_with_rounding)
    gallery = unit_rows(203, 1031)
    gallery[0, 0] = 0.0
    gallery[[50, 121, 202]] = gallery[[0, 7, 0]]
    gallery[202, 0] = -0.0
    for queries in (unit_rows(1, 1031, seed=1), unit_rows(37, 1031, seed=2)):
        squared = GalleryDistances(gallery).squared(queries)
        assert np.array_equal(squared[:, [50, 121, 202]], squared[:, [0, 7, 0]])


def test_squared_distances_are_never_below_zero():
    gallery = np.concatenate([unit_rows(50, 19), np.zeros((2, 19), np.float32)])
    squared = GalleryDistances(gallery).squared(gallery)
    assert not np.signbit(squared).any()


def test_excluded_rows_are_infinitely_far():
    gallery = unit_rows(6, 3)
    squared = GalleryDistances(gallery).squared(gallery[[4, 1]], np.array([4, 1]))
    assert np.argwhere(np.isinf(squared)).tolist() == [[0, 4], [1, 1]]
