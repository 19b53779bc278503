"""The backbone: a convolutional network of `keras.applications`, its first weights and its blocks.

Its layers lie flat in the model that it is built into, under the names that Keras gives them
(block1_conv1 ... block5_pool for VGG16). Those that Keras only numbers are numbered from 1, so that
a name means the same layer in every process.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from deep_ranking.config import Backbone
from deep_ranking.files import InputError
from deep_ranking.files.hdf5 import open_hdf5, read_layers

Arrays = list[npt.NDArray[np.float32]]

# Some backbones normalise pixels, which are normalised already; and drop features, where frozen
# layers must give the same each time.
PREPROCESSING = (layers.Rescaling, layers.Normalization)
REPLACED = (*PREPROCESSING, layers.Dropout)


def build_backbone(spec: Backbone, pixels: Any) -> keras.Model:
    """Build a backbone with random weights.

    Args:
        spec: which.
        pixels: tensor (batch, size, size, 3), normalised as its weights expect.

    Returns:
        Model from what `pixels` come from to the last feature map, (batch, rows, columns,
        channels). Its layers are those of Keras: see `take_over`.
    """
    return _application(spec, input_tensor=pixels)


def take_over(model: keras.Model, names: Sequence[str]) -> tuple[keras.Model, list[str]]:
    """Let the layers of a backbone do in a model what they are to do here.

    Layers that Keras only numbers get lasting names; those of `REPLACED` let pass what they get.

    Args:
        model: model that holds a backbone.
        names: names of the backbone's layers in it, in the order of the data.

    Returns:
        The model, made anew if anything had to change, with other random weights; and the
        backbone's layers under their new names.
    """
    backbone = [model.get_layer(name) for name in names]
    lasting = _lasting_names(backbone)

    def taken_over(layer: keras.layers.Layer) -> keras.layers.Layer:
        name = lasting.get(layer.name, layer.name)
        if layer.name in lasting and isinstance(layer, REPLACED):
            return layers.Identity(name=name)
        return type(layer).from_config(layer.get_config() | {"name": name})

    if any(lasting[each.name] != each.name or isinstance(each, REPLACED) for each in backbone):
        model = keras.models.clone_model(model, clone_function=taken_over)
    return model, list(lasting.values())


def layers_of_blocks(spec: Backbone, names: Iterable[str]) -> dict[str, list[str]]:
    """Sort the names of a backbone's layers into its blocks, leaving out those of none."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        block = spec.block_of(name)
        if block is not None:
            blocks.setdefault(block, []).append(name)
    return blocks


def last_maps(spec: Backbone, backbone: keras.Model, count: int) -> list[tuple[str, Any]]:
    """Give name and feature map of the last blocks, the last one first.

    Raises:
        InputError: there are not so many.
    """
    blocks = layers_of_blocks(spec, [layer.name for layer in backbone.layers])
    if count > len(blocks):
        raise InputError(
            f"pooled_blocks must be {len(blocks)} or less with {spec.name}. Received: {count}"
        )
    ends = [(name, backbone.get_layer(names[-1]).output) for name, names in blocks.items()]
    ends[-1] = (ends[-1][0], backbone.output)
    return ends[::-1][:count]


def pretrained_arrays(spec: Backbone, weights: str, size: int) -> dict[str, Arrays]:
    """Give the arrays of each layer that has any, by its lasting name.

    Args:
        spec: which backbone.
        weights: "imagenet", or the path of a weight file without top (.h5).
        size: side in pixels of what it sees.

    Raises:
        InputError: the weights cannot be had, or are of another network.
    """
    built = _application(spec, input_shape=(size, size, 3))
    names = _lasting_names(built.layers)
    weighted = [layer for layer in built.layers if _has_arrays(layer)]
    if weights == "imagenet":
        arrays = _download(spec)
    else:
        shapes = {names[each.name]: [w.shape for w in each.weights] for each in weighted}
        arrays = _read(spec, Path(weights), shapes)
    return {names[layer.name]: each for layer, each in zip(weighted, arrays, strict=True)}


def _application(spec: Backbone, weights: str | None = None, **options: Any) -> keras.Model:
    return getattr(keras.applications, spec.builder)(include_top=False, weights=weights, **options)


def _has_arrays(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights) and not isinstance(layer, PREPROCESSING)


def _lasting_names(backbone: Sequence[keras.layers.Layer]) -> dict[str, str]:
    """Name of each layer -> the name it is to have, whatever was built before in this process."""
    numbers: dict[str, list[int]] = {}
    for layer in backbone:
        if (number := _own_number(layer)) is not None:
            numbers.setdefault(type(layer).__name__, []).append(number)
    names = {}
    for layer in backbone:
        names[layer.name] = layer.name
        if (number := _own_number(layer)) is not None:
            rank = sorted(numbers[type(layer).__name__]).index(number) + 1
            names[layer.name] = f"{_snake_case(type(layer).__name__)}_{rank}"
    return names


def _own_number(layer: keras.layers.Layer) -> int | None:
    """Number of a layer that Keras named by its class alone; None for one with a name."""
    found = re.fullmatch(rf"{_snake_case(type(layer).__name__)}(?:_(\d+))?", layer.name)
    return int(found[1] or 0) if found else None


def _snake_case(name: str) -> str:
    """Name of a class as Keras turns it into that of a layer: ZeroPadding2D -> zero_padding2d."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _download(spec: Backbone) -> list[Arrays]:
    try:
        built = _application(spec, "imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise InputError(
            "the ImageNet weights cannot be downloaded "
            f"({' '.join(str(error).split())}); give the path of a {spec.builder} weight file "
            "without top by --weights PATH, or start from random weights by --weights none"
        ) from None
    return [layer.get_weights() for layer in built.layers if _has_arrays(layer)]


def _read(
    spec: Backbone, path: Path, shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> list[Arrays]:
    with open_hdf5(path) as file:
        try:
            return read_layers(file, shapes)
        except InputError as error:
            raise InputError(
                f"not a {spec.builder} weight file: {error}; expected the file that "
                f"keras.applications.{spec.builder}(include_top=False) uses"
            ) from None
