"""Plus and minus examples of a search become answers, which can be taken back."""

import dataclasses

import pytest
from served import caller_of, make_served, use_stub_engine, write_photos

from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer
from deep_ranking.serving.settings import ServerSettings

NAMED = {"collection": "index", "rater": "Ann"}


@pytest.fixture
def ratings(tmp_path):
    return tmp_path / "ratings.csv"


@pytest.fixture
def call(tmp_path, ratings, monkeypatch):
    use_stub_engine(monkeypatch)
    write_photos(tmp_path / "photos")
    collection = make_served(tmp_path / "index", tmp_path / "photos")
    return caller_of(collection, settings=ServerSettings(ratings=ratings))


def id_of(call, path):
    return call.search({"path": path, "top": "1"}).json()["results"][0]["id"]


def teach(call, query, plus, minus=(), **changes):
    form = {
        **NAMED,
        "id": id_of(call, query),
        "positive": [id_of(call, each) for each in plus],
        "negative": [id_of(call, each) for each in minus],
    }
    return call.post("teach/examples", form | changes)


def kept(ratings):
    answers = AnswerLog(ratings).standing().answers
    assert {(each.rater, each.answer, each.asked) for each in answers} <= {
        ("Ann", "chosen", "example")
    }
    return [(each.query, each.chosen, each.other) for each in answers]


def test_each_plus_example_is_more_alike_than_each_minus_example(call, ratings):
    done = teach(call, "red/0.png", ["red/1.png", "blue/1.png"], ["green/0.png", "green/3.png"])
    assert done.json() == {"answers": 4, "already": 0}
    assert kept(ratings) == [
        ("red/0.png", plus, minus)
        for plus in ("red/1.png", "blue/1.png")
        for minus in ("green/0.png", "green/3.png")
    ]
    (model,) = {each.model for each in AnswerLog(ratings).standing().answers}
    assert len(model) == 32


def test_without_minus_examples_the_nearest_three_that_rank_before_are_the_others(call, ratings):
    found = call.search({"path": "red/0.png", "top": "20"}).json()["results"]
    order = [each["path"] for each in found]
    plus = ["blue/2.png", "red/2.png"]
    assert order.index("red/2.png") == 2 and order.index("blue/2.png") > 5
    assert teach(call, "red/0.png", plus).json() == {"answers": 4, "already": 0}
    before = [path for path in order[1:] if path not in plus][:3]
    assert kept(ratings) == [
        *(("red/0.png", "blue/2.png", path) for path in before),
        ("red/0.png", "red/2.png", "red/1.png"),
    ]


def test_what_ranks_first_teaches_nothing(call, ratings):
    assert teach(call, "red/0.png", ["red/1.png"]).json() == {"answers": 0, "already": 0}
    assert not ratings.exists()


def test_what_stands_is_not_kept_twice_and_all_can_be_taken_back(call, ratings):
    own = Answer("2026-11-29T19:30:28Z", "Ann", "red/0.png", "red/1.png", "blue/0.png")
    AnswerLog(ratings).add(own)
    teach(call, "red/0.png", ["red/1.png"], ["green/0.png"])
    again = teach(call, "red/0.png", ["red/1.png"], ["green/0.png", "green/1.png"])
    assert again.json() == {"answers": 1, "already": 1}
    too_many = call.post("teach/examples/take_back", NAMED | {"answers": "3"})
    assert too_many.status_code == 409
    assert len(AnswerLog(ratings).standing().answers) == 3
    back = call.post("teach/examples/take_back", NAMED | {"answers": "2"})
    assert back.json() == {"answers": 2, "already": 0}
    (left,) = AnswerLog(ratings).standing().answers
    assert left == own


def test_what_cannot_be_an_answer_is_refused(call, ratings, tmp_path):
    photo = (tmp_path / "photos" / "red" / "0.png").read_bytes()
    one = id_of(call, "red/1.png")
    form = NAMED | {"id": id_of(call, "red/0.png")}
    refused = [
        call.post("teach/examples", form, positive=photo),  # one's own picture
        call.post("teach/examples", form),
        call.post("teach/examples", form | {"positive": one, "negative": one}),
        call.post("teach/examples", form | {"positive": form["id"]}),
    ]
    assert [each.status_code for each in refused] == [422] * 4
    assert "about images of the collection" in refused[0].json()["detail"]
    unknown = call.post("teach/examples", form | {"positive": "0" * 32})
    assert unknown.status_code == 404
    # blue/copy.png has the content of blue/0.png
    copies = teach(call, "blue/0.png", ["blue/copy.png"], ["red/0.png"])
    assert copies.status_code == 422
    assert not ratings.exists()


def test_without_teach_there_is_nothing_to_teach(tmp_path, monkeypatch):
    use_stub_engine(monkeypatch)
    write_photos(tmp_path / "photos")
    collection = make_served(tmp_path / "index", tmp_path / "photos")
    settings = dataclasses.replace(ServerSettings(), ratings=None)
    call = caller_of(collection, settings=settings)
    assert teach(call, "red/0.png", ["red/1.png"]).status_code == 403
