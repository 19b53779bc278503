"""A query that is indexed takes its stored row: the same results as by embedding it, at once."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from sqlite3 import connect

import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image
from stubs import build_stub

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding import embed
from deep_ranking.embedding.embed import embed_images
from deep_ranking.files import InputError
from deep_ranking.search.collection import Collection
from deep_ranking.search.collection.image_table import ImageTable
from deep_ranking.search.searcher import Searcher

pytestmark = pytest.mark.usefixtures("eager")
CONFIG = NetworkConfig(image_size=32, weights=None, embedding_size=6)


def draw(path, seed):
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cells).resize((32, 32), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture(scope="module")
def model():
    return build_stub(CONFIG, seed=0)


@pytest.fixture
def gallery(tmp_path, model, monkeypatch):
    """A collection of twelve images by the stub, which embeds its queries as well."""
    root = tmp_path / "photos"
    paths = [f"{'xyz'[number % 3]}/{number}.png" for number in range(12)]
    rows = embed_images(model, [draw(root / path, number) for number, path in enumerate(paths)])
    monkeypatch.setattr(Collection, "embedder", model)
    return make_collection(tmp_path / "index", root, dict(zip(paths, rows, strict=True)))


@pytest.fixture
def embedded(monkeypatch):
    """The images that are embedded, as they are."""
    seen, embed_batches = [], embed.embed_batches

    def recorded(engine, images, **options):
        seen.extend(map(str, images))
        return embed_batches(engine, images, **options)

    monkeypatch.setattr(embed, "embed_batches", recorded)
    return seen


def by_embedding(collection, images, **options):
    """Search as if no query were indexed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageTable, "row_of_content", lambda *_: None)
        return Searcher(collection).search_images(images, **options)


def assert_same(found, wanted):
    assert found.queries == wanted.queries and found.left_out == wanted.left_out
    np.testing.assert_allclose(found.embeddings, wanted.embeddings, atol=1e-6)
    for one, other in zip(found, wanted, strict=True):
        assert [replace(each, distance=0) for each in one] == [
            replace(each, distance=0) for each in other
        ]
        for each, expected in zip(one, other, strict=True):
            assert each.distance == pytest.approx(expected.distance, abs=1e-5)


def test_an_indexed_image_is_found_as_by_embedding_it(gallery, embedded):
    query = f"{gallery.settings.root}/x/3.png"
    found = Searcher(gallery).search_images(query, 12)
    assert not embedded
    assert_same(found, by_embedding(gallery, query, top=12))
    assert embedded == [query]
    assert found[0][0].path == query and found[0][0].distance < 1e-6
    assert len({each.distance for each in found[0]}) == 12


def test_the_row_is_the_stored_one(gallery, embedded):
    path = "y/4.png"
    with closing(gallery.images()) as images:
        row = next(image.row for image in images.images() if image.path == path)
    found = Searcher(gallery).search_images(f"{gallery.settings.root}/{path}")
    np.testing.assert_array_equal(found.embeddings[0], gallery.embeddings()[row])


def test_a_copy_of_another_name_elsewhere_takes_the_row_too(gallery, tmp_path, embedded):
    copy = tmp_path / "elsewhere" / "copy.jpg"
    copy.parent.mkdir()
    shutil.copy(f"{gallery.settings.root}/z/5.png", copy)
    found = Searcher(gallery).search_images(copy)
    assert not embedded and found.queries == [str(copy)]
    assert found[0][0].path == f"{gallery.settings.root}/z/5.png"
    assert_same(found, by_embedding(gallery, copy))


def test_a_file_whose_content_changed_is_embedded(gallery, embedded):
    query = f"{gallery.settings.root}/x/3.png"
    before = Searcher(gallery).search_images(query).embeddings
    draw(Path(query), 77)
    found = Searcher(gallery).search_images(query)
    assert embedded == [query]
    assert np.abs(found.embeddings - before).max() > 0.01
    assert_same(found, by_embedding(gallery, query))


def test_known_and_new_queries_keep_their_order(gallery, tmp_path, embedded):
    root = gallery.settings.root
    new = [draw(tmp_path / f"new{number}.png", 100 + number) for number in range(2)]
    queries = [str(new[0]), f"{root}/x/0.png", str(new[1]), f"{root}/z/2.png"]
    found = Searcher(gallery).search_images(queries, 5)
    assert embedded == [str(each) for each in new]
    assert found.queries == queries
    assert_same(found, by_embedding(gallery, queries, top=5))


def test_images_to_be_like_take_their_rows_too(gallery, embedded):
    root = gallery.settings.root
    options = {"like": [f"{root}/y/1.png"], "unlike": f"{root}/z"}
    found = Searcher(gallery).search_images(f"{root}/x/0.png", **options)
    assert not embedded
    assert_same(found, by_embedding(gallery, f"{root}/x/0.png", **options))


def test_what_cannot_be_read_is_left_out_or_told(gallery, tmp_path):
    root = gallery.settings.root
    folder = tmp_path / "queries"
    folder.mkdir()
    shutil.copy(f"{root}/x/0.png", folder / "good.png")
    (folder / "bad.png").write_bytes(b"no image")
    found = Searcher(gallery).search_images(folder)
    assert found.queries == [str(folder / "good.png")]
    assert found.left_out == [str(folder / "bad.png")]
    with pytest.raises(InputError, match=r"bad\.png"):
        Searcher(gallery).search_images([folder / "bad.png", folder / "good.png"])
    with pytest.raises(InputError, match=r"gone\.png"):
        Searcher(gallery).search_images(tmp_path / "gone.png")


def test_a_damaged_stored_row_is_named_not_used(gallery):
    file = gallery.folder / "embeddings.bin"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged: rows .* `index --checksum`"):
        Searcher(gallery).search_images(f"{gallery.settings.root}/x/0.png")


def test_a_row_number_that_is_none_is_told(gallery):
    with closing(connect(gallery.folder / "images.sqlite")) as base:
        base.execute("UPDATE images SET row = 'x' WHERE path = ?", (b"x/0.png",))
        base.commit()
    with pytest.raises(InputError, match="invalid row number"):
        Searcher(gallery).search_images(f"{gallery.settings.root}/x/0.png")
