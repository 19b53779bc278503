"""One HTML page that shows groups of duplicates, with a frame around the image to keep of each."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.files.html import escaped, paragraph
from deep_ranking.files.words import byte_size
from deep_ranking.images import decode_image, open_header, upright_size
from deep_ranking.images.thumbnails import thumbnail
from deep_ranking.reports.page.html import page
from deep_ranking.search.duplicates import DuplicateGroup, group_title, remarks_about
from deep_ranking.search.keeper import DuplicateImage
from deep_ranking.search.links import freed_bytes

MOST_GROUPS, MOST_IMAGES = 200, 24  # groups, and images of each, that a page shows
PROPORTIONAL_SIZE = 224  # pixels of the longer side
WIDTH = "11rem"  # wider than elsewhere: duplicates differ in details


def duplicates_page(
    groups: Sequence[DuplicateGroup], root: Path, *, threshold: float, summary: str
) -> str:
    """Return the page as HTML.

    Args:
        groups: the groups; the page shows the first 200, and the first 24 images of each.
        root: folder of the images.
        threshold: distance below which images are duplicates.
        summary: plain text with the numbers of groups and images.
    """
    parts = [
        paragraph(f"{summary}."),
        paragraph(
            "A green frame marks the image to keep of each group: the one with the most detail, "
            "which is not that of a blurred or enlarged image, whatever its pixels; then more "
            "pixels, a format without loss, and the larger file count. The others follow: they are "
            f"nearer than {threshold:g} to it, or equal files. Of a chain of near images, the best "
            "takes those near it, and the rest makes groups of its own."
        ),
    ]
    if len(groups) > MOST_GROUPS:
        parts.append(
            paragraph(
                f"The {MOST_GROUPS} largest of {len(groups):,} groups are shown; --json FILE "
                "writes all."
            )
        )
    for number, group in enumerate(groups[:MOST_GROUPS], start=1):
        size = byte_size(freed_bytes(group.movable))
        title = f"Group {number}: {group_title(group)}, {size} could go"
        figures = [_figure(image, root) for image in group.images[:MOST_IMAGES]]
        parts.append(f'<h3>{escaped(title)}</h3>\n<div class="row">{"".join(figures)}</div>')
        if len(group.images) > MOST_IMAGES:
            parts.append(paragraph(f"and {len(group.images) - MOST_IMAGES:,} more in this group."))
    return page(f"Duplicates in {root}", "\n".join(parts))


def _figure(image: DuplicateImage, root: Path) -> str:
    first = "✓ keep" if image.is_keeper else f"{image.distance:.3f}"
    sides, size = f"{image.width}x{image.height}", byte_size(image.num_bytes)
    caption = ", ".join([first, sides, size, *remarks_about(image), image.path])
    kind = "hit" if image.is_keeper else ""
    path = root / image.path
    pixels = proportional_pixels(path)
    return thumbnail(pixels, caption, kind=kind, description=str(path), width=WIDTH)


def proportional_pixels(path: Path) -> UInt8Array:
    """Return an image with its sides in proportion, the longer of 224 pixels.

    An image that cannot be read is a white square.
    """
    try:
        pixels = decode_image(path, PROPORTIONAL_SIZE)
        with open_header(path) as header:
            sides = upright_size(header)
    except InputError:  # gone since it was compared
        return np.full((PROPORTIONAL_SIZE, PROPORTIONAL_SIZE, 3), 255, np.uint8)
    # `decode_image` may have reduced one side more than the other.
    width, height = (max(1, round(PROPORTIONAL_SIZE * side / max(sides))) for side in sides)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
