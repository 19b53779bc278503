"""The page's questions are chosen in the space of what teaching learns, without TensorFlow."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from collections_of import make_collection
from served import Caller, use_stub_engine
from test_light_installation import WITHOUT

from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer, read_ratings
from deep_ranking.embedding.cached_features import CachedFeatures, JoinedFeatures, feature_store
from deep_ranking.files import InputError
from deep_ranking.sampling import stored_space
from deep_ranking.sampling.questions import asked_before, next_question
from deep_ranking.sampling.stored_space import StoredSpace
from deep_ranking.search.collection import Collection
from deep_ranking.search.reembedding import files_of_rows
from deep_ranking.serving.application import create_application
from deep_ranking.serving.learn.generations import Generations
from deep_ranking.serving.learn.learning_process import Job, Tools
from deep_ranking.serving.learn.learning_steps import Prepared
from deep_ranking.serving.learn.making_space import SpaceMaker
from deep_ranking.serving.learn.taught_space import EVERY, TaughtSpaces
from deep_ranking.serving.opened import open_served
from deep_ranking.serving.settings import ServerSettings
from deep_ranking.serving.teach.question_pool import QuestionPool
from deep_ranking.training.taught.features import Head
from deep_ranking.training.taught.space import LearnedSpace
from deep_ranking.training.taught.storing_space import write_space

COUNT, SIZES = 40, (6, 112, 8)
LAST = COUNT - 1  # the row of an image without features
READ = """
import json, sys
from pathlib import Path
import numpy as np
import deep_ranking.serving.teach.teaching
from deep_ranking.sampling.stored_space import StoredSpace
contents = [bytes.fromhex(each) for each in json.loads(sys.argv[2])]
space = StoredSpace.read(Path(sys.argv[1])).with_images(contents)
margins, _ = space.gradients(np.array(json.loads(sys.argv[3])))
large = {"tensorflow", "keras", "scipy", "sklearn"} & set(sys.modules)
print(json.dumps([sorted(large), margins.tolist()]))
"""


class World:
    """An index, features of its images in two stores, answers, and what learns of them."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.index, self.ratings = folder / "index", folder / "ratings.csv"
        root = folder / "photos"
        root.mkdir()
        names = [f"{number:02}.png" for number in range(COUNT)]
        for name in names:
            (root / name).write_bytes(name.encode())
        rows = rng.normal(size=(COUNT, 6)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        self.collection = make_collection(
            self.index, root, dict(zip(names, rows, strict=True)), hits_of="these images"
        )
        with closing(self.collection.images()) as table:
            self.row_of = table.rows_by_path(names)
        self.paths = sorted(names, key=self.row_of.get)
        keys = self.collection.store.keys()
        parts = [rng.random((COUNT, size)).astype(np.float16) for size in SIZES]
        self.brightness = parts[1][:, :48].astype(np.float64).mean(axis=1)
        stored = []
        # The second of the three parts has a store of its own, in which images lie elsewhere.
        for name, of, order in (
            ("both", (0, 2), np.arange(LAST)),
            ("layout", (1,), rng.permutation(COUNT)),
        ):
            shapes = tuple((SIZES[each],) for each in of)
            store = feature_store(folder / "features" / name, shapes)
            block = np.concatenate([parts[each] for each in of], axis=1)[order]
            store.extend([([keys[each] for each in order], block)])
            known = store.find()
            places = np.array([[known.get(key, -1)] for key in keys])
            stored.append(CachedFeatures(store.rows(), places, shapes))
        self.features = JoinedFeatures(stored, [(0, 2), (1,)])
        self.job = Job(self.index, self.ratings, folder, None)
        self.seen = 0

    def answer(self, count):
        """Answer questions by the brightness."""
        rng, answers = np.random.default_rng(self.seen), []
        for _ in range(count):
            query, *others = rng.choice(LAST, 3, replace=False).tolist()
            others.sort(key=lambda each: abs(self.brightness[query] - self.brightness[each]))
            paths = [self.paths[each] for each in (query, *others)]
            answers.append(Answer("2026-11-29T19:30:28Z", "Ann", *paths))
        self.seen += count
        AnswerLog(self.ratings).add(*answers)

    def maker(self):
        tools = Tools(None, None, None, None, write_space)
        source = Collection.open(self.index)
        return SpaceMaker(
            self.job, Prepared(tools, files_of_rows(source), self.features, source.settings)
        )

    def asked(self):
        ratings = read_ratings(self.ratings)
        return asked_before(ratings, self.row_of, "Ann")

    def chosen(self, space):
        """The question by all answers so far."""
        found = next_question(QuestionPool(self.collection).embeddings, self.asked(), space=space)
        return [self.paths[each] for each in (found.query, found.a, found.b)]

    def learned(self):
        return LearnedSpace.of("model.h5", self.features, self.asked().rows)


class Requested:
    """In place of `Learning`: notes when a space is asked for."""

    def __init__(self, index):
        self.count, self.is_ready = 0, True
        self.spaces = TaughtSpaces(index, self)

    def __call__(self):
        self.count += self.is_ready
        return self.is_ready


@pytest.fixture
def world(tmp_path, monkeypatch):
    use_stub_engine(monkeypatch)
    rng = np.random.default_rng(1)
    head = Head(rng.normal(size=(14, 5)).astype(np.float32), np.zeros(5, np.float32), False)
    monkeypatch.setattr(Head, "of", classmethod(lambda cls, model, sizes: head))
    return World(tmp_path)


@pytest.fixture
def learning(world):
    return Requested(world.index)


@pytest.fixture
def ask(world, learning):
    settings = ServerSettings(ratings=world.ratings, rater="Ann")
    call = Caller(create_application(open_served([world.index]), settings, learning=learning))

    def asked():
        answer = call.post("teach/question", {"collection": "index"})
        assert answer.status_code == 200, answer.text
        return [answer.json()["question"][each]["path"] for each in ("query", "a", "b")]

    return asked


def test_the_page_asks_what_is_chosen_in_the_learned_space(world, ask, monkeypatch):
    world.answer(EVERY)
    assert ask() == world.chosen(None)
    assert world.maker().make()
    space, differ = world.learned(), 0
    assert (space.weights[1:] > 0).any()
    for _ in range(5):
        assert ask() == world.chosen(space)
        differ += world.chosen(space) != world.chosen(None)
        world.answer(1)
    assert differ
    # A space of more answers is gone over to, and the images are not looked up again.
    monkeypatch.setattr(QuestionPool, "contents", None)
    world.answer(EVERY)
    assert world.maker().make()
    again, differ = world.learned(), 0
    for _ in range(5):
        assert ask() == world.chosen(again)
        differ += world.chosen(again) != world.chosen(space)
        world.answer(1)
    assert differ


def test_a_space_is_made_once_for_so_many_answers(world, learning, ask):
    maker = world.maker()
    learning.is_ready = False
    world.answer(EVERY - 2)
    ask()
    learning.is_ready = True
    ask(), ask()
    assert (learning.count, maker.make(), maker.make()) == (1, True, False)
    ask()
    world.answer(1)
    ask()
    assert (learning.count, maker.make()) == (1, False)
    world.answer(1)
    ask(), ask()
    assert (learning.count, maker.make(), maker.make()) == (2, True, False)
    assert StoredSpace.read(Generations(world.index).space).made_of.answers == EVERY


def test_a_space_of_another_model_or_other_images_is_not_used(world, learning, ask, capfd):
    world.answer(EVERY)
    world.maker().make()
    space, file = world.learned(), Generations(world.index).space
    assert world.chosen(space) != world.chosen(None)
    stored = StoredSpace.read(file)
    for changes in ({"fingerprint": "another"}, {"state": "other images"}):
        replace(stored, made_of=replace(stored.made_of, **changes)).write(file)
        assert ask() == world.chosen(None)
        stored.write(file)
        assert ask() == world.chosen(space)
    world.collection.change(hits_of="more images")
    assert ask() == world.chosen(None)
    world.collection.change(hits_of="these images")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert ask() == world.chosen(None)
    assert f"{file}: damaged" in capfd.readouterr().err
    file.write_bytes(whole)
    assert ask() == world.chosen(space)


def test_gradients_are_those_of_the_learned_space_and_need_no_scipy(world, monkeypatch):
    world.answer(EVERY)
    world.maker().make()
    space, file = world.learned(), Generations(world.index).space
    keys = world.collection.store.keys()
    rng = np.random.default_rng(5)
    questions = np.stack([rng.choice(COUNT, 3, replace=False) for _ in range(50)])
    stored = StoredSpace.read(file)
    num_columns = len(stored.members)
    monkeypatch.setattr(stored_space, "MOST_FLOATS", 20 * num_columns)  # of half the images
    opened = stored.with_images(keys)
    margins, gradients = opened.gradients(questions)
    for some in (questions[:3], questions[5:9], questions[2:7], questions):
        found = dict(zip(map(tuple, some), opened.gradients(some)[1], strict=True))
        for question, gradient in zip(questions, gradients, strict=True):
            known = found.get(tuple(question), gradient)
            np.testing.assert_allclose(known, gradient, rtol=1e-4, atol=1e-4)
    expected_margins, expected = space.gradients(questions)
    assert not expected[(questions == LAST).any(axis=1)].any()
    np.testing.assert_allclose(gradients, expected, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(margins, expected_margins, atol=2e-4, rtol=1e-3)
    order = rng.permutation(COUNT)  # as a generation has the images in other rows
    elsewhere = stored.with_images([keys[row] for row in order])
    np.testing.assert_allclose(
        elsewhere.gradients(np.argsort(order)[questions])[0], margins, rtol=1e-4
    )
    contents = json.dumps([key.hex() for key in keys])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + READ, file, contents, json.dumps(questions.tolist())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    large, found = json.loads(done.stdout)
    assert not large
    np.testing.assert_allclose(found, margins, rtol=1e-5, atol=1e-6)


def test_without_the_features_questions_go_on(world, ask, capfd):
    world.answer(EVERY)
    world.maker().make()
    (store,) = {each.file.path for each in world.features.parts if "layout" in str(each.file.path)}
    content = bytearray(store.read_bytes())
    content[::2] = bytes(len(content[::2]))
    store.write_bytes(content)
    assert ask() == world.chosen(None)
    assert "questions are chosen by the embeddings" in capfd.readouterr().err
    with pytest.raises(InputError, match="gone"):
        replace(StoredSpace.read(Generations(world.index).space), stores=[("gone", 8)]).with_images(
            []
        )
