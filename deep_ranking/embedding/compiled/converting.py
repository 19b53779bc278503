"""Keras -> LiteRT: in float32, or in int8 by one of two schemes.

- dynamic: kernels are int8, per channel. Activations are quantised as they come, by the range of
  each image, so nothing must be calibrated. Fast where convolutions are dense, as in VGG16; LiteRT
  has no such kernel for depthwise ones, and is slower than in float32 there.
- static: the activations of the backbone are int8 too, with ranges learned from real images. The
  first convolutions, which see the image at high resolution, stay in float32, and so does all that
  follows the backbone: whitened axes amplify noise.
"""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deep_ranking.embedding.export.formats import write_savedmodel
from deep_ranking.embedding.export.litert_layers import with_litert_layers
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.model.folding import fold_batch_norms
from deep_ranking.model.keras_settings import default_settings

# Tried on classes held back from training, with EfficientNet-Lite0: the mean cosine with Keras is
# .9925 with none of the first convolutions in float32, .9938 with one and .9966 with five, which
# costs a tenth of the speed.
FLOAT_CONVOLUTIONS = (5, 11, 17)
MOST_CALIBRATED = 100
QUANTISED = {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD"}
CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}
# Layers that are no part of the backbone, by the beginning of their names.
FLOAT_LAYERS = ("branch_", "unit_", "pooled", "merged", "hidden", "embedding")


def needs_images(model: keras.Model) -> bool:
    """Return whether int8 is calibrated on real images for a model: it has depthwise layers."""
    return any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in model.layers)


def to_litert(model: keras.Model) -> bytes:
    """Convert a network to LiteRT, in float32.

    Args:
        model: from images, float32 (batch, size, size, 3), to rows, float32 (batch, dim).
    """
    with _converter_of(model) as new_converter:
        return bytes(new_converter().convert())


def to_dynamic_int8(model: keras.Model) -> bytes:
    """Convert a network to LiteRT with int8 kernels, and activations quantised as they come.

    Args:
        model: as for `to_litert`.
    """
    with _converter_of(model) as new_converter:
        return bytes(_quantising(new_converter()).convert())


def to_static_int8(model: keras.Model, images: UInt8Array, num_float: int) -> bytes:
    """Convert a network to LiteRT with a backbone in int8.

    Args:
        model: as for `to_litert`.
        images: uint8 (images, size, size, 3), RGB, real ones; up to 100 are used.
        num_float: how many of the first convolutions stay in float32; the last one does too.
    """
    import tensorflow as tf

    chosen = images[:: max(1, len(images) // MOST_CALIBRATED)][:MOST_CALIBRATED]

    def calibration() -> Iterator[list[Any]]:
        for image in chosen:
            yield [image[None].astype(np.float32)]

    with _converter_of(model) as new_converter:
        operations = _operations(bytes(new_converter().convert()))
        kept = [name for kind, name in operations if _stays_float(kind, name)]
        convolutions = [
            name for kind, name in operations if kind in CONVOLUTIONS and name not in kept
        ]
        kept += convolutions[:num_float] + convolutions[-1:]
        converter = _quantising(new_converter())
        converter.representative_dataset = calibration
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=calibration,
            debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=kept),
        )
        return bytes(debugger.get_nondebug_quantized_model())


@contextmanager
@default_settings()
def _converter_of(model: keras.Model) -> Iterator[Callable[[], Any]]:
    """Yield a function that returns a new converter of the network, its batch norms folded."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter; no user can act on them
        write_savedmodel(with_litert_layers(fold_batch_norms(model)), Path(folder), "{}")
        yield lambda: tf.lite.TFLiteConverter.from_saved_model(folder)


def _quantising(converter: Any) -> Any:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter


def _operations(network: bytes) -> list[tuple[str, str]]:
    """Return kind and name of the result of each operation of a LiteRT network, in order."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=network, num_threads=1)
    names = {each["index"]: each["name"] for each in interpreter.get_tensor_details()}
    return [
        (each["op_name"], names[each["outputs"][0]])
        for each in interpreter._get_ops_details()
        if len(each["outputs"]) and each["outputs"][0] in names
    ]


def _stays_float(kind: str, name: str) -> bool:
    """Return whether an operation is no part of the backbone, by the name of its result."""
    layers = name.split("/")[1:2] or [name]  # "deep_ranking_1/stem_conv_1/BiasAdd;..."
    return kind not in QUANTISED or layers[0].startswith(FLOAT_LAYERS)
