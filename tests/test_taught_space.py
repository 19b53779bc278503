"""Which questions teach most: those whose answers change the weights of base distances."""

import numpy as np
import pytest

from deep_ranking.embedding.cached_features import CachedFeatures
from deep_ranking.sampling.questions import Asked, QuestionSettings, next_question
from deep_ranking.training.taught.space import LearnedSpace

SIZES = (6, 112, 8)
COUNT = 60
CHOSEN = QuestionSettings(random_share=0, repeat_share=0)


class _Features(CachedFeatures):
    """Features that were computed long ago."""

    def __init__(self, parts, rows):
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "shapes", tuple((part.shape[1],) for part in parts))

    def read(self, images, views):
        assert (self.rows[images, views] >= 0).all()
        return [part[images] for part in self.parts]


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    return [rng.random((COUNT, size)).astype(np.float16) for size in SIZES]


@pytest.fixture
def features(parts):
    rows = np.arange(COUNT)[:, None]
    rows[7] = -1  # broken
    return _Features(parts, rows)


@pytest.fixture
def space_of(features, monkeypatch):
    from deep_ranking.training.taught.features import Head

    rng = np.random.default_rng(1)
    head = Head(rng.normal(size=(14, 5)).astype(np.float32), np.zeros(5, np.float32), False)
    monkeypatch.setattr(Head, "of", classmethod(lambda cls, model, sizes: head))
    return lambda questions: LearnedSpace.of("model.h5", features, questions)


def questions_by(values, count, seed=0):
    """Answered questions about whole images, by what is near in `values`."""
    rng = np.random.default_rng(seed)
    whole = np.setdiff1d(np.arange(len(values)), [7])
    rows = np.stack([rng.choice(whole, 3, replace=False) for _ in range(count)])
    query, one, other = (values[column] for column in rows.T)
    swapped = np.abs(query - one) > np.abs(query - other)
    rows[swapped, 1:] = rows[swapped, :0:-1]
    return rows


def test_margins_are_differences_of_distances_before_anything_is_learned(space_of, parts):
    space = space_of(np.empty((0, 3), int))
    questions = questions_by(np.arange(COUNT), 20)
    margins, gradients = space.gradients(questions)
    rows = np.concatenate(parts, axis=1).astype(np.float64) @ space.old_kernel
    for (query, one, other), margin in zip(questions, margins, strict=True):
        lead = ((rows[query] - rows[other]) ** 2).sum() - ((rows[query] - rows[one]) ** 2).sum()
        assert margin == pytest.approx(lead, rel=1e-3, abs=1e-3)
    swapped = questions[:, [0, 2, 1]]
    np.testing.assert_allclose(space.gradients(swapped)[1], -gradients, atol=1e-4)
    np.testing.assert_allclose(gradients[:, 0], margins, rtol=1e-3)


def test_a_question_with_a_broken_image_teaches_nothing(space_of):
    margins, gradients = space_of(np.empty((0, 3), int)).gradients(
        np.array([[7, 1, 2], [1, 7, 2], [1, 2, 3]])
    )
    assert not gradients[:2].any() and not margins[:2].any() and gradients[2].any()


def test_answers_make_the_model_sure_of_what_they_follow(space_of, parts):
    colours = parts[1][:, :48].astype(np.float64).reshape(COUNT, 16, 3)
    brightness = colours.mean(axis=1) @ [0.299, 0.587, 0.114]
    space = space_of(questions_by(brightness, 80))
    assert (space.weights[1:] > 0).any() and (space.weights >= 0).all()
    margins, _ = space.gradients(questions_by(brightness, 200, seed=1))
    assert np.mean(margins > 0) > 0.8


def test_questions_are_chosen_by_the_gradients_of_the_space():
    """Nothing is learned but from questions about images 0 to 4, one question in three."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(30, 4)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)

    class Space:
        def gradients(self, questions):
            teaches = (questions[:, 1:] < 5).any(axis=1)
            values = rng.normal(size=(len(questions), 3)).astype(np.float32)
            return np.zeros(len(questions), np.float32), values * teaches[:, None]

    settings = QuestionSettings(num_nearest=29, random_share=0, repeat_share=0)
    for space, share in ((Space(), 1.0), (None, 0.7)):
        found = [
            next_question(embeddings, Asked(), space=space, settings=settings, seed=seed)
            for seed in range(30)
        ]
        teaches = np.mean([min(each.a, each.b) < 5 for each in found])
        assert teaches == 1 if space else teaches < share
