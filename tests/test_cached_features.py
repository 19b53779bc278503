import hashlib
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from deep_ranking.embedding import cached_features as feature_cache
from deep_ranking.embedding import embedded_features as feature_embedding
from deep_ranking.embedding.cached_features import cache_features, cached_view
from deep_ranking.files import InputError
from deep_ranking.images import decode_image, read_image, resample
from deep_ranking.images.augmentation import Augmentation

SIZE = 12
AUGMENTATION = Augmentation(shift=2, random_crop=0.8)
NO_CHANGES = {
    "horizontal_flip": False,
    "vertical_flip": False,
    "rotation": 0,
    "zoom": 0,
    "shear": 0,
}


def network(seed=0):
    """A small network whose frozen part ends in a map and in a vector."""
    random = {"kernel_initializer": keras.initializers.GlorotNormal(seed=seed)}
    image = keras.Input((SIZE, SIZE, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 255, name="scaled")(image)
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="conv", **random)(scaled)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    vector = keras.layers.Dense(5, name="dense", **random)(pooled)
    return keras.Model(image, [x, vector])


def direct(model, images):
    """What the layers give for pixels, with no cache between."""
    return [np.asarray(each) for each in model(np.asarray(images, np.float32))]


def views(features, view=0):
    numbers = np.arange(len(features.rows))
    return features.read(numbers, np.full(len(numbers), view))


def assert_close(features, expected, tolerance=1e-3):
    """Within float16, whose numbers have 11 bits."""
    for part, other in zip(features, expected, strict=True):
        assert part.shape == other.shape
        np.testing.assert_allclose(np.asarray(part, np.float32), other, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def frozen():
    return network()


@pytest.fixture
def images(tmp_path):
    """Five images, each unlike the others."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "images" / f"{number}.png" for number in range(5)]
    paths[0].parent.mkdir()
    for path in paths:
        blocks = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((5, 5, 1), np.uint8))).save(path)
    return paths


@pytest.fixture
def computed(monkeypatch):
    """Numbers of images that networks were shown, one entry a batch."""
    sizes = []
    predict = keras.Model.predict_on_batch

    def counted(model, batch):
        sizes.append(len(batch))
        return predict(model, batch)

    monkeypatch.setattr(keras.Model, "predict_on_batch", counted)
    return sizes


def test_features_are_those_of_the_plain_image(frozen, images, tmp_path):
    features = cache_features(frozen, images, tmp_path / "cache")
    assert features.rows.shape == (5, 1)
    assert features.shapes == ((3, 3, 4), (5,))
    expected = direct(frozen, [read_image(path, SIZE) for path in images])
    assert np.ptp(expected[1], axis=0).min() > 0.01  # images differ by more than the tolerance
    assert_close(views(features), expected)
    part = features.read(np.array([3, 1]), np.array([0, 0]))
    assert_close(part, [each[[3, 1]] for each in expected])


def test_batches_are_put_together_in_order(frozen, images, tmp_path, monkeypatch, computed):
    monkeypatch.setattr(feature_cache, "BATCH_SIZE", 2)
    features = cache_features(frozen, images, tmp_path / "cache")
    assert computed == [2, 2, 2]  # filled up
    assert_close(views(features), direct(frozen, [read_image(path, SIZE) for path in images]))


def test_nothing_is_computed_twice(frozen, images, tmp_path, computed, capsys):
    first = views(cache_features(frozen, images, tmp_path / "cache"))
    assert computed == [5]
    assert "5 views of 5 images" in capsys.readouterr().out
    # The same layers in another object, and the paths in another order.
    again = views(cache_features(network(), [str(p) for p in images[::-1]], tmp_path / "cache"))
    assert computed == [5]
    assert capsys.readouterr().out == ""
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other[::-1])


def test_moved_and_copied_files_are_known_by_their_content(frozen, images, tmp_path, computed):
    first = views(cache_features(frozen, images, tmp_path / "cache"))
    moved = images[2].rename(tmp_path / "elsewhere.jpg")
    copied = shutil.copy(images[4], tmp_path / "copy.png")
    paths = [moved, copied, images[4], images[0]]
    again = views(cache_features(frozen, paths, tmp_path / "cache"))
    assert computed == [5]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[[2, 4, 4, 0]], other)


def test_copies_are_computed_once(frozen, images, tmp_path, computed):
    copied = shutil.copy(images[1], tmp_path / "copy.png")
    features = cache_features(frozen, [images[0], images[1], copied], tmp_path / "cache")
    assert computed == [2]
    assert features.rows[1] == features.rows[2] != features.rows[0]


def test_only_an_added_image_is_computed(frozen, images, tmp_path, computed):
    cache_features(frozen, images[:2] + images[3:], tmp_path / "cache")
    features = cache_features(frozen, images, tmp_path / "cache")
    assert computed == [4, 1]
    assert_close(views(features), direct(frozen, [read_image(path, SIZE) for path in images]))


def test_changed_image_is_computed_anew(frozen, images, tmp_path, computed):
    cache_features(frozen, images, tmp_path / "cache")
    Image.fromarray(255 - np.asarray(Image.open(images[3]))).save(images[3])
    features = cache_features(frozen, images, tmp_path / "cache")
    assert computed == [5, 1]
    assert_close(views(features), direct(frozen, [read_image(path, SIZE) for path in images]))


def test_changed_weights_are_computed_with(frozen, images, tmp_path, computed):
    cache_features(frozen, images, tmp_path / "cache")
    other = network()
    kernel, bias = other.get_layer("dense").get_weights()
    kernel[0, 0] += 1
    other.get_layer("dense").set_weights([kernel, bias])
    features = cache_features(other, images, tmp_path / "cache")
    assert computed == [5, 5]
    expected = direct(other, [read_image(path, SIZE) for path in images])
    assert_close(views(features), expected)
    # The first network's are still there.
    cache_features(frozen, images, tmp_path / "cache")
    assert computed == [5, 5]


def test_other_outputs_of_the_same_layers_are_other_features(frozen, images, tmp_path, computed):
    cache_features(frozen, images, tmp_path / "cache")
    other = keras.Model(frozen.input, [*frozen.outputs, frozen.get_layer("pooled").output])
    features = cache_features(other, images, tmp_path / "cache")
    assert computed == [5, 5]
    assert features.shapes == ((3, 3, 4), (5,), (4,))
    assert_close(views(features), direct(other, [read_image(path, SIZE) for path in images]))


# Views


def test_first_view_is_the_image_and_others_are_augmented(frozen, images, tmp_path, monkeypatch):
    drawn = []
    draw = Augmentation.draw

    def recorded(self, rng, count, size):
        assert (self, count, size) == (AUGMENTATION, 1, SIZE)
        drawn.extend(draw(self, rng, count, size))
        return drawn[-1:]

    monkeypatch.setattr(Augmentation, "draw", recorded)
    features = cache_features(
        frozen, images, tmp_path / "cache", num_views=3, augmentation=AUGMENTATION
    )
    assert features.rows.shape == (5, 3)
    assert_close(views(features), direct(frozen, [read_image(path, SIZE) for path in images]))
    assert len({view.affine.tobytes() for view in drawn}) == 10  # no two views alike
    for view in (1, 2):
        pixels = [
            resample(decode_image(path, SIZE), SIZE, drawn[2 * number + view - 1].affine)
            for number, path in enumerate(images)
        ]
        assert_close(views(features, view), direct(frozen, pixels))
        assert np.abs(views(features, view)[0] - views(features)[0]).max() > 0.01


def test_later_settings_that_are_off_leave_the_key_of_a_view():
    earlier = {
        "horizontal_flip": True,
        "random_crop": 0.8,
        "rotation": 30.0,
        "shear": 0.2,
        "shift": 2.0,  # as the flag gives it
        "vertical_flip": True,
        "zoom": 0.2,
    }
    expected = hashlib.sha256(b"content" + json.dumps(earlier).encode() + b" 3").digest()
    assert cached_view(b"content", 3, AUGMENTATION, SIZE)[0] == expected
    for later in ({"resized_crop": 0.5}, {"grayscale": 0.5}):
        other = Augmentation(shift=2, random_crop=0.8, **later)
        assert cached_view(b"content", 3, other, SIZE)[0] != expected


def test_views_may_lose_their_colors(frozen, images, tmp_path):
    features = cache_features(
        frozen,
        images,
        tmp_path / "cache",
        num_views=2,
        augmentation=Augmentation(**NO_CHANGES, grayscale=1),
    )
    plain = np.stack([read_image(path, SIZE) for path in images])
    luma = np.repeat((plain @ [0.299, 0.587, 0.114])[..., None], 3, axis=3)
    assert_close(views(features), direct(frozen, plain))
    assert_close(views(features, 1), direct(frozen, luma), tolerance=0.01)
    assert np.abs(views(features, 1)[1] - views(features)[1]).max() > 0.05


def test_views_are_the_same_in_every_run(frozen, images, tmp_path):
    options = {"num_views": 3, "augmentation": AUGMENTATION}
    one = cache_features(frozen, images, tmp_path / "one", **options)
    np.random.default_rng(0)
    other = cache_features(frozen, images[::-1], tmp_path / "other", **options)
    for view in range(3):
        first, second = views(one, view), views(other, view)
        assert_close(first, [each[::-1].astype(np.float32) for each in second])


def test_more_views_and_another_augmentation_compute_the_new_ones(
    frozen, images, tmp_path, computed
):
    def cached(num_views, augmentation):
        return cache_features(
            frozen, images, tmp_path / "cache", num_views=num_views, augmentation=augmentation
        )

    cached(1, None)
    cached(2, AUGMENTATION)
    cached(4, AUGMENTATION)
    assert computed == [5, 5, 10]
    mild = cached(2, Augmentation(rotation=5))
    assert computed == [5, 5, 10, 5]
    strong = cached(2, AUGMENTATION)
    assert (mild.rows[:, 0] == strong.rows[:, 0]).all()
    assert (mild.rows[:, 1] != strong.rows[:, 1]).all()
    assert computed == [5, 5, 10, 5]


def test_without_augmentation_all_views_are_the_image(frozen, images, tmp_path, computed):
    features = cache_features(frozen, images, tmp_path / "cache", num_views=3)
    assert computed == [5]
    assert (features.rows == features.rows[:, :1]).all()


# What goes wrong


def test_missing_image(frozen, images, tmp_path, computed):
    paths = [*images, tmp_path / "none.png"]
    with pytest.raises(InputError) as caught:
        cache_features(frozen, paths, tmp_path / "cache")
    assert str(caught.value).startswith(f"{tmp_path / 'none.png'}: ")
    assert computed == []
    features = cache_features(frozen, paths, tmp_path / "cache", num_views=2, skip_broken=True)
    assert features.rows[5].tolist() == [-1, -1]
    assert (features.rows[:5] >= 0).all()


def test_broken_image(frozen, images, tmp_path, monkeypatch, computed):
    monkeypatch.setattr(feature_cache, "BATCH_SIZE", 2)
    images[2].write_bytes(images[2].read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        cache_features(frozen, images, tmp_path / "cache")
    assert str(caught.value).startswith(f"{images[2]}: ")
    options = {"num_views": 2, "augmentation": AUGMENTATION, "skip_broken": True}
    for _ in range(2):  # in the second run, the broken one is all that there is to compute
        features = cache_features(frozen, images, tmp_path / "cache", **options)
        assert features.rows[2].tolist() == [-1, -1]
        whole = [0, 1, 3, 4]
        assert (features.rows[whole] >= 0).all()
        expected = direct(frozen, [read_image(images[number], SIZE) for number in whole])
        assert_close(features.read(np.array(whole), np.zeros(4, int)), expected)


def test_no_whole_image(frozen, tmp_path):
    (tmp_path / "x.png").write_text("no image")
    for paths in ([tmp_path / "x.png"], [tmp_path / "none.png"]):
        with pytest.raises(InputError, match="every image is missing or broken"):
            cache_features(frozen, paths, tmp_path / "cache", skip_broken=True)


def test_interrupted_run_is_gone_on_with(frozen, images, tmp_path, monkeypatch, computed):
    monkeypatch.setattr(feature_cache, "BATCH_SIZE", 2)
    counted = keras.Model.predict_on_batch

    def interrupted(model, batch):
        if len(computed) == 1:
            raise KeyboardInterrupt
        return counted(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "predict_on_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache_features(frozen, images, tmp_path / "cache")
    assert computed == [2]
    features = cache_features(frozen, images, tmp_path / "cache")
    assert computed == [2, 2, 2]  # filled up
    assert_close(views(features), direct(frozen, [read_image(path, SIZE) for path in images]))


def test_full_disk_is_noticed_before_the_work(frozen, images, tmp_path, monkeypatch, computed):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * 82 - 1))
    with pytest.raises(InputError, match="5 more rows"):  # 41 numbers each
        cache_features(frozen, images, tmp_path / "cache")
    assert computed == []
    cache_features(frozen, images[1:], tmp_path / "cache")


# Precision


def test_mixed_precision_is_near_and_kept_apart(frozen, images, tmp_path, computed):
    pixels = np.stack([read_image(path, SIZE) for path in images]).astype(np.float32)
    expected = frozen.predict_on_batch(pixels)  # compiled in float32 by now
    mixed = cache_features(frozen, images, tmp_path / "cache", precision="mixed_bfloat16")
    for one, other in zip(frozen.predict_on_batch(pixels), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    plain = cache_features(frozen, images, tmp_path / "cache")
    assert computed == [5, 5, 5, 5]
    assert_close(views(plain), expected)
    assert_close(views(mixed), expected, tolerance=0.05)  # bfloat16 has 8 bits
    # ... and are no more exact than that: the layers did compute in it.
    assert np.abs(views(mixed)[0] - expected[0]).max() > 2e-3


@pytest.mark.parametrize("fails", [False, True])
def test_precision_of_the_layers_is_put_back(images, tmp_path, monkeypatch, fails):
    frozen = network()
    frozen.get_layer("dense").dtype_policy = keras.DTypePolicy("mixed_float16")
    before = [layer.dtype_policy for layer in frozen.layers]
    during = []

    def predict(model, batch):
        during.extend(layer.dtype_policy.name for layer in model.layers)
        if fails:
            raise KeyboardInterrupt
        return [np.zeros((len(batch), 3, 3, 4)), np.zeros((len(batch), 5))]

    monkeypatch.setattr(keras.Model, "predict_on_batch", predict)
    try:
        cache_features(frozen, images, tmp_path / "cache", precision="mixed_bfloat16")
    except KeyboardInterrupt:
        assert fails
    assert set(during) == {"mixed_bfloat16", "float32"}  # float32 for what ends in unit lengths
    assert [layer.dtype_policy for layer in frozen.layers] == before
    assert [each.name for each in before].count("mixed_float16") == 1


def test_networks_are_traced_once_whatever_the_last_batch_holds(images, tmp_path, monkeypatch):
    """TensorFlow warns of retracing in the log, and each trace of a real network takes seconds."""
    monkeypatch.setattr(feature_cache, "BATCH_SIZE", 2)
    monkeypatch.setattr(feature_embedding, "FEATURES_AT_ONCE", 3)
    traced = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            traced.append(x.shape)
            return x + 0.0

    frozen = network(seed=2)
    frozen = keras.Model(frozen.inputs, [Counting()(each) for each in frozen.outputs])
    traced.clear()
    features = cache_features(frozen, images, tmp_path / "kept")
    assert len(traced) == len(frozen.outputs)
    inputs = [keras.Input(shape) for shape in features.shapes]
    whole = keras.layers.Concatenate()([keras.layers.Flatten()(each) for each in inputs])
    head = keras.Model(inputs, keras.layers.Dense(3)(Counting()(whole)))
    traced.clear()
    with feature_embedding.embedded_features(head, features) as rows:
        assert len(traced) == 1
        expected = head([np.float32(each) for each in views(features)])
        np.testing.assert_allclose(rows, expected, atol=1e-5)


def two_paths(seed=0, *, branch_seed=0):
    """The layers of `network`, and beside them a branch that shares no weights with them."""
    random = {"kernel_initializer": keras.initializers.GlorotNormal(seed=branch_seed)}
    model = network(seed)
    scaled = model.get_layer("scaled").output
    x = keras.layers.Conv2D(3, 4, strides=4, name="branch_conv", **random)(scaled)
    branch = keras.layers.GlobalMaxPooling2D(name="branch_pooled")(x)
    first, second = model.outputs
    return keras.Model(model.input, [first, branch, second])


def test_a_branch_leaves_the_features_of_the_backbone_as_they_are(images, tmp_path, computed):
    cache_features(network(), images, tmp_path / "cache")
    assert computed == [5]
    model = two_paths()
    features = cache_features(model, images, tmp_path / "cache")
    assert computed == [5, 5]
    assert features.shapes == ((3, 3, 4), (3,), (5,))
    assert features.rows.shape == (5, 1) and (features.rows >= 0).all()
    pixels = [read_image(path, SIZE) for path in images]
    assert_close(views(features), direct(model, pixels))
    chosen = features.read(np.array([3, 1]), np.array([0, 0]))
    assert_close(chosen, direct(model, [pixels[3], pixels[1]]))

    relearned = two_paths(branch_seed=1)  # only the branch is computed
    features = cache_features(relearned, images, tmp_path / "cache")
    assert computed == [5, 5, 5] and len(list((tmp_path / "cache").iterdir())) == 3
    assert_close(views(features), direct(relearned, pixels))
    cache_features(network(), images, tmp_path / "cache")
    cache_features(two_paths(), images, tmp_path / "cache")
    assert computed == [5, 5, 5]


def test_an_image_that_broke_has_no_features_in_any_part(images, tmp_path, computed):
    cache_features(network(), images, tmp_path / "cache")
    content = images[2].read_bytes()
    images[2].write_bytes(b"no image")
    model = two_paths()
    features = cache_features(model, images, tmp_path / "cache", skip_broken=True)
    assert (features.rows >= 0).ravel().tolist() == [True, True, False, True, True]
    images[2].write_bytes(content)
    whole = cache_features(model, images, tmp_path / "cache", skip_broken=True)
    assert (whole.rows >= 0).all()
    assert computed == [5, 1, 5, 1]  # the broken image is tried in both parts
