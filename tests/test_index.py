import itertools
import json

import faiss
import numpy as np
import pytest

from deep_ranking.files import InputError, atomic_path
from deep_ranking.search.index import base, clusters, file_checksums, tuning
from deep_ranking.search.index.base import SearchCost, read_rows
from deep_ranking.search.index.clusters import ClusterIndex, HierarchyIndex
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.index.tuning import GroundTruth, fewest_probes, measure_search

DIM = 12


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(count, seed=0, *, groups=15, spread=0.25):
    """Unit rows around some centres, of uneven numbers."""
    centres = unit(np.random.default_rng(99).normal(size=(groups, DIM)))
    rng = np.random.default_rng(seed)
    members = np.minimum(rng.geometric(0.15, count) - 1, groups - 1)
    return unit(centres[members] + spread * rng.normal(size=(count, DIM)))


@pytest.fixture(scope="module")
def data():
    """Embeddings on disk, the rows of them that can be found, and queries.

    Every seventh row belongs to an image that is broken or gone.
    """
    embeddings = clustered(1000)
    rows = np.flatnonzero(np.arange(1000) % 7 != 3)
    embeddings[3::14] = np.nan
    queries = np.concatenate([clustered(12, seed=1), embeddings[[0, 501]]])
    return embeddings, rows, queries


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """faiss's threads wait for each other on a machine that does other things as well."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(base, "ROWS_AT_ONCE", 100)


def by_hand(embeddings, rows, queries):
    """Distances of each query to each row, (queries, all rows), infinite where none counts."""
    distances = np.full((len(queries), len(embeddings)), np.inf)
    for number, query in enumerate(queries.astype(np.float64)):
        differences = embeddings[rows].astype(np.float64) - query
        distances[number, rows] = np.sqrt((differences**2).sum(1))
    return distances


def assert_nearest(found, embeddings, rows, queries, count):
    """Found are the nearest of the rows, each once, in order."""
    hand = by_hand(embeddings, rows, queries)
    count = min(count, len(rows))
    assert found.rows.shape == found.distances.shape == (len(queries), count)
    assert found.rows.dtype == np.int64
    assert found.distances.dtype == np.float32
    for number in range(len(queries)):
        assert set(found.rows[number]) <= set(rows)
        assert len(set(found.rows[number])) == count
        mine = hand[number, found.rows[number]]
        np.testing.assert_allclose(mine, np.sort(hand[number])[:count], atol=1e-5)
        np.testing.assert_allclose(found.distances[number], mine, atol=2e-3)
        assert (np.diff(found.distances[number]) >= 0).all()


def assert_within(within, embeddings, rows, queries, radius):
    hand = by_hand(embeddings, rows, queries)
    assert within.limits.dtype == within.rows.dtype == np.int64
    assert within.limits[0] == 0
    assert within.limits[-1] == len(within.rows) == len(within.distances)
    assert len(within.limits) == len(queries) + 1
    for number, (begin, end) in enumerate(zip(within.limits, within.limits[1:], strict=False)):
        found = within.rows[begin:end]
        assert len(set(found)) == len(found)
        assert set(np.flatnonzero(hand[number] < radius - 1e-3)) <= set(found)
        assert set(found) <= set(np.flatnonzero(hand[number] < radius + 1e-3))
        np.testing.assert_allclose(within.distances[begin:end], hand[number, found], atol=2e-3)
    return len(within.rows)


def built(kind, tmp_path, embeddings, rows, **options):
    index = kind(tmp_path / "index.faiss", **options)
    index.update(embeddings, rows, np.empty(0, np.int64))
    return index


def ready(kind, tmp_path, embeddings, rows):
    """An index that visits all of its clusters."""
    if kind is ExactIndex:
        return ExactIndex(embeddings, rows)
    index = built(kind, tmp_path, embeddings, rows)
    index.probes = index.num_clusters
    return index


every_kind = pytest.mark.parametrize("kind", [ExactIndex, ClusterIndex, HierarchyIndex])
clustering = pytest.mark.parametrize("kind", [ClusterIndex, HierarchyIndex])


@every_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("count", [1, 20, 5000])
def test_search_finds_what_a_loop_finds(kind, tmp_path, data, dtype, count):
    embeddings, rows, queries = data
    embeddings = embeddings.astype(dtype)
    index = ready(kind, tmp_path, embeddings, rows)
    found = index.search(queries, count)
    assert_nearest(found, embeddings, rows, queries, count)
    cost = SearchCost(len(queries) * index.num_clusters, len(queries) * len(rows))
    assert index.cost(queries) == cost
    assert index.rows().tolist() == rows.tolist()
    assert index.rows().dtype == np.int64
    alone = index.search(queries[3:4], count)
    np.testing.assert_allclose(alone.distances[0], found.distances[3], atol=2e-3)


@every_kind
@pytest.mark.parametrize("radius", [1e-3, 0.5, 0.9, 2.1])
def test_within_finds_what_a_loop_finds(kind, tmp_path, data, radius):
    embeddings, rows, queries = data
    index = ready(kind, tmp_path, embeddings, rows)
    number = assert_within(index.within(queries, radius), embeddings, rows, queries, radius)
    least = {1e-3: 2, 0.5: 10, 0.9: 500, 2.1: len(rows) * len(queries)}  # 2 queries are images
    assert number >= least[radius]
    nothing = index.within(-10 * queries, 0.5)
    assert nothing.limits.tolist() == [0] * (len(queries) + 1)
    assert len(nothing.rows) == len(nothing.distances) == 0


def nearest_clusters(index, queries):
    """Means of an index, and the clusters of each query, the nearest first."""
    quantizer = faiss.downcast_index(index._index.quantizer)
    means = quantizer.reconstruct_n(0, quantizer.ntotal)
    return means, np.argsort(by_hand(means, range(len(means)), queries), axis=1)


@pytest.mark.parametrize("probes", [1, 2, 5])
def test_clusters_nearest_to_the_query_are_visited(tmp_path, data, probes):
    embeddings, rows, queries = data
    index = built(ClusterIndex, tmp_path, embeddings, rows, probes=probes)
    assert index.num_clusters == len(rows) // 39  # fewer than 4 times the root
    means, order = nearest_clusters(index, queries)
    assert len(means) == index.num_clusters
    owners = by_hand(means, range(len(means)), embeddings[rows]).argmin(1)
    found = index.search(queries, 300)
    within = index.within(queries, 0.6)
    num_rows = 0
    for number, query in enumerate(queries):
        members = rows[np.isin(owners, order[number, :probes])]
        num_rows += len(members)
        mine = found.rows[number][found.rows[number] >= 0]
        assert len(mine) == min(300, len(members))
        hand = by_hand(embeddings, members, query[None])[0]
        np.testing.assert_allclose(hand[mine], np.sort(hand)[: len(mine)], atol=1e-5)
        assert np.isinf(found.distances[number][len(mine) :]).all()
        near = within.rows[within.limits[number] : within.limits[number + 1]]
        assert set(near) == set(np.flatnonzero(hand < 0.6))
    assert index.cost(queries) == SearchCost(probes * len(queries), num_rows)
    assert num_rows < len(rows) * len(queries)
    index.probes = 3
    assert index.cost(queries, probes=probes) == SearchCost(probes * len(queries), num_rows)
    again = index.search(queries, 300, probes=probes)
    np.testing.assert_array_equal(again.rows, found.rows)
    everything = SearchCost(index.num_clusters * len(queries), len(rows) * len(queries))
    assert index.cost(queries, probes=9999) == everything


def test_hierarchy_finds_most_with_few_probes(tmp_path, data):
    embeddings, rows, queries = data
    index = built(HierarchyIndex, tmp_path, embeddings, rows, probes=4)
    assert index.num_clusters > 8
    hand = by_hand(embeddings, rows, queries)
    right = np.sort(hand)[:, 9:10]
    cost = index.cost(queries)
    assert cost.clusters == 4 * len(queries)
    sizes = np.sort(index._sizes)
    assert len(queries) * sizes[:4].sum() <= cost.rows <= len(queries) * sizes[-4:].sum()
    recalls = []
    for probes in (1, 4, index.num_clusters):
        found = index.search(queries, 10, probes=probes).rows
        distances = np.where(found < 0, np.inf, np.take_along_axis(hand, np.maximum(found, 0), 1))
        recalls.append((distances <= right + 1e-5).mean())
    assert recalls[0] < recalls[1] < recalls[2] == 1
    assert recalls[1] > 0.6


@every_kind
def test_rows_are_added_and_removed(kind, tmp_path, data):
    embeddings, rows, queries = data
    first, later = rows[:600], rows[600:]
    index = ready(kind, tmp_path, embeddings, first)
    num_clusters = index.num_clusters
    removed = first[10:300:3]
    index.update(embeddings, later, removed)
    left = np.setdiff1d(rows, removed)
    assert index.num_clusters == num_clusters  # not clustered anew
    assert index.rows().tolist() == left.tolist()
    assert_nearest(index.search(queries, 900), embeddings, left, queries, 900)
    assert not np.isin(index.within(queries, 3).rows, removed).any()
    index.update(embeddings, removed[:5], later[:1])
    left = np.setdiff1d(np.union1d(left, removed[:5]), later[:1])
    assert_nearest(index.search(queries, 20), embeddings, left, queries, 20)
    if kind is not ExactIndex:
        opened = kind(tmp_path / "index.faiss", probes=num_clusters)
        assert opened.num_clusters == num_clusters
        assert opened.rows().tolist() == left.tolist()
        assert_nearest(opened.search(queries, 20), embeddings, left, queries, 20)


@every_kind
def test_all_rows_may_go_and_come_again(kind, tmp_path, data):
    embeddings, rows, queries = data
    index = ready(kind, tmp_path, embeddings, rows)
    none = np.empty(0, np.int64)
    index.update(embeddings, none, rows)
    assert index.rows().tolist() == []
    found = index.search(queries, 3)
    assert found.rows.shape == found.distances.shape == (len(queries), 0)
    assert index.cost(queries).rows == 0
    assert len(index.within(queries, 2).rows) == 0
    index.update(embeddings, rows[:50], none)
    index.probes = index.num_clusters
    assert_nearest(index.search(queries, 9), embeddings, rows[:50], queries, 9)


@clustering
def test_what_was_not_built_yet_finds_nothing(kind, tmp_path, data):
    index = kind(tmp_path / "index.faiss")
    assert index.rows().tolist() == []
    assert index.search(data[2], 3).rows.shape == (len(data[2]), 0)
    assert index.within(data[2], 3).limits.tolist() == [0] * (len(data[2]) + 1)
    assert index.cost(data[2]) == SearchCost(0, 0)
    index.update(data[0], np.empty(0, np.int64), np.empty(0, np.int64))
    assert not (tmp_path / "index.faiss").exists()


@every_kind
@pytest.mark.parametrize("count", [1, 2, 38, 39, 100])
def test_few_images(kind, tmp_path, data, count):
    embeddings, rows, queries = data
    rows = rows[:count]
    index = ready(kind, tmp_path, embeddings, rows)
    assert_nearest(index.search(queries, 20), embeddings, rows, queries, 20)
    assert_within(index.within(queries, 1.2), embeddings, rows, queries, 1.2)


@every_kind
def test_images_that_are_all_alike(kind, tmp_path):
    embeddings = np.repeat(clustered(1), 300, axis=0)
    index = ready(kind, tmp_path, embeddings, np.arange(300))
    found = index.search(embeddings[:1], 300)
    assert sorted(found.rows[0]) == list(range(300))
    np.testing.assert_allclose(found.distances, 0, atol=2e-3)


def test_no_part_of_a_hierarchy_is_without_means(tmp_path, data):
    """What came to such a part would be lost."""
    embeddings, rows, queries = data
    copies = np.repeat(clustered(1), 900, axis=0)
    others = unit(np.random.default_rng(3).normal(size=(500, DIM)))
    for number, (made_of, some) in enumerate(
        [(copies, np.arange(900)), (embeddings, rows), (embeddings[rows] ** 3, np.arange(857))]
    ):
        matrix = np.concatenate([made_of, others])
        index = HierarchyIndex(tmp_path / f"{number}.faiss", num_clusters=20)
        index.update(matrix, some, np.empty(0, np.int64))
        added = np.arange(len(matrix) - 500, len(matrix))  # unlike those that it was made of
        index.update(matrix, added, np.empty(0, np.int64))
        assert index.rows().tolist() == np.union1d(some, added).tolist()
        upper = faiss.downcast_index(index._index.quantizer)
        assert all(upper.invlists.list_size(part) for part in range(upper.nlist))
        found = index.search(queries[:3], 2000, probes=index.num_clusters)
        assert (found.rows >= 0).all()


@clustering
def test_outgrown_clusters_are_made_anew(kind, tmp_path, data):
    embeddings, rows, queries = data
    index = built(kind, tmp_path, embeddings, rows[:100])
    before = index.num_clusters
    index.update(embeddings, rows[100:120], rows[:2])
    assert index.num_clusters == before  # 118 rows are not enough for twice as many
    index.update(embeddings, rows[120:], np.empty(0, np.int64))
    assert index.num_clusters > 2 * before
    index.probes = index.num_clusters
    assert_nearest(index.search(queries, 20), embeddings, rows[2:], queries, 20)


@clustering
def test_one_more_image_does_not_cluster_anew(kind, tmp_path, data, monkeypatch):
    embeddings, rows, _ = data
    for seed in range(3):
        some = np.sort(np.random.default_rng(seed).choice(rows, 700, replace=False))
        folder = tmp_path / str(seed)
        folder.mkdir()
        index = built(kind, folder, embeddings, some)
        other = np.setdiff1d(rows, some)
        with monkeypatch.context() as patch:
            patch.setattr(kind, "_quantizer", None)
            index.update(embeddings, other[:1], some[:1])


@clustering
def test_number_of_clusters_can_be_asked_for(kind, tmp_path, data):
    embeddings, rows, _ = data
    index = built(kind, tmp_path, embeddings, rows, num_clusters=9)
    assert 7 <= index.num_clusters <= 11
    if kind is ClusterIndex:
        assert index.num_clusters == 9


@clustering
def test_same_rows_same_bytes(kind, tmp_path, data):
    embeddings, rows, _ = data
    contents = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        built(kind, folder, embeddings, rows)
        contents.append((folder / "index.faiss").read_bytes())
    assert contents[0] == contents[1]


@clustering
def test_clustering_anew_keeps_the_rows(kind, tmp_path, data):
    embeddings, rows, queries = data
    index = built(kind, tmp_path, embeddings, rows)
    index.rebuild(embeddings)
    index.probes = index.num_clusters
    assert_nearest(index.search(queries, 20), embeddings, rows, queries, 20)


@clustering
def test_a_file_that_is_cut_off_is_refused(kind, tmp_path, data):
    embeddings, rows, _ = data
    built(kind, tmp_path, embeddings, rows)
    file = tmp_path / "index.faiss"
    content = file.read_bytes()
    sizes = {0, 1, 3, 4, 8, 40, len(content) - 1, len(content) - 40}
    sizes |= set(np.linspace(50, len(content) - 50, 40).astype(int).tolist())
    for size in sorted(sizes):
        file.write_bytes(content[:size])
        with pytest.raises(InputError) as caught:
            kind(file)
        assert str(caught.value).startswith(f"{file}: cut off, damaged, or no index")
        assert "\n" not in str(caught.value)


def body_of(content):
    return content[: clusters.ENDING.unpack(content[-clusters.ENDING.size :])[1]]


@pytest.mark.slow
@clustering
def test_a_flipped_bit_is_named_before_it_is_read(kind, tmp_path, data, monkeypatch):
    monkeypatch.setattr(file_checksums, "PART_BYTES", 512)
    embeddings, rows, queries = data
    file = tmp_path / "index.faiss"
    sound = built(kind, tmp_path, embeddings, rows)
    content = file.read_bytes()
    checksums_end = len(content) - clusters.ENDING.size
    wanted = sound.search(queries, 20, probes=10_000)
    for byte in range(0, checksums_end, 61):
        flipped = bytearray(content)
        flipped[byte] ^= 1 << byte % 8
        file.write_bytes(flipped)
        with pytest.raises(InputError, match=r"index\.faiss: .*damaged"):
            kind(file).search(queries, 20, probes=10_000)
    file.write_bytes(content)
    found = kind(file).search(queries, 20, probes=10_000)
    np.testing.assert_array_equal(found.rows, wanted.rows)


def test_only_visited_clusters_are_checked(tmp_path, data, monkeypatch):
    monkeypatch.setattr(file_checksums, "PART_BYTES", 64)
    embeddings, rows, queries = data
    file = tmp_path / "index.faiss"
    sound = built(ClusterIndex, tmp_path, embeddings, rows)
    wanted = sound.search(queries[:1], 5, probes=1)
    flipped = bytearray(file.read_bytes())
    size = len(body_of(bytes(flipped)))
    outcomes = set()
    for byte in range(size - 9_000, size, 97):
        flipped[byte] ^= 1
        file.write_bytes(flipped)
        flipped[byte] ^= 1
        try:
            found = ClusterIndex(file).search(queries[:1], 5, probes=1)
        except InputError:
            outcomes.add("named")
            continue
        np.testing.assert_array_equal(found.rows, wanted.rows)
        outcomes.add("not visited")
    assert outcomes == {"named", "not visited"}


def test_damaged_clusters_are_not_written_anew_as_sound(tmp_path, data, monkeypatch):
    monkeypatch.setattr(file_checksums, "PART_BYTES", 64)
    embeddings, rows, _ = data
    built(ClusterIndex, tmp_path, embeddings, rows[:-5])
    file = tmp_path / "index.faiss"
    flipped = bytearray(file.read_bytes())
    flipped[len(body_of(bytes(flipped))) - 100] ^= 1
    file.write_bytes(flipped)
    index = ClusterIndex(file)
    with pytest.raises(InputError, match="damaged"):
        index.update(embeddings, rows[-5:], np.empty(0, np.int64))
    assert file.read_bytes() == flipped


@clustering
def test_a_file_without_checksums_is_still_read(kind, tmp_path, data):
    embeddings, rows, queries = data
    built(kind, tmp_path, embeddings, rows)
    file = tmp_path / "index.faiss"
    content = file.read_bytes()
    file.write_bytes(body_of(content) + content[-clusters.ENDING.size :])
    index = kind(file, probes=10_000)
    assert_nearest(index.search(queries, 20), embeddings, rows, queries, 20)
    index.update(embeddings, np.empty(0, np.int64), rows[:1])
    assert len(file.read_bytes()) > len(body_of(file.read_bytes())) + clusters.ENDING.size


@clustering
def test_an_ending_without_a_beginning_is_refused(kind, tmp_path):
    file = tmp_path / "index.faiss"
    file.write_bytes(b"x" * 50 + clusters.ENDING.pack(kind.kind.encode(), 50))
    with pytest.raises(InputError, match="cut off, damaged, or no index"):
        kind(file)


@clustering
def test_a_foreign_file_is_refused(kind, tmp_path):
    file = tmp_path / "index.faiss"
    for content in (b"no index\n" * 1000, b"", json.dumps({"a": 1}).encode()):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cut off, damaged, or no index"):
            kind(file)
    faiss.write_index(faiss.IndexFlatL2(3), str(file))
    with pytest.raises(InputError, match="cut off, damaged, or no index"):
        kind(file)


def test_clusters_are_no_hierarchy(tmp_path, data):
    embeddings, rows, _ = data
    for kind, other in ((ClusterIndex, HierarchyIndex), (HierarchyIndex, ClusterIndex)):
        index = built(kind, tmp_path, embeddings, rows)
        with pytest.raises(InputError, match=f"no index of kind {other.kind}"):
            other(index._file)
        index._file.unlink()


@clustering
@pytest.mark.parametrize("fault", ["write", "exchange", "killed"])
def test_a_write_that_fails_leaves_what_was(kind, tmp_path, data, monkeypatch, fault):
    embeddings, rows, queries = data
    index = built(kind, tmp_path, embeddings, rows[:700])
    index.probes = index.num_clusters
    before = index._file.read_bytes()
    write = faiss.write_index

    def half(written, path):
        write(written, path)
        with open(path, "r+b") as file:
            file.truncate(1000)
        if fault == "write":
            raise RuntimeError("Error in write:\n  No space left on device")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if fault == "exchange":
            patch.setattr(type(tmp_path), "replace", lambda *_: 1 / 0)
        else:
            patch.setattr(faiss, "write_index", half)
        with pytest.raises((InputError, ZeroDivisionError, KeyboardInterrupt)) as caught:
            index.update(embeddings, rows[700:], rows[:50])
    if fault == "write":
        said = f"{index._file}: cannot be written (No space left on device); "
        assert str(caught.value).startswith(said)
    assert index._file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["index.faiss"]
    for each in (index, kind(index._file, probes=index.num_clusters)):
        assert each.rows().tolist() == rows[:700].tolist()
        assert_nearest(each.search(queries, 9), embeddings, rows[:700], queries, 9)
    index.update(embeddings, rows[700:], rows[:50])
    assert index.rows().tolist() == rows[50:].tolist()


def test_an_open_index_outlives_its_file(tmp_path, data):
    embeddings, rows, queries = data
    index = ready(ClusterIndex, tmp_path, embeddings, rows)
    with atomic_path(index._file) as temporary:
        temporary.write_bytes(b"another")
    assert_nearest(index.search(queries, 20), embeddings, rows, queries, 20)


def replacing(contents, file, read):
    """`faiss.read_index`, but before each call the file is replaced by the next of `contents`."""

    def replaced(*arguments):
        content = next(contents, None)
        if content is not None:
            with atomic_path(file) as temporary:
                temporary.write_bytes(content)
        return read(*arguments)

    return replaced


@clustering
def test_a_file_that_is_replaced_while_it_is_read(kind, tmp_path, data, monkeypatch):
    monkeypatch.setattr(file_checksums, "PART_BYTES", 512)
    embeddings, rows, queries = data
    file = tmp_path / "index.faiss"
    built(kind, tmp_path, embeddings, rows)
    whole = file.read_bytes()
    file.unlink()
    built(kind, tmp_path, embeddings, rows[:100])
    read = faiss.read_index
    monkeypatch.setattr(faiss, "read_index", replacing(iter([whole]), file, read))
    found = kind(file, probes=10_000).search(queries, 20)
    assert_nearest(found, embeddings, rows, queries, 20)
    monkeypatch.setattr(faiss, "read_index", replacing(itertools.repeat(whole), file, read))
    with pytest.raises(InputError, match=r"index\.faiss: replaced 10 times while it was read"):
        kind(file)


def recall_by_hand(embeddings, rows, query_rows, found, count):
    """Share of what was found that is as near as the nearest others, in a loop."""
    hand = by_hand(embeddings, rows, embeddings[query_rows])
    shares = []
    for number, own in enumerate(query_rows):
        hand[number, own] = np.inf
        count = min(count, len(rows) - 1)
        farthest = np.sort(hand[number])[count - 1]
        others = [row for row in found[number] if row != own][:count]
        shares.append(
            sum(row >= 0 and hand[number, row] <= farthest + 1e-5 for row in others) / count
        )
    return np.mean(shares)


@clustering
@pytest.mark.parametrize("num_queries", [30, 10_000])
def test_recalls_are_those_of_a_loop(kind, tmp_path, data, num_queries):
    embeddings, rows, _ = data
    truth = GroundTruth(embeddings, rows, num_queries=num_queries, seed=4)
    assert len(truth.query_rows) == min(num_queries, len(rows))
    assert set(truth.query_rows) <= set(rows)
    assert (np.diff(truth.query_rows) > 0).all()
    np.testing.assert_array_equal(truth.queries, embeddings[truth.query_rows])
    index = built(kind, tmp_path, embeddings, rows)
    seen = []
    for probes in (1, 3, index.num_clusters):
        found = index.search(truth.queries, 101, probes=probes)
        recalls = truth.recalls(found.distances, found.rows, (1, 10, 100))
        if num_queries == 30:
            for count, recall in zip((1, 10, 100), recalls, strict=True):
                wanted = recall_by_hand(embeddings, rows, truth.query_rows, found.rows, count)
                assert recall == pytest.approx(wanted, abs=1e-9)
        seen.append(recalls)
    assert seen[-1] == [1, 1, 1]
    assert 0 < seen[0][2] < seen[1][2] < 1


def test_an_image_does_not_find_itself():
    """Rows 0 and 1 are 0.1 apart, row 2 is 1 away from row 0, row 3 is 2 away."""
    embeddings = np.array([[0], [0.1], [1], [2]], np.float32)
    truth = GroundTruth(embeddings, np.arange(4))
    assert truth.query_rows.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(truth.exact[0], [0.1, 1, 2], atol=1e-3)
    np.testing.assert_allclose(truth.exact[3], [1, 1.9, 2], atol=1e-3)
    rows = np.array([[0, 1, 2, 3], [1, 2, 3, -1], [2, 3, -1, -1], [2, 1, 0, 3]])
    distances = np.array(
        [[0, 0.1, 1, 2], [0, 0.9, 1.9, np.inf], [0, 1, np.inf, np.inf], [1, 1.9, 2, 2]], np.float32
    )
    # Nearest others: 1; 0; 1 at 0.9; 2 at 1. Found first: 1; 2 at 0.9; 3 at 1; 2 at 1.
    assert truth.recalls(distances, rows, [1]) == [2 / 4]
    # The nearest two: 1 2; 0 2; 1 0 or 3, at 1; 2 1. Found: 1 2; 2; 3; 2 1.
    # Row 1's second is 2 at 0.9, and 3 at 1.9 is beyond it.
    assert truth.recalls(distances, rows, [2]) == [(2 + 1 + 1 + 2) / 8]


def test_copies_count_as_one_another():
    embeddings = np.repeat(clustered(4), 5, axis=0)
    rows = np.arange(20)
    truth = GroundTruth(embeddings, rows)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(20)  # any of the copies comes first
        found = ExactIndex(embeddings[order], rows).search(truth.queries, 5)
        assert truth.recalls(found.distances, order[found.rows], [1, 4]) == [1, 1]


def test_yardstick_of_one_image():
    embeddings = clustered(1)
    truth = GroundTruth(embeddings, np.array([0]))
    found = ExactIndex(embeddings, np.array([0])).search(truth.queries, 1)
    assert truth.recalls(found.distances, found.rows, (1, 10)) == [1, 1]
    (measurement,) = measure_search(ExactIndex(embeddings, np.array([0])), truth)
    assert measurement.recall == (1, 1, 1)


@clustering
@pytest.mark.parametrize("target", [0.3, 0.8, 0.95, 1.0])
def test_fewest_probes_reach_the_target_and_one_less_does_not(kind, tmp_path, data, target):
    embeddings, rows, _ = data
    index = built(kind, tmp_path, embeddings, rows)
    truth = GroundTruth(embeddings, rows, num_queries=40)

    def recall(probes):
        found = index.search(truth.queries, 21, probes=probes)
        return recall_by_hand(embeddings, rows, truth.query_rows, found.rows, 20)

    probes, reached = fewest_probes(index, truth, target)
    assert reached >= target
    assert reached == pytest.approx(recall(probes), abs=1e-9)
    assert probes == 1 or recall(probes - 1) < target
    assert (probes == 1) == (recall(1) >= target)


def test_fewest_probes_where_the_target_is_out_of_reach(tmp_path, data):
    class Deaf(ClusterIndex):
        def search(self, queries, count, *, probes=None):
            found = super().search(queries, count, probes=probes)
            return found._replace(distances=found.distances + 1)

    embeddings, rows, _ = data
    index = built(Deaf, tmp_path, embeddings, rows)
    truth = GroundTruth(embeddings, rows, num_queries=10)
    probes, reached = fewest_probes(index, truth, 0.9)
    assert probes == index.num_clusters
    assert reached < 0.9


@clustering
def test_measures(kind, tmp_path, data):
    embeddings, rows, _ = data
    index = built(kind, tmp_path, embeddings, rows)
    truth = GroundTruth(embeddings, rows, num_queries=25)
    measurements = measure_search(index, truth)
    doubled = [1, 2, 4, 8, 16, 32][: len(measurements)]
    assert [measurement.probes for measurement in measurements][:-1] == doubled[:-1]
    assert measurements[-1].probes in (doubled[-1], index.num_clusters)
    assert measurements[-1].recall == (1, 1, 1)
    assert min(measurements[-2].recall) < 1
    for measurement in measurements:
        found = index.search(truth.queries, 101, probes=measurement.probes)
        cost = index.cost(truth.queries, probes=measurement.probes)
        assert measurement.share == pytest.approx(cost.rows / 25 / len(rows))
        for count, recall in zip((1, 10, 100), measurement.recall, strict=True):
            wanted = recall_by_hand(embeddings, rows, truth.query_rows, found.rows, count)
            assert recall == pytest.approx(wanted, abs=1e-9)
        assert 0 < measurement.p50 <= measurement.p99 < 10_000
    shares = [measurement.share for measurement in measurements]
    assert shares == sorted(shares)
    assert shares[0] < 0.5


def test_measure_of_an_exact_index(data):
    embeddings, rows, _ = data
    truth = GroundTruth(embeddings, rows, num_queries=5)
    (measurement,) = measure_search(ExactIndex(embeddings, rows), truth)
    assert (measurement.probes, measurement.recall, measurement.share) == (0, (1, 1, 1), 1)


def test_measure_of_an_engine_that_does_not_say(data):
    class Silent(ExactIndex):
        def cost(self, queries, *, probes=None):
            return None

    embeddings, rows, _ = data
    (measurement,) = measure_search(
        Silent(embeddings, rows), GroundTruth(embeddings, rows, num_queries=5)
    )
    assert np.isnan(measurement.share)


@pytest.mark.parametrize(
    ("most", "numbers"),
    [(0, [0]), (1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])],
)
def test_probes_are_doubled(most, numbers):
    assert tuning._doubling(most) == numbers


@pytest.mark.parametrize("rows", [[3], [2, 3], [0, 4]])
def test_a_row_that_is_not_there_is_an_error_and_no_shorter_block(rows):
    with pytest.raises(InputError, match=f"row {rows[-1]} of 3 is asked for"):
        read_rows(np.eye(3, dtype=np.float32), np.array(rows))
