"""Hostile and odd image files: broken, lying, huge, rotated, and no files at all.

`cases` names them; each is made where it is wanted. What is whole shows a quarter of red, green,
blue and yellow each, so that any reader's pixels can be judged.
"""

import functools
import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, features

COLORS = np.array([[[230, 30, 30], [30, 200, 30]], [[30, 30, 230], [230, 220, 40]]], np.uint8)
GRAY = (COLORS @ [0.299, 0.587, 0.114])[..., None].repeat(3, -1)  # ITU-R 601
SIDES = (48, 64)  # height, width
TOLERANCE = 40  # levels; JPEG, CMYK and palettes change colours a little
ORIENTATION = 0x0112
PIXELS, REFUSED, EITHER = "pixels", "refused", "either"
PARTS = 50  # a file is cut after each of so many equal parts


@dataclass(frozen=True)
class Case:
    """A file that is to be read.

    Attributes:
        name: of the file, in a folder of its own or beside others.
        make: writes it to a path.
        due: PIXELS, REFUSED (one error that names the file), or EITHER.
        colors: (2, 2, 3), the quarters that pixels must show; None where only the damage decides.
        special: whether it is worth the time of a whole command.
        is_huge: whether it takes seconds to decode.
    """

    name: str
    make: Callable[[Path], object]
    due: str
    colors: np.ndarray | None = None
    special: bool = True
    is_huge: bool = False


def shows(pixels, colors):
    """Whether an image (size, size, 3) shows the quarters (2, 2, 3)."""
    size = len(pixels)
    places = np.array([size // 4, size - 1 - size // 4])
    found = pixels[np.ix_(places, places)].astype(float)
    return bool((np.abs(found - colors) <= TOLERANCE).all())


def cases(seed, *, num_flips=300, parts=PARTS, bombs=True) -> Iterator[Case]:
    """Give all cases; those of flipped bits follow from the seed."""
    yield from _whole()
    yield from _rotated()
    yield from _named()
    for extension, data in _plain().items():
        for part in range(1, PARTS, PARTS // parts):
            cut = data[: len(data) * part // PARTS]
            yield _case(f"cut-{part:02}.{extension}", cut, EITHER, COLORS, special=part in (1, 25))
    yield from _flipped(seed, num_flips)
    yield from _wrong()
    yield from no_files()
    if bombs:
        yield from _bombs()
        yield from _long_sides()


def _case(name, data, due, colors=None, special=True):
    return Case(name, lambda path: path.write_bytes(data), due, colors, special)


def quarters(size=SIDES):
    """Give the image (height, width, 3) that all whole files show."""
    height, width = size
    return COLORS.repeat(height // 2, 0).repeat(width // 2, 1)


def encoded(image, kind, **options):
    """Give an image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@functools.cache
def _plain():
    """A file of each format."""
    image = Image.fromarray(quarters())
    files = {
        "jpg": encoded(image, "JPEG", quality=95, subsampling=0),
        "png": encoded(image, "PNG"),
        "gif": encoded(image, "GIF"),
        "bmp": encoded(image, "BMP"),
        "ppm": encoded(image, "PPM"),
        "tif": encoded(image, "TIFF"),
        "webp": encoded(image, "WEBP", lossless=True),
    }
    if features.check("avif"):
        files["avif.webp"] = encoded(image, "AVIF", quality=90, speed=10)
    if features.check("jpg_2000"):
        files["jp2.png"] = encoded(image, "JPEG2000")
    return files


def _whole():
    """Whole images of every kind, with the right extension and with a wrong one."""
    image = Image.fromarray(quarters())
    black = Image.new("RGB", image.size)
    gray = image.convert("L")
    deep = np.asarray(gray, np.uint16) * 257
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    clear = image.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 32, 24))  # its red quarter: white is due
    white = COLORS.copy()
    white[0, 0] = 255
    palette = image.quantize(8)
    animated = {"save_all": True, "append_images": [black, black]}
    color = {
        "progressive.jpg": encoded(image, "JPEG", quality=95, progressive=True),
        "subsampled.jpg": encoded(image, "JPEG", quality=95, subsampling=2),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "cmyk.tif": encoded(image.convert("CMYK"), "TIFF"),
        "profile.jpg": encoded(image, "JPEG", quality=95, icc_profile=profile),
        "profile.png": encoded(image, "PNG", icc_profile=profile),
        "profile.webp": encoded(image, "WEBP", lossless=True, icc_profile=profile),
        "profile.tif": encoded(image, "TIFF", icc_profile=profile),
        "broken-profile.png": encoded(image, "PNG", icc_profile=b"\xff" * 999),
        "broken-profile.jpg": encoded(image, "JPEG", quality=95, icc_profile=b"\0" * 70_000),
        "huge-profile.png": encoded(image, "PNG", icc_profile=os.urandom(1) * 900_000),
        "huge-profile.jpg": encoded(image, "JPEG", quality=95, icc_profile=b"x" * 8_000_000),
        "palette.png": encoded(palette, "PNG"),
        "palette.bmp": encoded(palette, "BMP"),
        "palette.tif": encoded(palette, "TIFF"),
        "opaque.png": encoded(image.convert("RGBA"), "PNG"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": encoded(image, "TIFF", compression="packbits"),
        "jpeg.tif": encoded(image, "TIFF", compression="jpeg", quality=95),
        "animated.gif": encoded(image, "GIF", **animated),
        "animated.png": encoded(image, "PNG", **animated),
        "animated.webp": encoded(image, "WEBP", lossless=True, **animated),
        "pages.tif": encoded(image, "TIFF", **animated),
        "interlaced.gif": encoded(image, "GIF", interlace=1),
        "rest-behind.jpg": encoded(image, "JPEG", quality=95) + b"\0" * 5_000,
        "rest-behind.png": encoded(image, "PNG") + b"PK\3\4" * 5_000,
    }
    for name, data in color.items():
        yield _case(name, data, PIXELS, COLORS)
    for name, data in _plain().items():
        yield _case(f"whole.{name}", data, PIXELS, COLORS)
        yield _case(f"of-{name.split('.')[0]}.wrong.{'jpg' if name != 'jpg' else 'png'}", data,
                    PIXELS, COLORS)  # fmt: skip
    for name, data in {
        "gray.jpg": encoded(gray, "JPEG", quality=95),
        "gray.png": encoded(gray, "PNG"),
        "deep.png": encoded(Image.fromarray(deep), "PNG"),
        "deep.tif": encoded(Image.fromarray(deep), "TIFF"),
        "deep.ppm": b"P5 %d %d 65535\n" % image.size + deep.astype(">u2").tobytes(),
        "gray-alpha.png": encoded(image.convert("LA"), "PNG"),
    }.items():
        yield _case(name, data, PIXELS, GRAY)
    for name, data in {
        "clear.png": encoded(clear, "PNG"),
        "clear.webp": encoded(clear, "WEBP", lossless=True),
        "clear.tif": encoded(clear, "TIFF"),
        "clear-palette.png": encoded(clear.quantize(8), "PNG"),
        "clear.gif": encoded(clear, "GIF"),
    }.items():
        yield _case(name, data, PIXELS, white)
    two = np.zeros(SIDES, np.uint8)
    two[:, 32:] = 255
    sides = np.array([[[0] * 3, [255] * 3]] * 2)
    yield _case("two.png", encoded(Image.fromarray(two).convert("1"), "PNG"), PIXELS, sides)
    yield _case("two.tif", encoded(Image.fromarray(two).convert("1"), "TIFF"), PIXELS, sides)
    yield _case("float.tif", encoded(Image.fromarray(two.astype(np.float32)), "TIFF"), REFUSED)
    yield _case("one-pixel.png", encoded(Image.new("RGB", (1, 1), "red"), "PNG"), PIXELS,
                np.array([[[255, 0, 0]] * 2] * 2))  # fmt: skip


def _rotated():
    """Images that lie as EXIF says; upright they show the quarters."""
    upright = quarters()
    lying = {  # what the camera saw, by the value
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    kinds = {"jpg": ("JPEG", {"quality": 95}), "png": ("PNG", {}), "tif": ("TIFF", {}),
             "webp": ("WEBP", {"lossless": True})}  # fmt: skip
    for value, pixels in lying.items():
        image = Image.fromarray(np.ascontiguousarray(pixels))
        exif = Image.Exif()
        exif[ORIENTATION] = value
        for extension, (kind, options) in kinds.items():
            data = encoded(image, kind, exif=exif, **options)
            yield _case(f"exif-{value}.{extension}", data, PIXELS, COLORS, special=value == 6)
    image = Image.fromarray(upright)
    loop = b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0"  # its directory is followed by itself
    loop_of_sub = (
        b"Exif\0\0II*\0\x08\0\0\0\x01\0"
        + struct.pack("<HHII", 0x8769, 4, 1, 8)  # the EXIF directory is the first one again
        + b"\0\0\0\0"
    )
    for name, exif in {
        "loop": loop,
        "loop-below": loop_of_sub,
        "cut": b"Exif\0\0II*\0\x08\0",
        "noise": b"Exif\0\0" + bytes(range(256)) * 8,
        "far": b"Exif\0\0II*\0\xff\xff\xff\x7f",
        "many": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\1\3\0\xff\xff\xff\xff\1\0\0\0" * 5_000,
    }.items():
        data = encoded(image, "JPEG", quality=95, exif=exif[:65_000])
        yield _case(f"exif-{name}.jpg", data, EITHER, COLORS)
        yield _case(f"exif-{name}.png", encoded(image, "PNG", exif=exif), EITHER, COLORS)
    odd = Image.Exif()
    odd[ORIENTATION] = 9
    yield _case("exif-9.jpg", encoded(image, "JPEG", quality=95, exif=odd), PIXELS, COLORS)


def _named():
    """Names with every byte that a file system takes, but for line breaks."""
    data = _plain()["png"]
    legal = [bytes([code]) for code in range(1, 256) if code not in b"/\n\r"]
    for begin in range(0, len(legal), 64):
        name = os.fsdecode(b"n" + b"".join(legal[begin : begin + 64]) + b".png")
        yield _case(name, data, PIXELS, COLORS)
    yield _case("-" + "n" * 240 + ".png", data, PIXELS, COLORS)


def _flipped(seed, count):
    random = np.random.default_rng([seed, 7])
    files = list(_plain().items())
    for number in range(count):
        extension, data = files[number % len(files)]
        signs = np.frombuffer(data, np.uint8).copy()
        # Half of them near the front, where the headers are.
        end = len(signs) if number % 2 else min(len(signs), 100)
        places = random.integers(0, end, 1 + number % 5)
        signs[places] ^= (1 << random.integers(0, 8, len(places))).astype(np.uint8)
        data = signs.tobytes()
        yield _case(f"flip-{number:04}.{extension}", data, EITHER, special=number % 60 == 0)


def _wrong():
    """What is no image at all, or lies about what it is."""
    for name, data in {
        "empty.jpg": b"",
        "empty.png": b"",
        "zeros.jpg": bytes(10_000),
        "text.png": b"<html>404 not found</html>\n",
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "archive.gif": gzip.compress(bytes(99)),
        "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "loop-of-two.tif": b"II*\0\x08\0\0\0\0\0\x0e\0\0\0\0\0\x08\0\0\0",
        "far.tif": b"II*\0\xff\xff\xff\xff" + bytes(99),
        "no-size.png": _png(0, 0, b""),
        "no-data.png": _png(64, 48, b""),
        "no-size.gif": b"GIF89a" + bytes(7) + b";",
        "no-size.ppm": b"P6 0 0 255\n",
        "minus.bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, -9, 9, 1, 24, *[0] * 6),
    }.items():
        yield _case(name, data, REFUSED)
    tags = b"".join(struct.pack("<HHII", tag, 4, 0xFFFFFFFF, 8) for tag in range(254, 500))
    yield _case("tags.tif", b"II*\0\x08\0\0\0\xf6\0" + tags + bytes(4), REFUSED)


def no_files():
    """What has the name of an image, and is none."""
    yield Case("fifo.jpg", os.mkfifo, REFUSED)
    yield Case("zero.png", lambda path: path.symlink_to("/dev/zero"), REFUSED)
    yield Case("random.png", lambda path: path.symlink_to("/dev/urandom"), REFUSED)
    yield Case("nowhere.png", lambda path: path.symlink_to("not there"), REFUSED)
    yield Case("itself.png", lambda path: path.symlink_to(path.name), REFUSED)
    yield Case("folder.png", Path.mkdir, REFUSED)
    yield Case("hole.jpg", lambda path: (path.touch(), os.truncate(path, 1 << 40)), REFUSED)
    yield Case("process.jpg", lambda path: path.symlink_to("/proc/self/status"), REFUSED)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, data, *, kind=2, depth=8, more=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    begin = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more
    return begin + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _zeros(count):
    """Compress so many zero bytes, some at a time."""
    packer = zlib.compressobj(1)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count % (1 << 20))), packer.flush()])


def _bombs():
    """Small files that are, or say that they are, huge."""
    image = Image.fromarray(quarters())
    # Just below the most pixels that are decoded, in modes that take the most memory.
    for name, kind, channels in (("color", 2, 3), ("gray", 0, 1), ("clear", 6, 4)):
        for side, due in ((13_000, EITHER), (14_000, REFUSED)):

            def make(path, kind=kind, channels=channels, side=side):
                path.write_bytes(_png(side, side, _zeros((1 + channels * side) * side), kind=kind))

            yield Case(f"bomb-{name}-{side}.png", make, due, is_huge=True)
    for name, text in {
        "zTXt": b"key\0\0" + _zeros(200 << 20),
        "iTXt": b"key\0\1\0\0\0" + _zeros(200 << 20),
        "iCCP": b"key\0\0" + _zeros(200 << 20),
    }.items():
        data = encoded(image, "PNG")
        whole = data[:33] + _chunk(name.encode(), text) + data[33:]
        yield _case(f"bomb-{name}.png", whole, EITHER, COLORS)
    info = PngImagePlugin.PngInfo()
    for number in range(20_000):
        info.add_text(f"key{number}", "x")
    yield _case("texts.png", encoded(image, "PNG", pnginfo=info), EITHER, COLORS)
    for extension, width, height, due in (
        ("gif", 65_535, 65_535, REFUSED),
        ("gif", 65_535, 2_700, EITHER),  # 177 million
        ("webp", 16_383, 16_383, REFUSED),
        ("webp", 13_000, 13_000, EITHER),
        ("tif", 60_000, 60_000, REFUSED),
        ("tif", 13_000, 13_000, EITHER),
        ("bmp", 60_000, 60_000, REFUSED),
        ("ppm", 60_000, 60_000, REFUSED),
        ("jpg", 65_500, 65_500, REFUSED),
    ):
        data = _claiming(extension, width, height)
        name = f"claims-{width}x{height}.{extension}"
        yield Case(name, functools.partial(Path.write_bytes, data=data), due, is_huge=True)
    frame = _plain()["gif"]
    place = frame.index(b",", 13 + 3 * 2 ** ((frame[10] & 7) + 1))
    frames = frame[:place] + frame[place:-1] * 20_000 + b";"
    yield _case("frames.gif", frames, PIXELS, COLORS)
    frames = [image, Image.new("RGB", image.size)] * 500
    for kind, extension in (("PNG", "png"), ("WEBP", "webp")):
        data = encoded(image, kind, save_all=True, append_images=frames[1:], lossless=True)
        yield _case(f"frames.{extension}", data, PIXELS, COLORS)


def _claiming(extension, width, height):
    if extension == "gif":  # a canvas, and a frame of 1 pixel
        head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        return head + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\0;"
    if extension == "webp":  # an animation's canvas, and a frame of an image
        data = _plain()["webp"][12:]
        frame = bytes(6) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little") + bytes(4) + data
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = b"".join(
            name + struct.pack("<I", len(each)) + each + bytes(len(each) % 2)
            for name, each in (
                (b"VP8X", b"\x02\0\0\0" + size),
                (b"ANIM", bytes(6)),
                (b"ANMF", frame),
            )
        )
        return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    if extension == "tif":  # one strip, compressed
        data = _zeros(width * height) if width * height < 1 << 28 else b"\x78\x9c"
        tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: height,
                279: len(data)}  # fmt: skip
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        directory = struct.pack("<H", len(tags)) + entries + bytes(4)
        return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory
    if extension == "bmp":
        sizes = (54, 0, 54, 40, width, height, 1, 24, *[0] * 6)
        return b"BM" + struct.pack("<IIIIiiHHIIIIII", *sizes)
    if extension == "ppm":
        return b"P6 %d %d 255\n" % (width, height)
    data = bytearray(_plain()["jpg"])
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _long_sides():
    """Real images of 1 pixel by 30,000, and of 30,000 by 5,000."""
    for width, height in ((1, 30_000), (30_000, 1), (30_000, 5_000), (5_000, 30_000)):
        for extension in ("png", "jpg"):

            def make(path, size=(width, height)):
                kind = "PNG" if path.suffix == ".png" else "JPEG"
                Image.new("RGB", size, (230, 30, 30)).save(path, kind)

            red = np.broadcast_to(COLORS[0, 0], (2, 2, 3))
            is_huge = min(width, height) > 1
            yield Case(f"{width}x{height}.{extension}", make, PIXELS, red, is_huge=is_huge)
