"""Model + two images -> where their similarity comes from: parts of the network, and places.

The similarity is the cosine of the two embeddings (distance² = 2 - 2 cosine). Before it is scaled
to length 1, an embedding is linear in the outputs of the ConvNet and the two branches (Wang et al.
2014, fig. 3): e = sum over parts p of W_p^T m_p + bias, a = e / |e|. So the cosine a . b splits
exactly into (W_p^T m_p) . b / |e| for each part, and the bias. A network without branches has only
the ConvNet's part. If no dense layer follows the pooling, m_p is the pooled vectors, each times a
number.

Each part splits further, over the places of a feature map F of that part. Place x adds the sum over
channels k of F_k(x) ds / dF_k(x), where s is the cosine with the other embedding and all lengths
are held fixed. For a network that only averages, this is the decomposition of Stylianou et al. 2019
("Visualizing Deep Similarity Networks"). Other layers may follow: dense ones with ReLU, blocks of
the backbone, the root of a mean square. All of them double their output when the input doubles, so
the places still add up to the part, except for what the layers' biases add (nothing, in the
branches). Grad-CAM averages the gradient over the places first. That breaks the sum wherever the
gradient differs between places, as it does below a max-pooling (Draelos & Carin 2020, "HiResCAM").

The lengths are held fixed because the gradient of a cosine is 0 where two embeddings are equal: the
most similar images would have nothing to show. So a heatmap shows what adds up to the similarity.
It does not predict what covering a place would do, because that also changes the lengths.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import ops
from keras.layers import AveragePooling2D, Concatenate, MaxPooling2D, UnitNormalization

from deep_ranking.config.network import WORD_KINDS
from deep_ranking.files import InputError
from deep_ranking.files.array_types import FloatArray, UInt8Array
from deep_ranking.images import read_image
from deep_ranking.metrics import first_non_finite_row, row_distances
from deep_ranking.model.branches import ROOTS
from deep_ranking.model.file import opened_model
from deep_ranking.model.layout import FLAT, GRID
from deep_ranking.model.network import backbone_blocks
from deep_ranking.reports.likeness_words import BIAS, MIN_COSINE, parts_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONVNET = "convnet"
PART_NAMES = {
    CONVNET: "ConvNet",
    "branch_1": "branch 1",
    "branch_2": "branch 2",
    f"{FLAT}colours": "hues",
    f"{FLAT}shares": "edges",
    BIAS: "bias",
}
WORD_NAMES = {"branch_1": "colours", "branch_2": "textures"}  # of branches that count words

# A coarser map tells little about places.
MIN_MAP_SIDE = 7
# Keras divides by the length of a vector, but by no less than this.
MIN_LENGTH = 1e-12


@dataclass(frozen=True)
class Explanation:
    """Where the similarity of two images comes from.

    Attributes:
        images: uint8 (2, size, size, 3), RGB.
        distance: Euclidean distance of the embeddings.
        cosine: their dot product.
        parts_of_image: for "convnet", "bias", and where there are branches "branch_1" and
            "branch_2", and for a layout its two parts, a float array (2,): what this part of image
            1 adds to the cosine with all of image 2, and this part of image 2 with all of image 1.
            Both columns add up to the cosine.
        evidence: for each part but the bias a float array (2, rows, columns): what each place of
            its feature map adds to the cosine; negative values speak against similarity.
        heatmaps: for each part but the bias a float array (2, size, size): the positive evidence
            spread over the image's pixels, 1 at the strongest of each image; all 0 if there is
            none.
        layer: name of the layer whose feature map gives the ConvNet's evidence.
        names: names of the two images, for the figure.
        part_names: what the text and the figure call each part.

    Example:
        >>> found = explain(model, "photos/cat/0.png", "photos/dog/0.png")
        >>> sorted(found.parts)
        ['bias', 'branch_1', 'branch_2', 'convnet']
    """

    images: UInt8Array
    distance: float
    cosine: float
    parts_of_image: dict[str, FloatArray]
    evidence: dict[str, FloatArray]
    heatmaps: dict[str, FloatArray]
    layer: str
    names: tuple[str, str] = ("image 1", "image 2")
    part_names: Mapping[str, str] = field(default_factory=lambda: PART_NAMES)

    def __repr__(self) -> str:
        lines = [f"distance {self.distance:.6f}", f"cosine   {self.cosine:.6f}, the sum of"]
        for name, value in self.parts.items():
            share = f"  {100 * value / self.cosine:6.1f} %" if self.cosine >= MIN_COSINE else ""
            lines.append(f"  {self.part_names[name]:8} {value:+.6f}{share}")
        lines += parts_in_words(self.parts, self.part_names, self.cosine)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from deep_ranking.reports.page.html import picture

        return picture(self.figure(), repr(self).replace("\n", "; "))

    def figure(self) -> "Figure":
        """Draw the images, heatmaps of the parts over them, and bars of the parts."""
        from deep_ranking.reports.plots.explanation import explanation_figure

        return explanation_figure(self, self.names)

    @property
    def parts(self) -> dict[str, float]:
        """Mean of what each part adds, seen from both images; the sum is the cosine."""
        return {
            name: float(values.mean(dtype=np.float64))
            for name, values in self.parts_of_image.items()
        }


def explain(
    model: keras.Model | str | os.PathLike[str],
    image1: str | os.PathLike[str],
    image2: str | os.PathLike[str],
) -> Explanation:
    """Return where the similarity of two images comes from; swapping them swaps the result.

    Args:
        model: model file, or a network of `build_network` or `load_model`.
        image1: an image file.
        image2: another.

    Example:
        >>> found = explain(model, "photos/cat/0.png", "photos/dog/0.png")
        >>> abs(sum(found.parts.values()) - found.cosine) < 1e-5
        True

    Raises:
        InputError: a file cannot be read, or as for `explain_pixels`.
    """
    network = opened_model(model)
    size = network.input_shape[1]
    pixels = (read_image(image1, size), read_image(image2, size))
    names = (os.path.basename(image1), os.path.basename(image2))
    return replace(explain_pixels(network, *pixels), names=names)


@default_settings()
def explain_pixels(model: keras.Model, first: UInt8Array, second: UInt8Array) -> Explanation:
    """Return where the similarity of two images comes from; swapping them swaps the result.

    Args:
        model: a network of `build_network` or `load_model`.
        first: uint8 (size, size, 3), RGB, as `read_image` reads it at the model's size.
        second: another image.

    Returns:
        The `Explanation`.

    Raises:
        InputError: an embedding is not finite, or no feature map of the backbone is fine enough.
    """
    images = np.stack([first, second])
    embedding = model.get_layer("embedding")
    names, sizes = zip(*_part_sizes(embedding.input), strict=True)
    part_of_row = np.repeat(names, sizes)  # of the kernel of `embedding`
    map_layers = {
        name: _convnet_layer(model) if name == CONVNET else _branch_layer(model, name)
        for name in PART_NAMES
        if name in names
    }
    # Two models, because recording no gradients below the maps saves gigabytes at 1024 pixels.
    map_outputs = [model.get_layer(layer).output for layer in map_layers.values()]
    below = keras.Model(model.input, map_outputs)
    above = keras.Model(map_outputs, [embedding.input, embedding.output, model.output])
    above = keras.models.clone_model(above, clone_function=_with_fixed_length)

    # Keras returns a single map without a list.
    maps = tf.nest.flatten(below(images.astype(np.float32), training=False))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(maps)
        merged, linear, embeddings = above(maps, training=False)
        rows = embeddings.numpy()
        if (bad := first_non_finite_row(rows)) is not None:
            raise InputError(
                f"image {bad + 1}: its embedding is not finite (NaN or infinity); the model's "
                "training has failed"
            )
        kernel, bias = embedding.get_weights()
        lengths = np.linalg.norm(linear.numpy(), axis=1, keepdims=True)
        towards = rows[::-1] / np.maximum(lengths, MIN_LENGTH)
        added = merged * (towards @ kernel.T)  # (2, rows of the kernel)
    gradients = tape.gradient(added, maps)
    parts = {name: added.numpy()[:, part_of_row == name].sum(axis=1) for name in map_layers}
    counts_words = model.network_config.multiscale in WORD_KINDS
    evidence = {
        name: np.sum(values.numpy() * gradient.numpy(), axis=-1)
        for name, values, gradient in zip(map_layers, maps, gradients, strict=True)
    }
    return Explanation(
        images=images,
        distance=float(row_distances(rows[:1], rows[1:])[0]),
        cosine=float(rows[0].astype(np.float64) @ rows[1]),
        parts_of_image=parts | {BIAS: towards @ bias},
        evidence=evidence,
        heatmaps={
            name: _heatmaps(model, layer, np.maximum(evidence[name], 0))
            for name, layer in map_layers.items()
        },
        layer=map_layers[CONVNET],
        part_names=PART_NAMES | (WORD_NAMES if counts_words else {}),
    )


def _part_sizes(tensor: Any) -> list[tuple[str, int]]:
    """Return name and size of the vectors that `tensor` joins, in order."""
    layer = tensor._keras_history.operation
    if not isinstance(layer, Concatenate | UnitNormalization):
        name = next((name for name in PART_NAMES if layer.name.startswith(name)), CONVNET)
        return [(name, tensor.shape[-1])]
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return [part for each in inputs for part in _part_sizes(each)]


class _FixedLength(keras.layers.Layer):
    """Like `UnitNormalization` for vectors, but without a gradient through the length."""

    def call(self, vectors: Any) -> Any:
        """Divide each of the vectors (batch, size) by its length."""
        lengths = ops.norm(vectors, axis=-1, keepdims=True)
        return vectors / ops.maximum(ops.stop_gradient(lengths), MIN_LENGTH)


def _with_fixed_length(layer: keras.layers.Layer) -> keras.layers.Layer:
    is_length = isinstance(layer, UnitNormalization) and len(layer.output.shape) == 2
    return _FixedLength(name=layer.name) if is_length else layer


def _branch_layer(model: keras.Model, name: str) -> str:
    """Return the name of the layer with a branch's map; what follows it is linear or a root."""
    if name.startswith(FLAT):
        return name.replace("flat_", "")
    words = f"{name}_{ROOTS}"
    return words if any(layer.name == words for layer in model.layers) else f"{name}_conv"


def _convnet_layer(model: keras.Model) -> str:
    """Return the name of the layer with the ConvNet's map, which everything pooled comes from.

    It is the last layer of the deepest block whose map has a useful resolution, or the layer before
    it if that is a pooling.

    Raises:
        InputError: no block has such a map.
    """
    config = model.network_config
    blocks = list(backbone_blocks(model).values())
    ends = [model.get_layer(names[-1]) for names in blocks]
    ends[-1] = model.get_layer(model.backbone_layers[-1])
    for end in reversed(ends[: len(ends) + 1 - config.pooled_blocks]):
        layer = end
        if isinstance(end, MaxPooling2D):
            layer = end.input._keras_history.operation
        if layer.output.shape[1] >= MIN_MAP_SIDE and _is_on_every_path(model, layer):
            return str(layer.name)
    raise InputError(
        f"backbone {config.backbone} has no feature map of {MIN_MAP_SIDE} x {MIN_MAP_SIDE} places "
        f"or more at {config.seen_size} pixels; train with a larger --image_size to explain"
    )


def _is_on_every_path(model: keras.Model, layer: keras.layers.Layer) -> bool:
    """Return whether every path from the image to the end of the backbone goes through a layer."""
    try:
        keras.Model(layer.output, model.get_layer(model.backbone_layers[-1]).output)
    except ValueError:
        return False
    return True


def _heatmaps(model: keras.Model, layer: str, places: FloatArray) -> FloatArray:
    """Return what the places of a layer's map add (2, rows, columns), spread over the pixels.

    The strongest pixel of each image is 1, unless all are 0.
    """
    size = model.input.shape[1]
    if layer in model.backbone_layers:
        seen_size = model.network_config.seen_size
        # A power of 2, although a pooling may leave out an odd row.
        stride = 2 ** round(math.log2(seen_size / places.shape[1]))
        heatmaps = _interpolate(places, size, stride * size / seen_size)
    else:
        windows = _windows_of_branch(model, layer, size)
        bordered = np.pad(places, ((0, 0), (0, 1), (0, 1)))  # index -1 finds a zero
        heatmaps = bordered[:, windows][:, :, windows]
    highest = heatmaps.max(axis=(1, 2), keepdims=True)
    return heatmaps / np.where(highest > 0, highest, 1)


def _interpolate(maps: FloatArray, size: int, width: float) -> FloatArray:
    """Return maps (2, rows, columns) stretched bilinearly; a place is `width` pixels wide.

    If that is less than 1, a pixel is the weighted mean of all places around its middle.
    """
    places = np.arange(maps.shape[1])
    middles = np.clip((np.arange(size) + 0.5) / width - 0.5, 0, places[-1])
    shares = np.maximum(1 - np.abs(middles[:, None] - places) / max(1, 1 / width), 0)
    shares /= shares.sum(axis=1, keepdims=True)  # (pixels, places)
    stretched: FloatArray = shares @ maps @ shares.T
    return stretched


def _windows_of_branch(model: keras.Model, layer: str, size: int) -> npt.NDArray[np.int_]:
    """Return the place of a branch's map that sees each pixel of a row; -1 for none."""
    if layer.startswith("layout_"):
        return np.arange(size) * GRID // size
    convolution = model.get_layer(f"{layer.rsplit('_', 1)[0]}_conv")
    windows = _windows(
        convolution.input.shape[1], convolution.kernel_size[0], convolution.strides[0]
    )
    before = convolution.input._keras_history.operation
    if isinstance(before, AveragePooling2D):  # a pixel that the convolution sees is their mean
        windows = windows[_windows(size, before.pool_size[0], before.pool_size[0])]
    return windows


def _windows(size: int, kernel_size: int, stride: int) -> npt.NDArray[np.int_]:
    """Return the place of a "same" convolution that sees each pixel of a row; -1 for none."""
    places = -(-size // stride)
    padding = max((places - 1) * stride + kernel_size - size, 0) // 2
    place, offset = np.divmod(np.arange(size) + padding, stride)
    return np.where((offset < kernel_size) & (place < places), place, -1)
