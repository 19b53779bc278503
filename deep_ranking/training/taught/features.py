"""What the head of a network reads, computed once, and the head alone.

The head is the last dense layer. Teaching changes nothing else, so the features of a collection are
computed before the first answer, and all its images are embedded again in no time. A network that
is taught has a layout branch (`model.layout`); one without gets it here, with weights of 0, which
changes no embedding.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import h5py
import keras
import numpy as np

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.cached_features import Features, cache_features
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Int64Array
from deep_ranking.files.hdf5 import child, open_hdf5, read_layer, read_text, weights_of
from deep_ranking.model.file import opened_model
from deep_ranking.model.header import CONFIG_ATTRIBUTE
from deep_ranking.model.layout import LAYOUT_SIZE
from deep_ranking.model.network import build_network, merged_parts

ROWS_AT_ONCE = 4096
HEAD_LAYER = "embedding"
LAYOUT_FROM_LAST = -2  # its place among the parts of the features: before the ConvNet's
Model: TypeAlias = keras.Model | str | os.PathLike[str]


class Head(NamedTuple):
    """The last layer of a network: features to embeddings.

    Attributes:
        kernel: float32 (features, dim).
        bias: float32 (dim,).
        has_layout: whether the layout branch is among the features.
    """

    kernel: Float32Array
    bias: Float32Array
    has_layout: bool

    @classmethod
    def of(cls, model: Model, sizes: Sequence[int]) -> Self:
        """Return the head of a network, or of a model file, without building its network.

        Args:
            model: a network of `build_network`, or a model file.
            sizes: number of features of each part that it reads, the layout's included.

        Raises:
            InputError: the file is missing, damaged, no model file, or of another network.
        """
        if not isinstance(model, keras.Model):
            with open_hdf5(Path(model)) as file:
                text = read_text(file, CONFIG_ATTRIBUTE)
                if text is not None:
                    config = NetworkConfig.from_json(text)
                    kernel, bias = _arrays_of_head(file, config, sizes)
                    return cls(kernel, bias, config.layout)
            model = opened_model(model)  # a file of the blog's repository: other names
        kernel, bias = model.get_layer(HEAD_LAYER).get_weights()
        return cls(kernel, bias, model.network_config.layout)

    def with_layout(self, sizes: Sequence[int]) -> Self:
        """Return a head that reads the layout branch too, with weights of 0 if it did not.

        Args:
            sizes: number of features of each part, the layout's included.
        """
        if self.has_layout:
            return self
        place = sum(sizes[:LAYOUT_FROM_LAST])
        zeros = np.zeros((LAYOUT_SIZE, self.kernel.shape[1]), np.float32)
        kernel = np.concatenate([self.kernel[:place], zeros, self.kernel[place:]])
        return self._replace(kernel=kernel, has_layout=True)

    def embed(self, parts: Sequence[Float32Array]) -> Float32Array:
        """Return embeddings of unit length, float32 (images, dim), of the parts of the features."""
        parts = list(parts)
        if not self.has_layout:
            del parts[LAYOUT_FROM_LAST]
        rows = np.concatenate(parts, axis=1).astype(np.float32)
        if rows.shape[1] != len(self.kernel):
            raise InputError(
                f"the model's head reads {len(self.kernel):,} features, and these are "
                f"{rows.shape[1]:,}: they are of another network"
            )
        rows = rows @ self.kernel + self.bias
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: Float32Array = rows / np.maximum(lengths, 1e-12)
        return unit


def _arrays_of_head(file: Any, config: NetworkConfig, sizes: Sequence[int]) -> list[Float32Array]:
    group = child(weights_of(file), HEAD_LAYER)
    if not isinstance(group, h5py.Group):
        raise InputError(f"it has no layer {HEAD_LAYER}, which learns from answers")
    rows, dim = sum(sizes) - (0 if config.layout else LAYOUT_SIZE), config.embedding_size
    return read_layer(group, [(rows, dim), (dim,)])


def taught_features(
    model: Model,
    files: Sequence[str | os.PathLike[str]],
    cache_dir: Path,
    skip_broken: bool = True,
) -> Features:
    """Return what the head of a network reads of images, computed once.

    Features are kept by the content of an image and by the layers before the head. So a model that
    was taught has the same as the one that it started from.

    Args:
        model: a network of `build_network`, or a model file.
        files: image files.
        cache_dir: folder of cached features.
        skip_broken: whether to leave broken images out, rather than stop.

    Returns:
        The features of (images, 1): one array for each branch, one of the layout branch, and one
        of the ConvNet. `rows` is -1 for a broken image.

    Example:
        >>> features = taught_features("model.h5", ["photos/cat/1.jpg"], Path("cache"))
        >>> features.rows.shape
        (1, 1)

    Raises:
        InputError: the model or an image cannot be used, all images are broken, or the disk is
            full.
    """
    network = network_with_layout(opened_model(model))
    before = keras.Model(network.input, merged_parts(network))
    return cache_features(before, files, Path(cache_dir), skip_broken=skip_broken)


def sizes_of(features: Features) -> list[int]:
    """Return the number of features of each part."""
    return [math.prod(shape) for shape in features.shapes]


def read_parts(features: Features, images: Int64Array) -> list[Float32Array]:
    """Return the features of some images, float32 (images, size) of each part."""
    return [each.astype(np.float32) for each in features.read(images, 0 * images)]


def embed_from_features(model: Model, features: Features) -> Float32Array:
    """Embed images by the head alone; no image is read, and of a model file only the head.

    Args:
        model: a network of `build_network` or a model file: the one whose features these are, or
            one that was taught from it.
        features: of `taught_features`.

    Returns:
        float32 (images, dim) of unit length, NaN for a broken image. They differ from those of the
        whole network as float16 differs from float32, by some 1e-3.

    Example:
        >>> features = taught_features("model.h5", ["photos/cat/1.jpg"], Path("cache"))
        >>> embed_from_features("model.h5", features).shape
        (1, 8)

    Raises:
        InputError: the model cannot be used, or the features are of another network.
    """
    head = Head.of(model, sizes_of(features))
    rows = np.full((len(features.rows), head.kernel.shape[1]), np.nan, np.float32)
    whole = np.flatnonzero(features.rows[:, 0] >= 0)
    for begin in range(0, len(whole), ROWS_AT_ONCE):
        part = whole[begin : begin + ROWS_AT_ONCE]
        rows[part] = head.embed(read_parts(features, part))
    return rows


@default_settings()
def network_with_layout(model: keras.Model) -> keras.Model:
    """Return a network of the same embeddings that has a layout branch: itself if it has one."""
    config = model.network_config
    if config.layout:
        return model
    extended = build_network(replace(config, layout=True, weights=None))
    for layer in model.layers:
        if layer.weights and layer.name != HEAD_LAYER:
            extended.get_layer(layer.name).set_weights(layer.get_weights())
    sizes = [int(part.shape[-1]) for part in merged_parts(extended)]
    head = Head.of(model, sizes).with_layout(sizes)
    extended.get_layer(HEAD_LAYER).set_weights([head.kernel, head.bias])
    extended.calibration = getattr(model, "calibration", None)
    return extended
