from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deep_ranking.embedding.cached_features import CachedFeatures, feature_store, flattened
from deep_ranking.files import InputError
from deep_ranking.images import read_image
from deep_ranking.images.augmentation import Augmentation
from deep_ranking.sampling import ClassBatches
from deep_ranking.training.batches import ClassSource, FeatureSource

SIZE = 8
# Classes of 7, 3, 1, 12, 4 and 5 images, mixed up.
SIZES = {0: 7, 3: 3, 4: 1, 8: 12, 9: 4, 20: 5}
LABELS = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values())))


def class_batches(labels=LABELS, batch_size=12, images_per_class=4, seed=0):
    return ClassBatches(labels, batch_size=batch_size, images_per_class=images_per_class, seed=seed)


def runs(labels):
    """Lengths of runs of equal labels, with the labels."""
    starts = [0, *(np.flatnonzero(np.diff(labels)) + 1), len(labels)]
    return [(int(labels[begin]), int(end - begin)) for begin, end in pairwise(starts)]


# What is drawn


@pytest.mark.parametrize(("batch_size", "images_per_class"), [(4, 2), (12, 4), (15, 5), (9, 3)])
def test_batch_has_some_images_of_each_of_some_classes(batch_size, images_per_class):
    batches = class_batches(batch_size=batch_size, images_per_class=images_per_class)
    num_classes = batch_size // images_per_class
    assert (batches.num_classes, batches.images_per_class) == (num_classes, images_per_class)
    assert batches.num_images == batch_size
    for step in range(50):
        drawn = batches.draw(0, step)
        assert len(set(drawn.tolist())) == len(drawn)
        found = runs(LABELS[drawn])
        assert len(found) == num_classes
        assert len({label for label, _ in found}) == num_classes
        for label, count in found:
            assert count == min(images_per_class, SIZES[label])


def test_fewer_classes_than_wanted_are_all_in_each_batch():
    batches = class_batches(batch_size=100, images_per_class=4)
    assert (batches.num_classes, batches.num_images) == (6, 24)
    for step in range(5):
        drawn = batches.draw(0, step)
        assert set(LABELS[drawn]) == set(SIZES)
        assert len(drawn) == 4 + 3 + 1 + 4 + 4 + 4


def test_draw_depends_on_seed_epoch_and_step_alone():
    def draws(batches, order):
        return {key: tuple(batches.draw(*key).tolist()) for key in order}

    keys = [(epoch, step) for epoch in range(3) for step in range(4)]
    first = draws(class_batches(seed=3), keys)
    assert len(set(first.values())) == len(keys)
    state = np.random.get_state()[1].copy()
    assert draws(class_batches(seed=3), keys[::-1]) == first
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    other = draws(class_batches(seed=4), keys)
    assert not set(other.values()) & set(first.values())


def test_classes_and_images_come_up_alike():
    steps = 3000
    batches = class_batches(batch_size=6, images_per_class=2)  # 3 of 6 classes
    counts = np.zeros(len(LABELS))
    pairs, firsts = Counter(), Counter()
    for step in range(steps):
        drawn = batches.draw(0, step)
        counts[drawn] += 1
        classes = [label for label, _ in runs(LABELS[drawn])]
        pairs[frozenset(classes[:2])] += 1
        firsts[classes[0]] += 1
    for label, size in SIZES.items():
        # A class is drawn in half of the steps, and 2 of its images then, or the only one.
        share = 0.5 * min(2, size) / size
        deviation = np.sqrt(steps * share * (1 - share))
        assert np.abs(counts[label == LABELS] - steps * share).max() < 4 * deviation
        assert abs(firsts[label] - steps / 6) < 4 * np.sqrt(steps / 6)
    assert len(pairs) == 15
    expected = steps / 15
    # Chi-square with 14 degrees of freedom is above 36 once in a thousand times.
    assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 36


@pytest.mark.parametrize("labels", [[3], [3, 3, 3]])
def test_fewer_than_two_classes(labels):
    with pytest.raises(InputError, match=r"two classes or more\. Received: 1"):
        class_batches(np.array(labels))


def test_no_class_of_two_images():
    with pytest.raises(InputError, match="no class has two images"):
        class_batches(np.arange(5))


# Batches of images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image for each of `LABELS`, each unlike the others."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(len(LABELS)):
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, (11, 9, 3), np.uint8)).save(paths[-1])
    return paths


def class_source(paths, batches=None, **options):
    batches = batches or class_batches()
    return ClassSource(paths, LABELS, image_size=SIZE, batches=batches, **options)


def arrays(dataset):
    return [(pixels.numpy(), labels.numpy()) for pixels, labels in dataset]


def assert_equal(one, other):
    assert len(one) == len(other)
    for (pixels, labels), (others, other_labels) in zip(one, other, strict=True):
        np.testing.assert_array_equal(pixels, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_images_and_labels_are_those_drawn(images):
    source = class_source(images)
    batches = arrays(source.dataset(2))
    assert len(batches) == source.num_batches == 3  # 32 images, 12 a batch
    for step, (pixels, labels) in enumerate(batches):
        drawn = source.batches.draw(2, step)
        assert (pixels.dtype, labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(labels, LABELS[drawn])
        expected = [read_image(images[number], SIZE) for number in drawn]
        np.testing.assert_array_equal(pixels, expected)
    assert_equal(arrays(source.dataset(2)), batches)
    assert not np.array_equal(arrays(source.dataset(3))[0][0], batches[0][0])


def test_kind_of_the_batches(images):
    pixels, labels = class_source(images).dataset(0).element_spec
    assert (pixels.dtype, pixels.shape.as_list()) == (tf.float32, [None, SIZE, SIZE, 3])
    assert (labels.dtype, labels.shape.as_list()) == (tf.int32, [None])


@pytest.mark.parametrize(("steps", "expected"), [(None, 3), (1, 1), (7, 7)])
def test_number_of_batches(images, steps, expected):
    source = class_source(images, steps_per_epoch=steps)
    assert source.num_batches == expected
    assert len(arrays(source.dataset(0))) == expected


def test_description(images):
    expected = "32 images of 6 classes, in batches of 3 classes with 4 images"
    assert class_source(images).description == expected


def test_images_lose_their_colors(images):
    colors = {"horizontal_flip": False, "vertical_flip": False, "rotation": 0, "zoom": 0}
    changed = class_source(images, augmentation=Augmentation(**colors, shear=0, grayscale=1))
    for (pixels, _), (plain, _) in zip(
        arrays(changed.dataset(0)), arrays(class_source(images).dataset(0)), strict=True
    ):
        luma = plain @ [0.299, 0.587, 0.114]
        assert np.abs(pixels - luma[..., None]).max() <= 0.51


def test_augmentation_depends_on_seed_and_epoch_alone(images):
    # All six classes, all of their images: epochs differ in order and augmentation.
    batches = class_batches(batch_size=72, images_per_class=12)
    options = {"batches": batches, "augmentation": Augmentation(), "steps_per_epoch": 2}

    def pixels_of(seed, epoch):
        """The pixels of each image in the two batches of an epoch."""
        source = class_source(images, seed=seed, **options)
        found = {}
        for step, (pixels, labels) in enumerate(arrays(source.dataset(epoch))):
            drawn = batches.draw(epoch, step).tolist()
            np.testing.assert_array_equal(labels, LABELS[drawn])
            found |= {(number, step): each for number, each in zip(drawn, pixels, strict=True)}
        return found

    first = pixels_of(0, 0)
    assert len(first) == 64
    again = pixels_of(0, 0)
    for key, pixels in first.items():
        np.testing.assert_array_equal(pixels, again[key])
    plain = {number: read_image(path, SIZE) for number, path in enumerate(images)}
    for other in (
        pixels_of(0, 1),
        pixels_of(1, 0),
        {(number, step): first[number, 1 - step] for number, step in first},
        {(number, step): plain[number] for number, step in first},
    ):
        assert not any(np.array_equal(first[key], other[key]) for key in first)


def broken_copy(images, folder, number):
    """The same paths, but for one that is no image."""
    path = folder / "broken.png"
    path.write_text("no image")
    return [*images[:number], str(path), *images[number + 1 :]]


def test_broken_image_stops_and_is_named(images, tmp_path):
    source = class_source(broken_copy(images, tmp_path, 5), steps_per_epoch=30)
    with pytest.raises(InputError) as caught, source.raising_image_errors():
        arrays(source.dataset(0))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'broken.png'}: not an image")
    assert "--skip_broken" in message


def test_broken_image_is_left_out(images, tmp_path):
    paths = broken_copy(images, tmp_path, 5)
    paths[8] = str(tmp_path / "none.png")
    source = class_source(paths, steps_per_epoch=30, skip_broken=True)
    batches = arrays(source.dataset(0))
    assert source.broken == {5, 8}
    lengths = set()
    for step, (pixels, labels) in enumerate(batches):
        drawn = source.batches.draw(0, step)
        kept = drawn[(drawn != 5) & (drawn != 8)]
        lengths.add(len(drawn) - len(kept))
        np.testing.assert_array_equal(labels, LABELS[kept])
        expected = [read_image(images[number], SIZE) for number in kept]
        np.testing.assert_array_equal(pixels, expected)
    assert {0, 1} <= lengths


def test_first_images_are_saved_as_the_network_sees_them(images, tmp_path, monkeypatch):
    monkeypatch.setattr("deep_ranking.training.batches.classes.NUM_SAVED_IMAGES", 17)
    folder = tmp_path / "a" / "saved"
    # Without the class of one image and that of three, batches are full.
    batches = class_batches(batch_size=6, images_per_class=3)
    source = class_source(images, batches, augmentation=Augmentation(), save_dir=folder)
    shown = arrays(source.dataset(0))
    expected = {}
    for step, (pixels, labels) in enumerate(shown):
        for row, (each, label) in enumerate(zip(pixels, labels, strict=True)):
            if 6 * step + row < 17:
                expected[f"{6 * step + row + 1:04}_class_{label}.png"] = each
    assert {path.name for path in folder.iterdir()} == set(expected)
    assert len(expected) >= 15
    for name, pixels in expected.items():
        np.testing.assert_array_equal(np.asarray(Image.open(folder / name)), pixels)


# Batches of features

SHAPES = ((2, 2), (3,))
VIEWS = 3


def feature_arrays(numbers, views):
    """Features that tell the image, the view and the place."""
    tags = np.asarray(numbers, np.float32) * 8 + np.asarray(views, np.float32)
    place = np.arange(4, dtype=np.float32).reshape(1, 2, 2) * 0.25
    return [tags[:, None, None] + place, -tags[:, None] - np.arange(3) * 0.125]


@pytest.fixture
def features(tmp_path):
    """Features of three views of each image, in an order of their own; image 5 has none."""
    store = feature_store(tmp_path / "features", SHAPES)
    pairs = [(number, view) for number in range(len(LABELS)) for view in range(VIEWS)]
    order = np.random.default_rng(0).permutation(len(pairs))
    numbers, views = np.array(pairs)[order].T
    store.extend(
        [([bytes([row]) * 32 for row in order], flattened(feature_arrays(numbers, views)))]
    )
    found = store.find()
    rows = np.array([found[bytes([row]) * 32] for row in range(len(pairs))]).reshape(-1, VIEWS)
    rows[5] = -1
    return CachedFeatures(store.rows(), rows, SHAPES)


def feature_source(features, **options):
    return FeatureSource(features, LABELS, batches=class_batches(), **options)


def test_features_are_those_of_the_images_drawn(features):
    source = feature_source(features, steps_per_epoch=150)
    assert source.broken == {5}
    counts = Counter()
    for step, ((maps, vectors), labels) in enumerate(source.dataset(1)):
        drawn = source.batches.draw(1, step)
        kept = drawn[drawn != 5]
        np.testing.assert_array_equal(labels, LABELS[kept])
        views = maps.numpy()[:, 0, 0].astype(int) % 8
        for part, expected in zip((maps, vectors), feature_arrays(kept, views), strict=True):
            assert part.dtype == tf.float32
            np.testing.assert_array_equal(part, expected)
        counts.update(zip(kept.tolist(), views.tolist(), strict=True))
    # Every view of every other image came up, each in about a third of the draws.
    assert set(counts) == {(n, v) for n in range(len(LABELS)) if n != 5 for v in range(VIEWS)}
    total = sum(counts.values())
    for view in range(VIEWS):
        share = sum(count for (_, v), count in counts.items() if v == view) / total
        assert abs(share - 1 / VIEWS) < 4 * np.sqrt(2 / 9 / total)


def test_views_depend_on_seed_and_epoch_alone(features):
    def tags(seed, epoch):
        source = feature_source(features, seed=seed)
        return [maps.numpy()[:, 0, 0].tolist() for (maps, _), _ in source.dataset(epoch)]

    first = tags(0, 0)
    assert first == tags(0, 0)
    assert first != tags(0, 1)
    other = tags(1, 0)  # the batches have a seed of their own: other views of the same images
    assert first != other
    assert [[int(tag) // 8 for tag in batch] for batch in first] == [
        [int(tag) // 8 for tag in batch] for batch in other
    ]


def test_kind_and_number_of_the_feature_batches(features):
    source = feature_source(features)
    (maps, vectors), labels = source.dataset(0).element_spec
    assert (maps.dtype, maps.shape.as_list()) == (tf.float32, [None, 2, 2])
    assert (vectors.dtype, vectors.shape.as_list()) == (tf.float32, [None, 3])
    assert (labels.dtype, labels.shape.as_list()) == (tf.int32, [None])
    assert source.num_batches == len(list(source.dataset(0))) == 3
    assert len(list(feature_source(features, steps_per_epoch=5).dataset(0))) == 5
    assert source.description == (
        "32 images of 6 classes, in batches of 3 classes with 4 images, cached features of 3 views "
        "each"
    )
