import json

import numpy as np
import pytest

from deep_ranking.config import TrainConfig
from deep_ranking.files import InputError
from deep_ranking.training.data import read_run_images
from deep_ranking.training.resuming import read_settings


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Ten classes of 3 to 12 images."""
    root = tmp_path_factory.mktemp("folders")
    for number in range(10):
        for image in range(3 + number):
            path = root / f"class {number}" / f"{image:02}.png"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    return root


def config(dataset, **options):
    return TrainConfig(batches="classes", dataset=dataset, **options)


def paths_and_classes(data):
    return ([], []) if data is None else (data.files(), data.classes_of_images())


def trained_on(config):
    return paths_and_classes(read_run_images(config).trained)


def held_back(config):
    return paths_and_classes(read_run_images(config).validated)


def test_all_images_train_where_nothing_is_held_back(folders):
    paths, labels = trained_on(config(folders))
    assert paths == sorted(str(path) for path in folders.glob("*/*.png"))
    assert labels.tolist() == [path.split("/")[-2] for path in paths]
    assert held_back(config(folders))[0] == []


@pytest.mark.parametrize("share", [0.01, 0.3, 0.8])
def test_whole_classes_are_held_back(folders, share):
    splits = []
    for seed in (0, 1, 7):
        settings = config(folders, validation_share=share, seed=seed)
        kept, held = trained_on(settings), held_back(settings)
        for paths, labels in (kept, held):
            assert labels.tolist() == [path.split("/")[-2] for path in paths]
        assert not set(kept[1]) & set(held[1])
        assert len(set(held[1])) == max(2, round(share * 10))
        assert sorted([*kept[0], *held[0]]) == sorted(map(str, folders.glob("*/*.png")))
        splits.append((kept[0], held[0]))
    assert splits[0] == splits[1] == splits[2]


def test_too_few_classes_to_hold_some_back(folders):
    for images in (trained_on, held_back):
        with pytest.raises(InputError, match="too few to hold 9 back"):
            images(config(folders, validation_share=0.9))


@pytest.mark.parametrize("most", [2, 5, 7, 12])
def test_some_images_of_each_class_spread_over_its_list(folders, most):
    paths, labels = trained_on(config(folders, max_images_per_class=most))
    assert labels.tolist() == [path.split("/")[-2] for path in paths]
    for number in range(10):
        name, size = f"class {number}", 3 + number
        numbers = [int(path[-6:-4]) for path in np.array(paths)[labels == name].tolist()]
        assert len(numbers) == min(most, size)
        # One in each of as many parts of the list, so that steps differ by one at most.
        steps = np.diff([*numbers, size])
        assert numbers[0] == 0
        assert set(steps) <= {size // len(numbers), -(-size // len(numbers))}


def test_images_held_back_are_not_thinned_out(folders):
    options = {"validation_share": 0.3}
    whole = held_back(config(folders, **options))
    thinned = config(folders, max_images_per_class=2, **options)
    assert held_back(thinned)[0] == whole[0]
    assert set(trained_on(thinned)[1]) == set(trained_on(config(folders, **options))[1])


# Splits, labels and class files of a run


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """Train, Val and a folder beside them, of two kinds of products, two images each."""
    root = tmp_path_factory.mktemp("products")
    for split in ("train", "Val", "shop"):
        for product in ("Fruit/Apple", "Fruit/Pear", "Roots/Beet"):
            for number in range(2):
                path = root / split / product / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return root


def test_a_run_trains_on_the_training_split_and_validates_on_val(products):
    images = read_run_images(config(products, label="parent"))
    assert {path.split("/")[0] for path in images.trained.paths} == {"train"}
    assert {path.split("/")[0] for path in images.validated.paths} == {"Val"}
    assert sorted(set(images.trained.items.of_images())) == [
        "Fruit/Apple",
        "Fruit/Pear",
        "Roots/Beet",
    ]
    assert images.validation_split == "Val"
    assert images.lines[0] == "18 images, 3 classes (the folder that holds the image)."
    assert "train 6, Val 6, shop 6 (--no-splits" in images.lines[1]
    assert "Validation: split Val, 6 images, 3 classes." in images.lines
    assert images.lines[2].startswith("Taken: split train of train, Val, shop, 6 images")


def test_the_split_to_train_on_is_not_validated_on(products):
    with pytest.raises(InputError, match="validation_split train: is trained on; choose another"):
        read_run_images(config(products, validation_split="train"))


def test_lines_are_said_before_an_error_that_follows(products):
    said = []
    with pytest.raises(InputError):
        read_run_images(config(products, split="dev"), said.append)
    assert said[0] == "18 images, 2 classes (the first folder)."


def test_settings_choose_other_splits(products):
    images = read_run_images(config(products, split="shop", validation_split="train"))
    assert {path.split("/")[0] for path in images.trained.paths} == {"shop"}
    assert {path.split("/")[0] for path in images.validated.paths} == {"train"}
    other = read_run_images(config(products, validation_dataset=products))
    assert {path.split("/")[0] for path in other.validated.paths} == {"Val"}
    with pytest.raises(InputError, match="none named dev among the splits train, Val, shop"):
        read_run_images(config(products, validation_split="dev"))


def test_classes_are_held_back_of_the_training_split_alone(folders, tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).symlink_to(folders)
    images = read_run_images(config(tmp_path, validation_share=0.3))
    assert images.validation_split is None
    assert {path.split("/")[0] for path in images.validated.paths} == {"train"}
    assert len(set(images.validated.items.of_images())) == 3


def test_a_run_reads_the_classes_of_a_file(products, tmp_path):
    lines = [f"train/Fruit/{name}/{n}.png,{name},train" for name in ("Apple", "Pear") for n in "01"]
    lines += ["Val/Roots/Beet/0.png,Beet,val", "Val/Fruit/Apple/0.png,Apple,val"]
    (tmp_path / "classes.csv").write_text("\n".join(["path,label,split", *lines]))
    images = read_run_images(config(products, classes=tmp_path / "classes.csv"))
    assert images.trained.items.of_images() == ["Apple", "Apple", "Pear", "Pear"]
    assert images.validated.items.of_images() == ["Beet", "Apple"]
    assert any("12 images of " in line and "not in" in line for line in images.lines)


def test_what_a_limit_leaves_is_said(products):
    images = read_run_images(config(products / "train", max_images_per_class=3))
    assert "5 of 6 images used: at most 3 of each class (--max_images_per_class)." in images.lines


def test_flags_of_folders_need_folders_to_train_on():
    for name, value in (("label", "parent"), ("splits", True), ("by_content", True)):
        with pytest.raises(InputError, match=f"{name} needs --strategy, which draws triplets"):
            TrainConfig(dataset="d", **{name: value})


def test_a_run_of_an_earlier_version_goes_on_with_all_first_folders_as_classes(tmp_path):
    file = tmp_path / "config.json"
    for options, expected in ((config("d"), False), (TrainConfig(), None)):
        settings = json.loads(options.to_json())
        for name in ("label", "classes", "splits", "split", "by_content", "validation_split"):
            del settings[name]
        file.write_text(json.dumps(settings))
        assert read_settings(file).get("splits") is expected
