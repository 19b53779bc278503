"""How large an image may be: bounds on pixels and memory, checked before a pixel is decoded.

By default an image has at most 178 megapixels and takes at most 1 GiB of memory to decode. The
environment variable `DEEP_RANKING_MAX_MEGAPIXELS`, the flag `--max_megapixels` of the commands and
`allow_megapixels` allow larger ones to those who have the memory; then the megapixels alone count.
What counts as memory is what is decoded: a JPEG that is reduced while it is decoded takes little.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from PIL import Image

from deep_ranking.files import InputError

VARIABLE = "DEEP_RANKING_MAX_MEGAPIXELS"
FLAG = "--max_megapixels"
MAX_PIXELS = 178_956_970  # Pillow's own limit, twice its `MAX_IMAGE_PIXELS`
MAX_DECODING_BYTES = 1 << 30
LARGE_BYTES = 1 << 28
MOST_MEGAPIXELS = 100_000
_large = threading.Lock()


def allow_megapixels(number: float) -> None:
    """Allow images of up to so many megapixels, whatever memory they take to decode.

    Processes that this one starts allow them too.

    Args:
        number: megapixels, 1 to 100,000.

    Example:
        >>> allow_megapixels(400)

    Raises:
        InputError: the number is out of range.
    """
    _check(number)
    os.environ[VARIABLE] = f"{number:g}"


def most_pixels() -> int:
    """Return the number of pixels that an image may have.

    Raises:
        InputError: the environment variable is no number, or out of range.
    """
    allowed = _allowed_pixels()
    if allowed is None:
        return MAX_PIXELS
    if Image.MAX_IMAGE_PIXELS is not None and allowed > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = allowed  # Pillow has a limit of its own
    return allowed


def check_pixels(width: int, height: int) -> None:
    """Check that an image has no more pixels than are allowed.

    Raises:
        InputError: it has more.
    """
    if width * height > most_pixels():
        raise InputError(too_many_pixels())


def too_many_pixels() -> str:
    """Return what to say of an image with more pixels than are allowed."""
    return (
        f"image has more than {most_pixels():,} pixels; allow more with {FLAG} or {VARIABLE}, or "
        "make it smaller first"
    )


@contextmanager
def enough_memory(
    width: int, height: int, bytes_per_pixel: float, reduction: int = 1
) -> Iterator[None]:
    """Refuse an image that takes too much memory to decode; decode large ones one at a time.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        bytes_per_pixel: peak memory of decoding, for each pixel that is decoded.
        reduction: factor by which each side is reduced while decoding.

    Raises:
        InputError: it takes more than 1 GiB, and no larger images are allowed.
    """
    check_pixels(width, height)
    num_pixels = width * height
    num_bytes = num_pixels * bytes_per_pixel / reduction**2
    most = int(MAX_DECODING_BYTES * reduction**2 // bytes_per_pixel)
    if num_bytes > MAX_DECODING_BYTES and _allowed_pixels() is None:
        raise InputError(
            f"image has {num_pixels:,} pixels, and would take more memory to decode than an image "
            f"should; allow it with {FLAG} {-(-num_pixels // 1_000_000)} or {VARIABLE}, or make it "
            f"smaller first, to {most:,}"
        )
    with _large if num_bytes > LARGE_BYTES else nullcontext():
        yield


def _allowed_pixels() -> int | None:
    """Return the number of pixels that the user allows; None for the default limits."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1
    _check(number, text)
    return int(number * 1_000_000)


def _check(number: float, text: str | None = None) -> None:
    if not 1 <= number <= MOST_MEGAPIXELS:
        raise InputError(
            f"{'the limit' if text is None else VARIABLE} must be a number of megapixels between 1 "
            f"and {MOST_MEGAPIXELS:,}. Received: {f'{number:g}' if text is None else text}"
        )
