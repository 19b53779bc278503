import json

import numpy as np
import pytest
from PIL import Image

from deep_ranking.cli.main import main
from deep_ranking.datasets import statistics
from deep_ranking.datasets.statistics import dataset_statistics
from deep_ranking.images import read_image, reading

SIZES = {"train/a": [(5, 4), (9, 7), (300, 200)], "train/b": [(8, 8)], "unseen/c": [(6, 3), (7, 7)]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """PNG files, whose pixels are known, of different sizes and colours."""
    root, rng, pixels = tmp_path_factory.mktemp("statistics"), np.random.default_rng(0), {}
    for folder, sizes in SIZES.items():
        (root / folder).mkdir(parents=True)
        for number, (width, height) in enumerate(sizes):
            tint = np.array([250, 120, 10]) // (number + 1)
            image = rng.integers(0, tint + 1, (height, width, 3)).astype(np.uint8)
            path = f"{folder}/{number}.png"
            Image.fromarray(image).save(root / path)
            pixels[path] = image
    return root, pixels


def by_numpy(images):
    """Mean and standard deviation of all pixels together, in floating point."""
    rows = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    return rows.mean(axis=0), rows.std(axis=0)


def test_mean_and_std_are_those_of_all_pixels(dataset, monkeypatch):
    root, pixels = dataset
    monkeypatch.setattr(statistics, "PIXELS_AT_ONCE", 1000)  # the largest image takes several
    monkeypatch.setattr(reading, "IMAGES_AT_ONCE", 2)
    found = dataset_statistics(root)
    assert [each.split for each in found] == ["train", "unseen"]
    for each in found:
        images = [image for path, image in pixels.items() if path.startswith(each.split)]
        mean, std = by_numpy(images)
        np.testing.assert_allclose(each.mean, mean, atol=1e-12)
        np.testing.assert_allclose(each.std, std, atol=1e-12)
        assert each.num_pixels == sum(image.size // 3 for image in images)


def test_at_a_size_each_image_counts_the_same(dataset):
    root, _ = dataset
    [found] = dataset_statistics(root / "train", image_size=16)
    images = [read_image(path, 16) for path in sorted((root / "train").rglob("*.png"))]
    mean, std = by_numpy(images)
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)
    np.testing.assert_allclose(found.std, std, atol=1e-12)
    assert found.split is None and list(found.widths) == [5, 9, 300, 8]


def test_large_jpegs_are_not_shrunk(tmp_path):
    """They are decoded smaller for everything else."""
    (tmp_path / "a").mkdir()
    board = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((80, 80))) * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a" / "1.jpg", quality=95)
    [found] = dataset_statistics(tmp_path)
    assert found.num_pixels == 640 * 640
    np.testing.assert_allclose(found.std, 0.5, atol=0.01)


def test_counts_kinds_and_sizes(tmp_path, dataset):
    for number, (mode, name) in enumerate(
        [
            ("RGB", "a/1.jpg"),
            ("L", "a/2.jpg"),
            ("P", "a/3.gif"),
            ("RGBA", "b/1.png"),
            ("CMYK", "b/x/2.jpg"),
        ]
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (10 + number, 20 + number)).save(path)
    (tmp_path / "outside.jpg").touch()
    [found] = dataset_statistics(tmp_path)
    assert found.images_per_class == {"a": 3, "b": 2}
    assert found.formats == {"JPEG": 3, "GIF": 1, "PNG": 1}
    assert found.modes == {"RGB": 1, "L": 1, "P": 1, "RGBA": 1, "CMYK": 1}
    assert found.num_bytes == sum(
        path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()
    )
    summary = found.as_json()
    assert summary["width"] == {"min": 10, "median": 12, "max": 14}
    assert summary["height"] == {"min": 20, "median": 22, "max": 24}
    assert summary["images_per_class_summary"] == {"min": 2, "median": 2.5, "max": 3}


def test_broken_images_are_counted_and_named(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    image = Image.fromarray(np.full((4, 4, 3), (255, 51, 0), np.uint8))
    for number in range(2):
        image.save(tmp_path / "a" / f"{number}.png")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    for number in range(12):
        (tmp_path / "a" / f"broken {number:02}.png").write_bytes(whole[:40])
    assert main(["dataset", "stats", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "12 images cannot be read:" in said and "and 2 more, which --json lists" in said
    assert "\n    a/broken 09.png: " in said and "a/broken 10.png" not in said
    assert said.splitlines()[-1] == f"{tmp_path}: 14 images, 12 broken images"
    assert "mean, RGB       1.0000  0.2000  0.0000" in said
    assert main(["dataset", "stats", str(tmp_path), "--json"]) == 0
    [split] = json.loads(capsys.readouterr().out)["splits"]
    assert [each["path"] for each in split["broken"]] == [f"a/broken {n:02}.png" for n in range(12)]
    assert split["num_broken"] == 12 and split["num_images"] == 14
    assert all(str(tmp_path) not in each["problem"] for each in split["broken"])
    np.testing.assert_allclose(split["mean"], [1, 0.2, 0], atol=1e-12)
    np.testing.assert_allclose(split["std"], [0, 0, 0], atol=1e-12)


def test_folders_without_a_readable_image(tmp_path, capsys):
    assert main(["dataset", "stats", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert main(["dataset", "stats", str(tmp_path)]) == 1
    assert "no image in it" in capsys.readouterr().err
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"no image")
    assert main(["dataset", "stats", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "no image can be read, of 1" in captured.err and captured.err.count("\n") == 1


def test_a_folder_with_more_than_splits_is_one_of_classes(tmp_path, write_colors):
    write_colors(tmp_path / "x", classes=("train", "ship"), images=1)
    [found] = dataset_statistics(tmp_path / "x")
    assert found.split is None and list(found.images_per_class) == ["ship", "train"]


def test_a_split_without_images(tmp_path, capsys, write_colors):
    write_colors(tmp_path / "train", classes=("a",), images=1)
    (tmp_path / "val").mkdir()
    [found] = dataset_statistics(tmp_path)
    assert found.split == "train" and found.images_per_class == {"a": 1}
    assert main(["dataset", "stats", str(tmp_path)]) == 0
    assert "1 folder without images (val)" in capsys.readouterr().out
