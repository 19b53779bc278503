"""Questions to people over HTTP: which one comes, what is kept, and what is refused."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from collections_of import make_collection
from served import caller_of, make_served, refused

from deep_ranking.cli.main import main
from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer, read_ratings
from deep_ranking.files import InputError
from deep_ranking.search.indexing import index_images
from deep_ranking.serving import running
from deep_ranking.serving.settings import ServerSettings
from deep_ranking.serving.teach import question_pool, teaching
from deep_ranking.serving.teach.question_pool import QuestionPool

NAMED = {"collection": "index"}  # a form has to have a field
TIME = "2026-11-29T19:30:28Z"


pytest_plugins = ("served",)
pytestmark = pytest.mark.usefixtures("stub_engine")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ratings.csv"


def served(collection, path, **settings):
    return caller_of(collection, settings=ServerSettings(ratings=path, **settings))


@pytest.fixture
def call(collection, path):
    return served(collection, path, rater="Ann")


def ask(call, question=None, **fields):
    """The next question; `question` is one that the rater is looking at."""
    pending = {} if question is None else ids_of(question)
    answer = call.post("teach/question", NAMED | pending | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["question"]


def ids_of(question):
    return {side: question[side]["id"] for side in ("query", "a", "b")}


def paths_of(question):
    return tuple(question[side]["path"] for side in ("query", "a", "b"))


def send(call, question, answer="a", **fields):
    about = {"asked": question["asked"], "before": str(question["before"])}
    return call.post("teach/answers", ids_of(question) | about | {"answer": answer} | fields)


def kept(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def lines(path):
    return path.read_text().splitlines()[1:]


def test_without_the_flag_nothing_is_asked_and_no_file_made(collection, path):
    call = caller_of(collection)
    assert call.get("health").json()["teach"] is False
    for answer in (
        call.get("teach"), call.post("teach/question", NAMED), call.post("teach/answers"),
        call.post("teach/take_back", NAMED),
    ):  # fmt: skip
        refused(answer, 403, "start it with --teach")
    assert not path.exists()


def test_each_confirmed_answer_is_in_the_file_as_it_was_given(call, collection, path):
    """In 40 questions, what comes again has its sides swapped, and steadiness is counted."""
    given, seen, same = [], {}, []
    for number in range(40):
        question = ask(call)
        query, a, b = paths_of(question)
        answer = "cannot_say" if number % 8 == 7 else "ab"[number % 3 % 2]
        chosen, other = (b, a) if answer == "b" else (a, b)
        told = kept(send(call, question, answer))
        assert (told["already"], told["rater"]["answers"]) == (False, number + 1)
        word = "cannot_say" if answer == "cannot_say" else "chosen"
        side = "B" if answer == "b" else "A"
        given.append(["Ann", query, chosen, other, word, question["asked"], side])
        assert [line.split(",")[1:8] for line in lines(path)] == given
        before = seen.get((query, frozenset((a, b))))
        assert (before is not None) == question["before"] == (question["asked"] == "repeat")
        if before is not None:
            assert before[:2] == (b, a)
            same += [before[2] == chosen] if word == "chosen" else []
        seen[query, frozenset((a, b))] = (a, b, chosen)
    assert {each[5] for each in given} == {"informative", "random", "repeat"}
    assert {line.split(",")[8] for line in lines(path)} == {collection.settings.fingerprint}
    state = call.get("teach").json()
    (rater,) = state["raters"]
    assert (state["answers"], rater["answers"], rater["cannot_say"]) == (40, 40, 5)
    assert state["images"] == 12 and state["left_out"] == state["gone"] == 0
    assert rater["steadiness"]["compared"] == len(same) > 0
    assert rater["steadiness"]["agreed"] == sum(same)


def test_the_one_after_is_asked_for_while_the_rater_looks(call):
    first = ask(call)
    ahead = ask(call, first)
    assert paths_of(ahead) != paths_of(first)
    kept(send(call, first, "cannot_say"))
    assert ask(call) == ahead


def test_an_answer_that_is_sent_again_is_kept_once(call, path):
    question = ask(call)
    assert not kept(send(call, question, "b"))["already"]
    assert kept(send(call, question, "b"))["already"]
    swapped = question | {"a": question["b"], "b": question["a"]}
    assert kept(send(call, swapped, "a"))["already"]
    refused(send(call, question, "a"), 409, "answered already, and differently")
    refused(send(call, question, "cannot_say"), 409)
    assert len(lines(path)) == 1
    assert not kept(send(call, question | {"before": 1}, "b"))["already"]
    assert [line.split(",")[6] for line in lines(path)] == [question["asked"], "repeat"]


def test_what_is_taken_back_is_shown_again(call, path):
    first, second = ask(call), None
    kept(send(call, first, "b"))
    second = ask(call)
    kept(send(call, second, "cannot_say"))
    refused(call.post("teach/take_back", ids_of(first)), 409, "Another answer")
    back = kept(call.post("teach/take_back", ids_of(second)))
    assert (back["question"], back["answer"]) == (second, "cannot_say")
    assert back["rater"]["answers"] == 1
    back = kept(call.post("teach/take_back", NAMED))
    assert (back["question"], back["answer"]) == (first, "b")
    refused(call.post("teach/take_back", NAMED), 409, "no answer")
    assert len(read_ratings(path)) == 0
    kept(send(call, first, "a"))  # as it was never answered
    assert len(read_ratings(path)) == 1


def test_several_raters_at_once_share_one_file(collection, path):
    one, another = (served(collection, path, rater="Ann") for _ in range(2))  # two servers

    assert one.get("health").status_code == another.get("health").status_code == 200

    def rate(call, rater):
        for _ in range(8):
            kept(send(call, ask(call, rater=rater), "a", rater=rater))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(rate, (one, one, another), ("Ann", "Bob", "Eve")))
    state = served(collection, path).get("teach").json()
    assert {each["name"]: each["answers"] for each in state["raters"]} == {
        "Ann": 8, "Bob": 8, "Eve": 8,
    }  # fmt: skip
    assert len(lines(path)) == 24


def test_how_far_raters_agree_is_told(collection, path):
    log = AnswerLog(path)
    question = ("red/0.png", "red/1.png", "red/2.png")
    other = ("red/0.png", "red/2.png", "red/1.png")
    for rater, images in (("Ann", question), ("Bob", question), ("Eve", other)):
        log.add(Answer(TIME, rater, *images))
    between = served(collection, path).get("teach").json()["between"]
    assert (between["compared"], between["agreed"]) == (3, 1)
    assert between["share"] == pytest.approx(1 / 3)
    assert between["low"] <= between["share"] <= between["high"]


def test_a_name_in_another_encoding_is_told_as_far_as_it_can_be(collection, path):
    AnswerLog(path).add(Answer(TIME, "Jorg", "red/0.png", "red/1.png", "red/2.png"))
    path.write_bytes(path.read_bytes().replace(b"Jorg", "Jörg".encode("latin-1")))
    told = served(collection, path).get("teach")
    assert (told.status_code, told.json()["raters"][0]["name"]) == (200, "J\ufffdrg")


def test_what_another_process_writes_is_noticed(call, path):
    kept(send(call, ask(call), "a"))
    AnswerLog(path).add(Answer(TIME, "Bob", "red/0.png", "red/1.png", "red/2.png"))
    assert call.get("teach").json()["answers"] == 2
    path.unlink()
    assert call.get("teach").json()["answers"] == 0
    path.write_text("no ratings\n")
    refused(call.get("teach"), 503, "cannot be used", ": ratings.csv:1: ")


def test_images_that_are_gone_leave_what_other_requests_work_with_as_it_is(collection, root):
    pool = QuestionPool(collection)
    before = pool.index_by_path(["red/1.png", "red/2.png"])
    (root / "blue/1.png").unlink()
    fewer = pool.without_gone()
    assert (len(fewer.rows), fewer.num_left_out) == (len(pool.rows) - 1, 1)
    assert pool.num_left_out == 0 and len(pool.embeddings) == len(pool.rows) == 12
    assert pool.index_by_path(["red/1.png", "red/2.png"]) == before
    assert [fewer.rows[each] for each in fewer.index_by_path(["red/1.png"]).values()] == [
        pool.rows[before["red/1.png"]]
    ]


def test_a_full_disk_confirms_nothing_and_loses_nothing(call, path, monkeypatch, capsys):
    kept(send(call, ask(call), "a"))
    question, before = ask(call), path.read_bytes()

    def full(descriptor, data, place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        refused(send(call, question, "b"), 507, "The disk is full", "not kept")
        refused(call.post("teach/take_back", NAMED), 507, "The disk is full")
    assert "No space left" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not kept(send(call, question, "b"))["already"]
    assert len(read_ratings(path)) == 2


def test_who_waits_for_other_writers_too_long_is_told(collection, path, monkeypatch):
    monkeypatch.setattr(teaching, "LOCK_SECONDS", 0)
    call = served(collection, path, rater="Ann")
    question = ask(call)
    with AnswerLog(path).locked():
        answer = send(call, question)
    refused(answer, 503, "Others are writing answers; try again")
    assert answer.headers["retry-after"] == "1" and not path.exists()
    kept(send(call, question))


def test_an_image_that_a_sync_takes_away_is_asked_about_no_more(call, collection, root, path):
    question = ask(call)
    kept(send(call, question, "a"))
    ahead = ask(call)
    gone = {paths_of(question)[1], paths_of(ahead)[1]}
    for each in gone:
        (root / each).unlink()
    index_images(collection.folder)
    kept(send(call, ahead, "b"))
    assert [each.split(",")[2] for each in lines(path)][1] == paths_of(ahead)[0]
    state = call.get("teach").json()
    assert (state["answers"], state["gone"]) == (2, 2)
    assert state["images"] == 12 - len(gone)
    for _ in range(10):
        following = ask(call)
        assert not gone & set(paths_of(following))
        kept(send(call, following))


def test_an_image_without_its_file_is_not_asked_about(call, root):
    for name in ("red", "green"):
        for each in (root / name).iterdir():
            each.unlink()
    for _ in range(5):
        question = ask(call)
        assert {each.split("/")[0] for each in paths_of(question)} == {"blue"}
        kept(send(call, question))
    for each in (root / "blue").iterdir():
        each.unlink()
    refused(call.post("teach/question", NAMED), 409, "files of most images are gone")


def test_of_very_many_images_some_are_asked_about_and_the_others_counted(
    collection, path, monkeypatch
):
    monkeypatch.setattr(question_pool, "MOST_FLOATS", 4 * 5)
    call = served(collection, path, rater="Ann")
    state = call.get("teach").json()
    assert (state["images"], state["left_out"]) == (5, 7)
    asked = set()
    for _ in range(12):
        question = ask(call)
        asked |= set(paths_of(question))
        kept(send(call, question, "cannot_say"))
    assert len(asked) == 5


def test_a_small_collection_comes_to_an_end(tmp_path, root, path):
    rows = dict(zip(("red/0.png", "green/0.png", "blue/0.png"), np.eye(4), strict=False))
    call = served(make_collection(tmp_path / "three", root, rows), path, rater="Ann")
    for _ in range(3):
        kept(call.post("teach/question", {"rater": "Ann"}))
        question = call.post("teach/question", {"rater": "Ann"}).json()["question"]
        kept(send(call, question, "cannot_say"))
    assert call.post("teach/question", {"rater": "Ann"}).json()["question"] is None


def test_requests_that_make_no_sense_are_refused(call, path):
    question = ask(call)
    ids = ids_of(question)
    refused(call.post("teach/answers", ids), 422, "answer: is missing")
    refused(send(call, question, "c"), 422, "answer")
    refused(send(call, question, rater="a\nb"), 422, "rater", "one line")
    refused(send(call, question, rater=" "), 422, "rater", "blanks")
    refused(send(call, question, query="0" * 32), 404, "ask for a new question")
    refused(send(call, question, a=ids["b"]), 422, "three different images")
    refused(call.post("teach/question", {"query": ids["query"]}), 422, "all three")
    refused(call.post("teach/take_back", {"a": ids["a"]}), 422, "all three")
    refused(call.post("teach/question", {"collection": "other"}), 404)
    assert not path.exists()


def test_somebody_must_be_named(collection, path):
    call = served(collection, path)
    refused(call.post("teach/question", NAMED), 422, "rater: who answers?")
    kept(send(call, ask(call, rater="Bob"), rater="Bob"))
    assert lines(path)[0].split(",")[1] == "Bob"


def test_pages_of_other_sites_may_not_answer(call, path):
    fields = ids_of(ask(call)) | {"answer": "a"}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = call("POST", "/api/v1/teach/answers", data=fields, headers=headers)
        refused(answer, 403, "other sites")
    assert not path.exists()


def test_what_cannot_be_asked_is_refused_before_the_server_starts(tmp_path, collection, path, root):
    def start(collection, path, **settings):
        with pytest.raises(InputError) as caught:
            served(collection, path, **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    rows = np.eye(4, dtype=np.float32)
    two = make_collection(tmp_path / "two", root, {"red/0.png": rows[0], "red/1.png": rows[1]})
    assert "2 different images, and a question takes 3" in start(two, path)
    remote = make_served(tmp_path / "remote", root)
    remote.change(index={"kind": "milvus", "uri": "http://127.0.0.1:1"})
    with pytest.raises(InputError, match="lie on a Milvus server"):
        QuestionPool(remote)
    assert "no such folder" in start(collection, tmp_path / "none" / "ratings.csv")
    assert "cannot be kept" in start(collection, tmp_path)
    assert "rater" in start(collection, path, rater="a\nb")
    path.write_text("time;rater;query;chosen;other;answer;asked;side;model\r\n")
    assert "a spreadsheet has saved" in start(collection, path)
    path.unlink()
    AnswerLog(path).add(Answer(TIME, "Ann", "dog/0.png", "dog/1.png", "dog/2.png"))
    assert "none of its 3 images is in" in start(collection, path)
    AnswerLog(path).add(Answer(TIME, "Ann", "red/0.png", "dog/1.png", "dog/2.png"))
    assert served(collection, path).get("teach").json()["gone"] == 2


def test_the_command_says_where_answers_go(collection, tmp_path, monkeypatch, capsys):
    started = []

    def run_server(folders, settings, announce):
        started.append(settings)
        announce(settings)

    monkeypatch.setattr(running, "run_server", run_server)
    monkeypatch.chdir(tmp_path)
    beside = tmp_path / "index.ratings.csv"
    AnswerLog(beside).add(Answer(TIME, "Ann", "red/0.png", "red/1.png", "red/2.png"))
    assert main(["serve", "--index", "index/", "--teach", "--rater", "Ann"]) == 0
    assert (started[0].ratings, started[0].rater) == (beside, "Ann")
    said = capsys.readouterr().out
    assert f"answers go to {beside}, which has 1 answer." in said
    assert main(["serve", "--index", "index", "--teach", "mine.csv"]) == 0
    assert str(started[1].ratings) == "mine.csv" and started[1].rater == ""
    assert "which has 0 answers" in capsys.readouterr().out
    for flags, said in (
        (["--index", "index", "--teach"], "asks about one --index"),
        (["--rater", "Ann"], "no effect without --teach"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["serve", "--index", "index", *flags])
        assert end.value.code == 2 and said in capsys.readouterr().err
