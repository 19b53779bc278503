"""Kinds of image files that readers often get wrong in silence: the right pixels, or one error.

The files are written byte by byte (`image_bytes`), or by another library than the one that reads
them.
"""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_bytes import ascii_tag, bmp, chunk, cmyk_profile, lzw, packbits, png, tiff
from PIL import Image, ImageCms

from deep_ranking.files import InputError
from deep_ranking.images import (
    allow_megapixels,
    decode_with_notes,
    open_header,
    read_image,
    upright_size,
)
from deep_ranking.images.limits import VARIABLE
from deep_ranking.images.readers.jpeg_xl import size_of
from deep_ranking.images.readers.raster import FIRST_BAND, FIRST_BANDS, ON_BLACK, STRETCHED

SIDES = (20, 24)
BLACK_IS_ZERO, WHITE_IS_ZERO, RGB, PALETTE, CMYK = 1, 0, 2, 3, 5


def ramp(low, high, kind=np.uint16, channels=1):
    """Values that differ along each axis and channel, from `low` to `high`."""
    y, x, c = np.mgrid[: SIDES[0], : SIDES[1], :channels]
    values = (3 * y + 5 * x + 17 * c) % 97 / 96
    return np.rint(low + values * (high - low)).astype(kind)


def decoded(data, size=32):
    return decode_with_notes(data, size, "x")


def assert_shows(data, expected, *, tolerance=1, notes=()):
    """Check pixels, uint8 or float (height, width) or (height, width, 3), and notes."""
    pixels, found = decoded(data)
    expected = np.asarray(expected, float)
    if expected.ndim == 2:
        expected = expected[..., None].repeat(3, axis=2)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= tolerance
    assert found == tuple(notes)


def message_of(data):
    with pytest.raises(InputError) as caught:
        decoded(data)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# 16-bit gray that uses a part of its range


@pytest.mark.parametrize("write", ["tiff", "big-endian", "png", "opencv"])
@pytest.mark.parametrize(("highest", "top"), [(900, 1023), (3870, 4095), (16000, 16383)])
def test_gray_of_10_12_or_14_bits_is_stretched_and_noted(write, highest, top):
    gray = ramp(7, highest)
    if write == "png":
        data = png(gray, 16, 0)
    elif write == "opencv":
        data = cv2.imencode(".tif", gray)[1].tobytes()
    else:
        data = tiff(gray, BLACK_IS_ZERO, order=">" if write == "big-endian" else "<")
    assert_shows(data, gray[..., 0] * (255 / top), notes=[STRETCHED])


def test_color_of_12_bits_is_stretched_alike_in_all_channels():
    rgb = ramp(7, 3870, channels=3)
    rgb[..., 2] //= 4
    for data in (tiff(rgb, RGB), png(rgb, 16, 2), tiff(rgb, RGB, planar=True)):
        assert_shows(data, rgb * (255 / 4095), notes=[STRETCHED])


def test_whole_range_of_16_bits_is_no_part():
    gray = ramp(0, 40_000)
    for data in (tiff(gray, BLACK_IS_ZERO), png(gray, 16, 0)):
        assert_shows(data, gray[..., 0] / 257)


@pytest.mark.parametrize(
    ("tags", "low", "high"),
    [
        ([(340, "H", [100]), (341, "H", [3000])], 100, 3000),
        ([(340, "f", [0.0]), (341, "f", [8000.0])], 0, 8000),
        ([(50717, "I", [5000])], 0, 5000),
        ([ascii_tag(270, '<OME><Pixels SignificantBits="13"/></OME>')], 0, 8191),
        ([ascii_tag(270, "ImageJ=1.54\nunit=um\nmin=50.0\nmax=2500.0\n")], 50, 2500),
        ([(340, "H", [0]), (341, "H", [65535])], 0, 65535),
        ([(281, "H", [3000])], 0, 3000),
        ([(280, "H", [100]), (281, "H", [3000])], 100, 3000),
        ([(281, "H", [3000]), (340, "H", [0]), (341, "H", [5000])], 0, 5000),
    ],
)
def test_range_that_a_tiff_states(tags, low, high):
    gray = ramp(200, 2000)
    expected = (gray[..., 0] - low) * (255 / (high - low))
    assert_shows(tiff(gray, BLACK_IS_ZERO, tags=tags), expected)


@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_packed_across_bytes_state_their_range(bits, compression):
    gray = ramp(0, 600)
    data = tiff(gray, BLACK_IS_ZERO, bits=bits, compression=compression)
    assert_shows(data, gray[..., 0] * (255 / ((1 << bits) - 1)))


def test_significant_bits_of_a_png():
    low = ramp(0, 900)
    said = [chunk(b"sBIT", bytes([12]))]
    assert_shows(png(low, 16, 0, before=said), low[..., 0] * (255 / 4095))  # not spread
    spread = low << 4  # as the standard wants it
    assert_shows(png(spread, 16, 0, before=said), spread[..., 0] / 257)


def portable(samples, largest, *, as_text=False):
    """A PGM or PPM."""
    height, width, channels = samples.shape
    kind = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[channels, as_text]
    body = " ".join(map(str, samples.ravel())).encode() if as_text else samples.astype(">u2")
    return f"P{kind} {width} {height}\n# x\n{largest}\n".encode() + bytes(body)


def other_deep_format(kind, samples, bits):
    if kind.startswith("ppm"):
        return portable(samples, (1 << bits) - 1, as_text=kind == "ppm-text")
    writer = pytest.importorskip("imagecodecs")
    shape = samples[..., 0] if samples.shape[2] == 1 else samples
    if kind == "jxl":
        return writer.jpegxl_encode(shape, lossless=True, bitspersample=bits)
    return writer.jpeg2k_encode(shape, level=0, reversible=True, bitspersample=bits)


@pytest.mark.parametrize("kind", ["ppm", "ppm-text", "jp2", "jxl"])
@pytest.mark.parametrize("channels", [1, 3])
def test_range_in_use_of_other_formats(kind, channels):
    samples = ramp(7, 3870, channels=channels)
    expected = samples.repeat(3 // channels, axis=2) * (255 / 4095)
    assert_shows(other_deep_format(kind, samples, 16), expected, notes=[STRETCHED])
    if kind != "ppm-text":
        assert_shows(other_deep_format(kind, samples // 8, 12), expected / 8)  # stated
        whole = samples * 16
        assert_shows(other_deep_format(kind, whole, 16), expected * (4095 * 16 / 65535))


def test_cut_off_16_bit_colors_of_a_ppm_are_refused():
    for as_text in (False, True):
        data = portable(ramp(1000, 3870, channels=3), 65535, as_text=as_text)
        assert "broken image" in message_of(data[:-9])
    for number in (65536, 1 << 70):
        data = portable(ramp(1000, 3870, channels=3), 65535, as_text=True)
        assert "broken image" in message_of(data.replace(b" 3870 ", f" {number} ".encode(), 1))


def with_alpha_of_16_bits(kind, samples, tags=(), said=(), bits=16):
    """A file with gray or colours, and alpha as the last channel."""
    is_gray = samples.shape[2] == 2
    if kind == "png":
        return png(
            samples, 16, 4 if is_gray else 6, before=[chunk(b"sBIT", bytes(said))][: len(said)]
        )
    tags = [(338, "H", [2]), *tags]
    return tiff(samples, BLACK_IS_ZERO if is_gray else RGB, tags=tags, bits=bits)


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("opaque", [4095, 65535])
def test_full_alpha_does_not_hide_the_range_in_use(kind, channels, opaque):
    colors = ramp(7, 3870, channels=channels)
    samples = np.dstack([colors, np.full(SIDES, opaque, np.uint16)])
    expected = colors.repeat(3 // channels, axis=2) * (255 / 4095)
    assert_shows(with_alpha_of_16_bits(kind, samples), expected, notes=[STRETCHED])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "opaque", "stated"),
    [
        ("tiff", 4095, {"tags": [(341, "H", [4095])]}),
        ("tiff", 65535, {"tags": [(341, "H", [4095])]}),
        ("tiff", 4095, {"tags": [(50717, "I", [4095])]}),
        ("tiff", 4095, {"bits": 12}),
        ("png", 4095, {"said": [12, 12]}),
        ("png", 65535, {"said": [12, 16]}),
    ],
)
def test_alpha_beside_colors_of_a_stated_range(kind, channels, opaque, stated):
    colors = ramp(0, 2000, channels=channels)
    samples = np.dstack([colors, np.full(SIDES, opaque, np.uint16)])
    samples[0, 0, -1] = 0
    if "tags" in stated and stated["tags"][0][0] == 341:  # of each sample
        stated = {"tags": [(341, "H", [4095] * channels + [opaque])]}
    if "said" in stated:
        stated = {"said": stated["said"][:1] * channels + stated["said"][1:]}
    expected = colors.repeat(3 // channels, axis=2) * (255 / 4095)
    expected[0, 0] = 255
    assert_shows(with_alpha_of_16_bits(kind, samples, **stated), expected)


@pytest.mark.parametrize("bits", [12, 16])
def test_gray_and_alpha_of_a_jpeg_2000(bits):
    gray = ramp(0, 3870 if bits == 12 else 65535)
    samples = np.dstack([gray, np.full(SIDES, (1 << bits) - 1, np.uint16)])
    samples[0, 0, 1] = 0
    expected = gray[..., 0] * (255 / ((1 << bits) - 1))
    expected[0, 0] = 255
    assert_shows(other_deep_format("jp2", samples, bits), expected)


@pytest.mark.parametrize("largest", [1999, 65535])
def test_largest_value_of_a_tiff_that_says_nothing(largest):
    gray = ramp(200, 2000)
    data = tiff(gray, BLACK_IS_ZERO, tags=[(281, "H", [largest])])
    assert_shows(data, gray[..., 0] * (255 / 4095), notes=[STRETCHED])


def test_gray_and_alpha_of_a_jpeg_2000_without_its_extra(monkeypatch):
    data = other_deep_format("jp2", ramp(0, 65535, channels=2), 16)
    monkeypatch.setattr("deep_ranking.images.readers.jpeg_2000.find_spec", lambda _: None)
    assert "install deep-ranking[jxl] to read it" in message_of(data)


# Signed samples, and white as zero


def test_signed_samples_are_shifted_into_range():
    for data, expected in (
        (ramp(-30_000, 30_000, np.int16), lambda v: (v + 32768.0) / 257),
        (ramp(0, 30_000, np.int16), lambda v: v / 128.5),
        (ramp(-120, 120, np.int8), lambda v: v + 128.0),
        (ramp(3, 120, np.int8), lambda v: v * (255 / 127)),
    ):
        assert_shows(tiff(data, BLACK_IS_ZERO), expected(data[..., 0]))
        assert_shows(tiff(data, BLACK_IS_ZERO, compression=5), expected(data[..., 0]))


def test_signed_color():
    for kind, low, high in ((np.int8, -128, 127), (np.int16, -32768, 32767)):
        rgb = ramp(low, high, kind, channels=3)
        expected = (rgb.astype(float) - low) * (255 / (high - low))
        for planar in (False, True):
            assert_shows(tiff(rgb, RGB, planar=planar), expected)


def test_signed_12_bits_are_stretched_and_noted():
    for low, lowest, highest in ((-1500, -2048, 2047), (0, 0, 4095)):
        values = ramp(low, 2000 if low else 3000, np.int16)
        expected = (values[..., 0].astype(float) - lowest) * (255 / (highest - lowest))
        assert_shows(tiff(values, BLACK_IS_ZERO), expected, notes=[STRETCHED])


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("order", "<>")
def test_white_is_zero_in_16_bits(compression, order):
    gray = ramp(0, 65535)
    data = tiff(gray, WHITE_IS_ZERO, compression=compression, order=order)
    assert_shows(data, 255 - gray[..., 0] / 257)


def test_white_is_zero_in_12_bits_and_signed():
    gray = ramp(0, 3870)
    expected = 255 - gray[..., 0] * (255 / 4095)
    assert_shows(tiff(gray, WHITE_IS_ZERO), expected, notes=[STRETCHED])
    signed = ramp(-100, 127, np.int8)
    assert_shows(tiff(signed, WHITE_IS_ZERO), 127.0 - signed[..., 0])


@pytest.mark.parametrize("word", ["signed 32-bit", "32-bit", "float"])
def test_samples_without_a_range_are_named(word):
    samples = ramp(0, 1000, {"signed 32-bit": np.int32}.get(word, np.uint32))
    tags = [(339, "H", [3])] if word == "float" else []
    message = message_of(tiff(samples, BLACK_IS_ZERO, tags=tags))
    assert message.startswith(f"x: {word} pixels have no fixed range")


# Planar samples, strips and tiles, bands


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_planar_color(kind, compression):
    largest = np.iinfo(kind).max
    rgb = ramp(0, largest, kind, channels=3)
    for layout in ({"rows": 7}, {"tile": 16}, {"predictor": 2}, {"big": True}):
        data = tiff(rgb, RGB, planar=True, compression=compression, **layout)
        assert_shows(data, rgb * (255 / largest))


@pytest.mark.parametrize("layout", [{}, {"rows": 3}, {"tile": 16}, {"predictor": 2}, {"big": True}])
@pytest.mark.parametrize("order", "<>")
def test_layouts_of_16_bit_color(layout, order):
    rgb = ramp(0, 65535, channels=3)
    for compression in (1, 5, 8):
        data = tiff(rgb, RGB, order=order, compression=compression, **layout)
        assert_shows(data, rgb / 257)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("num_bands", [3, 4, 5, 8, 13])
def test_of_many_bands_the_first_three_are_red_green_and_blue(num_bands, kind, planar):
    largest = np.iinfo(kind).max
    bands = ramp(0, largest, kind, channels=num_bands)
    data = tiff(bands, BLACK_IS_ZERO, planar=planar, tags=[(338, "H", [0] * (num_bands - 1))])
    assert_shows(data, bands[..., :3] * (255 / largest), notes=[FIRST_BANDS])
    with open_header("x", data) as header:
        assert header.size == SIDES[::-1]
        assert header.format == "TIFF"


def test_of_two_bands_the_first_is_gray():
    bands = ramp(0, 65535, channels=2)
    for planar in (False, True):
        data = tiff(bands, BLACK_IS_ZERO, planar=planar, tags=[(338, "H", [0])])
        assert_shows(data, bands[..., 0] / 257, notes=[FIRST_BAND])


def test_colors_with_further_bands_are_colors():
    bands = ramp(0, 65535, channels=5)
    data = tiff(bands, RGB, tags=[(338, "H", [0, 0])])
    assert_shows(data, bands[..., :3] / 257)


def test_alpha_of_16_bits_lies_on_white():
    bands = ramp(0, 65535, channels=4)
    colors, alpha = bands[..., :3] / 257, bands[..., 3:] / 65535
    expected = colors * alpha + 255 * (1 - alpha)
    for planar in (False, True):
        data = tiff(bands, RGB, planar=planar, tags=[(338, "H", [2])])
        assert_shows(data, expected, tolerance=2)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_fourth_sample_that_is_not_explained_is_alpha(kind):
    largest = np.iinfo(kind).max
    bands = ramp(0, largest, kind, channels=4)
    colors, alpha = bands[..., :3] * (255 / largest), bands[..., 3:] / largest
    for planar in (False, True):
        data = tiff(bands, RGB, planar=planar)
        assert_shows(data, colors * alpha + 255 * (1 - alpha), tolerance=2)


def test_premultiplied_alpha():
    alpha = ramp(9000, 65535)
    bands = np.concatenate([ramp(0, 9000, channels=3), alpha], axis=2)
    data = tiff(bands, RGB, tags=[(338, "H", [1])])
    expected = bands[..., :3] / 257 + 255 * (1 - alpha / 65535)
    assert_shows(data, expected, tolerance=3)


def test_palette_of_16_bit_numbers():
    colors = np.random.default_rng(0).integers(0, 65536, (3, 65536))
    numbers = ramp(0, 65535)
    data = tiff(numbers, PALETTE, tags=[(320, "H", colors.ravel().tolist())])
    assert_shows(data, colors.T[numbers[..., 0]] / 256)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_palette_of_8_bit_values(compression):
    colors = np.random.default_rng(0).integers(0, 256, (3, 256))
    numbers = ramp(0, 255, np.uint8)
    tags = [(320, "H", colors.ravel().tolist())]
    data = tiff(numbers, PALETTE, compression=compression, tags=tags)
    assert_shows(data, colors.T[numbers[..., 0]], tolerance=0)


def test_cut_off_strips_are_refused():
    gray = ramp(0, 65535)
    for compression in (1, 5, 8):
        data = tiff(gray, BLACK_IS_ZERO, compression=compression)
        length = len(gray.tobytes()) if compression == 1 else None
        size = length or len({5: lzw, 8: zlib.compress}[compression](gray.tobytes()))
        count = data.rindex(struct.pack("<HHII", 279, 4, 1, size)) + 8
        short = data[:count] + struct.pack("<I", size // 2) + data[count + 4 :]
        message = message_of(short)
        assert "broken image" in message
        assert compression == 5 or "cut off" in message


def test_packers_of_the_tests_are_right():
    content = bytes(range(256)) * 3
    for compression, packed in ((5, lzw(content)), (32773, packbits(content))):
        assert packed != content
        samples = np.frombuffer(content, np.uint8).reshape(3, 256, 1)
        data = tiff(samples, BLACK_IS_ZERO, compression=compression)
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(image), samples[..., 0])


# L*a*b*

# sRGB colours, and their L*a*b* at D65 and D50: published values, as of Lindbloom's calculator.
LAB_COLORS = {
    (255, 0, 0): ((53.24, 80.09, 67.20), (54.29, 80.81, 69.89)),
    (0, 255, 0): ((87.73, -86.18, 83.18), (87.82, -79.29, 80.99)),
    (0, 0, 255): ((32.30, 79.19, -107.86), (29.57, 68.30, -112.03)),
    (255, 255, 255): ((100, 0, 0), (100, 0, 0)),
    (119, 119, 119): ((50.03, 0, 0), (50.03, 0, 0)),
}


def lab_samples(bits, encoding, white):
    values = np.array([pair[white] for pair in LAB_COLORS.values()])
    largest = (1 << bits) - 1
    if encoding == 10:
        values = (values - [0, -85, -75]) / [100, 170, 200] * largest
    else:
        unit = 1 << bits - 8
        top = 0xFF00 if bits == 16 and encoding == 9 else largest
        shift = 128 * unit if encoding == 9 else 0
        values = np.stack([values[:, 0] / 100 * top, *(values[:, 1:].T * unit + shift)], axis=1)
    kind = np.uint8 if bits == 8 else np.uint16
    rows = np.rint(values).clip(-(1 << bits - 1), largest).astype(np.int64).astype(kind)
    return np.stack([rows] * 5)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("encoding", "white"), [(8, 0), (8, 1), (9, 1)])
def test_lab(encoding, white, bits, planar):
    point = [(318, "f", [0.3457, 0.3585])] if encoding == 8 and white else []
    data = tiff(lab_samples(bits, encoding, white), encoding, planar=planar, tags=point)
    expected = np.stack([list(LAB_COLORS)] * 5)
    assert_shows(data, expected, tolerance=12 if bits == 8 else 6)
    assert (decoded(data).pixels[:, 3] == 255).all()  # white


@pytest.mark.parametrize("bits", [8, 16])
def test_itu_lab(bits):
    samples = lab_samples(bits, 10, 1)[:, [0, 1, 3, 4]]  # blue is beyond its range
    expected = np.stack([[list(LAB_COLORS)[place] for place in (0, 1, 3, 4)]] * 5)
    assert_shows(tiff(samples, 10), expected, tolerance=12)


# Transparency


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_gray_of_a_png(depth):
    largest = (1 << depth) - 1
    gray = ramp(0, largest, np.uint16)
    gray[:4] = largest  # 16 bits in use
    gray[2:4, 3] = 0
    chosen = int(gray[9, 9, 0])
    expected = np.where(gray == chosen, 255, gray * (255 / largest))[..., 0]
    data = png(gray, depth, 0, transparency=struct.pack(">H", chosen))
    assert_shows(data, expected)
    assert (gray == chosen).any()


def test_transparent_color_is_compared_in_all_16_bits():
    rgb = ramp(0, 65535, channels=3)
    rgb[0, 0], rgb[0, 1] = [0x1234, 0x5678, 0x9ABC], [0x1235, 0x5678, 0x9ABC]
    data = png(rgb, 16, 2, transparency=struct.pack(">3H", *rgb[0, 0]))
    expected = rgb / 257
    expected[0, 0] = 255  # and not [0, 1], of which the upper 8 bits are the same
    assert_shows(data, expected)
    gray = ramp(0, 65535)
    gray[0, :2, 0] = 0x1234, 0x1235
    expected = gray[..., 0] / 257
    expected[0, 0] = 255
    data = png(gray, 16, 0, transparency=struct.pack(">H", 0x1234))
    expected[gray[..., 0] == 0x1234] = 255
    assert_shows(data, expected)


@pytest.mark.parametrize("color_type", [4, 6])
def test_alpha_of_a_16_bit_png(color_type):
    samples = ramp(0, 65535, channels=2 if color_type == 4 else 4)
    colors, alpha = samples[..., :-1] / 257, samples[..., -1:] / 65535
    expected = np.broadcast_to(colors * alpha + 255 * (1 - alpha), (*SIDES, 3))
    assert_shows(png(samples, 16, color_type), expected, tolerance=2)


@pytest.mark.parametrize("header_size", [108, 124])
@pytest.mark.parametrize("masks", [(0xFF0000, 0xFF00, 0xFF, 0xFF000000),
                                   (0xFF, 0xFF00, 0xFF0000, 0xFF000000)])  # fmt: skip
def test_empty_alpha_of_a_bmp_is_none(header_size, masks):
    colors = ramp(0, 255, np.uint8, channels=3)
    empty = np.zeros(SIDES, np.uint8)
    assert_shows(bmp(colors, empty, header_size=header_size, masks=masks), colors, tolerance=0)
    half = empty.copy()
    half[:, :5] = 255
    expected = np.where(half[..., None] == 255, colors, 255)
    data = bmp(colors, half, header_size=header_size, masks=masks)
    assert_shows(data, expected, tolerance=0)


def drawing(value):
    """A transparent image with a cross of one value: colours and alpha."""
    alpha = np.zeros((*SIDES, 1), np.uint8)
    alpha[8:11], alpha[:, 10:13] = 255, 255
    return np.concatenate([np.full((*SIDES, 3), value, np.uint8), alpha], axis=2)


@pytest.mark.parametrize("value", [255, 240, 226])
@pytest.mark.parametrize("extension", [".png", ".webp", ".tif"])
def test_white_drawing_is_put_on_black(extension, value):
    pixels = drawing(value)
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if extension == ".webp" else []
    data = cv2.imencode(extension, pixels, options)[1].tobytes()
    expected = pixels[..., 3] / 255 * value
    assert_shows(data, expected, notes=[ON_BLACK])


@pytest.mark.parametrize("value", [0, 120, 200])
def test_darker_drawing_stays_on_white(value):
    pixels = drawing(value)
    expected = np.where(pixels[..., 3] == 255, value, 255)
    assert_shows(cv2.imencode(".png", pixels)[1].tobytes(), expected)


def test_what_is_transparent_everywhere_is_white():
    pixels = drawing(255)
    pixels[..., 3] = 0
    assert_shows(cv2.imencode(".png", pixels)[1].tobytes(), np.full(SIDES, 255))


# Colour profiles


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_profile_of_another_rgb_is_used(kind):
    """A profile with red and blue swapped shows the colours swapped."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = bytes(profile)
    red, blue = table.index(b"rXYZ", 128), table.index(b"bXYZ", 128)
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    name = table.index(b"s\0R\0G\0B") if b"s\0R\0G\0B" in table else table.index(b"sRGB")
    profile[name : name + 1] = b"X"
    colors = np.full((*SIDES, 3), [200, 60, 20], np.uint8)
    stream = io.BytesIO()
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    Image.fromarray(colors).save(stream, kind, icc_profile=bytes(profile), **options.get(kind, {}))
    assert_shows(stream.getvalue(), colors[..., ::-1], tolerance=4)
    damaged = stream.getvalue().replace(b"bXYZ", b"\xff\xff\xff\xff")
    if kind in ("JPEG", "TIFF"):  # elsewhere packed, or with a checksum
        assert_shows(damaged, colors, tolerance=4)


INKS = {
    (0, 0, 0, 0): (255, 255, 255),
    (1, 0, 0, 0): (0, 0, 255),
    (0, 1, 0, 0): (0, 255, 0),
    (0, 0, 1, 0): (255, 0, 0),
    (0, 0, 0, 1): (119, 119, 119),
}


def ink_tiles(kind=np.uint8):
    """A tile of each of the inks, with full ink as the largest value; and the colours due."""
    inks = np.array(list(INKS), kind)[None] * np.iinfo(kind).max
    tiles = inks.repeat(16, axis=0).repeat(16, axis=1)
    return tiles, np.array(list(INKS.values()))[None].repeat(16, axis=0).repeat(16, axis=1)


@pytest.fixture(scope="module")
def inks_profile():
    return cmyk_profile({inks: LAB_COLORS[color][1] for inks, color in INKS.items()})


@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_profile_of_a_cmyk_tiff_is_used(inks_profile, kind, planar, compression):
    tiles, due = ink_tiles(kind)
    profile = [(34675, "B", list(inks_profile))]
    options = {"planar": planar, "compression": compression}
    assert_shows(tiff(tiles, CMYK, **options, tags=profile), due, tolerance=30)
    plain = decoded(tiff(tiles, CMYK, **options)).pixels
    assert plain[8, 24].tolist() == [0, 255, 255]  # cyan, without a profile
    damaged = [(34675, "B", profile[0][2][:200])]
    np.testing.assert_array_equal(decoded(tiff(tiles, CMYK, **options, tags=damaged)).pixels, plain)


@pytest.mark.parametrize("progressive", [False, True])
def test_profile_of_a_cmyk_jpeg_is_used(inks_profile, progressive):
    tiles, due = ink_tiles()
    stream = io.BytesIO()
    options = {"quality": 100, "subsampling": 0, "progressive": progressive}
    Image.fromarray(tiles, "CMYK").save(stream, "JPEG", icc_profile=inks_profile, **options)
    assert_shows(stream.getvalue(), due, tolerance=30)
    data = stream.getvalue()
    half = data.index(b"\xff\xda") + (len(data) - data.index(b"\xff\xda")) // 2
    assert "broken image" in message_of(data[:half] + b"\xff\xd9")


# Metadata


def good():
    return ramp(0, 255, np.uint8, channels=3)


@pytest.mark.parametrize(
    "bad",
    [
        chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
        chunk(b"eXIf", b""),
        chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 90_000_000)),
        chunk(b"zTXt", b"Comment\0\0no zlib"),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(30_000_000))),
        chunk(b"iCCP", b"icc\0\0no zlib"),
        chunk(b"iTXt", b"\xff\xfe"),
        chunk(b"tEXt", b"a\0b")[:-1] + b"?",
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0" * 5),
        chunk(b"tIME", b"\xff"),
        chunk(b"acTL", b"\0"),
    ],
    ids=lambda bad: f"{bad[4:8].decode()}-{len(bad)}",
)
def test_bad_chunks_of_a_png(bad, capfd):
    data = png(good(), 8, 2, before=[bad])
    assert_shows(data, good(), tolerance=0)
    with open_header("x", data) as header:
        assert header.size == SIDES[::-1]
    assert capfd.readouterr().err == ""


def riff(kind, content):
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP"])
@pytest.mark.parametrize("content", [b"This is no such thing", b"", b"\xff" * 2001])
def test_bad_metadata_of_a_webp(kind, content):
    plain = cv2.imencode(".webp", good()[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    flags = {b"EXIF": 8, b"XMP ": 4, b"ICCP": 32}[kind]
    width, height = SIDES[1] - 1, SIDES[0] - 1
    head = bytes([flags, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
    pixels = plain[plain.index(b"VP8L") :]
    before, behind = (riff(kind, content), b"") if kind == b"ICCP" else (b"", riff(kind, content))
    body = b"WEBP" + riff(b"VP8X", head) + before + pixels + behind
    assert_shows(riff(b"RIFF", body), good(), tolerance=0)
    with open_header("x", riff(b"RIFF", body)) as header:
        assert upright_size(header) == SIDES[::-1]


def jpeg(pixels=None, *, options=()):
    pixels = good() if pixels is None else pixels
    settings = [cv2.IMWRITE_JPEG_QUALITY, 100, *options]
    return cv2.imencode(".jpg", pixels[..., ::-1], settings)[1].tobytes()


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe1\0\x20Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 16,
        b"\xff\xe1\0\x0aThis is n",
        b"\xff\xe2\0\x12ICC_PROFILE\0\x07\x01xx",
        b"\xff\xe2\0\x0aMPF\0\xff\xff\xff\xff",
        b"\xff\xfe\0\x06\0\xff\0\xff",
        b"\xff\xed\0\x10Photoshop 3.0\0",
        b"\xff\xe0\0\x10JFIF\0\x09\x09\0\0\x01\0\x01\0\0",
    ],
)
def test_bad_metadata_of_a_jpeg(segment, capfd):
    data = jpeg()
    segment = segment[: 2 + int.from_bytes(segment[2:4])]
    segment = segment.ljust(2 + int.from_bytes(segment[2:4]), b"\xff")
    assert_shows(data[:2] + segment + data[2:], decoded(data).pixels, tolerance=0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("exif", [b"This is no EXIF", b"Exif\0\0II", b"\xff" * 50])
def test_bad_exif_of_an_avif(exif):
    plain, odd = io.BytesIO(), io.BytesIO()
    Image.fromarray(good()).save(plain, "AVIF", quality=100)
    valid = Image.Exif()
    valid[0x010E] = "d" * 100
    Image.fromarray(good()).save(odd, "AVIF", quality=100, exif=valid)
    data = odd.getvalue()
    place = data.index(b"d" * 100)
    start = data.rindex(b"MM\0*", 0, place) if b"MM\0*" in data else data.rindex(b"II*\0", 0, place)
    broken = (
        data[: start - 2] + exif[: place - start] + data[start - 2 + len(exif[: place - start]) :]
    )
    assert len(broken) == len(data)
    assert_shows(broken, decoded(plain.getvalue()).pixels, tolerance=0)


# Damaged PNG of the kinds that Pillow reads


def with_stream(data, change):
    """A PNG whose packed pixels are changed, in two chunks with the right checksum."""
    begin = data.index(b"IDAT") + 4
    end = begin + int.from_bytes(data[begin - 8 : begin - 4])
    stream = change(data[begin:end])
    chunks = chunk(b"IDAT", stream[:-6]) + chunk(b"IDAT", stream[-6:])
    return data[: begin - 8] + chunks + data[end + 4 :]


STREAM_DAMAGES = {
    "rows": lambda stream: zlib.compress(
        zlib.decompress(stream)[: len(zlib.decompress(stream)) // 2]
    ),
    "cut": lambda stream: stream[: len(stream) // 2],
    "checksum": lambda stream: stream[:-1] + bytes([stream[-1] ^ 1]),
    "bytes": lambda stream: stream[:-40] + bytes([stream[-40] ^ 16]) + stream[-39:],
    "none": lambda stream: zlib.compress(b""),
}


@pytest.mark.parametrize("damage", STREAM_DAMAGES)
@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1"])
def test_damaged_pixels_of_a_png_are_refused(mode, damage):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, SIDES, np.uint8)
    Image.fromarray(noise).convert(mode).save(stream, "PNG")
    data = stream.getvalue()
    assert decoded(with_stream(data, bytes)).pixels.shape == (*SIDES, 3)
    assert "broken image" in message_of(with_stream(data, STREAM_DAMAGES[damage]))


@pytest.mark.parametrize("sides", [(1, 1), (3, 5), (8, 9), (20, 24)])
@pytest.mark.parametrize("bits", [1, 8])
def test_interlaced_png_is_complete_or_refused(sides, bits):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
    passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    indices = (np.arange(sides[0] * sides[1]) % 2).astype(np.uint8).reshape(sides)
    rows = []
    for left, top, step, row_step in passes:
        part = indices[top::row_step, left::step]
        if part.size:
            rows += [(np.packbits(row) if bits == 1 else row).tobytes() for row in part]
    packed = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", sides[1], sides[0], bits, PALETTE, 0, 0, 1)

    def file(content):
        parts = [(b"IHDR", header), (b"PLTE", bytes([9, 9, 9, 200, 200, 200]))]
        parts += [(b"IDAT", zlib.compress(content)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    assert_shows(file(packed), np.where(indices, 200, 9), tolerance=0)
    assert "pixels are missing" in message_of(file(packed[:-1]))


# Damaged JPEG


def busy(side=160):
    rng = np.random.default_rng(0)
    rough = cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), (side, side))
    return (rough // 2 + rng.integers(0, 128, rough.shape, np.uint8)).astype(np.uint8)


DAMAGES = {
    "noise": lambda data, at: data[:at] + np.random.default_rng(at).bytes(500) + data[at + 500 :],
    "zeros": lambda data, at: data[:at] + bytes(len(data) // 4) + data[at + len(data) // 4 :],
    "lost": lambda data, at: data[:at] + data[at + len(data) // 5 :],
    "end": lambda data, at: data[:at] + b"\xff\xd9",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.7])
def test_damaged_jpeg_with_its_end_marker_is_refused(progressive, damage, part, capfd):
    data = jpeg(busy(), options=[cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    begin = data.index(b"\xff\xda") + 20
    at = begin + int(part * (len(data) - begin))
    broken = DAMAGES[damage](data, at)
    assert broken[-2:] == b"\xff\xd9"
    if damage != "end":
        assert broken != data
    for size in (8, 200):
        with pytest.raises(InputError, match="x: broken image"):
            decode_with_notes(broken, size, "x")
    assert decode_with_notes(data, 200, "x").pixels.shape == (160, 160, 3)
    assert capfd.readouterr().err == ""


def test_filler_before_and_after_the_end_marker_of_a_jpeg_is_no_damage():
    data = jpeg(busy())
    expected = decoded(data).pixels
    for filler in (bytes(40), b"\xff" * 40, b"\0"):
        np.testing.assert_array_equal(decoded(data[:-2] + filler + data[-2:]).pixels, expected)
    np.testing.assert_array_equal(decoded(data + b"any trailer").pixels, expected)
    with pytest.raises(InputError, match="extraneous bytes"):
        decoded(data[:-2] + b"no filler" * 9 + data[-2:])


# Formats with a reader of their own


def test_heif(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    pytest.importorskip("pi_heif")
    for number, mode in enumerate(("RGB", "RGBA", "L")):
        image = Image.fromarray(cv2.resize(good(), (64, 64))).convert(mode)
        path = tmp_path / f"{number}.jpg"  # as phones and messengers name them
        heif.from_pillow(image).save(path.with_suffix(".heic"), quality=100)
        path.with_suffix(".heic").rename(path)
        expected = np.asarray(image.convert("RGB"), int)
        assert np.abs(read_image(path, 64) - expected).mean() < 6
        with open_header(path) as header:
            assert (header.format, header.size) == ("HEIF", (64, 64))


def test_jpeg_xl(tmp_path):
    writer = pytest.importorskip("pylibjxl")
    pytest.importorskip("imagecodecs")
    rgba = np.dstack([good(), np.full(SIDES, 255, np.uint8)])
    for number, pixels in enumerate((good(), rgba, good()[..., :1].copy())):
        data = writer.encode(pixels, lossless=True)
        assert_shows(data, np.broadcast_to(pixels[..., :3], (*SIDES, 3)), tolerance=0)
        path = tmp_path / f"{number}.jxl"
        path.write_bytes(data)
        with open_header(path) as header:
            assert (header.format, header.size) == ("JPEG XL", SIDES[::-1])
        assert "broken image" in message_of(data[: len(data) // 2])


@pytest.mark.parametrize(
    "shape", [(8, 16), (9, 7), (256, 256), (300, 400), (1, 5000), (1080, 1920)]
)
def test_size_of_a_jpeg_xl(shape):
    writer = pytest.importorskip("pylibjxl")
    data = writer.encode(np.zeros((*shape, 3), np.uint8), effort=1)
    assert size_of(data) == shape[::-1]
    box = struct.pack(">I", 8 + len(data)) + b"jxlc" + data
    kind = struct.pack(">I", 20) + b"ftypjxl \0\0\0\0jxl "
    assert size_of(b"\0\0\0\x0cJXL \r\n\x87\n" + kind + box) == shape[::-1]


@pytest.mark.parametrize(
    ("begin", "line"),
    [
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "HEIF image; install deep-ranking[heif] to read it",
        ),
        (b"\xff\x0a\xfa\x1f\x41", "JPEG XL image; install deep-ranking[jxl] to read it"),
    ],
)
def test_format_without_its_extra(tmp_path, monkeypatch, begin, line):
    monkeypatch.setattr("deep_ranking.images.formats.find_spec", lambda _: None)
    path = tmp_path / "named.jpg"
    path.write_bytes(begin + bytes(100))
    for read in (lambda: read_image(path, 8), lambda: open_header(path).__enter__()):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value) == f"{path}: {line}"


# What a file is that cannot be read


def frame(marker, precision):
    """The begin of a JPEG: a segment of text, and the header of a frame."""
    text, head = b"\xff\xfe\0\x06text", bytes([0xFF, marker, 0, 11, precision])
    return b"\xff\xd8" + text + head + b"\0\x10\0\x10\x01\x01\x11\0"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame(0xC1, 12), "12-bit JPEG image; this kind cannot be read"),
        (frame(0xC3, 16), "lossless JPEG image; this kind cannot be read"),
        (frame(0xF7, 8), "JPEG-LS image; this kind cannot be read"),
        (b"P7\nWIDTH 1\nHEIGHT 1\n", "PAM image; this kind cannot be read"),
        (b"\xff\xd8\xff", "broken image, or an unusual one (it begins as JPEG)"),
        (b"\x89PNG\r\n\x1a\n", "broken image, or an unusual one (it begins as PNG)"),
        (b"GIF89a", "broken image, or an unusual one (it begins as GIF)"),
        (b"II*\0", "broken image (no table of tags that can be read)"),
        (b"II*\0\x08\0\0\0", "broken image (no table of tags that can be read)"),
        (b"hello", "not an image that can be read"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_named(data, said):
    assert message_of(data).startswith(f"x: {said}")


def test_png_without_its_palette():
    data = png(ramp(0, 1, np.uint8), 1, 3)
    assert message_of(data) == "x: broken image (no palette)"


# Large images


@pytest.fixture
def no_limit_left(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.mark.slow
def test_megapixels_that_are_allowed(no_limit_left, tmp_path):
    path = tmp_path / "x.png"
    rows = np.zeros((15_000, 15_000 // 8, 1), np.uint8)
    header = struct.pack(">IIBBBBB", 15_000, 15_000, 1, 0, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match=r"more than 178,956,970 pixels; .*--max_megapixels"):
        read_image(path, 8)
    allow_megapixels(230)
    assert not read_image(path, 8).any()
    assert os.environ[VARIABLE] == "230"
    os.environ[VARIABLE] = "200"
    with pytest.raises(InputError, match=r"more than 200,000,000 pixels"):
        read_image(path, 8)


@pytest.mark.parametrize("value", ["0", "-1", "many", "nan", "1e9"])
def test_megapixels_that_are_no_number(monkeypatch, no_limit_left, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InputError, match=f"{VARIABLE} must be .* Received: {value}"):
        decoded(png(good(), 8, 2))


def test_jpeg_counts_as_what_is_decoded(monkeypatch):
    monkeypatch.setattr("deep_ranking.images.limits.MAX_DECODING_BYTES", 6 * 80 * 80)
    whole = jpeg(busy())
    assert decode_with_notes(whole, 40, "x").pixels.shape == (80, 80, 3)
    with pytest.raises(InputError, match="would take more memory"):
        decode_with_notes(whole, 41, "x")
    # Of a progressive one, the coefficients of the whole image are in memory.
    progressive = jpeg(busy(), options=[cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    with pytest.raises(InputError, match="would take more memory"):
        decode_with_notes(progressive, 40, "x")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jpeg_2000_of_more_than_8_bits(bits, channels):
    writer = pytest.importorskip("imagecodecs")
    largest = (1 << bits) - 1
    samples = ramp(0, largest, channels=channels)
    if channels == 4:
        samples[..., 3] = largest
    shown = samples[..., 0] if channels == 1 else samples
    data = writer.jpeg2k_encode(shown, level=0, reversible=True, bitspersample=bits)
    assert_shows(data, samples[..., :3].repeat(3 // min(channels, 3), 2) * (255 / largest))


def test_large_jpeg_2000_is_reduced(monkeypatch):
    pixels = cv2.resize(good(), (512, 512))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", num_resolutions=6)
    whole = decode_with_notes(stream.getvalue(), 64, "x").pixels
    monkeypatch.setattr("deep_ranking.images.readers.jpeg_2000.LARGE_BYTES", 1)
    monkeypatch.setattr("deep_ranking.images.limits.MAX_DECODING_BYTES", 20 * 128 * 128)
    reduced = decode_with_notes(stream.getvalue(), 64, "x").pixels
    assert reduced.shape == (128, 128, 3)
    assert np.abs(reduced.astype(int) - whole).mean() < 4


# Files that once failed


@pytest.mark.real_data
def test_cases_that_once_failed(real_data):
    folder = Path(real_data) / "cases" / "images"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    for file in sorted(folder.iterdir()):
        if file.name.endswith(".expected.png"):
            continue
        expected = folder / f"{file.name}.expected.png"
        if not expected.exists():
            with pytest.raises(InputError, match="broken image"):
                read_image(file, 64)
            continue
        if file.name.startswith("iphone"):
            pytest.importorskip("pi_heif")
        tolerance = {".jfif": 12, ".avif": 12, ".jp2": 12, ".heic": 40, ".jpg": 40}
        allowed = 20 if file.name == "lab.tif" else tolerance.get(file.suffix, 3)
        with Image.open(expected) as image:
            due = np.asarray(image.convert("RGB"), int)
        assert np.abs(read_image(file, 64) - due).max() <= allowed, file.name
