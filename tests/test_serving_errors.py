"""Errors of a model over HTTP: what is told, which corrections are kept, and what is refused."""

import errno
import os
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from served import caller_of, make_served, refused, write_photos

from deep_ranking.cli.serve import BESIDE, corrections_path
from deep_ranking.datasets.corrections import Correction, CorrectionLog, read_corrections
from deep_ranking.files import InputError
from deep_ranking.search.collection import GalleryImage
from deep_ranking.serving.errors import errors
from deep_ranking.serving.settings import ServerSettings

pytest_plugins = ("served",)
pytestmark = pytest.mark.usefixtures("stub_engine")


@pytest.fixture
def collection(tmp_path):
    """Four pictures of each colour; blue/3.png lies among the red ones."""
    root = tmp_path / "photos"
    write_photos(root, copies=False)
    (root / "blue/3.png").rename(root / "red/blue.png")
    return make_served(tmp_path / "index", root)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.csv"


@pytest.fixture
def call(collection, path):
    return caller_of(collection, settings=ServerSettings(corrections=path))


def found_by(call, **parameters):
    answer = call.get("errors", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def suspect(call):
    return found_by(call)["suspects"][0]["image"]


def test_errors_are_told_with_their_pictures(call):
    found = found_by(call)
    assert found["images"] == 12 and found["classes"] == ["blue", "green", "red"]
    first = found["suspects"][0]
    assert first["image"]["path"] == "red/blue.png" and first["proposed"] == "blue"
    assert first["witness"]["path"] == "blue/2.png"
    assert first["evidence"].startswith("3 of its 10 nearest are blue; the nearest red is at rank ")
    wrong = [each for pair in found["confused"] for each in pair["examples"]]
    assert "red/blue.png" in {each["image"]["path"] for each in wrong}
    assert all(each["nearest"]["class"] != each["image"]["class"] for each in wrong)
    assert all(each["own"]["class"] == each["image"]["class"] for each in wrong)
    health = call.get("health").json()
    assert health["corrections"] and not health["teach"]


def test_a_correction_is_on_the_disk_and_taken_back(call, path):
    image = suspect(call)
    told = call.post("errors/correct", {"id": image["id"], "class": " blue ", "who": "Ann"})
    assert told.json() == {
        "id": image["id"], "from_class": "red", "to_class": "blue", "is_new_class": False,
    }  # fmt: skip
    (kept,) = read_corrections(path).standing.values()
    assert (kept.path, kept.from_class, kept.to_class, kept.who) == (
        "red/blue.png", "red", "blue", "Ann",
    )  # fmt: skip
    found = found_by(call)
    assert found["since"] == 1
    assert image["id"] not in {each["image"]["id"] for each in found["suspects"]}
    again = found_by(call, anew="true")
    assert again["since"] == 0 and not again["confused"]

    new = call.post("errors/correct", {"id": image["id"], "class": "violet"}).json()
    assert new["from_class"] == "red" and new["is_new_class"]
    none = call.post("errors/correct", {"id": image["id"], "none": "true"}).json()
    assert none["to_class"] == ""
    listed = call.get("errors/corrections").json()
    assert listed["total"] == 1 and listed["corrections"][0]["id"] == image["id"]
    classes = [call.post("errors/take_back", {"id": image["id"]}).json()["class"] for _ in range(3)]
    assert classes == ["violet", "blue", "red"]
    refused(call.post("errors/take_back", {"id": image["id"]}), 409, "no correction of this image")
    assert len(read_corrections(path)) == 0 and found_by(call, anew="true")["confused"]


def test_a_label_that_is_right_is_suspected_no_more(call, path):
    image = suspect(call)
    assert found_by(call)["num_right"] == 0
    told = call.post("errors/correct", {"id": image["id"], "right": "true", "who": "Ann"}).json()
    assert (told["from_class"], told["to_class"]) == ("red", "red")
    for found in (found_by(call), found_by(call, anew="true")):
        assert image["id"] not in {each["image"]["id"] for each in found["suspects"]}
        assert found["num_right"] == 1
        assert found["confused"]  # the model errs all the same
    refused(call.post("errors/correct", {"id": image["id"], "right": "true"}), 409, "said already")
    (listed,) = call.get("errors/corrections").json()["corrections"]
    assert (listed["from_class"], listed["to_class"]) == ("red", "red")
    assert call.post("errors/take_back", {"id": image["id"]}).json()["class"] == "red"
    assert found_by(call, anew="true")["suspects"][0]["image"] == image

    for fields in ({"class": "green"}, {"right": "true"}):  # a corrected class is right, too
        assert call.post("errors/correct", {"id": image["id"]} | fields).status_code == 200
    assert found_by(call, anew="true")["num_right"] == 1


def test_corrections_that_the_collection_has_already_are_taken_back_too(collection, path, call):
    """An index that was brought up to date has the corrected class; the file knows the other."""
    image = suspect(call)
    CorrectionLog(path).add(Correction("red/blue.png", "violet", "red"))
    assert found_by(call, anew="true")["suspects"][0]["image"]["class"] == "red"
    told = call.post("errors/correct", {"id": image["id"], "class": "blue"}).json()
    assert told["from_class"] == "violet"  # what the folders say
    for expected in ("red", "violet"):
        assert call.post("errors/take_back", {"id": image["id"]}).json()["class"] == expected
    assert "violet" in found_by(call, anew="true")["classes"]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"class": "red"}, 409, "that is its class already"),
        ({}, 422, "send the right class, or none=true"),
        ({"class": "a", "none": "true"}, 422, "send the right class, or none=true"),
        ({"class": "a\nb"}, 422, "class: to_class must be up to"),
        ({"id": "0" * 32, "class": "a"}, 404, "no such image"),
    ],
)
def test_wrong_corrections_are_refused(call, path, fields, status, said):
    refused(call.post("errors/correct", {"id": suspect(call)["id"]} | fields), status, said)
    assert not path.exists()


def test_a_server_that_takes_no_corrections_tells_errors_alone(collection):
    call = caller_of(collection)
    image = suspect(call)
    for what in ("correct", "take_back"):
        refused(call.post(f"errors/{what}", {"id": image["id"], "class": "blue"}), 403, "start it")
    refused(call.get("errors/corrections"), 403, "start it with --corrections")


def test_a_full_disk_is_said(call, path, monkeypatch):
    image = suspect(call)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        refused(
            call.post("errors/correct", {"id": image["id"], "class": "blue"}), 507, "disk is full"
        )
    assert call.get("errors/corrections").json()["total"] == 0


def test_a_part_of_a_large_collection_is_compared(call, monkeypatch):
    monkeypatch.setattr(errors, "MOST_IMAGES", 9)
    found = found_by(call)
    assert (found["images"], found["left_out"]) == (9, 3)


def test_of_many_images_only_those_that_are_compared_are_held(monkeypatch):
    monkeypatch.setattr(errors, "MOST_IMAGES", 10)
    count = 8_000
    embeddings = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)

    class Table:
        def images(self):
            for row in range(count):
                yield GalleryImage(f"{'folder/' * 20}{row}.png", "ab"[row % 2], row)

        def close(self):
            pass

    collection = SimpleNamespace(
        settings=SimpleNamespace(index={"kind": "exact"}, dimension=4),
        images=Table,
        embeddings=lambda: embeddings,
    )
    tracemalloc.start()
    try:
        found = errors.find_collection_errors(collection)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found.images), found.num_left_out) == (10, count - 10)
    assert peak < 100 * count  # bytes; the paths alone have 145 an image


def test_one_class_is_told(tmp_path):
    write_photos(tmp_path / "photos")
    call = caller_of(make_served(tmp_path / "index", tmp_path / "photos/red"))
    refused(call.get("errors"), 409, "fewer than two")


def test_corrections_of_another_collection_are_refused(collection, path):
    CorrectionLog(path).add(Correction("elsewhere.png", "a", "b"))
    with pytest.raises(InputError, match="none of its 1 image is in"):
        caller_of(collection, settings=ServerSettings(corrections=path))


def test_where_corrections_go_by_default(collection, tmp_path):
    assert corrections_path(None, collection.folder) is None
    assert corrections_path(BESIDE, collection.folder) == tmp_path / "index.corrections.csv"
    collection.change(folders={"corrections": str(tmp_path / "own.csv")})
    assert corrections_path(BESIDE, collection.folder) == tmp_path / "own.csv"
