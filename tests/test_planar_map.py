"""Positions of images in the plane."""

import numpy as np
import pytest

from deep_ranking.search import planar_map as module
from deep_ranking.search.planar_map import balanced_choice, map_points, planar_map


def clusters(seed=0, *, size=8):
    """Three groups in eight dimensions, far from each other."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(10 * np.eye(3, 8), size, axis=0)
    return centers + rng.normal(scale=0.1, size=(3 * size, 8))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def groups_apart(points, groups):
    """The smallest distance of two groups' middles, in units of the widest group."""
    parts = [points[groups == number] for number in np.unique(groups)]
    widest = max(np.ptp(part, axis=0).max() for part in parts)
    middles = np.stack([part.mean(axis=0) for part in parts])
    gaps = np.linalg.norm(middles[:, None] - middles[None], axis=2)
    return gaps[~np.eye(len(parts), dtype=bool)].min() / widest


def laid_out(monkeypatch, positions):
    """Make these positions those of the landmarks, in the order of their rows."""
    monkeypatch.setattr(module, "map_points", lambda *_, **__: np.array(positions, float))


def test_the_map_keeps_groups_together():
    embeddings = clusters()
    points = map_points(embeddings, seed=0)
    assert groups_apart(points, np.repeat(np.arange(3), 8)) > 1
    np.testing.assert_array_equal(points, map_points(embeddings, seed=0))


@pytest.mark.parametrize(
    "embeddings",
    [np.ones((6, 3)), np.eye(2), np.eye(3, 1), np.arange(12.0).reshape(6, 2), np.ones((1, 4))],
)
def test_small_and_flat_sets_have_a_map(embeddings):
    points = map_points(embeddings)
    assert points.shape == (len(embeddings), 2)
    assert np.isfinite(points).all()


def test_images_that_are_no_landmarks_lie_in_their_groups():
    rows = unit(clusters(size=200))
    order = np.random.default_rng(1).permutation(600)  # images are in another order than rows
    classes = order // 200
    found = []
    points = planar_map(rows, order, classes, num_landmarks=60, placed=found.append)
    assert groups_apart(points, classes) > 1
    assert found == [60, 600]
    again = planar_map(rows, order, classes, num_landmarks=60)
    np.testing.assert_array_equal(points, again)
    assert not np.array_equal(points, planar_map(rows, order, classes, num_landmarks=60, seed=1))


def test_the_blocks_in_which_rows_are_read_change_nothing(monkeypatch):
    rows = unit(clusters(size=40))
    numbers, classes = np.arange(120), np.repeat(np.arange(3), 40)
    laid_out(monkeypatch, np.random.default_rng(0).normal(size=(30, 2)))
    whole = planar_map(rows, numbers, classes, num_landmarks=30)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(
        planar_map(rows, numbers, classes, num_landmarks=30), whole, rtol=0, atol=1e-9
    )


def test_never_more_rows_at_once_than_landmarks_or_a_block(monkeypatch):
    class Recorded:
        shape, dtype = (600, 8), np.dtype(np.float32)

        def __len__(self):
            return 600

        def __getitem__(self, index):
            part = rows[index]
            read.append(len(part))
            return part

    rows, read = unit(clusters(size=200)), []
    laid_out(monkeypatch, np.random.default_rng(0).normal(size=(40, 2)))
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 50)
    planar_map(Recorded(), np.arange(600), np.zeros(600, int), num_landmarks=40)
    assert max(read) == 50 and sum(read) == 600


def test_an_image_between_landmarks_by_hand(monkeypatch):
    # Landmarks at angles 0, 10, 20, 26, 28 and 30 degrees; the image at 10, as the second.
    degrees = np.radians([0, 10, 20, 26, 28, 30, 10])
    rows = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    positions = [[0, 0], [1, 0], [2, 0], [90, 0], [100, 0], [100, 100]]
    laid_out(monkeypatch, positions)
    monkeypatch.setattr(module, "balanced_choice", lambda *_, **__: np.arange(6))
    monkeypatch.setattr(module, "_scatter", lambda count, _: np.zeros((count, 2)))
    points = planar_map(rows, np.arange(7), np.zeros(7, int), num_landmarks=6)
    np.testing.assert_array_equal(points[:6], positions)
    np.testing.assert_allclose(points[6], [1, 0], atol=1e-3)
    rows[6] = [np.cos(np.radians(6)), np.sin(np.radians(6))]
    squared = ((rows[6] - rows[:6]) ** 2).sum(axis=1)
    weights = 1 / squared[:3] - 1 / squared.max()  # of those within 5 of the nearest on the map
    wanted = weights @ np.array(positions)[:3] / weights.sum()
    points = planar_map(rows, np.arange(7), np.zeros(7, int), num_landmarks=6)
    np.testing.assert_allclose(points[6], wanted, rtol=1e-3)


def test_copies_lie_beside_each_other_and_not_on_each_other():
    rows = unit(clusters(size=20))
    numbers = np.concatenate([np.arange(60), np.full(40, 7)])
    points = planar_map(rows, numbers, np.zeros(100, int), num_landmarks=50)
    copies = points[numbers == 7]
    assert len(np.unique(copies.round(6), axis=0)) == 41
    assert np.ptp(copies, axis=0).max() < np.ptp(points, axis=0).max() / 3


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_equal_images_are_scattered(count):
    rows = np.tile(np.float32([0.6, 0.8]), (40, 1))
    points = planar_map(rows, np.arange(40), np.zeros(40, int), num_landmarks=count)
    assert len(np.unique(points, axis=0)) == 41 - count and np.isfinite(points).all()
    assert np.abs(points).max() <= 1


def test_classes_take_turns():
    classes = np.array([0] * 500 + [1] * 3 + [2] * 60)
    chosen = balanced_choice(classes, 43, seed=5)
    assert np.bincount(classes[chosen]).tolist() == [20, 3, 20]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, balanced_choice(classes, 43, seed=5))
    assert not np.array_equal(chosen, balanced_choice(classes, 43, seed=6))
    np.testing.assert_array_equal(balanced_choice(classes, 1000, seed=5), np.arange(563))


def test_of_more_classes_than_landmarks_some_are_drawn():
    chosen = balanced_choice(np.repeat(np.arange(100), 5), 10, seed=0)
    assert len(set(chosen // 5)) == 10
    assert max(chosen) > 250  # not the first ones alone
