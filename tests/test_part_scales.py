import numpy as np
import pytest

from deep_ranking.model.part_scales import branch_scales
from deep_ranking.model.whitening import (
    SHRINKAGE,
    scaled_whitening_axes,
    whitening_axes,
)

NUM_CLASSES, IMAGES = 12, 20


def clusters(spread, dim, seed):
    """Unit rows of classes; the larger the spread within classes, the less they tell."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (NUM_CLASSES, dim))
    rows = centres.repeat(IMAGES, axis=0) + rng.normal(0, spread, (NUM_CLASSES * IMAGES, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


LABELS = np.repeat(np.arange(NUM_CLASSES), IMAGES)
BACKBONE = clusters(2.0, 30, 0)
TELLING = clusters(1.0, 12, 1)
NOISE = clusters(1000.0, 12, 2)


def test_a_branch_that_tells_classes_apart_counts_and_noise_does_not():
    scales = branch_scales([TELLING, NOISE, BACKBONE], LABELS, shrinkage=SHRINKAGE)
    assert scales[0] >= 0.75 and scales[1] == 0
    scales = branch_scales([NOISE, TELLING, BACKBONE], LABELS, shrinkage=SHRINKAGE)
    assert scales[1] >= 0.75 and scales[0] == 0


def test_the_choice_is_the_same_each_time():
    found = [branch_scales([TELLING, BACKBONE], LABELS, shrinkage=1.0) for _ in range(2)]
    assert found[0] == found[1]


def test_few_classes_leave_all_as_it_is():
    two = LABELS % 2
    assert branch_scales([NOISE, BACKBONE], two, shrinkage=1.0) == [1.0]
    single = np.arange(len(LABELS))  # no class has two images
    assert branch_scales([NOISE, BACKBONE], single, shrinkage=1.0) == [1.0]


def test_a_network_without_branches_starts_as_ever():
    kernel, bias, scales = scaled_whitening_axes([BACKBONE], LABELS, 8)
    expected = whitening_axes(BACKBONE, LABELS, 8)
    np.testing.assert_array_equal(kernel, expected[0])
    np.testing.assert_array_equal(bias, expected[1])
    assert scales == []


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_the_kernel_takes_unscaled_parts(monkeypatch, scale):
    monkeypatch.setattr("deep_ranking.model.whitening.branch_scales", lambda *_, **__: [scale, 1.0])
    parts = [NOISE, TELLING, BACKBONE]
    kernel, bias, scales = scaled_whitening_axes(parts, LABELS, 8)
    assert scales == [scale, 1.0] and kernel.shape == (54, 8)
    used = [scale * NOISE] * (scale > 0) + [TELLING, BACKBONE]
    expected = whitening_axes(np.concatenate(used, axis=1), LABELS, 8)
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1) @ kernel + bias,
        np.concatenate(used, axis=1) @ expected[0] + expected[1],
        atol=1e-4,
    )
    assert (kernel[:12] == 0).all() == (scale == 0)


def test_a_branch_counts_as_it_finds_pictures_of_another_domain():
    """It tells the photographs apart, and shows the shop's pictures in other classes' places."""
    pictures = np.arange(len(LABELS)) % IMAGES < 2
    shuffled = TELLING.copy()
    shuffled[pictures] = np.roll(TELLING[pictures], 2, axis=0)
    parts = [shuffled, BACKBONE]
    (alone,) = branch_scales([part[~pictures] for part in parts], LABELS[~pictures], shrinkage=1.0)
    (across,) = branch_scales(parts, LABELS, shrinkage=1.0, gallery=pictures)
    assert alone >= 0.75 and across == 0
    (alike,) = branch_scales([TELLING, BACKBONE], LABELS, shrinkage=1.0, gallery=pictures)
    assert alike >= 0.75
    none = np.zeros(len(LABELS), bool)
    assert branch_scales(parts, LABELS, shrinkage=1.0, gallery=none) == branch_scales(
        parts, LABELS, shrinkage=1.0
    )


def test_pictures_of_another_domain_do_not_whiten():
    pictures = np.arange(len(LABELS)) % IMAGES < 2
    kernel, bias, _ = scaled_whitening_axes([BACKBONE], LABELS, 8, gallery=pictures)
    expected = whitening_axes(BACKBONE[~pictures], LABELS[~pictures], 8)
    np.testing.assert_array_equal(kernel, expected[0])
    np.testing.assert_array_equal(bias, expected[1])


def test_classes_of_one_domain_do_not_spoil_the_choice():
    """Four products have both kinds of images; four have photographs alone, four pictures alone."""
    product = LABELS // 4
    pictures = np.where(product == 0, np.arange(len(LABELS)) % IMAGES < 2, product == 2)
    for branch, counts in ((TELLING, True), (NOISE, False)):
        (scale,) = branch_scales([branch, BACKBONE], LABELS, shrinkage=1.0, gallery=pictures)
        assert (scale >= 0.5) == counts
    few = pictures & (LABELS < 3)  # too few products have both
    assert branch_scales([NOISE, BACKBONE], LABELS, shrinkage=1.0, gallery=few) == [1.0]
