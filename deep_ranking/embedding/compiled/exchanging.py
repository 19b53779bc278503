"""Compile models that differ in their last layer alone: its numbers are exchanged, nothing else.

Converting a network takes some ten seconds. Of a model that was taught, only the last layer is new.
So the network is converted once, with numbers of its own in that layer; for each model, these are
replaced by its numbers, byte by byte. What comes out is checked against Keras like every compiled
model.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

from pathlib import Path

import keras
import numpy as np

from deep_ranking.embedding.compiled.compiling import (
    FLOAT32,
    ComparedRows,
    CompiledReport,
    compiled_model,
    rows_of,
)
from deep_ranking.embedding.compiled.converting import to_litert
from deep_ranking.embedding.compiled.file import made_up_images
from deep_ranking.embedding.compiled.opening import litert_engine
from deep_ranking.embedding.compiled.places import keep_compiled
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.hdf5 import arrays_in, open_hdf5, weights_of
from deep_ranking.model.header import read_header

SEED = 0


class ExchangedLayer:
    """Compiles models that are as a network, but for the numbers of one dense layer.

    Args:
        network: a network of `build_network`.
        layer: name of the layer, which is dense, and the last one with numbers.

    Raises:
        InputError: LiteRT cannot convert the network, or it changes the numbers of the layer.
    """

    def __init__(self, network: keras.Model, layer: str) -> None:
        self._network = network
        self._layer = network.get_layer(layer)
        own = self._layer.get_weights()
        rng = np.random.default_rng(SEED)
        # Numbers that stand nowhere else: zeros, as of a new bias, would.
        drawn = [rng.normal(size=each.shape).astype(np.float32) for each in own]
        self._layer.set_weights(drawn)
        try:
            self._content = to_litert(network)
        finally:
            self._layer.set_weights(own)
        self._places = [_place_of(each, self._content) for each in drawn]
        with default_settings():
            before = keras.Model(network.input, self._layer.input)
            self._after = keras.Model(self._layer.input, network.output)
            images = made_up_images(int(network.input_shape[1])).astype(np.float32)
            self._inputs = np.asarray(before.predict_on_batch(images))

    def compile(self, model: Path) -> CompiledReport:
        """Compile a model file as `compile_model` does in float32.

        Args:
            model: the model file.

        Raises:
            InputError: it differs from the network elsewhere, or its rows from those of Keras.
        """
        header = read_header(model)
        weights = self._weights_in(model)
        content = bytearray(self._content)
        for (begin, is_turned), each in zip(self._places, weights, strict=True):
            data = _bytes_of(each, is_turned)
            content[begin : begin + len(data)] = data
        engine = litert_engine(bytes(content), FLOAT32)
        rows = rows_of(engine, made_up_images(engine.image_size))
        own = self._layer.get_weights()
        self._layer.set_weights(weights)
        try:
            with default_settings():
                expected = np.asarray(self._after.predict_on_batch(self._inputs), np.float32)
        finally:
            self._layer.set_weights(own)
        distances = np.linalg.norm(rows - expected, axis=1)
        cosine = float((1 - distances**2 / 2).mean())
        compared = ComparedRows(rows, 0, float(distances.max()), cosine, None)
        if (problem := compared.problem(FLOAT32)) is not None:
            raise InputError(f"{model}: with its last layer exchanged, {problem}")
        made = compiled_model(header.fingerprint, FLOAT32, "as in Keras", bytes(content), compared)
        return CompiledReport(keep_compiled(model, made), made.header, is_new=True)

    def _weights_in(self, model: Path) -> list[Float32Array]:
        """Return the numbers of the layer in a model file, after checking all others."""
        with open_hdf5(model) as file:
            found = {name.split("/", 3)[-1]: data[()] for name, data in arrays_in(weights_of(file))}
        own = {each.path for each in self._layer.weights}
        for each in self._network.weights:
            is_same = each.path in found and (
                found[each.path].shape == each.shape
                if each.path in own
                else np.array_equal(found[each.path], keras.ops.convert_to_numpy(each))
            )
            if not is_same:
                raise InputError(f"{model}: its {each.path} is not that of the network")
        return [np.asarray(found[each.path], np.float32) for each in self._layer.weights]


def _place_of(numbers: Float32Array, content: bytes) -> tuple[int, bool]:
    """Return where the bytes of an array begin in a network, and whether it is transposed there.

    Raises:
        InputError: they are not there exactly once.
    """
    for is_turned in (False, True):
        data = _bytes_of(numbers, is_turned)
        if content.count(data) == 1:
            return content.index(data), is_turned
    raise InputError("LiteRT changes the numbers of the last layer, so they cannot be exchanged")


def _bytes_of(numbers: Float32Array, is_turned: bool) -> bytes:
    return np.ascontiguousarray(numbers.T if is_turned else numbers, "<f4").tobytes()
