import json
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from deep_ranking.metrics import rank_gallery
from deep_ranking.metrics.retrieval import (
    Gallery,
    average_precision,
    average_precision_at_r,
    first_positive_rank,
    knn_classify,
    precision_at_k,
    r_precision,
    recall_at_k,
    retrieval_metrics,
)

GOLDEN = Path(__file__).parent / "data" / "metrics_golden.json"

# Two queries. The first: hits at ranks 1, 3 and 6 of 6; the second: none.
HITS = np.array([[1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0]], bool)

hit_tables = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


def unit_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rows_with_copies(count, dim, seed=0):
    """Unit rows of which every third is a copy of another."""
    rows = unit_rows(count, dim, seed)
    rows[::3] = rows[np.random.default_rng(seed).integers(count, size=len(rows[::3]))]
    return rows


def rows_on_a_grid(count, seed=0):
    """Unit rows in four dimensions with nine distances between them: ties of different rows."""
    signs = np.random.default_rng(seed).choice([-0.5, 0.5], size=(count, 4))
    return signs.astype(np.float32)


def rows_in_a_tight_cone(count, dim, seed=0):
    """What an untrained network gives: all cosines nearly 1."""
    return unit_rows(1, dim, seed + 1) + 1e-4 * rows_with_copies(count, dim, seed)


def means(metrics):
    return {name: np.nanmean(values) for name, values in metrics.per_query.items()}


def naive_metrics(queries, query_labels, gallery, gallery_labels, *, itself=None, ks):
    """All metrics of all queries with Python loops, from distances in float64."""
    rows = []
    for query, label in enumerate(query_labels):
        ranked = sorted(
            (float(np.linalg.norm(queries[query].astype(float) - gallery[other])), other)
            for other in range(len(gallery))
            if itself is None or other not in np.atleast_1d(itself[query])
        )
        hits = [gallery_labels[other] == label for _, other in ranked]
        size = sum(hits)
        row = {"neighbours": [other for _, other in ranked[:30]], "num_positives": size}
        if size:
            precisions = [sum(hits[:rank]) / rank for rank in range(1, len(hits) + 1)]
            at_hits = [precisions[i] for i in range(len(hits)) if hits[i]]
            row |= {f"recall_at_{k}": float(any(hits[:k])) for k in ks}
            row |= {f"precision_at_{k}": sum(hits[:k]) / len(hits[:k]) for k in ks}
            row["r_precision"] = sum(hits[:size]) / size
            row["mean_average_precision"] = sum(at_hits) / size
            row["map_at_r"] = sum(precisions[i] for i in range(size) if hits[i]) / size
            first = hits.index(True)
            row["first_positive_rank"], row["mean_reciprocal_rank"] = first + 1, 1 / (first + 1)
            row["first_positive_distance"], row["first_positive"] = ranked[first]
            votes = Counter()
            exact = [other for distance, other in ranked[:30] if distance == 0]
            for distance, other in ranked[:30]:
                weight = float(other in exact) if exact else 1 / distance
                votes[gallery_labels[other]] += weight
            most = max(votes.values())
            winner = min(name for name in votes if votes[name] > most - 1e-9)
            row["knn_accuracy"] = float(winner == label)
        rows.append(row)
    return rows


def assert_equals_naive(found, naive):
    assert found.num_positives.tolist() == [row["num_positives"] for row in naive]
    width = found.neighbours.shape[1]
    none = [[-1] * (width - len(row["neighbours"])) for row in naive]
    expected = [row["neighbours"] + rest for row, rest in zip(naive, none, strict=True)]
    assert found.neighbours.tolist() == expected
    assert np.array_equal(np.isinf(found.distances[:, :width]), found.neighbours == -1)
    assert found.first_positive.tolist() == [row.get("first_positive", -1) for row in naive]
    distances = [row.get("first_positive_distance", np.nan) for row in naive]
    assert np.allclose(
        found.first_positive_distance, distances, rtol=1e-4, atol=1e-6, equal_nan=True
    )
    for name, values in [
        *found.per_query.items(),
        ("first_positive_rank", found.first_positive_rank),
    ]:
        expected = np.array([row.get(name, np.nan) for row in naive])
        assert np.allclose(values, expected, rtol=0, atol=1e-12, equal_nan=True), name


@pytest.mark.parametrize(
    "embeddings",
    [
        unit_rows(90, 37),
        rows_with_copies(90, 37),
        rows_on_a_grid(90),
        rows_in_a_tight_cone(90, 37),
        np.tile(unit_rows(1, 37), (90, 1)),
        rows_with_copies(20, 5),
    ],
    ids=["random", "copies", "grid", "tight", "collapsed", "small"],
)
@pytest.mark.parametrize("memory_limit", [1, 2**29], ids=["one query at a time", "all at once"])
def test_leave_one_out_equals_python_loops(embeddings, memory_limit):
    generator = np.random.default_rng(5)
    labels = np.array(["ape", "bee", "cat", "dog"])[generator.integers(4, size=len(embeddings))]
    labels[3] = "only one"
    ks = (1, 3, 40)
    found = retrieval_metrics(embeddings, labels, ks=ks, memory_limit=memory_limit)
    naive = naive_metrics(embeddings, labels, embeddings, labels, itself=range(len(labels)), ks=ks)
    # The oracle keeps 30 neighbours; here as many as the deepest of ks are kept.
    assert found.neighbours.shape == (len(labels), min(40, len(labels) - 1))
    found = type(found)(**{**vars(found), "neighbours": found.neighbours[:, :30]})
    assert_equals_naive(found, naive)
    assert np.isnan(found.per_query["recall_at_1"][3])


def test_queries_and_gallery_equal_python_loops():
    gallery = rows_with_copies(80, 21)
    queries = np.concatenate([unit_rows(9, 21, seed=3), gallery[[4, 0, 12]]])
    generator = np.random.default_rng(6)
    labels, gallery_labels = generator.integers(5, size=12), generator.integers(4, size=80)
    labels[2] = 4
    found = retrieval_metrics(queries, labels, Gallery(gallery, gallery_labels), ks=(1, 30))
    assert_equals_naive(found, naive_metrics(queries, labels, gallery, gallery_labels, ks=(1, 30)))
    assert np.isnan(found.per_query["map_at_r"][2])


def test_some_queries_of_the_gallery_leave_themselves_out():
    embeddings, rows = rows_with_copies(50, 8), np.array([7, 30, 2])
    labels = np.random.default_rng(7).integers(5, size=50)
    every = retrieval_metrics(embeddings, labels)
    some = retrieval_metrics(embeddings[rows], labels[rows], Gallery(embeddings, labels, rows))
    assert np.array_equal(some.neighbours, every.neighbours[rows])
    for name, values in some.per_query.items():
        assert np.array_equal(values, every.per_query[name][rows], equal_nan=True)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("size", [80, 29, 5])
@pytest.mark.parametrize("memory_limit", [1, 2**29], ids=["one query at a time", "all at once"])
def test_figures_are_those_of_a_gallery_without_the_excluded_rows(most, size, memory_limit):
    """Some queries exclude gallery rows and some do not; a loop deletes these rows."""
    generator = np.random.default_rng(most)
    gallery = rows_with_copies(size, 21)
    queries = np.concatenate([unit_rows(9, 21, seed=3), gallery[[4, 0, 3]]])
    labels, gallery_labels = generator.integers(3, size=12), generator.integers(3, size=size)
    exclude = np.array([generator.permutation(size)[:most] for _ in queries])
    exclude[generator.random(exclude.shape) < 0.5] = -1
    exclude[9:, 0] = [4, 0, 3]
    exclude[:9][:, 0][:3] = -1
    for each in exclude[9:]:  # each row is named once
        each[1:][each[1:] == each[0]] = -1
    assert (exclude == -1).all(axis=1).any() and (exclude >= 0).any()
    given = Gallery(gallery, gallery_labels, exclude[:, 0] if most == 1 else exclude)
    found = retrieval_metrics(queries, labels, given, ks=(1, 3, 30), memory_limit=memory_limit)
    naive = naive_metrics(queries, labels, gallery, gallery_labels, itself=exclude, ks=(1, 3, 30))
    assert_equals_naive(found, naive)
    assert found.num_ranked.tolist() == (size - (exclude >= 0).sum(axis=1)).tolist()


def test_a_query_whose_only_image_is_excluded_has_no_figure():
    rows, labels = unit_rows(2, 4), np.array(["a", "a"])
    found = retrieval_metrics(rows, labels, Gallery(rows[:1], labels[:1], np.array([0, -1])))
    assert found.num_ranked.tolist() == found.num_positives.tolist() == [0, 1]
    assert found.neighbours.tolist() == [[-1], [0]]
    for values in found.per_query.values():
        assert np.isnan(values[0]) and values[1] == 1


@pytest.mark.parametrize("memory_limit", [1, 2**29], ids=["one query at a time", "all at once"])
def test_one_right_image_each_at_any_depth_equals_python_loops(memory_limit):
    # 60 shop pictures, one of each product: many right images are beyond the 30 nearest.
    gallery = unit_rows(60, 7)
    gallery_labels = np.random.default_rng(1).permutation(60)
    labels = np.random.default_rng(2).integers(64, size=40)  # classes 60 to 63 are not in the shop
    queries = unit_rows(40, 7, seed=3)
    queries[5] = gallery[gallery_labels == labels[5]][0]
    found = retrieval_metrics(
        queries, labels, Gallery(gallery, gallery_labels), ks=(1, 20), memory_limit=memory_limit
    )
    assert_equals_naive(found, naive_metrics(queries, labels, gallery, gallery_labels, ks=(1, 20)))
    assert (found.first_positive_rank > 30).sum() > 5
    assert 0 < (labels >= 60).sum() == (found.first_positive == -1).sum()
    assert found.first_positive_rank[5] == 1
    assert found.first_positive_distance[5] == found.distances[5, 0] == 0
    # With one right image, these are one figure.
    same = {"mean_average_precision": "mean_reciprocal_rank"}
    same |= dict.fromkeys(("r_precision", "map_at_r", "knn_accuracy"), "recall_at_1")
    for name, other in same.items():
        values, others = found.per_query[name], found.per_query[other]
        assert np.allclose(values, others, rtol=0, atol=1e-12, equal_nan=True)


def test_a_tie_with_the_right_image_keeps_the_order_of_the_gallery():
    # From 0, both "right" at -1 and "wrong" at 1 are 1 away, and "near" at 0.5 is nearer.
    query, labels = np.array([[0.0]]), np.array(["right"])
    rows = {"right": [-1.0], "wrong": [1.0], "near": [0.5]}
    for order, rank in ((["right", "wrong", "near"], 2), (["wrong", "right", "near"], 3)):
        gallery = Gallery(np.array([rows[name] for name in order]), np.array(order))
        found = retrieval_metrics(query, labels, gallery)
        assert found.first_positive_rank.tolist() == [rank]
        assert found.per_query["mean_reciprocal_rank"].tolist() == [1 / rank]
        assert found.first_positive.tolist() == [order.index("right")]
        assert found.first_positive_distance.tolist() == [1]


def test_in_a_collapsed_gallery_the_rank_is_the_place():
    gallery = Gallery(np.ones((50, 4)), np.arange(50))
    found = retrieval_metrics(np.ones((50, 4)), np.arange(50), gallery)
    assert found.first_positive_rank.tolist() == list(range(1, 51))
    assert found.first_positive.tolist() == list(range(50))


def test_chunks_do_not_change_any_result():
    embeddings = rows_with_copies(150, 65)
    labels = np.random.default_rng(8).integers(9, size=150)
    whole = retrieval_metrics(embeddings, labels)
    for queries_at_once in (1, 7, 149):
        found = retrieval_metrics(embeddings, labels, memory_limit=queries_at_once * 48 * 150)
        assert np.array_equal(found.neighbours, whole.neighbours)
        assert np.allclose(found.distances, whole.distances, rtol=0, atol=1e-6)
        for name, values in found.per_query.items():
            assert np.allclose(values, whole.per_query[name], rtol=0, atol=1e-12)


def test_a_memory_mapped_matrix_gives_the_same(tmp_path):
    embeddings = unit_rows(40, 6)
    np.save(tmp_path / "embeddings.npy", embeddings)
    labels = np.arange(40) % 5
    mapped = retrieval_metrics(np.load(tmp_path / "embeddings.npy", mmap_mode="r"), labels)
    assert means(mapped) == means(retrieval_metrics(embeddings, labels))


@pytest.mark.parametrize("classes", [1, 50])
def test_memory_stays_below_the_limit(classes):
    embeddings, limit = unit_rows(1000, 4), 8_000_000
    labels = np.arange(1000) % classes
    retrieval_metrics(embeddings[:50], labels[:50])
    tracemalloc.start()
    retrieval_metrics(embeddings, labels, memory_limit=limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Beside the chunk: 1,000 x 30 neighbours with distances, twice while they are joined.
    assert peak < limit + 2 * 1000 * 30 * 16 + 500_000


def test_distances_of_the_neighbours_are_exact():
    embeddings = rows_with_copies(60, 129)
    embeddings[1] = embeddings[2]
    embeddings[1, 0] += np.float32(1e-5)
    found = retrieval_metrics(embeddings, np.arange(60) % 3)
    for query, (neighbours, distances) in enumerate(
        zip(found.neighbours, found.distances, strict=True)
    ):
        expected = np.linalg.norm(embeddings[query].astype(float) - embeddings[neighbours], axis=1)
        assert np.allclose(distances, expected, rtol=1e-5, atol=0)
        assert (np.diff(distances) >= 0).all()
    assert found.distances[1, 0] == pytest.approx(1e-5, rel=1e-2)


def test_nearly_equal_images_are_in_their_true_order():
    # Steps of 1e-5 from the query: squared, they are far below the rounding of float32 products.
    embeddings = unit_rows(60, 129)
    order = np.random.default_rng(1).permutation(np.arange(1, 21))
    for step, row in enumerate(order, 1):
        embeddings[row] = embeddings[0]
        embeddings[row, 5] += np.float32(step * 1e-5)
    found = retrieval_metrics(embeddings, np.arange(60) % 3)
    assert found.neighbours[0, :20].tolist() == order.tolist()
    assert np.allclose(found.distances[0, :20], np.arange(1, 21) * 1e-5, rtol=1e-2)


def test_average_precision_equals_scikit_learn():
    embeddings = unit_rows(100, 12)
    labels = np.random.default_rng(9).integers(6, size=100)
    found = retrieval_metrics(embeddings, labels).per_query["mean_average_precision"]
    for query in range(100):
        others = np.arange(100) != query
        distances = np.linalg.norm(embeddings[others] - embeddings[query], axis=1)
        expected = average_precision_score(labels[others] == labels[query], -distances)
        assert found[query] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", ["leave_one_out", "queries_and_gallery"])
def test_equals_pytorch_metric_learning(case):
    golden = json.loads(GOLDEN.read_text())
    embeddings, labels = np.float32(golden["embeddings"]), np.array(golden["labels"])
    if case == "leave_one_out":
        found = retrieval_metrics(embeddings, labels)
    else:
        found = retrieval_metrics(
            np.float32(golden["query_embeddings"]),
            np.array(golden["query_labels"]),
            Gallery(embeddings, labels),
        )
    found, expected = means(found), golden["metrics"][case]
    assert found["precision_at_1"] == pytest.approx(expected["precision_at_1"], abs=1e-6)
    assert found["r_precision"] == pytest.approx(expected["r_precision"], abs=1e-6)
    assert found["map_at_r"] == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-6)


def test_metrics_of_hits_worked_by_hand():
    def first(values):
        assert np.isnan(values[1])
        return values[0]

    assert first(recall_at_k(HITS[:, ::-1], 1)) == 1
    assert first(recall_at_k(HITS[:, 1:], 1)) == 0
    assert first(recall_at_k(HITS[:, 1:], 2)) == 1
    assert first(precision_at_k(HITS, 1)) == 1
    assert first(precision_at_k(HITS, 4)) == 2 / 4
    assert first(precision_at_k(HITS, 100)) == 3 / 6
    assert first(r_precision(HITS)) == 2 / 3
    # Precision at the hits is 1/1, 2/3 and 3/6; the last is beyond R = 3.
    assert first(average_precision(HITS)) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert first(average_precision_at_r(HITS)) == pytest.approx((1 + 2 / 3) / 3)
    assert first(first_positive_rank(HITS)) == 1
    assert first(first_positive_rank(HITS[:, 1:])) == 2


@given(hit_tables)
@settings(deadline=None)
def test_recall_rises_with_k_from_precision_at_1_to_1(hits):
    recalls = np.array([recall_at_k(hits, k) for k in range(1, hits.shape[1] + 1)])
    defined = hits.any(axis=1)
    assert (np.diff(recalls[:, defined], axis=0) >= 0).all()
    assert np.array_equal(recalls[0], precision_at_k(hits, 1), equal_nan=True)
    assert (recalls[-1, defined] == 1).all()
    assert np.isnan(recalls[:, ~defined]).all()


@given(hit_tables)
@settings(deadline=None)
def test_average_precisions_keep_their_order(hits):
    hits = hits[hits.any(axis=1)]
    at_r, whole = average_precision_at_r(hits), average_precision(hits)
    assert (at_r <= whole).all()
    assert (at_r <= r_precision(hits)).all()
    assert ((whole > 0) & (whole <= 1)).all()
    best = np.sort(hits, axis=1)[:, ::-1]
    assert np.allclose(average_precision_at_r(best), 1)
    assert (average_precision(best) >= whole - 1e-12).all()


@given(hit_tables, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_each_query_has_its_own_value(hits, random):
    order = list(range(len(hits)))
    random.shuffle(order)
    for metric in (average_precision, average_precision_at_r, r_precision, first_positive_rank):
        assert np.array_equal(metric(hits)[order], metric(hits[order]), equal_nan=True)


@pytest.mark.parametrize("copies", [0, 40], ids=["no copies", "copies"])
def test_knn_equals_scikit_learn(copies):
    gallery = unit_rows(200, 5)
    queries = np.concatenate([unit_rows(60, 5, seed=1), gallery[:copies]])
    gallery[100:120] = gallery[:20]
    labels = np.random.default_rng(2).integers(7, size=200)
    # The tree takes differences, so that equal rows are at exactly 0.
    oracle = KNeighborsClassifier(30, weights="distance", algorithm="kd_tree")
    expected = oracle.fit(gallery, labels).predict(queries)
    for ranking in rank_gallery(queries, gallery, nearest=30):
        found = knn_classify(labels[ranking.order[:, :30]], ranking.distances)
        assert np.array_equal(found, expected[ranking.queries])


def test_knn_votes_worked_by_hand():
    # 1/1 for class 4 against 1/2 + 1/3 for class 2; then 1/1 against 1/2 + 1/2, a tie, which the
    # smaller class wins; then a copy, which alone has a vote.
    classes = np.array([[4, 2, 2], [4, 2, 2], [9, 2, 2]])
    distances = np.array([[1, 2, 3], [1, 2, 2], [0, 1e-9, 1e-9]])
    assert knn_classify(classes, distances).tolist() == [4, 2, 9]


def test_knn_votes_tie_whatever_their_order():
    # Nine votes each, of a weight that adds up differently in a different order.
    generator = np.random.default_rng(0)
    classes = np.array([generator.permutation(np.repeat([6, 3, 5], 9)) for _ in range(50)])
    assert (knn_classify(classes, np.full(classes.shape, 0.7)) == 3).all()


def test_ranking_is_the_order_of_the_gallery_on_ties():
    (ranking,) = rank_gallery(np.ones((2, 3)), np.ones((5, 3)), exclude=np.array([0, 3]))
    assert ranking.order.tolist() == [[1, 2, 3, 4], [0, 1, 2, 4]]
    assert ranking.distances.tolist() == [[0.0] * 4] * 2


def test_a_dataset_of_classes_of_one_has_no_value():
    found = retrieval_metrics(unit_rows(4, 3), np.arange(4))
    assert all(np.isnan(values).all() for values in found.per_query.values())
    assert found.num_positives.tolist() == [0] * 4
    assert found.first_positive.tolist() == [-1] * 4
    assert np.isnan(found.first_positive_distance).all()


def test_bad_input_is_refused():
    rows, labels = unit_rows(4, 3), np.zeros(4, int)
    holed = rows.copy()
    holed[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"queries must be finite.* row 2\."):
        retrieval_metrics(holed, labels)
    with pytest.raises(ValueError, match=r"gallery must be finite.* row 2\."):
        retrieval_metrics(rows, labels, Gallery(holed, labels))
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(4, 2\)"):
        retrieval_metrics(rows, labels, Gallery(unit_rows(4, 2), labels))
    with pytest.raises(ValueError, match="queries need one label for each of 4"):
        retrieval_metrics(rows, labels[:3])
    with pytest.raises(ValueError, match="gallery need one label for each of 4"):
        retrieval_metrics(rows, labels, Gallery(rows, labels[:3]))
    with pytest.raises(ValueError, match=r"gallery rows for each of 4 .* \(3,\)"):
        retrieval_metrics(rows, labels, Gallery(rows, labels, np.arange(3)))
    with pytest.raises(ValueError, match=r"rows 0 to 3 .* 1 to 4"):
        retrieval_metrics(rows, labels, Gallery(rows, labels, np.arange(1, 5)))
    with pytest.raises(ValueError, match=r"or -1 for none.* -2 to 1"):
        retrieval_metrics(rows, labels, Gallery(rows, labels, np.array([-2, 0, 1, -1])))
    twice = np.array([[0, -1], [-1, -1], [2, 2], [1, 0]])
    with pytest.raises(ValueError, match=r"once for each query.* \[2, 2\] \(query 2\)"):
        retrieval_metrics(rows, labels, Gallery(rows, labels, twice))
    with pytest.raises(ValueError, match="only row of the gallery is the query"):
        retrieval_metrics(rows[:1], labels[:1])
    with pytest.raises(ValueError, match="k=0"):
        retrieval_metrics(rows, labels, ks=(1, 0))
