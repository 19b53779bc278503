"""Corrections: the file that people and spreadsheets write, and what it does to labelled images."""

import shutil

import pytest

from deep_ranking.config import FolderConfig, TrainConfig
from deep_ranking.datasets import corrected, read_folder, read_pairs
from deep_ranking.datasets.corrections import Correction, CorrectionLog, read_corrections
from deep_ranking.files import InputError
from deep_ranking.training.resuming import RunState

HEADER = "time,who,path,from_class,to_class,note\n"


def write(path, *lines, header=HEADER):
    path.write_text(header + "".join(f"{each}\n" for each in lines), encoding="utf-8")
    return path


def classes(data):
    return dict(zip(data.paths, data.items.of_images(), strict=True))


def test_the_last_line_about_an_image_stands(tmp_path):
    file = write(
        tmp_path / "c.csv",
        ",Ann,a.jpg,Apple,Pear,",
        ",Ann,./a.jpg,Apple,Plum,",
        ",Ann,b.jpg,Apple,Pear,",
        ",Ann,b.jpg,Apple,Apple,as it was",
        ",,d/c.jpg,Apple, ,no fruit",
    )
    found = read_corrections(file)
    assert {path: each.to_class for path, each in found.standing.items()} == {
        "a.jpg": "Plum",
        "d/c.jpg": "",
    }
    assert (found.num_replaced, found.returned, found.cut_off) == (2, {"b.jpg": "Apple"}, False)


def test_a_file_of_a_spreadsheet_is_read(tmp_path):
    text = "to_class;path\r\nGo\u0308ld;a, b.jpg\r\n;\r\n"  # decomposed, as some systems write it
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (found,) = read_corrections(tmp_path / "c.csv").standing.values()
    assert found == Correction("a, b.jpg", "", "G\u00f6ld")
    with pytest.raises(InputError, match="a spreadsheet has saved; save it with these columns"):
        CorrectionLog(tmp_path / "c.csv").add(found)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (",,,Apple,Pear,", "the path is empty"),
        (",,/a.jpg,Apple,Pear,", "paths start from the folder"),
        (",,../a.jpg,Apple,Pear,", "paths start from the folder"),
        (",,a.jpg,Apple,Pear", "expected 6 fields, received 5 fields"),
        (",,a.jpg,Apple," + "x" * 3000 + ",", "to_class must be up to 2,000 characters"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    file = write(tmp_path / "c.csv", ",,b.jpg,Apple,Pear,", line)
    with pytest.raises(InputError) as error:
        read_corrections(file)
    assert str(error.value).startswith(f"{file}:3: ") and said in str(error.value)


def test_another_file_is_refused(tmp_path):
    file = write(tmp_path / "c.csv", header="path,label\n")
    with pytest.raises(InputError, match=r"c.csv:1: not a corrections file: expected time,who"):
        read_corrections(file)


def test_taking_back_returns_to_what_stood_before(tmp_path):
    log = CorrectionLog(tmp_path / "c.csv")
    log.add(Correction("a.jpg", "Apple", "Pear"), Correction("b.jpg", "Apple", "Pear"))
    log.add(Correction("a.jpg", "Apple", "Plum"))

    def now():
        return {path: each.to_class for path, each in read_corrections(log.path).standing.items()}

    assert log.take_back("a.jpg").to_class == "Plum" and now()["a.jpg"] == "Pear"
    assert log.take_back("a.jpg").to_class == "Pear" and now() == {"b.jpg": "Pear"}
    with pytest.raises(InputError, match=r"no correction of a.jpg that could be taken back"):
        log.take_back("a.jpg")
    assert log.path.read_text().startswith(HEADER)
    assert len(log.path.read_text().splitlines()) == 6  # lines are only added


def test_a_label_is_right_until_that_is_undone(tmp_path):
    log = CorrectionLog(tmp_path / "c.csv")
    log.add(
        Correction("a.jpg", "Apple", "Apple"),
        Correction("b.jpg", "Apple", "Pear"),
        Correction("c.jpg", "Apple", "Pear"),
        Correction("c.jpg", "Apple", "Pear"),
        Correction("d.jpg", "Apple", "Pear"),
        Correction("d.jpg", "Apple", "Apple"),
        Correction("e.jpg", "Apple", "Apple", note="undone"),  # nothing is there to be undone
    )

    def right():
        return {path: each.to_class for path, each in read_corrections(log.path).right.items()}

    assert right() == {"a.jpg": "Apple", "c.jpg": "Pear", "d.jpg": "Apple"}
    assert list(read_corrections(log.path).standing) == ["b.jpg", "c.jpg"]
    for path in "abcd":
        log.take_back(f"{path}.jpg")
    assert right() == {}
    assert list(read_corrections(log.path).standing) == ["c.jpg", "d.jpg"]
    log.add(Correction("a.jpg", "Apple", "Apple"), Correction("a.jpg", "Apple", "Plum"))
    log.take_back("a.jpg")
    assert right() == {"a.jpg": "Apple"}


@pytest.fixture(scope="module")
def products(tmp_path_factory, write_colors):
    root = tmp_path_factory.mktemp("corrections") / "products"
    write_colors(root / "warm", classes=("red", "orange"), images=2)
    write_colors(root / "cold", classes=("blue", "green"), images=2)
    return root


def test_images_get_their_classes_and_categories(products, tmp_path):
    file = write(
        tmp_path / "c.csv",
        ",,warm/red/0.png,warm/red,cold/blue,",
        ",,cold/blue/0.png,cold/blue,warm/Red,new",
        ",,cold/blue/1.png,cold/blue,plain,new",
        ",,cold/green/0.png,cold/green,,none",
        ",,warm/orange/0.png,warm/orange,warm/orange,looked at",
    )
    before = read_folder(products, label="parent", level=1)
    found = corrected(before, file)
    expected = classes(before)
    del expected["cold/green/0.png"]
    expected |= {
        "warm/red/0.png": "cold/blue",
        "cold/blue/0.png": "warm/Red",
        "cold/blue/1.png": "plain",
    }
    assert classes(found) == expected
    categories = dict(zip(found.paths, found.categories.of_images(), strict=True))
    assert categories["warm/red/0.png"] == "cold"  # as the other images of cold/blue
    assert categories["cold/blue/0.png"] == "warm"  # a leading part of the new name
    assert categories["cold/blue/1.png"] == "cold"  # as it was
    assert found.notes[-3:] == (
        f"4 corrections applied from {file}, 1 of them for images of no class; 1 label right, as "
        "the file says.",
        "New by the corrections: 2 classes, plain, warm/Red.",
        "Nearly equal names of classes, taken as different classes: 'warm/Red' and 'warm/red'.",
    )
    outside = corrected(before, file, keep_outside=True)
    assert len(outside) == len(before) and classes(outside)["cold/green/0.png"] == ""


def test_labels_that_are_right_are_marked_and_counted(products, tmp_path):
    twice = ["red/1.png,red,orange"] * 2
    lines = ["red/0.png,red,red", *twice, "orange/0.png,x,x"]
    file = write(tmp_path / "c.csv", *lines, header="path,from_class,to_class\n")
    data = corrected(read_folder(products / "warm"), file)
    assert data.select(data.confirmed).paths == ["red/0.png", "red/1.png"]
    assert data.notes[-1].endswith("; 2 labels right, as the file says.")


def test_what_does_not_fit_is_counted_and_named(products, tmp_path):
    file = write(
        tmp_path / "c.csv",
        ",,red/0.png,red,orange,",
        ",,red/9.png,red,orange,",
        ",,red/1.png,blue,orange,",
        ",,orange/1.png,red,orange,",
    )
    data = corrected(read_folder(products / "warm"), file)
    assert data.notes[-1] == (
        f"1 correction applied from {file}; 1 more made in the folders already; 2 not applied: "
        "1 image not there (red/9.png), 1 image of another class by now (red/1.png: red, not "
        "blue)."
    )
    with pytest.raises(InputError, match=r"none of 4 corrections is about .*4 images not there"):
        corrected(read_folder(products), file)


def test_a_file_whose_corrections_are_all_made_or_taken_back_is_no_error(products, tmp_path):
    data = read_folder(products / "warm")
    done = corrected(data, write(tmp_path / "c.csv", ",,red/0.png,orange,red,"))
    assert classes(done) == classes(data) and "1 more made in the folders" in done.notes[-1]
    none = corrected(data, write(tmp_path / "d.csv"))
    assert none.notes[-1].startswith("0 corrections applied")


def test_class_files_and_both_kinds_of_pairs_take_corrections(products, tmp_path):
    listed = write(tmp_path / "classes.csv", "warm/red/0.png,a", "warm/red/1.png,b", header="")
    file = write(tmp_path / "c.csv", "warm/red/0.png,b", header="path,to_class\n")
    data = FolderConfig(classes=listed, corrections=file).read(products)
    assert data.items.of_images() == ["b", "b"]
    other = FolderConfig(label=2, corrections=file).read(products, with_files=False)
    assert classes(other)["warm/red/0.png"] == "warm/red"

    lines = ["warm/red/0.png,warm/red/1.png,a", "cold/blue/0.png,cold/blue/1.png,b"]
    pairs = write(tmp_path / "pairs.csv", *lines, header="")
    data = read_pairs(products, pairs, corrections=file)
    assert [[data.paths[row] for row in pair] for pair in data.pairs] == [lines[1].split(",")[:2]]

    shop = tmp_path / "shop"
    shutil.copytree(products / "warm", shop)
    file = write(tmp_path / "d.csv", "red/0.png,red,orange", header="path,from_class,to_class\n")
    data = read_pairs(products / "warm", shop, corrections=file)
    changed = {path for path, name in classes(data).items() if name not in path}
    assert len(changed) == 1 and changed.pop().endswith("products/warm/red/0.png")


def test_splits_stay(tmp_path, write_colors):
    for split in ("train", "val"):
        write_colors(tmp_path / "d" / split, classes=("red", "blue"), images=2)
    file = write(tmp_path / "c.csv", ",,val/red/0.png,red,blue,", ",,train/red/0.png,red,,")
    config = FolderConfig(corrections=file)
    assert config.read(tmp_path / "d", kinds=["val"]).items.of_images().count("blue") == 3
    assert len(config.read(tmp_path / "d", kinds=["train"])) == 3


def test_a_run_that_goes_on_notices_other_corrections(products, tmp_path):
    file = write(tmp_path / "c.csv", ",,warm/red/0.png,warm,cold,")
    config = TrainConfig(batches="classes", dataset=products, corrections=file)
    before = RunState.at_start(config).fingerprints
    assert RunState.at_start(config).fingerprints == before
    CorrectionLog(file).add(Correction("warm/red/1.png", "warm", "cold"))
    changed = RunState.at_start(config).fingerprints
    assert {name for name in before if before[name] != changed[name]} == {"corrections"}
