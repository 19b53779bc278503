import csv
import dataclasses
import json
import os
from pathlib import Path

import pytest
from archives import (
    caltech101,
    digest,
    image_bytes,
    make_tar,
    make_zip,
    serving,
    tiny_imagenet,
)
from sklearn.datasets import load_digits

from deep_ranking.cli.main import main
from deep_ranking.datasets import read_folder
from deep_ranking.datasets.public import CATALOGUE, download, folder, prepare
from deep_ranking.files import InputError

TINY = make_zip(tiny_imagenet())
CLASSES = {f"class {number}": number + 1 for number in range(10)}
CALTECH = caltech101(CLASSES | {"BACKGROUND_Google": 3})


@pytest.fixture(autouse=True)
def no_proxy_and_no_waiting(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0,))


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def rows(root):
    with (root / "split.csv").open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def original(monkeypatch):
    """Let an archive of the test be a data set's original."""

    def change(name, data):
        changed = dataclasses.replace(CATALOGUE[name], num_bytes=len(data), sha256=digest(data))
        monkeypatch.setitem(CATALOGUE, name, changed)
        return changed

    return change


def expected_tiny():
    """From the names and the annotations alone."""
    found, given = {}, tiny_imagenet()
    for name, data in given.items():
        parts = name.split("/")
        if parts[1] == "train" and name.endswith(".JPEG"):
            found[f"train/{parts[2]}/{parts[4]}"] = data
    for line in given["tiny-imagenet-200/val/val_annotations.txt"].decode().splitlines():
        image, label = line.split("\t")[:2]
        found[f"val/{label}/{image}"] = given[f"tiny-imagenet-200/val/images/{image}"]
    return found


def test_tiny_imagenet_from_a_server_that_hangs_up(tmp_path, original, capsys):
    original("tiny-imagenet", TINY)
    with serving(TINY) as server:
        server.cuts = [1000, 0]
        command = ["dataset", "tiny-imagenet", "--url", server.url, "-o", str(tmp_path / "tiny")]
        assert main(command) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1
        assert "tiny.download.zip.part" in line and "the same command goes on" in line
        assert os.listdir(tmp_path) == ["tiny.download.zip.part"]
        assert main(command) == 0
        assert server.asked == [None, "bytes=1000-", "bytes=1000-"]
        said = capsys.readouterr().out.splitlines()
        assert said[:3] == [
            "train: 6 images in 3 classes",
            "val: 3 images in 3 classes",
            "The archive is the original, by its SHA-256.",
        ]
        assert f"{tmp_path / 'tiny'}: 9 images, listed in split.csv" in said[-1]
        before = files(tmp_path)
        assert main(command) == 0
        assert len(server.asked) == 3
    assert "9 images, all there already" in capsys.readouterr().out
    assert files(tmp_path) == before
    made = files(tmp_path / "tiny")
    assert json.loads(made.pop("dataset.json"))["sha256"] == digest(TINY)
    listed = rows(tmp_path / "tiny")
    del made["split.csv"]
    assert made == expected_tiny()
    assert listed[0] == ["path", "label", "split"]
    assert listed[1:] == [[path, path.split("/")[1], path.split("/")[0]] for path in sorted(made)]


def test_caltech101_is_split_by_class(tmp_path, original, capsys):
    dataset = original("caltech101", CALTECH)
    drawn = {}
    for name, seed, share in (("a", 0, 0.2), ("b", 0, 0.2), ("c", 1, 0.2), ("d", 0, 0.5)):
        (tmp_path / "archive.zip").write_bytes(CALTECH)
        contents = prepare(
            dataset,
            tmp_path / name,
            archive=tmp_path / "archive.zip",
            seed=seed,
            unseen_share=share,
        )
        train = set(read_folder(tmp_path / name / "train", splits=False).items.names)
        drawn[name] = set(read_folder(tmp_path / name / "unseen", splits=False).items.names)
        assert train | drawn[name] == set(CLASSES) and not train & drawn[name]
        assert contents.splits["unseen"].num_classes == len(drawn[name]) == round(10 * share)
        images = sum(CLASSES[label] for label in drawn[name])
        assert contents.splits["unseen"].num_images == images
        assert len(rows(tmp_path / name)) == 1 + sum(CLASSES.values())
    assert drawn["a"] == drawn["b"] != drawn["c"]
    assert (tmp_path / "archive.zip").exists()  # it is the user's
    given = ["dataset", "caltech101", "-o", str(tmp_path / "a")]
    assert main(given) == 0
    assert "unseen classes were drawn with seed 0" in capsys.readouterr().out
    for flags in (["--seed", "1"], ["--unseen_share", "0.5"]):
        assert main([*given, *flags]) == 1
        assert f"made with {flags[0]} " in capsys.readouterr().err


LAYOUTS = {
    "splits": (("train/a", "train/b/inner", "unseen/c"), {"train": 2, "unseen": 1}),
    "wrapped splits": (("x/y/train/a", "x/y/val/a", "x/y/val/b"), {"train": 1, "val": 2}),
    "one split": (("x/train/a",), {"train": 1}),
    "classes": (("a", "b", "c", "d"), {"train": 2, "unseen": 2}),
    "wrapped classes": (("x/a", "x/b", "x/c", "x/train"), {"train": 2, "unseen": 2}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_archives_of_other_layouts(tmp_path, layout, capsys):
    folders, splits = LAYOUTS[layout]
    archive = tmp_path / "my.tar"
    archive.write_bytes(make_tar({f"{name}/1.jpg": image_bytes(0) for name in folders}))
    output = tmp_path / "new" / "folder"
    command = ["dataset", "tiny-imagenet", "--archive", str(archive), "--output", str(output)]
    assert main(command) == 0
    assert "The archive is not the original" in capsys.readouterr().out
    assert {
        split: len(read_folder(output / split, splits=False).items.names) for split in splits
    } == splits
    assert len(rows(output)) == 1 + len(folders)
    assert {path for path, *_ in rows(output)[1:]} == set(files(output)) - {
        "split.csv",
        "dataset.json",
    }
    assert sorted(os.listdir(output.parent)) == ["folder"]


BAD = {
    "climbs out": ({"train/a/1.jpg": b"1", "../../evil.jpg": b"evil"}, "climbs out of its folder"),
    "no images": ({"a/notes.txt": b"1"}, "expected one folder of images a class"),
    "images only in the root": ({"1.jpg": b"1"}, "expected one folder of images a class"),
    "a split of no classes": ({"train/a/1.jpg": b"", "val/1.jpg": b""}, "val: expected one folder"),
    "too few classes": ({"a/1.jpg": b"1", "b/1.jpg": b"1", "c/1.jpg": b"1"}, "too few to draw 2"),
}


@pytest.mark.parametrize("what", BAD)
def test_archives_that_are_refused_leave_nothing(tmp_path, what, capsys):
    inner, problem = BAD[what]
    archive = tmp_path / "my.tar"
    archive.write_bytes(make_tar(inner))
    output = tmp_path / "made" / "x"
    assert main(["dataset", "caltech101", "--archive", str(archive), "-o", str(output)]) == 1
    line = capsys.readouterr().err
    assert problem in line and line.startswith(f"error: {archive}: ") and line.count("\n") == 1
    assert os.listdir(output.parent) == [] and sorted(os.listdir(tmp_path)) == ["made", "my.tar"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("val_1.JPEG\t../../evil\t0", r"val_annotations.txt:4: class '../../evil' has no folder"),
        ("val_1.JPEG\tn00000009\t0", "val_annotations.txt:4: class 'n00000009' has no folder"),
        ("val_9.JPEG\tn00000000\t0", "no image val/images/val_9.JPEG"),
        ("../val_annotations.txt\tn00000000\t0", "no image val/images/../val_annotations.txt"),
        ("", "class '' has no folder"),
    ],
)
def test_annotations_that_lead_elsewhere(tmp_path, line, problem):
    given = tiny_imagenet()
    name = "tiny-imagenet-200/val/val_annotations.txt"
    (tmp_path / "a.zip").write_bytes(make_zip(given | {name: given[name] + f"{line}\n".encode()}))
    with pytest.raises(InputError) as error:
        prepare(CATALOGUE["tiny-imagenet"], tmp_path / "x", archive=tmp_path / "a.zip")
    assert problem in str(error.value)
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_validation_image_without_a_class(tmp_path):
    given = tiny_imagenet()
    given["tiny-imagenet-200/val/images/val_9.JPEG"] = image_bytes(1)
    (tmp_path / "a.zip").write_bytes(make_zip(given))
    with pytest.raises(InputError, match=r"val/images/val_9.JPEG: .* gives it no class"):
        prepare(CATALOGUE["tiny-imagenet"], tmp_path / "x", archive=tmp_path / "a.zip")


def test_an_inner_archive_is_checked_too(tmp_path):
    evil = make_tar({"a/1.jpg": b"1", "/evil.jpg": b"evil"}, "w:gz")
    (tmp_path / "a.zip").write_bytes(make_zip({"caltech-101/101_ObjectCategories.tar.gz": evil}))
    with pytest.raises(InputError, match=r"refused: the path '/evil\.jpg' is absolute"):
        prepare(CATALOGUE["caltech101"], tmp_path / "x", archive=tmp_path / "a.zip")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_wrong_bytes_of_a_server_make_nothing(tmp_path, original, capsys):
    original("tiny-imagenet", TINY)
    with serving(TINY[:-1] + b"x") as server:
        output = str(tmp_path / "tiny")
        assert main(["dataset", "tiny-imagenet", "--url", server.url, "-o", output]) == 1
        assert f"expected {digest(TINY)}" in capsys.readouterr().err
        assert os.listdir(tmp_path) == []


def test_a_mirror_of_another_archive_needs_its_digest(tmp_path, capsys):
    data = make_tar({"train/a/1.jpg": image_bytes(0)})
    output = str(tmp_path / "tiny")
    with serving(data) as server:
        command = ["dataset", "tiny-imagenet", "--url", server.url, "-o", output]
        assert main(command) == 1
        assert "expected 248,100,043: not the archive" in capsys.readouterr().err
        assert main([*command, "--sha256", digest(data).upper(), "--keep_archive"]) == 0
    assert files(tmp_path)["tiny.download.zip"] == data
    assert files(tmp_path)["tiny/train/a/1.jpg"] == image_bytes(0)


def test_an_archive_is_compared_with_its_digest(tmp_path, original, capsys):
    dataset = original("tiny-imagenet", TINY)
    archive = tmp_path / "a.zip"
    archive.write_bytes(TINY)
    with pytest.raises(InputError, match=f"has SHA-256 {digest(TINY)}, expected {'0' * 64}"):
        prepare(dataset, tmp_path / "x", archive=archive, sha256="0" * 64)
    archive.write_bytes(TINY[:100] + bytes([TINY[100] ^ 1]) + TINY[101:])
    with pytest.raises(InputError, match="as long as the original"):
        prepare(dataset, tmp_path / "x", archive=archive)
    with pytest.raises(InputError, match="no such file"):
        prepare(dataset, tmp_path / "x", archive=tmp_path / "none")


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    for command in (["tiny-imagenet"], ["digits"]):
        assert main(["dataset", *command, "-o", str(tmp_path / "thesis")]) == 1
        assert "is not a data set's folder" in capsys.readouterr().err
    assert files(tmp_path) == {"thesis/thesis.txt": b"years of work"}
    assert main(["dataset", "digits", "-o", str(tmp_path / "digits")]) == 0
    assert main(["dataset", "caltech101", "-o", str(tmp_path / "digits")]) == 1
    assert "holds digits" in capsys.readouterr().err


def test_digits(tmp_path, capsys):
    (tmp_path / "digits").mkdir()  # an empty folder is as good as none
    command = ["dataset", "digits", "--output", str(tmp_path / "digits")]
    assert main(command) == 0
    listed = rows(tmp_path / "digits")[1:]
    target = load_digits().target
    assert sorted(int(Path(path).stem) for path, _, _ in listed) == list(range(1797))
    for path, label, split in listed:
        assert int(label) == target[int(Path(path).stem)] and path.split("/")[0] == split
    assert {label for _, label, split in listed if split == "unseen"} == set("789")
    assert main(command) == 0
    assert "all there already" in capsys.readouterr().out
    path = tmp_path / "digits" / listed[5][0]
    path.unlink()
    assert main(command) == 1
    problem = capsys.readouterr().err
    assert "1,796 of 1,797 images are there" in problem and listed[5][0] in problem


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    left = tmp_path / ".x.making" / "work"
    (left / "unpacked" / "train").mkdir(parents=True)
    (left / "unpacked" / "train" / "stale.jpg").write_bytes(b"stale")
    (left / "made").mkdir()
    (tmp_path / "a.zip").write_bytes(TINY)
    prepare(CATALOGUE["tiny-imagenet"], tmp_path / "x", archive=tmp_path / "a.zip")
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "x"]
    made = files(tmp_path / "x")
    assert set(made) == set(expected_tiny()) | {"split.csv", "dataset.json"}


@pytest.mark.parametrize("is_link", [True, False])
def test_what_lies_where_a_run_works_is_cleared_away(tmp_path, is_link):
    (tmp_path / "other").mkdir()
    work = tmp_path / ".x.making" / "work"
    work.parent.mkdir()
    work.symlink_to(tmp_path / "other") if is_link else work.write_bytes(b"")
    (tmp_path / "a.zip").write_bytes(TINY)
    prepare(CATALOGUE["tiny-imagenet"], tmp_path / "x", archive=tmp_path / "a.zip")
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "other", "x"]


def test_a_full_disk_is_one_line_with_the_folder(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(TINY)

    def unpack(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "unpack", unpack)
    with pytest.raises(InputError) as caught:
        prepare(CATALOGUE["tiny-imagenet"], tmp_path / "x", archive=tmp_path / "a.zip")
    assert str(caught.value).startswith(f"{tmp_path / '.x.making'}: cannot be written (No space")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_two_at_once(tmp_path):
    (tmp_path / "a.zip").write_bytes(TINY)
    with folder._work_folder(tmp_path / "x"):
        with pytest.raises(InputError, match="another process works here"):
            prepare(CATALOGUE["tiny-imagenet"], tmp_path / "x", archive=tmp_path / "a.zip")
        assert sorted(os.listdir(tmp_path)) == [".x.making", "a.zip"]


def test_unpacking_that_fails_keeps_the_download(tmp_path, original, monkeypatch):
    dataset = original("tiny-imagenet", TINY)
    with serving(TINY) as server:
        with monkeypatch.context() as broken, pytest.raises(OSError, match="disk full"):
            broken.setattr(
                folder,
                "arrange_splits",
                lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")),
            )
            prepare(dataset, tmp_path / "x", url=server.url)
        assert os.listdir(tmp_path) == ["x.download.zip"]
        prepare(dataset, tmp_path / "x", url=server.url)
        assert server.asked == [None]
    assert os.listdir(tmp_path) == ["x"]


def test_an_interrupt_keeps_what_has_arrived_and_says_so(tmp_path, original, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    original("tiny-imagenet", TINY)
    part, whole = tmp_path / "x.download.zip.part", tmp_path / "x.download.zip"
    with serving(TINY) as server:
        command = ["dataset", "tiny-imagenet", "--url", server.url, "-o", str(tmp_path / "x")]
        server.cuts = [1000]
        for kept, size, where, what in (
            (part, 1000, download.time, "sleep"),  # before it tries again
            (whole, len(TINY), folder, "unpack"),
        ):
            with monkeypatch.context() as interrupted:
                interrupted.setattr(where, what, interrupt)
                assert main(command) == 130
            assert files(tmp_path) == {kept.name: TINY[:size]}
            assert capsys.readouterr().err.splitlines() == [
                f"interrupted: {kept} keeps {size:,} bytes, the same command goes on from there"
            ]
        assert main(command) == 0
        assert server.asked == [None, "bytes=1000-"]
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "NAME"),
        (["imagenet", "-o", "x"], "imagenet"),
        (["tiny-imagenet"], "--output"),
        (["tiny-imagenet", "-o", "x", "--url", "http://a", "--archive", "b"], "--archive"),
        (["caltech101", "-o", "x", "--unseen_share", "1"], "between 0 and 1"),
        (["caltech101", "-o", "x", "--sha256", "abc"], "64 hexadecimal digits"),
        (["digits", "-o", "x", "--seed", "-1"], "--seed"),
        (["stats"], "DIR"),
        (["stats", ".", "--image_size", "0"], "--image_size"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(capsys, arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["dataset", *arguments])
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert named in line and line.endswith("; see --help\n") and line.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_catalogue_is_sane():
    for name, dataset in CATALOGUE.items():
        assert dataset.name == name
        assert dataset.url.startswith("https://") and len(bytes.fromhex(dataset.sha256)) == 32


@pytest.mark.slow
@pytest.mark.real_data
def test_real_archives(real_data, tmp_path):
    for name, splits in (
        ("tiny-imagenet", {"train": (30_000, 100), "unseen": (6_000, 20)}),
        ("caltech101", {"train": (3_704, 35), "unseen": (952, 15)}),
    ):
        archive = real_data / "data" / f"{name}.tar"
        contents = prepare(CATALOGUE[name], tmp_path / name, archive=archive)
        found = {split: dataclasses.astuple(count) for split, count in contents.splits.items()}
        assert found == splits
