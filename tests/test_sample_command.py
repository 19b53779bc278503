"""`triplet_sampler.py` with its strategies, lists, splits and files."""

import argparse
import functools
import gzip
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from collections_of import make_collection
from hypothesis import given, settings
from hypothesis import strategies as st
from imagehash import phash
from PIL import Image
from test_listing import CONSUMER_TO_SHOP, partition, touch

from deep_ranking.cli.arguments import add_seed
from deep_ranking.cli.main import run_command
from deep_ranking.cli.sample import add_data_arguments, read_data
from deep_ranking.config import SamplingConfig
from deep_ranking.datasets import read_folder
from deep_ranking.sampling.parts import split_parts
from deep_ranking.sampling.triplet_file import read_triplets, resolve_paths


def sample(capsys, *arguments, output=None):
    """Run the command; give what it printed."""
    more = [] if output is None else ["--output_directory", output]
    assert run_command("sample", list(map(str, (*arguments, *more)))) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def error(capsys, *arguments):
    assert run_command("sample", list(map(str, arguments))) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


def names(path):
    """Triplets of paths; each image is there."""
    triplets = read_triplets(path)
    assert all(Path(each).exists() for each in resolve_paths(triplets, None))
    return [[triplets.paths[number] for number in row] for row in triplets.rows]


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """Six categories of four items with three images each, one of them copied into another."""
    root = tmp_path_factory.mktemp("nested") / "n"
    rng = np.random.default_rng(0)
    for category in range(6):
        for item in range(4):
            folder = root / f"c{category}" / f"i{item}"
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
                Image.fromarray(pixels).resize((24, 24)).save(folder / f"{number}.png")
    shutil.copy(root / "c0/i0/0.png", root / "c1/i2/copy.png")
    return root


FEW = ("--num_pos_images", 2, "--num_neg_images", 3)


def test_in_class(capsys, tmp_path, nested):
    said = sample(
        capsys, "--input_directory", nested, "--strategy", "in-class", *FEW, output=tmp_path
    )
    assert "73 images, 24 items (the folder that holds the image), 6 categories." in said
    assert "438 triplets in" in said
    for query, positive, negative in names(tmp_path / "triplets.txt"):
        category, item = query.split("/")[-3:-1]
        assert positive.split("/")[-3:-1] == [category, item]
        assert negative.split("/")[-3] == category and negative.split("/")[-2] != item


def test_relevance_by_tree_and_features(capsys, tmp_path, nested):
    touch(
        tmp_path / "f",
        *(f"c{c}/s{s}/{i}.jpg" for c in range(2) for s in range(2) for i in range(3)),
    )
    how = ("--strategy", "relevance", "--relevance")
    sample(capsys, "--input_directory", tmp_path / "f", *how, "tree", *FEW, output=tmp_path)
    triplets = names(tmp_path / "triplets.txt")
    inside = [each for each in triplets if each[0].split("/")[1] == each[2].split("/")[1]]
    assert 0.5 < len(inside) / len(triplets) < 1
    for query, positive, negative in inside:  # the positive's folder is the query's
        assert query.split("/")[2] == positive.split("/")[2] != negative.split("/")[2]
    arguments = ("--input_directory", nested, *how, "features", *FEW)
    said = sample(capsys, *arguments, "--relevance_gap", 1e-4, output=tmp_path)
    assert "438 triplets in" in said
    arguments = ("--input_directory", nested, *how, "features", "--relevance_gap", 0.9)
    assert "lower --relevance_gap" in error(
        capsys, *arguments, "--output_directory", tmp_path / "no"
    )
    assert list((tmp_path / "no").iterdir()) == []


def test_relevance_of_scored_pairs(capsys, tmp_path, nested):
    rows = [("c0/i0/0.png", "c0/i1/0.png", 0.9), ("c0/i0/0.png", "c0/i2/0.png", 0.3)]
    (tmp_path / "s.csv").write_text("".join(f"{a},{b},{score}\n" for a, b, score in rows))
    arguments = ("--strategy", "relevance", "--relevance", tmp_path / "s.csv", *FEW)
    said = sample(capsys, "--input_directory", nested, *arguments, output=tmp_path)
    assert "left out: no positive" in said
    inside = [each for each in names(tmp_path / "triplets.txt") if "/c0/" in each[2]]
    assert {tuple(path[-11:] for path in each) for each in inside} == {
        ("c0/i0/0.png", "c0/i1/0.png", "c0/i2/0.png")
    }


def test_hard_by_an_index(capsys, tmp_path, nested):
    data = read_folder(nested)
    angles = np.linspace(0, 3, len(data))
    rows = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    make_collection(tmp_path / "index", nested, dict(zip(data.paths, rows, strict=True)))
    arguments = ("--strategy", "hard", "--index", tmp_path / "index", "--num_neighbours", 2, *FEW)
    sample(capsys, "--input_directory", nested, *arguments, output=tmp_path)
    # On a line, class by class, the nearest two of another class are the ends of those beside it.
    place = {path: number for number, path in enumerate(data.paths)}
    for row in names(tmp_path / "triplets.txt"):
        query, _, negative = (place["/".join(each.split("/")[-3:])] for each in row)
        if "copy.png" not in row[0]:  # which is where its original is
            assert abs(query - negative) <= 14


def test_hard_takes_a_model_or_an_index_as_the_flag_says(capsys, tmp_path, nested):
    (tmp_path / "m.h5").write_bytes(b"")
    arguments = ("--input_directory", nested, "--strategy", "hard", *FEW)
    assert "not a folder" in error(capsys, *arguments, "--index", tmp_path / "m.h5")
    assert "not a regular file" in error(capsys, *arguments, "--model", tmp_path)


def test_consumer_to_shop(capsys, tmp_path):
    more = CONSUMER_TO_SHOP.replace("5\n", "6\n", 1) + CONSUMER_TO_SHOP.splitlines()[-1].replace(
        "id_4", "id_5"
    )
    file = partition(tmp_path, more)
    arguments = ("--partition", file, "--input_directory", tmp_path, *FEW)
    said = sample(capsys, *arguments, "--split", "train", output=tmp_path)
    assert "6 pairs of query and positive." in said
    rows = [[each.split("Skirt/")[1] for each in row] for row in names(tmp_path / "triplets.txt")]
    assert rows == [
        ["id_1/comsumer_01.jpg", "id_1/shop_01.jpg", "id_2/shop_01.jpg"],
        ["id_1/comsumer_02.jpg", "id_1/shop_01.jpg", "id_2/shop_01.jpg"],
        ["id_2/comsumer_01.jpg", "id_2/shop_01.jpg", "id_1/shop_01.jpg"],
    ]
    sample(capsys, *arguments, "--split", "test", output=tmp_path)
    assert len(names(tmp_path / "test_triplets.txt")) == 2
    assert "no split dev; there are train, val, test" in error(capsys, *arguments, "--split", "dev")
    output = ("--output_directory", tmp_path / "all")
    assert "validation_triplets: no image has both" in error(capsys, *arguments, *output)
    assert not (tmp_path / "all").exists()  # val has one item: nothing is written


@pytest.mark.parametrize("by", ["class", "item"])
def test_split_without_leaks(capsys, tmp_path, nested, by):
    arguments = ("--input_directory", nested, "--strategy", "in-class", *FEW, "--by", by)
    said = sample(capsys, *arguments, "--split", 0.5, 0.25, 0.25, output=tmp_path)
    assert "1 image like another, kept in the same part." in said
    parts = {}
    for name in ("triplets", "validation_triplets", "test_triplets"):
        rows = names(tmp_path / f"{name}.txt")
        parts[name] = {tuple(path.split("/")[-3:]) for row in rows for path in row}
        assert parts[name]
    table = [line.split(",") for line in (tmp_path / "partition.csv").read_text().splitlines()]
    assert table[0] == ["path", "label", "category", "split"] and len(table) == 74
    depth = 1 if by == "class" else 2
    seen = [{image[:depth] for image in part} for part in parts.values()]
    assert len(set.union(*seen)) == sum(map(len, seen))
    split = {path.split("n/", 1)[1]: part for path, _, _, part in table[1:]}
    assert split["c0/i0/0.png"] == split["c1/i2/copy.png"]
    for stem, part in (("triplets", "train"), ("test_triplets", "test")):
        assert {split["/".join(image)] for image in parts[stem]} == {part}
    again = tmp_path / "again"
    sample(capsys, "--partition", tmp_path / "partition.csv", "--split", "test", *FEW,
           "--strategy", "in-class", output=again)  # fmt: skip
    images = {
        tuple(path.split("/")[-3:]) for row in names(again / "test_triplets.txt") for path in row
    }
    assert images == parts["test_triplets"]


def test_same_seed_same_compressed_bytes(capsys, tmp_path, nested):
    arguments = ("--input_directory", nested, *FEW)
    sample(capsys, *arguments, output=tmp_path / "plain")
    for name in ("one", "two"):
        sample(capsys, *arguments, "--compress", output=tmp_path / name)
    compressed = (tmp_path / "one" / "triplets.txt.gz").read_bytes()
    assert compressed == (tmp_path / "two" / "triplets.txt.gz").read_bytes()
    assert gzip.decompress(compressed) == (tmp_path / "plain" / "triplets.txt").read_bytes()
    assert compressed[4:8] == bytes(4)  # no time in it


def test_shards_hold_the_same_triplets(capsys, tmp_path, nested):
    arguments = ("--input_directory", nested, *FEW)
    sample(capsys, *arguments, output=tmp_path)
    said = sample(capsys, *arguments, "--shards", 3, output=tmp_path)
    assert "triplets in 3 files, " in said
    whole = names(tmp_path / "triplets.txt")
    shards = names(tmp_path / "triplets-00000-of-00003.txt.gz")
    assert shards == whole[::3] + whole[1::3] + whole[2::3]


def test_limits_and_balance(capsys, tmp_path):
    touch(
        tmp_path,
        *(f"{c}/{i}.jpg" for c, n in (("a", 1), ("b", 4), ("c", 9), ("d", 12)) for i in range(n)),
    )
    limits = ("--min_images_per_class", 2, "--max_images_per_class", 10, "--balance")
    arguments = ("--input_directory", tmp_path, "--num_pos_images", 1, "--num_neg_images", 1)
    said = sample(capsys, *arguments, *limits, output=tmp_path / "out")
    assert "23 images, 3 classes (the first folder)." in said  # 4 + 9 + 10
    queries = [row[0].split("/")[1] for row in names(tmp_path / "out" / "triplets.txt")]
    assert {name: queries.count(name) for name in "abcd"} == {"a": 0, "b": 8, "c": 8, "d": 8}


def test_a_category_of_one_item_is_told_or_refused(capsys, tmp_path):
    touch(
        tmp_path, *(f"{item}/{number}.jpg" for item in ("a/1", "a/2", "b/1") for number in range(2))
    )
    arguments = (
        "--input_directory",
        tmp_path,
        "--strategy",
        "in-class",
        "--output_directory",
        tmp_path,
    )
    assert "1 category has one item only: none of its images is a query." in sample(
        capsys, *arguments
    )
    shutil.rmtree(tmp_path / "a" / "2")
    assert "no category has two items" in error(capsys, *arguments)


def test_level_gives_categories_to_given_pairs(capsys, tmp_path):
    items = ("s/a/1", "s/a/2", "s/b/3", "s/b/4")
    touch(tmp_path, *(f"{item}{name}.jpg" for item in items for name in "qp"))
    rows = [f"{item}q.jpg,{item}p.jpg,{item[-1]}\n" for item in items]
    (tmp_path / "p.csv").write_text("".join(rows))
    for level, num_triplets in ((1, 12), (2, 4)):  # of three other items, or of the one beside
        sample(capsys, "--pairs", tmp_path / "p.csv", "--level", level, output=tmp_path)
        triplets = names(tmp_path / "triplets.txt")
        assert len(triplets) == num_triplets
        assert all(row[2].endswith("p.jpg") for row in triplets)


def test_lists_that_contradict_themselves_leave_nothing_behind(capsys, tmp_path):
    touch(tmp_path, "q.jpg", "r.jpg")
    output = tmp_path / "out"
    for flag, text, message in (
        ("--pairs", "q.jpg,r.jpg,1\nq.jpg,gone.jpg,1\n", "l.csv:2: no such image gone.jpg"),
        (
            "--partition",
            "path,label,split\nq.jpg,a,train\nr.jpg,a,train\n./q.jpg,a,test\n",
            "l.csv:4: image q.jpg is in two splits: train in line 2, test here",
        ),
    ):
        (tmp_path / "l.csv").write_text(text)
        assert message in error(capsys, flag, tmp_path / "l.csv", "--output_directory", output)
        assert not output.exists()


def test_two_splits_of_one_file_are_refused(capsys, tmp_path):
    touch(tmp_path, "q.jpg", "r.jpg")
    (tmp_path / "l.csv").write_text("path,label,split\nq.jpg,a,val\nr.jpg,a,validation\n")
    line = error(capsys, "--partition", tmp_path / "l.csv", "--output_directory", tmp_path / "out")
    assert "val and validation would both be written to validation_triplets.txt" in line
    assert not (tmp_path / "out").exists()


def test_a_gap_that_no_pair_satisfies_ends_and_leaves_nothing_behind(capsys, tmp_path):
    touch(tmp_path, *(f"in/{c}/{i}/{n}.jpg" for c in "ab" for i in "xy" for n in range(2)))
    touch(tmp_path, "out/triplets.txt")
    arguments = ("--strategy", "relevance", "--relevance", "tree", "--relevance_gap", 0.6, *FEW)
    line = error(
        capsys, "--input_directory", tmp_path / "in", *arguments,
        "--output_directory", tmp_path / "out",
    )  # fmt: skip
    # Beside each other 1, in the folder beside 1/2: of 48 triplets four fifths or so are in-class.
    count = int(line.split("none of ")[1].split()[0])
    assert 30 <= count <= 46
    assert "the largest difference seen is 0.5); lower --relevance_gap" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["triplets.txt"]
    assert (tmp_path / "out" / "triplets.txt").read_bytes() == b""  # as it was


def test_a_cycle_of_links_ends_and_is_told(capsys, tmp_path):
    root = tmp_path / "in"
    touch(root, *(f"{c}/{i}/{n}.jpg" for c in "ab" for i in "xy" for n in range(2)))
    (root / "a" / "x" / "up").symlink_to(root / "a")
    (root / "b" / "all").symlink_to(root)
    (root / "b" / "self").symlink_to("self")
    said = sample(capsys, "--input_directory", root, "--strategy", "in-class", output=tmp_path)
    assert "8 images, 4 items (the folder that holds the image), 2 categories." in said
    assert "2 links left out: to a folder that is listed already." in said
    assert len(names(tmp_path / "triplets.txt")) == 16  # one positive, two negatives each


@functools.cache
def pictures():
    """Pictures that are unlike each other, each with its near-copies, as files' bytes."""

    def file(image, kind, **options):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    made = []
    for seed in range(200):
        pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
        image = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        brighter = Image.fromarray(np.minimum(np.asarray(image), 250) + np.uint8(3))
        files = [
            file(image, "PNG"),
            *(file(each, "JPEG", quality=90) for each in (image, brighter)),
        ]
        # Near in the sense of the split: hashes that differ in few of 64 bits.
        hashes = [phash(Image.open(io.BytesIO(each))) for each in files]
        if max(each - hashes[0] for each in hashes) <= 2:
            made.append(files)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("by", [pytest.param("class", marks=pytest.mark.slow), "item"])
@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=12, max_size=13),
    copies=st.lists(
        st.tuples(st.integers(0, 23), st.integers(0, 23), st.integers(0, 2)), max_size=3
    ),
    seed=st.integers(0, 99),
)
def test_parts_of_nested_folders_share_neither_folders_nor_copies(
    tmp_path_factory, by, sizes, copies, seed
):
    root = tmp_path_factory.mktemp("tree")
    folders = [f"c{c:02}/i{item}" for c, size in enumerate(sizes) for item in range(size)]
    images = [f"{folder}/{number}.png" for folder in folders for number in range(2)]
    content = {path: pictures()[number][0] for number, path in enumerate(images)}
    of = {path: path for path in images}
    for first, second, version in copies:
        copy = f"{images[second].rsplit('/', 1)[0]}/copy{first}_{version}.png"
        content[copy], of[copy] = pictures()[first][version], images[first]
    for path, each in content.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(each)
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    add_seed(parser)
    flags = ("--input_directory", root, "--split", 0.8, 0.1, 0.1, "--by", by, "--seed", seed)
    args = parser.parse_args(list(map(str, flags)))
    data = read_data(args, SamplingConfig(strategy="in-class"))
    parts, whole = split_parts(data, args.split, seed=args.seed, by=args.by)
    assert list(parts) == ["triplets", "validation_triplets", "test_triplets"]
    part_of = {path: number for number, part in enumerate(parts.values()) for path in part.paths}
    assert part_of.keys() == set(whole.paths) == set(content)
    assert sum(map(len, parts.values())) == len(content)  # none in two
    depth = 1 if by == "class" else 2
    for same in (lambda path: path.split("/")[:depth], lambda path: of[path]):
        seen = {}
        for path, part in part_of.items():
            assert seen.setdefault(str(same(path)), part) == part
    for number in range(3):
        assert len({tuple(p.split("/")[:depth]) for p, n in part_of.items() if n == number}) >= 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--strategy", "relevance"], "need each other"),
        (["--relevance", "tree"], "need each other"),
        (["--strategy", "hard"], "--model or --index"),
        (["--strategy", "softest"], "strategy"),
        (["--pairs", "p.csv", "--classes", "c.csv"], "not allowed with"),
        (["--validation_share", "0.1", "--split", "0.5", "0.5"], "--split"),
        (["--partition", "p.csv", "--split", "0.5", "0.5"], "split already"),
        (["--out_of_class_share", "0.1"], "out_of_class_share"),
        (["--level", "0"], "level"),
        (["--shards", "0"], "shards"),
    ],
)
def test_flags_that_do_not_go_together(capsys, arguments, named):
    with pytest.raises(SystemExit) as end:
        run_command("sample", ["--input_directory", ".", *arguments])
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert named in line and line.count("\n") == 1


def test_splits_that_are_none(capsys, nested, tmp_path):
    arguments = ("--input_directory", nested, "--output_directory", tmp_path, "--split")
    assert "the images have no splits" in error(capsys, *arguments, "train")
    assert "sum of 1" in error(capsys, *arguments, 0.5, 0.6, "--no-keep_together")
    assert "two or three shares" in error(capsys, *arguments, 1.0)
    assert "no such folder" in error(
        capsys, "--classes", "c.csv", "--input_directory", tmp_path / "x"
    )
    assert list(tmp_path.iterdir()) == []
