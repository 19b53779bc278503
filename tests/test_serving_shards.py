"""A server over shards: answers as of one collection, pictures of the right shard, shards down."""

import threading

import numpy as np
import pytest
from collections_of import make_collection
from served import Caller, caller_of, make_served, row_of

from deep_ranking.cli.main import run_command
from deep_ranking.files import InputError
from deep_ranking.search.collection.image_table import ImageTable
from deep_ranking.search.shards.list_file import short_names
from deep_ranking.serving import opened as opened_module
from deep_ranking.serving.application import create_application
from deep_ranking.serving.opened import open_served
from deep_ranking.serving.settings import ServerSettings

pytest_plugins = ("served",)
pytestmark = pytest.mark.usefixtures("stub_engine")


@pytest.fixture
def shards(tmp_path, root):
    """The list of three shards, of one root and of others below it: each image is in one."""
    paths = sorted(str(each.relative_to(root)) for each in root.rglob("*.png"))
    for name, folder, own in (
        ("one", root, [path for path in paths if not path.startswith("red")][::2]),
        ("two", root, [path for path in paths if not path.startswith("red")][1::2]),
        ("red", root / "red", [path[4:] for path in paths if path.startswith("red")]),
    ):
        (tmp_path / name).mkdir()
        rows = {path: row_of(folder / path) for path in own}
        make_collection(tmp_path / name / "photos.index", folder, rows)
    listed = tmp_path / "photos.shards"
    listed.write_text("one/photos.index\ntwo/photos.index\nred/photos.index\n")
    return listed


def caller(shards, **settings):
    served = open_served([shards], skip_unavailable=settings.get("skip_unavailable", False))
    return Caller(create_application(served, ServerSettings(**settings)))


@pytest.fixture
def call(shards):
    return caller(shards)


def results_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def break_shard(tmp_path, name="two"):
    (tmp_path / name / "photos.index").rename(tmp_path / name / "away")


def test_answers_are_those_of_one_collection(tmp_path, call, root):
    alone = caller_of(make_served(tmp_path / "whole", root))
    ours, wanted = (each.get("collections").json()["collections"][0] for each in (call, alone))
    assert ours["shards"] == 3 and ours["left_out"] == [] and wanted["shards"] == 0
    assert ours["images"] == wanted["images"] == 13
    upload = (root / "green" / "1.png").read_bytes()
    for fields in ({}, {"folder": "red"}, {"rerank": "true"}, {"folder": "blue"}):
        found = [each.search({"top": "13", **fields}, image=upload) for each in (call, alone)]
        ours, wanted = map(results_of, found)
        keys = ("id", "path", "rank", "thumbnail")
        assert [[each[key] for key in keys] for each in ours] == [
            [each[key] for key in keys] for each in wanted
        ]
        np.testing.assert_allclose(
            [each["distance"] for each in ours], [each["distance"] for each in wanted], atol=1e-6
        )
    assert found[0].json()["shards"] == 3 and found[0].json()["left_out"] == []
    assert "shards" not in found[1].json()


def test_ids_lead_to_the_right_shard(call, root):
    for found in results_of(call.search({"path": "red/1.png", "top": "13"})):
        sent = call.get(f"images/{found['id']}")
        assert sent.content == (root / found["path"]).read_bytes()
        assert call.get(f"images/{found['id']}/thumbnail").status_code == 200
        near = results_of(call.get(f"images/{found['id']}/neighbours?top=3"))
        assert len(near) == 3 and found["path"] not in [each["path"] for each in near]
    pair = call.post("compare", {"first": found["id"], "second": near[0]["id"]}).json()
    assert pair["distance"] == pytest.approx(near[0]["distance"])
    assert call.post("images", {"path": "red/2.png"}).json()["images"][0]["path"] == "red/2.png"
    boxed = call.search({"id": found["id"], "box": "0,0,1,1", "top": "1"})
    assert results_of(boxed)[0]["distance"] == pytest.approx(0, abs=1e-3)


def test_a_link_out_of_a_shard_stays_out_of_it(call, root):
    """A link to another shard's folder leads out of its own, although both lie in one."""
    (found,) = results_of(call.search({"path": "red/1.png", "top": "1"}))
    (root / "red" / "1.png").unlink()
    (root / "red" / "1.png").symlink_to(root / "blue" / "1.png")
    assert call.get(f"images/{found['id']}").status_code == 403


def test_cursors_go_on_over_all_shards(call):
    seen, cursor = [], None
    while cursor or not seen:
        answer = call.search(
            {"path": "red/1.png", "top": "4"} | ({"cursor": cursor} if cursor else {})
        )
        seen += results_of(answer)
        cursor = answer.json()["cursor"]
    assert seen == results_of(call.search({"path": "red/1.png", "top": "13"}))


def test_what_is_made_of_one_index_is_refused(call):
    refused = [
        call.get("map"), call.get("duplicates"), call.get("errors"),
        call.get("duplicates/told_apart"), call.get("duplicates/set_aside"),
    ]  # fmt: skip
    for answer in refused:
        assert answer.status_code == 409 and "3 shards" in answer.json()["detail"], answer.text
    least = call.search({"path": "red/1.png", "min_probability": "0.5"})
    assert least.status_code == 422 and "probabilities" in least.json()["detail"]


def test_a_shard_that_goes_is_named_and_comes_back(tmp_path, call):
    break_shard(tmp_path)
    answer = call.search({"path": "red/1.png"})
    assert answer.status_code == 503 and answer.headers["Retry-After"]
    assert "The shard two/photos.index of the collection photos.shards" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text
    (tmp_path / "two" / "away").rename(tmp_path / "two" / "photos.index")
    assert len(results_of(call.search({"path": "red/1.png"}))) == 13


def test_a_shard_is_left_out_if_asked_for_and_named_in_answers(tmp_path, shards):
    call = caller(shards, skip_unavailable=True)
    first = call.search({"path": "red/1.png", "top": "4"}).json()
    assert (first["shards"], first["left_out"]) == (3, [])
    break_shard(tmp_path)
    answer = call.search({"path": "red/1.png"}).json()
    assert (answer["shards"], answer["left_out"]) == (3, ["two/photos.index"])
    assert len(answer["results"]) == 9
    assert call.get("collections").json()["collections"][0]["left_out"] == ["two/photos.index"]
    stale = call.search({"path": "red/1.png", "top": "4", "cursor": first["cursor"]})
    assert stale.status_code == 409 and "another order" in stale.json()["detail"]
    (tmp_path / "two" / "away").rename(tmp_path / "two" / "photos.index")
    assert call.search({"path": "red/1.png"}).json()["left_out"] == []


def test_a_shard_that_fails_in_a_request_is_tried_again_later(tmp_path, shards, monkeypatch):
    """Its files stay the same, as where its Milvus server is down."""
    call = caller(shards, skip_unavailable=True)
    (served,) = open_served([shards], skip_unavailable=True).values()
    table = tmp_path / "one" / "photos.index" / "images.sqlite"
    before = table.read_bytes()
    table.write_bytes(b"no table")
    assert call.search({"path": "red/1.png"}).json()["left_out"] == ["one/photos.index"]
    state = served.current()
    assert [each.name for each in state.collection.left_out] == ["one/photos.index"]
    table.write_bytes(before)
    monkeypatch.setattr(opened_module, "_files_of", lambda _: state.files)
    monkeypatch.setattr(opened_module, "LOOK_AGAIN_SECONDS", 0)
    served.current()
    for thread in threading.enumerate():
        if thread.name == "shards":
            thread.join(timeout=30)
    assert served.current().collection.left_out == []


def test_pictures_are_found_without_a_shard_that_fails(shards, root, monkeypatch):
    call = caller(shards, skip_unavailable=True)
    found = results_of(call.search({"path": "red/1.png", "top": "1"}))[0]
    of_content = ImageTable.of_content

    def fails(table, begin):
        if "one" in table.file.parts:
            raise InputError(f"{table.file}: damaged")
        return of_content(table, begin)

    monkeypatch.setattr(ImageTable, "of_content", fails)
    assert call.get(f"images/{found['id']}").content == (root / "red" / "1.png").read_bytes()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--teach"], "--teach is about one index"),
        (["--corrections"], "--corrections is about one index"),
    ],
)
def test_the_command_refuses_what_is_of_one_index(shards, capsys, flags, reason):
    with pytest.raises(SystemExit):
        run_command("serve", ["--index", str(shards), *flags])
    assert reason in capsys.readouterr().err


def test_names_tell_shards_apart(tmp_path):
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert short_names([tmp_path / "a/i", tmp_path / "b/i"]) == ["a/i", "b/i"]
    assert short_names([tmp_path]) == [tmp_path.name]
