"""The corpus of `torture.images` before the reader: right pixels, or one error with the name."""

import pytest
from PIL import Image
from torture import images

from deep_ranking.files import InputError
from deep_ranking.files.errors import printable
from deep_ranking.images import find_images, limits, open_header, read_image
from deep_ranking.images.readers import sample_range

CASES = list(images.cases(0, num_flips=45, parts=5, bombs=False))


pytestmark = pytest.mark.usefixtures("time_limit")


@pytest.mark.parametrize("case", CASES, ids=[ascii(case.name)[1:-1][:40] for case in CASES])
def test_right_pixels_or_one_error_with_the_name(tmp_path, case):
    path = tmp_path / case.name
    case.make(path)
    try:
        pixels = read_image(path, 32)
    except InputError as error:
        assert case.due != images.PIXELS
        assert str(error).startswith(f"{printable(str(path))}: ")
        assert len(str(error).splitlines()) == 1
    else:
        assert case.due != images.REFUSED
        assert case.colors is None or images.shows(pixels, case.colors)


def test_names_with_a_line_break_are_left_out_and_counted(tmp_path):
    for name in ("a\nb.png", "a\rb.png", "ab.png"):
        path = tmp_path / "class" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    listing = find_images(tmp_path)
    assert listing.paths == ["class/ab.png"]
    assert listing.left_out.num_unlistable == 2


@pytest.mark.parametrize(
    ("name", "mode", "per_pixel"),
    [("x.png", "RGB", 6), ("x.png", "RGBA", 9), ("x.jpg", "L", 6), ("x.jpg", "CMYK", 13),
     ("x.webp", "RGB", 17), ("x.tif", "RGB", 9), ("x.gif", "L", 6), ("x.bmp", "RGB", 12)],
)  # fmt: skip
def test_image_that_would_take_too_much_memory(tmp_path, monkeypatch, name, mode, per_pixel):
    path = tmp_path / name
    Image.new(mode, (50, 40)).save(path)
    monkeypatch.setattr(limits, "MAX_DECODING_BYTES", 2_000 * per_pixel)
    assert read_image(path, 40).shape == (40, 40, 3)
    monkeypatch.setattr(limits, "MAX_DECODING_BYTES", 2_000 * per_pixel - 1)
    message = r"2,000 pixels.*--max_megapixels 1 .*make it smaller first, to 1,999"
    with pytest.raises(InputError, match=message):
        read_image(path, 40)


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16"])
def test_large_image_is_converted_part_by_part_to_the_same_pixels(tmp_path, monkeypatch, mode):
    image = Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 60)
    image = image.convert("RGB").quantize(9) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "x.tif")
    whole = read_image(tmp_path / "x.tif", 40)
    monkeypatch.setattr(sample_range, "SAMPLES_AT_ONCE", 500)
    assert (read_image(tmp_path / "x.tif", 40) == whole).all()


def test_header_of_what_is_no_image(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"II*\0\xff\xff\xff\xff")
    with pytest.raises(InputError, match=r"x\.tif: "), open_header(tmp_path / "x.tif"):
        pass
