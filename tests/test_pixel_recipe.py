"""The text of Python that an export carries makes the pixels of `read_image` on its own."""

import ast
from pathlib import Path

import numpy as np
import pytest
from image_bytes import png
from PIL import Image, ImageCms

from deep_ranking.embedding.export.pixel_recipe import (
    CODE,
    LARGEST_DIFFERENCES,
    MODULES,
    pixel_recipe,
    recipe_path,
)
from deep_ranking.images import read_image

SIZE = 48
PLAIN, TURNED = LARGEST_DIFFERENCES.values()
# Smaller than it is shown, slightly larger, and where JPEG is decoded to a half and to an eighth;
# a narrow one is shrunk along one side.
SHAPES = [(31, 40), (101, 77), (203, 331), (801, 900), (33, 700)]


@pytest.fixture(scope="module")
def image_to_pixels():
    """The function of the recipe, as a user runs it."""
    names = {}
    exec(pixel_recipe(SIZE)["python"], names)
    return names["image_to_pixels"]


def photo(shape, channels=3, seed=0):
    """Slow changes, noise, and edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    waves = [np.sin(9 * (k + 1) * x + k) + np.cos(7 * (k + 2) * y) for k in range(channels)]
    pixels = 128 + 50 * np.stack(waves, -1) + rng.normal(0, 12, (*shape, channels))
    pixels[shape[0] // 4 : shape[0] // 2, shape[1] // 3 :: 7] = rng.uniform(0, 255, channels)
    return pixels.clip(0, 255).astype(np.uint8)


def difference(image_to_pixels, path, size=SIZE):
    found, expected = image_to_pixels(path, size), read_image(path, size)
    assert found.shape == expected.shape and found.dtype == np.uint8
    return int(np.abs(found.astype(int) - expected).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_colour_images_of_all_sizes(image_to_pixels, tmp_path, shape, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(photo(shape)).save(path)
    assert difference(image_to_pixels, path) <= PLAIN


@pytest.mark.parametrize("shape", SHAPES[2:4])
@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_of_all_kinds(image_to_pixels, tmp_path, shape, options):
    Image.fromarray(photo(shape)).save(tmp_path / "a.jpg", **options)
    assert difference(image_to_pixels, tmp_path / "a.jpg") <= PLAIN
    Image.fromarray(photo(shape)[..., 0]).save(tmp_path / "gray.jpg", **options)
    assert difference(image_to_pixels, tmp_path / "gray.jpg") <= PLAIN


def test_jpeg_in_cmyk(image_to_pixels, tmp_path):
    for shape in SHAPES:
        Image.fromarray(photo(shape)).convert("CMYK").save(tmp_path / "a.jpg")
        assert difference(image_to_pixels, tmp_path / "a.jpg") <= TURNED


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_turned_by_exif(image_to_pixels, tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    for shape in ((203, 331), (90, 40)):
        Image.fromarray(photo(shape)).save(path, exif=exif)
        assert difference(image_to_pixels, path) <= TURNED


def with_palette(**options):
    return lambda path: Image.fromarray(photo((203, 231))).quantize(32).save(path, **options)


def white_drawing(path):
    pixels = np.full((90, 80, 4), 255, np.uint8)
    pixels[..., 3] = 0
    pixels[20:60, 10:70, 3] = 255
    Image.fromarray(pixels).save(path)


def faint(path):
    pixels = np.full((90, 80, 4), 255, np.uint8)
    pixels[20:60, 10:70, 3] = 150
    Image.fromarray(pixels).save(path)


KINDS = {
    "alpha": lambda path: Image.fromarray(photo((203, 231), 4)).save(path),
    "gray and alpha": lambda path: Image.fromarray(photo((203, 231), 2)).save(path),
    "white drawing on nothing": white_drawing,
    "white, partly half transparent": faint,
    "nothing": lambda path: Image.new("RGBA", (70, 60)).save(path),
    "gray": lambda path: Image.fromarray(photo((203, 231))[..., 0]).save(path),
    "1 bit": lambda path: Image.fromarray(photo((203, 231))).convert("1").save(path),
    "palette": with_palette(),
    "transparent palette": with_palette(transparency=3),
    "transparent colour": lambda path: path.write_bytes(
        png(photo((50, 60)) & 0xF0, 8, 2, transparency=b"\0\x80\0\x80\0\x80")
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_png_of_all_kinds(image_to_pixels, tmp_path, kind):
    KINDS[kind](tmp_path / "a.png")
    for size in (SIZE, 160):
        assert difference(image_to_pixels, tmp_path / "a.png", size) <= PLAIN


def test_the_first_frame_of_a_gif(image_to_pixels, tmp_path):
    frames = [Image.fromarray(photo((80, 90), seed=seed)).quantize(32) for seed in (1, 2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert difference(image_to_pixels, tmp_path / "a.gif") <= PLAIN


def other_profile():
    """A profile of another colour space, under another name: sRGB with green in place of red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    changed = bytearray(profile.replace(b"\0s\0R\0G\0B", b"\0o\0t\0h\0r"))
    red, green = (profile.find(tag) + 4 for tag in (b"rXYZ", b"gXYZ"))
    changed[red : red + 4] = changed[green : green + 4]  # where its numbers are
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_colour_profiles_are_converted(image_to_pixels, tmp_path, suffix):
    plain, other = tmp_path / f"plain{suffix}", tmp_path / f"other{suffix}"
    image = Image.fromarray(photo((203, 331)))
    image.save(plain)
    image.save(other, icc_profile=other_profile())
    assert difference(image_to_pixels, other) <= PLAIN
    changed = np.abs(image_to_pixels(plain, SIZE).astype(int) - image_to_pixels(other, SIZE))
    assert changed.max() > 30
    image.convert("L").save(other, icc_profile=other_profile())
    assert difference(image_to_pixels, other) <= PLAIN


def test_deep_gray_is_refused(image_to_pixels, tmp_path):
    Image.fromarray(photo((50, 60))[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        image_to_pixels(tmp_path / "a.png", SIZE)


@pytest.mark.parametrize("resampling", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_resizing_by_pillow_gives_other_pixels(image_to_pixels, tmp_path, resampling):
    """What the guide warns of: it is no recipe for these models."""
    path = tmp_path / "a.png"
    Image.fromarray(photo((101, 77))).save(path)
    with Image.open(path) as image:
        resized = np.asarray(image.resize((SIZE, SIZE), resampling)).astype(int)
    differences = np.abs(resized - read_image(path, SIZE))
    assert differences.max() > 40 and differences.mean() > 3


def test_the_recipe_needs_nothing_of_this_package():
    homes = {"cv2": "opencv-python-headless>=5", "numpy": "numpy", "PIL": "pillow"}
    imported = set()
    for node in ast.walk(ast.parse(CODE)):
        if isinstance(node, ast.Import):
            imported |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {homes[name] for name in imported - {"io", "typing"}} == set(MODULES)


def test_the_line_of_use_makes_a_batch(image_to_pixels, tmp_path):
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        Image.fromarray(photo((60, 70), seed=seed)).save(path)
    names = {"image_to_pixels": image_to_pixels, "np": np, "paths": paths}
    exec(pixel_recipe(SIZE)["use"], names)
    assert names["pixels"].shape == (3, SIZE, SIZE, 3) and names["pixels"].dtype == np.float32
    np.testing.assert_allclose(names["pixels"][2], read_image(paths[2], SIZE), atol=PLAIN)


def test_no_two_exports_share_a_file_of_the_recipe():
    names = ("m", "m.onnx", "m.tflite", "m.pixels", "other/m")
    assert len({recipe_path(Path(name)) for name in names}) == len(names)
    assert recipe_path(Path("a/m.onnx")) == Path("a/m.onnx.pixels.json")


def test_the_guide_shows_the_recipe():
    page = Path(__file__).parents[1] / "docs" / "guides" / "export.md"
    shown = "".join(f"    {line}" if line.strip() else line for line in CODE.splitlines(True))
    assert shown in page.read_text(encoding="utf-8")
