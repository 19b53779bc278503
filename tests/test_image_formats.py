"""Which files are images, by their names and by their first bytes."""

import io
import struct

import cv2
import numpy as np
import pytest
from image_bytes import bmp, png, tiff
from PIL import Image

from deep_ranking.images import formats, is_image_name, open_header, read_image
from deep_ranking.images.formats import SIGNATURE_BYTES, format_of_bytes, format_of_name

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)


def by_opencv(extension):
    return cv2.imencode(extension, PIXELS)[1].tobytes()


def by_pillow(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


FILES = {
    "JPEG": [by_opencv(".jpg"), by_pillow("JPEG")],
    "PNG": [png(PIXELS, 8, 2), by_opencv(".png")],
    "BMP": [bmp(PIXELS, PIXELS[..., 0]), by_opencv(".bmp")],
    "PPM": [by_opencv(".ppm"), by_pillow("PPM")],
    "GIF": [by_pillow("GIF")],
    "TIFF": [tiff(PIXELS, 2, order=order, big=big) for order in "<>" for big in (False, True)],
    "WEBP": [by_opencv(".webp")],
    "AVIF": [by_pillow("AVIF"), by_opencv(".avif")],
    "JPEG2000": [by_pillow("JPEG2000"), by_pillow("JPEG2000", no_jp2=True)],
}


@pytest.mark.parametrize("kind", FILES)
def test_what_decodes_is_listed_under_every_name(tmp_path, kind):
    for number, data in enumerate(FILES[kind]):
        assert format_of_bytes(data[:SIGNATURE_BYTES]) == kind
        for extension in formats.EXTENSIONS[kind]:
            path = tmp_path / f"{number}{extension.upper()}"
            path.write_bytes(data)
            assert is_image_name(str(path))
            assert format_of_name(path.name) == kind
            assert read_image(path, 8).shape == (8, 8, 3)
            with open_header(path) as header:
                assert header.format == kind


@pytest.mark.parametrize(
    "extension",
    ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "gif", "tif", "tiff", "webp", "avif", "jp2",
     "j2k", "heic", "heif", "hif", "jxl", "ppm"],
)  # fmt: skip
def test_extensions_in_any_case(extension):
    for name in (extension, extension.upper(), extension.title()):
        assert is_image_name(f"folder/IMG.{name}")


def container(major, *others):
    content = major + b"\0\0\0\0" + b"".join(others)
    return struct.pack(">I", 8 + len(content)) + b"ftyp" + content + b"\0\0\0\x20meta"


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (container(b"heic", b"mif1", b"heic"), "HEIF"),
        (container(b"mif1", b"heic", b"mif1"), "HEIF"),
        (container(b"mif1", b"avif", b"miaf"), "AVIF"),
        (container(b"avif", b"mif1", b"miaf"), "AVIF"),
        (container(b"isom", b"mp41"), None),
        (container(b"qt  "), None),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"RIFF\x24\0\0\0WAVEfmt ", None),
        (b"%PDF-1.7", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_first_bytes(begin, kind):
    assert format_of_bytes(begin[:SIGNATURE_BYTES]) == kind
