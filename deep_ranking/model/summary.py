"""Model -> its layers and sizes, as numbers and names that JSON can hold."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

import json
import math
from collections.abc import Sequence
from typing import Any

import keras

BYTES_A_NUMBER = {"float16": 2, "bfloat16": 2, "float64": 8}


def network_summary(model: keras.Model) -> dict[str, Any]:
    """Return a model's layers, its numbers of parameters, its sizes and its settings.

    Args:
        model: from `build_network` or `load_model`.
    """
    config = model.network_config
    return {
        "layers": [_layer_summary(layer) for layer in model.layers],
        "parameters": _num_parameters(model.weights),
        "trained_parameters": _num_parameters(model.trainable_weights),
        "bytes": sum(
            math.prod(weight.shape) * BYTES_A_NUMBER.get(weight.dtype, 4)
            for weight in model.weights
        ),
        "image_size": config.image_size,
        "embedding_size": model.output_shape[-1],
        "backbone": config.backbone,
        "normalisation": config.normalisation,
        "calibrated": getattr(model, "calibration", None) is not None,
        "network": json.loads(config.to_json()),
    }


def _layer_summary(layer: keras.layers.Layer) -> dict[str, Any]:
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return {
        "name": layer.name,
        "type": type(layer).__name__,
        "output_shape": list(layer.output.shape),
        "parameters": _num_parameters(layer.weights),
        "trained": bool(layer.trainable_weights),
        "connected_to": [tensor._keras_history.operation.name for tensor in inputs],
    }


def _num_parameters(weights: Sequence[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)
