"""The layout branch: where an image has which colours and edges, by fixed filters.

What a network was trained to tell apart says little about the rest: one that knows products may
have lost what their colour is. This branch keeps the plain facts of an image, so that what people
say of its pictures can be learned from them. A grid of `GRID` x `GRID` cells covers the image; of
each cell it returns the mean colour, and how its edges are divided among four directions, as in a
histogram of oriented gradients (Dalal and Triggs 2005). No weight of it is ever trained.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

from typing import Any

import keras
import numpy as np
from keras import layers

from deep_ranking.files.array_types import Float32Array

GRID = 4
COLOURS, DIRECTIONS = 3, 4
SIDE = 64  # pixels along a side of the image that it sees
LAYOUT_SIZE = GRID * GRID * (COLOURS + DIRECTIONS)
# Added to the strength of an edge in each direction: below it, edges are noise.
FAINT = 0.01
EDGES = "layout_edges"
FLAT = "layout_flat_"  # begin of the names of both parts, whose maps have the same without "flat_"


def layout_vector(unit: Any) -> Any:
    """Add the branch to a network.

    Args:
        unit: images with values in [0, 1], a Keras tensor (batch, size, size, 3).

    Returns:
        Keras tensor (batch, LAYOUT_SIZE): the mean red, green and blue of each cell, row by row;
        then of each cell the strengths of its edges across, down, and along both diagonals,
        of length 1 together.
    """
    x = unit
    if (factor := x.shape[1] // SIDE) > 1:
        x = layers.AveragePooling2D(factor, name="layout_shrunk")(x)
    if x.shape[1] != SIDE:
        x = layers.Resizing(SIDE, SIDE, interpolation="bilinear", name="layout_resized")(x)
    cell = SIDE // GRID
    colours = layers.AveragePooling2D(cell, name="layout_colours")(x)
    # Without padding, or the border of the image would be an edge.
    slopes = layers.Conv2D(DIRECTIONS, 3, use_bias=False, name=EDGES, trainable=False)(x)
    falling = layers.Rescaling(-1.0, name="layout_falling")(slopes)
    strengths = layers.Maximum(name="layout_strengths")([slopes, falling])
    pooled = layers.AveragePooling2D(cell, padding="same", name="layout_pooled")(strengths)
    lifted = layers.Rescaling(1.0, FAINT, name="layout_lifted")(pooled)
    shares = layers.UnitNormalization(axis=-1, name="layout_shares")(lifted)
    return layers.Concatenate(name="layout")(
        [
            layers.Flatten(name=f"{FLAT}colours")(colours),
            layers.Flatten(name=f"{FLAT}shares")(shares),
        ]
    )


@default_settings()
def set_layout_filters(model: keras.Model) -> None:
    """Set the filters of a network's layout branch, if it has one."""
    if any(layer.name == EDGES for layer in model.layers):
        model.get_layer(EDGES).set_weights([_slopes()])


def _slopes() -> Float32Array:
    """Return the kernel (3, 3, colours, directions): differences of grey over two pixels."""
    across = np.zeros((3, 3))
    across[1] = [-1, 0, 1]
    down = across.T
    kernels = [across, down, (across + down) / np.sqrt(2), (across - down) / np.sqrt(2)]
    grey = np.stack(kernels, axis=-1)[:, :, None, :] / COLOURS
    return np.repeat(grey, COLOURS, axis=2).astype(np.float32)
