"""NetworkConfig -> Keras model: the multi-scale network of deep ranking (Wang et al. 2014, fig. 3).

One image goes three ways: through the backbone (VGG16, pooled, two dense layers) and through two
shallow branches that see it at a coarse scale. All three are normalised, concatenated, and mapped
to one embedding of unit length. Sizes and strides are the blog's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from deep_ranking.config import BACKBONE_LAYERS, HEAD, NetworkConfig
from deep_ranking.errors import InputError
from deep_ranking.hdf5 import child, open_hdf5, read_layer

# Means of the ImageNet pixels, R, G, B, that the backbone's weights were trained with.
IMAGENET_MEAN = (123.68, 116.779, 103.939)
BRANCH_FILTERS = 96


def build_network(config: NetworkConfig, *, seed: int | None = None) -> keras.Model:
    """Build the network, with its first weights.

    The layers of the backbone lie flat in the model, under the names that Keras gives them
    (block1_conv1 ... block5_pool).

    Args:
        config: sizes, and where the weights come from.
        seed: decides the random weights; None for fresh ones each time. Sets Keras' global seed,
            the only one that the backbone's own initialisers listen to.

    Returns:
        Model from images, float32 (batch, size, size, 3), RGB in [0, 255], to embeddings, float32
        (batch, embedding_size) of unit length. Its attribute `network_config` is `config`.

    Raises:
        InputError: the pre-trained weights cannot be had.
    """
    arrays = _pretrained_arrays(config)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    unit = layers.Rescaling(1 / 255, name="unit_range")(image)
    convnet = _convnet(_backbone_input(image, unit, config), config)
    branch_1 = _branch(unit, 1, stride=16, pool_size=3, pool_stride=4)
    branch_2 = _branch(unit, 2, stride=32, pool_size=7, pool_stride=2)
    shallow = layers.Concatenate(name="shallow")([branch_1, branch_2])
    merged = layers.Concatenate(name="merged")([shallow, convnet])
    linear = layers.Dense(config.embedding_size, name="embedding")(merged)
    unit_length = layers.UnitNormalization(name="unit_embedding")(linear)
    model = keras.Model(image, unit_length, name="deep_ranking")
    model.network_config = config
    for name, values in arrays.items():
        model.get_layer(name).set_weights(values)
    return model


def _backbone_input(image: Any, unit: Any, config: NetworkConfig) -> Any:
    if config.normalisation == "unit":
        return unit
    offset = [-mean for mean in IMAGENET_MEAN]
    return layers.Rescaling([1.0, 1.0, 1.0], offset, name="backbone_range")(image)


def _convnet(normalised: Any, config: NetworkConfig) -> Any:
    backbone = keras.applications.VGG16(
        include_top=False, weights=None, input_tensor=normalised, name="vgg16"
    )
    x = layers.GlobalAveragePooling2D(name="pooled")(backbone.output)  # (batch, 512)
    for number in (1, 2):
        x = layers.Dense(config.hidden_size, activation="relu", name=f"hidden_{number}")(x)
        x = layers.Dropout(config.dropout, name=f"dropout_{number}")(x)
    return layers.UnitNormalization(name="unit_convnet")(x)


def _branch(unit: Any, number: int, *, stride: int, pool_size: int, pool_stride: int) -> Any:
    x = layers.Conv2D(
        BRANCH_FILTERS, 8, strides=stride, padding="same", name=f"branch_{number}_conv"
    )(unit)
    x = layers.MaxPooling2D(
        pool_size, strides=pool_stride, padding="same", name=f"branch_{number}_pool"
    )(x)
    x = layers.Flatten(name=f"branch_{number}_flat")(x)
    return layers.UnitNormalization(name=f"unit_branch_{number}")(x)


def set_trainable_from(model: keras.Model, first: str | None) -> None:
    """Freeze the layers of the backbone before `first`; the head and the branches always train.

    Args:
        model: a network of `build_network`.
        first: one of `BACKBONE_LAYERS`, "head" to freeze all of them, or None to freeze none.

    Raises:
        InputError: the backbone has no such layer.
    """
    if first is not None and first not in (*BACKBONE_LAYERS, HEAD):
        raise InputError(
            f"the backbone has no layer {first}; it has {', '.join(BACKBONE_LAYERS)}, and {HEAD} "
            "for what follows them"
        )
    trains = first is None
    for name in BACKBONE_LAYERS:
        trains = trains or name == first
        model.get_layer(name).trainable = trains


def _pretrained_arrays(config: NetworkConfig) -> Mapping[str, list[npt.NDArray[np.float32]]]:
    """Kernel and bias of each of the backbone's layers, by name; none for a random start."""
    if config.weights is None:
        return {}
    arrays = _download_imagenet() if config.weights == "imagenet" else _read(Path(config.weights))
    if config.normalisation == "backbone":
        # The weights were trained on B, G, R: turning the first kernel around reads R, G, B.
        kernel, bias = arrays["block1_conv1"]
        arrays["block1_conv1"] = [np.ascontiguousarray(kernel[:, :, ::-1]), bias]
    return arrays


def _download_imagenet() -> dict[str, list[npt.NDArray[np.float32]]]:
    try:
        backbone = keras.applications.VGG16(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise InputError(
            "the ImageNet weights cannot be downloaded "
            f"({' '.join(str(error).split())}); give the path of a VGG16 weight file without top "
            "by --weights PATH, or start from random weights by --weights none"
        ) from None
    return {layer.name: layer.get_weights() for layer in backbone.layers if layer.weights}


def _read(path: Path) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Read a VGG16 weight file without top, in the layout that Keras has for it."""
    expected = keras.applications.VGG16(include_top=False, weights=None)
    arrays = {}
    with open_hdf5(path) as file:
        for name in BACKBONE_LAYERS:
            group = child(file, name)
            if group is None:
                raise InputError(
                    f"not a VGG16 weight file: it has no layer {name}; expected the file that "
                    "keras.applications.VGG16(include_top=False) uses"
                )
            weights = expected.get_layer(name).weights
            arrays[name] = read_layer(group, [weight.shape for weight in weights])
    return arrays
