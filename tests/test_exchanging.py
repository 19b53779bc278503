"""Compiling a model whose last layer alone is new: as if it had been converted whole."""

from pathlib import Path

import numpy as np
import pytest
from stubs import build_thin_vgg16, save_thin_model

from deep_ranking.files import InputError
from deep_ranking.model.header import read_header

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    from keras import applications

    from deep_ranking.model.file import load_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applications, "VGG16", build_thin_vgg16)
        path = save_thin_model(tmp_path_factory.mktemp("models") / "m.h5")
        yield load_model(path)


@pytest.fixture(scope="module")
def exchanged(network):
    from deep_ranking.embedding.compiled.exchanging import ExchangedLayer

    return ExchangedLayer(network, "embedding")


def changed(network, path: Path, *layers):
    """Write the network with other numbers in some layers; it stays as it is."""
    from deep_ranking.model.file import save_model

    before = network.get_weights()
    rng = np.random.default_rng(3)
    for name in layers:
        layer = network.get_layer(name)
        layer.set_weights([rng.normal(size=each.shape) for each in layer.get_weights()])
    save_model(network, path)
    network.set_weights(before)
    return path


def test_rows_are_those_of_the_new_model(network, exchanged, tmp_path):
    from deep_ranking.embedding.compiled.compiling import rows_of
    from deep_ranking.embedding.embedder import Embedder
    from deep_ranking.embedding.engines.keras_model import KerasEngine
    from deep_ranking.model.file import load_model

    before = [each.copy() for each in network.get_weights()]
    size = network.input_shape[1]
    images = np.random.default_rng(1).integers(0, 256, (5, size, size, 3), np.uint8)
    for seed in (0, 1):
        model = changed(network, tmp_path / f"{seed}.h5", "embedding")
        report = exchanged.compile(model)
        assert report.header.fingerprint == read_header(model).fingerprint
        engine = Embedder(model).engine()
        assert engine.name != KerasEngine.name
        expected = rows_of(KerasEngine(load_model(model), 5), images)
        old = rows_of(KerasEngine(network, 5), images)
        np.testing.assert_allclose(rows_of(engine, images), expected, atol=1e-4)
        assert np.abs(expected - old).max() > 0.1
    for each, now in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(each, now)


def test_a_model_that_differs_elsewhere_is_refused(network, exchanged, tmp_path):
    model = changed(network, tmp_path / "other.h5", "embedding", "block1_conv2")
    with pytest.raises(InputError, match=r"its block1_conv2/.* is not that of the network"):
        exchanged.compile(model)
    assert list(tmp_path.glob("*.litert")) == []
