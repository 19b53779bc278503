"""Model + two images -> where their similarity comes from: parts of the network, places, a picture.

The similarity is the cosine of the two embeddings (distance² = 2 - 2 cosine). Up to its length, an
embedding is linear in what the ConvNet and the two branches give (Wang et al. 2014, fig. 3):
e = sum over parts p of W_p^T m_p + bias, a = e / |e|. So the cosine a . b splits exactly into
(W_p^T m_p) . b / |e| for each part, and the bias. A network without branches has the ConvNet's part
only; where no dense layer follows the pooling, m_p is the pooled vectors, each times a number.

Each part splits further, over the places of a feature map F of that part: place x gives
sum over channels k of F_k(x) ds / dF_k(x), where s is the cosine with the other embedding and all
lengths held fixed. For a network that averages and does nothing more, this is the decomposition of
Stylianou et al. 2019 ("Visualizing Deep Similarity Networks"). Other layers may follow: dense ones
with ReLU, blocks of the backbone, the root of a mean square. All of them give twice as much for an
input twice as large, so the places still add up to the part, but for what the layers' biases add
(nothing, in the branches). Grad-CAM averages the gradient over the places first, which breaks that
sum wherever the gradient differs between places, as it does below a max-pooling (Draelos & Carin
2020, "HiResCAM"). The lengths are held fixed because the gradient of a cosine is 0 where two
embeddings are equal: the most similar images would have nothing to show. So a heatmap says what
adds up to the similarity; covering a place changes the lengths as well, and may change the cosine
otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import ops
from keras.layers import Concatenate, MaxPooling2D, UnitNormalization
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from deep_ranking.files import InputError
from deep_ranking.files.array_types import FloatArray, UInt8Array
from deep_ranking.metrics import row_distances
from deep_ranking.model.network import backbone_blocks

CONVNET = "convnet"
BIAS = "bias"
PART_NAMES = {CONVNET: "ConvNet", "branch_1": "branch 1", "branch_2": "branch 2", BIAS: "bias"}

# A map coarser than this says little about places.
MIN_MAP_SIDE = 7
# Keras divides by the length of a vector, but by no less than this.
MIN_LENGTH = 1e-12
COLORMAP = "plasma"
MAX_NAME = 40


@dataclass(frozen=True)
class Explanation:
    """Where the similarity of two images comes from.

    Attributes:
        images: uint8 (2, size, size, 3), RGB.
        distance: Euclidean distance of the embeddings.
        cosine: their dot product.
        parts_of_image: for "convnet", "bias", and where there are branches "branch_1" and
            "branch_2" a float array (2,): what this part of image 1 adds to the cosine with the
            whole of image 2, and of image 2 with the whole of image 1. Both columns add up to the
            cosine.
        evidence: for each part but the bias a float array (2, rows, columns): what each place of
            its feature map adds to the cosine, against it if negative.
        heatmaps: for each part but the bias a float array (2, size, size): the places for
            similarity over the image's pixels, 1 at the strongest of each image, 0 where there is
            none.
        layer: name of the layer whose feature map the ConvNet's evidence is of.
    """

    images: UInt8Array
    distance: float
    cosine: float
    parts_of_image: dict[str, FloatArray]
    evidence: dict[str, FloatArray]
    heatmaps: dict[str, FloatArray]
    layer: str

    @property
    def parts(self) -> dict[str, float]:
        """Mean of what each part adds, seen from both images; the sum is the cosine."""
        return {
            name: float(values.mean(dtype=np.float64))
            for name, values in self.parts_of_image.items()
        }


def explain(model: keras.Model, first: UInt8Array, second: UInt8Array) -> Explanation:
    """Explain the similarity of two images; the result for swapped images is the same, swapped.

    Args:
        model: a network of `build_network` or `load_model`.
        first: uint8 (size, size, 3), RGB, as `read_image` reads it at the model's size.
        second: another image.

    Returns:
        The `Explanation`.

    Raises:
        InputError: an embedding is not finite.
    """
    images = np.stack([first, second])
    embedding = model.get_layer("embedding")
    names, sizes = zip(*_parts(embedding.input), strict=True)
    part_of_row = np.repeat(names, sizes)  # of the kernel of `embedding`
    map_layers = {
        name: _convnet_layer(model) if name == CONVNET else f"{name}_conv"
        for name in PART_NAMES
        if name in names
    }
    # The network in two: below the maps nothing is recorded, which at 1024 pixels saves gigabytes.
    map_outputs = [model.get_layer(layer).output for layer in map_layers.values()]
    below = keras.Model(model.input, map_outputs)
    above = keras.Model(map_outputs, [embedding.input, embedding.output, model.output])
    above = keras.models.clone_model(above, clone_function=_with_fixed_length)

    maps = tf.nest.flatten(below(images.astype(np.float32), training=False))  # one has no list
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(maps)
        merged, linear, embeddings = above(maps, training=False)
        _check_finite(embeddings.numpy())
        kernel, bias = embedding.get_weights()
        lengths = np.linalg.norm(linear.numpy(), axis=1, keepdims=True)
        towards = embeddings.numpy()[::-1] / np.maximum(lengths, MIN_LENGTH)
        added = merged * (towards @ kernel.T)  # (2, rows of the kernel)
    gradients = tape.gradient(added, maps)
    parts = {name: added.numpy()[:, part_of_row == name].sum(axis=1) for name in map_layers}
    evidence = {
        name: np.sum(values.numpy() * gradient.numpy(), axis=-1)
        for name, values, gradient in zip(map_layers, maps, gradients, strict=True)
    }
    rows = embeddings.numpy()
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
    )


def _parts(tensor: Any) -> list[tuple[str, int]]:
    """Name and size of each part's vectors, in the order in which `tensor` consists of them."""
    layer = tensor._keras_history.operation
    if not isinstance(layer, Concatenate | UnitNormalization):
        name = next((name for name in PART_NAMES if layer.name.startswith(name)), CONVNET)
        return [(name, tensor.shape[-1])]
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return [part for each in inputs for part in _parts(each)]


class _FixedLength(keras.layers.Layer):
    """What `UnitNormalization` gives for a vector, with its length taken for a constant."""

    def call(self, vectors: Any) -> Any:
        """Divide each of the vectors (batch, size) by its length."""
        lengths = ops.norm(vectors, axis=-1, keepdims=True)
        return vectors / ops.maximum(ops.stop_gradient(lengths), MIN_LENGTH)


def _with_fixed_length(layer: keras.layers.Layer) -> keras.layers.Layer:
    is_length = isinstance(layer, UnitNormalization) and len(layer.output.shape) == 2
    return _FixedLength(name=layer.name) if is_length else layer


def _convnet_layer(model: keras.Model) -> str:
    """Name of the layer with the ConvNet's map: from it comes all that is pooled.

    It is the last layer of the deepest block whose map has a useful resolution, before its pooling
    if it ends in one.
    """
    config = model.network_config
    blocks = list(backbone_blocks(model).values())
    ends = [model.get_layer(names[-1]) for names in blocks]
    ends[-1] = model.get_layer(model.backbone_layers[-1])
    for end in reversed(ends[: len(ends) + 1 - config.pooled_blocks]):
        layer = end
        if isinstance(end, MaxPooling2D):
            layer = end.input._keras_history.operation
        if layer.output.shape[1] >= MIN_MAP_SIDE and _is_cut(model, layer):
            return str(layer.name)
    raise InputError(
        f"backbone {config.backbone} has no feature map of {MIN_MAP_SIDE} x {MIN_MAP_SIDE} places "
        f"or more at {config.seen_size} pixels; train with a larger --image_size to explain"
    )


def _is_cut(model: keras.Model, layer: keras.layers.Layer) -> bool:
    """Whether nothing goes around a layer on the way from the image to the backbone's end."""
    try:
        keras.Model(layer.output, model.get_layer(model.backbone_layers[-1]).output)
    except ValueError:
        return False
    return True


def _check_finite(embeddings: FloatArray) -> None:
    for number, row in enumerate(embeddings, start=1):
        if not np.isfinite(row).all():
            raise InputError(
                f"image {number}: its embedding is not finite (NaN or infinity); the model's "
                "training has failed"
            )


def _heatmaps(model: keras.Model, layer: str, places: FloatArray) -> FloatArray:
    """Spread what the places of a layer's map add (2, rows, columns) over the image's pixels."""
    size = model.input.shape[1]
    if layer in model.backbone_layers:
        seen_size = model.network_config.seen_size
        stride = 2 ** round(math.log2(seen_size / places.shape[1]))  # an odd row may be left out
        return _scale(_interpolate(places, size, stride * size / seen_size))
    convolution = model.get_layer(layer)
    return _scale(
        _paint(places, _windows(size, convolution.kernel_size[0], convolution.strides[0]))
    )


def _interpolate(maps: FloatArray, size: int, width: float) -> FloatArray:
    """Stretch maps (2, rows, columns) bilinearly; a place is `width` pixels wide.

    Where that is less than 1, a pixel is the weighted mean of all the places around its middle.
    """
    places = np.arange(maps.shape[1])
    middles = np.clip((np.arange(size) + 0.5) / width - 0.5, 0, places[-1])
    shares = np.maximum(1 - np.abs(middles[:, None] - places) / max(1, 1 / width), 0)
    shares /= shares.sum(axis=1, keepdims=True)  # (pixels, places)
    stretched: FloatArray = shares @ maps @ shares.T
    return stretched


def _windows(size: int, kernel_size: int, stride: int) -> npt.NDArray[np.int_]:
    """Place of a convolution with padding "same" that sees each pixel of a row; -1 for none."""
    places = -(-size // stride)
    padding = max((places - 1) * stride + kernel_size - size, 0) // 2
    place, offset = np.divmod(np.arange(size) + padding, stride)
    return np.where((offset < kernel_size) & (place < places), place, -1)


def _paint(maps: FloatArray, windows: npt.NDArray[np.int_]) -> FloatArray:
    """Paint each place of maps (2, rows, columns) over the pixels that it sees."""
    bordered = np.pad(maps, ((0, 0), (0, 1), (0, 1)))  # index -1 finds a zero
    return bordered[:, windows][:, :, windows]


def _scale(heatmaps: FloatArray) -> FloatArray:
    """Divide each heatmap by its maximum, unless that is 0."""
    highest = heatmaps.max(axis=(1, 2), keepdims=True)
    return heatmaps / np.where(highest > 0, highest, 1)


def explanation_figure(
    explanation: Explanation, names: Sequence[str] = ("image 1", "image 2")
) -> Figure:
    """Draw an explanation: each image, a heatmap of each part over it, and bars of the parts.

    Args:
        explanation: result of `explain`.
        names: what to call the two images.

    Returns:
        The figure.
    """
    columns = 1 + len(explanation.heatmaps)
    widths = [1] * columns + [1.25]
    figure = Figure(figsize=(2.5 * sum(widths), 5.6), layout="constrained")
    figure.suptitle(
        f"distance {explanation.distance:.4f}, cosine {explanation.cosine:.4f}: "
        "where the similarity of the two images comes from"
    )
    grid = figure.add_gridspec(2, columns + 1, width_ratios=widths)
    overlays = []
    for row, (image, name) in enumerate(zip(explanation.images, names, strict=True)):
        ax = figure.add_subplot(grid[row, 0])
        ax.imshow(image)
        _without_ticks(ax).set_xlabel(_printable(name), parse_math=False)
        for column, part in enumerate(explanation.heatmaps, start=1):
            ax = figure.add_subplot(grid[row, column])
            heatmap = explanation.heatmaps[part][row]
            _without_ticks(_draw_heatmap(image, heatmap, ax))
            if row == 0:
                ax.set_title(PART_NAMES[part])
            adds = explanation.parts_of_image[part][row]
            ax.set_xlabel(f"adds {adds:+.3f}" + ("" if heatmap.any() else ", no place for it"))
            overlays.append(ax)
    figure.colorbar(
        ScalarMappable(cmap=COLORMAP),
        ax=overlays,
        location="bottom",
        shrink=0.6,
        label="what a place adds to the similarity, as a share of the strongest\n"
        "place in the same heatmap; grey: nothing, or it speaks against",
    )
    _draw_parts(explanation, figure.add_subplot(grid[:, columns]))
    return figure


def _draw_heatmap(image: UInt8Array, heatmap: FloatArray, ax: Axes) -> Axes:
    """Draw a heatmap (size, size), 0 to 1, over the image in grey."""
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    # The square root keeps weak places visible without hiding the image below the strong ones.
    ax.imshow(heatmap, cmap=COLORMAP, vmin=0, vmax=1, alpha=0.7 * np.sqrt(heatmap))
    return ax


def _draw_parts(explanation: Explanation, ax: Axes) -> Axes:
    parts = explanation.parts
    labels = [f"{PART_NAMES[name]}\n{value:+.3f}" for name, value in parts.items()]
    ax.barh(labels, list(parts.values()), color="C0")
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.grid(axis="x", alpha=0.3)
    ax.set_title("share of each part")
    ax.set_xlabel("adds to the cosine (mean of both)")
    return ax


def _without_ticks(ax: Axes) -> Axes:
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def _printable(name: str) -> str:
    """Shorten a file name, and leave out what matplotlib's font has no sign for."""
    known = name.encode("latin-1", "replace").decode("latin-1")
    known = "".join(sign if sign.isprintable() else "?" for sign in known)
    return known if len(known) <= MAX_NAME else "..." + known[3 - MAX_NAME :]
