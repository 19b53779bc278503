"""Learning from answers on a server: prepared, learned, gone over to, and the way back."""

import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from collections_of import make_model
from served import (
    SETTINGS,
    Caller,
    StubEngine,
    caller_of,
    make_served,
    row_of,
    use_stub_engine,
    write_photos,
)

from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer
from deep_ranking.files import InputError
from deep_ranking.sampling.stored_space import MadeOf, StoredSpace
from deep_ranking.search.indexing import index_images
from deep_ranking.serving.application import create_application
from deep_ranking.serving.learn import learning_steps
from deep_ranking.serving.learn.generations import Generations
from deep_ranking.serving.learn.learning import Learning
from deep_ranking.serving.learn.learning_process import LEARN, Job, Message, Tools, learn_when_told
from deep_ranking.serving.learn.taught_space import EVERY
from deep_ranking.serving.opened import ServedCollection, open_served
from deep_ranking.serving.settings import ServerSettings

SECONDS = 20
THE_INDEX = {"collection": "photos.index"}


def without_red(rows):
    """What the new model makes of the rows of the old one: other images are near each other."""
    seen = rows * np.array([0.05, 1, 1, 1], np.float32)
    return seen / np.linalg.norm(seen, axis=-1, keepdims=True)


@dataclass
class Report:
    is_better: bool

    def as_json(self):
        return {"after": 0.75}

    def __repr__(self):
        return "Agrees with 0.75 of the answers."


ONE = np.ones((1, 1), np.float32)
NO_SPACE = StoredSpace(MadeOf("", "", 0), [("gone", 1)], ONE, np.empty(0, np.int64), ONE, ONE[0])


class Taught:
    """In place of the functions that learn."""

    def __init__(self):
        self.is_better, self.problem, self.asked, self.spaces = True, None, [], []
        self.num_looks = 0
        self.may_go_on, self.may_make_space = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.may_make_space.set()

    def tools(self, model):
        if self.problem == "start":
            raise InputError("no memory for TensorFlow")
        return Tools(self.teach, self.features, self.embed, self.compile, self.write_space)

    def compile(self, model):
        if self.problem == "compile":
            raise InputError("no room for a compiled model")

    def teach(self, **given):
        self.may_go_on.wait(SECONDS)
        self.asked.append(given)
        if isinstance(self.problem, Exception):
            raise self.problem
        make_model(given["output"], embedding_size=4, dropout=0.25)
        return Report(self.is_better)

    def features(self, model, files, cache_dir):
        self.num_looks += 1
        return files

    def write_space(self, model, features, questions, file, made_of):
        self.may_make_space.wait(SECONDS)
        self.spaces.append([[features[each].name for each in row] for row in questions])
        if self.problem == "space":
            raise InputError("no room for a space")
        replace(NO_SPACE, made_of=made_of).write(file)

    def embed(self, model, files):
        return np.stack([without_red(row_of(each)) for each in files])


class End:
    """One end of a pipe between threads: what closes it wakes whoever waits."""

    def __init__(self, sent, received):
        self.sent, self.received = sent, received

    def send(self, message):
        self.sent.put(message)

    def recv(self):
        message = self.received.get()
        if message is None:
            raise EOFError
        return message


def in_a_thread(job):
    """What learns, in a thread in place of a process."""
    to_it, from_it = queue.Queue(), queue.Queue()

    def work():
        learn_when_told(End(from_it, to_it), job)
        from_it.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def end():
        to_it.put(None)
        thread.join(SECONDS)

    return End(to_it, from_it), end


@pytest.fixture
def index(tmp_path, monkeypatch):
    use_stub_engine(monkeypatch)
    monkeypatch.setattr(learning_steps, "check_installed", lambda *_, **__: None)
    write_photos(tmp_path / "photos")
    make_served(tmp_path / "photos.index", tmp_path / "photos")
    AnswerLog(tmp_path / "ratings.csv").add(
        Answer("2026-11-29T19:30:28Z", "Ann", "red/0.png", "blue/0.png", "red/1.png")
    )
    return tmp_path / "photos.index"


@pytest.fixture
def taught():
    return Taught()


@pytest.fixture
def start(index, taught):
    """A function that starts a server that learns; returns what calls it."""
    running = []

    def start(settings=SETTINGS):
        served = open_served([index])
        job = Job(index, index.with_name("ratings.csv"), index.with_name("features"), taught.tools)
        learning = Learning(next(iter(served.values())), job, in_a_thread)
        running.append(learning)
        return Caller(create_application(served, settings, learning=learning))

    yield start
    for each in running:
        each.close()


def until(is_so):
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def state(call, status="ready"):
    """The state of learning, once it has this status."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = call.get("teach/learning").json()
        if found["status"] == status:
            return found
        time.sleep(0.01)
    pytest.fail(f"still {found}")


def learn(call):
    assert call.post("teach/learn", THE_INDEX).status_code == 202
    return state(call)


def order(call, **fields):
    found = call.search({"path": "red/0.png", "top": "20"} | fields)
    assert found.status_code == 200, found.text
    return [each["path"] for each in found.json()["results"]]


def test_what_is_learned_is_gone_over_to_and_the_way_back_is_there(start, taught, index):
    call = start()
    before = state(call)
    assert (before["shown"], before["made"], before["generations"]) == (0, 0, [])
    first = order(call)
    found = learn(call)
    assert (found["shown"], found["made"], found["is_behind"]) == (1, 1, False)
    (generation,) = found["generations"]
    assert (generation["generation"], generation["answers"]) == (1, 1)
    assert generation["words"] == "Agrees with 0.75 of the answers."
    assert generation["report"] == {"after": 0.75}
    (given,) = taught.asked
    assert given["model"] == index / "model.h5"
    assert given["images"] == index.with_name("photos")
    assert given["ratings"] == (index.with_name("ratings.csv"),)
    assert (
        given["labelled"].classes_of_images().tolist() == ["blue"] * 5 + ["green"] * 4 + ["red"] * 4
    )
    second = order(call)
    assert second != first
    assert sorted(second) == sorted(first)
    assert call.post("teach/shown", {"generation": "0"}).json()["shown"] == 0
    assert order(call) == first
    assert call.post("teach/shown", {"generation": "1"}).json()["shown"] == 1
    assert order(call) == second
    assert order(start()) == second  # a server that is started anew shows the same


def test_of_two_browsers_the_last_one_decides_what_is_served_and_what_is_kept_as_shown(
    start, index, monkeypatch
):
    call = start()
    state(call)
    first = order(call)
    learn(call)
    go_to, other = ServedCollection.go_to, []

    def go_to_later(served, folder):
        if not other:
            fields = {"generation": "0"}
            other.append(threading.Thread(target=call.post, args=("teach/shown", fields)))
            other[0].start()
            other[0].join(0.3)  # it ends within that time unless it waits for this one
        go_to(served, folder)

    monkeypatch.setattr(ServedCollection, "go_to", go_to_later)
    call.post("teach/shown", {"generation": "1"})
    other[0].join(SECONDS)
    assert Generations(index).history().shown == 0
    assert order(call) == first


def test_classes_of_which_one_alone_has_two_images_bound_nothing(tmp_path):
    images = tmp_path / "few"
    write_photos(images)
    for name in ("green", "blue"):
        for each in sorted((images / name).iterdir())[1:]:
            each.unlink()
    collection = make_served(tmp_path / "few.index", images)
    assert learning_steps.labelled_images(collection) is None


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("of Ann/answers.csv", "answers.csv"),
        ("photos.csv", "photos.csv"),  # beside the folder photos
        ("photos", "photos"),
    ],
)
def test_where_files_lie_is_not_told(index, tmp_path, place, told):
    ratings = tmp_path / "of Ann" / "answers.csv"
    (served,) = open_served([index]).values()
    job = Job(index, ratings, index.with_name("features"), lambda model: 1 / 0)
    pipe = queue.Queue()
    pipe.put(Message("ready", problem=f"{tmp_path / place}: damaged"))
    learning = Learning(served, job, lambda job: (End(pipe, pipe), lambda: None))
    until(lambda: learning.state().problem != "")
    assert learning.state().problem == f"{told}: damaged"
    pipe.put(None)
    learning.close()


def test_what_is_not_better_is_offered_and_not_shown(start, taught):
    taught.is_better = False
    call = start()
    state(call)
    first = order(call)
    found = learn(call)
    assert (found["shown"], found["made"]) == (0, 1)
    assert [each["is_better"] for each in found["generations"]] == [False]
    assert order(call) == first
    call.post("teach/shown", {"generation": "1"})
    assert order(call) != first


def test_uploads_are_embedded_by_the_model_that_is_shown(start, monkeypatch, index):
    used = []

    class WithoutRed(StubEngine):
        def embed(self, images):
            return without_red(super().embed(images))

    def engine(embedder, batch_size=8):
        used.append(embedder.path)
        return WithoutRed() if ".taught" in str(embedder.path) else StubEngine()

    monkeypatch.setattr("deep_ranking.embedding.embedder.Embedder.engine", engine)
    call = start()
    state(call)
    photo = index.with_name("photos").joinpath("red", "2.png").read_bytes() + b" "
    for _ in range(2):
        (found,) = call.search({"top": "1"}, image=photo).json()["results"]
        assert found["path"] == "red/2.png"
        assert found["distance"] == pytest.approx(0, abs=1e-5)
        if used[-1].parent == index:
            learn(call)
    assert used[-1] == index.with_name("photos.index.taught") / "1" / "index" / "model.h5"


def test_while_it_learns_requests_are_answered_and_another_learning_is_refused(start, taught):
    taught.may_go_on.clear()
    call = start()
    state(call)
    first = order(call)
    call.post("teach/learn", THE_INDEX)
    busy = state(call, "learning")
    assert busy["step"]
    assert order(call) == first
    again = call.post("teach/learn", THE_INDEX)
    assert (again.status_code, again.json()["detail"]) == (409, "It is learning already.")
    taught.may_go_on.set()
    assert state(call)["shown"] == 1


def test_who_says_learn_while_a_space_is_made_is_answered_at_once(start, taught):
    taught.may_make_space.clear()
    call = start()
    state(call)
    answer = call.post("teach/learn", THE_INDEX)
    assert (answer.status_code, answer.json()["status"]) == (202, "learning")
    assert not taught.spaces
    assert call.post("teach/learn", THE_INDEX).status_code == 409
    taught.may_make_space.set()
    assert state(call)["made"] == 1


def test_pictures_are_looked_at_again_only_if_the_index_has_changed(start, taught, index):
    call = start()
    state(call)
    assert [learn(call)["made"] for _ in range(2)] == [1, 2]
    assert taught.num_looks == 1
    (index.with_name("photos") / "red/3.png").unlink()
    index_images(index)
    assert learn(call)["made"] == 3
    assert taught.num_looks == 2


def test_what_cannot_be_learned_is_told_in_a_sentence_and_tried_again(start, taught, index, capfd):
    taught.problem = InputError(f"{index.with_name('ratings.csv')}: 1 answer; 20 are needed")
    call = start()
    state(call)
    found = learn(call)
    assert found["problem"] == "ratings.csv: 1 answer; 20 are needed"
    assert (found["shown"], found["made"], found["generations"]) == (0, 0, [])
    taught.problem = ZeroDivisionError("a secret of /home")
    assert learn(call)["problem"] == "The server's own output says why."
    assert "a secret of /home" in capfd.readouterr().err
    taught.problem = None
    assert learn(call)["made"] == 1
    names = {each.name for each in index.with_name("photos.index.taught").iterdir()}
    assert names == {"1", "current.json", "current.lock", "making.lock", "space.npz"}


def test_without_what_learns_searches_go_on(start, taught):
    taught.problem = "start"
    call = start()
    found = state(call, "unavailable")
    assert found["problem"] == "no memory for TensorFlow"
    assert order(call)
    assert call.post("teach/learn", THE_INDEX).status_code == 409


def test_between_learnings_it_makes_the_space_in_which_questions_are_chosen(
    start, taught, index, capfd
):
    path = index.with_name("ratings.csv")
    call = start(ServerSettings(ratings=path, rater="Ann"))
    until(lambda: taught.spaces == [[["0.png", "0.png", "1.png"]]])
    more = Answer("2026-11-29T19:30:28Z", "Ben", "green/0.png", "green/1.png", "red/2.png")
    AnswerLog(path).add(*[more] * EVERY)
    state(call)
    taught.problem = "space"
    assert call.post("teach/question", THE_INDEX).json()["question"]
    until(lambda: len(taught.spaces) == 2)
    assert taught.spaces[1][1:] == [["0.png", "1.png", "2.png"]] * EVERY
    taught.problem = None
    assert learn(call)["made"] == 1
    assert "no new space: no room for a space" in capfd.readouterr().err


def test_what_goes_wrong_is_sent_as_standard_error_of_the_process_may_be_discarded(
    index, taught, capfd
):
    """The command discards what libraries write there, and its processes inherit that."""
    to_it, from_it = queue.Queue(), queue.Queue()
    taught.problem = "space"
    to_it.put(LEARN)
    to_it.put(None)
    job = Job(index, index.with_name("ratings.csv"), index.with_name("features"), taught.tools)
    taught.teach = lambda **given: 1 / 0
    learn_when_told(End(from_it, to_it), job)
    said = [each for each in from_it.queue if isinstance(each, str)]
    assert said[0] == f"{index}: no new space: no room for a space"
    assert "ZeroDivisionError" in said[1]
    assert capfd.readouterr().err == ""


def test_a_model_that_cannot_be_made_fast_is_told_and_shown(start, taught, capfd):
    taught.problem = "compile"
    call = start()
    state(call)
    assert learn(call)["made"] == 1
    told = "no room for a compiled model; pictures of one's own are embedded with Keras"
    assert told in capfd.readouterr().err


def test_a_server_without_teach_says_so(index):
    call = caller_of(make_served(index.with_name("other"), index.with_name("photos")))
    for answer in (
        call.get("teach/learning"),
        call.post("teach/learn", {"collection": "other"}),
        call.post("teach/shown", {"generation": "0"}),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (
            403,
            "This server learns nothing; start it with --teach.",
        )


def test_what_cannot_be_shown_leaves_what_is_shown(start, index, capfd):
    call = start()
    state(call)
    learn(call)
    second = order(call)
    for number in ("7", "-1", "x"):
        assert call.post("teach/shown", {"generation": number}).status_code in (409, 422)
    call.post("teach/shown", {"generation": "0"})
    (Generations(index).index_of(1) / "collection.json").write_text("{}")
    assert call.post("teach/shown", {"generation": "1"}).status_code == 409
    assert "not what `index` wrote" in capfd.readouterr().err
    assert call.get("teach/learning").json()["shown"] == 0
    assert order(call) != second


def test_a_damaged_history_is_named_with_what_to_do(start, index):
    call = start()
    state(call)
    learn(call)
    (index.with_name("photos.index.taught") / "current.json").write_text("{}")
    answer = call.get("teach/learning")
    assert answer.status_code == 503
    assert ": photos.index.taught/current.json: not what a server" in answer.json()["detail"]
    assert "remove it, and the index itself is shown" in answer.json()["detail"]
    assert str(index.parent) not in answer.json()["detail"]
    assert order(call)  # searches go on


def test_an_index_that_has_changed_since_is_told(start, index):
    call = start()
    state(call)
    learn(call)
    next(iter(open_served([index]).values())).current().collection.change(hits_of="other")
    assert call.get("teach/learning").json()["is_behind"] is True


def test_cursors_of_the_order_before_are_told_and_ids_go_on(start):
    call = start()
    state(call)
    first = call.search({"path": "red/0.png", "top": "3"}).json()
    learn(call)
    answer = call.search({"path": "red/0.png", "top": "3", "cursor": first["cursor"]})
    assert answer.status_code == 409
    assert answer.json()["detail"] == ("The collection has another order since; search again.")
    one = first["results"][0]
    assert call.get(f"images/{one['id']}").status_code == 200
    assert call.get(f"images/{one['id']}/neighbours").status_code == 200
    again = call.search({"id": one["id"], "top": "1"}).json()
    assert again["results"][0]["id"] == one["id"]


def tools_of_a_process(model):
    """For a process of its own, which imports this module."""
    return Taught().tools(model)


@pytest.fixture
def job(index):
    return Job(
        index, index.with_name("ratings.csv"), index.with_name("features"), tools_of_a_process
    )


@pytest.mark.slow
def test_a_process_learns_and_ends_when_it_is_told(job):
    (served,) = open_served([job.index]).values()
    learning = Learning(served, job)
    served_by_name = {served.name: served}
    call = Caller(create_application(served_by_name, ServerSettings(), learning=learning))
    state(call)
    assert learn(call)["made"] == 1
    (process,) = multiprocessing.active_children()
    own, its = (os.getpriority(os.PRIO_PROCESS, each) for each in (0, process.pid))
    assert its == min(19, 10 + own)  # 19 is the lowest there is
    learning.close()
    assert not process.is_alive()
    assert Generations(job.index).shown() == 1


SERVER = """
import sys
from pathlib import Path
from test_serving_learning import tools_of_a_process
from deep_ranking.serving.learn.learning import start_process
from deep_ranking.serving.learn.learning_process import Job
import multiprocessing
import time
folder = Path(sys.argv[1])
start_process(Job(folder, folder, folder, tools_of_a_process))
print(*(each.pid for each in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_what_learns_ends_with_a_server_that_is_killed(index):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(index)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    learner = int(server.stdout.readline())
    server.kill()
    server.communicate(timeout=30)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            os.kill(learner, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(learner, 9)
    pytest.fail("it still runs")
