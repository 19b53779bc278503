"""What the API answers, to good requests and to bad ones."""

import io
import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image
from served import COLOURS, caller_of, make_served, refused, row_of, write_photos

from deep_ranking.files import InputError
from deep_ranking.model.hit_calibration import HitCalibration
from deep_ranking.model.logistic_regression import LogisticRegression
from deep_ranking.search.collection import Collection
from deep_ranking.search.feedback import moved_queries
from deep_ranking.search.index.kinds import open_index
from deep_ranking.search.searcher import Searcher
from deep_ranking.search.smoothed_collection import update_smoothing
from deep_ranking.serving import opened as opened_module
from deep_ranking.serving.image_ids import image_id

HITS = HitCalibration(
    None, LogisticRegression((1.0, 0.0, 0.0, 0.0), (1.0,) * 4, (-4.0, 0.0, 0.0, 0.0), 0.0), 20
)
KEYS = {"id", "rank", "path", "class", "distance", "probability", "thumbnail"}


pytest_plugins = ("served",)
pytestmark = pytest.mark.usefixtures("stub_engine")


@pytest.fixture
def call(collection):
    return caller_of(collection)


@pytest.fixture(scope="module")
def shared_call(tmp_path_factory):
    """Calls a server that several tests share, for requests that change nothing."""
    folder = tmp_path_factory.mktemp("shared")
    write_photos(folder / "photos")
    return caller_of(make_served(folder / "index", folder / "photos"))


def results_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def paths_of(answer):
    return [each["path"] for each in results_of(answer)]


def id_of(call, path):
    return results_of(call.search({"path": path, "top": "1"}))[0]["id"]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def two_halves():
    """An image whose left half is green, and whose right half is blue."""
    pixels = np.zeros((80, 80, 3), np.uint8)
    pixels[:, :40], pixels[:, 40:] = COLOURS["green"], COLOURS["blue"]
    return pixels


def by_distance(row, root):
    """The paths of all images, nearest first, by a loop."""
    found = []
    for path in sorted(root.rglob("*.png")):
        found.append((float(np.linalg.norm(row_of(path) - row)), str(path.relative_to(root))))
    return sorted(found)


def test_health_and_collections(call):
    health = call.get("health").json()
    assert health["status"] == "ok" and health["version"]
    (collection,) = call.get("collections").json()["collections"]
    assert collection["name"] == "index" and collection["images"] == 13
    counts = {each["name"]: each["images"] for each in collection["classes"]}
    assert counts == {"blue": 5, "green": 4, "red": 4}
    assert collection["precision"] == "float32" and not collection["smoothed"]
    assert not collection["probabilities"]


def test_an_upload_finds_what_a_loop_finds(call, root):
    data = png(np.full((30, 20, 3), (200, 60, 40)))
    found = results_of(call.search({"top": "13"}, image=data))
    wanted = by_distance(row_of(data), root)
    assert [each["path"] for each in found] == [path for _, path in wanted]
    np.testing.assert_allclose(
        [each["distance"] for each in found], [distance for distance, _ in wanted], atol=1e-6
    )
    assert [each["rank"] for each in found] == list(range(1, 14))
    assert all(set(each) == KEYS for each in found)
    assert found[0]["class"] == "red"
    assert found[0]["thumbnail"] == f"/api/v1/images/{found[0]['id']}/thumbnail"


def test_path_id_and_the_bytes_of_a_known_image_open_no_model(call, root, monkeypatch):
    monkeypatch.setattr(opened_module.Collection, "embedder", None)
    by_path = call.search({"path": "red/1.png"})
    by_id = call.search({"id": results_of(by_path)[0]["id"]})
    by_bytes = call.search(image=(root / "red" / "1.png").read_bytes())
    assert paths_of(by_path) == paths_of(by_id) == paths_of(by_bytes)
    assert results_of(by_path)[0]["distance"] == 0


def test_a_cursor_continues_to_the_end(call):
    data, seen, cursor = {"path": "red/1.png", "top": "5"}, [], None
    while True:
        answer = call.search(data | ({"cursor": cursor} if cursor else {}))
        seen += results_of(answer)
        cursor = answer.json()["cursor"]
        if cursor is None:
            break
    whole = results_of(call.search({"path": "red/1.png", "top": "200"}))
    assert seen == whole and len(whole) == 13


def test_a_cursor_of_another_search_is_refused(call):
    cursor = call.search({"path": "red/1.png", "top": "5"}).json()["cursor"]
    refused(call.search({"path": "red/2.png", "cursor": cursor}), 422, "cursor", "another search")
    for bad in ("x", "WzFd", "é", "WzUsIDFd", "bnVsbA==", "1" * 5000):
        refused(call.search({"path": "red/1.png", "cursor": bad}), 422, "cursor")


def test_a_box_counts_alone(call):
    for box, colour in (("0,0,0.4,1", "green"), ("0.6,0.2,0.4,0.5", "blue")):
        found = results_of(call.search({"box": box, "top": "3"}, image=png(two_halves())))
        assert {each["class"] for each in found} == {colour}


def test_a_box_lies_on_the_upright_image(call):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half: what is stored on the left is seen on the right
    Image.fromarray(two_halves()).save(buffer, "JPEG", exif=exif, quality=95)
    found = results_of(call.search({"box": "0,0,.4,1", "top": "3"}, image=buffer.getvalue()))
    assert {each["class"] for each in found} == {"blue"}


@pytest.mark.parametrize(
    "box", ["0,0,1.1,1", "0.5,0.5,0.6,0.5", "-0.1,0,1,1", "0,0,0,1", "a,b,c,d", "0,0,1",
            "nan,0,1,1", "1e400,0,1,1", "0,0,1,1,1"],
)  # fmt: skip
def test_a_box_outside_is_refused(shared_call, box):
    refused(shared_call.search({"box": box}, image=png(two_halves())), 422, "box")


def test_class_and_folder(call):
    assert set(paths_of(call.search({"path": "red/1.png", "class": "green"}))) == {
        f"green/{number}.png" for number in range(4)
    }
    assert len(paths_of(call.search({"path": "red/1.png", "folder": "blue/"}))) == 5
    refused(call.search({"path": "red/1.png", "class": "gren"}), 422, "class", "green")
    for folder in ("nowhere", "../x", "/etc", "blue/../red", "..", "./red", "a\0b"):
        refused(call.search({"path": "red/1.png", "folder": folder}), 422, "folder")


def test_probabilities(collection, call):
    refused(call.search({"path": "red/0.png", "min_probability": "0.5"}), 422, "min_probability")
    collection.change(hits=HITS)
    found = results_of(call.search({"path": "red/0.png", "top": "13"}))
    chances = {each["path"]: each["probability"] for each in found}
    assert all(0 <= chance <= 1 for chance in chances.values())
    least = sorted(chances.values())[6]
    kept = results_of(call.search({"path": "red/0.png", "min_probability": str(least)}))
    assert {each["path"] for each in kept} == {
        path for path, chance in chances.items() if chance >= least
    }
    none = call.search({"path": "red/0.png", "min_probability": "1"})
    assert results_of(none) == [] and none.json()["cursor"] is None


def test_examples_move_the_query(call, root):
    rows = [row_of(root / name / "0.png")[None] for name in ("red", "green", "blue")]
    moved = moved_queries(rows[0], rows[1], rows[2])[0]
    answer = call.search(
        {"path": "red/0.png", "positive": id_of(call, "green/0.png"), "top": "13"},
        negative=(root / "blue" / "0.png").read_bytes(),
    )
    assert paths_of(answer) == [path for _, path in by_distance(moved, root)]
    refused(call.search({"path": "red/0.png", "positive": "0" * 32}), 404, "positive")
    refused(call.search({"path": "red/0.png"}, negative=b"x"), 422, "negative")


def test_positive_examples_alone_are_a_query(call, root):
    files = [(root / name / "0.png").read_bytes() for name in ("green", "blue")]
    mean = np.mean([row_of(each) for each in files], axis=0)
    answer = call.search({"top": "13"}, positive=files)
    wanted = by_distance(mean / np.linalg.norm(mean), root)
    assert paths_of(answer) == [path for _, path in wanted]


@pytest.mark.parametrize(
    ("fields", "word"),
    [({}, "query"), ({"path": "red/0.png", "id": "0" * 32}, "one query"), ({"top": "0"}, "top"),
     ({"top": "201"}, "top"), ({"top": "x"}, "top"), ({"colour": "red"}, "colour"),
     ({"smooth": "true", "path": "red/0.png"}, "smooth"), ({"rerank": "maybe"}, "rerank"),
     ({"min_probability": "2"}, "min_probability"),
     ({"path": ["red/0.png", "red/1.png"]}, "path")],
)  # fmt: skip
def test_fields_that_cannot_be_used(shared_call, fields, word):
    refused(shared_call.search(fields or {"top": "3"}), 422, word)


@pytest.mark.parametrize(
    "path", ["nothing.png", "../index/model.h5", "/etc/passwd", "red/../red/0.png", "red", "a\0b"]
)
def test_paths_are_looked_up_in_the_collection_alone(shared_call, path):
    refused(shared_call.search({"path": path}), 404, "path")


@pytest.mark.parametrize("given", ["0" * 32, "x", "../../etc", "0" * 31, "F" * 32])
def test_unknown_ids(shared_call, given):
    refused(shared_call.search({"id": given}), 404, "id")
    assert shared_call.get(f"images/{given}").status_code == 404


def test_a_form_is_needed(call):
    answer = call("POST", "/api/v1/search", json={"path": "red/0.png"})
    refused(answer, 415, "form")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    refused(call("POST", "/api/v1/search", content=b"--y", headers=headers), 400, "form")
    headers = {"content-type": "multipart/form-data"}
    refused(call("POST", "/api/v1/search", content=b"--y", headers=headers), 400, "form")
    many = [(f"x{number}", (None, b"1")) for number in range(100)]
    refused(call("POST", "/api/v1/search", files=many), 400, "form")


def test_hostile_uploads_are_refused_and_the_server_lives_on(call, root):
    whole = (root / "red" / "0.png").read_bytes()
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    for data in (b"", b"no image", whole[:60], b"\xff\xd8\xff" + bytes(100), bomb.getvalue()):
        refused(call.search(image=data), 422, "image")
        refused(call.search({"box": "0,0,.5,.5"}, image=data), 422, "image")
    assert results_of(call.search(image=whole))


def test_originals_and_thumbnails(call, root):
    name = id_of(call, "red/0.png")
    answer = call.get(f"images/{name}")
    assert answer.content == (root / "red" / "0.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    small = call.get(f"images/{name}/thumbnail?size=20")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.content)).size == (60, 40)  # never enlarged
    for each, path in ((answer, ""), (small, "/thumbnail?size=20")):
        again = call.get(
            f"images/{name}{path}", headers={"if-none-match": f'"x", {each.headers["etag"]}'}
        )
        assert again.status_code == 304 and not again.content
    assert answer.headers["etag"] != small.headers["etag"]
    refused(call.get(f"images/{name}/thumbnail?size=5000"), 422, "size")


def test_thumbnails_are_upright_and_in_shape(tmp_path, root):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    tall = np.zeros((300, 900, 3), np.uint8)
    tall[:, 450:] = 255
    Image.fromarray(tall).save(root / "turned.jpg", exif=exif)
    call = caller_of(make_served(tmp_path / "index", root))
    name = id_of(call, "turned.jpg")
    data = call.get(f"images/{name}/thumbnail?size=128").content
    small = np.asarray(Image.open(io.BytesIO(data)))
    assert small.shape == (128, 43, 3)
    assert small[:50].mean() < 20 and small[-50:].mean() > 235
    assert call.get(f"images/{name}").content == (root / "turned.jpg").read_bytes()


def test_what_browsers_do_not_show_is_sent_as_jpeg(tmp_path, root):
    Image.fromarray(two_halves()).save(root / "scan.tif")
    call = caller_of(make_served(tmp_path / "index", root))
    answer = call.get(f"images/{id_of(call, 'scan.tif')}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (80, 80)


def test_files_that_are_gone_or_changed(call, root):
    gone, changed = id_of(call, "red/0.png"), id_of(call, "red/1.png")
    for name in (gone, changed):  # whoever asked before, the cache is shared
        assert call.get(f"images/{name}/thumbnail").status_code == 200
    (root / "red" / "0.png").unlink()
    (root / "red" / "1.png").write_bytes(png(two_halves()))
    found = {each["path"]: each for each in results_of(call.search({"path": "red/2.png"}))}
    assert found["red/0.png"]["problem"] == "gone"
    assert found["red/1.png"]["problem"] == "changed"
    assert "problem" not in found["red/2.png"]
    refused(call.get(f"images/{gone}"), 410, "gone")
    refused(call.get(f"images/{gone}/thumbnail"), 410, "gone")
    refused(call.get(f"images/{changed}"), 410, "changed")
    refused(call.get(f"images/{changed}/thumbnail"), 410, "changed")
    refused(call.search({"id": changed, "box": "0,0,.5,.5"}), 410, "changed")
    assert results_of(call.search({"id": gone}))  # its row is there


def test_links_out_of_the_root_are_refused(tmp_path, root, collection, call):
    name = id_of(call, "red/0.png")
    file = root / "red" / "0.png"
    outside = tmp_path / "outside.png"
    file.rename(outside)
    file.symlink_to(outside)
    refused(call.get(f"images/{name}"), 403, "link")
    refused(call.get(f"images/{name}/thumbnail"), 403, "link")


def test_copies_of_one_content_have_ids_of_their_own(call):
    found = {each["path"]: each["id"] for each in results_of(call.search({"path": "blue/0.png"}))}
    for path, other in (("blue/0.png", "blue/copy.png"), ("blue/copy.png", "blue/0.png")):
        near = paths_of(call.get(f"images/{found[path]}/neighbours"))
        assert near[0] == other and path not in near


def test_neighbours_leave_the_image_out(call):
    name = id_of(call, "blue/0.png")
    found = call.get(f"images/{name}/neighbours?top=2")
    assert paths_of(found)[0] == "blue/copy.png" and "blue/0.png" not in paths_of(found)
    more = call.get(f"images/{name}/neighbours?top=200&cursor={found.json()['cursor']}")
    assert len(results_of(more)) == 10
    assert results_of(more)[0]["rank"] == 3


def test_compare(call, root):
    data = (root / "green" / "0.png").read_bytes()
    same = call.post("compare", {"first": id_of(call, "green/0.png")}, second=data).json()
    assert same["distance"] == 0 and same["cosine"] == 1 and same["words"] is None
    refused(call.post("compare", {"first": "0" * 32}, second=data), 404, "first")
    refused(call.post("compare", first=data), 422, "two images")
    refused(call.post("compare", first=data, second=b"x"), 422, "second")


def test_duplicates_in_pages(call):
    answer = call.get("duplicates?threshold=0").json()
    (group,) = answer["groups"]
    assert group["keeper"]["path"] == "blue/0.png" and group["why"]
    assert [each["path"] for each in group["others"]] == ["blue/copy.png"]
    first = call.get("duplicates?threshold=0.05&top=1").json()
    assert first["total"] > 1
    second = call.get(f"duplicates?threshold=0.05&top=1&cursor={first['cursor']}").json()
    assert first["groups"] != second["groups"]
    refused(call.get("duplicates?cursor=-1"), 422, "cursor")
    refused(call.get("duplicates?threshold=3"), 422, "threshold")


def test_several_collections_of_one_name(tmp_path, root):
    write_photos(tmp_path / "more", copies=False)
    (tmp_path / "inner").mkdir()
    second = make_served(tmp_path / "inner" / "index", tmp_path / "more")
    call = caller_of(make_served(tmp_path / "index", root), second)
    names = [each["name"] for each in call.get("collections").json()["collections"]]
    assert names == ["index", "index (2)"]
    answer = call.search({"path": "red/0.png", "collection": "index (2)"})
    assert answer.json()["collection"] == "index (2)"
    refused(call.search({"path": "red/0.png", "collection": "other"}), 404, "collection")


def test_a_sync_is_noticed_between_two_requests(collection, call):
    before = id_of(call, "red/0.png")
    with closing(sqlite3.connect(collection.folder / "images.sqlite")) as base:
        base.execute("DELETE FROM images WHERE path = ?", (os.fsencode("red/0.png"),))
        base.commit()
    refused(call.search({"path": "red/0.png"}), 404)
    assert call.get(f"images/{before}").status_code == 404
    assert len(paths_of(call.search({"path": "red/1.png"}))) == 12


def test_a_collection_that_is_gone_comes_back(collection, call, capsys):
    away = collection.folder.with_name("away")
    collection.folder.rename(away)
    for _ in range(2):
        answer = call.search({"path": "red/0.png"})
        refused(answer, 503, "Try again")
        assert answer.headers["retry-after"]
    assert len(capsys.readouterr().err.splitlines()) == 1  # said once to who runs the server
    assert call.get("health").status_code == 200
    away.rename(collection.folder)
    assert results_of(call.search({"path": "red/0.png"}))


@pytest.mark.parametrize(("seconds", "times"), [(60.0, 1), (-1.0, 3)])
def test_a_search_that_fails_is_said_once_a_minute(call, monkeypatch, capsys, seconds, times):
    """As while Milvus is down: its clients shall not fill the log, nor wait as a command does."""

    def fail(searcher, *_, **__):
        assert searcher.collection.retry_seconds <= 5
        raise InputError("Milvus does not answer")

    monkeypatch.setattr(Searcher, "search", fail)
    monkeypatch.setattr(opened_module, "SAY_SECONDS", seconds)
    for _ in range(3):
        refused(call.search({"path": "red/0.png"}), 503, "Try again")
        assert call.get("collections").status_code == 200
    assert capsys.readouterr().err == "index: Milvus does not answer\n" * times


def test_ids_of_copies_differ_and_hide_the_path():
    content = bytes(range(32))
    assert image_id("a/b.png", content) != image_id("a/c.png", content)
    assert image_id("a/b.png", content) == image_id("a/b.png", content)
    assert len(image_id("a/b.png", content)) == 32


def test_names_that_are_no_text(tmp_path, root):
    odd = os.fsdecode(b"red/\xff.png")
    (root / odd).write_bytes(png(two_halves()))
    call = caller_of(make_served(tmp_path / "index", root))
    found = results_of(call.search(image=png(two_halves())))
    assert found[0]["path"] == "red/\ufffd.png"
    assert call.get(f"images/{found[0]['id']}").status_code == 200


def test_smoothed_rows_and_ranking_again(collection, call, root):
    open_ = Collection.open(collection.folder)
    update_smoothing(open_, open_index(open_), smooth=3)
    row = row_of(root / "red" / "1.png")[None]
    for smooth, rerank in ((None, False), (True, True), (False, False), (False, True)):
        fields = {"path": "red/1.png", "top": "13", "rerank": str(rerank).lower()}
        answer = call.search(fields | ({} if smooth is None else {"smooth": str(smooth).lower()}))
        (wanted,) = Searcher(open_, smooth=smooth).search(row, 13, rerank=rerank)
        assert paths_of(answer) == [os.path.relpath(each.path, root) for each in wanted]
        words = "smoothed distance" if smooth is not False else "distance"
        assert answer.json()["ranked_by"] == words + (", again" if rerank else "")
    assert call.get("collections").json()["collections"][0]["smoothed"]


def test_a_request_that_runs_keeps_the_state_that_it_began_with(collection):
    served = opened_module.ServedCollection("index", collection.folder)
    before = served.current()
    assert served.current() is before
    collection.change(batch_size=5)
    after = served.current()
    assert after is not before and after.collection.settings.batch_size == 5
    assert before.collection.settings.batch_size == 4
    assert after.collection.embedder is before.collection.embedder  # the model is not opened anew
    assert before.searcher().search(np.eye(4, dtype=np.float32)[:1], 3)


def test_an_index_of_another_model_is_said_to_be_unusable(tmp_path, root, capsys):
    rows = {f"red/{number}.png": np.eye(8)[number] for number in range(4)}
    call = caller_of(make_collection(tmp_path / "index", root, rows))
    refused(call.search(image=png(two_halves())), 503, "cannot be used")
    assert "8 numbers" in capsys.readouterr().err
    assert paths_of(call.search({"path": "red/2.png", "top": "1"})) == ["red/2.png"]


@pytest.mark.parametrize("kind", ["clusters", "hierarchy"])
def test_other_kinds_of_index(tmp_path, root, kind):
    call = caller_of(make_served(tmp_path / "index", root, index={"kind": kind, "probes": 99}))
    assert call.get("collections").json()["collections"][0]["index"] == kind
    wanted = by_distance(row_of(root / "red" / "1.png"), root)
    found = results_of(call.search({"path": "red/1.png", "top": "13"}))
    assert [each["path"] for each in found] == [path for _, path in wanted]
