"""Copies and near-copies among images, so that they can be kept on one side of a split.

Two images are look-alikes if their perceptual hashes differ in few bits, and so do their colours at
a glance: a hash sees neither colour nor, in a plain image, anything at all. Copies of a file are
look-alikes of each other.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images.hand_made_features import HASH_IMAGE_SIZE, perceptual_hash
from deep_ranking.images.reading import read_image

MAX_HASH_BITS = 3  # of 64 that may differ
NUM_BANDS = MAX_HASH_BITS + 1  # one of which is then the same in both
GLANCE = 4  # pixels a side
MAX_COLOUR_DIFFERENCE = 10.0  # mean over a glance, of 255
MAX_STEPS = 1024  # images of one band, in the order of their hashes, that each is compared with
PAIRS_AT_ONCE = 1 << 20


def near_copy_groups(files: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """Number images so that look-alikes, and look-alikes of these, have the same number.

    Args:
        files: image files. Those that cannot be read are like no other.

    Returns:
        int64 (images,), and how many could not be read.
    """
    hashes = np.zeros((len(files), 8), np.uint8)
    glances = np.zeros((len(files), GLANCE * GLANCE * 3), np.uint8)
    readable = np.ones(len(files), bool)
    for number, file in enumerate(progress_bar(files, title="copies", unit="images")):
        try:
            pixels = read_image(file, HASH_IMAGE_SIZE)
        except InputError:
            readable[number] = False
            continue
        hashes[number], glances[number] = hash_and_glance(pixels)
    groups = group_hashes(hashes[readable], glances[readable])
    numbers = np.arange(len(files)) + len(groups)  # unlike any group
    numbers[readable] = groups
    return numbers, int((~readable).sum())


def hash_and_glance(pixels: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    """Give what look-alikes have in common.

    Args:
        pixels: uint8 (HASH_IMAGE_SIZE, HASH_IMAGE_SIZE, 3), RGB.

    Returns:
        uint8 (8,), 64 bits, and uint8 (GLANCE * GLANCE * 3,), colours; as `group_hashes` takes
        them.
    """
    block = HASH_IMAGE_SIZE // GLANCE
    cells = pixels.reshape(GLANCE, block, GLANCE, block, 3)
    glance = cells.mean(axis=(1, 3)).astype(np.uint8).ravel()
    return np.packbits(perceptual_hash(pixels) > 0), glance


def group_hashes(hashes: UInt8Array, glances: UInt8Array) -> npt.NDArray[np.int64]:
    """Number hashes so that those of look-alikes are equal.

    Args:
        hashes: uint8 (images, 8), 64 bits.
        glances: uint8 (images, values), colours.

    Returns:
        int64 (images,).
    """
    codes = np.ascontiguousarray(hashes).view(np.uint64).ravel()
    # Copies need no search: one of those that are the same in all stands for them.
    whole = np.column_stack([hashes, glances])
    _, first, copy_of = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    codes, glances = codes[first], glances[first].astype(np.int16)
    left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    bands = codes.view(np.uint16).reshape(-1, NUM_BANDS)
    for band in bands.T:
        order = np.lexsort((codes, band))
        ends = np.searchsorted(band[order], band[order], side="right")
        longest = int((ends - np.arange(len(order))).max(initial=1))
        for step in range(1, min(longest, MAX_STEPS)):
            places = np.flatnonzero(np.arange(len(order)) + step < ends)
            for begin in range(0, len(places), PAIRS_AT_ONCE):
                here = places[begin : begin + PAIRS_AT_ONCE]
                a, b = order[here], order[here + step]
                near = np.bitwise_count(codes[a] ^ codes[b]) <= MAX_HASH_BITS
                a, b = a[near], b[near]
                near = np.abs(glances[a] - glances[b]).mean(axis=1) <= MAX_COLOUR_DIFFERENCE
                left.append(a[near])
                right.append(b[near])
    ends_of = (np.concatenate(left), np.concatenate(right))
    graph = coo_array((np.ones(len(ends_of[0]), bool), ends_of), (len(codes), len(codes)))
    return np.asarray(connected_components(graph, directed=False)[1][copy_of], np.int64)
