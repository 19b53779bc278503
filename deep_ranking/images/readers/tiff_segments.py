"""The samples of a TIFF page, as stored: strips or tiles, chunky or planar, 1 to 16 bits.

tifffile parses the file. Deflate is unpacked here, bounded by the size that is due; LZW, PackBits,
LZMA and Zstandard by the libtiff that Pillow brings, which gets each strip as a file of its own.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tifffile import TiffPage

from deep_ranking.files import InputError
from deep_ranking.images.readers.sample_range import row_blocks

NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
NO_PREDICTOR, HORIZONTAL_DIFFERENCES = 1, 2
FILL_ORDER, LOW_BITS_FIRST = 266, 2
PLANAR = 2
SIGNED = 2
MOST_SEGMENTS = 1 << 20
MOST_SEGMENT_BYTES = 1 << 29

Samples = npt.NDArray[Any]


def bits_per_sample(page: TiffPage) -> int:
    """Return the number of bits of a sample.

    Raises:
        InputError: it is not the same for all samples.
    """
    value = page.tags.valueof(258, 1)
    each = set(value) if isinstance(value, tuple) else {value}
    if len(each) != 1:
        raise InputError(f"TIFF with samples of different bits ({', '.join(map(str, value))})")
    return int(each.pop())


def read_samples(page: TiffPage, data: bytes, num_kept: int) -> Samples:
    """Decode the first samples of each pixel of a page.

    Args:
        page: the page; its samples are integers of at most 16 bits.
        data: all bytes of the file.
        num_kept: number of samples of each pixel to return.

    Returns:
        uint8, uint16, int8 or int16 (height, width, num_kept).

    Raises:
        InputError: the page is broken, or compressed by what is not read here.
    """
    bits, per_pixel = bits_per_sample(page), int(page.samplesperpixel)
    is_planar = page.planarconfig == PLANAR and per_pixel > 1
    in_segment = 1 if is_planar else per_pixel
    height, width = int(page.imagelength), int(page.imagewidth)
    if page.is_tiled:
        rows, columns = int(page.tilelength), int(page.tilewidth)
    else:
        rows, columns = max(1, min(int(page.rowsperstrip), height)), width
    across, down = -(-width // columns), -(-height // rows)
    num_segments = across * down * (num_kept if is_planar else 1)
    row_bytes = -(-columns * in_segment * bits // 8)
    if num_segments > min(MOST_SEGMENTS, len(page.dataoffsets), len(page.databytecounts)):
        raise InputError("broken image (strips or tiles are missing)")
    if row_bytes * rows > MOST_SEGMENT_BYTES:
        raise InputError("TIFF with strips or tiles above 512 MiB; save it with smaller ones")
    kind = ("i" if page.sampleformat == SIGNED else "u") + ("1" if bits <= 8 else "2")
    result = np.empty((height, width, num_kept), kind)
    for number in range(num_segments):
        plane, place = divmod(number, across * down)
        top, left = place // across * rows, place % across * columns
        num_rows = rows if page.is_tiled else min(rows, height - top)
        begin = int(page.dataoffsets[number])
        packed = data[begin : begin + int(page.databytecounts[number])]
        content = _unpacked(packed, page, row_bytes, num_rows)
        samples = _parsed(content, page, bits, (num_rows, columns, in_segment))
        target = result[top : top + num_rows, left : left + columns]
        part = samples[: target.shape[0], : target.shape[1]]
        if is_planar:
            target[..., plane] = part[..., 0]
        else:
            target[...] = part[..., :num_kept]
    return result


def _unpacked(packed: bytes, page: TiffPage, row_bytes: int, num_rows: int) -> bytes:
    """Return the bytes of a strip or tile, unpacked."""
    size = row_bytes * num_rows
    if page.tags.valueof(FILL_ORDER, 1) == LOW_BITS_FIRST:
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
        packed = np.packbits(bits).tobytes()
    compression = int(page.compression)
    if compression == NONE:
        content = packed[:size]
    elif compression in (DEFLATE, OLD_DEFLATE):
        content = zlib.decompressobj().decompress(packed, size)
    elif compression in (LZW, PACKBITS, LZMA, ZSTD):
        content = _by_libtiff(packed, compression, row_bytes, num_rows)
    else:
        name = getattr(page.compression, "name", str(compression))
        raise InputError(
            f"TIFF of {page.samplesperpixel} samples of {bits_per_sample(page)} bits compressed by "
            f"{name}; save it uncompressed, or with LZW or Deflate"
        )
    if len(content) < size:
        raise InputError("broken image (a strip or tile is cut off)")
    return content


def _by_libtiff(packed: bytes, compression: int, row_bytes: int, num_rows: int) -> bytes:
    """Unpack a strip as that of a gray TIFF whose pixels are its bytes."""
    entries = (
        (256, row_bytes), (257, num_rows), (258, 8), (259, compression), (262, 1),
        (273, 8), (277, 1), (278, num_rows), (279, len(packed)),
    )  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    padded = packed + b"\0" * (len(packed) % 2)
    file = b"II*\0" + struct.pack("<I", 8 + len(padded)) + padded
    file += struct.pack("<H", len(entries)) + table + struct.pack("<I", 0)
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return image.tobytes()


def _parsed(content: bytes, page: TiffPage, bits: int, shape: tuple[int, int, int]) -> Samples:
    """Return the samples of a strip or tile: (rows, columns, samples)."""
    is_signed = page.sampleformat == SIGNED
    if bits in (8, 16):
        order = page.parent.byteorder
        kind = f"{order}{'i' if is_signed else 'u'}{bits // 8}"
        samples: Samples = np.frombuffer(content, kind).astype(kind[1:]).reshape(shape)
    else:
        samples = _parsed_bits(content, bits, shape)
        if is_signed:
            shift = 16 - bits
            samples = (samples << shift).view(np.int16) >> shift
    if page.predictor == HORIZONTAL_DIFFERENCES:
        samples = np.cumsum(samples, axis=1, dtype=samples.dtype)
        if bits not in (8, 16):
            samples &= (1 << bits) - 1
    elif page.predictor != NO_PREDICTOR:
        raise InputError(f"TIFF with an unknown predictor ({int(page.predictor)})")
    return samples


def _parsed_bits(content: bytes, bits: int, shape: tuple[int, int, int]) -> Samples:
    """Return samples that are packed without regard to bytes; each row begins with a byte."""
    num_rows, columns, per_pixel = shape
    packed = np.frombuffer(content, np.uint8).reshape(num_rows, -1)
    result = np.zeros((num_rows, columns * per_pixel), np.uint16)
    for rows in row_blocks((num_rows, result.shape[1] * bits)):
        each = np.unpackbits(packed[rows], axis=1, count=result.shape[1] * bits)
        each = each.reshape(-1, result.shape[1], bits)
        for bit in range(bits):
            result[rows] |= each[..., bit].astype(np.uint16) << (bits - 1 - bit)
    return result.reshape(shape)
