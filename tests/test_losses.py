import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_ranking.files import InputError
from deep_ranking.losses import RankingLoss
from deep_ranking.losses.distances import row_triplet_distances
from deep_ranking.losses.monitoring import QUANTITIES, ClassTripletMetric, TripletMetric


def unit_rows(seed, triplets, dim=5):
    rows = np.random.default_rng(seed).normal(size=(3 * triplets, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def naive_loss(rows, *, gap, distance="euclidean", hinge="triplet", clip=False):
    """The formula, or the blog's code, in plain loops."""
    if clip:
        rows = np.clip(rows, 1e-7, 1 - 1e-7)
    lags = []
    for begin in range(0, len(rows), 3):
        query, positive, negative = rows[begin : begin + 3].astype(np.float64)
        to_positive = np.sqrt(((query - positive) ** 2).sum())
        to_negative = np.sqrt(((query - negative) ** 2).sum())
        if distance == "squared":
            to_positive, to_negative = to_positive**2, to_negative**2
        lags.append(gap + to_positive - to_negative)
    if hinge == "batch":
        return max(0.0, np.mean(lags))
    return np.mean([max(0.0, lag) for lag in lags])


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("hinge", ["triplet", "batch"])
@pytest.mark.parametrize("distance", ["euclidean", "squared"])
def test_equals_a_loop(distance, hinge, clip):
    rows = unit_rows(1, 7)
    options = {"gap": 0.2, "distance": distance, "hinge": hinge, "clip": clip}
    got = float(RankingLoss(**options)(np.zeros(21), rows))
    assert got == pytest.approx(naive_loss(rows, **options), abs=1e-6)
    # The data tells the variants apart: some triplets are active and some are not.
    active = [naive_loss(rows[i : i + 3], gap=0.2) > 0 for i in range(0, 21, 3)]
    assert any(active) and not all(active)


def test_hand_case():
    # Triplet 1: D(q,p) = 3, D(q,n) = 5, so 1 + 3 - 5 < 0: not active.
    # Triplet 2: D(q,p) = 5, D(q,n) = 4, so 1 + 5 - 4 = 2.
    rows = np.array([[0, 0], [3, 0], [3, 4], [0, 0], [3, 4], [0, 4]], np.float32)
    labels = np.zeros(6)
    assert float(RankingLoss()(labels, rows)) == pytest.approx(1.0)  # (0 + 2) / 2
    assert float(RankingLoss(hinge="batch")(labels, rows)) == pytest.approx(0.5)  # (-1 + 2) / 2
    # Squared: 1 + 9 - 25 < 0 and 1 + 25 - 16 = 10.
    assert float(RankingLoss(distance="squared")(labels, rows)) == pytest.approx(5.0)
    values = {name: TripletMetric(name) for name in QUANTITIES}
    for metric in values.values():
        metric.update_state(labels, rows)
    assert float(values["active_triplets"].result()) == pytest.approx(0.5)
    assert float(values["positive_distance"].result()) == pytest.approx(4.0)
    assert float(values["negative_distance"].result()) == pytest.approx(4.5)
    assert float(values["similarity_precision"].result()) == pytest.approx(0.5)


def test_metrics_average_over_triplets_not_batches():
    metric = TripletMetric("positive_distance")
    first, second = unit_rows(2, 5), unit_rows(3, 1)
    metric.update_state(None, first)
    metric.update_state(None, second)
    whole = np.concatenate([first, second])
    wanted = np.linalg.norm(whole[0::3] - whole[1::3], axis=1).mean()
    assert float(metric.result()) == pytest.approx(wanted, abs=1e-6)


def test_active_triplets_are_those_of_the_clipped_loss():
    """Opposite of the query: far apart, but not after negative coordinates became 0."""
    rows = np.array([[1, 0, 0], [1, 0, 0], [-1, 0, 0]], np.float32)
    for clip, wanted in ((False, 0.0), (True, 1.0)):
        metric = TripletMetric("active_triplets", gap=1.5, clip=clip)
        metric.update_state(None, rows)
        assert float(metric.result()) == wanted
        assert (float(RankingLoss(1.5, clip=clip)(np.zeros(3), rows)) > 0) == bool(wanted)
        of_classes = ClassTripletMetric("active_triplets", gap=1.5, clip=clip)
        of_classes.update_state(np.array([0, 0, 1]), rows)
        assert float(of_classes.result()) == wanted
        distance = TripletMetric("negative_distance", gap=1.5, clip=clip)
        distance.update_state(None, rows)
        assert float(distance.result()) == 2  # as `compare` measures it


def test_a_tie_is_no_precision():
    metric = TripletMetric("similarity_precision")
    metric.update_state(None, np.ones((3, 4), np.float32))
    assert float(metric.result()) == 0


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("hinge", ["triplet", "batch"])
@pytest.mark.parametrize("shift", [0.0, 1e-30, 1e-20, 1e-10])
def test_gradient_is_finite_where_query_and_positive_meet(distance, hinge, shift):
    rows = unit_rows(4, 2)
    rows[1] = rows[0]
    rows[1, 0] += shift
    rows[5] = rows[3]  # a query that equals its negative
    embeddings = tf.Variable(rows)
    with tf.GradientTape() as tape:
        loss = RankingLoss(distance=distance, hinge=hinge)(tf.zeros(6), embeddings)
    gradient = tape.gradient(loss, embeddings).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_a_nan_is_not_hidden():
    rows = unit_rows(6, 2)
    rows[4] = np.nan
    assert np.isnan(float(RankingLoss()(np.zeros(6), rows)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(0.01, 5))
def test_is_never_negative_and_does_not_turn_with_the_space(seed, triplets, gap):
    rows = unit_rows(seed, triplets)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))
    loss = RankingLoss(gap=gap)
    value = float(loss(np.zeros(len(rows)), rows))
    assert value >= 0
    turned = (rows @ turn).astype(np.float32)
    assert float(loss(np.zeros(len(rows)), turned)) == pytest.approx(value, abs=1e-5)


def test_trains_anybodys_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    model.compile("sgd", loss=RankingLoss(gap=0.5), metrics=[TripletMetric("active_triplets")])
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    before = model.get_weights()[0]
    history = model.fit(rows, np.zeros(12), batch_size=6, shuffle=False, verbose=0).history
    assert history["active_triplets"][0] > 0
    assert np.abs(model.get_weights()[0] - before).max() > 0


def test_loss_and_metric_come_back_from_their_config():
    loss = RankingLoss(gap=0.3, distance="squared", hinge="batch", clip=True)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    metric = TripletMetric("negative_distance", gap=0.3, distance="squared", clip=True)
    assert metric.get_config()["clip"]
    assert TripletMetric.from_config(metric.get_config()).get_config() == metric.get_config()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"gap": 0}, "gap"),
        ({"gap": float("nan")}, "gap"),
        ({"distance": "cosine"}, "cosine"),
        ({"hinge": "soft"}, "soft"),
    ],
)
def test_refuses_arguments_by_name(arguments, named):
    with pytest.raises(InputError, match=named):
        RankingLoss(**arguments)


def test_refuses_rows_that_are_no_triplets():
    with pytest.raises(ValueError, match="Received: 4 rows"):
        row_triplet_distances(np.zeros((4, 2), np.float32))


# Degrees of the distance other than 2.

NORMS = (1, 1.5, 3, 20)


def naive_norm_loss(rows, *, gap, norm, hinge="triplet"):
    lags = []
    for begin in range(0, len(rows), 3):
        query, positive, negative = rows[begin : begin + 3].astype(np.float64)
        to_positive = (np.abs(query - positive) ** norm).sum() ** (1 / norm)
        to_negative = (np.abs(query - negative) ** norm).sum() ** (1 / norm)
        lags.append(gap + to_positive - to_negative)
    return max(0.0, np.mean(lags)) if hinge == "batch" else np.mean(np.maximum(0.0, lags))


@pytest.mark.parametrize("hinge", ["triplet", "batch"])
@pytest.mark.parametrize("norm", NORMS)
def test_other_norms_equal_a_loop(norm, hinge):
    rows = unit_rows(8, 7)
    got = float(RankingLoss(gap=0.5, norm=norm, hinge=hinge)(np.zeros(21), rows))
    assert got == pytest.approx(naive_norm_loss(rows, gap=0.5, norm=norm, hinge=hinge), abs=1e-5)
    assert got != pytest.approx(naive_norm_loss(rows, gap=0.5, norm=2, hinge=hinge), abs=1e-4)


def test_hand_case_of_norms():
    # Query (0, 0), positive (3, 4), negative (6, 0).
    rows = np.array([[0, 0], [3, 4], [6, 0]], np.float32)
    for norm, positive in ((1, 7), (2, 5), (3, 91 ** (1 / 3))):
        loss = float(RankingLoss(gap=2.0, norm=norm)(np.zeros(3), rows))
        assert loss == pytest.approx(2 + positive - 6, abs=1e-5)
        found = {}
        for name in QUANTITIES:
            metric = TripletMetric(name, gap=2.0, norm=norm)
            metric.update_state(None, rows)
            found[name] = float(metric.result())
        assert found["positive_distance"] == pytest.approx(positive, abs=1e-5)
        assert found["negative_distance"] == pytest.approx(6, abs=1e-5)
        assert found["similarity_precision"] == (positive < 6)
        assert found["active_triplets"] == 1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shift", [0.0, 1e-30, 1e-20, 1e-10])
def test_gradient_of_other_norms_is_finite_where_rows_meet(norm, shift):
    rows = unit_rows(4, 2)
    rows[1] = rows[0]
    rows[1, 0] += shift
    rows[5] = rows[3]
    embeddings = tf.Variable(rows)
    with tf.GradientTape() as tape:
        loss = RankingLoss(norm=norm)(tf.zeros(6), embeddings)
    gradient = tape.gradient(loss, embeddings).numpy()
    assert np.isfinite(gradient).all()
    assert 1e-3 < np.abs(gradient).max() < 10
    positive, _ = row_triplet_distances(rows, norm=norm)
    assert float(positive[0]) == pytest.approx(abs(float(rows[1, 0]) - float(rows[0, 0])), rel=1e-3)


@pytest.mark.parametrize("norm", [2, *NORMS])
def test_gradient_equals_differences(norm):
    rows = unit_rows(5, 3).astype(np.float64)
    loss = RankingLoss(gap=0.9, norm=norm, dtype="float64")
    embeddings = tf.Variable(rows)
    with tf.GradientTape() as tape:
        value = loss(tf.zeros(9), embeddings)
    gradient = tape.gradient(value, embeddings).numpy()
    for index in np.ndindex(rows.shape):
        up, down = rows.copy(), rows.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        slope = naive_norm_loss(up, gap=0.9, norm=norm) - naive_norm_loss(down, gap=0.9, norm=norm)
        assert gradient[index] == pytest.approx(slope / 2e-6, abs=1e-5)


def test_norm_2_is_what_there_was_to_the_last_bit():
    rows = unit_rows(9, 7)
    triplets = rows.reshape(7, 3, 5)
    positive, negative = row_triplet_distances(rows, norm=2)
    for got, other in ((positive, 1), (negative, 2)):
        differences = keras.ops.convert_to_tensor(triplets[:, 0] - triplets[:, other])
        wanted = keras.ops.sqrt(keras.ops.sum(keras.ops.square(differences), axis=-1))
        np.testing.assert_array_equal(got, wanted)


def test_a_nan_is_not_hidden_in_another_norm():
    rows = unit_rows(6, 2)
    rows[4] = np.nan
    assert np.isnan(float(RankingLoss(norm=3)(np.zeros(6), rows)))


@pytest.mark.parametrize(
    "arguments",
    [{"norm": 0.9}, {"norm": np.nan}, {"norm": np.inf}, {"norm": 3, "distance": "squared"}],
)
def test_refuses_norms(arguments):
    with pytest.raises(InputError, match="norm"):
        RankingLoss(**arguments)


def test_norm_comes_back_from_the_config():
    loss = RankingLoss(norm=3)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.norm == 3
    assert (
        TripletMetric.from_config(TripletMetric("active_triplets", norm=3).get_config()).norm == 3
    )
