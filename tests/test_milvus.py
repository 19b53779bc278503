import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import milvus_server
import numpy as np
import pymilvus
import pytest
from collections_of import make_model

from deep_ranking.cli.main import run_command
from deep_ranking.files import InputError
from deep_ranking.search import ranker
from deep_ranking.search.collection import Collection, Settings
from deep_ranking.search.collection.records import FoundFile
from deep_ranking.search.index import kinds, milvus, milvus_filling, milvus_retry, milvus_schema
from deep_ranking.search.index.kinds import index_settings, open_index, with_milvus_type
from deep_ranking.search.index.milvus import MilvusIndex
from deep_ranking.search.index.milvus_filling import wait_until_built
from deep_ranking.search.index.milvus_labels import LabelState, expression_of
from deep_ranking.search.index.milvus_retry import MilvusConnection
from deep_ranking.search.index.milvus_schema import index_type, num_channels, search_parameters
from deep_ranking.search.index.tuning import GroundTruth
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.subset import Subset

DIMENSION = 16
NUM_ROWS = 300
NONE = np.empty(0, np.int64)
ALL = np.arange(NUM_ROWS)


def unit_rows(count, dimension=DIMENSION, seed=0):
    rows = np.random.default_rng(seed).normal(0.2, 1, (count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


MATRIX = unit_rows(NUM_ROWS)
MATRIX[7] = MATRIX[5]  # two images of the same content but for a pixel
QUERIES = np.concatenate([unit_rows(6, seed=1), MATRIX[5:6]])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with milvus_server.running(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def emptied(server):
    """The server, whose collections are dropped at the end: what it holds delays its next start."""
    yield server
    client = pymilvus.MilvusClient(server.uri)
    for name in client.list_collections():
        client.drop_collection(name)


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.milvus)])
def uri(request, tmp_path):
    if request.param == "server":
        yield request.getfixturevalue("emptied").uri
        return
    path = str(tmp_path / "lite.db")
    yield path
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(path)


@pytest.fixture
def make(tmp_path):
    """A function that makes a collection whose embeddings are kept, and none indexed."""

    def make(uri, matrix=MATRIX, folder="collection", fingerprint="c0ffee", **index):
        model = make_model(tmp_path / "some.h5")
        settings = Settings(
            fingerprint=fingerprint,
            dimension=matrix.shape[1],
            image_size=32,
            dtype="float32",
            batch_size=8,
            root=str(tmp_path),
            index={"kind": "milvus", "uri": uri, **index},
        )
        collection = Collection.make(tmp_path / folder, settings, model)
        keys = [number.to_bytes(32) for number in range(len(matrix))]
        collection.store.extend([(keys, matrix)])
        return collection

    return make


def held(collection, rows=ALL, **options):
    """An index that was told to hold some rows, opened anew."""
    index = MilvusIndex(collection, **options)
    index.update(collection.embeddings(), rows, NONE)
    return MilvusIndex(collection)


def nearest(queries, rows, count, matrix=MATRIX):
    """What is right: distances and rows of the nearest."""
    distances = np.sqrt(((queries[:, None] - matrix[None, rows]) ** 2).sum(-1))
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(distances, order, 1), rows[order]


def check_search(index, rows, count=9):
    found = index.search(QUERIES, count)
    distances, expected = nearest(QUERIES, rows, count)
    np.testing.assert_allclose(found.distances, distances, atol=1e-3)
    np.testing.assert_array_equal(np.sort(found.rows[:-1]), np.sort(expected[:-1]))
    assert {5, 7} & set(rows) == {5, 7} & set(found.rows[-1])
    assert found.rows.dtype == np.int64
    assert found.distances.dtype == np.float32
    assert index.cost(QUERIES) is None


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_finds_what_brute_force_finds(uri, make, capfd, caplog):
    collection = make(uri)
    index = held(collection)
    np.testing.assert_array_equal(index.rows(), ALL)
    check_search(index, ALL)
    opened = open_index(collection)
    assert isinstance(opened, MilvusIndex)
    assert opened.kind == "milvus"
    check_search(opened, ALL)
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_gives_all_if_more_are_asked_for(uri, make):
    index = held(make(uri), ALL[:20])
    found = index.search(QUERIES, 50)
    assert found.rows.shape == (len(QUERIES), 20)
    assert (np.sort(found.rows) == ALL[:20]).all()


def test_adds_and_removes(uri, make):
    collection = make(uri)
    index = held(collection, ALL[:200])
    check_search(index, ALL[:200])
    index.update(collection.embeddings(), ALL[200:], ALL[10:150])
    rows = np.concatenate([ALL[:10], ALL[150:]])
    np.testing.assert_array_equal(index.rows(), rows)
    check_search(index, rows)
    opened = MilvusIndex(collection)
    np.testing.assert_array_equal(opened.rows(), rows)
    check_search(opened, rows)


@pytest.mark.slow
def test_a_row_that_is_sent_twice_is_there_once(uri, make):
    index = held(make(uri), ALL[:100])
    index.update(MATRIX, ALL[50:150], NONE)
    np.testing.assert_array_equal(index.rows(), ALL[:150])
    assert index.search(QUERIES, 200).rows.shape[1] == 150
    [count] = index.connection.client().query(
        index.name, output_fields=["count(*)"], consistency_level="Strong"
    )
    assert count["count(*)"] == 150


@pytest.mark.slow
def test_small_batches_and_pages(uri, make, monkeypatch):
    monkeypatch.setattr(milvus_filling, "BATCH_BYTES", 4 * DIMENSION * 70)
    monkeypatch.setattr(milvus, "MOST_RESULTS", 50)
    monkeypatch.setattr(milvus, "RESULTS_AT_ONCE", 20)
    collection = make(uri)
    index = held(collection)
    np.testing.assert_array_equal(index.rows(), ALL)
    check_search(index, ALL)
    index.update(MATRIX, NONE, ALL[:120])
    np.testing.assert_array_equal(index.rows(), ALL[120:])


def test_without_rows(uri, make):
    index = MilvusIndex(make(uri))
    assert index.rows().shape == (0,)
    assert index.search(QUERIES, 5).rows.shape == (len(QUERIES), 0)
    within = index.within(QUERIES, 1.0)
    assert within.limits.tolist() == [0] * (len(QUERIES) + 1)
    assert len(within.rows) == len(within.distances) == 0


@pytest.mark.parametrize("radius", [0.3, 1.0, 1.45])
def test_within_gives_all_that_are_nearer(uri, make, radius):
    index = held(make(uri))
    distances, rows = nearest(QUERIES, ALL, NUM_ROWS)
    found = index.within(QUERIES, radius)
    counts = np.diff(found.limits)
    np.testing.assert_array_equal(counts, (distances < radius).sum(axis=1))
    assert counts[-1] >= 2  # the query and its copy
    assert radius < 1.4 or counts.max() > milvus.FIRST_LIMIT  # looked further
    for number, (begin, end) in enumerate(zip(found.limits, found.limits[1:], strict=False)):
        order = np.argsort(found.rows[begin:end])
        near = distances[number] < radius
        expected = np.argsort(rows[number][near])
        np.testing.assert_array_equal(found.rows[begin:end][order], rows[number][near][expected])
        np.testing.assert_allclose(
            found.distances[begin:end][order], distances[number][near][expected], atol=1e-3
        )


@pytest.mark.slow
def test_tells_what_is_more_than_milvus_gives(uri, make, monkeypatch):
    index = held(make(uri))
    monkeypatch.setattr(milvus, "MOST_RESULTS", 100)
    with pytest.raises(InputError) as error:
        index.within(QUERIES, 1.9)
    one_line(error, uri, "100 or more", "1.9")
    with pytest.raises(InputError) as error:
        index.search(QUERIES, 101)
    one_line(error, uri, "at most 100", "101")


def test_another_model_is_refused(uri, make):
    name = f"shared_{time.time_ns()}"
    held(make(uri, name=name), ALL[:5])
    with pytest.raises(InputError) as error:
        MilvusIndex(make(uri, folder="other", fingerprint="decaf", name=name))
    one_line(error, uri, name, "c0ffee", "decaf")
    with pytest.raises(InputError) as error:
        MilvusIndex(make(uri, matrix=unit_rows(3, 8), folder="third", name=name))
    one_line(error, uri, name, "16", "8")


@pytest.mark.slow
def test_a_folder_finds_its_own_rows_wherever_it_is(uri, make, tmp_path):
    collection = make(uri)
    held(collection, ALL[:40])
    shutil.move(collection.folder, tmp_path / "moved")
    moved = MilvusIndex(Collection.open(tmp_path / "moved"))
    np.testing.assert_array_equal(moved.rows(), ALL[:40])
    anew = MilvusIndex(make(uri))  # of the same path, but another
    assert len(anew.rows()) == 0
    anew.update(MATRIX, ALL[50:60], NONE)
    np.testing.assert_array_equal(anew.rows(), ALL[50:60])
    np.testing.assert_array_equal(moved.rows(), ALL[:40])


@pytest.mark.slow
def test_large_collections_get_a_graph(uri, make):
    matrix = unit_rows(3000, 32)
    collection = make(uri, matrix)
    index = held(collection, np.arange(3000))
    about = index.connection.client().describe_index(index.name, milvus_schema.EMBEDDING)
    assert about["index_type"] == "HNSW"
    queries = unit_rows(50, 32, seed=5)
    found = index.search(queries, 10)
    _, expected = nearest(queries, np.arange(3000), 10, matrix)
    hits = [len(set(a) & set(b)) for a, b in zip(found.rows, expected, strict=True)]
    assert np.mean(hits) / 10 > 0.95


@pytest.mark.slow
def test_another_index_of_the_server_is_kept(uri, make):
    collection = make(uri)
    index = held(collection)
    client, name = index.connection.client(), index.name
    client.release_collection(name)
    client.drop_index(name, milvus_schema.EMBEDDING)
    inverted = client.prepare_index_params()
    inverted.add_index(
        milvus_schema.EMBEDDING,
        index_name=milvus_schema.EMBEDDING,
        index_type="IVF_FLAT",
        metric_type="L2",
        params={"nlist": 128},
    )
    client.create_index(name, inverted)
    index = MilvusIndex(collection)
    assert index._index_type == "IVF_FLAT"
    index.probes = 128
    check_search(index, ALL)
    index.update(MATRIX, NONE, ALL[:3])
    check_search(index, ALL[3:])
    assert client.describe_index(name, milvus_schema.EMBEDDING)["index_type"] == "IVF_FLAT"


def killing(index, server, after, then=lambda: None):
    """Make the server be killed before a message to it."""
    ask, count = index.connection.ask, iter(range(1000))

    def wrapped(method, name, **arguments):
        if method in ("upsert", "insert") and next(count) == after:
            server.kill()
            then()
        return ask(method, name, **arguments)

    index.connection.ask = wrapped


@pytest.mark.milvus
def test_insertion_goes_on_after_the_server_was_killed(emptied, make, monkeypatch):
    server = emptied
    monkeypatch.setattr(milvus_filling, "BATCH_BYTES", 4 * DIMENSION * 50)
    collection = make(server.uri)
    index = MilvusIndex(collection, retry_seconds=1)
    killing(index, server, after=3)
    with pytest.raises(InputError) as error:
        index.update(MATRIX, ALL, NONE)
    one_line(error, server.uri, "run the same command again")
    server.start()
    index = MilvusIndex(collection)
    rows = index.rows()
    np.testing.assert_array_equal(rows, ALL[:150])
    index.update(MATRIX, np.setdiff1d(ALL, rows), NONE)
    np.testing.assert_array_equal(index.rows(), ALL)
    check_search(index, ALL)


@pytest.mark.milvus
def test_a_server_that_comes_back_is_not_noticed(emptied, make, monkeypatch, capfd, caplog):
    server = emptied
    monkeypatch.setattr(milvus_filling, "BATCH_BYTES", 4 * DIMENSION * 50)
    index = MilvusIndex(make(server.uri))
    killing(index, server, after=2, then=server.start)
    index.update(MATRIX, ALL, NONE)
    np.testing.assert_array_equal(index.rows(), ALL)
    check_search(index, ALL)
    server.kill()
    server.start()
    check_search(index, ALL)
    assert not caplog.records
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_server_that_is_down_is_named(make, capfd, caplog):
    uri = f"http://127.0.0.1:{milvus_server.free_port()}"
    begin = time.monotonic()
    with pytest.raises(InputError) as error:
        MilvusIndex(make(uri), retry_seconds=1)
    assert 1 <= time.monotonic() - begin < 10
    one_line(error, uri, "does not answer", "1 s", "refused", "run the same command again")
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_a_file_that_another_process_has_open(make, tmp_path):
    path = tmp_path / "lite.db"
    path.mkdir()
    with (path / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError) as error:
            MilvusIndex(make(str(path)))
    one_line(error, str(path), "another process")


class Recorder:
    """In the place of the client: takes down what it is made with."""

    def __init__(self, uri, **options):
        self.made.append((uri, options))


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr("pymilvus.MilvusClient", Recorder)
    Recorder.made = []
    return Recorder.made


def test_token_and_certificate_are_passed_on_and_not_kept(make, made, monkeypatch, tmp_path):
    certificate = tmp_path / "ca.pem"
    certificate.write_text("a certificate")
    monkeypatch.setenv(kinds.TOKEN_VARIABLE, "root:secret")
    monkeypatch.setenv(milvus_retry.CERTIFICATE_VARIABLE, str(certificate))
    collection = make("https://milvus.example:443")
    MilvusIndex(collection)
    [(uri, options)] = made
    assert uri == "https://milvus.example:443"
    assert options["token"] == "root:secret"
    assert options["secure"] is True
    assert options["server_pem_path"] == str(certificate)
    for file in collection.folder.iterdir():
        assert b"secret" not in file.read_bytes()
    certificate.unlink()
    with pytest.raises(InputError) as error:
        MilvusIndex(collection)
    one_line(error, milvus_retry.CERTIFICATE_VARIABLE, str(certificate))


def test_without_token_and_tls(make, made, monkeypatch):
    monkeypatch.delenv(kinds.TOKEN_VARIABLE, raising=False)
    MilvusIndex(make("http://milvus.example:19530"))
    [(_, options)] = made
    assert not {"token", "secure", "server_pem_path"} & set(options)


def test_a_password_in_the_address_is_refused_and_not_repeated(make):
    with pytest.raises(InputError) as error:
        MilvusIndex(make("http://root:secret@127.0.0.1:1"))
    one_line(error, kinds.TOKEN_VARIABLE)
    assert "secret" not in str(error.value)


def test_without_pymilvus(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError) as error:
        MilvusIndex(make("http://127.0.0.1:1"))
    one_line(error, "pip install 'deep-ranking[milvus]'")


class Failing:
    """A request that fails some times with an error, then succeeds."""

    def __init__(self, error, times):
        self.error, self.times, self.calls = error, times, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "answer"


def test_a_request_is_repeated_with_growing_pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr("deep_ranking.search.index.milvus_retry.time.sleep", pauses.append)
    request = Failing(pymilvus.MilvusException(message="no connection"), times=8)
    assert MilvusConnection("http://m:1", retry_seconds=60).retried(request, "n") == "answer"
    assert request.calls == 9
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


@pytest.mark.parametrize(
    ("code", "text"),
    [(100, "the collection n is gone"), (1100, "refuses the request (bad request)")],
)
def test_a_request_that_would_fail_again_is_not_repeated(code, text):
    request = Failing(pymilvus.MilvusException(code=code, message="bad request"), times=2)
    with pytest.raises(InputError) as error:
        MilvusConnection("http://m:1", retry_seconds=60).retried(request, "n")
    one_line(error, "http://m:1: ", text)
    assert request.calls == 1


@pytest.mark.parametrize(
    ("index_type", "expected"),
    [
        ("HNSW", {"ef": 100}),
        ("DISKANN", {"search_list": 100}),
        ("IVF_FLAT", {"nprobe": 32}),
        ("IVF_PQ", {"nprobe": 32}),
        ("FLAT", {}),
    ],
)
def test_search_parameters(index_type, expected):
    assert search_parameters(index_type, 32, 100) == expected
    assert search_parameters("HNSW", 300, 100) == {"ef": 300}


FOLDERS = ('cat "big"/it\'s', "cat/日本 x", "dog/deep/er")
LABELS = ('cat "big"', "cat", "dog")


def with_images(collection, skip=()):
    """Record an image for each row: its folder and class go by the row."""
    with closing(collection.images(writable=True)) as images, images.change():
        for row in range(len(collection.store)):
            if row in skip:
                continue
            content, kind = row.to_bytes(32), row % 3
            images.record(FoundFile(f"{FOLDERS[kind]}/{row}.jpg", 1, 1, LABELS[kind]), content)
            images.set_row(content, row)
    return collection


def check_rows(collection, rows=ALL):
    index = MilvusIndex(collection)
    np.testing.assert_array_equal(index.rows(), rows)
    assert index.count() == len(rows)  # none twice
    return index


def test_class_and_folder_are_looked_for_by_the_server(uri, make, monkeypatch):
    collection = with_images(make(uri))
    MilvusIndex(collection).bring_up_to_date(collection)
    monkeypatch.setattr(ranker, "ExactIndex", None)  # what compares images here
    searcher = Searcher(collection)
    for kind, (label, folder) in enumerate(zip(LABELS, FOLDERS, strict=True)):
        rows = ALL[kind::3]
        for limits in ({"label": label}, {"folder": folder.split("/")[0]}, {"folder": folder},
                       {"label": label, "folder": folder}):  # fmt: skip
            found = searcher.search(QUERIES[:6], 7, **limits)
            _, expected = nearest(QUERIES[:6], rows, 7)
            paths = [sorted(f"{FOLDERS[kind]}/{row}.jpg" for row in each) for each in expected]
            root = collection.settings.root
            assert [sorted(r.path[len(root) + 1 :] for r in each) for each in found] == paths
    monkeypatch.undo()
    # Classes that changed since are not asked of the server, until it has them.
    with closing(collection.images(writable=True)) as images, images.change():
        images.base.execute("UPDATE images SET class = ? WHERE row < 6", (b"owl",))
    assert searcher.index.search_subset(QUERIES, 5, Subset(frozenset(["owl"]))) is None
    assert {r.label for each in searcher.search(QUERIES, 4, label="owl") for r in each} == {"owl"}
    sent = []
    ask = milvus_filling.MilvusFilling._change

    def counted(self, embeddings, added, removed, bar):
        sent.extend(added.tolist())
        ask(self, embeddings, added, removed, bar)

    monkeypatch.setattr(milvus_filling.MilvusFilling, "_change", counted)
    MilvusIndex(collection).bring_up_to_date(collection)
    assert sent == [0, 1, 2, 3, 4, 5]
    found = MilvusIndex(collection).search_subset(QUERIES, 9, Subset(frozenset(["owl"])))
    assert (np.sort(found.rows) == np.arange(6)).all()
    check_rows(collection)


def test_what_has_not_changed_is_not_asked_for(make, tmp_path):
    collection = with_images(make(str(tmp_path / "lite.db")), skip=(3, 4))
    rows = np.delete(ALL, [3, 4])
    assert MilvusIndex(collection).bring_up_to_date(collection)[:2] == (298, 0)
    index, asked = MilvusIndex(collection), []
    ask = index.connection.ask

    def noted(method, name, **arguments):
        asked.append((method, arguments.get("output_fields")))
        return ask(method, name, **arguments)

    index.connection.ask = noted
    assert index.bring_up_to_date(collection) == (0, 0, 298)
    assert asked == [("query", ["count(*)"])]
    check_rows(collection, rows)
    (collection.folder / "milvus.state").write_text("{}")
    assert MilvusIndex(collection).bring_up_to_date(collection) == (0, 0, 298)


def test_partitions_and_ranges_of_rows(make, tmp_path, monkeypatch):
    monkeypatch.setattr(milvus_schema, "ROWS_OF_PARTITION", 128)
    monkeypatch.setattr(MilvusIndex, "rows_at_once", 64)
    monkeypatch.setattr(milvus, "MOST_RESULTS", 16)
    monkeypatch.setattr(milvus_filling, "WINDOW", 16)
    monkeypatch.setattr(milvus_filling, "BATCH_BYTES", 4 * DIMENSION * 20)
    collection = with_images(make(str(tmp_path / "lite.db")))
    index = MilvusIndex(collection)
    index.update(MATRIX, ALL[40:200], ALL[:0])
    np.testing.assert_array_equal(MilvusIndex(collection).rows(), ALL[40:200])
    assert MilvusIndex(collection).bring_up_to_date(collection) == (140, 0, 160)
    index = check_rows(collection)
    assert index.partitions == {"_default", "rows_1", "rows_2"}
    found = index.search(QUERIES[:6], 9)
    np.testing.assert_array_equal(np.sort(found.rows), np.sort(nearest(QUERIES[:6], ALL, 9)[1]))
    with closing(collection.images(writable=True)) as images, images.change():
        images.base.execute("DELETE FROM images WHERE row IN (5, 150, 299)")
    assert MilvusIndex(collection).bring_up_to_date(collection) == (0, 3, 300)
    check_rows(collection, np.delete(ALL, [5, 150, 299]))


def test_channels_and_parameters_go_by_the_size():
    assert [num_channels(each) for each in (0, 10**8, 10**8 + 1, 10**9, 10**12)] == [
        1,
        1,
        2,
        10,
        16,
    ]
    for dimension, parts in ((512, 128), (256, 64), (6, 1), (100, 25), (7, 1)):
        found = index_type("ivf_pq", dimension)
        assert found.parameters["m"] == parts and dimension % parts == 0
    assert index_type("ivf_pq", 512).parameters["nlist"] == 2048  # 262,144 rows in 512 MiB
    with pytest.raises(InputError, match="expected hnsw, ivf_pq, diskann"):
        index_type("flat", 8)


def test_expressions_of_names_that_are_not_plain():
    assert expression_of(Subset(frozenset(["b", 'a "x"']), "c/d")) == (
        'array_contains_any(classes, ["a \\"x\\"", "b"]) and array_contains(folders, "c/d")'
    )
    for name in ("a\\b", "a\nb", "x" * 1025, os.fsdecode(b"\xff")):
        assert expression_of(Subset(frozenset([name]))) is None
        assert expression_of(Subset(None, name)) is None
    assert expression_of(Subset(frozenset(map(str, range(1001))))) is None


def test_names_that_do_not_fit_are_looked_for_here(make, tmp_path):
    collection = make(str(tmp_path / "lite.db"), MATRIX[:9])
    with closing(collection.images(writable=True)) as images, images.change():
        for row in range(9):
            label = "x" * 2000 if row == 4 else "cat"
            images.record(FoundFile(f"{row}.jpg", 1, 1, label), row.to_bytes(32))
            images.set_row(row.to_bytes(32), row)
    MilvusIndex(collection).bring_up_to_date(collection)
    assert LabelState.read(collection.folder).fits is False
    searcher = Searcher(collection)
    assert searcher.index.search_subset(QUERIES, 5, Subset(frozenset(["cat"]))) is None
    assert len(searcher.search(QUERIES[:1], 20, label="cat")[0]) == 8


def test_types_that_milvus_lite_lacks_are_refused_in_a_line(tmp_path, capsys, monkeypatch):
    lite = index_settings(str(tmp_path / "lite.db"))
    assert with_milvus_type(lite, "hnsw")["type"] == "hnsw"
    for name in ("ivf_pq", "diskann"):
        with pytest.raises(InputError) as error:
            with_milvus_type(lite, name)
        one_line(error, str(tmp_path / "lite.db"), f"has no {name}", "take hnsw, or a server")
    monkeypatch.chdir(tmp_path)
    command = "-o i -m m.h5 --images . --milvus_index ivf_pq"
    with pytest.raises(SystemExit):
        run_command("index", command.split())
    assert "--milvus_index has no effect without an --index in Milvus" in capsys.readouterr().err
    assert run_command("index", [*command.split(), "--index", "lite.db"]) == 1
    assert "Milvus Lite, in a file, has no ivf_pq" in capsys.readouterr().err


def changed_type(collection, name):
    collection.change(index={**collection.settings.index, "type": name})
    index = MilvusIndex(collection)
    index.bring_up_to_date(collection)
    return MilvusIndex(collection)


@pytest.mark.milvus
def test_types_of_index_channels_and_partitions_of_a_server(emptied, make, monkeypatch):
    monkeypatch.setattr(milvus_schema, "ROWS_OF_PARTITION", 2048)
    monkeypatch.setattr(milvus_schema, "ROWS_OF_CHANNEL", 1000)
    matrix = np.random.default_rng(0).normal(size=(3000, 32)).astype(np.float32)
    matrix += 3 * matrix[np.arange(3000) % 60]  # clusters, as embeddings have
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    collection = with_images(make(emptied.uri, matrix, type="ivf_pq"))
    index = MilvusIndex(collection)
    index.bring_up_to_date(collection)
    wait_until_built(index)
    client = index.connection.client()
    about = client.describe_index(index.name, "embedding")
    assert (about["index_type"], about["m"]) == ("IVF_PQ", "8")
    assert client.describe_collection(index.name)["num_shards"] == 3
    assert set(client.list_partitions(index.name)) == {"_default", "rows_1"}
    truth = GroundTruth(matrix, np.arange(3000))
    found = index.search(truth.queries, 21)
    [recall] = truth.recalls(found.distances, found.rows, [20])
    assert recall > 0.9
    exact = np.linalg.norm(matrix[found.rows] - truth.queries[:, None], axis=2)
    np.testing.assert_allclose(found.distances, exact, atol=1e-5)  # not those of the codes
    index = changed_type(collection, "hnsw")
    wait_until_built(index)
    assert client.describe_index(index.name, "embedding")["index_type"] == "HNSW"
    assert index.count() == 3000
    found = index.search(truth.queries, 21)
    assert truth.recalls(found.distances, found.rows, [20]) == [pytest.approx(1, abs=0.01)]


@pytest.mark.milvus
def test_a_filling_that_is_killed_goes_on(emptied, make):
    collection = with_images(make(emptied.uri))
    program = Path(__file__).with_name("killed_filling.py")
    for count, is_carried_out, rows in ((3, "yes", 150), (2, "no", 200)):
        done = subprocess.run(
            [sys.executable, program, collection.folder, "50", str(count), is_carried_out],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        check_rows(collection, ALL[:rows])
    assert MilvusIndex(collection).bring_up_to_date(collection) == (100, 0, 200)
    index = check_rows(collection)
    found = index.connection.client().query(
        index.name, filter="row >= 0", output_fields=["row", "classes"], limit=1000,
        consistency_level="Strong",
    )  # fmt: skip
    assert sorted(each["row"] for each in found) == list(range(NUM_ROWS))
    assert all(list(each["classes"]) == [LABELS[each["row"] % 3]] for each in found)


def test_a_message_that_may_have_arrived_is_upserted(make, tmp_path, monkeypatch):
    """Milvus would keep both rows of a key that is inserted twice."""
    collection = with_images(make(str(tmp_path / "lite.db")))
    monkeypatch.setattr(milvus_filling, "BATCH_BYTES", 4 * DIMENSION * 100)
    index = MilvusIndex(collection)
    client, sent = index.connection.client(), []
    for method in ("insert", "upsert"):
        original = getattr(client, method)

        def send(*args, original=original, method=method, **options):
            answer = original(*args, **options)
            sent.append(method)
            if len(sent) == 2:
                raise pymilvus.MilvusException(message="the answer is lost")
            return answer

        monkeypatch.setattr(client, method, send)
    index.bring_up_to_date(collection)
    assert sent == ["upsert", "insert", "upsert", "insert"]
    check_rows(Collection.open(collection.folder))
