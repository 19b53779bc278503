import os

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from deep_ranking.datasets import read_folder
from deep_ranking.datasets.public import write_digits
from deep_ranking.files import InputError
from deep_ranking.images import find_images, read_image


def files_of(splits):
    """The files of each split, as class folder and number."""
    return {
        name: set(find_images(getattr(splits, name)).paths)
        for name in ("train", "held_back", "unseen")
    }


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits") / "new" / "folder")


def test_folders(digits):
    assert {digits.train.name, digits.held_back.name, digits.unseen.name} == set(
        os.listdir(digits.train.parent)
    )


def test_digits_7_to_9_are_the_unseen_classes(digits):
    assert read_folder(digits.train, splits=False).items.names == list("0123456")
    assert read_folder(digits.held_back, splits=False).items.names == list("0123456")
    assert read_folder(digits.unseen, splits=False).items.names == list("789")


def test_every_digit_is_in_one_split(digits):
    files = files_of(digits)
    numbers = [path[-8:-4] for paths in files.values() for path in paths]
    assert sorted(numbers) == [f"{number:04}" for number in range(1797)]
    # 1,251 digits are 0 to 6: a quarter is 313, with a standard deviation of 15.
    assert 260 < len(files["held_back"]) < 366


def test_pixels_and_classes_are_scikit_learns(digits):
    data = load_digits()
    for name, paths in files_of(digits).items():
        for path in sorted(paths)[::10]:
            digit, number = int(path.split("/")[0]), int(path[-8:-4])
            assert digit == data.target[number]
            with Image.open(getattr(digits, name) / path) as image:
                assert image.mode == "L"
                pixels = np.array(image)
            # 0 to 16 becomes 0 to 255.
            np.testing.assert_allclose(pixels, data.images[number] * 255 / 16, atol=0.5)
            assert (read_image(getattr(digits, name) / path, 8)[..., 0] == pixels).all()


@pytest.mark.slow
def test_seed_decides_what_is_held_back(digits, tmp_path):
    same, other = write_digits(tmp_path / "0", seed=0), write_digits(tmp_path / "1", seed=1)
    assert files_of(same) == files_of(digits)
    assert files_of(other)["held_back"] != files_of(digits)["held_back"]
    assert files_of(other)["unseen"] == files_of(digits)["unseen"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make this folder"):
        write_digits(tmp_path / "file")
