"""Which labels are likely wrong: against fitting again without each image, and naive loops."""

import tracemalloc

import numpy as np
import pytest

from deep_ranking.metrics import distances
from deep_ranking.metrics.label_noise import BALANCE, RIDGE, label_fit, own_neighbours


def unit_rows(rng, count, dim):
    rows = rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def labelled():
    """24 rows about 3 directions, classes of 12, 8, 3 and 1 (code 2 has none), two labels wrong."""
    rng = np.random.default_rng(3)
    codes = np.repeat([0, 1, 3, 4], [12, 8, 3, 1])
    means = unit_rows(rng, 5, 6)
    rows = means[codes] + 0.15 * rng.normal(size=(24, 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    wrong = codes.copy()
    wrong[[2, 15]] = [1, 0]
    return rows, codes, wrong


def test_it_is_the_fit_without_the_image(labelled):
    rows, _, codes = labelled
    found = label_fit(rows, codes)
    sizes = np.bincount(codes)
    weights = 1 / sizes[codes] ** BALANCE
    weights *= len(codes) / weights.sum()
    inputs = np.column_stack([rows.astype(float), np.ones(len(rows))])
    penalty = np.diag([RIDGE] * rows.shape[1] + [1e-6])
    for row in range(len(rows) - 1):
        left = np.arange(len(rows)) != row
        one, weight = inputs[left], weights[left, None]
        targets = (codes[left, None] == np.arange(5)).astype(float)
        fitted = np.linalg.solve(one.T @ (weight * one) + penalty, one.T @ (weight * targets))
        scores = inputs[row] @ fitted
        own = scores[codes[row]]
        scores[[codes[row], 2]] = -np.inf
        assert found.proposed[row] == scores.argmax()
        assert found.margin[row] == pytest.approx(scores.max() - own, abs=1e-6)
    assert np.isnan(found.margin[-1])  # alone in its class


def test_wrong_labels_come_first_with_the_right_class(labelled):
    rows, right, codes = labelled
    found = label_fit(rows, codes)
    assert set(np.argsort(-np.nan_to_num(found.margin, nan=-9))[:2]) == {2, 15}
    assert (found.proposed[[2, 15]] == right[[2, 15]]).all()
    assert (found.margin[[2, 15]] > 0).all()


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="two classes or more"):
        label_fit(np.eye(3, dtype=np.float32), np.zeros(3, int))


def test_neighbours_against_loops(labelled):
    rows, _, codes = labelled
    proposed = np.where(codes == 0, 1, 0)
    found = own_neighbours(rows, codes, proposed, most=5)
    for row in range(len(rows)):
        cosines = rows @ rows[row]
        others = [each for each in range(len(rows)) if each != row]
        order = sorted(others, key=lambda each: (-cosines[each], each))
        distances = [np.linalg.norm(rows[row] - rows[each]) for each in order]
        assert found.nearest[row].tolist() == order[:5]
        assert found.distances[row] == pytest.approx(distances[:5], abs=1e-3)
        own = [each for each in order if codes[each] == codes[row]]
        assert found.own[row] == (own[0] if own else -1)
        assert found.own_rank[row] == (order.index(own[0]) + 1 if own else 0)
        assert found.proposed[row] == next(e for e in order if codes[e] == proposed[row])
        if own:
            mean = rows[own].mean(axis=0)
            cosine = mean @ rows[row] / np.linalg.norm(mean)
            assert found.to_class[row] == pytest.approx(cosine, abs=1e-5)
            assert found.own_distance[row] == pytest.approx(
                distances[order.index(own[0])], abs=1e-3
            )


def test_images_are_compared_in_parts_of_bounded_memory(monkeypatch):
    monkeypatch.setattr(distances, "ROW_CHUNK_ELEMENTS", 2**13)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 4)).astype(np.float32)
    codes = rng.integers(0, 5, len(rows))
    whole = len(rows) ** 2 * 4  # bytes of all cosines
    tracemalloc.start()
    try:
        own_neighbours(rows, codes, (codes + 1) % 5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < whole / 4
