"""One HTML page that shows groups of duplicates, the image to keep of each in a frame."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.images import decode_image, open_header, upright_size
from deep_ranking.reports.page.html import escaped, page, paragraph, thumbnail
from deep_ranking.search.duplicates import DuplicateGroup, DuplicateImage, readable_bytes

MOST_GROUPS, MOST_IMAGES = 200, 24  # groups, and images of each, that a page shows
THUMBNAIL_SIZE = 224
FIGURE = '<figure style="width: 11rem">'  # wider than elsewhere: a duplicate shows in its details


def duplicates_page(
    groups: Sequence[DuplicateGroup], root: Path, *, threshold: float, summary: str
) -> str:
    """Make the page.

    Args:
        groups: what was found; the first 200 are shown, and of each the first 24 images.
        root: folder of the images.
        threshold: distance that makes images duplicates.
        summary: plain text with their numbers.
    """
    parts = [
        paragraph(f"{summary}."),
        paragraph(
            f"Images whose embeddings are nearer than {threshold:g}, and equal files. Duplicates "
            "of duplicates are in one group, so look at large groups with care. Framed in green: "
            "the image to keep, which has the most pixels, is not blurred, and is the largest of "
            "such files. The others follow by their distance to it."
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
        size = sum(image.num_bytes for image in group.others)
        title = f"Group {number}: {len(group.images):,} images, {readable_bytes(size)} could go"
        figures = [_figure(image, root) for image in group.images[:MOST_IMAGES]]
        parts.append(f'<h3>{escaped(title)}</h3>\n<div class="row">{"".join(figures)}</div>')
        if len(group.images) > MOST_IMAGES:
            parts.append(paragraph(f"and {len(group.images) - MOST_IMAGES:,} more in this group."))
    return page(f"Duplicates in {root}", "\n".join(parts))


def _figure(image: DuplicateImage, root: Path) -> str:
    first = "✓ keep" if image.is_keeper else f"{image.distance:.3f}"
    size = f"{image.width}x{image.height}"
    caption = f"{first}, {size}, {readable_bytes(image.num_bytes)}, {image.path}"
    kind = "hit" if image.is_keeper else ""
    path = root / image.path
    made = thumbnail(proportional_pixels(path), caption, kind=kind, description=str(path))
    return made.replace("<figure>", FIGURE, 1)


def proportional_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Give an image within a square of the thumbnail's size, its sides in proportion.

    What cannot be read is a white square.
    """
    try:
        pixels = decode_image(path, THUMBNAIL_SIZE)
        with open_header(path) as header:
            sides = upright_size(header)
    except InputError:  # gone since it was compared
        return np.full((THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), 255, np.uint8)
    # `decode_image` may have reduced one side more than the other.
    width, height = (max(1, round(THUMBNAIL_SIZE * side / max(sides))) for side in sides)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
