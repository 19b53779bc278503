"""`Embedder`: a model file as a function from images to rows, on whatever engine there is."""

import multiprocessing
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from stubs import save_thin_model

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding import embedder as embedder_module
from deep_ranking.embedding.compiled.compiling import compile_model
from deep_ranking.embedding.embed import embed_images
from deep_ranking.embedding.embedder import Embedder, compiled_embedder
from deep_ranking.files import InputError
from deep_ranking.model.file import load_model
from deep_ranking.model.header import read_header

pytestmark = pytest.mark.usefixtures("thin_vgg16", "models_loaded_once")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve pictures of several formats and sizes, in no order of their names."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(2)
    paths = []
    for number in rng.permutation(12).tolist():
        suffix = ("png", "jpg", "webp", "bmp")[number % 4]
        pixels = rng.integers(0, 256, (5, 7, 3), np.uint8)
        size = (20 + 5 * number, 60)
        paths.append(folder / f"{number}.{suffix}")
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def expected(compiled_once, photos, thin_vgg16):
    """The rows by Keras."""
    return embed_images(load_model(compiled_once / "m.h5"), photos)


def test_rows_are_those_of_keras_in_order(compiled_model, photos, expected):
    rows, is_readable = Embedder(compiled_model)(photos)
    assert rows.dtype == np.float32 and is_readable.dtype == bool and is_readable.all()
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01
    again, _ = Embedder(str(compiled_model))(list(map(str, reversed(photos))))
    np.testing.assert_array_equal(again, rows[::-1])


def test_bytes_are_as_good_as_files(compiled_model, photos):
    embedder = Embedder(compiled_model)
    rows, _ = embedder(photos)
    from_bytes, is_readable = embedder([photo.read_bytes() for photo in photos])
    np.testing.assert_array_equal(from_bytes, rows)
    assert is_readable.all()


def test_what_cannot_be_read_is_told_by_the_mask(compiled_model, photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:60])
    embedder = Embedder(compiled_model)
    images = [broken, photos[0], b"", "no such file", photos[1].read_bytes(), b"no image", tmp_path]
    rows, is_readable = embedder(images)
    assert is_readable.tolist() == [False, True, False, False, True, False, False]
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), ~is_readable)
    np.testing.assert_array_equal(rows[is_readable], embedder(photos[:2])[0])


def test_no_images(compiled_model):
    rows, is_readable = Embedder(compiled_model)([])
    assert rows.shape == (0, 8) and is_readable.shape == (0,)
    assert is_readable.dtype == bool


def test_none_can_be_read(compiled_model):
    rows, is_readable = Embedder(compiled_model)(["nowhere"] * 3)
    assert np.isnan(rows).all() and rows.shape == (3, 8) and not is_readable.any()


def test_the_engine_opens_on_first_use_and_once(compiled_model, photos, monkeypatch):
    opened = []
    usable_engine = embedder_module.usable_engine
    monkeypatch.setattr(
        embedder_module, "usable_engine", lambda *a, **o: opened.append(a) or usable_engine(*a, **o)
    )
    embedder = Embedder(compiled_model)
    assert (embedder.image_size, embedder.dimension, embedder.precision) == (32, 8, "float32")
    assert embedder.fingerprint == read_header(compiled_model).fingerprint
    assert isinstance(embedder.network_config, NetworkConfig) and embedder.calibration is None
    assert repr(embedder) == f"Embedder of {compiled_model}, float32"
    assert not opened
    for _ in range(2):
        embedder(photos)
    assert len(opened) == 1


def test_eight_threads_get_the_same_bytes(compiled_model, photos, monkeypatch):
    embedder = Embedder(compiled_model)
    opened = []
    usable_engine = embedder_module.usable_engine
    monkeypatch.setattr(
        embedder_module, "usable_engine", lambda *a, **o: opened.append(a) or usable_engine(*a, **o)
    )
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: embedder(photos)[0], range(24)))
    for rows in found:
        np.testing.assert_array_equal(rows, found[0])
    assert len(opened) == 1
    np.testing.assert_array_equal(Embedder(compiled_model)(photos)[0], found[0])


def test_threads_share_the_network_of_keras(compiled_model, photos, expected):
    shutil.copy(compiled_model, compiled_model.parent / "n.h5")
    model = save_thin_model(compiled_model.parent / "n.h5")  # the same weights, not compiled
    embedder = Embedder(model)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: embedder(photos)[0], range(6)))
    for rows in found:
        np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert embedder.engine().name == "Keras"


def test_many_and_few_images_have_the_same_bytes(compiled_model, photos, monkeypatch):
    """On any number of processors, the one way or the other of computing them."""
    found = []
    for processors in (1, 2, 4, 64):
        monkeypatch.setattr("os.cpu_count", lambda n=processors: n)
        embedder = Embedder(compiled_model)
        found.append(embedder(photos)[0])
        found.append(np.concatenate([embedder([photo])[0] for photo in photos]))
    for rows in found:
        np.testing.assert_array_equal(rows, found[0])


def test_with_many_processors_a_batch_is_computed_an_image_on_each(compiled_model, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    embedder = Embedder(compiled_model)
    assert [embedder.engine(size).num_threads for size in (1, 7, 8, 64)] == [1, 1, 16, 16]


def test_a_pickled_embedder_is_small_and_opens_anew(compiled_model, photos):
    embedder = Embedder(compiled_model, precision="float32")
    rows, _ = embedder(photos)  # its engine is open
    data = pickle.dumps(embedder)
    assert len(data) < 2_000
    again = pickle.loads(data)
    assert again.path == embedder.path and again.precision == "float32"
    np.testing.assert_array_equal(again(photos)[0], rows)
    compiled_model.unlink()
    with pytest.raises(InputError, match=r"m\.h5"):
        pickle.loads(data)


def test_other_processes_give_the_same_rows(compiled_model, photos):
    """In a process that is started anew, as on another machine; it does not import TensorFlow."""
    embedder = Embedder(compiled_model)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows, _ = pool.apply(embedder, (photos,))
        assert pool.apply(eval, ("'cv2' in __import__('sys').modules",))  # it is that process
        assert not pool.apply(eval, ("{'keras', 'tensorflow'} & set(__import__('sys').modules)",))
    np.testing.assert_array_equal(rows, embedder(photos)[0])


@pytest.mark.slow
def test_precision_is_the_most_exact_that_is_compiled_or_what_is_asked_for(compiled_model, photos):
    with pytest.raises(
        InputError, match=r"not compiled in int8; compile it by .* --precision int8"
    ):
        compiled_embedder(compiled_model, "int8")
    compile_model(compiled_model, precision="int8")
    exact, fast = Embedder(compiled_model), compiled_embedder(compiled_model, "int8")
    assert (exact.precision, fast.precision) == ("float32", "int8")
    assert fast.engine().name == "LiteRT, int8"
    one, other = exact(photos)[0], fast(photos)[0]
    cosines = (one * other).sum(axis=1)
    assert 0.99 < cosines.mean() < 1 - 1e-6
    assert pickle.loads(pickle.dumps(fast)).precision == "int8"
    with pytest.raises(InputError, match=r"must be one of float32, int8\. Received: half"):
        Embedder(compiled_model, precision="half")


def test_a_file_that_is_no_model_is_refused_at_once(tmp_path):
    (tmp_path / "m.h5").write_bytes(b"no model")
    for path in (tmp_path / "m.h5", tmp_path / "none.h5"):
        with pytest.raises(InputError, match=path.name):
            Embedder(path)


def test_without_tensorflow_a_model_that_is_not_compiled_tells_the_remedy(
    compiled_model, monkeypatch
):
    monkeypatch.setattr(embedder_module, "find_spec", lambda _: None)
    model = save_thin_model(compiled_model.with_name("n.h5"), seed=5)
    with pytest.raises(InputError) as caught:
        Embedder(model)([])
    said = str(caught.value)
    assert said.startswith(f"{model}: not compiled; TensorFlow is not installed here")
    assert "python -m deep_ranking compile --model n.h5" in said
    with pytest.raises(InputError, match=r"not compiled in int8.*TensorFlow is not installed"):
        Embedder(compiled_model, precision="int8").engine()
