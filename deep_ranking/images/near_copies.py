"""Near copies: which images are nearly the same, found without a model; and all limits for that.

Two images are near copies if their perceptual hashes and their colours at a glance differ little.
The hash alone is not enough: it does not see colours, and nothing at all in a plain image. Copies
of a file are near copies of each other.

`docs/near_copies.md` compares this rule with the two that measure embeddings, whose limits are here
too.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Int64Array, IntArray, UInt8Array
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.images.connected_groups import join_pairs
from deep_ranking.images.hand_made_features import HASH_IMAGE_SIZE, perceptual_hash
from deep_ranking.images.reading import read_image

MAX_HASH_BITS = 3
"""Bits of 64 in which the perceptual hashes of near copies may differ."""

MAX_COLOUR_DIFFERENCE = 10.0
"""Mean difference, of 255, that near copies may have over the cells of a glance."""

MAX_EMBEDDING_DISTANCE = 0.3
"""Embedding distance below which `duplicates` takes two images for near copies, by default.

On Caltech-101 with the laptop recipe, it finds nearly all copies saved again at quality 50 or
enlarged to twice the size, and half of the copies reduced to half the size. Of 699 other images it
finds one pair, a drawing that is in the data set twice.
"""

EQUAL_ERROR_SHARE = 0.1
"""Share of the equal-error distance below which a report takes two images for near copies."""

GLANCE = 4  # cells a side; the mean colour of each is compared
NUM_BANDS = MAX_HASH_BITS + 1  # at least one band of a hash is the same in two near copies
MAX_STEPS = 1024  # images of one band, sorted by hash, that each is compared with
PAIRS_AT_ONCE = 1 << 20


def near_copy_groups(files: Sequence[str]) -> tuple[Int64Array, int]:
    """Return a group number for each image; near copies, and near copies of these, share a group.

    Args:
        files: image files. Each that cannot be read is a group of its own.

    Returns:
        int64 (images,), and how many could not be read.
    """
    hashes, glances, readable = _hashes_and_glances(files)
    groups = group_hashes(hashes[readable], glances[readable])
    numbers = np.arange(len(files)) + len(groups)  # no group has such a number
    numbers[readable] = groups
    return numbers, int((~readable).sum())


def near_copy_pairs(first: Sequence[str], second: Sequence[str]) -> BoolArray:
    """Return whether the two image files of each pair are near copies of each other.

    Args:
        first: an image file of each pair. One that cannot be read is no near copy.
        second: the other one.

    Returns:
        Bool array (pairs,).
    """
    hashes, glances, readable = _hashes_and_glances([*first, *second])
    numbers = np.arange(len(first))
    found = np.zeros(len(first), bool)
    codes, values = hashes.view(np.uint64).ravel(), glances.astype(np.int16)
    found[_near_pairs(codes, values, numbers, len(first) + numbers)[0]] = True
    return found & readable[: len(first)] & readable[len(first) :]


def hash_and_glance(pixels: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    """Return the hash and the glance of an image, as `group_hashes` takes them.

    Args:
        pixels: uint8 (HASH_IMAGE_SIZE, HASH_IMAGE_SIZE, 3), RGB.

    Returns:
        uint8 (8,), the 64 bits of the hash, and uint8 (GLANCE * GLANCE * 3,), the mean colours.
    """
    block = HASH_IMAGE_SIZE // GLANCE
    cells = pixels.reshape(GLANCE, block, GLANCE, block, 3)
    glance = cells.mean(axis=(1, 3)).astype(np.uint8).ravel()
    return np.packbits(perceptual_hash(pixels) > 0), glance


def group_hashes(hashes: UInt8Array, glances: UInt8Array) -> Int64Array:
    """Return a group number for each image, as `near_copy_groups` does: int64 (images,).

    Args:
        hashes: uint8 (images, 8), 64 bits each.
        glances: uint8 (images, values), mean colours.
    """
    codes = np.ascontiguousarray(hashes).view(np.uint64).ravel()
    # Equal rows need no search: the first stands for all of them.
    whole = np.column_stack([hashes, glances])
    _, first, copy_of = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    codes, values = codes[first], glances[first].astype(np.int16)
    groups, waiting = np.arange(len(codes)), [np.empty((2, 0), np.int64)]
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
                waiting.append(_near_pairs(codes, values, a, b))
                if sum(each.shape[1] for each in waiting) >= PAIRS_AT_ONCE:
                    groups = join_pairs(groups, *np.concatenate(waiting, axis=1))
                    waiting = [np.empty((2, 0), np.int64)]
    return join_pairs(groups, *np.concatenate(waiting, axis=1))[copy_of]


def _hashes_and_glances(files: Sequence[str]) -> tuple[UInt8Array, UInt8Array, BoolArray]:
    """Return the hash and the glance of each image file, and whether it could be read."""
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
    return hashes, glances, readable


def _near_pairs(
    codes: npt.NDArray[np.uint64], glances: npt.NDArray[np.int16], first: IntArray, second: IntArray
) -> Int64Array:
    """Return the pairs of rows that are near copies: int64 (2, pairs)."""
    near = np.bitwise_count(codes[first] ^ codes[second]) <= MAX_HASH_BITS
    first, second = first[near], second[near]
    near = np.abs(glances[first] - glances[second]).mean(axis=1) <= MAX_COLOUR_DIFFERENCE
    return np.stack([first[near], second[near]])
