"""What the classes of a folder are: labels by folders, splits, class files, nearly equal names."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_ranking.config import FolderConfig
from deep_ranking.datasets import read_folder, take_split
from deep_ranking.datasets.labels import (
    checked_label,
    folder_label,
    join_numbers,
    near_equal_labels,
    normal_label,
)
from deep_ranking.datasets.splits import TO_JUDGE, TO_TRAIN, find_splits, split_kind
from deep_ranking.files import InputError

PRODUCTS = (
    "Fruit/Apple/Golden/1.jpg",
    "Fruit/Apple/Golden/2.jpg",
    "Fruit/Apple/Pink/1.jpg",
    "Fruit/Pineapple/1.jpg",
    "Vegetables/Garlic/1.jpg",
    "Vegetables/2.jpg",
)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def labels_of(data):
    return dict(zip(data.paths, data.items.of_images(), strict=True))


# Labels


@pytest.mark.parametrize(
    ("label", "expected", "words"),
    [
        (None, ["Fruit"] * 4 + ["Vegetables"] * 2, "the first folder"),
        ("first", ["Fruit"] * 4 + ["Vegetables"] * 2, "the first folder"),
        (
            "parent",
            ["Fruit/Apple/Golden"] * 2
            + ["Fruit/Apple/Pink", "Fruit/Pineapple", "Vegetables", "Vegetables/Garlic"],
            "the folder that holds the image",
        ),
        (
            2,
            ["Fruit/Apple"] * 3 + ["Fruit/Pineapple", "Vegetables", "Vegetables/Garlic"],
            "the first 2 folders",
        ),
    ],
)
def test_folders_of_uneven_depth(tmp_path, label, expected, words):
    touch(tmp_path, *PRODUCTS)
    data = read_folder(tmp_path, label=label)
    assert data.paths == sorted(PRODUCTS)
    assert data.items.of_images() == expected
    num_classes = len(set(expected))
    assert data.describe()[0] == f"6 images, {num_classes} classes ({words})."
    hint = [note for note in data.notes if "--label parent" in note]
    assert hint == [] if label == "parent" else "(5 classes)" in hint[0]


def test_folders_below_a_class_that_change_nothing_are_not_mentioned(tmp_path):
    touch(tmp_path, "n01/images/1.jpg", "n02/images/1.jpg")
    assert read_folder(tmp_path).notes == ()


@pytest.mark.parametrize("label", ["", "0", "-1", "second", "1.5", True, "9999", "²"])
def test_labels_that_are_none(label):
    with pytest.raises(InputError, match="label must be first, parent or a number from 1"):
        checked_label(label)


def test_a_number_of_one_is_the_first_folder():
    assert checked_label("1") == checked_label(1) == checked_label(" First ") == "first"
    assert folder_label("3")("a/b/c/d") == "a/b/c"


def test_labels_have_one_normal_form(tmp_path):
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    touch(tmp_path, f"{composed}/1.jpg", f"{decomposed}/2.jpg", "cup/1.jpg", "cup /2.jpg")
    data = read_folder(tmp_path)
    assert len(data) == 4
    assert data.items.names == [composed, "cup"]


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=8))
def test_a_normal_label_is_its_own(label):
    once = normal_label(label)
    assert normal_label(once) == once == once.strip()
    assert unicodedata.is_normalized("NFC", once)


def test_numbers_that_a_spreadsheet_wrote_in_two_ways():
    assert join_numbers(["1", "1.0", "2.0", "1.5", "3.", "3"]) == (
        ["1", "1", "2.0", "1.5", "3.", "3"],
        ["1.0"],
    )


def test_class_files_join_labels_and_say_so(tmp_path):
    touch(tmp_path, *(f"{number}.jpg" for number in range(6)))
    lines = ["0.jpg,cup", "1.jpg, cup ", "2.jpg,1", "3.jpg,1.0", "4.jpg,Tea pot", "5.jpg,tea-pot"]
    (tmp_path / "classes.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    data = read_folder(tmp_path, classes=tmp_path / "classes.csv")
    assert data.items.of_images() == ["cup", "cup", "1", "1", "Tea pot", "tea-pot"]
    assert "Labels taken as whole numbers: 1.0." in data.notes
    assert "'Tea pot' and 'tea-pot'" in next(note for note in data.notes if "Nearly" in note)
    assert data.describe()[0] == f"6 images, 4 classes ({tmp_path / 'classes.csv'})."
    touch(tmp_path, "left/7.jpg")
    left_out = read_folder(tmp_path, classes=tmp_path / "classes.csv").notes[-1]
    assert left_out.startswith("1 image of ") and "left out: not in" in left_out


def test_near_equal_labels():
    names = ["Cup", "cup", "tea pot", "tea_pot", "Teapot", "bowl", "bowls"]
    assert near_equal_labels(names) == [["Cup", "cup"], ["Teapot", "tea pot", "tea_pot"]]


def test_images_in_no_class_are_kept_when_asked(tmp_path):
    touch(tmp_path, "1.jpg", "a/2.jpg")
    assert labels_of(read_folder(tmp_path)) == {"a/2.jpg": "a"}
    data = read_folder(tmp_path, keep_outside=True)
    assert labels_of(data) == {"1.jpg": "", "a/2.jpg": "a"}
    assert data.num_classes == 1 and data.notes == ()
    (tmp_path / "c.csv").write_text("1.jpg,one\n")
    data = read_folder(tmp_path, classes=tmp_path / "c.csv", keep_outside=True)
    assert labels_of(data) == {"1.jpg": "one", "a/2.jpg": ""}


# Splits


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("train2017", "train"),
        ("val", "val"), ("valid", "val"), ("Validation", "val"), ("dev", "val"),
        ("test", "test"), ("testing", "test"), ("test_seen", "test"), ("unseen", "unseen"),
        ("held_back", "held_back"), ("holdout", "held_back"),
        ("Training Set", "train"), ("testset", "test"), ("my_train", "train"), ("fold1", "fold"),
        ("01_val", "val"), ("train+val", "train"), ("evaluation", "val"), ("queries", "query"),
        ("trainer", None), ("train station", None), ("validity", None), ("cup", None), ("", None),
    ],
)  # fmt: skip
def test_kinds_of_splits(name, kind):
    assert split_kind(name) == kind


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["train/cup/1.jpg", "val/cup/1.jpg"], ["train", "val"]),
        (["VALID/cup/1.jpg", "Train/cup/1.jpg"], ["Train", "VALID"]),
        (["train/cup/1.jpg", "test_seen/a/1.jpg", "unseen/b/1.jpg"],
         ["train", "test_seen", "unseen"]),
        # Another folder beside two splits is a split too, and so is one split alone.
        (["train/cup/1.jpg", "val/cup/1.jpg", "shop/cup/1.jpg"], ["train", "val", "shop"]),
        (["train/cup/1.jpg"], ["train"]),
        (["train/cup/1.jpg", "test/1.jpg"], ["train", "test"]),
        # One class of such a name, and folders that hold images themselves.
        (["train/steam/1.jpg", "ship/sail/1.jpg", "car/1.jpg"], []),
        (["train/1.jpg", "test/1.jpg"], []),
        (["1.jpg"], []),
    ],
)  # fmt: skip
def test_which_folders_are_splits(paths, expected):
    assert find_splits(paths) == expected


def test_splits_are_no_part_of_a_class(tmp_path):
    touch(tmp_path, "train/cup/a/1.jpg", "train/bowl/1.jpg", "Val/cup/b/2.jpg", "train/loose.jpg")
    data = read_folder(tmp_path)
    assert labels_of(data) == {
        "Val/cup/b/2.jpg": "cup",
        "train/bowl/1.jpg": "bowl",
        "train/cup/a/1.jpg": "cup",
    }
    assert data.left_out.num_outside == 1
    assert "train 2, Val 1 (--no-splits: they are classes)" in data.notes[0]
    assert read_folder(tmp_path, label="parent").items.names == ["bowl", "cup/a", "cup/b"]
    plain = read_folder(tmp_path, splits=False)
    assert plain.items.names == ["Val", "train"] and plain.splits is None
    assert any("taken as a class, but named as a split" in note for note in plain.notes)


def test_splits_in_a_folder_of_their_own_are_pointed_out(tmp_path):
    touch(tmp_path, "photos/train/a/1.jpg", "photos/val/a/1.jpg")
    note = read_folder(tmp_path).notes[0]
    assert "train, val in photos are named as splits" in note
    assert note.endswith(f"give {tmp_path / 'photos'}.")


def test_queries_and_a_gallery_are_searched_in_each_other(tmp_path):
    touch(tmp_path, "query/a/1.jpg", "gallery/a/2.jpg")
    wanted = f"--queries {tmp_path / 'query'} --gallery {tmp_path / 'gallery'}"
    with pytest.raises(InputError, match=wanted):
        take_split(read_folder(tmp_path), TO_JUDGE)


def test_a_folder_named_by_a_blank_is_no_class(tmp_path):
    touch(tmp_path, " /1.jpg", "a/2.jpg")
    data = read_folder(tmp_path)
    assert data.paths == ["a/2.jpg"] and data.left_out.num_outside == 1


def test_images_without_a_split_in_a_file_are_counted(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "c.csv").write_text("path,label,split\n1.jpg,a,train\n2.jpg,a,val\n3.jpg,b,\n")
    data = read_folder(tmp_path, classes=tmp_path / "c.csv")
    assert data.notes == ("Splits, by the file: train 1, val 1; 1 image in no split.",)


def test_splits_of_any_names_when_asked(tmp_path):
    touch(tmp_path, "2023/cup/1.jpg", "2024/cup/1.jpg")
    assert read_folder(tmp_path).splits is None
    assert read_folder(tmp_path, splits=True).splits.tolist() == ["2023", "2024"]


def test_the_split_that_a_command_takes(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "val/b/1.jpg", "test/c/1.jpg")
    data = read_folder(tmp_path)
    assert take_split(data, TO_TRAIN).paths == ["train/a/1.jpg"]
    judged = take_split(data, TO_JUDGE)
    assert judged.paths == ["test/c/1.jpg"] and judged.folders() == ["c"]
    assert (
        judged.notes[-1]
        == "Taken: split test of train, val, test, 1 image (--split takes another)."
    )
    assert take_split(data, TO_JUDGE, "val").paths == ["val/b/1.jpg"]
    with pytest.raises(InputError, match="none named dev among the splits train, val, test"):
        take_split(data, TO_JUDGE, "dev")
    with pytest.raises(InputError, match="has no splits to take val of"):
        take_split(read_folder(tmp_path / "train"), TO_JUDGE, "val")
    assert FolderConfig(split="val").read(tmp_path, kinds=TO_JUDGE).paths == ["val/b/1.jpg"]
