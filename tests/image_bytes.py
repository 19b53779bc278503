"""Image files written byte by byte: what readers are tested with must not come from them."""

import struct
import zlib

import numpy as np


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(samples, depth, color_type, *, before=(), transparency=b""):
    """A PNG of integer samples (height, width, channels), big-endian, without filters."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        bits = (samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
        rows = [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in bits]
    parts = [chunk(b"IHDR", header), *before]
    if transparency:
        parts.append(chunk(b"tRNS", transparency))
    parts.append(chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


TYPES = {"H": 3, "I": 4, "Q": 16, "b": 2, "B": 7, "f": 11}


def lzw(data):
    """LZW of TIFF with codes of 9 bits only: the table is cleared before it grows beyond them."""
    codes = []
    for begin in range(0, len(data), 200):
        codes += [256, *data[begin : begin + 200]]
    bits = np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1) & 1
    return np.packbits(bits.ravel().astype(np.uint8)).tobytes()


def packbits(data):
    parts = (data[begin : begin + 128] for begin in range(0, len(data), 128))
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


PACKERS = {1: bytes, 5: lzw, 8: zlib.compress, 32946: zlib.compress, 32773: packbits}


def tiff(  # noqa: PLR0912
    samples,
    photometric,
    *,
    bits=None,
    compression=1,
    planar=False,
    order="<",
    rows=None,
    tile=None,
    predictor=1,
    big=False,
    tags=(),
):
    """A TIFF of integer samples (height, width, channels).

    `rows` of a strip, or `tile` sides; `tags` are further (tag, letter of struct, values).
    """
    height, width, channels = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    kind = samples.dtype.kind
    planes = np.moveaxis(samples, 2, 0)[..., None] if planar else samples[None]
    high, wide = (tile, tile) if tile else (rows or height, width)
    segments = []
    for plane in planes:
        for top in range(0, height, high):
            for left in range(0, width, wide):
                part = plane[top : top + high, left : left + wide]
                if tile:
                    missing = [(0, tile - side) for side in part.shape[:2]]
                    part = np.pad(part, [*missing, (0, 0)])
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=part[:, :1] * 0)
                if bits % 8:
                    spread = part.reshape(len(part), -1, 1) >> np.arange(bits - 1, -1, -1) & 1
                    packed = [np.packbits(row.ravel().astype(np.uint8)) for row in spread]
                    content = b"".join(row.tobytes() for row in packed)
                else:
                    content = part.astype(f"{order}{kind}{bits // 8}").tobytes()
                segments.append(PACKERS[compression](content))
    head = 16 if big else 8
    offsets = np.cumsum([head, *map(len, segments)])
    entries = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [bits] * channels),
        (259, "H", [compression]),
        (262, "H", [photometric]),
        (277, "H", [channels]),
        (284, "H", [2 if planar else 1]),
        *([(317, "H", [predictor])] if predictor != 1 else []),
        *([(339, "H", [2] * channels)] if kind == "i" else []),
    ]
    counts = [len(segment) for segment in segments]
    if tile:
        entries += [(322, "I", [tile]), (323, "I", [tile])]
        entries += [(324, "I", offsets[:-1].tolist()), (325, "I", counts)]
    else:
        entries += [(273, "I", offsets[:-1].tolist()), (278, "I", [high]), (279, "I", counts)]
    entries = sorted([*entries, *tags])
    body = b"".join(segments)
    body += b"\0" * (len(body) % 2)
    table_at = head + len(body)
    count, entry, pointer = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    room = struct.calcsize(order + pointer)
    size = struct.calcsize(order + count) + len(entries) * (4 + 2 * room) + room
    table, beyond = struct.pack(order + count, len(entries)), b""
    for tag, letter, values in entries:
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        table += struct.pack(order + entry, tag, TYPES[letter], len(values))
        if len(packed) > room:
            table += struct.pack(order + pointer, table_at + size + len(beyond))
            beyond += packed + b"\0" * (len(packed) % 2)
        else:
            table += packed.ljust(room, b"\0")
    table += struct.pack(order + pointer, 0)
    mark = b"II" if order == "<" else b"MM"
    if big:
        start = mark + struct.pack(order + "HHHQ", 43, 8, 0, table_at)
    else:
        start = mark + struct.pack(order + "HI", 42, table_at)
    return start + body + table + beyond


def ascii_tag(tag, text):
    return (tag, "b", list(text.encode() + b"\0"))


def bmp(colors, alpha, *, header_size=124, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)):
    """A BMP of 32 bits with BI_BITFIELDS: colours (height, width, 3) and alpha (height, width)."""
    height, width = alpha.shape
    values = np.zeros((height, width), np.uint32)
    for channel, mask in zip((*np.moveaxis(colors, 2, 0), alpha), masks, strict=True):
        shift = (mask & -mask).bit_length() - 1
        values |= channel.astype(np.uint32) << shift
    pixels = values[::-1].astype("<u4").tobytes()
    info = struct.pack(
        "<IiiHHIIiiII", header_size, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0
    )
    info += struct.pack("<4I", *masks)
    info = info.ljust(header_size, b"\0")
    begin = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + info + pixels


def cmyk_profile(corners):
    """An ICC profile of a printer: a table of L*a*b* at D50 for no ink and full ink of each kind.

    `corners` maps (cyan, magenta, yellow, black), 0 or 1 each, to L*a*b*; others are white.
    """
    table = bytearray()
    for number in range(16):
        inks = tuple(number >> 3 - place & 1 for place in range(4))
        lightness, a, b = corners.get(inks, (100, 0, 0))
        table += bytes([round(lightness * 2.55), round(a) + 128, round(b) + 128])
    identity = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = (
        b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + bytes(table) + identity * 3
    )
    name = b"inks of a test"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(79),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": lut,
    }
    offset, directory, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        directory += tag + struct.pack(">II", offset + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"test", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + directory + body
