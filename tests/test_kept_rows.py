"""Rows that `evaluate` computed are kept: a run that was cut goes on from there."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose
from stubs import build_stub

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding import kept_rows
from deep_ranking.embedding.embed import embed_images
from deep_ranking.embedding.kept_rows import kept_baseline_features, kept_embeddings
from deep_ranking.files import InputError
from deep_ranking.images.hand_made_features import BASELINES, baseline_features

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEP_RANKING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_rows, "BATCH_SIZE", 4)
    return tmp_path / "cache" / "embeddings"


@pytest.fixture(scope="module")
def models():
    config = NetworkConfig(image_size=32, weights=None, embedding_size=4)
    return [build_stub(config, seed=seed) for seed in (1, 2)]


@pytest.fixture
def photos(tmp_path, write_colors):
    write_colors(tmp_path / "photos")
    return sorted(str(path) for path in (tmp_path / "photos").rglob("*.png"))


@pytest.fixture
def computed(monkeypatch):
    """The images whose rows were computed, not read."""
    seen = []
    embed_batches = kept_rows.embed_batches

    def counted(engine, paths):
        for batch in embed_batches(engine, paths):
            seen.append(len(batch.rows))
            yield batch

    monkeypatch.setattr(kept_rows, "embed_batches", counted)
    return seen


def rows_of(model, paths):
    with kept_embeddings(model, paths) as rows:
        return np.array(rows)


def test_rows_are_those_of_the_network_and_computed_once(cache, models, photos, computed):
    wanted = embed_images(models[0], photos)
    first = rows_of(models[0], photos)
    assert_allclose(first, wanted, atol=1e-6)
    assert sum(computed) == 12
    again = rows_of(models[0], photos[::-1])
    np.testing.assert_array_equal(again, first[::-1])
    assert sum(computed) == 12
    other = rows_of(models[1], photos)
    assert_allclose(other, embed_images(models[1], photos), atol=1e-6)
    assert sum(computed) == 24


def test_a_run_that_was_cut_goes_on(cache, models, photos, monkeypatch, computed):
    embed_batches = kept_rows.embed_batches

    def cut(engine, paths):
        batches = embed_batches(engine, paths)
        yield next(batches)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept_rows, "embed_batches", cut)
        with pytest.raises(KeyboardInterrupt):
            rows_of(models[0], photos)
    computed.clear()
    assert_allclose(rows_of(models[0], photos), embed_images(models[0], photos), atol=1e-6)
    assert sum(computed) == 8


def test_another_content_is_another_row(cache, models, photos, computed):
    rows_of(models[0], photos)
    shutil.copy(photos[-1], photos[0])
    rows = rows_of(models[0], photos)
    np.testing.assert_array_equal(rows[0], rows[-1])
    assert sum(computed) == 12


def test_hand_made_features_are_kept_too(cache, photos, monkeypatch):
    for name in BASELINES:
        wanted = baseline_features(name, photos)
        for _ in range(2):
            with kept_baseline_features(name, photos) as rows:
                np.testing.assert_array_equal(rows, wanted)
            monkeypatch.setattr(kept_rows, "baseline_features", lambda *_: 1 / 0)
        monkeypatch.undo()
        monkeypatch.setenv("DEEP_RANKING_CACHE", str(cache.parent))


def test_damaged_rows_are_computed_again(cache, models, photos):
    wanted = rows_of(models[0], photos)
    (file,) = cache.rglob("rows.bin")
    data = bytearray(file.read_bytes())
    data[9] ^= 1
    file.write_bytes(data)
    np.testing.assert_array_equal(rows_of(models[0], photos), wanted)
    np.testing.assert_array_equal(rows_of(models[0], photos), wanted)


def test_the_cache_may_be_missing_or_in_use(cache, models, photos, monkeypatch, tmp_path):
    wanted = embed_images(models[0], photos)
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setenv("DEEP_RANKING_CACHE", str(tmp_path / "file"))
        assert_allclose(rows_of(models[0], photos), wanted, atol=1e-6)
    rows_of(models[0], photos[:4])
    (folder,) = cache.iterdir()
    with kept_rows.RowStore(folder, "rows", 4, np.float32).lock:
        assert_allclose(rows_of(models[0], photos), wanted, atol=1e-6)


def test_a_broken_image_is_named_and_the_others_are_kept(cache, models, photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        rows_of(models[0], [*photos, str(broken)])
    assert rows_of(models[0], photos).shape == (12, 4)


def test_old_rows_make_room_for_new_ones(cache, models, photos, monkeypatch):
    rows_of(models[0], photos)
    (old,) = cache.iterdir()
    monkeypatch.setattr(kept_rows, "MAX_BYTES", 1)
    rows_of(models[1], photos)
    assert not old.exists() and len(list(cache.iterdir())) == 1
