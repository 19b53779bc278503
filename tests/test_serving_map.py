"""The map of a collection in the API: made once, kept, and what is known of chosen images."""

import json
import os
import sqlite3
import time
from contextlib import closing
from multiprocessing import connection

import numpy as np
import pytest
from served import caller_of, make_served, use_stub_engine, write_photos

from deep_ranking.files import InputError, installed
from deep_ranking.search import planar_map
from deep_ranking.search.collection import Collection
from deep_ranking.serving.application import create_application
from deep_ranking.serving.client import Client
from deep_ranking.serving.map import map_file, map_process, maps
from deep_ranking.serving.map.map_file import map_body, read_map_images
from deep_ranking.serving.map.maps import MadeMap, MapMaker
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.settings import ServerSettings


class OwnProcess:
    """In place of a process: it does its work when it is started, or never."""

    started = 0
    runs = True

    def __init__(self, *, target, args, daemon):
        assert target is map_process.make_map and daemon
        self.args, self.exitcode = args, None

    def start(self):
        type(self).started += 1
        if self.runs:
            try:
                map_process.write_map(*self.args)
                self.exitcode = 0
            except SystemExit as error:
                self.exitcode = error.code

    def is_alive(self):
        return self.exitcode is None

    def terminate(self):
        self.exitcode = -15

    def join(self):
        pass


@pytest.fixture(autouse=True)
def process(monkeypatch, tmp_path):
    """Processes, model and t-SNE are stubs: the position of an image is its mean red and green."""
    use_stub_engine(monkeypatch)
    monkeypatch.setenv("DEEP_RANKING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(planar_map, "map_points", lambda rows, **_: np.array(rows[:, :2], float))

    class Process(OwnProcess):
        pass

    class Context:
        RawArray = staticmethod(lambda kind, count: [0] * count)
        Pipe = staticmethod(connection.Pipe)

    Context.Process = Process
    monkeypatch.setattr(maps.multiprocessing, "get_context", lambda kind: Context)
    return Process


@pytest.fixture
def collection(tmp_path):
    write_photos(tmp_path / "photos")
    return make_served(tmp_path / "index", tmp_path / "photos")


@pytest.fixture
def call(collection):
    return caller_of(collection)


def map_of(call, path="map"):
    """Ask until the map is there, twice at most."""
    assert call.get(path).status_code in (200, 202)
    answer = call.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status, *words):
    assert answer.status_code == status, answer.text
    assert all(word in answer.json()["detail"] for word in words), answer.text
    assert "/tmp" not in answer.text


def found_ids(call):
    found = call.search({"path": "red/0.png", "top": "200"}).json()["results"]
    return {each["id"]: each for each in found}


def test_the_first_request_begins_the_map_and_the_next_has_it(call):
    first = call.get("map")
    assert first.status_code == 202 and first.headers["retry-after"] == "1"
    assert first.json() == {"status": "being made", "placed": 0, "images": 0}
    answer = call.get("map").json()
    known = found_ids(call)
    assert set(answer["ids"]) == known.keys() and len(answer["ids"]) == 13
    names = [each["name"] for each in answer["classes"]]
    labels = [names[number] for number in answer["class"]]
    assert labels == [known[each]["class"] for each in answer["ids"]]
    assert answer["classes"] == [
        {"name": "blue", "images": 5}, {"name": "green", "images": 4}, {"name": "red", "images": 4},
    ]  # fmt: skip
    assert answer["left_out"] == 0
    for name in ("x", "y"):
        assert len(answer[name]) == 13 and all(0 <= each <= 65535 for each in answer[name])
    right = {label: answer["x"][labels.index(label)] for label in names}
    below = {label: answer["y"][labels.index(label)] for label in names}
    assert max(right, key=right.get) == "red" and max(below, key=below.get) == "green"


def test_a_map_that_the_browser_has_is_not_sent_again(call):
    map_of(call)
    answer = call.get("map")
    tag = answer.headers["etag"]
    again = call.get("map", headers={"if-none-match": tag})
    assert again.status_code == 304 and not again.content
    assert call.get("map", headers={"if-none-match": '"other"'}).content == answer.content


def test_a_restart_finds_the_map(collection, call, process):
    before = map_of(call)
    assert caller_of(collection).get("map").json() == before
    assert process.started == 1


def test_a_collection_that_changed_has_another_map(collection, call, process):
    before = map_of(call)
    with closing(sqlite3.connect(collection.folder / "images.sqlite")) as base:
        base.execute("DELETE FROM images WHERE path = ?", (os.fsencode("red/0.png"),))
        base.commit()
    assert call.get("map").status_code == 202
    after = map_of(call)
    assert len(after["ids"]) == 12 and set(after["ids"]) < set(before["ids"])
    assert process.started == 2


def test_the_key_is_what_the_map_is_made_of(collection):
    before = read_map_images(collection).key
    collection.change(batch_size=9)
    assert read_map_images(Collection.open(collection.folder)).key == before
    collection.change(fingerprint="another-model")
    assert read_map_images(collection).key != before
    collection.change(fingerprint=Collection.open(collection.folder).settings.fingerprint)
    other = read_map_images(collection).key
    with closing(sqlite3.connect(collection.folder / "images.sqlite")) as base:
        base.execute("UPDATE images SET class = ? WHERE path = ?", (b"blue", b"red/0.png"))
        base.commit()
    assert read_map_images(collection).key != other


def test_while_another_map_is_made_the_answer_says_so(tmp_path, collection, process):
    write_photos(tmp_path / "more", copies=False)
    second = make_served(tmp_path / "second", tmp_path / "more")
    process.runs = False
    call = caller_of(collection, second)
    assert call.get("map").json()["status"] == "being made"
    answer = call.get("map?collection=second")
    assert answer.status_code == 202 and answer.json()["status"] == "waiting"
    assert call.get("map").json()["status"] == "being made"
    assert call.search({"path": "red/0.png"}).status_code == 200
    refused(call.get("map?collection=third"), 404, "collection")
    assert process.started == 1


def test_a_map_that_fails_is_told_and_not_tried_again(collection, call, process, capsys):
    (collection.folder / "embeddings.bin").write_bytes(b"")
    assert call.get("map").status_code == 202
    refused(call.get("map"), 500, "could not be made")
    assert "no map can be made" in capsys.readouterr().err
    refused(call.get("map"), 500, "could not be made")
    assert not capsys.readouterr().err  # once
    assert process.started == 1


def test_an_error_nobody_foresaw_reaches_whoever_runs_the_server(call, monkeypatch, capfd):
    """Not by the standard error of the process that makes the map, which may be discarded."""
    monkeypatch.setattr(planar_map, "map_points", lambda *_, **__: 1 / 0)
    call.get("map")
    assert "Traceback" not in capfd.readouterr().err
    refused(call.get("map"), 500, "could not be made")
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_full_disk_is_told(collection, call, monkeypatch, capsys):
    monkeypatch.setattr(maps, "MOST_BYTES", 10)
    call.get("map")
    refused(call.get("map"), 500, "could not be made")
    assert "cannot be written" in capsys.readouterr().err


def test_without_scikit_learn_the_answer_says_what_to_install(call, monkeypatch):
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    refused(call.get("map"), 409, "scikit-learn", 'pip install "deep-ranking[serve]"')


def test_a_collection_of_milvus_has_a_map_without_its_server(collection):
    """The rows are in the folder of the collection, whatever index searches them."""
    collection.change(index={"kind": "milvus", "uri": "http://127.0.0.1:1"})
    folder = collection.folder.with_name("kept")
    folder.mkdir()
    progress = [0, 0]
    map_process.write_map(None, collection.folder, folder, 1 << 20, progress)
    assert progress == [13, 13]
    (file,) = folder.iterdir()
    assert len(json.loads(file.read_bytes())["ids"]) == 13


def test_of_very_many_images_some_are_drawn_and_the_others_counted(call, monkeypatch):
    monkeypatch.setattr(map_file, "MOST_IMAGES", 5)
    answer = map_of(call)
    assert len(answer["ids"]) == len(answer["x"]) == 5 and answer["left_out"] == 8
    assert sum(each["images"] for each in answer["classes"]) == 5


def test_positions_keep_their_shape(collection):
    images = read_map_images(collection)
    positions = np.zeros((13, 2))
    positions[0], positions[1] = (-2, 3), (2, 5)  # 4 wide and 5 high, with the others at 0, 0
    answer = json.loads(map_body(images, positions))
    assert (answer["y"][2], answer["y"][0], answer["y"][1]) == (0, 39321, 65535)
    assert (answer["x"][0], answer["x"][2], answer["x"][1]) == (6553, 32768, 58982)
    answer = json.loads(map_body(images, np.ones((13, 2))))
    assert set(answer["x"]) == set(answer["y"]) == {32768}


def test_images_of_ids(call):
    known = list(found_ids(call))
    ids = [known[3], "0" * 32, known[0], "x", known[3]]
    answer = call.post("images", {"ids": ",".join(ids)}).json()
    assert [each["id"] for each in answer["images"]] == [known[3], known[0], known[3]]
    assert answer["unknown"] == 2 and answer["collection"] == "index"
    wanted = found_ids(call)[known[0]]
    assert answer["images"][1] == {
        name: wanted[name] for name in ("id", "path", "class", "thumbnail")
    }
    named = call.post("images", {"path": wanted["path"]}).json()
    assert named["images"] == [answer["images"][1]] and named["unknown"] == 0
    lacking = call.post("images", {"path": "../" + wanted["path"]}).json()
    assert lacking["images"] == [] and lacking["unknown"] == 1
    refused(call.post("images", {"path": wanted["path"], "ids": known[0]}), 422, "ids")
    for bad in (
        {"collection": "index"},
        {"ids": ","},
        {"ids": ",".join(["0" * 32] * 201)},
        {"id": "0" * 32},
    ):
        refused(call.post("images", bad), 422, "id")
    assert len(call.post("images", {"ids": ",".join(["0" * 32] * 200)}).json()["images"]) == 0


def test_the_description_tells_that_the_map_may_be_being_made(call):
    paths = call("GET", "/api/openapi.json").json()["paths"]
    answers = paths["/api/v1/map"]["get"]["responses"]
    kinds = {
        status: answers[status]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for status in ("200", "202")
    }
    assert kinds == {"200": "MapAnswer", "202": "MapProgress"}


def test_the_client_waits_for_the_map(monkeypatch, call):
    made = map_of(call)
    progress = {"status": "being made", "placed": 1, "images": 2}
    answers = [progress, progress, made]
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(Client, "_ask", lambda *_, **__: answers.pop(0))
    assert Client().map() == made
    answers = [progress] * 3
    with pytest.raises(InputError, match="being made and not ready"):
        Client().map("index", patience=-1)


def test_what_is_not_kept_is_removed_when_the_server_ends(collection, process):
    settings = ServerSettings(cache_bytes=0)
    maker = MapMaker(settings.cache_bytes)
    state = OpenState("index", collection.folder)
    create_application({}, settings, maker)
    maker.find(state)
    assert isinstance(maker.find(state), MadeMap)
    folder = maker._folder
    assert len(list(folder.iterdir())) == 1
    maker.close()
    assert not folder.exists()


@pytest.mark.slow
def test_a_process_makes_the_map_and_ends_when_it_is_told(collection, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("DEEP_RANKING_CACHE", str(collection.folder.parent / "own"))
    state = OpenState("index", collection.folder)
    maker = MapMaker(1)
    try:
        found = maker.find(state)
        process = maker._job.process
        while not isinstance(found, MadeMap):
            time.sleep(0.2)
            found = maker.find(state)
        assert maker._job.progress[:] == [13, 13]
        assert len(json.loads(found.data)["ids"]) == 13
        process.join()
        assert process.exitcode == 0
        for each in (collection.folder.parent / "own" / "maps").iterdir():
            each.unlink()
        maker.find(state)
        process = maker._job.process
        assert process.is_alive()
    finally:
        maker.close()
    assert process.exitcode == -15
