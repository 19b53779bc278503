import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest, kstest, pearsonr

from deep_ranking.files import InputError
from deep_ranking.images import decode_image, read_image, resample
from deep_ranking.images.augmentation import Augmentation, draw_views
from deep_ranking.images.reading import IDENTITY

NOTHING = {
    "horizontal_flip": False,
    "vertical_flip": False,
    "rotation": 0,
    "zoom": 0,
    "shear": 0,
    "shift": 0,
    "random_crop": 1,
    "resized_crop": 1,
    "grayscale": 0,
}


def only(**switched_on):
    return Augmentation(**(NOTHING | switched_on))


def draws(augmentation, count=400, size=10):
    """Maps of so many images: float (count, 2, 3). The seed is fixed, so a test passes for good."""
    views = augmentation.draw(np.random.default_rng(0), count, size)
    return np.stack([view.affine for view in views])


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
        "resized_crop": 1,
        "grayscale": 0,
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
    def maps(seed):
        views = draw_views(Augmentation(), np.random.default_rng(seed), 3, 224)
        return [view.affine for view in views]

    assert len(maps(0)) == 3
    assert len({one.tobytes() for one in maps(0)}) == 3
    np.testing.assert_array_equal(maps(0), maps(0))
    assert not np.array_equal(maps(0), maps(1))


def test_without_augmentation_nothing_changes():
    views = draw_views(None, np.random.default_rng(0), 3, 224)
    assert len(views) == 3
    for view in views:
        np.testing.assert_array_equal(view.affine, [[1, 0, 0], [0, 1, 0]])
        assert not view.grayscale


# The map of the second of three images before there were resized_crop and grayscale, by seed.
EARLIER = {
    0: [
        [0.681410868397172, 0.35719024242333924, 0.025368554347474304],
        [0.2676493569675354, -0.9154600889630697, -0.0025486253490976897],
    ],
    7: [
        [-0.8513851346546283, -0.22859102118419108, 0.07415545837341535],
        [0.22348098719806062, -0.8721789368184718, 0.08547875466990762],
    ],
}


@pytest.mark.parametrize("seed", EARLIER)
@pytest.mark.parametrize("later", [{}, {"grayscale": 0.5}])
def test_later_changes_leave_the_draws_of_the_earlier_ones(seed, later):
    augmentation = Augmentation(shift=4, random_crop=0.9, **later)
    second = augmentation.draw(np.random.default_rng(seed), 3, 64)[1]
    np.testing.assert_allclose(second.affine, EARLIER[seed], rtol=1e-12)


def boxes(maps):
    """Left, top, width and height of what maps without rotation cut out, in [0, 1]."""
    corners = maps @ [-0.5, -0.5, 1] + 0.5
    return *corners.T, maps[:, 0, 0], maps[:, 1, 1]


def test_resized_crop_is_a_rectangle_inside_of_uniform_area():
    maps = draws(only(resized_crop=0.08), count=2000)
    np.testing.assert_array_equal(maps[:, [0, 1], [1, 0]], 0)
    left, top, width, height = boxes(maps)
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-12
    assert_uniform(width * height, 0.08, 1)
    free = width < 1 - 1e-9
    assert_independent((width * height)[free], left[free] / (1 - width[free]))


def test_resized_crop_has_sides_as_3_to_4_up_to_4_to_3():
    # Rectangles of up to 9/16 of the area fit whatever their ratio: width^2 = area * 4/3 <= 3/4.
    _, _, width, height = boxes(draws(only(resized_crop=0.08), count=2000))
    area, ratio = width * height, width / height
    small = area <= 0.5625
    assert small.sum() > 900
    assert_uniform(np.log(ratio[small]), np.log(3 / 4), np.log(4 / 3))
    assert_independent(area[small], ratio[small])
    # Larger than 3/4, many do not fit: these have one side as long as the image's.
    large = area > 0.75
    full = np.isclose(np.maximum(width, height), 1, atol=1e-12)
    assert not full[area < 0.75].any()
    log_ratio = np.log(ratio[large & ~full])
    assert (np.abs(log_ratio) < -np.log(area[large & ~full])).all()
    # The share that does not fit at an area a is 1 - log(1/a) / log(4/3).
    expected = 1 - np.log(1 / area[large]) / np.log(4 / 3)
    spread = np.sqrt((expected * (1 - expected)).sum())
    assert abs(full[large].sum() - expected.sum()) < 4 * spread
    assert (width[large & full] == 1).mean() == pytest.approx(0.5, abs=0.15)


def test_resized_crop_lies_anywhere_inside():
    left, top, width, height = boxes(draws(only(resized_crop=0.3), count=1000))
    for place, side in ((left, width), (top, height)):
        free = side < 1 - 1e-9
        assert_uniform(place[free] / (1 - side[free]), 0, 1)
    free = (width < 1 - 1e-9) & (height < 1 - 1e-9)
    assert_independent(left[free] / (1 - width[free]), top[free] / (1 - height[free]))


def test_resized_crop_of_pixels():
    """What is cut out of an image that is not square is a part of each of its sides."""
    image = np.random.default_rng(2).integers(0, 256, (24, 48, 3), np.uint8)
    transform = draws(only(resized_crop=0.5), count=1)[0]
    left, top, width, height = (float(each[0]) for each in boxes(transform[None]))
    box = (left * 48, top * 24, (left + width) * 48, (top + height) * 24)
    expected = Image.fromarray(image).transform(
        (32, 32), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )
    inside = np.abs(
        np.asarray(expected)[2:-2, 2:-2] - resample(image, 32, transform)[2:-2, 2:-2].astype(int)
    )
    assert inside.max() <= 5 and inside.mean() < 1


def test_crops_together_are_one_inside_the_other():
    one, other = {"random_crop": 0.6}, {"resized_crop": 0.2}
    left, top, width, height = boxes(draws(only(**one, **other)))
    _, _, alone_width, alone_height = boxes(draws(only(**other)))
    np.testing.assert_allclose(width, 0.6 * alone_width)
    np.testing.assert_allclose(height, 0.6 * alone_height)
    assert_uniform(left / (1 - width), 0, 1)
    assert_uniform(top / (1 - height), 0, 1)


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_grayscale_is_a_share_of_the_images(share):
    views = only(grayscale=share).draw(np.random.default_rng(0), 1000, 32)
    found = sum(view.grayscale for view in views)
    assert binomtest(found, 1000, share).pvalue > 0.001
    assert all(np.array_equal(view.affine, IDENTITY) for view in views)


def test_grayscale_does_not_depend_on_the_other_draws():
    views = only(grayscale=0.5, rotation=30, resized_crop=0.2).draw(
        np.random.default_rng(0), 1000, 32
    )
    gray = np.array([view.grayscale for view in views], float)
    maps = np.stack([view.affine for view in views])
    assert_independent(gray, np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert_independent(gray, np.linalg.det(maps[:, :, :2]))


def test_grayscale_is_luma_after_all_else(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(noise(20)).save(path)
    (view,) = Augmentation(grayscale=1).draw(np.random.default_rng(0), 1, 32)
    pixels = read_image(path, 32, view)
    assert pixels.dtype == np.uint8 and pixels.shape == (32, 32, 3)
    colored = resample(decode_image(path, 32), 32, view.affine)
    luma = colored @ [0.299, 0.587, 0.114]
    for channel in np.moveaxis(pixels, 2, 0):
        assert np.abs(channel - luma).max() <= 0.51
    assert np.ptp(pixels) > 100
    (colorful,) = Augmentation().draw(np.random.default_rng(0), 1, 32)
    np.testing.assert_array_equal(read_image(path, 32, colorful), colored)


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
        ("resized_crop", 0),
        ("resized_crop", 1.01),
        ("grayscale", -0.1),
        ("grayscale", 1.1),
        *((name, float("nan")) for name in NOTHING if not name.endswith("flip")),
    ],
)
def test_value_out_of_range(name, value):
    with pytest.raises(InputError, match=rf"^{name} must .*Received: {float(value)}( .float.)?$"):
        Augmentation(**{name: value})
