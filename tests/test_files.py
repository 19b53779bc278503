import errno
import os
import stat

import pytest

from deep_ranking.files import InputError, atomic_folder, atomic_path, atomic_paths, make_folder

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


def test_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "model.h5"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["model.h5"]


def test_temporary_file_lies_beside_it_hidden_with_its_suffix(tmp_path):
    with atomic_path(tmp_path / "model.h5") as temporary:
        assert temporary.parent.parent == tmp_path
        assert temporary.parent.name.startswith(".")
        assert temporary.suffix == ".h5"


def test_old_file_stays_whole_until_the_end(tmp_path):
    path = tmp_path / "triplets.txt"
    path.write_text("old")
    with path.open() as reader:
        with atomic_path(str(path)) as temporary:
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            temporary.write_text("new")
        assert path.read_text() == "new"
        assert reader.read() == "old"  # whoever has it open still sees one whole file


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "triplets.txt"
    path.write_text("old")
    with pytest.raises(fault), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise fault
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["triplets.txt"]


def test_data_is_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    path = tmp_path / "model.h5"
    synced = []

    def fsync(descriptor):
        synced.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"12345")
    assert synced == [(5, False)]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "x.txt"):
            pass
        assert os.umask(mask) == mask  # and the umask is what it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.txt").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("letter", ["n", "é", "漢"])
def test_longest_names_can_be_written(tmp_path, letter):
    name = letter * (252 // len(letter.encode())) + ".h5"  # 255 bytes, the most that Linux takes
    (tmp_path / name).write_text("a legal name")
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert (tmp_path / name).read_text() == "new"


def left_behind(parent, name=".writing-left"):
    """What a process that was killed leaves: nobody holds the lock."""
    work = parent / name
    work.mkdir()
    (work / "0.h5").write_text("half")
    (work / "lock").touch()
    return work


@pytest.mark.parametrize("writing", [atomic_path, atomic_folder])
def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path, writing):
    left_behind(tmp_path)
    (tmp_path / ".writing-file").write_text("not such a folder")
    with writing(tmp_path / "other.h5"):
        assert not (tmp_path / ".writing-left").exists()
    assert sorted(os.listdir(tmp_path)) == [".writing-file", "other.h5"]


def test_what_another_process_writes_is_left_alone(tmp_path):
    with atomic_path(tmp_path / "a.txt") as first:
        first.write_text("a")
        with atomic_path(tmp_path / "a.txt") as second, atomic_path(tmp_path / "b.txt") as third:
            second.write_text("b")
            third.write_text("c")
        assert first.read_text() == "a"
        assert sorted(os.listdir(tmp_path)) == [first.parent.name, "a.txt", "b.txt"]
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {
        "a.txt": "a",
        "b.txt": "c",
    }


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_whose_exchange_was_stopped_comes_back(tmp_path, there):
    work = left_behind(tmp_path)
    (work / "replaced" / "model").mkdir(parents=True)
    (work / "replaced" / "model" / "old").touch()
    if there:  # stopped later
        (tmp_path / "model").mkdir()
    with atomic_path(tmp_path / "x.txt"):
        assert os.listdir(tmp_path / "model") == ([] if there else ["old"])
    assert sorted(os.listdir(tmp_path)) == ["model", "x.txt"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path):
    (tmp_path / "model" / "old").mkdir(parents=True)
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "model") as temporary:
        temporary.rmdir()
    assert os.listdir(tmp_path) == ["model"] and os.listdir(tmp_path / "model") == ["old"]


def test_files_that_belong_together_are_never_seen_mixed(tmp_path, monkeypatch):
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text("old")
    seen = []

    def replace(source, target):
        seen.append([file.read_text() if file.exists() else None for file in files])
        os.replace(source, target)

    monkeypatch.setattr("pathlib.Path.replace", replace)
    with atomic_paths(files) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert seen == [[None, "old", "old"], [None, "old", "new"], [None, "new", "new"]]
    assert [file.read_text() for file in files] == ["new"] * 3


FULL = OSError(errno.ENOSPC, "No space left on device")
LIBRARY = RuntimeError("Unable to flush\n(errno = 28, error message = 'No space left on device')")


@pytest.mark.parametrize("fault", [FULL, LIBRARY])
@pytest.mark.parametrize("writing", [atomic_path, atomic_folder])
def test_a_full_disk_is_one_line_about_the_file(tmp_path, writing, fault):
    with pytest.raises(InputError) as caught, writing(tmp_path / "model"):
        raise fault
    assert str(caught.value).startswith(
        f"{tmp_path / 'model'}: cannot be written (No space left on device); "
    )
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fault", [PermissionError(13, "no", "image.jpg"), InputError("x: EIO")])
def test_other_errors_keep_their_words(tmp_path, fault):
    with pytest.raises(type(fault)) as caught, atomic_path(tmp_path / "model.h5"):
        raise fault
    assert caught.value is fault


def message_of(path):
    with pytest.raises(InputError) as caught, atomic_path(path):
        pytest.fail("the block was entered")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_folder_in_the_place_of_the_file(tmp_path):
    assert "is a folder" in message_of(tmp_path)


def test_a_pipe_in_the_place_of_the_file_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    for each in (path, link):
        assert "device or pipe" in message_of(each)
    assert path.is_fifo() and link.is_symlink()


def test_folder_that_is_missing(tmp_path):
    assert "No such file or directory" in message_of(tmp_path / "missing" / "x.txt")


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in message_of(tmp_path / "file" / "x.txt")


@not_as_root
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o555)
    assert "Permission denied" in message_of(tmp_path / "x.txt")
    with pytest.raises(InputError, match="no permission to write"):
        make_folder(tmp_path)
    with pytest.raises(InputError, match="Permission denied"):
        make_folder(tmp_path / "new")
    tmp_path.chmod(0o755)


def test_make_folder_makes_parents_and_takes_what_exists(tmp_path):
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(str(folder)) == folder
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_make_folder_where_a_file_is(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        make_folder(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot make this folder")


def test_make_folder_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(InputError, match="no permission to write in this folder"):
        make_folder(tmp_path)


@pytest.mark.parametrize("existed", [False, True])
def test_written_folder_appears_whole(tmp_path, monkeypatch, existed):
    path = tmp_path / "model"
    if existed:
        (path / "old").mkdir(parents=True)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((path / "inner").exists()))
    before = os.umask(0o027)
    try:
        with atomic_folder(str(path)) as temporary:
            assert temporary.parent.parent == tmp_path
            assert temporary.parent.name.startswith(".")
            (temporary / "inner").mkdir()
            (temporary / "inner" / "x").write_text("new")
            assert path.exists() == existed
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["model"] and os.listdir(path) == ["inner"]
    assert (path / "inner" / "x").read_text() == "new"
    assert synced == [False]
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~0o027


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_failing_block_leaves_the_old_folder_and_nothing_else(tmp_path, fault):
    (tmp_path / "model" / "old").mkdir(parents=True)
    for name in ("model", "new"):
        with pytest.raises(fault), atomic_folder(tmp_path / name) as temporary:
            (temporary / "half").write_text("half")
            raise fault
    assert os.listdir(tmp_path) == ["model"] and os.listdir(tmp_path / "model") == ["old"]


def test_written_folder_where_a_link_is_goes_where_it_points(tmp_path):
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    with atomic_folder(tmp_path / "link") as temporary:
        (temporary / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "disk" / "model") == ["new"]
    assert os.listdir(tmp_path / "disk") == ["model"]


@pytest.mark.parametrize(
    ("name", "said"), [("file", "is a file"), ("missing/model", "No such file or directory")]
)
def test_folders_that_cannot_be_written(tmp_path, name, said):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=said), atomic_folder(tmp_path / name):
        pytest.fail("the block was entered")
