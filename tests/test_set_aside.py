import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image

from deep_ranking.cli.main import main
from deep_ranking.files import InputError
from deep_ranking.search import set_aside, verified_files
from deep_ranking.search.duplicates import find_duplicates
from deep_ranking.search.set_aside import check_folder, move_aside, move_back

ODD = os.fsdecode('b/"odd" \u00e9\t'.encode() + b"\xff.png")
PATHS = ["a/1.png", "a/2.png", "b/3.png", ODD, "c/other.png"]


@pytest.fixture
def root(tmp_path):
    """Folder of a group of 4, of which a/1.png is the largest, and of one image that is alone."""
    rng = np.random.default_rng(0)
    for number, path in enumerate(PATHS):
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        shape = (20 - number, 20, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(file)
    return tmp_path / "images"


@pytest.fixture
def collection(root, tmp_path):
    near = np.array([1, 0], np.float32)
    embeddings = {path: near for path in PATHS} | {"c/other.png": near[::-1]}
    return make_collection(tmp_path / "index", root, embeddings)


@pytest.fixture
def groups(collection):
    found = find_duplicates(collection, 0.1).groups
    assert [image.path for image in found[0].images] == ["a/1.png", "a/2.png", ODD, "b/3.png"]
    return found


@pytest.fixture
def aside(tmp_path):
    return tmp_path / "aside"


def contents(*folders):
    """Bytes of each file of some folders, without the undo file."""
    return {
        str(path.relative_to(folder.parent)): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "undo.jsonl"
    }


def lines_of(aside):
    return [json.loads(line) for line in (aside / "undo.jsonl").read_text().splitlines()]


def test_all_but_the_keepers_move_and_come_back(groups, root, aside):
    before = contents(root)
    times = {path: (root / path).stat().st_mtime_ns for path in PATHS}
    moved = move_aside(groups, root, aside)
    size = sum(len(before[f"images/{path}"]) for path in PATHS[1:4])
    assert (moved.num_images, moved.num_bytes, moved.left) == (3, size, [])
    assert sorted(contents(root)) == ["images/a/1.png", "images/c/other.png"]
    assert contents(aside) == {f"aside/{path}": before[f"images/{path}"] for path in PATHS[1:4]}
    assert lines_of(aside) == [
        {"from": str(root / path), "to": path} for path in ("a/2.png", ODD, "b/3.png")
    ]
    back = move_back(aside / "undo.jsonl")
    assert (back.num_images, back.num_bytes, back.in_place, back.left) == (3, size, 0, [])
    assert contents(root) == before and contents(aside) == {}
    assert {path: (root / path).stat().st_mtime_ns for path in PATHS} == times
    # Again, nothing is left to do.
    again = move_back(aside / "undo.jsonl")
    assert (again.num_images, again.in_place, again.left) == (0, 3, [])
    assert contents(root) == before


def test_a_folder_that_was_moved_itself_can_be_undone(groups, root, aside, tmp_path):
    before = contents(root)
    move_aside(groups, root, aside)
    aside.rename(tmp_path / "elsewhere")
    assert move_back(tmp_path / "elsewhere" / "undo.jsonl").num_images == 3
    assert contents(root) == before


@pytest.mark.parametrize("calls", [0, 1, 2])
@pytest.mark.parametrize("step", ["before", "between", "after"])
def test_stopped_at_any_instant_nothing_is_lost(step, calls, collection, aside, monkeypatch):
    """Stopped before a move, between link and unlink, or after a move, with `calls` moves done."""
    root = Path(collection.settings.root)
    groups = find_duplicates(collection, 0.1).groups
    before = contents(root)
    real_move, real_sync, done = set_aside._move, set_aside.sync_folder, []

    def stopped_move(source, target):
        if step == "before" and len(done) == calls:
            raise KeyboardInterrupt
        real_move(source, target)
        if step == "after" and len(done) == calls:
            raise KeyboardInterrupt
        done.append(target)

    def stopped_sync(folder):
        real_sync(folder)
        if step == "between" and len(done) == calls and folder != aside:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(set_aside, "_move", stopped_move)
        patch.setattr(set_aside, "sync_folder", stopped_sync)
        with pytest.raises(KeyboardInterrupt):
            move_aside(groups, root, aside)
    # The undo file knows of the move that was stopped.
    assert len(lines_of(aside)) == calls + 1
    everything = set(before.values())
    assert set(contents(root, aside).values()) == everything
    # Either go on, and end as if it had not been stopped ...
    move_aside(find_duplicates(collection, 0.1).groups, root, aside)
    assert contents(aside) == {f"aside/{path}": before[f"images/{path}"] for path in PATHS[1:4]}
    assert sorted(contents(root)) == ["images/a/1.png", "images/c/other.png"]
    # ... and undo that.
    assert move_back(aside / "undo.jsonl").left == []
    assert contents(root) == before and contents(aside) == {}


@pytest.mark.parametrize("between", [False, True])
def test_undo_after_a_kill_in_the_middle(between, groups, root, aside, monkeypatch):
    before = contents(root)
    real, done = set_aside.sync_folder, []

    def stopped(folder):
        real(folder)
        done.append(folder)
        if len(done) == 3:  # the folder itself, and the first move
            raise KeyboardInterrupt

    def stopped_before(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if between:
            patch.setattr(set_aside, "sync_folder", stopped)
        else:
            patch.setattr(set_aside, "_move", stopped_before)
        with pytest.raises(KeyboardInterrupt):
            move_aside(groups, root, aside)
    back = move_back(aside / "undo.jsonl")
    assert back.left == [] and back.num_images == (2 if between else 0)
    assert contents(root) == before and contents(aside) == {}


def test_an_undo_that_was_stopped_can_be_run_again(groups, root, aside, monkeypatch):
    before = contents(root)
    move_aside(groups, root, aside)
    real, done = set_aside.sync_folder, []

    def stopped(folder):
        real(folder)
        done.append(folder)
        if len(done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(set_aside, "sync_folder", stopped)
        with pytest.raises(KeyboardInterrupt):
            move_back(aside / "undo.jsonl")
    assert move_back(aside / "undo.jsonl").left == []
    assert contents(root) == before and contents(aside) == {}


def test_the_undo_line_is_on_the_disk_before_the_move(groups, root, aside, monkeypatch):
    synced, seen = [], []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    real = set_aside._move

    def watched(source, target):
        seen.append(
            (lines_of(aside)[-1]["from"], synced[-1] == (aside / "undo.jsonl").stat().st_ino)
        )
        real(source, target)

    monkeypatch.setattr(set_aside, "_move", watched)
    move_aside(groups, root, aside)
    assert seen == [(str(root / path), True) for path in ("a/2.png", ODD, "b/3.png")]


@pytest.mark.parametrize("cut", [1, 9, 12, 30, 10_000])
def test_a_line_that_was_cut_off_is_passed_over(cut, groups, root, aside):
    before = contents(root)
    aside.mkdir()
    line = json.dumps({"from": str(root / "gone }.png"), "to": "gone }.png"})[:-1]
    (aside / "undo.jsonl").write_text(line[:cut])
    assert move_aside(groups, root, aside).num_images == 3
    assert move_back(aside / "undo.jsonl").num_images == 3
    assert contents(root) == before


def test_further_moves_are_appended(groups, root, aside, collection):
    before = contents(root)
    move_aside(groups, root, aside)
    move_back(aside / "undo.jsonl")
    move_aside(find_duplicates(collection, 0.1).groups, root, aside)
    assert len(lines_of(aside)) == 6
    back = move_back(aside / "undo.jsonl")
    assert (back.num_images, back.in_place, back.left) == (3, 3, [])
    assert contents(root) == before


def test_a_file_in_the_folder_is_never_overwritten(groups, root, aside):
    before = contents(root)
    for name in ("2.png", "2 (2).png"):
        (aside / "a").mkdir(parents=True, exist_ok=True)
        (aside / "a" / name).write_text("mine")
    assert move_aside(groups, root, aside).num_images == 3
    assert (aside / "a" / "2.png").read_text() == "mine" == (aside / "a" / "2 (2).png").read_text()
    assert (aside / "a" / "2 (3).png").read_bytes() == before["images/a/2.png"]
    move_back(aside / "undo.jsonl")
    assert contents(root) == before
    assert contents(aside) == {"aside/a/2.png": b"mine", "aside/a/2 (2).png": b"mine"}


def test_a_file_that_appears_in_the_last_moment_is_not_overwritten(
    groups, root, aside, monkeypatch
):
    real = os.link

    def link(source, target):
        if str(target).endswith("2.png"):
            target.write_text("mine")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    moved = move_aside(groups, root, aside)
    assert moved.num_images == 2
    assert moved.left == [("a/2.png", os.strerror(errno.EEXIST))]
    assert (root / "a/2.png").exists() and (aside / "a/2.png").read_text() == "mine"


def test_a_name_that_another_image_was_promised_is_not_taken(groups, root, aside, tmp_path):
    aside.mkdir()
    line = {"from": str(tmp_path / "others/a/2.png"), "to": "a/2.png"}  # stopped before its move
    (aside / "undo.jsonl").write_text(json.dumps(line) + "\n")
    move_aside(groups, root, aside)
    assert (aside / "a/2 (2).png").exists() and not (aside / "a/2.png").exists()


@pytest.mark.parametrize("links", [True, False])
def test_images_move_to_another_file_system_and_back(links, groups, root, aside, monkeypatch):
    real, before = os.link, contents(root)
    times = {path: (root / path).stat().st_mtime_ns for path in PATHS}

    def link(source, target):
        if not links or os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV if links else errno.EPERM, "no link")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert move_aside(groups, root, aside).left == []
    assert contents(aside) == {f"aside/{path}": before[f"images/{path}"] for path in PATHS[1:4]}
    assert sorted(contents(root)) == ["images/a/1.png", "images/c/other.png"]
    assert move_back(aside / "undo.jsonl").left == []
    assert contents(root) == before and contents(aside) == {}
    assert {path: (root / path).stat().st_mtime_ns for path in PATHS} == times


def test_a_copy_that_was_stopped_leaves_the_image(groups, root, aside, monkeypatch, collection):
    before = contents(root)

    def link(source, target):
        raise OSError(errno.EXDEV, "another file system")

    def copy(source, target):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        patch.setattr(shutil, "copy2", copy)
        with pytest.raises(KeyboardInterrupt):
            move_aside(groups, root, aside)
        assert contents(root) == before and contents(aside) == {}
        patch.setattr(shutil, "copy2", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        moved = move_aside(groups, root, aside)
        assert moved.num_images == 0 and {reason for _, reason in moved.left} == {"No space"}
    assert contents(root) == before and contents(aside) == {}
    assert move_back(aside / "undo.jsonl").left == []


@pytest.mark.parametrize("undone", [False, True])
@pytest.mark.parametrize("call", ["copy2", "unlink"])
def test_what_a_killed_copy_left_is_cleared(call, undone, groups, aside, monkeypatch):
    """Killed while it copied, or before the copy lost its first name: no `finally` is run."""
    root = aside.parent / "images"
    before, real = contents(root), os.link

    def link(source, target):
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, "another file system")
        real(source, target)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", link)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        if call == "copy2":
            patch.setattr(shutil, "copy2", killed)
        with pytest.raises(KeyboardInterrupt):
            move_aside(groups, root, aside)
    assert [path.name[:8] for path in aside.rglob(".*")] == [".moving-"]
    if undone:
        move_back(aside / "undo.jsonl")
        assert contents(root) == before
    else:
        assert move_aside(groups, root, aside).left == []
    assert list(aside.rglob(".*")) == []


@pytest.mark.parametrize("goes_on", [False, True])
def test_stopped_when_there_are_two_copies(goes_on, collection, aside, monkeypatch):
    root = Path(collection.settings.root)
    before = contents(root)
    groups = find_duplicates(collection, 0.1).groups

    def link(source, target):
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, "another file system")
        shutil.copy2(source, target)

    def stopped(folder):
        if folder != aside:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", link)
    with monkeypatch.context() as patch:
        patch.setattr(set_aside, "sync_folder", stopped)
        with pytest.raises(KeyboardInterrupt):
            move_aside(groups, root, aside)
    assert (root / "a/2.png").exists() and (aside / "a/2.png").exists()
    if goes_on:
        assert move_aside(groups, root, aside).num_images == 3
        assert contents(aside) == {f"aside/{path}": before[f"images/{path}"] for path in PATHS[1:4]}
    back = move_back(aside / "undo.jsonl")
    assert back.left == []
    assert contents(root) == before and contents(aside) == {}


def test_what_changed_since_is_not_moved(groups, root, aside):
    touched = (root / "b/3.png").stat().st_mtime_ns + 1
    os.utime(root / "b/3.png", ns=(touched, touched))  # with the same content
    status = (root / "a/2.png").stat()
    data = (root / "a/2.png").read_bytes()
    (root / "a/2.png").write_bytes(data[:-1] + b"x")
    os.utime(root / "a/2.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / ODD).unlink()
    moved = move_aside(groups, root, aside)
    assert moved.num_images == 1 and not (root / "b/3.png").exists()
    assert moved.left[0] == ("a/2.png", "a/2.png has changed since it was embedded")
    assert moved.left[1][0] == ODD and "is gone" in moved.left[1][1]
    assert (root / "a/2.png").exists()


@pytest.mark.parametrize("what", ["gone", "changed", "link"])
def test_nothing_moves_if_the_image_to_keep_is_not_what_it_was(what, groups, root, aside):
    keeper = root / "a/1.png"
    status = keeper.stat()
    if what == "gone":
        keeper.unlink()
    elif what == "changed":
        keeper.write_bytes(keeper.read_bytes() + b" ")
    else:
        keeper.rename(root / "a/real")
        keeper.symlink_to("real")
        assert keeper.stat().st_mtime_ns == status.st_mtime_ns
    before = contents(root)
    moved = move_aside(groups, root, aside)
    assert moved.num_images == 0 and len(moved.left) == 3
    said = {"gone": "is gone", "changed": "has changed", "link": "is a link"}[what]
    assert all(reason.startswith(f"a/1.png {said}") for _, reason in moved.left)
    assert contents(root) == before


def test_undo_leaves_what_is_in_the_way_or_gone(groups, root, aside, tmp_path):
    before = contents(root)
    move_aside(groups, root, aside)
    (root / "a/2.png").write_text("new")
    (aside / "b/3.png").rename(tmp_path / "3.png")
    back = move_back(aside / "undo.jsonl")
    assert back.num_images == 1
    assert [path for path, _ in back.left] == [str(root / "b/3.png"), str(root / "a/2.png")]
    assert "no longer" in back.left[0][1] and "in its old place" in back.left[1][1]
    assert (root / "a/2.png").read_text() == "new"
    assert (aside / "a/2.png").read_bytes() == before["images/a/2.png"]
    # With room made, the rest comes back.
    (root / "a/2.png").unlink()
    (tmp_path / "3.png").rename(aside / "b/3.png")
    assert move_back(aside / "undo.jsonl").left == []
    assert contents(root) == before


def test_undo_makes_folders_that_are_gone(groups, root, aside):
    before = contents(root)
    move_aside(groups, root, aside)
    (root / "b").rmdir()
    assert move_back(aside / "undo.jsonl").left == []
    assert contents(root) == before


def test_where_images_may_not_go(root, tmp_path):
    index = tmp_path / "index"
    (tmp_path / "link").symlink_to(root)
    for bad in ("images", "images/aside", "link/aside", "index/aside", ".", "images/a/../b"):
        with pytest.raises(InputError, match=r"name a (separate )?folder"):
            check_folder(tmp_path / bad, root, index)
    for good in ("aside", "images/.aside", "images/.x/aside", "images2", ".aside"):
        check_folder(tmp_path / good, root, index)


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        '{"from": "/a"}\n',
        '{"from": "a", "to": "a"}\n',
        '{"from": "/a", "to": "/b"}\n',
        '{"from": "/a", "to": "../b"}\n',
        '{"from": 1, "to": "b"}\n',
        "[1]\n",
        '{"from": "/a", "to": "b"}\n\x00\n',
    ],
)
def test_what_is_no_undo_file_is_refused(text, tmp_path):
    file = tmp_path / "undo.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=r"undo\.jsonl:[12]: not a line of an undo file"):
        move_back(file)


def test_the_command_moves_and_undoes(collection, root, aside, capsys):
    before = contents(root)
    index = str(collection.folder)
    assert main(["duplicates", "--index", index, "--move", str(aside)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Moved 3 images, ") for line in lines)
    assert f"  python -m deep_ranking duplicates --undo {aside}/undo.jsonl" in lines
    assert lines[-1].startswith("1 group, 4 images, 3 could go, ")
    assert sorted(contents(root)) == ["images/a/1.png", "images/c/other.png"]
    (root / "a/2.png").write_text("new")
    assert main(["duplicates", "--undo", str(aside / "undo.jsonl")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == (
        "2 images moved back, 0 already in place, 1 not moved back"
    )
    assert str(root / "a/2.png") in printed.err
    (root / "a/2.png").unlink()
    assert main(["duplicates", "--undo", str(aside / "undo.jsonl")]) == 0
    assert contents(root) == before


def test_nothing_to_move_makes_no_folder(collection, aside, capsys):
    index = str(collection.folder)
    assert main(["duplicates", "--index", index, "--threshold", "0", "--move", str(aside)]) == 0
    assert not aside.exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 groups")


def test_each_file_is_hashed_once_before_the_moves(groups, root, aside, monkeypatch):
    hashed, real = [], verified_files.content_digest
    monkeypatch.setattr(
        verified_files, "content_digest", lambda path: hashed.append(path) or real(path)
    )
    move_aside(groups, root, aside)
    assert sorted(hashed) == sorted(root / path for path in PATHS[:4])


def test_the_command_says_what_to_do_about_images_that_were_not_moved(
    collection, root, aside, capsys, monkeypatch
):
    real = set_aside.move_aside

    def replaced(groups, *rest):
        (root / "a/1.png").write_bytes(b"new")
        return real(groups, *rest)

    monkeypatch.setattr(set_aside, "move_aside", replaced)
    index = str(collection.folder)
    assert main(["duplicates", "--index", index, "--move", str(aside)]) == 0
    printed = capsys.readouterr()
    assert "a/1.png has changed since it was embedded" in printed.err
    assert (
        "3 images were not moved. If files have changed, bring the index up to date by "
        f"`index --output {index}`, then run this command again." in printed.out.splitlines()
    )
