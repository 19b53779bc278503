"""Pairs that people told apart: their file, what it does to groups, and what follows from it."""

import threading

import numpy as np
import pytest
from collections_of import make_collection
from served import caller_of, use_stub_engine
from test_duplicates import at_angles, save, scene

from deep_ranking.cli.main import main
from deep_ranking.datasets.not_duplicates import NotDuplicatesLog, path_beside, read_not_duplicates
from deep_ranking.files import InputError
from deep_ranking.sampling.implied_answers import implied_answers
from deep_ranking.search.duplicates import find_duplicates
from deep_ranking.serving.answers import without_folders
from deep_ranking.serving.settings import ServerSettings

MAY_CHANGE = ServerSettings(allow_changes=True)


@pytest.fixture
def make(tmp_path):
    """A function of angles by path, on the unit circle, which makes a collection."""

    def made(angles):
        root = tmp_path / "images"
        for number, path in enumerate(angles):
            # The first one is the largest, which is kept.
            save(root / path, scene(0, 96 - 8 * number, 64))
        rows = dict(zip(angles, at_angles(*angles.values()), strict=True))
        return make_collection(tmp_path / "photos.index", root, rows)

    return made


def paths_of(found):
    return [[image.path for image in group.images] for group in found.groups]


def test_a_pair_stands_until_it_is_taken_back(tmp_path):
    log = NotDuplicatesLog(path_beside(tmp_path / "photos.index"))
    assert read_not_duplicates(log.path) == {}
    log.add("b.png", "a, b.png", who="Ann")
    log.add("c.png", "b.png", who="Bob")
    pairs = read_not_duplicates(log.path)
    assert pairs == {
        frozenset(("a, b.png", "b.png")): "Ann",
        frozenset(("b.png", "c.png")): "Bob",
    }
    log.take_back("a, b.png", "b.png")
    assert read_not_duplicates(log.path) == {frozenset(("b.png", "c.png")): "Bob"}
    log.add("a, b.png", "b.png")
    assert frozenset(("a, b.png", "b.png")) in read_not_duplicates(log.path)


def test_two_threads_lose_no_pair_and_a_line_that_was_cut_off_is_passed_over(tmp_path):
    path = path_beside(tmp_path / "photos.index")

    def add(name):
        for number in range(5):
            NotDuplicatesLog(path).add(f"{name}.png", f"{number}.png")

    threads = [threading.Thread(target=add, args=(name,)) for name in "xy"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with path.open("a") as file:
        file.write("2026-11-29T19:30:28Z,Ann,a.p")
    assert len(read_not_duplicates(path)) == 10
    NotDuplicatesLog(path).add("a.png", "b.png")
    assert len(read_not_duplicates(path)) == 11


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (",,a.png,a.png,different", "a.png: is there twice"),
        (",,a.png,../b.png,different", "stay in|start from the folder"),
        (",,a.png,b.png,perhaps", "answer must be 'different' or 'taken_back'"),
        (",,a.png,b.png", "expected 5 fields"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, problem):
    path = path_beside(tmp_path / "photos.index")
    path.write_text(f"time,who,image,other,answer\n{line}\n")
    with pytest.raises(InputError, match=rf"not_duplicates.csv:2: .*({problem})"):
        read_not_duplicates(path)


def test_an_image_that_was_told_apart_leaves_its_group_and_may_be_in_another(make, capsys):
    collection = make({"a.png": 0.0, "b.png": 0.05, "c.png": 0.1, "d.png": 0.12})
    assert paths_of(find_duplicates(collection)) == [["a.png", "b.png", "c.png", "d.png"]]
    log = NotDuplicatesLog(path_beside(collection.folder))
    log.add("c.png", "a.png")
    found = find_duplicates(collection)
    assert paths_of(found) == [["a.png", "b.png", "d.png"]]
    assert "1 pair told apart by people" in found.summary
    log.add("a.png", "d.png")
    found = find_duplicates(collection)
    assert paths_of(found) == [["a.png", "b.png"], ["c.png", "d.png"]]
    main(["duplicates", "--index", str(collection.folder)])
    assert "2 pairs told apart by people" in capsys.readouterr().out
    log.take_back("a.png", "d.png")
    log.take_back("a.png", "c.png")
    assert paths_of(find_duplicates(collection)) == [["a.png", "b.png", "c.png", "d.png"]]
    assert "told apart" not in find_duplicates(collection).summary


def test_equal_files_stay_duplicates(tmp_path):
    root = tmp_path / "images"
    for name in ("a.png", "b.png"):
        save(root / name, scene(0))
    rows = {"a.png": np.array([1, 0]), "b.png": np.array([1, 0])}
    collection = make_collection(tmp_path / "photos.index", root, rows)
    NotDuplicatesLog(path_beside(collection.folder)).add("a.png", "b.png")
    assert paths_of(find_duplicates(collection)) == [["a.png", "b.png"]]


def triples(collection, *pairs):
    told = {frozenset(pair): "Ann" for pair in pairs}
    answers = implied_answers(collection, told)
    assert {(each.rater, each.asked, each.answer) for each in answers} <= {
        ("Ann", "duplicate", "chosen")
    }
    return sorted((each.query, each.chosen, each.other) for each in answers)


def test_copies_are_more_alike_than_what_was_told_apart(make):
    angles = {"a.png": 0.0, "b.png": 0.05, "c.png": 0.1, "d.png": 0.2, "far.png": 1.5}
    collection = make(angles)
    # Nearer than 0.3 to a, and not c itself; and the same the other way round.
    assert triples(collection, ("a.png", "c.png")) == [
        ("a.png", "b.png", "c.png"),
        ("a.png", "d.png", "c.png"),
        ("c.png", "b.png", "a.png"),
        ("c.png", "d.png", "a.png"),
    ]
    assert triples(collection, ("a.png", "c.png"), ("d.png", "a.png"), ("d.png", "c.png")) == [
        ("a.png", "b.png", "c.png"),
        ("a.png", "b.png", "d.png"),
        ("c.png", "b.png", "a.png"),
        ("c.png", "b.png", "d.png"),
        ("d.png", "b.png", "a.png"),
        ("d.png", "b.png", "c.png"),
    ]


def test_of_another_class_its_own_is_more_alike_and_else_nothing_follows(make):
    collection = make({"x/a.png": 0.0, "y/b.png": 0.1, "x/c.png": 0.9, "y/d.png": 1.6})
    assert triples(collection, ("x/a.png", "y/b.png")) == [
        ("x/a.png", "x/c.png", "y/b.png"),
        ("y/b.png", "y/d.png", "x/a.png"),
    ]
    assert triples(collection, ("x/a.png", "x/c.png")) == [
        ("x/a.png", "y/b.png", "x/c.png"),  # a copy of a, whatever its class
    ]
    assert triples(collection, ("x/a.png", "gone.png")) == []


def test_a_server_tells_apart_and_takes_back(make, monkeypatch):
    use_stub_engine(monkeypatch)
    collection = make({"a.png": 0.0, "b.png": 0.05, "c.png": 0.1})
    call = caller_of(collection, settings=MAY_CHANGE)

    def groups():
        found = call.get("duplicates").json()["groups"]
        return [[each["keeper"], *each["others"]] for each in found]

    (group,) = groups()
    ids = {each["path"]: each["id"] for each in group}
    told = call.post("duplicates/told_apart", {"keeper": ids["a.png"], "image": ids["c.png"]})
    assert told.status_code == 200
    (pair,) = told.json()["pairs"]
    assert pair["paths"] == ["a.png", "c.png"]
    assert [each["id"] for each in pair["images"]] == [ids["a.png"], ids["c.png"]]
    assert told.json()["implied"] == 2
    assert [each["path"] for each in groups()[0]] == ["a.png", "b.png"]
    restarted = caller_of(collection, settings=MAY_CHANGE)
    assert len(restarted.get("duplicates").json()["groups"][0]["others"]) == 1
    back = call.post("duplicates/alike", {"image": "c.png", "other": "a.png"})
    assert back.json()["pairs"] == []
    assert len(groups()[0]) == 3
    again = call.post("duplicates/alike", {"image": "c.png", "other": "a.png"})
    assert (again.status_code, again.json()["detail"]) == (
        404,
        "image, other: nobody told these two apart.",
    )


def test_what_cannot_be_told_apart_is_refused(make, monkeypatch):
    use_stub_engine(monkeypatch)
    collection = make({"a.png": 0.0, "b.png": 0.05})
    ids = [each["id"] for each in _known(caller_of(collection))]
    form = {"keeper": ids[0], "image": ids[1]}
    refused = caller_of(collection).post("duplicates/told_apart", form)
    assert refused.status_code == 403
    call = caller_of(collection, settings=MAY_CHANGE)
    same = call.post("duplicates/told_apart", {"keeper": ids[0], "image": ids[0]})
    assert same.status_code == 422
    unknown = call.post("duplicates/told_apart", {"keeper": ids[0], "image": "0" * 32})
    assert unknown.status_code == 404
    assert not path_beside(collection.folder).exists()


def test_pairs_are_told_in_pages_which_new_pairs_do_not_shift(make, monkeypatch):
    use_stub_engine(monkeypatch)
    collection = make({"a.png": 0.0})
    log = NotDuplicatesLog(path_beside(collection.folder))
    for number in range(5):
        log.add("a.png", f"{number}.png")
    call = caller_of(collection)

    def page(**fields):
        found = call.get("duplicates/told_apart", params={"top": 2} | fields).json()
        return [each["paths"][0][0] for each in found["pairs"]], found["total"], found["cursor"]

    first, total, cursor = page()
    assert (first, total) == (["4", "3"], 5)
    log.add("a.png", "5.png")
    second, total, cursor = page(cursor=cursor)
    assert (second, total) == (["2", "1"], 6)
    assert page(cursor=cursor) == (["0"], 6, None)
    assert call.get("duplicates/told_apart", params={"cursor": "x"}).status_code == 422


def test_words_of_folders_are_left_out_and_full_stops_kept():
    folders = {"/a/b": "the folder", ".": "here"}
    assert without_folders("/a/b/c.csv: no. /a/b: full", folders) == "c.csv: no. the folder: full"


def test_a_file_broken_by_hand_is_named_with_what_to_do(make, monkeypatch, capsys):
    use_stub_engine(monkeypatch)
    collection = make({"a.png": 0.0, "b.png": 0.05})
    call = caller_of(collection, settings=MAY_CHANGE)
    ids = [each["id"] for each in _known(call)]
    path = path_beside(collection.folder)
    NotDuplicatesLog(path).add("a.png", "b.png")
    path.write_text(path.read_text().replace("different", "other"))
    for answer in (
        call.get("duplicates"),
        call.get("duplicates/told_apart"),
        call.post("duplicates/told_apart", {"keeper": ids[0], "image": ids[1]}),
        call.post("duplicates/alike", {"image": "a.png", "other": "b.png"}),
    ):
        assert answer.status_code == 503 and "retry-after" not in answer.headers
        words = ": photos.index.not_duplicates.csv:2: answer must be 'different' or 'taken_back'"
        assert words in answer.json()["detail"] and "remove it" in answer.json()["detail"]
        assert str(path.parent) not in answer.json()["detail"]
    assert f"{path}:2: " in capsys.readouterr().err
    assert len(path.read_text().splitlines()) == 2  # nothing was added


def _known(call):
    group = call.get("duplicates").json()["groups"][0]
    return [group["keeper"], *group["others"]]
