import numpy as np
import pytest

from deep_ranking.metrics import correct_triplets, similarity_precision, triplet_distances
from deep_ranking.metrics.triplets import score_at_top_k, triplet_ranks


def unit_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_triplets(count, num_images, seed=0):
    generator = np.random.default_rng(seed)
    return np.array([generator.permutation(num_images)[:3] for _ in range(count)])


def naive_ranks(embeddings, triplets):
    """One triplet after the other, one image after the other."""
    ranks = []
    for query, *pair in triplets:
        distances = np.linalg.norm(embeddings[query].astype(float) - embeddings, axis=1)
        for image in pair:
            nearer = [
                other
                for other in range(len(embeddings))
                if distances[other] < distances[image] and other != query
            ]
            ranks.append(1 + len(nearer))
    return np.array(ranks).reshape(-1, 2).T


def test_similarity_precision_worked_by_hand():
    # Right, wrong, tie: one of three.
    positive, negative = np.array([0.1, 0.9, 0.5]), np.array([0.2, 0.3, 0.5])
    assert correct_triplets(positive, negative).tolist() == [True, False, False]
    assert similarity_precision(positive, negative) == 1 / 3


def test_a_collapsed_model_scores_worst():
    embeddings, triplets = np.tile(unit_rows(1, 5), (9, 1)), random_triplets(20, 9)
    assert similarity_precision(*triplet_distances(embeddings, triplets)) == 0
    assert score_at_top_k(*triplet_ranks(embeddings, triplets)) == -20


def test_no_triplets_have_no_precision():
    assert np.isnan(similarity_precision(np.empty(0), np.empty(0)))
    none = np.empty((0, 3), int)
    assert score_at_top_k(*triplet_ranks(unit_rows(3, 2), none)) == 0


def test_triplet_distances_equal_python_loops():
    embeddings, gallery = unit_rows(12, 7), unit_rows(15, 7, seed=1)
    triplets = random_triplets(30, 12)
    for images, given in ((embeddings, None), (gallery, gallery)):
        positive, negative = triplet_distances(embeddings, triplets, given)
        for (q, p, n), to_positive, to_negative in zip(triplets, positive, negative, strict=True):
            assert to_positive == pytest.approx(np.linalg.norm(embeddings[q] - images[p]))
            assert to_negative == pytest.approx(np.linalg.norm(embeddings[q] - images[n]))


def test_score_at_top_k_worked_by_hand():
    # With K = 3: right with both in the top, right with the positive, wrong with the negative in
    # the top, a shared rank (wrong), and a right one beyond the top, which does not count.
    positive, negative = np.array([1, 3, 9, 2, 4]), np.array([2, 8, 3, 2, 5])
    scores = [score_at_top_k(positive[[row]], negative[[row]], k=3) for row in range(len(positive))]
    assert scores == [1, 1, -1, -1, 0]
    assert score_at_top_k(positive, negative, k=3) == 0
    assert score_at_top_k(positive, negative, k=2) == 1 - 1
    assert score_at_top_k(positive, negative, k=1) == 1
    assert score_at_top_k(positive, negative) == 3 - 2


@pytest.mark.parametrize("memory_limit", [1, 3 * 48 * 45, 2**29])
@pytest.mark.parametrize("kind", ["random", "copies", "grid"])
def test_ranks_equal_python_loops(kind, memory_limit):
    embeddings = unit_rows(45, 33)
    if kind == "copies":
        embeddings[::2] = embeddings[1]
    if kind == "grid":
        embeddings = np.where(embeddings[:, :4] > 0, 0.5, -0.5).astype(np.float32)
    triplets = random_triplets(120, 45)
    found = triplet_ranks(embeddings, triplets, memory_limit=memory_limit)
    assert np.array_equal(found, naive_ranks(embeddings, triplets))


def test_ranks_agree_with_distances():
    embeddings, triplets = unit_rows(40, 9), random_triplets(200, 40)
    positive, negative = triplet_ranks(embeddings, triplets)
    correct = correct_triplets(*triplet_distances(embeddings, triplets))
    assert np.array_equal(positive < negative, correct)
    assert 0 < correct.mean() < 1


def test_bad_input_is_refused():
    rows = unit_rows(4, 3)
    with pytest.raises(ValueError, match=r"\[1, 2, 1\] \(triplet 1\)"):
        triplet_ranks(rows, np.array([[0, 1, 2], [1, 2, 1]]))
    with pytest.raises(ValueError, match=r"\(triplets, 3\).* \(3,\)"):
        triplet_ranks(rows, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"\(triplets, 3\).* \(1, 2\)"):
        triplet_distances(rows, np.array([[0, 1]]))
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        similarity_precision(np.zeros(2), np.zeros(1))
    with pytest.raises(ValueError, match="NaN in triplet 1"):
        similarity_precision(np.zeros(2), np.array([0, np.nan]))
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        score_at_top_k(np.ones(2, int), np.ones(1, int))
    with pytest.raises(ValueError, match="k=0"):
        score_at_top_k(np.ones(2, int), np.ones(2, int), k=0)
    rows[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"finite.* row 3\."):
        triplet_ranks(rows, np.array([[0, 1, 2]]))
