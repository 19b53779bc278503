"""Cut damaged or huge metadata out of image files whose pixels are good.

Text, EXIF data and colour profiles have no say in whether an image can be read. A format's reader
that stumbles over them gets the file without them.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from deep_ranking.files import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PNG_KEPT = (*PNG_CRITICAL, b"tRNS")
WEBP_METADATA = (b"EXIF", b"XMP ", b"ICCP")
VP8X_HAS_METADATA = 0x20 | 0x08 | 0x04  # bits of the flags: profile, EXIF, XMP
# Segments of a JPEG that hold no pixels: APP1 to APP13 and APP15, and comments. APP0 and APP14 say
# how the colours are stored.
JPEG_METADATA = (*range(0xE1, 0xEE), 0xEF, 0xFE)
JPEG_START_OF_SCAN = 0xDA
AVIF_ITEM_TYPES = (b"Exif", b"mime")
MAX_META_BOX = 1 << 24


class Chunk(NamedTuple):
    """A chunk of a PNG: its kind, and where its content begins and ends."""

    kind: bytes
    begin: int
    end: int


def png_chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a PNG up to its end; ancillary ones with a wrong checksum are left out.

    Raises:
        InputError: a critical chunk has a wrong checksum, or the file ends before its end chunk.
    """
    view, begin = memoryview(data), len(PNG_SIGNATURE)
    while begin + 12 <= len(data):
        kind = bytes(view[begin + 4 : begin + 8])
        end = begin + 8 + int.from_bytes(view[begin : begin + 4])
        if end + 4 > len(data):
            break
        if zlib.crc32(view[begin + 4 : end]) == int.from_bytes(view[end : end + 4]):
            yield Chunk(kind, begin + 8, end)
        elif kind in PNG_CRITICAL:
            raise InputError(f"broken image (wrong checksum of {kind.decode()})")
        if kind == b"IEND":
            return
        begin = end + 4
    raise InputError("broken image (image file is truncated)")


def plain_png(data: bytes, chunks: list[Chunk], *, with_transparency: bool = True) -> bytes:
    """Return a PNG without all that is not needed for the pixels of its first frame."""
    kept = [
        chunk
        for chunk in chunks
        if chunk.kind in PNG_KEPT and (with_transparency or chunk.kind != b"tRNS")
    ]
    size = len(PNG_SIGNATURE) + sum(chunk.end - chunk.begin + 12 for chunk in kept)
    if len(kept) == len(chunks) and size == len(data):
        return data
    view = memoryview(data)
    parts = (view[chunk.begin - 8 : chunk.end + 4] for chunk in kept)
    return b"".join([PNG_SIGNATURE, *parts])


def png_start(data: bytes) -> bytes:
    """Return a PNG up to its pixels, without metadata: enough for a header, however it goes on."""
    chunks = []
    try:
        for chunk in png_chunks(data):
            chunks.append(chunk)
            if chunk.kind == b"IDAT":
                break
    except InputError:
        pass
    kept = b"".join(data[c.begin - 8 : c.end + 4] for c in chunks if c.kind in PNG_KEPT)
    return data[: len(PNG_SIGNATURE)] + kept


def without_jpeg_metadata(data: bytes) -> bytes:
    """Return a JPEG without metadata; from the first scan on it is as it was."""
    parts, begin = [data[:2]], 2
    while begin + 4 <= len(data) and data[begin] == 0xFF:
        marker = data[begin + 1]
        if marker == 0xFF:  # filler
            begin += 1
            continue
        end = begin + 2 + int.from_bytes(data[begin + 2 : begin + 4])
        if marker == JPEG_START_OF_SCAN:
            break
        if marker not in JPEG_METADATA:
            parts.append(data[begin:end])
        begin = end
    return b"".join([*parts, data[begin:]])


def without_webp_metadata(data: bytes) -> bytes:
    """Return a WebP without metadata."""
    parts, begin = [], 12
    while begin + 8 <= len(data):
        kind, size = data[begin : begin + 4], int.from_bytes(data[begin + 4 : begin + 8], "little")
        end = begin + 8 + size + size % 2
        content = data[begin:end]
        if kind == b"VP8X" and size:
            content = content[:8] + bytes([content[8] & ~VP8X_HAS_METADATA]) + content[9:]
        if kind not in WEBP_METADATA:
            parts.append(content)
        begin = end
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def without_avif_metadata(data: bytes) -> bytes:
    """Return an AVIF whose items of metadata have a type that no reader knows."""
    begin = data.find(b"meta")
    if begin < 4:
        return data
    end = min(begin - 4 + int.from_bytes(data[begin - 4 : begin]), begin + MAX_META_BOX, len(data))
    content = bytearray(data)
    place = data.find(b"infe", begin, end)
    while place >= 4:
        limit = place - 4 + int.from_bytes(data[place - 4 : place])
        for kind in AVIF_ITEM_TYPES:
            found = data.find(kind, place, min(limit, end))
            if found >= 0:
                content[found : found + 4] = b"skip"
        place = data.find(b"infe", place + 4, end)
    return bytes(content)


WITHOUT_METADATA = {
    "PNG": png_start,
    "JPEG": without_jpeg_metadata,
    "WEBP": without_webp_metadata,
    "AVIF": without_avif_metadata,
}
