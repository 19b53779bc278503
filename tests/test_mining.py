import keras
import numpy as np
import pytest
import tensorflow as tf

from deep_ranking.config import MININGS
from deep_ranking.files import InputError
from deep_ranking.losses.distances import pairwise_distances
from deep_ranking.losses.mining import label_masks, mined_weights

LABELS = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]  # class 2 has a single image


def unit_rows(seed, rows=10, dim=4):
    values = np.random.default_rng(seed).normal(size=(rows, dim))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def naive_distances(rows, references):
    return np.array([[np.sqrt(sum((a - b) ** 2)) for b in references] for a in rows])


def naive_density(distance, dim):
    distance = max(distance, 0.5)
    return distance ** (dim - 2) * (1 - distance**2 / 4) ** ((dim - 3) / 2)


def naive_weights(distances, labels, reference_labels, mining, dim):
    """The weights triplet by triplet, in plain loops."""
    queries, references = distances.shape
    weights = np.zeros((queries, references, references))
    for q in range(queries):
        kept = [r for r in range(references) if r != q and reference_labels[r] >= 0]
        positives = [r for r in kept if reference_labels[r] == labels[q]]
        negatives = [r for r in kept if reference_labels[r] != labels[q]]
        if not positives or not negatives:
            continue
        if mining == "hard":
            positives = [max(positives, key=lambda r: distances[q, r])]
        for p in positives:
            if mining == "all":
                weights[q, p, negatives] = 1
            elif mining == "hard":
                weights[q, p, min(negatives, key=lambda r: distances[q, r])] = 1
            elif mining == "semi-hard":
                beyond = [r for r in negatives if distances[q, r] > distances[q, p]]
                if beyond:
                    weights[q, p, min(beyond, key=lambda r: distances[q, r])] = 1
                else:
                    weights[q, p, max(negatives, key=lambda r: distances[q, r])] = 1
            else:
                near = [r for r in negatives if distances[q, r] <= 1.4] or negatives
                inverse = [1 / naive_density(distances[q, r], dim) for r in near]
                weights[q, p, near] = np.array(inverse) / sum(inverse)
    return weights


def weigh(distances, labels, mining, dim=4):
    same, different = label_masks(np.array(labels[: len(distances)]), np.array(labels))
    weights = mined_weights(
        keras.ops.convert_to_tensor(distances, "float32"), same, different, mining, dim=dim
    )
    return np.array(weights)


def test_masks_leave_out_the_query_itself_and_empty_places():
    # Two queries of a batch, and a memory with one image of each class and an empty place.
    same, different = label_masks(np.array([4, 4, 7]), np.array([4, 4, 7, 7, 4, -1]))
    assert np.array(same).astype(int).tolist() == [
        [0, 1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
    ]
    assert np.array(different).astype(int).tolist() == [
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
    ]


@pytest.mark.parametrize("squared", [False, True])
def test_distances_equal_a_loop(squared):
    rows, references = unit_rows(1, 5), 3 * unit_rows(2, 7)
    wanted = naive_distances(rows, references)
    got = np.array(
        pairwise_distances(rows.astype(np.float32), references.astype(np.float32), squared=squared)
    )
    assert got.shape == (5, 7)
    np.testing.assert_allclose(got, wanted**2 if squared else wanted, atol=2e-5)


@pytest.mark.parametrize("dim", [3, 4096])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("shift", [0.0, 1e-20, 1e-7, 1e-4])
def test_equal_and_near_duplicate_rows_have_no_distance_and_no_gradient(dim, squared, shift):
    rows = unit_rows(3, 4, dim).astype(np.float32)
    rows[1] = rows[0]
    rows[1, 0] += shift
    rows[3] = 0  # an empty place of a memory
    embeddings = tf.Variable(rows)
    with tf.GradientTape() as tape:
        distances = pairwise_distances(embeddings, embeddings, squared=squared)
        near = distances[0, 1] + distances[1, 0] + sum(distances[i, i] for i in range(4))
    assert float(near) == 0
    assert np.array(distances).min() == 0
    assert float(distances[0, 2]) > 0.1
    assert not np.array(tape.gradient(near, embeddings)).any()


def test_gradient_of_equal_rows_is_0_when_compiled_too():
    # XLA multiplies 0 by an infinite slope, where TensorFlow's own kernel looks for the 0.
    @tf.function(jit_compile=True)
    def gradient(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            distances = pairwise_distances(rows, rows)
        return tape.gradient(distances, rows)

    assert not np.array(gradient(tf.ones((2, 3)))).any()


def test_gradient_is_that_of_differences_where_rows_are_apart():
    rows = unit_rows(4, 3)
    embeddings = tf.Variable(rows)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(pairwise_distances(embeddings, embeddings))
    gradient = np.array(tape.gradient(total, embeddings))
    for a in range(3):
        others = [rows[a] - rows[b] for b in range(3) if b != a]
        # Each distance occurs twice, and grows along the unit vector away from the other row.
        wanted = sum(2 * other / np.linalg.norm(other) for other in others)
        np.testing.assert_allclose(gradient[a], wanted, atol=1e-6)


def test_a_nan_is_not_hidden():
    rows = unit_rows(5, 3).astype(np.float32)
    rows[1] = np.nan
    for squared in (False, True):
        distances = np.array(pairwise_distances(rows, rows, squared=squared))
        assert np.isnan(distances[0, 1]) and np.isnan(distances[1]).all()
        assert not np.isnan(distances[0, 2])


@pytest.mark.parametrize("dim", [3, 4, 300])
@pytest.mark.parametrize("mining", MININGS)
def test_weights_equal_a_loop(mining, dim):
    labels = [*LABELS, 1, -1, 0, -1, 5]  # the batch, and a memory with two empty places
    rows = unit_rows(6, len(labels), dim)
    if dim == 300:
        rows[:, 0] += 1  # random rows of many dimensions all lie sqrt(2) apart
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = naive_distances(rows[: len(LABELS)], rows)
    distances[0] = [0.0, 0.3, 1.2, *np.linspace(1.41, 1.9, len(labels) - 3)]  # no negative is near
    wanted = naive_weights(distances, LABELS, labels, mining, dim)
    got = weigh(distances, labels, mining, dim)
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-6)
    assert (wanted.sum(axis=(1, 2)) > 0).tolist() == [True] * 5 + [False] + [True] * 4


def test_hand_case():
    # Query 0, of class 0, has positives 1 (distance 0.6) and 2 (distance 1.3), and negatives
    # 3 (0.5), 4 (0.9), 5 (0.9) and 6 (1.2).
    labels = [0, 0, 0, 1, 1, 2, 2]
    distances = np.array([[0, 0.6, 1.3, 0.5, 0.9, 0.9, 1.2]])
    # Beyond 0.6 the nearest is the first of 4 and 5; beyond 1.3 is none: the furthest, 6.
    semi_hard = weigh(distances, labels, "semi-hard")
    assert np.argwhere(semi_hard).tolist() == [[0, 1, 4], [0, 2, 6]]
    assert np.argwhere(weigh(distances, labels, "hard")).tolist() == [[0, 2, 3]]
    assert np.argwhere(weigh(distances, labels, "all")).tolist() == [
        [0, p, n] for p in (1, 2) for n in (3, 4, 5, 6)
    ]
    # In 3 dimensions the density is d: 1/0.5, 1/0.9, 1/0.9 and 1/1.2 over their sum, 5.0556.
    drawn = weigh(distances, labels, "distance-weighted", dim=3)
    for p in (1, 2):
        assert drawn[0, p, 3:] == pytest.approx([0.3956, 0.2198, 0.2198, 0.1648], abs=1e-4)


def test_negatives_nearer_than_a_half_are_drawn_alike_and_those_beyond_the_cut_never():
    labels = [0, 0, 1, 1, 1]
    drawn = weigh(np.array([[0, 0.2, 0.1, 0.4, 1.41]]), labels, "distance-weighted", dim=128)
    assert drawn[0, 1] == pytest.approx([0, 0, 0.5, 0.5, 0])
    far = weigh(np.array([[0, 0.2, 1.5, 1.5, 1.5]]), labels, "distance-weighted", dim=128)
    assert far[0, 1] == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_draws_do_not_overflow_in_many_dimensions():
    distances = np.array([[0, 0.2, 0.6, 1.0, 1.3, 2.1]])  # the last: not of unit length
    drawn = weigh(distances, [0, 0, 1, 1, 1, 1], "distance-weighted", dim=4096)
    assert drawn[0, 1] == pytest.approx([0, 0, 1, 0, 0, 0])


def test_opposite_negatives_and_those_beyond_the_sphere_can_be_drawn():
    # Both have the least height, so that 1 / d^2 decides: 1/4 and 1/4.41.
    drawn = weigh(np.array([[0, 0.2, 2.0, 2.1]]), [0, 0, 1, 1], "distance-weighted", dim=4)
    assert drawn[0, 1] == pytest.approx([0, 0, 0.5244, 0.4756], abs=1e-4)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [4]])
def test_without_triplets_there_is_no_weight(mining, labels):
    rows = unit_rows(7, len(labels))
    weights = weigh(naive_distances(rows, rows), labels, mining)
    assert weights.shape == (len(labels),) * 3
    assert not weights.any()


@pytest.mark.parametrize("mining", MININGS)
def test_weights_have_no_gradient(mining):
    distances = tf.Variable(naive_distances(unit_rows(8), unit_rows(8)).astype(np.float32))
    same, different = label_masks(np.array(LABELS), np.array(LABELS))
    with tf.GradientTape() as tape:
        weights = mined_weights(distances + 0.0, same, different, mining, dim=4)
        total = tf.reduce_sum(weights * tf.random.stateless_uniform(weights.shape, (1, 2)))
    assert tape.gradient(total, distances) is None


def test_refuses_a_mining_by_name():
    with pytest.raises(InputError, match="Received: softest"):
        mined_weights(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), "softest", dim=4)
