import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import warnings
import zlib
from itertools import islice

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from deep_ranking.files import InputError
from deep_ranking.images import (
    decode_image,
    fitting_size,
    open_header,
    read_image,
    resample,
    upright_size,
)
from deep_ranking.images.decoding import NUM_MEASURED

ORIENTATION = 0x0112
LOSSLESS = {"png": {}, "bmp": {}, "ppm": {}, "tif": {}, "webp": {"lossless": True}}
FORMATS = {**LOSSLESS, "jpg": {"quality": 95, "subsampling": 0}, "gif": {}}


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height, width):
    """A gradient that differs along every axis and channel, and has no symmetry."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = [255 * x, 200 * y + 30 * x, 120 + 100 * np.sin(3 * x + 2 * y)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def save(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def png_bytes(sides, bit_depth, color_type, rows, *, transparency=b""):
    """A PNG by hand; each of `rows` holds the bytes of one row."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", *sides, bit_depth, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", transparency) if transparency else b"")
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def largest_difference(one, other):
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other.astype(int)).max()


# What the pixels are


@pytest.mark.parametrize("extension", LOSSLESS)
def test_lossless_image_of_the_target_size_comes_out_pixel_exact(tmp_path, extension):
    pixels = noise(24, 24)
    path = save(tmp_path / f"x.{extension}", pixels, **LOSSLESS[extension])
    result = read_image(path, 24)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x", "x.txt"])
def test_content_decides_the_decoder_and_not_the_extension(tmp_path, name):
    pixels = noise(24, 24)
    for extension in ("png", "bmp"):
        content = save(tmp_path / f"content.{extension}", pixels).read_bytes()
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_image(str(tmp_path / name), 24), pixels)


def test_jpeg_as_pillow_decodes_it(tmp_path):
    path = save(tmp_path / "x.jpg", smooth(40, 40), quality=90)
    assert largest_difference(read_image(path, 40), np.array(Image.open(path))) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
def test_exif_orientation(tmp_path, extension, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / f"x.{extension}", smooth(20, 32), exif=exif, **FORMATS[extension])
    with Image.open(path) as image:
        upright = np.array(ImageOps.exif_transpose(image))
    tolerance = 3 if extension == "jpg" else 0
    assert largest_difference(decode_image(path, 32), upright) <= tolerance
    upright_path = save(tmp_path / "upright.png", upright)
    assert largest_difference(read_image(path, 17), read_image(upright_path, 17)) <= tolerance
    with open_header(path) as header:
        size = upright_size(header)
    assert size == upright.shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_decoded_reduced(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / "x.jpg", smooth(328, 528), exif=exif, quality=95)
    with Image.open(path) as image:
        upright = save(tmp_path / "upright.png", ImageOps.exif_transpose(image))
    assert largest_difference(read_image(path, 20), read_image(upright, 20)) <= 4


def test_exif_orientation_behind_the_pixels_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    before = save(tmp_path / "before.png", noise(12, 20), exif=exif)
    data = before.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    path = tmp_path / "behind.png"
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])  # 12: IEND
    expected = np.rot90(noise(12, 20), -1)
    np.testing.assert_array_equal(decode_image(before, 20), expected)
    np.testing.assert_array_equal(decode_image(path, 20), expected)


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_unknown_orientation_is_none(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / "x.png", noise(16, 24), exif=exif)
    np.testing.assert_array_equal(decode_image(path, 24), noise(16, 24))
    with open_header(path) as header:
        size = upright_size(header)
    assert size == (24, 16)


def on_white(color, alpha):
    alpha = alpha[..., None] / 255
    return np.round(color * alpha + 255 * (1 - alpha)).astype(int)


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_transparency_lies_on_white(tmp_path, extension):
    pixels = np.dstack([noise(16, 16), np.tile(np.arange(0, 256, 17, np.uint8), (16, 1))])
    path = save(tmp_path / f"x.{extension}", pixels, **({"exact": True} | LOSSLESS[extension]))
    result = read_image(path, 16)
    assert (result[:, 0] == 255).all()  # alpha 0
    np.testing.assert_array_equal(result[:, -1], pixels[:, -1, :3])  # alpha 255
    assert largest_difference(result, on_white(pixels[..., :3], pixels[..., 3])) <= 1


def test_gray_with_alpha_lies_on_white(tmp_path):
    gray, alpha = noise(8, 8)[..., 0], noise(8, 8, seed=1)[..., 0]
    path = save(tmp_path / "x.png", Image.merge("LA", [*map(Image.fromarray, (gray, alpha))]))
    expected = on_white(np.repeat(gray[..., None], 3, axis=2), alpha)
    assert largest_difference(read_image(path, 8), expected) <= 1


def test_palette(tmp_path):
    colors = noise(1, 4)[0]
    indices = np.random.default_rng(0).integers(0, 4, (8, 8), np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    for name in ("x.png", "x.gif", "x.bmp", "x.tif"):
        result = read_image(save(tmp_path / name, image), 8)
        np.testing.assert_array_equal(result, colors[indices])


@pytest.mark.parametrize("name", ["x.png", "x.gif"])
def test_palette_with_one_transparent_color(tmp_path, name):
    colors = noise(1, 4)[0]
    indices = np.random.default_rng(0).integers(0, 4, (8, 8), np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    path = save(tmp_path / name, image, transparency=2)
    colors[2] = 255
    np.testing.assert_array_equal(read_image(path, 8), colors[indices])


def test_palette_with_an_alpha_for_each_color(tmp_path):
    colors, alpha = noise(1, 4)[0], np.array([0, 100, 200, 255])
    indices = np.random.default_rng(0).integers(0, 4, (8, 8), np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    path = save(tmp_path / "x.png", image, transparency=bytes(alpha.tolist()))
    assert largest_difference(read_image(path, 8), on_white(colors, alpha)[indices]) <= 1


def test_transparent_color_of_rgb_and_of_gray(tmp_path):
    # Three pixels each, of which the middle one has the color that the file calls transparent.
    rgb = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
    data = png_bytes((3, 3), 8, 2, [rgb.tobytes()] * 3, transparency=struct.pack(">3H", 40, 50, 60))
    (tmp_path / "rgb.png").write_bytes(data)
    expected = [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png", 3), [expected] * 3)
    data = png_bytes((3, 3), 8, 0, [bytes([7, 8, 9])] * 3, transparency=struct.pack(">H", 8))
    (tmp_path / "gray.png").write_bytes(data)
    expected = [[7] * 3, [255] * 3, [9] * 3]
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png", 3), [expected] * 3)


def deep(height, width):
    return np.random.default_rng(0).integers(0, 1 << 16, (height, width, 3), np.uint16)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.ppm"])
def test_16_bit_gray(tmp_path, name):
    gray = deep(12, 12)[..., 0]
    gray[0, :2] = 0, 65535
    path = save(tmp_path / name, gray)
    expected = np.repeat((gray / 257)[..., None], 3, axis=2)  # 65535 / 257 = 255
    result = read_image(path, 12)
    assert result[0, :2, 0].tolist() == [0, 255]
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.ppm"])
def test_16_bit_color(tmp_path, name):
    rgb = deep(12, 12)
    rgb[0, :2] = [[0, 65535, 0], [65535, 0, 65535]]
    assert cv2.imwrite(str(tmp_path / name), rgb[..., ::-1])  # Pillow does not write these
    result = read_image(tmp_path / name, 12)
    assert result[0, :2].tolist() == [[0, 255, 0], [255, 0, 255]]
    assert np.abs(result - rgb / 257).max() <= 1


def test_16_bit_alpha_lies_on_white(tmp_path):
    # Gray 30000 / 257 = 117 at alpha 0, one half and 1: 255, (117 + 255) / 2 = 186 and 117.
    row = struct.pack(">6H", 30000, 0, 30000, 32768, 30000, 65535)
    (tmp_path / "x.png").write_bytes(png_bytes((3, 3), 16, 4, [row] * 3))
    result = read_image(tmp_path / "x.png", 3)
    np.testing.assert_allclose(result[0].T, [[255, 186, 117]] * 3, atol=1)


@pytest.mark.parametrize("name", ["x.jpg", "x.tif"])
def test_cmyk(tmp_path, name):
    # A tile each of white, cyan, magenta, yellow, black, and ink of every kind:
    # red = (255 - cyan) * (255 - black) / 255, and so on.
    inks = np.array(
        [
            *([0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0]),
            *([0, 0, 255, 0], [0, 0, 0, 255], [40, 90, 150, 60]),
        ],
        np.uint8,
    )
    tiles = np.repeat(np.repeat(inks.reshape(2, 3, 4), 16, axis=0), 16, axis=1)
    options = {"quality": 100, "subsampling": 0} if name == "x.jpg" else {}
    path = save(tmp_path / name, Image.fromarray(tiles, "CMYK"), **options)
    ink = inks.astype(int)
    expected = ((255 - ink[:, :3]) * (255 - ink[:, 3:]) / 255).reshape(2, 3, 3)
    result = decode_image(path, 48)[8::16, 8::16]  # the middle of each tile
    assert np.abs(result - expected).max() <= 3


@pytest.mark.parametrize("extension", ["gif", "png", "webp"])
def test_first_frame_of_an_animation(tmp_path, extension):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    path = tmp_path / f"x.{extension}"
    options = {"lossless": True} if extension == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(read_image(path, 8), np.full((8, 8, 3), [255, 0, 0]))


def test_jpeg_with_further_pictures_behind_it(tmp_path):
    first, second = (Image.fromarray(pixels) for pixels in (smooth(20, 20), noise(20, 20)))
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.n_frames == 2
        expected = np.array(image.convert("RGB"))
    assert largest_difference(read_image(tmp_path / "x.jpg", 20), expected) <= 3


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "tif", "webp", "gif"])
def test_grayscale_has_three_equal_channels(tmp_path, extension):
    gray = smooth(24, 24)[..., 0]
    path = save(tmp_path / f"x.{extension}", gray, **FORMATS[extension])
    result = read_image(path, 24)
    np.testing.assert_array_equal(result[..., 0], result[..., 1])
    np.testing.assert_array_equal(result[..., 0], result[..., 2])
    assert largest_difference(result[..., 0], gray) <= (2 if extension == "jpg" else 0)


def test_black_and_white(tmp_path):
    bits = noise(9, 9)[..., 0] > 127
    path = save(tmp_path / "x.png", Image.fromarray(bits))
    np.testing.assert_array_equal(read_image(path, 9)[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("name", ["float.tif", "32-bit.tif", "signed.tif"])
def test_pixels_without_a_range_are_refused(tmp_path, name):
    value = {"float.tif": np.float32(200), "32-bit.tif": np.int32(200), "signed.tif": np.int32(-1)}
    path = save(tmp_path / name, np.full((4, 4), value[name]))
    message = message_of(path)
    assert "no fixed range" in message
    assert "broken" not in message


# Sizes


@pytest.mark.parametrize("extension", ["jpg", "png", "gif"])
@pytest.mark.parametrize("side", [256, 250])
def test_checkerboard_far_above_the_target_comes_out_gray(tmp_path, extension, side):
    board = (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)
    path = save(tmp_path / f"x.{extension}", board, **FORMATS[extension])
    for size in (16, 30):
        assert np.abs(read_image(path, size) - 127.5).max() < 8


def area_mean(pixels, size):
    """Mean of what lies below each pixel of the result, shares of pixels included."""
    result = pixels.astype(float)
    for axis in (0, 1):
        side = result.shape[axis]
        sums = np.insert(np.cumsum(result, axis), 0, 0, axis)
        edges = np.linspace(0, side, size + 1)
        whole = np.minimum(edges.astype(int), side - 1)
        sums = np.moveaxis(sums, axis, -1)
        at_edges = sums[..., whole] + (edges - whole) * (sums[..., whole + 1] - sums[..., whole])
        result = np.moveaxis(np.diff(at_edges), -1, axis) * (size / side)
    return result


@pytest.mark.parametrize("shape", [(24, 24), (48, 36), (84, 84), (100, 37), (61, 250)])
def test_shrinking_is_the_mean_of_the_pixels_below(tmp_path, shape):
    path = save(tmp_path / "x.png", noise(*shape))
    # Rounded to whole levels twice: at twice the target, and at the target.
    assert np.abs(read_image(path, 12) - area_mean(noise(*shape), 12)).max() <= 1


def test_jpeg_and_png_of_one_picture_look_alike_at_any_size(tmp_path):
    picture = smooth(310, 470)
    jpg = save(tmp_path / "x.jpg", picture, quality=95)
    png = save(tmp_path / "x.png", picture)
    for size in (1, 19, 37, 64, 150, 300, 500):
        # Reduced decoding rounds the sides up: 4 levels, or less than half a pixel of the result.
        tolerance = 4 + 0.5 * 255 / size
        assert largest_difference(read_image(jpg, size), read_image(png, size)) <= tolerance


@pytest.fixture
def decoded_shapes(monkeypatch):
    """Height and width of what the decoders of JPEG and PNG return, as a list that grows."""
    shapes = []

    def noting(decoder):
        def decode(*args, **options):
            pixels = decoder(*args, **options)
            shapes.append(pixels.shape[:2])
            return pixels

        return decode

    monkeypatch.setattr(cv2, "imdecode", noting(cv2.imdecode))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", noting(simplejpeg.decode_jpeg))
    return shapes


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("shape", [(100, 100), (331, 200), (97, 640), (800, 800), (1, 900)])
def test_decoding_keeps_twice_the_target_or_every_pixel(tmp_path, decoded_shapes, extension, shape):
    path = save(tmp_path / f"x.{extension}", smooth(*shape))
    for size in (10, 24, 25, 26, 50, 99, 101):
        got = decode_image(path, size).shape[:2]
        least = [min(side, 2 * size) for side in shape]
        whole = decoded_shapes.pop()
        assert all(side >= needed for side, needed in zip(whole, least, strict=True))
        # No more than sampling needs, and nothing is made up: 2 to 2.5 times the target.
        assert got == tuple(2 * size if side > 2.5 * size else side for side in whole)
        assert all(side >= needed for side, needed in zip(got, least, strict=True))


def test_large_jpeg_is_decoded_reduced(tmp_path, decoded_shapes):
    path = save(tmp_path / "x.jpg", smooth(640, 800))
    for size in (40, 41, 80, 81, 160, 161):
        decode_image(path, size)
    # 640 / 8 = 80 = 2 * 40; one pixel more needs the next factor, and so on.
    expected = [(80, 100), (160, 200), (160, 200), (320, 400), (320, 400), (640, 800)]
    assert decoded_shapes == expected


def test_enlarging_is_bilinear_between_pixel_centers(tmp_path):
    # Centers of two pixels lie at 1/4 and 3/4, those of four at 1/8, 3/8, 5/8 and 7/8: the border
    # pixels have nothing further out, and the inner ones lie a quarter of the way in.
    row = np.array([[0, 0, 0], [100, 200, 40]], np.uint8)
    path = save(tmp_path / "x.png", np.stack([row, row]))
    expected = [[0, 0, 0], [25, 50, 10], [75, 150, 30], [100, 200, 40]]
    np.testing.assert_array_equal(read_image(path, 4), [expected] * 4)


def test_image_is_stretched_to_a_square(tmp_path):
    # 2 high, 4 wide; at size 2 each result pixel is the mean of two neighbors in a row.
    row = np.array([0, 100, 20, 60], np.uint8)
    pixels = np.repeat(np.stack([row, 2 * row])[..., None], 3, axis=2)
    result = read_image(save(tmp_path / "x.png", pixels), 2)
    np.testing.assert_array_equal(result[..., 0], [[50, 40], [100, 80]])


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
def test_tiny_and_thin_images(tmp_path, shape):
    path = save(tmp_path / "x.png", np.full((*shape, 3), [1, 2, 3], np.uint8))
    np.testing.assert_array_equal(read_image(path, 5), np.full((5, 5, 3), [1, 2, 3]))


# Affine sampling


def affine_loop(image, size, transform):
    """What `resample` promises, in float."""
    height, width = image.shape[:2]
    result = np.empty((size, size, 3))
    for i in range(size):
        for j in range(size):
            point = transform @ [(j + 0.5) / size - 0.5, (i + 0.5) / size - 0.5, 1]
            x = (point[0] + 0.5) * width - 0.5
            y = (point[1] + 0.5) * height - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            columns = np.clip([left, left + 1], 0, width - 1)
            rows = np.clip([top, top + 1], 0, height - 1)
            across = np.array([left + 1 - x, x - left])
            down = np.array([top + 1 - y, y - top])
            corners = image[np.ix_(rows, columns)]  # (2, 2, 3)
            result[i, j] = np.einsum("r,c,rck->k", down, across, corners)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_resample_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    transform = rng.normal(0, 0.5, (2, 3))
    image = smooth(23, 37)
    result = resample(image, 15, transform)
    assert result.dtype == np.uint8
    # OpenCV may round coordinates to 1/32 of a pixel; neighbors differ by up to 11 levels.
    assert np.abs(result - affine_loop(image, 15, transform)).max() <= 1.5


def test_resample_flips_and_turns_exactly():
    image = noise(16, 16)
    for matrix, expected in (
        ([[-1, 0], [0, 1]], image[:, ::-1]),
        ([[1, 0], [0, -1]], image[::-1]),
        ([[0, -1], [1, 0]], np.rot90(image)),
        ([[0, 1], [-1, 0]], np.rot90(image, -1)),
    ):
        result = resample(image, 16, np.column_stack([matrix, [0.0, 0.0]]))
        np.testing.assert_array_equal(result, expected)


def test_resample_shifts_by_whole_pixels_and_fills_with_the_nearest():
    image = noise(16, 16)
    transform = np.array([[1, 0, 3 / 16], [0, 1, -2 / 16]])  # looks 3 to the right, 2 further up
    padded = np.pad(image, ((2, 0), (0, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(resample(image, 16, transform), padded[:16, 3:])


def test_resample_crops():
    image = noise(16, 16)
    # Half the side, moved by a quarter of the image to the left and an eighth down.
    transform = np.array([[0.5, 0, -0.25], [0, 0.5, 0.125]])
    np.testing.assert_array_equal(resample(image, 8, transform), image[6:14, 0:8])


# Bad input


def message_of(path, size=16):
    with pytest.raises(InputError) as caught:
        read_image(path, size)
    message = str(caught.value)
    shown = str(path).replace("\0", "\\x00")
    assert message.startswith(f"{shown}: ")
    assert "\n" not in message
    return message


def test_missing_image(tmp_path):
    assert "no such image" in message_of(tmp_path / "x.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "x.jpg")
    assert "no such image" in message_of(tmp_path / "link.jpg")


def test_folder_named_like_an_image(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    assert "not a regular file" in message_of(tmp_path / "x.jpg")


def test_fifo_is_not_waited_for(tmp_path, time_limit):
    os.mkfifo(tmp_path / "x.jpg")
    assert "not a regular file" in message_of(tmp_path / "x.jpg")


@pytest.mark.parametrize("name", ["n" * 300 + ".jpg", "x\0.jpg", "loop.jpg", "file/x.jpg"])
def test_path_that_cannot_be_opened(tmp_path, name):
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "file").write_text("")
    assert "cannot be read" in message_of(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_image_without_permission(tmp_path):
    path = save(tmp_path / "x.png", noise(4, 4))
    path.chmod(0)
    assert "cannot be read (Permission denied)" in message_of(path)


def test_line_break_in_the_name_does_not_break_the_message(tmp_path):
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "a\nb.jpg", 16)
    assert "\n" not in str(caught.value)


def test_zero_bytes(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    assert "not an image" in message_of(tmp_path / "x.jpg")


def test_text_named_jpg(tmp_path):
    (tmp_path / "x.jpg").write_text("<html>404 not found</html>\n")
    assert "not an image" in message_of(tmp_path / "x.jpg")


def test_file_beyond_any_image_is_not_read(tmp_path):
    with (tmp_path / "x.jpg").open("wb") as handle:
        handle.truncate((1 << 30) + 1)  # a hole: takes no room on the disk
    assert "1,073,741,825 bytes" in message_of(tmp_path / "x.jpg")


@pytest.mark.parametrize("left", [0.02, 0.1, 0.3, 0.5, 0.8, 0.95, -40])
@pytest.mark.parametrize("extension", FORMATS)
def test_truncated_image(tmp_path, extension, left):
    """`left`: share of the file that is left, or the number of bytes missing."""
    path = save(tmp_path / f"x.{extension}", noise(40, 56), **FORMATS[extension])
    data = path.read_bytes()
    path.write_bytes(data[: left if left < 0 else int(left * len(data))])
    for size in (8, 40):
        assert re.search("not an image|broken image", message_of(path, size))


@pytest.mark.parametrize("left", [0.3, 0.6, 0.9])
def test_truncated_progressive_jpeg(tmp_path, left):
    path = save(tmp_path / "x.jpg", noise(40, 56), progressive=True)
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data))])
    assert "broken image" in message_of(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_png_with_a_flipped_bit(tmp_path, capfd, mode):
    path = save(tmp_path / "x.png", Image.fromarray(noise(40, 40)).convert(mode))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "broken image" in message_of(path)
    assert capfd.readouterr().err == ""  # the error says it all


@pytest.mark.parametrize("color_type", [0, 2, 3, 6])
def test_image_of_40_000_by_40_000_is_not_decoded(tmp_path, time_limit, color_type):
    (tmp_path / "x.png").write_bytes(png_bytes((40_000, 40_000), 8, color_type, [b"\0" * 1000]))
    message = message_of(tmp_path / "x.png")
    assert "more than 178,956,970 pixels" in message
    assert "make it smaller" in message


def test_jpeg_that_claims_65_000_by_65_000_is_not_decoded(tmp_path, time_limit):
    data = bytearray(save(tmp_path / "x.jpg", noise(16, 16)).read_bytes())
    size = data.index(b"\xff\xc0") + 5  # start of frame: length, precision, then the sides
    data[size : size + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "x.jpg").write_bytes(data)
    assert "pixels" in message_of(tmp_path / "x.jpg")


def test_nothing_but_the_error_is_said(tmp_path):
    """Half of the largest size, and EXIF data cut short, are worth no warning."""
    large, cut = tmp_path / "large.png", tmp_path / "cut.jpg"
    large.write_bytes(png_bytes((9600, 9600), 1, 0, [b"too few"]))
    save(cut, noise(16, 16), exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03")
    program = """if True:
        import sys
        from deep_ranking.files.errors import InputError
        from deep_ranking.images import read_image
        for path in sys.argv[1:]:
            try:
                print(read_image(path, 8).shape)
            except InputError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, large, cut], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{large}: broken image")
    assert second == "(8, 8, 3)"
    assert done.stderr == ""


@pytest.fixture(scope="module")
def fuzz_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150)
@given(
    extension=st.sampled_from(sorted(FORMATS)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=4),
    end=st.integers(10, 2000),
)
def test_broken_bytes_give_pixels_or_one_line(fuzz_dir, extension, changes, end):
    stream = io.BytesIO()
    kind = Image.registered_extensions()[f".{extension}"]
    Image.fromarray(noise(12, 20)).save(stream, kind, **FORMATS[extension])
    data = bytearray(stream.getvalue()[:end])
    for position, change in changes:
        data[position % len(data)] ^= change
    path = fuzz_dir / "x"
    path.write_bytes(data)
    try:
        with warnings.catch_warnings(action="ignore"):
            assert read_image(path, 8).shape == (8, 8, 3)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)


# Sizes


def sized(folder, *sizes):
    """Images of these widths and heights, with little in them."""
    paths = []
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number:03}.png")
        Image.new("L", size).save(paths[-1])
    return paths


@pytest.mark.parametrize(
    ("side", "expected"),
    [(1, 8), (8, 8), (31, 31), (32, 32), (63, 32), (64, 64), (95, 64), (200, 192)],
)
def test_fitting_size_is_rounded_down_to_a_multiple_of_32_from_there_on(tmp_path, side, expected):
    paths = sized(tmp_path, (side, 300))
    assert fitting_size(paths, 224) == expected
    assert fitting_size([str(path) for path in paths], 224) == expected


@pytest.mark.parametrize(
    ("largest", "expected"), [(224, 224), (96, 96), (100, 96), (32, 32), (31, 31), (1, 8)]
)
def test_fitting_size_is_no_larger_than_wanted(tmp_path, largest, expected):
    assert fitting_size(sized(tmp_path, (640, 480)), largest) == expected


def test_fitting_size_goes_by_the_median_of_the_shorter_sides(tmp_path):
    # Shorter sides 40, 64, 96, 100 and 900; the mean is 240.
    paths = sized(tmp_path, (900, 900), (96, 400), (500, 40), (64, 64), (128, 100))
    assert fitting_size(paths, 224) == 96
    # Of 64 and 130: 97. Of 64 and 126: 95.
    (tmp_path / "x").mkdir()
    assert fitting_size(sized(tmp_path / "x", (64, 70), (130, 140)), 224) == 96
    assert fitting_size(sized(tmp_path / "x", (64, 70), (140, 126)), 224) == 64


def test_fitting_size_passes_over_broken_images(tmp_path):
    paths = sized(tmp_path, (100, 100), (64, 64), (40, 40))
    data = paths[0].read_bytes()
    bad = [tmp_path / name for name in ("none.png", "empty.png", "text.png", "cut.png", "bomb.png")]
    for path, content in zip(
        bad[1:],
        (b"", b"no image", data[:20], png_bytes((40_000, 40_000), 8, 0, [b"too few"])),
        strict=True,
    ):
        path.write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    bad.append(tmp_path / "folder.png")
    assert fitting_size([*bad, *paths], 224) == 64
    assert fitting_size(bad, 224) == 224
    assert fitting_size([], 160) == 160


def test_fitting_size_looks_at_some_of_many_images(tmp_path, monkeypatch):
    small, large = sized(tmp_path, (40, 40), (200, 200))
    opened = []
    open_image = Image.open

    def counted(path, **options):
        opened.append(path.name)
        return open_image(path, **options)

    monkeypatch.setattr(Image, "open", counted)
    # What comes first is not what counts: the first thousand are small, the other 4000 are not.
    paths = [small] * 1000 + [large] * 4000
    assert fitting_size(paths, 224) == 192
    assert len(opened) == NUM_MEASURED
    assert opened.count(str(small)) == NUM_MEASURED / 5


# Real images


@pytest.mark.real_data
def test_photographs_look_as_pillow_reads_them(real_data, tmp_path):
    with tarfile.open(real_data / "data/caltech101.tar") as archive:
        members = (member for member in archive if member.name.endswith(".jpg"))
        photographs = [archive.extractfile(member).read() for member in islice(members, 12)]
    for number, data in enumerate(photographs):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(data)
        with Image.open(path) as image:
            expected = area_mean(np.array(image.convert("RGB")), 32)
        # Reduced decoding rounds the sides up, by which contours move a little.
        assert np.abs(read_image(path, 32) - expected).mean() < 5
