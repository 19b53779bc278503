"""Model + two images -> where their similarity comes from: parts of the network, places, a picture.

The similarity is the cosine of the two embeddings (distance² = 2 - 2 cosine). Up to its length, an
embedding is linear in what the ConvNet and the two branches give (Wang et al. 2014, fig. 3):
e = sum over parts p of W_p^T m_p + bias, a = e / |e|. So the cosine a . b splits exactly into
(W_p^T m_p) . b / |e| for each part, and the bias.

Each part splits further, over the places of a feature map F of that part: place x gives
sum over channels k of F_k(x) ds / dF_k(x), where s is the cosine with the other embedding and all
lengths held fixed. For a network that pools and does nothing more, this is the decomposition of
Stylianou et al. 2019 ("Visualizing Deep Similarity Networks"), which cannot be had directly here:
dense layers with ReLU follow the pooling. Those are linear for one image as long as no unit
switches, so the places still add up to the part, but for what the layers' biases add (nothing, in
the branches). Grad-CAM averages the gradient over the places first, which breaks that sum wherever
the gradient differs between places, as it does below a max-pooling (Draelos & Carin 2020,
"HiResCAM"). The lengths are held fixed because the gradient of a cosine is 0 where two embeddings
are equal: the most similar images would have nothing to show. So a heatmap says what adds up to the
similarity; covering a place changes the lengths as well, and may change the cosine otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from deep_ranking.errors import InputError
from deep_ranking.metrics import row_distances

UInt8Array = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]

BIAS = "bias"
# In the order of the rows of the last dense layer's kernel.
PART_LAYERS = {"branch_1": "branch_1_flat", "branch_2": "branch_2_flat", "convnet": "hidden_2"}
PART_NAMES = {"convnet": "ConvNet", "branch_1": "branch 1", "branch_2": "branch 2", BIAS: "bias"}

# A map coarser than this says little about places.
MIN_MAP_SIDE = 7
# Keras divides by the length of a vector, but by no less than this.
MIN_LENGTH = 1e-6
COLORMAP = "plasma"
MAX_NAME = 40


@dataclass(frozen=True)
class Explanation:
    """Where the similarity of two images comes from.

    Attributes:
        images: uint8 (2, size, size, 3), RGB.
        distance: Euclidean distance of the embeddings.
        cosine: their dot product.
        parts_of_image: for "convnet", "branch_1", "branch_2" and "bias" a float array (2,): what
            this part of image 1 adds to the cosine with the whole of image 2, and of image 2 with
            the whole of image 1. Both columns add up to the cosine.
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
    parts_of_image: dict[str, Floats]
    evidence: dict[str, Floats]
    heatmaps: dict[str, Floats]
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
    layer = _convnet_layer(model)
    map_layers = {"branch_1": "branch_1_conv", "branch_2": "branch_2_conv", "convnet": layer}
    # The network in two: below the maps nothing is recorded, which at 1024 pixels saves gigabytes.
    map_outputs = [model.get_layer(name).output for name in map_layers.values()]
    top_layers = (*PART_LAYERS.values(), "embedding", "unit_embedding")
    below = keras.Model(model.input, map_outputs)
    above = keras.Model(map_outputs, [model.get_layer(name).output for name in top_layers])

    maps = below(images.astype(np.float32), training=False)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(maps)
        *outputs, linear, embeddings = above(maps, training=False)
        _check_finite(embeddings.numpy())
        kernel, bias = model.get_layer("embedding").get_weights()
        towards = embeddings.numpy()[::-1] / _lengths(linear.numpy())  # (2, embedding_size)
        weights = np.split(
            towards @ kernel.T, np.cumsum([each.shape[1] for each in outputs])[:-1], axis=1
        )
        added = [
            tf.reduce_sum(output * (weight / _lengths(output.numpy())), axis=1)
            for output, weight in zip(outputs, weights, strict=True)
        ]
        total = tf.add_n(added)
    gradients = tape.gradient(total, maps)
    evidence = {
        name: np.sum(values.numpy() * gradient.numpy(), axis=-1)
        for name, values, gradient in zip(map_layers, maps, gradients, strict=True)
    }
    parts = dict(zip(PART_LAYERS, (each.numpy() for each in added), strict=True))
    parts[BIAS] = towards @ bias
    size = images.shape[1]
    factor = 2 ** (int(layer[len("block")]) - 1)
    heatmaps = {"convnet": _interpolate(np.maximum(evidence["convnet"], 0), size, factor)}
    for name in ("branch_1", "branch_2"):
        convolution = model.get_layer(map_layers[name])
        windows = _windows(size, convolution.kernel_size[0], convolution.strides[0])
        heatmaps[name] = _paint(np.maximum(evidence[name], 0), windows)
    rows = embeddings.numpy()
    return Explanation(
        images=images,
        distance=float(row_distances(rows[:1], rows[1:])[0]),
        cosine=float(rows[0].astype(np.float64) @ rows[1]),
        parts_of_image={name: parts[name] for name in PART_NAMES},
        evidence=evidence,
        heatmaps={name: _scale(heatmap) for name, heatmap in heatmaps.items()},
        layer=layer,
    )


def _convnet_layer(model: keras.Model) -> str:
    """Name of the last convolution of the deepest block whose map has a useful resolution."""
    names = [f"block{block}_conv3" for block in (5, 4, 3)]
    for name in names:
        if model.get_layer(name).output.shape[1] >= MIN_MAP_SIDE:
            return name
    return names[-1]


def _check_finite(embeddings: Floats) -> None:
    for number, row in enumerate(embeddings, start=1):
        if not np.isfinite(row).all():
            raise InputError(
                f"image {number}: its embedding is not finite (NaN or infinity); the model's "
                "training has failed"
            )


def _lengths(rows: Floats) -> Floats:
    """Length of each row as a column, as `UnitNormalization` has it."""
    lengths: Floats = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), MIN_LENGTH)
    return lengths


def _interpolate(maps: Floats, size: int, factor: int) -> Floats:
    """Stretch maps (2, rows, columns) bilinearly; a place is `factor` pixels wide."""
    pixels = (np.arange(size) + 0.5) / factor - 0.5
    left = np.clip(np.floor(pixels).astype(int), 0, maps.shape[1] - 1)
    right = np.minimum(left + 1, maps.shape[1] - 1)
    weight = np.clip(pixels - left, 0, 1)
    rows = maps[:, left] * (1 - weight)[:, None] + maps[:, right] * weight[:, None]
    stretched: Floats = rows[:, :, left] * (1 - weight) + rows[:, :, right] * weight
    return stretched


def _windows(size: int, kernel_size: int, stride: int) -> npt.NDArray[np.int_]:
    """Place of a convolution with padding "same" that sees each pixel of a row; -1 for none."""
    places = -(-size // stride)
    padding = max((places - 1) * stride + kernel_size - size, 0) // 2
    place, offset = np.divmod(np.arange(size) + padding, stride)
    return np.where((offset < kernel_size) & (place < places), place, -1)


def _paint(maps: Floats, windows: npt.NDArray[np.int_]) -> Floats:
    """Paint each place of maps (2, rows, columns) over the pixels that it sees."""
    bordered = np.pad(maps, ((0, 0), (0, 1), (0, 1)))  # index -1 finds a zero
    return bordered[:, windows][:, :, windows]


def _scale(heatmaps: Floats) -> Floats:
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
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    figure.suptitle(
        f"distance {explanation.distance:.4f}, cosine {explanation.cosine:.4f}: "
        "where the similarity of the two images comes from"
    )
    grid = figure.add_gridspec(2, 5, width_ratios=(1, 1, 1, 1, 1.25))
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
        label="what a place adds to the similarity, as a share of the strongest place in the same "
        "heatmap; grey: nothing, or it speaks against",
    )
    _draw_parts(explanation, figure.add_subplot(grid[:, 4]))
    return figure


def _draw_heatmap(image: UInt8Array, heatmap: Floats, ax: Axes) -> Axes:
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
