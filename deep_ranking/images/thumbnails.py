"""Small pictures of images: as pixels, and as HTML for pages and for what a notebook shows."""

import io
import os
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.files.array_types import UInt8Array
from deep_ranking.files.html import data_uri, escaped
from deep_ranking.images.decoding import decode_bytes, open_header, read_file
from deep_ranking.images.orientation import upright_size
from deep_ranking.images.reading import read_image

JPEG_QUALITY = 85
THUMBNAIL_SIZE = 96
PROPORTIONAL_SIZE = 224  # pixels of the longer side
MOST_ROWS, MOST_IMAGES = 8, 12  # rows of pictures that a notebook shows, and pictures in a row
WIDTH = f"{THUMBNAIL_SIZE}px; margin: 0; overflow-wrap: anywhere; font-size: .7rem"
ROW_STYLE = "display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0"


def image_rows(rows: Sequence[Sequence[tuple[str | os.PathLike[str], str]]]) -> str:
    """Return rows of thumbnails for a notebook: at most 8 rows, and 12 images of each.

    Args:
        rows: for each image of a row its file, and its caption in plain text. A file that can no
            longer be read is a white square.
    """
    parts = []
    for row in rows[:MOST_ROWS]:
        figures = [_figure(path, caption) for path, caption in row[:MOST_IMAGES]]
        more = f"<span>and {len(row) - MOST_IMAGES:,} more</span>" if row[MOST_IMAGES:] else ""
        parts.append(f'<div style="{ROW_STYLE}">{"".join(figures)}{more}</div>')
    if rows[MOST_ROWS:]:
        parts.append(f"<p>and {len(rows) - MOST_ROWS:,} more</p>")
    return "\n".join(parts)


def _figure(path: str | os.PathLike[str], caption: str) -> str:
    try:
        pixels = read_image(path, THUMBNAIL_SIZE)
    except InputError:
        pixels = np.full((THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), 255, np.uint8)
    return thumbnail(pixels, caption, description=os.fspath(path), width=WIDTH)


def thumbnail(
    pixels: UInt8Array,
    caption: str,
    *,
    mark: str = "",
    kind: str = "",
    description: str = "",
    width: str = "",
) -> str:
    """Return a small image with a caption.

    Args:
        pixels: uint8 (height, width, 3), RGB.
        caption: plain text below it.
        mark: plain text before the caption, of more weight.
        kind: "hit" or "miss" for a frame.
        description: what it is, such as its path; also shown when pointed at.
        width: width in CSS units; that of the page's other thumbnails by default.
    """
    source, text = jpeg_uri(pixels), escaped(description)
    frame = f' class="{kind}"' if kind else ""
    style = f' style="width: {width}"' if width else ""
    strong = f"<strong>{escaped(mark)}</strong> " if mark else ""
    below = escaped(caption).replace("/", "/<wbr>")  # paths wrap between folders
    return (
        f'<figure{style}><img{frame} src="{source}" alt="{text}" title="{text}">'
        f"<figcaption>{strong}{below}</figcaption></figure>"
    )


def jpeg_uri(pixels: UInt8Array) -> str:
    """Return pixels (height, width, 3) as a JPEG, in the address of a picture."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return data_uri(buffer.getvalue(), "image/jpeg")


def fitted_pixels(
    image: str | os.PathLike[str] | bytes, largest: int, *, enlarges: bool = False
) -> UInt8Array:
    """Return an image, upright and in its own shape, with no side longer than `largest`.

    Args:
        image: an image file, or the bytes of one.
        largest: pixels, 1 or more.
        enlarges: whether a small image gets a side of `largest`, too.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        InputError: it cannot be read.
    """
    name = "image" if isinstance(image, bytes) else image
    data = image if isinstance(image, bytes) else read_file(image)
    with open_header(name, data) as header:
        width, height = upright_size(header)
    scale = largest / max(width, height)
    if not enlarges:
        scale = min(1.0, scale)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = decode_bytes(data, largest, name)
    if shape == pixels.shape[1::-1]:
        return pixels
    # `decode_bytes` may have reduced one side more than the other.
    resized = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def proportional_pixels(path: str | os.PathLike[str]) -> UInt8Array:
    """Return an image with its sides in proportion, the longer of 224 pixels.

    An image that cannot be read is a white square.
    """
    try:
        return fitted_pixels(path, PROPORTIONAL_SIZE, enlarges=True)
    except InputError:  # gone since it was found
        return np.full((PROPORTIONAL_SIZE, PROPORTIONAL_SIZE, 3), 255, np.uint8)
