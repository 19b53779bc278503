import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mining import LABELS, naive_distances, naive_weights, unit_rows

from deep_ranking.config import MININGS, LossConfig
from deep_ranking.files import InputError
from deep_ranking.losses import (
    BatchRankingLoss,
    MultiSimilarityLoss,
    RankingLoss,
    SoftMarginLoss,
    SupervisedContrastiveLoss,
    make_loss,
    make_metrics,
)
from deep_ranking.losses.batch import CrossBatchMemory
from deep_ranking.losses.monitoring import QUANTITIES, ClassTripletMetric, TripletMetric


def naive_ranking(rows, labels, references, reference_labels, **options):
    """Mean of the hinges by the weights, triplet by triplet."""
    gap, clip = options.get("gap", 1.0), options.get("clip", False)
    if clip:
        rows, references = (np.clip(each, 1e-7, 1 - 1e-7) for each in (rows, references))
    distances = naive_distances(rows, references)
    mining = options.get("mining", "all")
    weights = naive_weights(distances, labels, reference_labels, mining, rows.shape[1])
    if options.get("distance") == "squared":
        distances = distances**2
    hinged = unhinged = 0.0
    for q, p, n in np.argwhere(weights):
        lag = gap + distances[q, p] - distances[q, n]
        hinged += weights[q, p, n] * max(0.0, lag)
        unhinged += weights[q, p, n] * lag
    if not weights.any():
        return 0.0
    if options.get("hinge") == "batch":
        return max(0.0, unhinged / weights.sum())
    return hinged / weights.sum()


def pairs_of(rows, labels, references, reference_labels):
    """Similarities of each query to its positives and to its negatives."""
    for q, row in enumerate(rows):
        kept = [r for r in range(len(references)) if r != q and reference_labels[r] >= 0]
        yield (
            [row @ references[r] for r in kept if reference_labels[r] == labels[q]],
            [row @ references[r] for r in kept if reference_labels[r] != labels[q]],
        )


def naive_soft_margin(*batch, temperature=0.1):
    terms = [
        np.log(1 + sum(np.exp((n - p) / temperature) for n in negatives))
        for positives, negatives in pairs_of(*batch)
        for p in positives
    ]
    return np.mean(terms) if terms else 0.0


def naive_contrastive(*batch, temperature=0.1):
    terms = [
        -np.log(
            np.exp(p / temperature) / sum(np.exp(a / temperature) for a in positives + negatives)
        )
        for positives, negatives in pairs_of(*batch)
        for p in positives
    ]
    return np.mean(terms) if terms else 0.0


def naive_multi_similarity(*batch, temperature=0.1):
    terms, beta = [], 1 / temperature
    for positives, negatives in pairs_of(*batch):
        if not positives or not negatives:
            terms.append(0.0)
            continue
        pull = [p for p in positives if p < max(negatives) + 0.1]
        push = [n for n in negatives if n > min(positives) - 0.1]
        terms.append(
            np.log(1 + sum(np.exp(-2 * (p - 0.5)) for p in pull)) / 2
            + np.log(1 + sum(np.exp(beta * (n - 0.5)) for n in push)) / beta
        )
    return np.mean(terms)


SIMILARITY_LOSSES = [
    (SoftMarginLoss, naive_soft_margin),
    (SupervisedContrastiveLoss, naive_contrastive),
    (MultiSimilarityLoss, naive_multi_similarity),
]
EVERY_LOSS = [(BatchRankingLoss, naive_ranking), *SIMILARITY_LOSSES]


def value_of(loss, rows, labels):
    return float(loss(np.array(labels), rows.astype(np.float32)))


def clustered_rows(seed, labels=LABELS, dim=4):
    """Rows of a class lie together, but not so near that nothing is left to learn."""
    centres = unit_rows(seed + 100, max(labels) + 1, dim)
    rows = centres[labels] + 0.7 * unit_rows(seed, len(labels), dim)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def gradient_of(loss, rows, labels):
    embeddings = tf.Variable(rows.astype(np.float32))
    with tf.GradientTape() as tape:
        value = loss(tf.constant(labels), embeddings)
    gradient = tape.gradient(value, embeddings)
    return np.zeros_like(rows) if gradient is None else np.array(gradient)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distance": "squared", "gap": 0.3},
        {"hinge": "batch"},
        {"clip": True, "hinge": "batch", "distance": "squared"},
    ],
)
def test_ranking_equals_a_loop(mining, options):
    options = {"gap": 0.2, **options, "mining": mining}
    rows = clustered_rows(1)
    got = value_of(BatchRankingLoss(**options), rows, LABELS)
    assert got == pytest.approx(naive_ranking(rows, LABELS, rows, LABELS, **options), abs=1e-5)
    # The data tells the variants apart: some of the mined triplets are active and some are not.
    distances = naive_distances(rows, rows)
    triplets = np.argwhere(naive_weights(distances, LABELS, LABELS, mining, 4))
    active = [0.2 + distances[q, p] > distances[q, n] for q, p, n in triplets]
    assert any(active) and not all(active)


@pytest.mark.parametrize("temperature", [0.05, 0.4])
@pytest.mark.parametrize(("loss", "naive"), SIMILARITY_LOSSES)
def test_similarity_losses_equal_a_loop(loss, naive, temperature):
    rows = clustered_rows(2)
    rows[7] = rows[6]  # a near-duplicate
    rows[7, 0] += 1e-9
    got = value_of(loss(temperature), rows, LABELS)
    wanted = naive(rows, LABELS, rows, LABELS, temperature=temperature)
    assert wanted > 0.01
    assert got == pytest.approx(wanted, rel=1e-5)


def test_the_data_tells_whether_pairs_are_mined():
    rows = clustered_rows(2)
    dropped = [0, 0]
    for positives, negatives in pairs_of(rows, LABELS, rows, LABELS):
        if positives:
            dropped[0] += sum(p >= max(negatives) + 0.1 for p in positives)
            dropped[1] += sum(n <= min(positives) - 0.1 for n in negatives)
    assert min(dropped) > 0


# Three images in the plane: a query (1, 0), its positive (0.6, 0.8), a negative (0, 1).
HAND_ROWS = np.array([[1, 0], [0.6, 0.8], [0, 1]])
HAND_LABELS = [3, 3, 8]


def test_hand_case_of_ranking():
    # D(0, 1) = sqrt(0.16 + 0.64) = 0.8944, D(0, 2) = sqrt 2 = 1.4142, D(1, 2) = sqrt(0.4) = 0.6325.
    # Query 0: max(0, 0.3 + 0.8944 - 1.4142) = 0; query 1: 0.3 + 0.8944 - 0.6325 = 0.5620.
    assert value_of(BatchRankingLoss(0.3), HAND_ROWS, HAND_LABELS) == pytest.approx(
        0.2810, abs=1e-4
    )
    # One hinge: (-0.2198 + 0.5620) / 2. Squared: 0.3 + 0.8 - 2 < 0 and 0.3 + 0.8 - 0.4 = 0.7.
    batch = BatchRankingLoss(0.3, hinge="batch")
    assert value_of(batch, HAND_ROWS, HAND_LABELS) == pytest.approx(0.1711, abs=1e-4)
    squared = BatchRankingLoss(0.3, distance="squared")
    assert value_of(squared, HAND_ROWS, HAND_LABELS) == pytest.approx(0.35, abs=1e-5)


def test_hand_case_of_similarities():
    # s(0, 1) = 0.6, s(0, 2) = 0, s(1, 2) = 0.8; temperature 0.5.
    # Soft margin: log(1 + e^-1.2) = 0.2633 and log(1 + e^0.4) = 0.9130, mean 0.5882. With a
    # single positive, supervised contrastive is the same.
    for loss in (SoftMarginLoss(0.5), SupervisedContrastiveLoss(0.5)):
        assert value_of(loss, HAND_ROWS, HAND_LABELS) == pytest.approx(0.5882, abs=1e-4)
    # Multi-similarity: query 0 drops both pairs, as 0 <= 0.6 - 0.1. Query 1, beta = 2:
    # log(1 + e^(-2 * 0.1)) / 2 + log(1 + e^(2 * 0.3)) / 2 = 0.2991 + 0.5187. Query 2: no positive.
    loss = MultiSimilarityLoss(0.5)
    assert value_of(loss, HAND_ROWS, HAND_LABELS) == pytest.approx(0.8178 / 3, abs=1e-4)


def test_positives_alone_compete_in_the_contrastive_loss():
    # Each query has two positives of similarity 1: log(e^1 + e^1) - 1 = log 2.
    rows = np.ones((3, 1))
    assert value_of(SupervisedContrastiveLoss(1.0), rows, [0] * 3) == pytest.approx(np.log(2))
    assert value_of(SoftMarginLoss(1.0), rows, [0] * 3) == 0


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (loss, labels)
        for loss, _ in EVERY_LOSS
        for labels in ([0, 1, 2, 3], [0, 0, 0, 0], [5])
        # Positives alone compete with each other in this one.
        if loss is not SupervisedContrastiveLoss or labels != [0, 0, 0, 0]
    ],
)
def test_nothing_to_compare_is_a_loss_of_0(loss, labels):
    rows = unit_rows(3, len(labels))
    assert value_of(loss(), rows, labels) == 0
    assert not gradient_of(loss(), rows, labels).any()


@pytest.mark.parametrize("hinge", ["triplet", "batch"])
@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("mining", MININGS)
def test_ranking_gradient_is_finite_where_rows_meet(mining, distance, hinge):
    rows = unit_rows(4).astype(np.float32)
    rows[1] = rows[0]
    rows[4] = rows[3]
    rows[4, 0] += 1e-7
    rows[6] = rows[0]  # a negative that equals its query
    loss = BatchRankingLoss(distance=distance, hinge=hinge, mining=mining)
    gradient = gradient_of(loss, rows, LABELS)
    assert np.isfinite(gradient).all()
    assert 1e-3 < np.abs(gradient).max() < 10


@pytest.mark.parametrize("loss", [each for each, _ in SIMILARITY_LOSSES])
def test_similarity_gradient_is_finite_at_tiny_temperatures(loss):
    rows = clustered_rows(5)
    rows[1] = rows[0]
    assert np.isfinite(value_of(loss(1e-4), rows, LABELS))
    gradient = gradient_of(loss(1e-4), rows, LABELS)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize(("loss", "naive"), EVERY_LOSS)
def test_gradient_equals_differences(loss, naive):
    rows = clustered_rows(6)
    gradient = gradient_of(loss(), rows, LABELS)
    for index in [(0, 0), (3, 2), (5, 1), (9, 3)]:
        up, down = rows.copy(), rows.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        slope = (naive(up, LABELS, up, LABELS) - naive(down, LABELS, down, LABELS)) / 2e-6
        assert gradient[index] == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("loss", [each for each, _ in EVERY_LOSS])
@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_is_never_negative_and_turns_with_neither_space_nor_order(loss, seed):
    rows = unit_rows(seed)
    value = value_of(loss(), rows, LABELS)
    assert value >= 0
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))
    assert value_of(loss(), rows @ turn, LABELS) == pytest.approx(value, rel=1e-4, abs=1e-5)
    order = np.random.default_rng(seed).permutation(len(LABELS))
    shuffled = value_of(loss(), rows[order], np.array(LABELS)[order])
    assert shuffled == pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("row", [4, 5])  # a positive of another, and a negative alone
def test_a_nan_is_not_hidden(row):
    rows = unit_rows(7)
    rows[row] = np.nan
    for loss, _ in EVERY_LOSS:
        assert np.isnan(value_of(loss(), rows, LABELS))


# Memory.


def test_memory_keeps_the_latest_rows_in_order():
    memory = CrossBatchMemory(4, 2)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    assert memory.labels.numpy().tolist() == [-1] * 4
    memory.remember(rows[:3], np.arange(3))
    assert memory.labels.numpy().tolist() == [-1, 0, 1, 2]
    memory.remember(rows[3:5], np.arange(3, 5))
    assert memory.labels.numpy().tolist() == [1, 2, 3, 4]
    assert memory.embeddings.numpy().tolist() == rows[1:5].tolist()
    memory.remember(rows[5:], np.arange(5, 10))  # more than it holds
    assert memory.labels.numpy().tolist() == [6, 7, 8, 9]
    assert memory.embeddings.numpy().tolist() == rows[6:].tolist()
    references, labels = memory.references_for(keras.ops.zeros((1, 2)), keras.ops.array([3]))
    assert np.array(labels).tolist() == [3, 6, 7, 8, 9]
    assert np.array(references).tolist() == [[0, 0], *rows[6:].tolist()]
    memory.reset()
    assert memory.labels.numpy().tolist() == [-1] * 4
    assert not memory.embeddings.numpy().any()


@pytest.mark.parametrize(("loss", "naive"), EVERY_LOSS)
def test_memory_adds_references(loss, naive):
    remembering = loss(memory=7, embedding_size=4)
    # Batches of different size, as the last one of an epoch is.
    batches = [
        (clustered_rows(i, labels), labels)
        for i, labels in enumerate([[0, 1, 1], [2, 0, 0, 1, 2], [4, 4], [1, 0, 2]])
    ]
    seen, seen_labels = np.zeros((0, 4)), []
    for rows, labels in batches:
        references = np.concatenate([rows, seen[-7:]])
        reference_labels = labels + seen_labels[-7:]
        wanted = naive(rows, labels, references, reference_labels)
        assert value_of(remembering, rows, labels) == pytest.approx(wanted, abs=1e-5, rel=1e-4)
        seen, seen_labels = np.concatenate([seen, rows]), seen_labels + labels
    rows, labels = batches[0]
    alone = value_of(loss(), rows, labels)
    assert wanted != pytest.approx(alone, abs=1e-3)
    remembering.memory.reset()
    assert value_of(remembering, rows, labels) == pytest.approx(alone, abs=1e-6)


def test_memory_has_no_gradient_but_gives_one():
    # The batch alone has no triplet: all comes of what is kept.
    loss = BatchRankingLoss(memory=3, embedding_size=2)
    value_of(loss, HAND_ROWS[[0, 2]], [3, 8])
    gradient = gradient_of(loss, HAND_ROWS[[1]], [3])
    # Positive (1, 0) at 0.8944 = sqrt 0.8, negative (0, 1) at 0.6325 = sqrt 0.4, lag 1.2620 > 0:
    # (-0.4, 0.8) / 0.8944 - (0.6, -0.2) / 0.6325.
    assert gradient[0] == pytest.approx([-1.3958, 1.2106], abs=1e-3)
    assert not loss.memory.embeddings.trainable


@pytest.mark.parametrize(
    "loss",
    [
        BatchRankingLoss,
        *(pytest.param(each, marks=pytest.mark.slow) for each, _ in SIMILARITY_LOSSES),
    ],
)
def test_trains_anybodys_model_with_batches_of_different_size(loss):
    labels = np.array([0, 1, 1, 2, 0, 0, 2, 1, 1, 0])
    rows = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)

    def batches():
        for begin, end in [(0, 3), (3, 9), (9, 10)]:
            yield rows[begin:end], labels[begin:end]

    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, name="dense"),
            keras.layers.UnitNormalization(name="unit"),
        ]
    )
    remembering = loss(memory=8, embedding_size=4)
    model.compile("sgd", loss=remembering, metrics=[ClassTripletMetric("active_triplets")])
    data = tf.data.Dataset.from_generator(
        batches,
        output_signature=(tf.TensorSpec((None, 5)), tf.TensorSpec((None,), tf.int64)),
    ).apply(tf.data.experimental.assert_cardinality(3))
    before = model.get_weights()[0]
    history = model.fit(data, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["active_triplets"][0] > 0
    assert np.abs(model.get_weights()[0] - before).max() > 0
    assert remembering.memory.labels.numpy().tolist() == labels[2:].tolist()
    # The last row is what the model gave before its last step: no longer what it gives now.
    kept = remembering.memory.embeddings.numpy()
    assert np.linalg.norm(kept, axis=1) == pytest.approx(np.ones(8), abs=1e-5)


# Metrics.


def measure(quantity, batches, **options):
    metric = ClassTripletMetric(quantity, **options)
    for rows, labels in batches:
        metric.update_state(np.array(labels), rows.astype(np.float32))
    return float(metric.result())


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
def test_metrics_equal_a_loop_over_all_triplets_of_all_batches(distance):
    first, second = LABELS, [1, 1, 0]
    batches = [
        (unit_rows(8), first),
        (unit_rows(9, 3), second),
        (unit_rows(10, 2), [4, 4]),  # one pair, and no triplet
        (unit_rows(11, 1), [7]),  # nothing
    ]
    found = {name: [] for name in QUANTITIES}
    for rows, labels in batches:
        distances = naive_distances(rows, rows)
        if distance == "squared":
            distances = distances**2
        for q, a in np.ndindex(distances.shape):
            if q != a:
                kind = "positive" if labels[q] == labels[a] else "negative"
                found[f"{kind}_distance"].append(distances[q, a])
        for q, p, n in np.argwhere(naive_weights(distances, labels, labels, "all", 4)):
            found["active_triplets"].append(0.2 + distances[q, p] > distances[q, n])
            found["similarity_precision"].append(distances[q, p] < distances[q, n])
    for name, values in found.items():
        got = measure(name, batches, gap=0.2, distance=distance)
        assert got == pytest.approx(np.mean(values), abs=1e-5), name
    assert 0.1 < np.mean(found["active_triplets"]) < 0.9


def test_hand_case_of_metrics():
    # As in the hand case of the loss: query 0 is right and its triplet not active, query 1 is not.
    batch = [(HAND_ROWS, HAND_LABELS)]
    assert measure("active_triplets", batch, gap=0.3) == 0.5
    assert measure("similarity_precision", batch) == 0.5
    assert measure("positive_distance", batch) == pytest.approx(0.8944, abs=1e-4)
    assert measure("negative_distance", batch) == pytest.approx(1.0233, abs=1e-4)


def test_a_tie_is_no_precision():
    batch = [(np.ones((4, 3)), [0, 0, 1, 1])]
    assert measure("similarity_precision", batch) == 0
    assert measure("active_triplets", batch) == 1
    assert measure("similarity_precision", [(np.ones((1, 3)), [0])]) == 0  # nothing to count


# Choice, and arguments.


@pytest.mark.parametrize("loss", [each for each, _ in EVERY_LOSS])
def test_losses_come_back_from_their_config(loss):
    options = (
        {"gap": 0.3, "mining": "hard", "clip": True}
        if loss is BatchRankingLoss
        else {"temperature": 0.3}
    )
    made = loss(**options, memory=5, embedding_size=4)
    again = keras.losses.deserialize(keras.losses.serialize(made))
    assert type(again) is loss
    assert again.get_config() == made.get_config()
    assert made.get_config().items() >= {**options, "memory": 5, "embedding_size": 4}.items()
    assert again.memory.labels.numpy().tolist() == [-1] * 5
    assert loss().memory is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ranking", BatchRankingLoss),
        ("soft_margin", SoftMarginLoss),
        ("supervised_contrastive", SupervisedContrastiveLoss),
        ("multi_similarity", MultiSimilarityLoss),
    ],
)
def test_the_settings_choose_the_loss(name, wanted):
    config = LossConfig(
        loss=name, gap=0.3, distance="squared", hinge="batch", clip=True, mining="hard",
        temperature=0.3, memory=6,
    )  # fmt: skip
    made = make_loss(config, "classes", 12)
    assert type(made) is wanted
    settings_of = made.get_config()
    assert settings_of["memory"] == 6 and settings_of["embedding_size"] == 12
    for field in ("gap", "distance", "hinge", "clip", "mining", "temperature"):
        assert settings_of.get(field, getattr(config, field)) == getattr(config, field)
    if name == "ranking":
        triplets = make_loss(config, "triplets", 12)
        assert type(triplets) is RankingLoss
        assert triplets.get_config().items() >= {"gap": 0.3, "hinge": "batch"}.items()
    else:
        with pytest.raises(InputError, match=f"{name} needs batches of classes"):
            make_loss(config, "triplets", 12)


@pytest.mark.parametrize(
    ("batches", "kind"), [("classes", ClassTripletMetric), ("triplets", TripletMetric)]
)
def test_the_settings_choose_the_metrics(batches, kind):
    metrics = make_metrics(LossConfig(gap=0.3, distance="squared"), batches)
    assert [metric.name for metric in metrics] == list(QUANTITIES)
    for metric in metrics:
        assert type(metric) is kind
        assert (metric.gap, metric.distance) == (0.3, "squared")
        assert type(keras.metrics.deserialize(keras.metrics.serialize(metric))) is kind


@pytest.mark.parametrize(
    ("loss", "arguments", "named"),
    [
        (BatchRankingLoss, {"gap": 0}, "gap=0"),
        (BatchRankingLoss, {"distance": "cosine"}, "cosine"),
        (BatchRankingLoss, {"hinge": "soft"}, "soft"),
        (BatchRankingLoss, {"mining": "easy"}, "Received: easy"),
        (SoftMarginLoss, {"temperature": 0}, "temperature=0"),
        (MultiSimilarityLoss, {"temperature": float("nan")}, "temperature=nan"),
        (SupervisedContrastiveLoss, {"memory": -1}, "memory=-1"),
        (BatchRankingLoss, {"memory": 5}, "embedding_size=None"),
        (BatchRankingLoss, {"memory": 5, "embedding_size": 0}, "dim=0"),
        (CrossBatchMemory, {"size": 0, "dim": 3}, "size=0"),
    ],
)
def test_refuses_arguments_by_name(loss, arguments, named):
    with pytest.raises(InputError, match=named):
        loss(**arguments)


# Degrees of the distance other than 2.

NORMS = (1, 1.5, 3, 20)


def naive_norm_distances(rows, references, norm):
    return np.array(
        [[(np.abs(a - b) ** norm).sum() ** (1 / norm) for b in references] for a in rows]
    )


@pytest.mark.parametrize("mining", ["all", "semi-hard", "hard"])
@pytest.mark.parametrize("norm", NORMS)
def test_ranking_in_other_norms_equals_a_loop(norm, mining):
    rows = clustered_rows(1)

    def naive(degree):
        distances = naive_norm_distances(rows, rows, degree)
        weights = naive_weights(distances, LABELS, LABELS, mining, 4)
        lags = 0.2 + distances[:, :, None] - distances[:, None, :]
        return (weights * np.maximum(0.0, lags)).sum() / weights.sum()

    got = value_of(BatchRankingLoss(0.2, norm=norm, mining=mining), rows, LABELS)
    assert got == pytest.approx(naive(norm), abs=1e-5)
    assert got != pytest.approx(naive(2), abs=1e-4)


def test_norms_choose_other_triplets():
    # By norm 1 row 2 is nearer to row 0 than row 3 is (1.2 to 1.4), by norm 3 further (1.2 to 0.9).
    rows = np.array([[0, 0], [0.1, 0], [1.2, 0], [0.7, 0.7]])
    losses = [
        value_of(BatchRankingLoss(2.0, norm=norm, mining="hard"), rows, [0, 0, 1, 1])
        for norm in (1, 3)
    ]
    hand = []
    for norm in (1, 3):
        d = naive_norm_distances(rows, rows, norm)
        nearest = [min(d[q, n] for n in ((2, 3) if q < 2 else (0, 1))) for q in range(4)]
        hand.append(np.mean([2 + d[q, q ^ 1] - nearest[q] for q in range(4)]))
    assert losses == pytest.approx(hand, abs=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_memory_in_another_norm(norm):
    loss = BatchRankingLoss(norm=norm, memory=3, embedding_size=2)
    value_of(loss, HAND_ROWS[[0, 2]], [3, 8])
    d = naive_norm_distances(HAND_ROWS[[1]], HAND_ROWS[[0, 2]], norm)[0]
    got = value_of(loss, HAND_ROWS[[1]], [3])
    assert got == pytest.approx(1 + d[0] - d[1], abs=1e-5)


@pytest.mark.parametrize("mining", ["all", "semi-hard", "hard"])
@pytest.mark.parametrize("norm", NORMS)
def test_ranking_gradient_in_other_norms_is_finite_where_rows_meet(norm, mining):
    rows = unit_rows(4).astype(np.float32)
    rows[1] = rows[0]
    rows[4] = rows[3]
    rows[4, 0] += 1e-7
    rows[6] = rows[0]
    gradient = gradient_of(BatchRankingLoss(norm=norm, mining=mining), rows, LABELS)
    assert np.isfinite(gradient).all()
    assert 1e-3 < np.abs(gradient).max() < 10


@pytest.mark.parametrize("norm", NORMS)
def test_metrics_in_other_norms_equal_a_loop(norm):
    rows = unit_rows(8)
    distances = naive_norm_distances(rows, rows, norm)
    labels = np.array(LABELS)
    same = (labels[:, None] == labels) & ~np.eye(10, dtype=bool)
    triplets = np.argwhere(naive_weights(distances, LABELS, LABELS, "all", 4))
    leads = np.array([distances[q, n] - distances[q, p] for q, p, n in triplets])
    wanted = {
        "positive_distance": distances[same].mean(),
        "negative_distance": distances[labels[:, None] != labels].mean(),
        "active_triplets": (leads < 0.2).mean(),
        "similarity_precision": (leads > 0).mean(),
    }
    for name, value in wanted.items():
        got = measure(name, [(rows, LABELS)], gap=0.2, norm=norm)
        assert got == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("batches", ["classes", "triplets"])
def test_the_settings_choose_the_norm(batches):
    config = LossConfig(distance_norm=3)
    assert make_loss(config, batches, 4).norm == 3
    assert [metric.norm for metric in make_metrics(config, batches)] == [3] * 4
    assert make_loss(LossConfig(), batches, 4).norm == 2


def test_norm_and_mining_that_do_not_go_together_are_refused():
    with pytest.raises(
        InputError, match=r"mining distance-weighted.*distance_norm must be 2\. Received: 3"
    ):
        LossConfig(mining="distance-weighted", distance_norm=3)
    with pytest.raises(InputError, match="norm"):
        BatchRankingLoss(mining="distance-weighted", norm=3)
    with pytest.raises(InputError, match="distance_norm"):
        LossConfig(distance="squared", distance_norm=3)
    for norm in (0.99, float("nan"), float("inf")):
        with pytest.raises(InputError, match="distance_norm"):
            LossConfig(distance_norm=norm)
    LossConfig(mining="distance-weighted", distance_norm=2)


def test_the_norm_comes_back_from_the_config():
    for made in (BatchRankingLoss(norm=3), ClassTripletMetric("active_triplets", norm=3)):
        assert type(made).from_config(made.get_config()).norm == 3
