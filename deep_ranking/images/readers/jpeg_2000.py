"""Reduce a large JPEG 2000 while it is decoded, by the resolutions that its file holds."""

from PIL import Image

from deep_ranking.images.limits import LARGE_BYTES

CODING_STYLE = b"\xff\x52"  # the marker; the number of halvings is 9 bytes behind its begin
NUM_HALVINGS = 9
START = b"\xff\x4f\xff\x51"
MOST_HALVINGS = 5


def reduce_jpeg_2000(data: bytes, header: Image.Image, size: int, bytes_per_pixel: float) -> int:
    """Let a JPEG 2000 be reduced when it is loaded, if it takes much memory.

    Args:
        data: the file's bytes.
        header: the file, as Pillow opened it; not yet loaded.
        size: side at which the image will be sampled; no side is reduced below twice that.
        bytes_per_pixel: memory that decoding takes.

    Returns:
        The factor by which each side is reduced, a power of two.
    """
    width, height = header.size
    if width * height * bytes_per_pixel <= LARGE_BYTES:
        return 1
    halvings = 0
    most = min(_halvings_in(data), MOST_HALVINGS)
    while halvings < most and min(width, height) >> halvings + 1 >= 2 * size:
        halvings += 1
    header.reduce = halvings  # type: ignore[method-assign,assignment]
    return 1 << halvings


def _halvings_in(data: bytes) -> int:
    """Return how often the file's own resolutions halve the image; 0 if it does not say."""
    start = data.find(START)
    place = data.find(CODING_STYLE, start) if start >= 0 else -1
    return data[place + NUM_HALVINGS] if 0 <= place < len(data) - NUM_HALVINGS else 0
