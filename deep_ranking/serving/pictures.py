"""Images and thumbnails that are sent: only what was indexed, and only what browsers can show."""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.files.content_digest import data_digest
from deep_ranking.images.decoding import open_header, read_file
from deep_ranking.images.thumbnails import fitted_pixels
from deep_ranking.search.out_of_date import out_of_date
from deep_ranking.serving.file_cache import FileCache
from deep_ranking.serving.image_ids import KnownImage
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError

SHOWN = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}
"""What browsers show as it is, turned as its EXIF data say, by the name that Pillow gives it."""
LARGEST_SENT = 16 << 20  # bytes; a larger file is sent as a smaller JPEG
LARGEST_SIDE = 4096  # pixels of that JPEG
SIZES = (128, 256, 512, 1024)
JPEG = "image/jpeg"
GONE = "The file of this image is gone since it was indexed."
CHANGED = "The file of this image has changed since it was indexed."


class Picture(NamedTuple):
    """A picture to send: the bytes of an image file, and its type."""

    data: bytes
    media_type: str


def check_is_there(root: Path, path: str) -> Path:
    """Return the file of an image of a collection.

    Args:
        root: of the collection.
        path: of the image, as the collection has it.

    Raises:
        RequestError: it is gone, or a link leads out of the root.
    """
    file = root / path
    try:
        real, real_root = file.resolve(strict=True), root.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        raise RequestError(410, GONE) from None
    if not real.is_relative_to(real_root):
        raise RequestError(403, "A link leads from this image out of the collection's folder.")
    return file


def verified_bytes(root: Path, path: str, content: bytes) -> bytes:
    """Return the bytes of an image file, which are those that were embedded.

    Args:
        root: of the collection.
        path: of the image, as the collection has it.
        content: SHA-256 of what was embedded.

    Raises:
        RequestError: the file is gone, has changed, or a link leads out of the root.
    """
    file = check_is_there(root, path)
    try:
        data = read_file(file)
    except InputError:
        raise RequestError(410, CHANGED if os.path.lexists(file) else GONE) from None
    if data_digest(data) != content:
        raise RequestError(410, CHANGED)
    return data


def original(state: OpenState, image: KnownImage) -> Picture:
    """Return an image as it is if browsers can show it, and otherwise as a JPEG.

    Raises:
        RequestError: as for `verified_bytes`; or it can no longer be read.
    """
    data = verified_bytes(*state.collection.place_of(image.path), image.content)
    with suppress(InputError), open_header("image", data) as header:
        if header.format in SHOWN and len(data) <= LARGEST_SENT:
            return Picture(data, SHOWN[header.format])
    return Picture(_as_jpeg(data, LARGEST_SIDE, quality=92), JPEG)


def sent_size(size: int) -> int:
    """Return the size of the thumbnail that is sent for a wanted size: one of a few."""
    return next((each for each in SIZES if each >= size), SIZES[-1])


def small_picture(
    state: OpenState, image: KnownImage, size: int, cache: FileCache | None
) -> Picture:
    """Return a thumbnail of an image, upright.

    Args:
        state: the collection.
        image: the image.
        size: largest side in pixels, one of `SIZES`.
        cache: where thumbnails are kept; None to keep none.

    Raises:
        RequestError: as for `verified_bytes`; or it can no longer be read.
    """
    place = state.collection.place_of(image.path)
    check_is_there(*place)
    name = f"{image.content.hex()}-{size}.jpg"
    data = cache.find(name) if cache else None
    if data is not None:
        if out_of_date(state.collection, [image.path]):
            raise RequestError(410, CHANGED)
    else:
        original_data = verified_bytes(*place, image.content)
        data = _as_jpeg(original_data, size, quality=85)
        if cache:
            cache.add(name, data)
    return Picture(data, JPEG)


def _as_jpeg(data: bytes, largest: int, *, quality: int) -> bytes:
    try:
        pixels = fitted_pixels(data, largest)
    except InputError:
        raise RequestError(410, "The file of this image can no longer be read.") from None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
