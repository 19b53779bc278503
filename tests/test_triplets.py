import csv
import gzip
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deep_ranking.files import InputError
from deep_ranking.sampling.triplet_file import (
    Triplets,
    read_triplets,
    resolve_paths,
    shard_path,
    write_triplets,
)

ODD_NAMES = [
    "plain.jpg",
    "two words.jpg",
    " space at both ends ",
    "hy-phen.jpg",
    "com,ma.jpg",
    ",",
    'a "quoted" word.jpg',
    '"',
    '""',
    '","',
    "'single'.jpg",
    "back\\slash.jpg",
    "tab\there.jpg",
    "Über größe 漢字 🐈.jpg",
    "e\u0301.jpg",
    "\u00e9.jpg",
    "line\u2028separator\x85\x0b\x0c\x1c.jpg",
    "\ufeffmark.jpg",
    "in\ufeffside.jpg",
    '\ufeff",',
    os.fsdecode(b"latin-1 \xe9.jpg"),
    os.fsdecode(b"\xff\xfe,\xef\xbb"),
    os.fsdecode(b'\xbf"\x80'),
    "folder/in folder/x.jpg",
]


def in_order(names):
    """Names as a file has them: three at a time, the last ones again where they do not fill it."""
    rows = np.arange(-(-len(names) // 3) * 3).reshape(-1, 3) % len(names)
    return [rows[:2], rows[2:]]


def names_of(triplets):
    return [[triplets.paths[index] for index in row] for row in triplets.rows]


# Writing


def test_bytes_of_a_file(tmp_path):
    paths = ["cats/a b.jpg", "cats/c-d.JPG", "cats/e,f.png", 'dogs/"g".jpg', "dogs/größe.jpg"]
    blocks = [np.array([[0, 1, 3], [1, 0, 4]]), np.array([[2, 2, 3]], np.int32)]
    path = tmp_path / "triplets.txt"
    assert write_triplets(str(path), paths, iter(blocks)) == 3
    # Quotes only where a name has a comma or a quote, which is then doubled.
    expected = (
        'cats/a b.jpg,cats/c-d.JPG,"dogs/""g"".jpg"\n'
        "cats/c-d.JPG,cats/a b.jpg,dogs/größe.jpg\n"
        '"cats/e,f.png","cats/e,f.png","dogs/""g"".jpg"\n'
    )
    assert path.read_bytes() == expected.encode()


def test_names_that_are_no_unicode_keep_their_bytes(tmp_path):
    path = tmp_path / "triplets.txt"
    write_triplets(path, [os.fsdecode(b"\xff.jpg"), "b", "c"], [np.array([[0, 1, 2]])])
    assert path.read_bytes() == b"\xff.jpg,b,c\n"


def test_other_programs_read_the_file_as_csv(tmp_path):
    path = tmp_path / "triplets.txt"
    names = [name for name in ODD_NAMES if name.isprintable()]
    write_triplets(path, names, in_order(names))
    with path.open(encoding="utf-8", newline="") as handle:
        fields = [field for line in csv.reader(handle) for field in line]
    assert fields[: len(names)] == names


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", "\n"])
def test_line_break_is_refused_before_anything_is_written(tmp_path, name):
    path = tmp_path / "triplets.txt"
    path.write_text("old")
    with pytest.raises(InputError, match="line break") as caught:
        write_triplets(path, ["x.jpg", name], [np.array([[0, 0, 0]])])
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["triplets.txt"]


def test_stopped_halfway_nothing_is_there(tmp_path):
    def blocks():
        yield np.zeros((100_000, 3), int)
        assert len(os.listdir(tmp_path)) == 1  # streamed to somewhere
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_triplets(tmp_path / "triplets.txt", ["x.jpg"], blocks())
    assert os.listdir(tmp_path) == []


def test_blocks_are_written_one_by_one(tmp_path):
    alive = 0

    class Block(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def blocks():
        nonlocal alive
        for _ in range(5):
            assert alive <= 1  # the one before, at most
            alive += 1
            yield np.ndarray.__new__(Block, (4, 3), dtype=np.int32, buffer=bytes(48))

    assert write_triplets(tmp_path / "triplets.txt", ["x.jpg"], blocks()) == 20


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_triplets(tmp_path / "missing" / "triplets.txt", ["x.jpg"], [])


# Round trip

legal_names = st.one_of(
    st.binary(min_size=1, max_size=12)
    .map(lambda data: os.fsdecode(data.translate(None, b"\0\n\r")))
    .filter(bool),
    st.text(
        st.one_of(
            st.sampled_from(",\"\ufeff '\\-;\t\x85\u2028"),
            st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"),
        ),
        min_size=1,
        max_size=12,
    ),
)


@pytest.fixture(scope="module")
def module_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("triplets")


@given(st.lists(legal_names, min_size=1, max_size=12))
@example(ODD_NAMES)
@example(["\ufeff"])
@example(["\ufeff", '"'])
@example(['"', ","])
def test_any_legal_names_come_back(module_dir, names):
    path = module_dir / "triplets.txt"
    write_triplets(path, names, in_order(names))
    fields = [field for row in names_of(read_triplets(path)) for field in row]
    assert fields == [names[index] for block in in_order(names) for index in block.ravel()]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_comes_back_in_each_place(tmp_path, name):
    path = tmp_path / "triplets.txt"
    write_triplets(path, [name, "x", "y"], [np.array([[0, 1, 2], [1, 0, 2], [1, 2, 0]])])
    expected = [[name, "x", "y"], ["x", name, "y"], ["x", "y", name]]
    assert names_of(read_triplets(path)) == expected


# Reading


def read(tmp_path, data):
    path = tmp_path / "triplets.txt"
    path.write_bytes(data)
    return read_triplets(path)


def test_table_of_paths_and_indices(tmp_path):
    triplets = read(tmp_path, b"a,b,x\na,c,y\nx,y,a\n")
    assert triplets.file == tmp_path / "triplets.txt"
    assert triplets.paths == ["a", "b", "x", "c", "y"]
    assert triplets.rows.tolist() == [[0, 1, 2], [0, 3, 4], [2, 4, 0]]
    assert triplets.rows.dtype == np.int32
    assert len(triplets) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"a b,c-d,e.JPG\nf,g,h\n",
        b"a b,c-d,e.JPG\r\nf,g,h\r\n",
        b"a b,c-d,e.JPG\nf,g,h",
        b"\xef\xbb\xbfa b,c-d,e.JPG\nf,g,h\n",
        b'\xef\xbb\xbf"a b","c-d","e.JPG"\r\n"f","g","h"\r\n',
    ],
    ids=["LF", "CRLF", "no last line end", "byte order mark", "quoted"],
)
def test_files_of_other_systems(tmp_path, data):
    triplets = read(tmp_path, data)
    assert names_of(triplets) == [["a b", "c-d", "e.JPG"], ["f", "g", "h"]]


@pytest.mark.parametrize(
    "data",
    [
        b"query,positive,negative\na,b,c\nd,e,f\n",
        b"\xef\xbb\xbfquery,positive,negative\r\na,b,c\r\nd,e,f\r\n\r\n",
        b"Query, Positive ,NEGATIVE\na,b,c\nd,e,f\n\n\n\n",
        b'"query","positive","negative"\n"a","b","c"\nd,e,f',
    ],
)
def test_header_and_empty_last_lines_are_passed_over(tmp_path, data):
    triplets = read(tmp_path, data)
    assert names_of(triplets) == [["a", "b", "c"], ["d", "e", "f"]]
    assert triplets.place(1) == f"{tmp_path / 'triplets.txt'}:3"


def test_a_header_counts_only_in_the_first_line(tmp_path):
    line = b"query,positive,negative\n"
    triplets = read(tmp_path, b"a,b,c\n" + line)
    assert names_of(triplets)[1] == ["query", "positive", "negative"]
    assert triplets.place(1).endswith(":2")
    with pytest.raises(InputError, match="no triplets in this file"):
        read(tmp_path, line)


def test_each_file_of_a_set_may_have_a_header(tmp_path):
    for number, header in enumerate(("", "query,positive,negative\n")):
        (tmp_path / f"t-0000{number}-of-00002.txt").write_text(f"{header}{number},b,c\n\n")
    triplets = read_triplets(tmp_path / "t-00000-of-00002.txt")
    assert [each[0] for each in names_of(triplets)] == ["0", "1"]
    assert triplets.place(0) == f"{tmp_path}/t-00000-of-00002.txt:1"
    assert triplets.place(1) == f"{tmp_path}/t-00001-of-00002.txt:2"


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("others", [False, True])
def test_names_in_another_normal_form_find_the_images(tmp_path, written, others):
    stored = {"NFC": "NFD", "NFD": "NFC"}[written]
    names = [f"Gr\u00fcn/{letter}.jpg" for letter in "\u00e9\u00e4"]
    for name in names:
        path = tmp_path / "photos" / unicodedata.normalize(stored, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    third = "plain.jpg" if others else "gone.jpg"
    if others:
        (tmp_path / "photos" / third).write_bytes(b"")
    line = unicodedata.normalize(written, ",".join(names)) + f",{third}\n"
    triplets = read(tmp_path, line.encode())
    found = resolve_paths(triplets, tmp_path / "photos")
    assert [os.path.exists(path) for path in found] == [True, True, others]
    assert found[0] == str(tmp_path / "photos" / unicodedata.normalize(stored, names[0]))


def test_quote_inside_an_unquoted_name_is_a_quote(tmp_path):
    assert names_of(read(tmp_path, b'a"b".jpg,5"x7",c\n')) == [['a"b".jpg', '5"x7"', "c"]]


GOOD = b"a,b,c\n"


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (GOOD + b"a,b\n", 2, "received 2 fields"),
        (GOOD + b"a,b,c,d\n", 2, "received 4 fields"),
        (GOOD + b"a\n", 2, "received 1 field"),
        (GOOD * 2 + b"com,ma.jpg,b,c\n", 3, "quote a path that has commas"),
        (b"\n" + GOOD, 1, "an empty line"),
        (GOOD + b"\n" + GOOD, 2, "an empty line"),
        (GOOD + b"\r\n" + GOOD, 2, "an empty line"),
        (GOOD + b"\n\n" + GOOD + b"\n", 2, "an empty line"),
        (b",b,c\n", 1, "the query is empty"),
        (b"a,,c\n", 1, "the positive is empty"),
        (GOOD + b"a,b,\n", 2, "the negative is empty"),
        (b'a,b,""\n', 1, "the negative is empty"),
        (GOOD + b'"a,b,c\n' + GOOD, 2, "a quote is opened and not closed"),
        (b'a,b,"c\n' + GOOD, 1, "a quote is opened and not closed"),
        (b'a,b,"c\nd"\n' + GOOD, 1, "a quote is opened and not closed"),
        (GOOD + b"a,\0b,c\n", 2, "not a text file"),
        (GOOD.decode().encode("utf-16"), 1, "not a text file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1, "received 1 field"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", 1, "not a text file"),
    ],
)
def test_bad_line(tmp_path, data, line, reason):
    with pytest.raises(InputError) as caught:
        read(tmp_path, data)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'triplets.txt'}:{line}: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("end", [b'a,b,"c\n', b'a,b,"c', b'"a,b,c\n' + GOOD * 30_000])
def test_quote_left_open_to_the_end(tmp_path, end):
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD + end)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'triplets.txt'}:2: ")
    assert "quote" in message


def test_endless_line(tmp_path):
    with pytest.raises(InputError, match="not a triplet") as caught:
        read(tmp_path, b"x" * 200_000)
    assert str(tmp_path / "triplets.txt") in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_empty_file(tmp_path, data):
    with pytest.raises(InputError, match=r"triplets\.txt: no triplets in this file"):
        read(tmp_path, data)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"x\.txt: no such triplet file; .*triplet_sampler"):
        read_triplets(str(tmp_path / "x.txt"))
    with pytest.raises(InputError, match="cannot be read"):
        read_triplets(tmp_path)


# Where the images are


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Three folders: of the data set, of the triplet file, and the working folder."""
    folders = {name: tmp_path / name for name in ("dataset", "file", "working")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.chdir(folders["working"])
    return folders


def triplets_of(places, *paths):
    rows = np.arange(len(paths), dtype=np.int32).reshape(-1, 3)
    return Triplets(places["file"] / "triplets.txt", list(paths), rows)


def test_folders_are_tried_in_order(places):
    triplets = triplets_of(places, "a.jpg", "b/b.jpg", "c.jpg")
    for name in ("working", "file", "dataset"):
        (places[name] / "a.jpg").touch()
        found = resolve_paths(triplets, places["dataset"])
        folder = {"working": Path()}.get(name, places[name])
        assert [Path(path) for path in found] == [
            folder / "a.jpg",
            folder / "b/b.jpg",
            folder / "c.jpg",
        ]
    without = resolve_paths(triplets, None)
    assert Path(without[0]) == places["file"] / "a.jpg"


def test_one_folder_serves_the_whole_file(places):
    triplets = triplets_of(places, "a.jpg", "b.jpg", "c.jpg")
    (places["file"] / "a.jpg").touch()
    for name in ("b.jpg", "c.jpg"):
        (places["working"] / name).touch()
    found = resolve_paths(triplets, places["dataset"])
    assert {Path(path).parent for path in found} == {places["file"]}


def test_absolute_paths_stay(places):
    image = places["dataset"] / "a.jpg"
    image.touch()
    triplets = triplets_of(places, str(image), "/x/b.jpg", "c.jpg")
    found = resolve_paths(triplets, None)
    assert found[:2] == [str(image), "/x/b.jpg"]


def test_image_in_none_of_the_folders(places):
    triplets = triplets_of(places, "a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(InputError) as caught:
        resolve_paths(triplets, places["dataset"])
    message = str(caught.value)
    assert message.startswith(f"{triplets.file}:1: image a.jpg not found")
    assert str(places["dataset"]) in message
    assert str(places["file"]) in message
    assert "--dataset" in message
    assert "\n" not in message


def test_name_too_long_for_any_file(places):
    with pytest.raises(InputError, match="not found"):
        resolve_paths(triplets_of(places, "a" * 300, "b", "c"), None)


@pytest.mark.parametrize("longest", [1, 40, 40_000])
def test_one_path_may_be_far_longer_than_others(tmp_path, longest):
    names = [*NUMBERED[:8], "x" * longest + ".jpg"]
    write_triplets(tmp_path / "t.txt", names, [np.arange(9).reshape(3, 3), np.array([[8, 0, 8]])])
    lines = [*(names[i : i + 3] for i in (0, 3, 6)), [names[8], names[0], names[8]]]
    assert (tmp_path / "t.txt").read_text() == "".join(",".join(line) + "\n" for line in lines)


# Compressed files, and sets of them

BLOCKS = [np.arange(12).reshape(4, 3), np.arange(12, 33).reshape(7, 3)]  # eleven triplets
NUMBERED = [f"{number}.jpg" for number in range(33)]


def write_set(folder, count, name="t.txt.gz"):
    assert write_triplets(folder / name, NUMBERED, BLOCKS, shards=count) == 11
    return [shard_path(folder / name, number, count) for number in range(count)]


def test_compressed_file_reads_as_the_plain_one(tmp_path):
    for name in ("a.txt", "a.txt.gz", "b.txt.gz"):
        write_triplets(tmp_path / name, NUMBERED, BLOCKS)
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()
    plain = (tmp_path / "a.txt").read_bytes()
    assert gzip.decompress((tmp_path / "a.txt.gz").read_bytes()) == plain
    assert names_of(read_triplets(tmp_path / "a.txt.gz")) == names_of(
        read_triplets(tmp_path / "a.txt")
    )


@pytest.mark.parametrize("count", [1, 2, 5, 16])
@pytest.mark.parametrize("name", ["t.txt.gz", "t.txt", "with.dots, and comma.txt.gz"])
def test_a_set_holds_triplets_in_turn_and_is_read_as_one(tmp_path, count, name):
    files = write_set(tmp_path, count, name)
    assert sorted(tmp_path.iterdir()) == files
    rows = np.concatenate(BLOCKS)
    expected = [[NUMBERED[i] for i in row] for s in range(count) for row in rows[s::count]]
    for path in (files[0], files[-1], tmp_path / f"{files[0].name[:3]}*"):
        triplets = read_triplets(path)
        assert names_of(triplets) == expected
        assert triplets.file == files[0]
        places = [f"{files[s]}:{i + 1}" for s in range(count) for i in range(len(rows[s::count]))]
        assert [triplets.place(number) for number in range(11)] == places


def test_names_of_a_set(tmp_path):
    assert shard_path(tmp_path / "triplets.txt.gz", 0, 16).name == "triplets-00000-of-00016.txt.gz"
    assert shard_path(tmp_path / "a.b.txt", 3, 4).name == "a.b-00003-of-00004.txt"


def test_a_set_that_is_not_whole(tmp_path):
    files = write_set(tmp_path, 4)
    files[2].unlink()
    with pytest.raises(InputError, match=r"t-00002-of-00004\.txt\.gz: is missing from"):
        read_triplets(files[0])
    files = write_set(tmp_path, 4)
    write_set(tmp_path, 2)
    with pytest.raises(InputError, match=r"t-00000-of-00004\.txt\.gz: is not in"):
        read_triplets(tmp_path / "t-*")
    assert len(read_triplets(tmp_path / "t-*-of-00004*")) == 11


def test_a_pattern_that_fits_nothing(tmp_path):
    with pytest.raises(InputError, match=r"x\*\.txt: no triplet file has a name like this"):
        read_triplets(tmp_path / "x*.txt")


def test_a_pattern_of_other_files(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(f"{name},p,n\n")
    assert names_of(read_triplets(tmp_path / "?.txt")) == [["a.txt", "p", "n"], ["b.txt", "p", "n"]]
    (tmp_path / "[1].txt").write_text("q,p,n\n")  # a file of this very name comes first
    assert names_of(read_triplets(tmp_path / "[1].txt")) == [["q", "p", "n"]]


def test_compressed_files_that_are_broken(tmp_path):
    path = tmp_path / "t.txt.gz"
    write_triplets(path, NUMBERED, BLOCKS)
    whole = path.read_bytes()
    for data in (whole[:-9], b"a,b,c\n", whole[:12] + b"\xff" * 30):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"t\.txt\.gz: not a whole gzip file"):
            read_triplets(path)


def test_a_set_appears_when_it_is_whole(tmp_path):
    def blocks():
        yield BLOCKS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_triplets(tmp_path / "t.txt.gz", NUMBERED, blocks(), shards=3)
    assert os.listdir(tmp_path) == []
