"""Two images -> which of their places make them alike, by covering one place after the other.

Occlusion sensitivity (Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks",
section 4.2): a place of one image is covered, the image is embedded again, and what counts is how
much the cosine with the other image's embedding falls. It needs embeddings alone, so it works with
every engine, where `reports.explain` needs the gradients of a network in Keras.

The places are the cells of a grid. A patch is two cells wide and lies around the middle of its
cell, so that each overlaps its neighbours by half. At the border it reaches beyond the image.

The cover is a blurred copy of the image with a soft edge. It leaves a plain place as it is, where a
patch of one colour would add an object of its own. Tried on 15 pairs of held-out classes of Caltech
101, of which 6 have plain places: covering these with the mean colour moved the cosine by 7.8 % of
the strongest fall, and with the blurred copy by 5.0 %, both with a soft edge. A colour that reaches
far beyond its patch stays visible, so what a uniform area adds by its colour is not shown.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from deep_ranking.embedding.embed import embed_images, engine_of
from deep_ranking.embedding.embedder import Embedder, opened_embedder
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, Float64Array, UInt8Array
from deep_ranking.images import read_image
from deep_ranking.metrics import row_distances

if TYPE_CHECKING:
    import keras

GRID = 7  # places in each direction
BLUR = 0.1  # standard deviation of the cover, as a share of the image's side
SOFT = 0.08  # width of a patch's soft edge, likewise
LEAST_CHANGE = 0.01  # of the cosine; less of it tells nothing
LITTLE = 0.04  # likewise: so small a fall is said to be little
SPREAD = 0.5  # share of the places that count at least half as much as the strongest
LEAST_APART = 0.5  # share of the largest fall; of a smaller rise the words say nothing
ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")
ALONE = {"upper": "top", "lower": "bottom", "left": "left side", "right": "right side"}

Embed = Callable[[Sequence[UInt8Array]], Float32Array]
"""Images, each uint8 (size, size, 3), RGB -> float32 (images, dim), unit rows."""


@dataclass(frozen=True, eq=False)
class Occlusion:
    """Which places make two images alike.

    Attributes:
        distance: Euclidean distance of the embeddings.
        cosine: of the two embeddings; the words call it the likeness.
        drops: float64 (2, rows, columns): how much the cosine falls when the place of image 1, or
            of image 2, is covered. Below 0 the place sets them apart.

    Example:
        >>> found = explain_by_occlusion(model, "photos/cat/0.png", "photos/dog/0.png")
        >>> found.heat.shape
        (2, 7, 7)
    """

    distance: float
    cosine: float
    drops: Float64Array

    def __repr__(self) -> str:
        lines = [f"distance {self.distance:.6f}", f"cosine   {self.cosine:.6f}"]
        return "\n".join(
            [*lines, *(f"image {number + 1}: {self.words(number)}" for number in (0, 1))]
        )

    @property
    def heat(self) -> Float64Array:
        """Float64 (2, rows, columns): the drops as shares of the strongest of each image.

        A place that sets the images apart has 0; so have all, if no place counts.
        """
        strongest = self.drops.max(axis=(1, 2), keepdims=True)
        shares = np.maximum(self.drops, 0) / np.where(strongest > 0, strongest, 1)
        return np.where(strongest >= LEAST_CHANGE, shares, 0.0)

    def words(self, number: int) -> str:
        """Return what the places of an image say, in a sentence or two.

        Args:
            number: of the image, 0 or 1.
        """
        drops = self.drops[number]
        before = f"{self.cosine:.2f}"
        if drops.max() < LEAST_CHANGE:
            place = ""
            said = f"No place counts alone: whatever is covered, the likeness stays near {before}."
        else:
            place, after = self._told(drops.argmax(), number)
            is_spread = np.mean(self.heat[number] >= 0.5) >= SPREAD
            begin = f"{place} counts most"
            if is_spread:
                begin = f"Most of it counts, above all {place}"
            elif drops.max() < LITTLE:
                begin = f"No place counts much, {place} most"
            said = f"{begin}: with it covered, the likeness falls from {before} to {after}."
            said = said[0].upper() + said[1:]
        other, after = self._told(drops.argmin(), number)
        if drops.min() > -max(LEAST_CHANGE, LEAST_APART * drops.max()) or other == place:
            return said
        begin = other[0].upper() + other[1:]
        return f"{said} {begin} sets them apart: with it covered, the likeness rises to {after}."

    def _told(self, cell: np.intp, number: int) -> tuple[str, str]:
        """Return a place in words, and the cosine without it."""
        row, column = np.unravel_index(cell, self.drops.shape[1:])
        after = self.cosine - self.drops[number, row, column]
        return place_in_words(int(row), int(column), self.drops.shape[1]), f"{after:.2f}"


def place_in_words(row: int, column: int, cells: int = GRID) -> str:
    """Return where a cell of a square grid is, such as "the upper left".

    Example:
        >>> place_in_words(0, 0), place_in_words(3, 3), place_in_words(3, 6)
        ('the upper left', 'the middle', 'the right side')
    """
    names = [
        words[round(2 * at / max(1, cells - 1))] for at, words in ((row, ROWS), (column, COLUMNS))
    ]
    given = [each for each in names if each]
    if not given:
        return "the middle"
    return f"the {ALONE[given[0]] if len(given) == 1 else ' '.join(given)}"


def occlusion(embed: Embed, first: UInt8Array, second: UInt8Array) -> Occlusion:
    """Return which places make two images alike; swapping them swaps the result.

    It embeds 50 images for each of the two.

    Args:
        embed: what embeds; it is called once for each image.
        first: uint8 (size, size, 3), RGB, at the size that `embed` takes.
        second: another image.

    Example:
        >>> embed = partial(embed_images, Embedder("model.h5"))
        >>> images = [read_image(f"photos/cat/{number}.png", 32) for number in (0, 1)]
        >>> occlusion(embed, *images).drops.shape
        (2, 7, 7)

    Raises:
        InputError: an embedding is not finite.
    """
    rows = [embed([each, *covered_images(each)]) for each in (first, second)]
    if not all(np.isfinite(each).all() for each in rows):
        raise InputError("an embedding is not finite (NaN or infinity); the model is damaged")
    whole = [each[0].astype(np.float64) for each in rows]
    cosine = float(whole[0] @ whole[1])
    drops = [cosine - each[1:] @ other for each, other in zip(rows, whole[::-1], strict=True)]
    return Occlusion(
        distance=float(row_distances(whole[0][None], whole[1][None])[0]),
        cosine=cosine,
        drops=np.reshape(drops, (2, GRID, GRID)),
    )


def explain_by_occlusion(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
    image1: str | os.PathLike[str] | bytes,
    image2: str | os.PathLike[str] | bytes,
) -> Occlusion:
    """Return which places make two images alike; a compiled model needs no TensorFlow.

    Args:
        model: model file, an `Embedder`, or a model from `build_network` or `load_model`.
        image1: an image file, or the bytes of one.
        image2: another.

    Example:
        >>> found = explain_by_occlusion(model, "photos/cat/0.png", "photos/cat/0.png")
        >>> found.distance, bool((found.drops[0] == found.drops[1]).all())
        (0.0, True)

    Raises:
        InputError: a file is missing or cannot be read, or as for `occlusion`.
    """
    opened = opened_embedder(model)
    size = opened.image_size if isinstance(opened, Embedder) else engine_of(opened).image_size
    pixels = [read_image(each, size) for each in (image1, image2)]
    return occlusion(partial(embed_images, opened), *pixels)


def covered_images(image: UInt8Array) -> list[UInt8Array]:
    """Return an image once for each place of the grid, row by row, with that place covered.

    Args:
        image: uint8 (size, size, 3).

    Returns:
        49 images like it.
    """
    size = image.shape[0]
    blurred = cv2.GaussianBlur(image, (0, 0), BLUR * size, borderType=cv2.BORDER_REPLICATE)
    change = blurred.astype(np.float32) - image
    middles = (np.arange(size) + 0.5) / size
    # (cells, size): 1 inside the patch, 0 outside, and a line between over the soft edge
    inside = [1 / GRID - np.abs(middles - (cell + 0.5) / GRID) for cell in range(GRID)]
    shares = np.clip(np.stack(inside) / SOFT + 0.5, 0, 1).astype(np.float32)
    return [
        np.rint(image + np.outer(row, column)[..., None] * change).astype(np.uint8)
        for row in shares
        for column in shares
    ]
