"""The backbone: a convolutional network without its top, its first weights and its blocks.

Its layers lie flat in the model that it is built into, under the names that Keras gives them
(block1_conv1 ... block5_pool for VGG16). Layers with an automatic name (conv2d_7) are renumbered
from 1, so that a name means the same layer in every process.
"""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

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
from deep_ranking.model.convnext import build_convnext, plain_arrays
from deep_ranking.model.efficientnet_lite import EfficientNetLite0

Arrays = list[npt.NDArray[np.float32]]

# Some backbones normalise pixels, but the network has done so already. Some have dropout, but
# frozen layers must return the same features each time.
PREPROCESSING = (layers.Rescaling, layers.Normalization)
REPLACED = (*PREPROCESSING, layers.Dropout)
# Networks that `keras.applications` does not have.
OWN_BUILDERS = {"EfficientNetLite0": EfficientNetLite0}


def build_backbone(spec: Backbone, *, input_tensor: Any) -> keras.Model:
    """Build a backbone without its top, with random weights.

    Args:
        spec: which backbone.
        input_tensor: float (batch, size, size, 3), normalised as the weights expect.

    Returns:
        Model from its input to the last feature map, (batch, rows, columns, channels). Its layers
        are still as Keras made them: see `prepare_backbone`.
    """
    if _is_converted(spec):
        return build_convnext(spec.builder, input_tensor)
    return _published(spec, input_tensor=input_tensor)


def _published(spec: Backbone, weights: str | None = None, **options: Any) -> keras.Model:
    """Return the network whose layers are those of the weight file."""
    build = OWN_BUILDERS.get(spec.builder) or getattr(keras.applications, spec.builder)
    return build(include_top=False, weights=weights, **options)


def _is_converted(spec: Backbone) -> bool:
    """Return whether `build_backbone` builds another network than the weight file is of."""
    return spec.builder.startswith("ConvNeXt")


def prepare_backbone(model: keras.Model, names: Sequence[str]) -> tuple[keras.Model, list[str]]:
    """Rename a backbone's layers to stable names; replace those of `REPLACED` by identities.

    Args:
        model: model that holds a backbone.
        names: names of the backbone's layers in it, in the order of the data.

    Returns:
        The model, or a clone with new random weights if anything had to change; and the new names
        of the backbone's layers.
    """
    backbone = [model.get_layer(name) for name in names]
    stable = _stable_names(backbone)

    def replacement(layer: keras.layers.Layer) -> keras.layers.Layer:
        name = stable.get(layer.name, layer.name)
        if layer.name in stable and isinstance(layer, REPLACED):
            return layers.Identity(name=name)
        return type(layer).from_config(layer.get_config() | {"name": name})

    if any(stable[each.name] != each.name or isinstance(each, REPLACED) for each in backbone):
        model = keras.models.clone_model(model, clone_function=replacement)
    return model, list(stable.values())


def layers_by_block(spec: Backbone, names: Iterable[str]) -> dict[str, list[str]]:
    """Group the names of a backbone's layers by block; leave out layers outside of blocks."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        block = spec.block_of(name)
        if block is not None:
            blocks.setdefault(block, []).append(name)
    return blocks


def last_feature_maps(spec: Backbone, backbone: keras.Model, count: int) -> list[tuple[str, Any]]:
    """Return name and feature map of the last `count` blocks, the last one first.

    Raises:
        InputError: the backbone has fewer blocks.
    """
    blocks = layers_by_block(spec, [layer.name for layer in backbone.layers])
    if count > len(blocks):
        raise InputError(
            f"pooled_blocks must be {len(blocks)} or less with {spec.name}. Received: {count}"
        )
    ends = [(name, backbone.get_layer(names[-1]).output) for name, names in blocks.items()]
    ends[-1] = (ends[-1][0], backbone.output)
    return ends[::-1][:count]


def pretrained_arrays(spec: Backbone, weights: str, size: int) -> dict[str, Arrays]:
    """Return the pre-trained arrays of each layer that has any, by its stable name.

    Args:
        spec: which backbone.
        weights: "imagenet", or the path of a weight file without top (.h5).
        size: side in pixels of the images it sees.

    Raises:
        InputError: the weights cannot be downloaded or read, or belong to another network.
    """
    built = _published(spec, input_shape=(size, size, 3))
    names = _stable_names(built.layers)
    weighted = [layer for layer in built.layers if _has_arrays(layer)]
    if weights == "imagenet":
        arrays = _download_arrays(spec)
    else:
        shapes = {names[each.name]: [w.shape for w in each.weights] for each in weighted}
        arrays = _read_arrays(spec, Path(weights), shapes)
    if _is_converted(spec):
        originals = [layer.name for layer in weighted]
        return plain_arrays(built, dict(zip(originals, arrays, strict=True)))
    return {names[layer.name]: each for layer, each in zip(weighted, arrays, strict=True)}


def _has_arrays(layer: keras.layers.Layer) -> bool:
    return bool(layer.weights) and not isinstance(layer, PREPROCESSING)


def _stable_names(backbone: Sequence[keras.layers.Layer]) -> dict[str, str]:
    """Return name -> stable name, which does not depend on what this process built before."""
    numbers: dict[str, list[int]] = {}
    for layer in backbone:
        if (number := _automatic_number(layer)) is not None:
            numbers.setdefault(type(layer).__name__, []).append(number)
    names = {}
    for layer in backbone:
        names[layer.name] = layer.name
        if (number := _automatic_number(layer)) is not None:
            rank = sorted(numbers[type(layer).__name__]).index(number) + 1
            names[layer.name] = f"{_snake_case(type(layer).__name__)}_{rank}"
    return names


def _automatic_number(layer: keras.layers.Layer) -> int | None:
    """Return the number in a name that Keras made from the class; None for a name of its own."""
    found = re.fullmatch(rf"{_snake_case(type(layer).__name__)}(?:_(\d+))?", layer.name)
    return int(found[1] or 0) if found else None


def _snake_case(name: str) -> str:
    """Return a class name as Keras writes it in layer names: ZeroPadding2D -> zero_padding2d."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _download_arrays(spec: Backbone) -> list[Arrays]:
    try:
        built = _published(spec, "imagenet")
    except InputError:
        raise
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise InputError(
            "cannot download the ImageNet weights "
            f"({' '.join(str(error).split())}); give the path of a {spec.builder} weight file "
            "without top by --weights PATH, or start from random weights by --weights none"
        ) from None
    return [layer.get_weights() for layer in built.layers if _has_arrays(layer)]


def _read_arrays(
    spec: Backbone, path: Path, shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> list[Arrays]:
    with open_hdf5(path) as file:
        try:
            return read_layers(file, shapes)
        except InputError as error:
            raise InputError(
                f"not a weight file of {spec.builder}: {error}; expected {_described_file(spec)}; "
                "--backbone says which network the weights are of"
            ) from None


def _described_file(spec: Backbone) -> str:
    """Return the words for a backbone's weight file."""
    if spec.builder in OWN_BUILDERS:
        return f"an .h5 file that {spec.builder}().save(PATH) wrote"
    return f"the file that keras.applications.{spec.builder}(include_top=False) uses"
