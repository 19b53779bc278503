"""A network that is built and trained at once, for what does not depend on the real one."""

from contextlib import contextmanager

import keras
import pytest


def build_stub(config, *, seed=None):
    keras.utils.set_random_seed(seed)
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    x = keras.layers.AveragePooling2D(16, name="pooled")(image)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    x = keras.layers.Dense(config.embedding_size, name="embedding")(x)
    model = keras.Model(image, keras.layers.UnitNormalization(name="unit_embedding")(x))
    model.network_config = config
    model.backbone_layers, model.copied_layers = ["pooled"], []
    return model


@contextmanager
def weights_of_0():
    """Layers are as wide as ever, but start at 0: drawing so many random numbers takes long."""

    def zeros(_, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)
        yield


@contextmanager
def training_stubs(*, build=build_stub, eager=True):
    """Training builds a stub in place of the network, and runs it layer by layer if `eager`."""
    import tensorflow as tf
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deep_ranking.training.trainer.build_network", build)
        patch.setattr("deep_ranking.training.trainer.set_trainable_from", lambda *_, **__: None)
        # The picture takes longer than the epochs of such a network.
        patch.setattr("deep_ranking.training.history.run_figure", lambda _: Figure(figsize=(1, 1)))
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(eager)
        yield
        tf.config.run_functions_eagerly(before)


def build_thin_vgg16(*, include_top, weights, input_tensor=None, input_shape=None):
    """Build VGG16 with a sixteenth of its filters. The layers keep their names."""
    assert not include_top and weights is None
    x = image = keras.Input(input_shape) if input_tensor is None else input_tensor
    for block, (filters, count) in enumerate([(4, 2), (8, 2), (16, 3), (32, 3), (32, 3)], start=1):
        for number in range(1, count + 1):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(keras.utils.get_source_inputs(image), x, name="vgg16")


def save_thin_model(path, *, seed=0, **changes):
    """Write a model file of the smallest real network; whoever loads it needs `thin_vgg16`."""
    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.file import save_model
    from deep_ranking.model.network import build_network

    values = {"image_size": 32, "hidden_layers": 0, "embedding_size": 8, "multiscale": "none"}
    config = NetworkConfig(weights=None, **values | changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "VGG16", build_thin_vgg16)
        save_model(build_network(config, seed=seed), path)
    return path
