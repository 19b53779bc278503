"""Several shards searched as one, against NumPy over the union, and against one collection."""

import json
import os
from dataclasses import replace

import faiss
import numpy as np
import pytest
from collections_of import make_collection

from deep_ranking.cli.main import run_command
from deep_ranking.files import InputError
from deep_ranking.model.hit_calibration import HitCalibration
from deep_ranking.model.logistic_regression import LogisticRegression
from deep_ranking.search.collection import Collection
from deep_ranking.search.index.base import Nearest
from deep_ranking.search.index.exact import ExactIndex
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.shards import Shards, open_searchable
from deep_ranking.search.shards.shard import common_root

DIM = 8
EXACT = [{"kind": "exact"}] * 3
MIXED = [
    {"kind": "clusters", "probes": 99},
    {"kind": "exact"},
    {"kind": "hierarchy", "probes": 99},
]
HITS = HitCalibration(
    None, LogisticRegression((1.0, 0.0, 0.0, 0.0), (1.0,) * 4, (-4.0, 0.0, 0.0, 0.0), 0.0), 20
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """faiss's threads wait for each other on a machine that does other things as well."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


QUERIES = unit(np.random.default_rng(1).normal(size=(3, DIM)))
PATHS = [f"{'xyz'[number % 3]}/{number:03}.jpg" for number in range(88)] + [
    "loose.jpg",
    os.fsdecode(b"\xff'.jpg"),
]
ROWS = dict(zip(PATHS, unit(np.random.default_rng(0).normal(size=(90, DIM))), strict=True))


def write(root, contents):
    """Write image files of given contents."""
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def made(folder, root, rows, **options):
    """Make a collection of images whose contents are their paths, if they do not exist."""
    new = {path: os.fsencode(path) for path in rows if not (root / path).exists()}
    write(root, new)
    return make_collection(folder, root, rows, **options)


@pytest.fixture
def shards_of(tmp_path):
    """Makes three shards of `ROWS`, of given indexes, and returns their folders."""

    def make(indexes=EXACT, **options):
        folders = []
        for number, index in enumerate(indexes):
            part = {path: ROWS[path] for path in PATHS[number::3]}
            folders.append(tmp_path / f"shard{number}")
            made(folders[-1], tmp_path / "photos", part, index=index, **options)
        return folders

    return make


def nearest(query, rows=ROWS):
    """Distance and path of all images, nearest first, by NumPy."""
    paths = sorted(rows)
    matrix = np.array([rows[path] for path in paths], np.float64)
    distances = np.sqrt(((matrix - query.astype(np.float64)) ** 2).sum(axis=1))
    return sorted(zip(distances.tolist(), paths, strict=True))


def assert_are(results, wanted, root):
    assert [each.path for each in results] == [str(root / path) for _, path in wanted]
    assert [each.rank for each in results] == list(range(1, len(wanted) + 1))
    np.testing.assert_allclose(
        [each.distance for each in results], [distance for distance, _ in wanted], rtol=1e-12
    )


@pytest.mark.parametrize("indexes", [EXACT, MIXED], ids=["exact", "mixed"])
def test_a_search_over_shards_is_one_over_the_union(tmp_path, shards_of, indexes):
    shards = Shards.open(shards_of(indexes))
    searcher = Searcher(shards)
    assert searcher.index.kind == ("exact" if indexes is EXACT else "shards")
    for count in (1, 7, 40, 5000):
        for query, found in zip(QUERIES, searcher.search(QUERIES, count), strict=True):
            assert_are(found, nearest(query)[:count], tmp_path / "photos")
    for query, found in zip(QUERIES, searcher.search(QUERIES, 9, label="y"), strict=True):
        wanted = [each for each in nearest(query) if each[1].startswith("y/")]
        assert_are(found, wanted[:9], tmp_path / "photos")
    assert searcher.search_exactly(QUERIES, 7) == searcher.search(QUERIES, 7)
    assert len(searcher.index.rows()) == len(shards.rows()) == 90


def test_ranking_again_knows_the_neighbours_in_all_shards(tmp_path, shards_of):
    whole = made(tmp_path / "whole", tmp_path / "photos", ROWS)
    wanted = Searcher(whole).search(QUERIES, 30, rerank=True)
    assert Searcher(Shards.open(shards_of(MIXED))).search(QUERIES, 30, rerank=True) == wanted
    plain = Searcher(whole).search(QUERIES, 30)
    assert [[each.path for each in found] for found in wanted] != [
        [each.path for each in found] for found in plain
    ]


def test_copies_and_images_of_several_shards_are_found_as_in_one(tmp_path):
    """Copies come all, in the order of their paths; a file of two shards comes once."""
    root, paths = tmp_path / "photos", PATHS[:12]
    rows = {path: ROWS[path] for path in paths}
    copies = {"copies/b.jpg": paths[0], "a first.jpg": paths[0], "z.jpg": paths[5]}
    write(root, {path: os.fsencode(of) for path, of in copies.items()})
    for copy, of in copies.items():
        rows[copy] = ROWS[of]
    whole = made(tmp_path / "whole", root, rows)
    # The shards have four images of the middle both, and each original apart from its copies.
    made(tmp_path / "one", root, {path: rows[path] for path in [*paths[4:], "copies/b.jpg"]})
    made(
        tmp_path / "two", root, {path: rows[path] for path in [*paths[:8], "a first.jpg", "z.jpg"]}
    )
    shards = Shards.open([tmp_path / "one", tmp_path / "two"])
    query = ROWS[paths[0]][None]
    for count in (1, 2, 3, 5, 14, 15, 99):
        (found,) = Searcher(shards).search(query, count)
        assert [found] == Searcher(whole).search(query, count), count
        assert_are(found, nearest(query[0], rows)[:count], root)
    (found,) = Searcher(shards).search(query, 9, folder="copies")
    assert [each.path for each in found] == [str(root / "copies/b.jpg")]
    (found,) = Searcher(shards).search(query, 3, label="x")
    assert [found] == Searcher(whole).search(query, 3, label="x")
    assert np.array_equal(Searcher(shards).rows_of([os.fsencode(paths[0])]), query)
    both = ROWS[paths[4]][None]  # of an image that both shards have: two rows, one image
    (found,) = Searcher(shards).search(both, 2, label="y")
    assert [found] == Searcher(whole).search(both, 2, label="y") and len(found) == 2


def test_a_file_that_changed_between_two_shards_counts_as_the_first_has_it(tmp_path):
    root = tmp_path / "photos"
    made(tmp_path / "one", root, {"x/a.jpg": ROWS[PATHS[0]], "x/b.jpg": ROWS[PATHS[1]]})
    (root / "x/a.jpg").write_bytes(b"another content")
    made(tmp_path / "two", root, {"x/a.jpg": ROWS[PATHS[2]]})
    (found,) = Searcher(Shards.open([tmp_path / "one", tmp_path / "two"])).search(QUERIES[:1], 9)
    rows = {"x/a.jpg": ROWS[PATHS[0]], "x/b.jpg": ROWS[PATHS[1]]}
    assert_are(found, nearest(QUERIES[0], rows), root)
    (found,) = Searcher(Shards.open([tmp_path / "two", tmp_path / "one"])).search(QUERIES[:1], 9)
    assert_are(found, nearest(QUERIES[0], rows | {"x/a.jpg": ROWS[PATHS[2]]}), root)


def test_copies_are_as_far_as_the_first_shard_has_them(tmp_path):
    """Two machines may embed one content to rows that differ a little."""
    root = tmp_path / "photos"
    write(root, {"x/a.jpg": b"one content", "x/b.jpg": b"one content"})
    made(tmp_path / "one", root, {"x/b.jpg": ROWS[PATHS[0]]})
    made(tmp_path / "two", root, {"x/a.jpg": ROWS[PATHS[1]]})
    (found,) = Searcher(Shards.open([tmp_path / "one", tmp_path / "two"])).search(QUERIES[:1], 2)
    rows = {"x/a.jpg": ROWS[PATHS[0]], "x/b.jpg": ROWS[PATHS[0]]}
    assert_are(found, nearest(QUERIES[0], rows), root)


def test_shards_of_several_folders(tmp_path):
    """Paths start from the folder that holds all, and --folder too."""
    for year in ("2023", "2024"):
        rows = {path: ROWS[path] for path in PATHS[int(year) % 2 :: 2]}
        made(tmp_path / f"{year}.index", tmp_path / "photos" / year, rows)
    shards = Shards.open([tmp_path / "2023.index", tmp_path / "2024.index"])
    assert shards.settings.root == str(tmp_path / "photos")
    of_year = {f"{2023 + (number + 1) % 2}/{path}": ROWS[path] for number, path in enumerate(PATHS)}
    of_year = {path: row for path, row in of_year.items() if (tmp_path / "photos" / path).exists()}
    assert len(of_year) == 90
    for folder in ("", "2024", "2024/x", "2023"):
        (found,) = Searcher(shards).search(QUERIES[:1], 99, folder=folder or None)
        wanted = [each for each in nearest(QUERIES[0], of_year) if each[1].startswith(folder)]
        assert_are(found, wanted, tmp_path / "photos")
    with pytest.raises(InputError, match="nowhere: no image"):
        Searcher(shards).search(QUERIES, 1, folder="2024/nowhere")


def test_the_folder_that_holds_several():
    assert common_root(["/a/b", "/a/b"]) == "/a/b"
    assert common_root(["/a/bc", "/a/b/d"]) == "/a"
    assert common_root(["/a", "/b"]) == "/"
    assert common_root(["s3://one/x/y", "s3://one/x/z"]) == "s3://one/x"
    assert common_root(["s3://one/x", "s3://two/x"]) is None
    assert common_root(["/s3", "s3://one/x"]) is None


def remove(folder):
    (folder / "collection.json").unlink()


def damage_settings(folder):
    (folder / "collection.json").write_text("{}")


def damage_table(folder):
    (folder / "images.sqlite").write_bytes(b"no table")


def damage_rows(folder):
    with (folder / "embeddings.bin").open("r+b") as file:
        file.seek(40)
        file.write(b"\xaa\xbb")


def cut_rows(folder):
    os.truncate(folder / "embeddings.bin", 64)


def of_another_model(folder):
    Collection.open(folder).change(fingerprint="0123456789ab")


def of_another_precision(folder):
    Collection.open(folder).change(precision="int8")


@pytest.mark.parametrize(
    ("damage", "number", "reason"),
    [
        (remove, 0, "no index here"),
        (damage_settings, 1, "not what `index` wrote"),
        (damage_table, 2, "images.sqlite"),
        (damage_table, 0, "images.sqlite"),
        (damage_rows, 2, "checksum"),
        (cut_rows, 1, "cut off"),
        (of_another_model, 0, "0123456789ab"),
        (of_another_precision, 2, "int8"),
    ],
)
def test_a_shard_that_is_down(tmp_path, shards_of, damage, number, reason):
    """It is named and ends the search, or is left out and named, if that is asked for."""
    folders = shards_of()
    damage(folders[number])
    with pytest.raises(InputError, match=f"shard{number}: shard {number + 1} of 3 cannot") as error:
        Searcher(Shards.open(folders)).search(QUERIES, 20)
    assert reason in str(error.value) and "--skip_unavailable leaves it out" in str(error.value)
    left = [path for place, path in enumerate(PATHS) if place % 3 != number]
    query = tmp_path / "photos" / left[0]
    shards = Shards.open(folders, skip_unavailable=True)
    found = shards.search(query, 99)
    assert_are(
        found[0], nearest(ROWS[left[0]], {path: ROWS[path] for path in left}), tmp_path / "photos"
    )
    ((folder, name, why, total),) = found.shards_left_out
    assert (folder, name, total) == (folders[number], f"shard{number}", 3) and reason in why
    assert found.text().startswith(f"1 of 3 shards left out:\n  {folder}: ")
    first, *others = found.rows()
    assert first["path"] == str(folder) and first["rank"] is None and len(others) == 60
    assert first["problem"].startswith("left out, 1 of 3 shards: ") and reason in first["problem"]
    assert f"1 left out: {folder}" in repr(shards) and str(folder) in found._repr_html_()


def test_a_table_that_is_damaged_before_anything_is_searched(shards_of):
    folders = shards_of()
    damage_table(folders[1])
    shards = Shards.open(folders, skip_unavailable=True)
    assert repr(shards).endswith(f"60 images in 2 shards, 1 left out: {folders[1]}")


def test_none_is_left(shards_of):
    folders = shards_of()
    for folder in folders:
        remove(folder)
    with pytest.raises(
        InputError, match=r"none of 3 shards can be searched; the first one, .*shard0"
    ):
        Shards.open(folders, skip_unavailable=True)


def test_a_server_that_does_not_answer(tmp_path, shards_of, monkeypatch):
    """The index of a shard fails while it is searched: the shards that answer are merged."""
    folders = shards_of(MIXED)
    shards = Shards.open(folders, skip_unavailable=True)
    searcher = Searcher(shards)
    monkeypatch.setattr(type(searcher.index._indexes[0]), "search", _no_answer)
    found = searcher.search(QUERIES[:1], 99)
    left = {path: ROWS[path] for path in PATHS[1::3]}  # both shards with clusters are down
    assert_are(found[0], nearest(QUERIES[0], left), tmp_path / "photos")
    assert [each.folder for each in shards.left_out] == [folders[0], folders[2]]
    with pytest.raises(InputError, match=r"shard0: shard 1 of 3 .* does not answer"):
        Searcher(Shards.open(folders)).search(QUERIES, 1)


def _no_answer(*_, **__):
    raise InputError("http://127.0.0.1:9: does not answer")


def test_what_an_index_guesses_or_knows_too_early_does_not_decide(tmp_path, shards_of, monkeypatch):
    """Distances of compressed rows are guesses; a server may have rows that are newer than ours."""
    searcher = Searcher(Shards.open(shards_of([MIXED[0], *EXACT[:2]])))
    index = searcher.index._indexes[0]
    search = index.search

    def guessed(*given, **options):
        found = search(*given, **options)
        new = np.full((len(found.rows), 1), 5_000)
        return Nearest(
            np.concatenate([0 * new, found.distances / 3], axis=1).astype(np.float32),
            np.concatenate([new, found.rows], axis=1),
        )

    monkeypatch.setattr(index, "search", guessed)
    (found,) = searcher.search(QUERIES[:1], 9)
    assert_are(found, nearest(QUERIES[0])[:9], tmp_path / "photos")


def test_a_part_is_looked_for_by_the_servers_that_can(tmp_path, shards_of, monkeypatch):
    """As a Milvus server does; the rows of the other shards are compared one by one."""
    searcher = Searcher(Shards.open(shards_of([MIXED[0], *EXACT[:2]])))
    asked = []

    def search_subset(queries, count, subset, *, probes=None):
        asked.append(subset)
        shard = searcher.collection.there()[0]
        return ExactIndex(shard.embeddings, shard.rows_of(subset)).search(queries, count)

    monkeypatch.setattr(searcher.index._indexes[0], "search_subset", search_subset)
    for limits, begin in (({"label": "x"}, "x/"), ({"folder": "y"}, "y/")):
        for query, found in zip(QUERIES, searcher.search(QUERIES, 9, **limits), strict=True):
            wanted = [each for each in nearest(query) if each[1].startswith(begin)]
            assert_are(found, wanted[:9], tmp_path / "photos")
    assert {(each.labels, each.folder) for each in asked} == {(frozenset("x"), ""), (None, "y")}


def test_an_index_without_rows_is_no_empty_answer(shards_of):
    folders = shards_of(MIXED)
    (folders[2] / "hierarchy.faiss").unlink()
    with pytest.raises(InputError, match=r"shard2: .* its index is empty"):
        Searcher(Shards.open(folders)).search(QUERIES, 1)


def test_what_no_shard_knows_of_all_is_refused(tmp_path, shards_of):
    shards = Shards.open(shards_of(hits=HITS))
    with pytest.raises(InputError, match=r"no smoothed rows.*merge"):
        shards.search(tmp_path / "photos", smooth=True)
    with pytest.raises(InputError, match=r"probability of a hit over several shards.*merge"):
        shards.search(tmp_path / "photos", min_probability=0.5)
    found = shards.search(tmp_path / "photos" / PATHS[0])
    assert {each.hit_probability for each in found[0]} == {None}
    assert "No p(hit)" in found.note


def test_a_part_that_seems_to_be_forgotten(tmp_path, shards_of):
    folders = shards_of()
    for number, folder in enumerate(folders):
        Collection.open(folder).change(shard=(number + 1, 3))
    query = tmp_path / "photos" / PATHS[0]
    assert Shards.open(folders).search(query).note == ""
    assert "part 2/3 of index --shard" in Shards.open(folders[::2]).search(query).note


def test_a_shard_that_grows_meanwhile_keeps_the_others_in_place(tmp_path, shards_of):
    folders = shards_of()
    searcher = Searcher(Shards.open(folders))
    grown = Collection.open(folders[0])
    content = bytes(31) + b"1"
    grown.store.extend([([content], QUERIES[:1])])
    (found,) = searcher.search(QUERIES[:1], 20)
    assert_are(found, nearest(QUERIES[0])[:20], tmp_path / "photos")


def test_files_that_changed_are_told_of_their_shard(tmp_path, shards_of):
    folders = shards_of()
    (tmp_path / "photos" / PATHS[1]).unlink()
    found = Shards.open(folders).search(tmp_path / "photos" / PATHS[0], 99)
    assert {each.path: each.problem for each in found[0] if each.problem} == {
        str(tmp_path / "photos" / PATHS[1]): "gone"
    }
    assert "1 is gone" in found.note and f"index --output {folders[1]}" in found.note


def called(capsys, *flags, code=0):
    assert run_command("search", list(map(str, flags))) == code
    return capsys.readouterr()


def test_the_command(tmp_path, shards_of, capsys):
    """Several flags, or a list whose folders start from its own; what is left out is in JSON."""
    folders = shards_of()
    listed = tmp_path / "photos.shards"
    listed.write_text(f"# three\n\nshard0\n  {folders[1]}\nshard2\n")
    query = ("--image", tmp_path / "photos" / PATHS[0], "--json", "--top", "7")
    by_flags = called(capsys, *(f"--index={each}" for each in folders), *query)
    by_list = called(capsys, "--index", listed, *query)
    assert by_flags.out == by_list.out
    wanted = [str(tmp_path / "photos" / path) for _, path in nearest(ROWS[PATHS[0]])[:7]]
    assert [each["path"] for each in json.loads(by_list.out)] == wanted
    remove(folders[1])
    assert "shard1: shard 2 of 3 cannot" in called(capsys, "--index", listed, *query, code=1).err
    skipped = called(capsys, "--index", listed, "--skip_unavailable", *query)
    assert json.loads(skipped.out)[0]["path"] == str(folders[1])
    text = called(capsys, "--index", listed, "--skip_unavailable", *query[:2]).out
    assert text.startswith(f"1 of 3 shards left out:\n  {folders[1]}: no index here")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--skip_unavailable", "--index={0}"], "--skip_unavailable has no effect with one index"),
        (["--index={0}", "--index={1}", "--smooth"], "--smooth has no effect with several"),
        (["--index={0}", "--index={1}", "--probes=3"], "--probes has no effect with an exact"),
    ],
)
def test_flags_that_cannot_act(shards_of, capsys, flags, reason):
    folders = shards_of()
    with pytest.raises(SystemExit):
        run_command("search", [each.format(*folders) for each in flags] + ["--image", "x"])
    assert reason in capsys.readouterr().err


def test_lists_that_are_none(tmp_path, shards_of):
    folders = shards_of()
    bad = tmp_path / "bad.shards"
    for text, reason in (
        ("", "expected a list"),
        ("#\n\n", "expected a list"),
        ("bad.shards", "a file"),
    ):
        bad.write_text(text)
        with pytest.raises(InputError, match=reason):
            open_searchable([bad])
    bad.write_bytes(b"\xff\xfe\0")
    with pytest.raises(InputError, match="not a text file"):
        open_searchable([bad])
    with pytest.raises(InputError, match="given twice"):
        open_searchable([folders[0], tmp_path / "." / "shard0"])


def test_shards_without_a_folder_in_common(shards_of):
    folders = shards_of()
    collection = Collection.open(folders[1])
    collection.settings = replace(collection.settings, root="s3://bucket/photos")
    collection.change()
    with pytest.raises(InputError, match="s3://bucket/photos: no folder holds both"):
        Shards.open(folders)
