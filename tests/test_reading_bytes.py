"""The bytes of an image give the pixels of its file, whatever the format."""

import io

import numpy as np
import pytest
from image_bytes import png, tiff
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.images import read_image

CELLS = np.random.default_rng(0).integers(0, 256, (9, 13, 4), np.uint8)
PICTURE = Image.fromarray(CELLS[..., :3]).resize((39, 27), Image.Resampling.BICUBIC)


def saved(kind, image=PICTURE, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: a quarter turn
    return saved("JPEG", exif=exif)


SEE_THROUGH = Image.fromarray(CELLS, "RGBA")
IMAGES = {
    "png": lambda: saved("PNG"),
    "png with alpha": lambda: saved("PNG", SEE_THROUGH),
    "png of 16 bits": lambda: png(CELLS[..., :3].astype(np.uint16) * 200, 16, 2),
    "png with a palette": lambda: saved("PNG", PICTURE.quantize(7)),
    "grey png": lambda: saved("PNG", PICTURE.convert("L")),
    "jpeg": lambda: saved("JPEG", quality=90),
    "jpeg, turned": turned,
    "jpeg, cmyk": lambda: saved("JPEG", PICTURE.convert("CMYK")),
    "jpeg, progressive": lambda: saved("JPEG", progressive=True),
    "gif": lambda: saved("GIF", PICTURE.quantize(9)),
    "webp": lambda: saved("WEBP", SEE_THROUGH, lossless=True),
    "bmp": lambda: saved("BMP"),
    "tiff": lambda: saved("TIFF"),
    "tiff, compressed": lambda: saved("TIFF", compression="tiff_lzw"),
    "ppm": lambda: saved("PPM"),
    "jpeg 2000": lambda: saved("JPEG2000"),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("name", ["image.jpg", "image"])  # the content decides
def test_bytes_are_as_good_as_a_file(tmp_path, kind, name):
    content = IMAGES[kind]()
    (tmp_path / name).write_bytes(content)
    for size in (8, 32):
        from_file = read_image(tmp_path / name, size)
        np.testing.assert_array_equal(read_image(content, size), from_file)
        assert np.ptp(from_file) > 30


def test_bytes_that_are_no_image_are_told_without_a_path():
    whole = saved("PNG")
    for content in (b"", b"no image", whole[:50], whole[:-30], bytes(999)):
        with pytest.raises(InputError) as caught:
            read_image(content, 8)
        said = str(caught.value)
        assert said.startswith("the bytes of an image: ") and len(said) < 300


def test_samples_without_a_range_are_told(tmp_path):
    content = tiff(np.ones((4, 4, 3), np.float32), 2)
    (tmp_path / "a.tif").write_bytes(content)
    said = []
    for image in (tmp_path / "a.tif", content):
        with pytest.raises(InputError) as caught:
            read_image(image, 8)
        said.append(str(caught.value).partition(": ")[2])
    assert said[0] == said[1]
