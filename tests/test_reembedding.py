"""A collection taken over to a new model: as if its images had been embedded by that model."""

import hashlib
from contextlib import closing

import numpy as np
import pytest
from collections_of import make_collection, make_model
from served import COLOURS, write_photos

from deep_ranking.files import InputError
from deep_ranking.search import reembedding
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.indexing import update_index
from deep_ranking.search.reembedding import files_of_rows, reembed_collection
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.smoothed_collection import update_smoothing
from deep_ranking.search.smoothed_rows import read_smoothed

DIM = 3


def drawn_row(path, seed):
    """A row that follows from the content of a file alone."""
    content = hashlib.sha256(path.read_bytes() + bytes([seed])).digest()
    row = np.random.default_rng(list(content)).normal(size=DIM).astype(np.float32)
    return row / np.linalg.norm(row)


def made_by(model_seed, folder, root, **options):
    paths = sorted(str(each.relative_to(root)) for each in root.rglob("*.png"))
    rows = {path: drawn_row(root / path, model_seed) for path in paths}
    return make_collection(folder, root, rows, **options)


@pytest.fixture
def root(tmp_path):
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def new_model(tmp_path):
    return make_model(tmp_path / "new.h5", embedding_size=DIM, dropout=0.5)


def taken_over(source, folder, model, **options):
    found = files_of_rows(source)
    embeddings = np.stack([drawn_row(each, 1) for each in found.files])
    return reembed_collection(source, folder, model, rows=found.rows, embeddings=embeddings)


def results(collection, queries):
    return [
        [(each.path, pytest.approx(each.distance, abs=1e-6), each.label) for each in found]
        for found in Searcher(collection).search(queries, 20)
    ]


@pytest.mark.parametrize(
    "index",
    [
        {"kind": "exact"},
        {"kind": "clusters", "clusters": 3, "probes": 2},
        {"kind": "hierarchy", "clusters": 3, "probes": 2},
    ],
)
def test_a_collection_is_as_if_it_was_embedded_by_the_new_model(
    tmp_path, root, new_model, index, monkeypatch
):
    # A cluster needs 39 images: these have fewer.
    monkeypatch.setattr("deep_ranking.search.index.clusters.LEAST_MEMBERS", 2)
    source = made_by(0, tmp_path / "old", root, index=index, precision="int8", dtype="float16")
    before = {each: each.read_bytes() for each in source.folder.iterdir() if each.is_file()}
    report = taken_over(source, tmp_path / "taught", new_model)
    assert (report.num_images, report.num_left_out) == (13, 0)
    wanted = made_by(1, tmp_path / "wanted", root, index=index, dtype="float16")
    update_index(wanted)
    made = Collection.open(tmp_path / "taught")
    assert made.settings.index == index
    assert made.settings.fingerprint == report.collection.settings.fingerprint
    assert made.settings.fingerprint != source.settings.fingerprint
    assert (made.settings.precision, made.settings.dtype) == ("float32", "float16")
    assert (made.settings.hits, made.settings.hits_of) == (
        wanted.settings.hits,
        wanted.settings.hits_of,
    )
    assert made.settings.hits_of
    queries = np.stack([drawn_row(root / "red" / "0.png", 1), drawn_row(root / "blue/2.png", 1)])
    exact = [Collection.open(each.folder) for each in (made, wanted)]
    for each in exact:
        each.change(index={"kind": "exact"})
    assert results(exact[0], queries) == results(exact[1], queries)
    assert len(open_index(report.collection).rows()) == 12
    assert {each: each.read_bytes() for each in source.folder.iterdir() if each.is_file()} == before


def test_no_image_is_read(tmp_path, root, new_model, monkeypatch):
    source = made_by(0, tmp_path / "old", root)
    found = files_of_rows(source)
    embeddings = np.stack([drawn_row(each, 1) for each in found.files])
    root.rename(tmp_path / "elsewhere")
    made = reembed_collection(
        source, tmp_path / "taught", new_model, rows=found.rows, embeddings=embeddings
    )
    assert made.num_images == 13


def test_smoothing_is_that_of_the_source(tmp_path, root, new_model):
    source = made_by(0, tmp_path / "old", root)
    update_smoothing(source, open_index(source), smooth=3, power=1.5)
    made = taken_over(source, tmp_path / "taught", new_model).collection
    wanted = made_by(1, tmp_path / "wanted", root)
    update_smoothing(wanted, open_index(wanted), smooth=3, power=1.5)
    assert made.settings.smoothing["neighbours"] == 3
    contents = [each.store.find() for each in (made, wanted)]
    rows = [read_smoothed(each).rows for each in (made, wanted)]
    for content, row in contents[0].items():
        np.testing.assert_allclose(rows[0][row], rows[1][contents[1][content]], atol=1e-6)


def test_files_that_are_gone_or_changed_are_left_out_and_counted(tmp_path, root, new_model):
    source = made_by(0, tmp_path / "old", root)
    (root / "red" / "1.png").unlink()
    (root / "green" / "2.png").write_bytes((root / "red" / "3.png").read_bytes() + b" ")
    (root / "blue" / "0.png").unlink()  # its copy has the same content
    report = taken_over(source, tmp_path / "taught", new_model)
    assert (report.num_images, report.num_left_out) == (11, 2)
    assert "2 left out" in repr(report)
    with closing(report.collection.images()) as table:
        assert {path for path, _ in table.broken()} == {"red/1.png", "green/2.png"}


def test_an_embedding_that_is_not_known_is_left_out(tmp_path, root, new_model):
    source = made_by(0, tmp_path / "old", root)
    found = files_of_rows(source)
    embeddings = np.stack([drawn_row(each, 1) for each in found.files])
    lost = found.files.index(root / "red" / "2.png")
    embeddings[lost] = np.nan
    report = reembed_collection(
        source, tmp_path / "taught", new_model, rows=found.rows, embeddings=embeddings
    )
    assert (report.num_images, report.num_left_out) == (12, 1)
    with closing(report.collection.images()) as table:
        assert [path for path, _ in table.broken()] == ["red/2.png"]


def test_what_cannot_be_taken_over_is_one_line(tmp_path, root, new_model):
    source = made_by(0, tmp_path / "old", root)
    found = files_of_rows(source)
    wrong = np.zeros((len(found.rows), DIM + 1), np.float32)
    with pytest.raises(InputError, match=r"expected embeddings of shape \(12, 3\).*\(12, 4\)"):
        reembed_collection(source, tmp_path / "a", new_model, rows=found.rows, embeddings=wrong)
    unknown = np.full((len(found.rows), DIM), np.nan, np.float32)
    with pytest.raises(InputError, match="no embedding of its images is known"):
        reembed_collection(source, tmp_path / "a", new_model, rows=found.rows, embeddings=unknown)
    source.change(index={"kind": "milvus", "uri": "http://127.0.0.1:1", "name": "a"})
    with pytest.raises(InputError, match=r"its index is in Milvus.*--index exact"):
        reembedding.check_reembedding(source)


def test_a_file_of_each_row_is_one_that_holds_it(tmp_path, root):
    found = files_of_rows(made_by(0, tmp_path / "old", root))
    assert len(found.files) == len(set(found.files)) == 3 * 4
    assert {each.parent.name for each in found.files} == set(COLOURS)
    assert (np.diff(found.rows) > 0).all()
