import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, pearsonr

from deep_ranking.augmentation import Augmentation, draw_transforms
from deep_ranking.errors import InputError
from deep_ranking.images import IDENTITY, resample

NOTHING = {
    "horizontal_flip": False,
    "vertical_flip": False,
    "rotation": 0,
    "zoom": 0,
    "shear": 0,
    "shift": 0,
    "random_crop": 1,
}


def only(**switched_on):
    return Augmentation(**(NOTHING | switched_on))


def draws(augmentation, count=400, size=10):
    """Maps of so many images: float (count, 2, 3). The seed is fixed, so a test passes for good."""
    rng = np.random.default_rng(0)
    return np.stack([augmentation.draw(rng, size) for _ in range(count)])


def assert_uniform(values, low, high):
    assert kstest(values, "uniform", args=(low, high - low)).pvalue > 0.001


def assert_independent(one, other):
    assert pearsonr(one, other).pvalue > 0.001


def noise(side):
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)


def test_defaults_are_the_blogs():
    assert dataclasses.asdict(Augmentation()) == {
        "horizontal_flip": True,
        "vertical_flip": True,
        "rotation": 30,
        "zoom": 0.2,
        "shear": 0.2,
        "shift": 0,
        "random_crop": 1,
    }


def test_nothing_switched_on_is_the_identity():
    np.testing.assert_array_equal(draws(only(), count=5), [IDENTITY] * 5)


@pytest.mark.parametrize(
    ("switched_on", "axis"), [({"horizontal_flip": True}, 1), ({"vertical_flip": True}, 0)]
)
def test_flip_is_numpys_flip_half_of_the_time(switched_on, axis):
    image = noise(12)
    flipped = 0
    for transform in draws(only(**switched_on)):
        result = resample(image, 12, transform)
        if np.array_equal(result, image):
            continue
        np.testing.assert_array_equal(result, np.flip(image, axis))
        flipped += 1
    assert binomtest(flipped, 400).pvalue > 0.001


def test_flips_are_independent():
    maps = draws(only(horizontal_flip=True, vertical_flip=True))
    assert_independent(maps[:, 0, 0], maps[:, 1, 1])


def test_rotation_is_uniform_to_either_side():
    maps = draws(only(rotation=30))
    np.testing.assert_allclose(maps[:, :, 2], 0)
    np.testing.assert_allclose(maps[:, 0, 0], maps[:, 1, 1])
    np.testing.assert_allclose(maps[:, 0, 1], -maps[:, 1, 0])
    np.testing.assert_allclose(np.linalg.det(maps[:, :, :2]), 1)
    assert_uniform(np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0])), -30, 30)


def test_zoom_has_its_own_factor_on_each_axis():
    maps = draws(only(zoom=0.2))
    across, down = maps[:, 0, 0], maps[:, 1, 1]
    np.testing.assert_array_equal(maps[:, [0, 1, 0, 1], [1, 0, 2, 2]], 0)
    assert_uniform(across, 0.8, 1.2)
    assert_uniform(down, 0.8, 1.2)
    assert_independent(across, down)


def test_shear_is_in_degrees():
    # The matrix of Keras' legacy generator: [[1, -sin(s)], [0, cos(s)]].
    maps = draws(only(shear=20))
    angle = np.degrees(-np.arcsin(maps[:, 0, 1]))
    assert_uniform(angle, -20, 20)
    np.testing.assert_array_equal(maps[:, [0, 1], [0, 0]], [[1, 0]] * len(maps))
    np.testing.assert_allclose(maps[:, 1, 1], np.cos(np.radians(angle)))
    assert np.abs(draws(Augmentation(**(NOTHING | {"shear": 0.2})))[:, 0, 1]).max() < 0.0035


def test_shift_is_in_pixels_of_the_input():
    for size in (10, 224):
        maps = draws(only(shift=3), size=size)
        np.testing.assert_array_equal(maps[:, :, :2], [np.eye(2)] * len(maps))
        assert_uniform(maps[:, 0, 2] * size, -3, 3)
        assert_uniform(maps[:, 1, 2] * size, -3, 3)
        assert_independent(maps[:, 0, 2], maps[:, 1, 2])


def test_crop_is_a_square_anywhere_inside():
    maps = draws(only(random_crop=0.6))
    np.testing.assert_allclose(maps[:, :, :2], [0.6 * np.eye(2)] * len(maps))
    corners = maps @ [-0.5, -0.5, 1], maps @ [0.5, 0.5, 1]
    assert min(corners[0].min(), corners[1].min()) >= -0.5
    assert max(corners[0].max(), corners[1].max()) <= 0.5
    # The corner at the top left moves over the 0.4 that the square leaves free.
    assert_uniform(corners[0][:, 0], -0.5, -0.1)
    assert_uniform(corners[0][:, 1], -0.5, -0.1)
    assert_independent(maps[:, 0, 2], maps[:, 1, 2])


def test_all_together_are_the_product_in_kerass_order():
    """Flip, zoom, shear, rotation, from the result to the image; then the shift.

    The draws do not depend on what is switched on, so the same seed gives the parts one by one.
    """
    parts = {
        "horizontal_flip": True,
        "vertical_flip": True,
        "zoom": 0.3,
        "shear": 25,
        "rotation": 40,
        "shift": 2,
    }
    together = draws(only(**parts), count=20)
    one = {name: draws(only(**{name: value}), count=20) for name, value in parts.items()}
    for number, transform in enumerate(together):
        linear = np.eye(2)
        for name in ("rotation", "shear", "zoom", "vertical_flip", "horizontal_flip"):
            linear = linear @ one[name][number][:, :2]
        np.testing.assert_allclose(transform[:, :2], linear, atol=1e-12)
        np.testing.assert_allclose(transform[:, 2], one["shift"][number][:, 2])


def test_each_image_has_its_own_draw():
    maps = draw_transforms(Augmentation(), np.random.default_rng(0), 3, 224)
    assert len(maps) == 3
    assert len({one.tobytes() for one in maps}) == 3
    again = draw_transforms(Augmentation(), np.random.default_rng(0), 3, 224)
    np.testing.assert_array_equal(maps, again)
    other = draw_transforms(Augmentation(), np.random.default_rng(1), 3, 224)
    assert not np.array_equal(maps, other)


def test_without_augmentation_nothing_changes():
    maps = draw_transforms(None, np.random.default_rng(0), 3, 224)
    np.testing.assert_array_equal(maps, [[[1, 0, 0], [0, 1, 0]]] * 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotation", -1),
        ("rotation", 181),
        ("zoom", -0.1),
        ("zoom", 1),
        ("shear", 90),
        ("shift", -1),
        ("shift", float("inf")),
        ("random_crop", 0),
        ("random_crop", 1.1),
        *((name, float("nan")) for name in ("rotation", "zoom", "shear", "shift", "random_crop")),
    ],
)
def test_value_out_of_range(name, value):
    with pytest.raises(InputError, match=rf"^{name} must .*Received: {value}$"):
        Augmentation(**{name: value})
