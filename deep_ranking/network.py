"""NetworkConfig -> Keras model: the multi-scale network of deep ranking (Wang et al. 2014, fig. 3).

One image goes three ways: through the backbone (VGG16, pooled, two dense layers) and through two
shallow branches that see it at a coarse scale. All three are normalised, concatenated, and mapped
to one embedding of unit length. Sizes and strides are the blog's. Other choices of the config leave
the branches or the dense layers out, and pool several depths of the backbone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from deep_ranking.config import BACKBONE_LAYERS, HEAD, NUM_BLOCKS, NetworkConfig
from deep_ranking.errors import InputError
from deep_ranking.hdf5 import child, open_hdf5, read_layer

# Means of the ImageNet pixels, R, G, B, that the backbone's weights were trained with.
IMAGENET_MEAN = (123.68, 116.779, 103.939)
BRANCH_FILTERS = 96
GEM_OFFSET = 1e-9


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
    parts = [_convnet(_backbone_input(image, unit, config), config)]
    if config.shallow_branches:
        branch_1 = _branch(unit, 1, stride=16, pool_size=3, pool_stride=4)
        branch_2 = _branch(unit, 2, stride=32, pool_size=7, pool_stride=2)
        parts.insert(0, layers.Concatenate(name="shallow")([branch_1, branch_2]))
    merged = _concatenate(parts, name="merged")
    linear = layers.Dense(config.embedding_size, name="embedding")(merged)
    unit_length = layers.UnitNormalization(name="unit_embedding")(linear)
    model = keras.Model(image, unit_length, name="deep_ranking")
    model.network_config = config
    for name, values in arrays.items():
        model.get_layer(name).set_weights(values)
    return model


def _backbone_input(image: Any, unit: Any, config: NetworkConfig) -> Any:
    x = unit
    if config.normalisation == "backbone":
        offset = [-mean for mean in IMAGENET_MEAN]
        x = layers.Rescaling([1.0, 1.0, 1.0], offset, name="backbone_range")(image)
    side = config.seen_size
    if side != config.image_size:
        x = layers.Resizing(side, side, interpolation="bilinear", name="enlarged")(x)
    return x


def _convnet(normalised: Any, config: NetworkConfig) -> Any:
    backbone = keras.applications.VGG16(
        include_top=False, weights=None, input_tensor=normalised, name="vgg16"
    )
    blocks = range(NUM_BLOCKS, NUM_BLOCKS - config.pooled_blocks, -1)
    maps = [backbone.get_layer(f"block{block}_pool").output for block in blocks]
    pooled = [
        vector
        for block, features in zip(blocks, maps, strict=True)
        for vector in _pool(features, config.pooling, "" if block == NUM_BLOCKS else f"_{block}")
    ]
    if len(pooled) > 1:  # each by itself, or the one with the largest values would count alone
        pooled = [
            layers.UnitNormalization(name=f"unit_part_{number}")(vector)
            for number, vector in enumerate(pooled, start=1)
        ]
    x = _concatenate(pooled, name="all_pooled")
    for number in range(1, config.hidden_layers + 1):
        x = layers.Dense(config.hidden_size, activation="relu", name=f"hidden_{number}")(x)
        x = layers.Dropout(config.dropout, name=f"dropout_{number}")(x)
    x = layers.UnitNormalization(name="unit_convnet")(x)
    if config.hidden_layers == 0:
        x = layers.Dropout(config.dropout, name="dropout")(x)
    return x


def _pool(features: Any, pooling: str, suffix: str) -> list[Any]:
    """Make a vector of a feature map (batch, height, width, channels), or two."""
    average = layers.GlobalAveragePooling2D(name=f"pooled{suffix}")
    maximum = layers.GlobalMaxPooling2D(name=f"max_pooled{suffix}")
    if pooling == "average":
        return [average(features)]
    if pooling == "max":
        return [maximum(features)]
    if pooling == "average+max":
        return [average(features), maximum(features)]
    return [_generalised_mean(features, suffix)]


def _generalised_mean(features: Any, suffix: str) -> Any:
    """Pool by the root of the mean square (Radenovic et al. 2018, eq. 3, with power 2).

    The power 2, as it can be said in layers that every Keras has: x times x / |x|, summed over the
    places, is |x|. The factor between sum and mean is the same for all channels. A channel that is
    0 everywhere has no x / |x|, and compiled for a GPU a gradient of NaN; hence the offset.
    """
    channels = features.shape[-1]
    places = layers.Reshape((-1, channels), name=f"places{suffix}")(features)
    lifted = layers.Rescaling(1.0, GEM_OFFSET, name=f"lifted_places{suffix}")(places)
    unit = layers.UnitNormalization(axis=1, name=f"unit_places{suffix}")(lifted)
    product = layers.Multiply(name=f"places_times_unit{suffix}")([places, unit])
    return layers.GlobalAveragePooling1D(name=f"gem_pooled{suffix}")(product)


def _concatenate(parts: list[Any], *, name: str) -> Any:
    return parts[0] if len(parts) == 1 else layers.Concatenate(name=name)(parts)


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


def split_at_frozen(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Split a network where what is frozen ends.

    Args:
        model: a network of `build_network`, after `set_trainable_from`.

    Returns:
        Two models that share its layers: from images to the outputs of frozen layers that others
        go on from, a list, each float (batch, ...); and from these to embeddings. One after the
        other, they are `model`.

    """
    trained: set[str] = set()  # layers that are trained, or come after one that is
    frontier: dict[int, Any] = {}
    for layer in model.layers[1:]:  # in topological order; the first is the image
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        frozen = [each for each in inputs if each._keras_history.operation.name not in trained]
        random = isinstance(layer, keras.layers.Dropout) and layer.rate > 0
        if layer.trainable_weights or random or len(frozen) < len(inputs):
            trained.add(layer.name)
            frontier |= {id(each): each for each in frozen}
    tensors = list(frontier.values())
    return keras.Model(model.input, tensors), keras.Model(tensors, model.output)


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
