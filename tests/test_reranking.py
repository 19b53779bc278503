import numpy as np
import pytest
from collections_of import make_collection

from deep_ranking.search.ranker import Ranker
from deep_ranking.search.reranking import NUM_RERANKED, expanded, reciprocal_distances
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.smoothed_collection import update_smoothing
from deep_ranking.search.smoothing import smoothed_query

DIM = 12


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def drawn(count, seed=0):
    """Unit rows around a few centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, DIM))
    return unit(centres[rng.integers(0, 6, count)] + 0.6 * rng.normal(size=(count, DIM)))


def nearest_of(row, rows, count):
    """The numbers of the nearest rows, itself first, by a stable sort."""
    order = sorted(
        range(len(rows)), key=lambda other: (other != row, -float(rows[row] @ rows[other]))
    )
    return order[: count + 1]


def by_the_article(query, nearest, k1=20, k2=6, weight=0.3):
    """Zhong et al. 2017, sections 3.2 to 3.4, set by set, within the query and its nearest rows."""
    rows = np.concatenate([query[None], nearest]).astype(np.float64)
    near = [nearest_of(row, rows, k1) for row in range(len(rows))]

    def reciprocal(row, count):
        first = near[row][: count + 1]
        return {other for other in first if row in near[other][: count + 1]}

    codes = np.zeros((len(rows), len(rows)))
    for row in range(len(rows)):
        own = reciprocal(row, k1)
        wider = set(own)
        for other in own:
            theirs = reciprocal(other, k1 // 2)
            if len(own & theirs) > 2 / 3 * len(theirs):
                wider |= theirs
        for other in wider:
            codes[row, other] = np.exp(-((rows[row] - rows[other]) ** 2).sum())
        codes[row] /= codes[row].sum()
    averaged = [codes[near[row][:k2]].mean(axis=0) for row in range(len(rows))]
    found = []
    for row in range(1, len(rows)):
        shared = np.minimum(averaged[0], averaged[row]).sum()
        all_ = np.maximum(averaged[0], averaged[row]).sum()
        jaccard = 1 - shared / all_
        squared = ((rows[0] - rows[row]) ** 2).sum()
        found.append((1 - weight) * jaccard + weight * squared / 2)
    return np.array(found)


@pytest.mark.parametrize("count", [1, 5, 20, 21, 60])
def test_reciprocal_distances_against_sets(count):
    rows = drawn(count + 1, seed=count)
    found = reciprocal_distances(rows[0], rows[1:])
    assert found == pytest.approx(by_the_article(rows[0], rows[1:]), abs=1e-6)


def test_a_query_is_moved_by_its_ten_nearest():
    rows = drawn(30, seed=1)
    query = rows[0]
    order = np.argsort(-(rows[1:] @ query), kind="stable")
    nearest = rows[1:][order]
    cosines = nearest.astype(np.float64) @ query
    wanted = query.astype(np.float64)
    for cosine, row in list(zip(cosines, nearest, strict=True))[:10]:
        wanted = wanted + max(cosine, 0) ** 2 * row
    assert expanded(query, nearest) == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-6)
    assert expanded(query, nearest[:0]) == pytest.approx(query)
    assert expanded(query, -query[None]) == pytest.approx(query)  # no weight
    assert expanded(query, query[None]) == pytest.approx(query)  # its own content


def collection_of(tmp_path, rows):
    root = tmp_path / "photos"
    paths = [f"{'xyz'[number % 3]}/{number:04}.jpg" for number in range(len(rows))]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return make_collection(tmp_path / "index", root, dict(zip(paths, rows, strict=True)))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("count", [5, 300])
def test_the_first_are_ranked_again_and_the_others_follow(tmp_path, smooth, count):
    rows = drawn(260)
    collection = collection_of(tmp_path, rows)
    if smooth:
        update_smoothing(collection, Ranker(collection).index, smooth=4)
    ranked = Ranker(collection)
    assert ranked.is_smoothed == smooth
    # Rows of the collection are in the order of their files' contents.
    stored = np.asarray(ranked._ranked[:], np.float32)
    plain = np.asarray(collection.embeddings()[:], np.float32)
    queries = drawn(3, seed=5)
    results = Searcher(collection).search(queries, count, rerank=True)
    paths = {image.row: image.path for image in collection.images().images()}
    for query, found in zip(queries, results, strict=True):
        asked = query
        if smooth:
            near = plain[np.argsort(-(plain @ query), kind="stable")[:3]]
            asked = smoothed_query(query, near, 2)
        first = stored[np.argsort(-(stored @ asked), kind="stable")[:10]]
        moved = expanded(asked, first)
        order = np.argsort(-(stored @ moved), kind="stable")
        wanted = order
        if not smooth:
            first = order[:NUM_RERANKED]
            again = by_the_article(moved, stored[first])
            wanted = [*first[np.argsort(again, kind="stable")], *order[NUM_RERANKED:]]
        wanted = wanted[:count]
        assert [each.path.rpartition("/photos/")[2] for each in found] == [
            paths[row] for row in wanted
        ]
        distances = np.linalg.norm(plain[wanted].astype(np.float64) - query, axis=1)
        assert [each.distance for each in found] == pytest.approx(distances, abs=1e-6)
        assert all((each.smoothed_distance is None) != smooth for each in found)


def test_a_part_of_the_collection_is_ranked_again(tmp_path):
    rows = drawn(90)
    collection = collection_of(tmp_path, rows)
    query = drawn(1, seed=9)
    searcher = Searcher(collection)
    (found,) = searcher.search(query, 50, folder="y", rerank=True)
    assert len(found) == 30
    assert all("/photos/y/" in each.path for each in found)
    (plain,) = searcher.search(query, 50, folder="y")
    assert {each.path for each in plain} == {each.path for each in found}
    assert [each.path for each in plain] != [each.path for each in found]


def test_words_say_how_results_are_ranked(tmp_path):
    collection = collection_of(tmp_path, drawn(40))
    plain = Ranker(collection)
    assert plain.in_words() == ""
    words = "each query moved towards its 10 nearest"
    assert f"{words}, the first 200 ranked again by common" in plain.in_words(rerank=True)
    update_smoothing(collection, plain.index, smooth=4)
    both = Ranker(collection).in_words(rerank=True)
    assert f"smoothed rows (over 4 nearest, power 2), {words}; --no-smooth" in both
