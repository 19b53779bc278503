"""Which files are images: by the extension or, when asked, by the first bytes.

Formats have Pillow's names. A format that only an optional package reads has an extra.
"""

import os
import re
from importlib.util import find_spec

# The blog's five extensions, and all others of formats that can be read. Compared in lower case.
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG XL": (".jxl",),
}
FORMAT_OF = {extension: name for name, each in EXTENSIONS.items() for extension in each}
EXTRAS = {"HEIF": ("heif", "pi_heif"), "JPEG XL": ("jxl", "imagecodecs")}  # the extra, its module

# Each signature is the bytes at an offset.
SIGNATURES = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("BMP", 0, b"BM"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("TIFF", 0, b"II+\0"),  # BigTIFF
    ("TIFF", 0, b"MM\0+"),
    ("WEBP", 8, b"WEBP"),
    ("JPEG2000", 0, b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("JPEG2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL", 0, b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("JPEG XL", 0, b"\xff\x0a"),
    *(("PPM", 0, b"P" + number + blank) for number in (b"1", b"2", b"3", b"4", b"5", b"6")
      for blank in (b"\n", b" ", b"\r", b"\t")),
)  # fmt: skip
# AVIF and HEIF share a container, whose first box lists what it may be read as.
BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIF": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)
SIGNATURE_BYTES = 64  # that `format_of_bytes` needs


def is_image_name(path: str) -> bool:
    """Return whether a file's extension, in any letter case, is that of an image format."""
    return format_of_name(path) is not None


def format_of_name(path: str) -> str | None:
    """Return the format that a file's extension says, None for no image format."""
    return FORMAT_OF.get(os.path.splitext(path)[1].lower())


def format_of_bytes(begin: bytes) -> str | None:
    """Return the format that the first `SIGNATURE_BYTES` of a file say, None for no image."""
    if begin[:2] == b"BM" and int.from_bytes(begin[14:18], "little") not in BMP_HEADER_BYTES:
        return None  # a text
    if begin[:1] == b"P" and re.fullmatch(rb"P[1-6]\s+[#\d].*", begin, re.DOTALL) is None:
        return None
    for name, offset, signature in SIGNATURES:
        if begin[offset : offset + len(signature)] == signature:
            return name
    if begin[4:8] == b"ftyp":
        end = min(int.from_bytes(begin[:4]), len(begin))
        found = {begin[8:12], *(begin[place : place + 4] for place in range(16, end, 4))}
        return next((name for name, brands in BRANDS.items() if found & set(brands)), None)
    return None


def missing_extra(name: str) -> str | None:
    """Return the extra that reads a format and is not installed; None if the format is read."""
    if name not in EXTRAS:
        return None
    extra, module = EXTRAS[name]
    return None if find_spec(module) else f"deep-ranking[{extra}]"
