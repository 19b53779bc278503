"""Which places make two images alike, by engines whose answer is known."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from served import CornerEngine, StubEngine, make_served, write_photos

from deep_ranking.cli.main import run_command
from deep_ranking.embedding.embedder import Embedder
from deep_ranking.files import InputError
from deep_ranking.reports.heat_picture import HEIGHT, heat_over, heat_pictures
from deep_ranking.reports.occlusion import GRID, covered_images, explain_by_occlusion, occlusion

SIZE = 56  # 8 pixels a place


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def looks_at(top, left, side=16):
    """An engine that sees the pixels of one square alone, beside a constant."""

    def embed(images):
        seen = np.stack(images)[:, top : top + side, left : left + side].astype(np.float64)
        centred = seen.reshape(len(images), -1) / 255 - 0.5
        return unit(np.concatenate([centred, np.full((len(images), 1), 0.1)], axis=1))

    return embed


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize(("top", "left", "words"), [
    (0, 0, "the upper left"), (0, 40, "the upper right"), (40, 0, "the lower left"),
    (20, 20, "the middle"), (20, 40, "the right side"), (0, 20, "the top"),
])  # fmt: skip
def test_heat_is_where_the_engine_looks(noise, top, left, words):
    found = occlusion(looks_at(top, left), noise, noise)
    middles = (np.arange(GRID) + 0.5) * SIZE / GRID
    # The patch around a cell reaches 8 pixels from its middle, and its soft edge 2.3 more.
    reach = 8 + 2.3
    near = [(middles > begin - reach) & (middles < begin + 16 + reach) for begin in (top, left)]
    sees = np.outer(*near)
    for number in (0, 1):
        assert found.heat[number][~sees].max() < 1e-5
        assert found.heat[number].max() == 1
        said = f"{words[0].upper()}{words[1:]} counts most: with it covered, the likeness falls"
        assert found.words(number).startswith(f"{said} from 1.00 to 0.")


def test_drops_are_those_of_a_loop(noise):
    """Each place covered by hand, and embedded alone."""
    other = np.roll(noise, 3, axis=0) // 2 + 40
    embed = looks_at(8, 16, 24)
    found = occlusion(embed, noise, other)
    rows = [embed([each])[0].astype(np.float64) for each in (noise, other)]
    assert found.cosine == pytest.approx(rows[0] @ rows[1], abs=1e-7)
    assert found.distance == pytest.approx(np.linalg.norm(rows[0] - rows[1]), abs=1e-7)
    for number, image in enumerate((noise, other)):
        covered = covered_images(image)
        for cell in range(GRID * GRID):
            row = embed([covered[cell]])[0].astype(np.float64)
            drop = found.cosine - row @ rows[1 - number]
            assert found.drops[number].flat[cell] == pytest.approx(drop, abs=1e-7)


def test_covering_the_hottest_place_in_another_way_lowers_the_cosine_most():
    """Plain grey squares in place of the soft blurred ones: the hottest place stays the same."""
    rng = np.random.default_rng(1)
    image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    image[5:19, 29:43] = rng.integers(0, 256, (14, 14, 3))

    def embed(images):
        pixels = np.stack(images).astype(np.float64).reshape(len(images), -1) / 255 - 0.5
        return unit(np.concatenate([pixels, np.full((len(images), 1), 2.0)], axis=1))

    found = occlusion(embed, image, image)
    hottest = np.unravel_index(found.heat[0].argmax(), (GRID, GRID))
    cosines = {}
    for row in range(GRID):
        for column in range(GRID):
            grey = image.copy()
            grey[max(0, row * 8 - 4) : row * 8 + 12, max(0, column * 8 - 4) : column * 8 + 12] = 128
            cosines[row, column] = float(embed([grey])[0] @ embed([image])[0])
    assert min(cosines, key=cosines.get) == hottest == (1, 4)


def test_swapping_the_images_swaps_the_result(noise):
    embed = looks_at(0, 0, 40)
    other = noise[::-1].copy()
    one, swapped = occlusion(embed, noise, other), occlusion(embed, other, noise)
    np.testing.assert_array_equal(one.drops, swapped.drops[::-1])


def test_covers_are_soft_and_leave_plain_places_as_they_are(noise):
    plain = np.full((SIZE, SIZE, 3), 200, np.uint8)
    assert all((each == plain).all() for each in covered_images(plain))
    covered = covered_images(noise)
    assert len(covered) == GRID * GRID
    changed = np.stack([(each != noise).any(axis=-1) for each in covered])
    assert changed.any(axis=0).all()  # every pixel is covered by some patch
    for number, each in enumerate(changed):
        rows, columns = np.nonzero(each)
        for pixels, cell in ((rows, number // GRID), (columns, number % GRID)):
            assert pixels.min() >= max(0, cell * 8 - 7) and pixels.max() < cell * 8 + 8 + 7


def test_what_sets_them_apart_is_said_and_has_no_heat(noise):
    """The left halves are equal; the lower right corners are opposites."""
    other = noise.copy()
    other[40:, 40:] = 255 - other[40:, 40:]

    def embed(images):
        pixels = np.stack(images).astype(np.float64) / 255 - 0.5
        parts = [pixels[:, :16, :16], pixels[:, 40:, 40:]]
        rows = [each.reshape(len(images), -1) for each in parts]
        return unit(np.concatenate([*rows, np.full((len(images), 1), 12.0)], axis=1))

    found = occlusion(embed, noise, other)
    assert found.drops[0, 6, 6] < -0.01 and found.heat[0, 6, 6] == 0
    assert "The lower right sets them apart: with it covered, the likeness rises" in found.words(0)
    assert found.words(0).startswith("The upper left counts most")


def test_what_counts_little_is_said(noise):
    sees = looks_at(0, 0)

    def embed(images):
        """A corner that is a small part of the row."""
        return unit(np.concatenate([sees(images), np.full((len(images), 1), 5.0)], axis=1))

    found = occlusion(embed, noise, noise)
    assert 0.01 < found.drops[0].max() < 0.04 and found.heat[0].max() == 1
    assert found.words(0).startswith("No place counts much, the upper left most: with it covered")


def test_nothing_to_show_is_said(noise):
    found = occlusion(lambda images: unit(np.ones((len(images), 4))), noise, noise)
    assert not found.heat.any()
    assert found.words(1) == (
        "No place counts alone: whatever is covered, the likeness stays near 1.00."
    )
    assert repr(found).splitlines()[2] == f"image 1: {found.words(0)}"


def test_heat_that_is_everywhere_is_said(noise):
    def embed(images):
        pixels = np.stack(images).astype(np.float64).reshape(len(images), -1) / 255 - 0.5
        return unit(pixels)

    assert occlusion(embed, noise, noise).words(0).startswith("Most of it counts, above all the")


def test_rows_that_are_not_finite_are_refused(noise):
    with pytest.raises(InputError, match="not finite"):
        occlusion(lambda images: np.full((len(images), 4), np.nan, np.float32), noise, noise)


def stub_model(folder, patch, engine):
    """The model of a collection, with another engine; and two images with one corner in common."""
    write_photos(folder / "photos")
    embedder = make_served(folder / "index", folder / "photos").embedder
    patch.setattr(Embedder, "engine", lambda *_: engine())
    patch.setattr(Embedder, "image_size", StubEngine.image_size)
    for name, colour in (("a.png", (200, 40, 40)), ("b.png", (180, 60, 40))):
        pixels = np.full((30, 50, 3), colour, np.uint8)
        pixels[:10, :16] = np.random.default_rng(0).integers(0, 256, (10, 16, 3))
        Image.fromarray(pixels).save(folder / name)
    return embedder


def test_a_model_file_is_opened_and_its_engine_called(tmp_path, monkeypatch):
    calls = []

    class Counted(StubEngine):
        batch_size = 64

        def embed(self, images):
            calls.append(len(images))
            return super().embed(images)

    model = stub_model(tmp_path, monkeypatch, Counted)
    found = explain_by_occlusion(model, tmp_path / "a.png", tmp_path / "b.png")
    assert found.drops.shape == (2, GRID, GRID) and 0.9 < found.cosine < 1
    assert sum(calls) == 2 * (1 + GRID * GRID) and max(calls) <= 64


@pytest.mark.slow
def test_no_tensorflow_and_no_matplotlib_is_imported():
    program = (
        "import sys, deep_ranking.reports.occlusion, deep_ranking.reports.heat_picture\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert found.stdout == "[]\n"


def test_heat_over_a_picture():
    picture = np.full((70, 140, 3), (250, 10, 10), np.uint8)
    picture[50:60] = 0
    heat = np.zeros((GRID, GRID))
    heat[0, 6] = 1
    drawn = heat_over(picture, heat).astype(int)
    assert (np.ptp(drawn[50:, :70], axis=-1) == 0).all()  # grey where there is no heat
    assert drawn[55, 10, 0] == 0 < drawn[65, 10, 0]
    y, x = np.unravel_index(drawn[..., 0].argmax(), drawn.shape[:2])
    assert y < 10 and x > 120
    assert drawn[y, x, 0] - drawn[y, x, 2] > 80  # warm


def test_pictures_stand_side_by_side():
    wide, tall = np.zeros((100, 400, 3), np.uint8), np.zeros((960, 240, 3), np.uint8)
    drawn = heat_pictures([wide, tall], np.zeros((2, GRID, GRID)))
    assert drawn.shape == (HEIGHT, 960 + 16 + 120, 3)
    assert (drawn[:, 960:976] == 255).all() and (drawn[HEIGHT // 2, 0] == 0).all()
    assert (drawn[0, 0] == 255).all()  # above the wide one


def test_the_command_draws_and_prints_the_places(tmp_path, monkeypatch, capsys):
    model = stub_model(tmp_path, monkeypatch, CornerEngine).path
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    given = ["-m", model, "-i1", files[0], "-i2", files[1], "--method", "occlusion"]

    def run(*others):
        return run_command("explain", list(map(str, [*given, *others])), prog="explain")

    assert run("-o", tmp_path / "x.jpg") == 0
    found = explain_by_occlusion(model, *files)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{found}\nPicture in {tmp_path / 'x.jpg'}\n")
    assert "The upper left counts most" in printed
    with Image.open(tmp_path / "x.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (800 + 16 + 800, 480))
    assert run("-o", tmp_path / "x.png", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cosine"] == found.cosine and told["image2"]["file"] == str(files[1])
    np.testing.assert_array_equal(told["image1"]["heat"], found.heat[0])
    np.testing.assert_array_equal(told["image2"]["drops"], found.drops[1])
    assert run("-o", tmp_path / "x.pdf") == 1
    assert "must end in one of .png, .jpg, .jpeg, .tif, .tiff, .webp" in capsys.readouterr().err
