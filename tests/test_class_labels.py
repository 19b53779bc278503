"""Losses of classes take class numbers alone, in eager calls and in `fit`."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_batch_losses import EVERY_LOSS
from test_mining import unit_rows

from deep_ranking import triplet_dataset, write_triplets
from deep_ranking.files import InputError
from deep_ranking.losses import MultiSimilarityLoss, RankingLoss
from deep_ranking.losses.class_labels import class_numbers

CLASS_LOSSES = [loss for loss, _ in EVERY_LOSS]
LAST = 2**24 - 1
NO_CLASS_NUMBERS = {
    "too large": ([0, 0, 1, 1, 2**24 + 1, 2**24], "16777216"),
    "far too large": (np.array([0, 0, 1, 1, 2**33, 2**33]), "8589934592"),
    "negative": ([0, 0, 1, 1, -1, -1], "-1"),
    "fractions": ([0.0, 0, 1, 1, 1.5, 1.25], "1.5"),
    "between -1 and 0": ([0.0, 0, 1, 1, -0.5, -0.25], "-0.25"),
    "not a number": ([0.0, 0, 1, 1, np.nan, np.nan], "nan"),
    "infinite": ([0.0, 0, 1, 1, np.inf, np.inf], "inf"),
}
SAID = (
    "labels must be class numbers, whole and from 0 to 16,777,215, which are exact in float32: "
    "number the classes by np.unique(labels, return_inverse=True)[1], and leave out images without "
    "a class. Received:"
)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
@pytest.mark.parametrize("case", NO_CLASS_NUMBERS)
def test_an_eager_call_refuses_what_is_no_class_number(loss, case):
    labels, shown = NO_CLASS_NUMBERS[case]
    with pytest.raises(InputError) as raised:
        loss()(np.array(labels), unit_rows(0, 6).astype(np.float32))
    assert str(raised.value) == f"{SAID} {shown}"


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "float32", "float64"])
def test_class_numbers_of_any_type_are_the_same(kind):
    rows = unit_rows(0, 6).astype(np.float32)
    labels = np.array([3, 3, 0, 0, 7, 7])
    wanted = float(MultiSimilarityLoss()(labels, rows))
    assert wanted > 0
    assert float(MultiSimilarityLoss()(labels.astype(kind), rows)) == wanted
    assert float(MultiSimilarityLoss()(labels.astype(kind)[:, None], rows)) == wanted
    largest = np.where(labels == 7, LAST, labels)
    assert float(MultiSimilarityLoss()(largest, rows)) == wanted
    truths = float(MultiSimilarityLoss()(labels == 7, rows))
    assert truths == float(MultiSimilarityLoss()((labels == 7).astype(int), rows))


@pytest.mark.parametrize(
    ("kind", "end"),
    [("float16", 2**11), ("bfloat16", 2**8), ("float32", 2**24), ("float64", 2**31)],
)
def test_labels_end_where_their_type_confuses_them(kind, end):
    def cast(number):
        return tf.cast(tf.constant([number], tf.float64), kind)

    numbers, are_right = class_numbers(cast(end - 1))
    assert numbers.numpy().tolist() == [end - 1] and bool(are_right)
    with pytest.raises(InputError, match=f"exact in {kind}.*Received: {end}$"):
        class_numbers(cast(end))


def test_integers_end_where_int32_does():
    for right in (np.int64(2**31 - 1), np.uint32(2**31 - 1)):
        assert class_numbers(np.array([right]))[0].numpy().tolist() == [2**31 - 1]
    for wrong in (np.int64(2**31), np.int64(2**32 + 1), np.uint32(2**31), np.int8(-1)):
        with pytest.raises(InputError, match=f"from 0 to 2,147,483,647: .*Received: {wrong}$"):
            class_numbers(np.array([wrong]))


def test_a_batch_may_be_empty():
    numbers, are_right = class_numbers(np.zeros(0, np.float32))
    assert numbers.shape == (0,) and bool(are_right)


def test_there_is_one_label_a_row():
    rows = unit_rows(0, 6).astype(np.float32)
    one_hot = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    with pytest.raises(InputError, match=r"argmax\. Received: shape \(6, 3\)$"):
        MultiSimilarityLoss()(one_hot, rows)
    with pytest.raises(InputError, match=r"of 6 rows\. Received: 5$"):
        MultiSimilarityLoss()(np.zeros(5), rows)


# In `fit`.


def compiled(loss, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="dense"),
            keras.layers.UnitNormalization(name="unit"),
        ]
    )
    model.compile("sgd", loss=loss, **options)
    return model


def test_fit_refuses_what_is_no_class_number_with_the_same_text():
    rows = unit_rows(0, 6).astype(np.float32)
    model = compiled(MultiSimilarityLoss())
    eager = compiled(MultiSimilarityLoss(), run_eagerly=True)
    before = model.get_weights()[0]
    for case in ("too large", "negative", "fractions"):
        labels, shown = NO_CLASS_NUMBERS[case]
        with pytest.raises(tf.errors.InvalidArgumentError) as raised:
            model.fit(rows, np.array(labels), verbose=0)
        assert f"[{SAID}] [{shown}]" in str(raised.value)
        assert (model.get_weights()[0] == before).all()
        with pytest.raises(InputError) as raised:
            eager.fit(rows, np.array(labels), verbose=0)
        assert str(raised.value) == f"{SAID} {shown}"


@pytest.mark.slow
def test_where_xla_leaves_out_the_check_the_loss_is_nan_and_nothing_is_learned():
    rows = unit_rows(0, 6).astype(np.float32)
    model = compiled(MultiSimilarityLoss(), jit_compile=True)
    before = model.get_weights()[0]
    for case in ("too large", "negative", "fractions"):
        labels = np.array(NO_CLASS_NUMBERS[case][0], np.float32)
        assert np.isnan(model.fit(rows, labels, verbose=0).history["loss"]).all()
        assert (model.get_weights()[0] == before).all()
    right = np.array([0, 0, 1, 1, LAST, LAST], np.float32)
    assert np.isfinite(model.fit(rows, right, verbose=0).history["loss"]).all()
    assert (model.get_weights()[0] != before).any()


ON_TWO_DEVICES = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from deep_ranking import MultiSimilarityLoss
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile("sgd", loss=MultiSimilarityLoss())
rows = np.ones((8, 4), np.float32)
model.fit(rows, np.arange(8) // 2, verbose=0)
try:
    model.fit(rows, np.array([0, 0, 1, 1, 2, 2, -1, -1]), verbose=0)
except tf.errors.InvalidArgumentError as error:
    print("refused", "labels must be class numbers" in str(error))
"""


@pytest.mark.slow
def test_fit_refuses_labels_on_several_devices():
    # In a program of its own, because the devices must be made before TensorFlow starts.
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "refused True"


@pytest.fixture
def triplets(tmp_path):
    """A file of two triplets, of three images."""
    names = ["a.png", "b.png", "c.png"]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (80 * number, 90, 0)).save(tmp_path / name)
    write_triplets(tmp_path / "t.txt", names, [np.array([[0, 1, 2], [2, 1, 0]])])
    return tmp_path / "t.txt"


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": True}])
def test_roles_of_triplets_are_no_classes(triplets, options):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(4, name="dense"),
        ]
    )
    dataset = triplet_dataset(triplets, image_size=8, batch_size=6)
    model.compile("sgd", loss=RankingLoss(), **options)
    assert np.isfinite(model.fit(dataset, shuffle=False, verbose=0).history["loss"]).all()
    for loss in CLASS_LOSSES:
        model.compile("sgd", loss=loss(), **options)
        with pytest.raises(InputError, match="roles of triplet_dataset go with RankingLoss alone"):
            model.fit(dataset, shuffle=False, verbose=0)
