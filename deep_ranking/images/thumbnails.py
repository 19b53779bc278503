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
from deep_ranking.images.decoding import decode_bytes, open_header
from deep_ranking.images.orientation import upright_size
from deep_ranking.images.reading import read_image

JPEG_QUALITY = 85
THUMBNAIL_SIZE = 96
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
    pixels: UInt8Array, caption: str, *, kind: str = "", description: str = "", width: str = ""
) -> str:
    """Return a small image with a caption.

    Args:
        pixels: uint8 (height, width, 3), RGB.
        caption: plain text below it.
        kind: "hit" or "miss" for a frame.
        description: what it is, such as its path; also shown when pointed at.
        width: width in CSS units; that of the page's other thumbnails by default.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    source = data_uri(buffer.getvalue(), "image/jpeg")
    text = escaped(description)
    frame = f' class="{kind}"' if kind else ""
    style = f' style="width: {width}"' if width else ""
    return (
        f'<figure{style}><img{frame} src="{source}" alt="{text}" title="{text}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def fitted_pixels(data: bytes, largest: int) -> UInt8Array:
    """Return an image, upright and in its own shape, with no side longer than `largest`.

    Args:
        data: the bytes of an image file.
        largest: pixels, 1 or more.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        InputError: it cannot be read.
    """
    with open_header("image", data) as header:
        width, height = upright_size(header)
    scale = min(1.0, largest / max(width, height))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = decode_bytes(data, largest, "image")
    if shape == pixels.shape[1::-1]:
        return pixels
    resized = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)
