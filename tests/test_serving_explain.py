"""Why two images are alike, as the API says it; and that an upload is embedded once."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from served import SIZE, CornerEngine, caller_of, make_served, write_photos

from deep_ranking.embedding.embedder import Embedder
from deep_ranking.model.calibration import Calibration
from deep_ranking.serving import client as client_module
from deep_ranking.serving.client import Client, Match
from deep_ranking.serving.opened import ServedCollection


@pytest.fixture
def engine(monkeypatch):
    engine = CornerEngine()
    monkeypatch.setattr(Embedder, "engine", lambda *_: engine)
    monkeypatch.setattr(Embedder, "image_size", SIZE)
    return engine


@pytest.fixture
def root(tmp_path):
    write_photos(tmp_path / "photos")
    noise = np.random.default_rng(0).integers(0, 240, (64, 96, 3), np.uint8)
    for number in (0, 1):  # the second one is a little brighter
        Image.fromarray(noise + 15 * np.uint8(number)).save(
            tmp_path / "photos" / "red" / f"noise{number}.png"
        )
    return tmp_path / "photos"


@pytest.fixture
def collection(tmp_path, root):
    return make_served(tmp_path / "index", root, image_size=SIZE)


@pytest.fixture
def call(engine, collection):
    return caller_of(collection)


def id_of(call, path):
    return call.search({"path": path, "top": "1"}).json()["results"][0]["id"]


def test_heat_is_where_the_engine_looks(call, root):
    name = id_of(call, "red/noise0.png")
    answer = call.post(
        "explain", {"first": name}, second=(root / "red" / "noise1.png").read_bytes()
    )
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["first"]["path"] == "red/noise0.png" and told["first"]["class"] == "red"
    assert told["second"] is None and told["probability"] is told["words"] is None
    assert told["cosine"] == pytest.approx(1 - told["distance"] ** 2 / 2, abs=1e-6)
    assert len(told["heat"]) == 2
    for each in told["heat"]:
        grid = np.array(each["grid"])
        assert grid.shape == (7, 7) and grid.max() == 1 and grid.min() >= 0
        assert (
            grid[5:].max() < 1e-3 and grid[:, 5:].max() < 1e-3
        )  # beyond the quarter and its patch
        assert each["strongest"] > 0.01 and "with it covered" in each["words"]


def test_a_pair_is_computed_once(call, engine, root):
    files = [(root / "red" / f"noise{number}.png").read_bytes() for number in (0, 1)]
    first = call.post("explain", first=files[0], second=files[1])
    num_images = engine.num_images
    assert num_images == 100
    again = call.post("explain", first=files[0], second=files[1])
    names = {name: id_of(call, f"red/noise{number}.png") for name, number in
             (("first", 0), ("second", 1))}  # fmt: skip
    by_id = call.post("explain", names)
    picture = call.post("explain", names | {"as": "picture"})
    assert picture.status_code == 200 and engine.num_images == num_images
    assert first.json() == again.json() and first.json()["heat"] == by_id.json()["heat"]


def test_the_picture_shows_both_images_with_their_heat(call):
    names = {"first": id_of(call, "red/noise0.png"), "second": id_of(call, "red/noise1.png")}
    answer = call.post("explain", names | {"as": "picture"})
    assert answer.headers["content-type"] == "image/jpeg"
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    assert pixels.shape == (480, 2 * 720 + 16, 3)
    warmth = pixels[..., 0] - pixels[..., 2]
    for begin in (0, 736):
        quarter = warmth[:200, begin : begin + 300]
        assert quarter.mean() > 20 + abs(warmth[360:, begin + 480 : begin + 720]).mean()


def test_a_box_of_the_first_image(call, root):
    """The lower right quarter alone: its own upper left is what the engine sees."""
    buffer = io.BytesIO()  # other bytes than those of the collection, whose rows are made up
    Image.open(root / "red" / "noise0.png").save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    whole = call.post("explain", first=data, second=data).json()
    compared = call.post("compare", {"box": "0.5,0.5,0.5,0.5"}, first=data, second=data).json()
    part = call.post("explain", {"box": "0.5,0.5,0.5,0.5"}, first=data, second=data).json()
    assert whole["distance"] == 0 and part["distance"] > 0
    assert compared["distance"] == pytest.approx(part["distance"], abs=1e-6)
    part_picture = call.post(
        "explain", {"box": "0.5,0.5,0.5,0.5", "as": "picture"}, first=data, second=data
    )
    assert Image.open(io.BytesIO(part_picture.content)).size == (720 + 16 + 720, 480)
    wide = {"box": "0,0.5,1,0.25", "as": "picture"}  # 96 x 16 pixels, shown 960 wide
    picture = call.post("explain", wide, first=data, second=data).content
    assert Image.open(io.BytesIO(picture)).size == (960 + 16 + 720, 480)


def test_calibrated_models_tell_the_probability(tmp_path, root, engine):
    calibration = Calibration((0.0, 2.0), (0.9, 0.1), (0.0,), (2.0,), 1.0, 20)
    call = caller_of(make_served(tmp_path / "index", root, calibration=calibration))
    name = id_of(call, "red/noise0.png")
    told = call.post("explain", {"first": name, "second": name}).json()
    same = call.post("compare", {"first": name, "second": name}).json()
    assert told["probability"] == same["probability"] == pytest.approx(0.9)
    assert told["words"] == same["words"] == "likely the same"


@pytest.mark.parametrize(
    ("fields", "files", "status", "words"),
    [({}, {}, 422, "two images"), ({}, {"first": b"x"}, 422, "two images"),
     ({}, {"first": b"x", "second": b"x"}, 422, "first: not an image"),
     ({"first": "0" * 32}, {"second": b"x"}, 404, "first: no such image"),
     ({"as": "tiff"}, {}, 422, "as: "), ({"box": "0,0,2,1"}, {}, 422, "box: "),
     ({"box": "0,0,.5,1"}, {"first": b"x", "second": b"x"}, 422, "first: not an image"),
     ({"colour": "red"}, {}, 422, "colour: no such field")],
)  # fmt: skip
def test_what_cannot_be_explained(call, fields, files, status, words):
    answer = call.post("explain", fields or {"as": "json"}, **files)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


def test_a_file_that_is_gone(call, root):
    name = id_of(call, "red/noise0.png")
    (root / "red" / "noise0.png").unlink()
    assert call.post("explain", {"first": name, "second": name}).status_code == 410


def test_compare_tells_what_is_known_of_its_images(call, root):
    data = (root / "red" / "noise0.png").read_bytes()
    told = call.post("compare", {"first": id_of(call, "green/0.png")}, second=data).json()
    assert told["first"]["class"] == "green" and told["first"]["path"] == "green/0.png"
    assert told["second"] is None


def test_two_pages_of_an_upload_embed_it_once(call, engine):
    buffer = io.BytesIO()
    Image.fromarray(np.full((30, 20, 3), (200, 60, 40), np.uint8)).save(buffer, "PNG")
    for box in ({}, {"box": "0,0,.5,.5"}):
        before = engine.num_images
        first = call.search({"top": "5"} | box, image=buffer.getvalue()).json()
        rest = {"top": "5", "cursor": first["cursor"]} | box
        second = call.search(rest, image=buffer.getvalue()).json()
        assert engine.num_images == before + 1
        ids = [each["id"] for answer in (first, second) for each in answer["results"]]
        assert len(set(ids)) == 10
    before = engine.num_images
    call.search({"path": "red/0.png"}, positive=buffer.getvalue())
    assert engine.num_images == before  # as an example, too


def test_rows_of_uploads_go_with_the_state_of_their_collection(collection):
    served = ServedCollection("index", collection.folder)
    served.current().upload_rows.keep((b"", None), np.ones((1, 4), np.float32))
    collection.change(batch_size=5)
    assert served.current().upload_rows.find((b"", None)) is None


def test_the_client_asks_with_files_and_matches(call, root, monkeypatch):
    def urlopen(request, timeout):
        path = request.full_url.removeprefix("http://127.0.0.1:8000")
        headers = {"content-type": request.get_header("Content-type")}
        return io.BytesIO(call("POST", path, content=request.data, headers=headers).content)

    monkeypatch.setattr(client_module, "urlopen", urlopen)
    client, file = Client(), root / "red" / "noise1.png"
    match = Match(id_of(call, "red/noise0.png"), 1, "red/noise0.png", "red", 0.0, None)
    told = client.explain(match, file, box="0,0,1,1")
    assert told["first"]["path"] == match.path and told["second"] is None
    assert client.compare(file.read_bytes(), match)["second"]["path"] == match.path
    assert client.explanation_picture(match, file)[:2] == b"\xff\xd8"


def test_the_description_names_both_answers(call):
    described = json.loads(call("GET", "/api/openapi.json").text)["paths"]["/api/v1/explain"]
    assert set(described["post"]["responses"]["200"]["content"]) == {
        "application/json", "image/jpeg"
    }  # fmt: skip
    (form,) = described["post"]["requestBody"]["content"].values()
    assert set(form["schema"]["properties"]) == {"collection", "box", "as", "first", "second"}
