"""Which question is asked next, to made-up raters who answer by a hidden rule."""

import numpy as np
import pytest

from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer, read_ratings
from deep_ranking.files import InputError
from deep_ranking.sampling import questions
from deep_ranking.sampling.questions import (
    Asked,
    QuestionSettings,
    asked_before,
    next_question,
)


def unit_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Rater:
    """Answers by how near two images are along a hidden direction, with some noise."""

    def __init__(self, rows, noise=0.1, seed=0):
        self.rng = np.random.default_rng(seed)
        self.values = rows @ self.rng.normal(size=rows.shape[1])
        self.noise = noise

    def chooses_a(self, question):
        lead = [abs(self.values[question.query] - self.values[each]) for each in
                (question.b, question.a)]  # fmt: skip
        return lead[0] - lead[1] + self.rng.normal() * self.noise > 0


def session(rows, count, **options):
    """Ask a rater so many questions; return them and what was asked."""
    rater, given, asked = Rater(rows), [], Asked()
    for _ in range(count):
        question = next_question(rows, asked, **options)
        if question is None:
            break
        is_a = rater.chooses_a(question)
        images = (question.a, question.b) if is_a else (question.b, question.a)
        given.append(question)
        asked = Asked(
            np.vstack([asked.rows, (question.query, *images)]),
            np.append(asked.on_side_a, is_a),
            np.ones(len(given), bool),
            np.ones(len(given), bool),
        )
    return given, asked


@pytest.fixture(scope="module")
def rows():
    return unit_rows(200, 12)


@pytest.fixture(scope="module")
def asked_of(rows):
    return session(rows, 150)


def margins(rows, given):
    """How much farther one image is than the other, by squared distances in float64."""
    rows = rows.astype(np.float64)
    return np.array([
        abs(((rows[q.query] - rows[q.a]) ** 2).sum() - ((rows[q.query] - rows[q.b]) ** 2).sum())
        for q in given
    ])  # fmt: skip


def of_kind(given, kind):
    return [each for each in given if each.asked == kind]


def test_the_shares_are_mixed_as_set(asked_of):
    given, _ = asked_of
    counts = {kind: len(of_kind(given, kind)) for kind in ("informative", "random", "repeat")}
    assert 15 <= counts["random"] <= 45  # 30 of 150, within three standard deviations
    assert 4 <= counts["repeat"] <= 26  # 15
    assert sum(counts.values()) == 150


@pytest.mark.parametrize(("kind", "settings"), [
    ("informative", QuestionSettings(random_share=0, repeat_share=0)),
    ("random", QuestionSettings(random_share=1, repeat_share=0)),
])  # fmt: skip
def test_a_share_of_all_is_all(rows, kind, settings):
    given, _ = session(rows, 20, settings=settings)
    assert {each.asked for each in given} == {kind}


def test_informative_questions_are_less_certain_than_random_ones(rows, asked_of):
    given, _ = asked_of
    informative = margins(rows, of_kind(given, "informative"))
    at_random = margins(rows, of_kind(given, "random"))
    assert np.median(informative) < 0.7 * np.median(at_random)


def test_queries_are_covered_before_any_is_asked_again(rows, asked_of):
    given, _ = asked_of
    informative = [each.query for each in of_kind(given, "informative")][:90]
    assert len(set(informative)) == 90


def test_directions_differ_more_than_those_of_random_questions(rows):
    """Of a collection whose images differ in two ways, unequally often, both are asked about."""
    rng = np.random.default_rng(1)
    common = np.zeros((200, 12))
    common[:, 0] = 5
    common[:180, 1:4] = rng.normal(size=(180, 3))
    common[180:, 8:] = rng.normal(size=(20, 4)) * 3
    uneven = (common / np.linalg.norm(common, axis=1, keepdims=True)).astype(np.float32)
    share = []
    for random_share in (0.0, 1.0):
        settings = QuestionSettings(5, random_share=random_share, repeat_share=0)
        given, _ = session(uneven, 40, settings=settings)
        share.append(np.mean([each.query >= 180 for each in given]))
    assert share[0] > 1.5 * share[1]


def test_images_are_among_the_nearest_of_the_query(rows):
    settings = QuestionSettings(num_nearest=5, repeat_share=0)
    given, _ = session(rows, 40, settings=settings)
    for each in given:
        distances = ((rows - rows[each.query]) ** 2).sum(axis=1)
        nearest = np.argsort(distances)[1:6]
        assert {each.a, each.b} <= set(nearest) and each.a != each.b


def test_a_repeat_swaps_the_sides_of_an_own_answer_of_before(asked_of):
    given, _ = asked_of
    repeats = [number for number, each in enumerate(given) if each.asked == "repeat"]
    repeated = []
    for number in repeats:
        each = given[number]
        before = [
            i for i, old in enumerate(given[:number])
            if (old.query, {old.a, old.b}) == (each.query, {each.a, each.b})
        ]  # fmt: skip
        assert len(before) == 1 and number - before[0] >= 10
        assert (given[before[0]].a, given[before[0]].b) == (each.b, each.a)
        repeated += before
    assert len(set(repeated)) == len(repeated)


def test_no_question_but_a_repeat_is_asked_twice(asked_of):
    given, _ = asked_of
    new = [(q.query, *sorted((q.a, q.b))) for q in given if q.asked != "repeat"]
    assert len(set(new)) == len(new)


def test_others_answers_and_undecided_ones_are_not_repeated(rows):
    settings = QuestionSettings(random_share=0, repeat_share=1, repeat_after=1)
    asked = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]])
    side, own = np.array([True, False, True, True]), np.array([False, True, True, True])
    decided = np.array([True, True, False, True])
    for seed in range(10):
        question = next_question(
            rows, Asked(asked, side, own, decided), settings=settings, seed=seed
        )
        assert (question.query, question.a, question.b) == (3, 4, 5)  # 4 was on side B


def test_both_sides_are_used_alike(asked_of):
    given, asked = asked_of
    assert 55 <= sum(each.a < each.b for each in given) <= 95  # of 150
    assert 45 <= asked.on_side_a.sum() <= 105


def test_the_sides_of_a_question_are_drawn():
    rows = unit_rows(3, 3)
    shown = [next_question(rows, Asked(), seed=seed) for seed in range(100)]
    assert len({(each.query, each.a, each.b) for each in shown}) == 6


def test_what_others_were_asked_is_asked_last():
    """The gradient of a question that was asked is a centre: no distance, no chance."""
    rows, ask = unit_rows(4, 3), QuestionSettings(random_share=0, repeat_share=0, num_nearest=3)
    whole = [(q, a, b) for q in range(4) for a in range(4) for b in range(a) if q not in (a, b)]
    for left in whole:
        others = np.array([each for each in whole if each != left])
        asked = Asked(others, np.ones(11, bool), np.zeros(11, bool), np.ones(11, bool))
        question = next_question(rows, asked, settings=ask)
        assert (question.query, {question.a, question.b}) == (left[0], set(left[1:]))


def test_without_answers_nothing_is_repeated(rows):
    settings = QuestionSettings(random_share=0, repeat_share=1)
    assert next_question(rows, Asked(), settings=settings).asked == "informative"


def test_the_same_state_leads_to_the_same_question(rows, asked_of):
    _, asked = asked_of
    questions = [next_question(rows, asked, seed=seed) for seed in range(8)]
    assert questions == [next_question(rows, asked, seed=seed) for seed in range(8)]
    assert len({each.query for each in questions}) > 4
    assert session(rows, 10)[0] == session(rows, 10)[0]


def test_raters_share_the_random_questions_of_a_seed(rows):
    settings = QuestionSettings(random_share=1, repeat_share=0)
    _, asked = session(rows, 6, settings=settings)
    none_own = Asked(asked.rows, asked.on_side_a, np.zeros(6, bool), asked.decided)
    assert next_question(rows, none_own, settings=settings) == next_question(
        rows, Asked(), settings=settings
    )
    informative = QuestionSettings(random_share=0, repeat_share=0)
    assert next_question(rows, none_own, settings=informative) != next_question(
        rows, Asked(), settings=informative
    )


def test_copies_are_never_asked_about():
    rows = np.repeat(unit_rows(12, 6), 3, axis=0)  # three equal rows each
    noisy = rows + np.random.default_rng(0).normal(size=rows.shape).astype(np.float32) * 1e-3
    contents = np.repeat(np.arange(12), 3)
    for given, _ in (session(rows, 60), session(noisy, 60, contents=contents)):
        assert len(given) == 60
        for each in given:
            assert len({contents[each.query], contents[each.a], contents[each.b]}) == 3


def test_small_collections_come_to_an_end():
    rows = unit_rows(4, 3)
    given, _ = session(rows, 50, settings=QuestionSettings(repeat_share=0, num_nearest=3))
    assert len(given) == 12  # 4 queries, and 3 pairs of the others
    assert next_question(np.repeat(rows[:2], 5, axis=0), Asked()) is None
    with pytest.raises(InputError, match="takes three images; received 2"):
        next_question(rows[:2], Asked())


@pytest.mark.parametrize("wrong", [
    {"num_nearest": 1}, {"repeat_after": 0}, {"random_share": -0.1}, {"repeat_share": 0.9},
])  # fmt: skip
def test_settings_out_of_their_range_are_refused(wrong):
    with pytest.raises(InputError, match="num_nearest must be 2 or more"):
        QuestionSettings(**wrong)


def test_the_first_question_is_drawn_by_the_squared_gradient(monkeypatch):
    """BADGE by hand: margins, doubts and squared lengths of all candidates of one query."""
    rows = unit_rows(7, 5, seed=2)
    monkeypatch.setattr(questions, "FEWEST_QUERIES", 1)
    settings = QuestionSettings(num_nearest=6, random_share=0, repeat_share=0)
    drawn = {}
    for seed in range(700):
        question = next_question(rows, Asked(), settings=settings, seed=seed)
        if question.query == 0:
            pair = tuple(sorted((question.a, question.b)))
            drawn[pair] = drawn.get(pair, 0) + 1
    pairs = [(a, b) for a in range(1, 7) for b in range(a + 1, 7)]  # 15: all are candidates
    gradients = np.array([rows[0] * (rows[a] - rows[b]) for a, b in pairs], np.float64)
    lead = np.abs(gradients.sum(axis=1))
    doubt = 1 / (1 + np.exp(lead / lead.std()))
    chances = doubt**2 * (gradients**2).sum(axis=1)
    shares = np.array([drawn.get(pair, 0) for pair in pairs]) / sum(drawn.values())
    assert np.abs(shares - chances / chances.sum()).max() < 0.1
    assert np.corrcoef(shares, chances)[0, 1] > 0.7


def test_distances_are_to_the_nearest_centre_or_its_negative():
    rows, centres = (np.random.default_rng(0).normal(size=(n, 4)).astype("f4") for n in (9, 3))
    both = np.concatenate([centres, -centres])
    expected = ((rows[:, None] - both) ** 2).sum(axis=2).min(axis=1)
    assert questions._squared_to_nearest(rows, centres) == pytest.approx(expected, rel=1e-4)


def test_what_was_asked_before_is_taken_from_ratings(tmp_path):
    log = AnswerLog(tmp_path / "ratings.csv")
    time = "2026-11-29T19:30:28Z"
    log.add(
        Answer(time, "Ann", "q", "a", "b", side="A"),
        Answer(time, "Bob", "q", "b", "a", side="B"),
        Answer(time, "Ann", "q", "a", "gone"),
        Answer(time, "Ann", "a", "q", "b", "cannot_say"),
    )
    found = asked_before(read_ratings(log.path), {"q": 5, "a": 1, "b": 0}, "Ann")
    assert found.rows.tolist() == [[5, 1, 0], [5, 0, 1], [1, 5, 0]]
    assert found.on_side_a.tolist() == [True, False, False]
    assert found.own.tolist() == [True, False, True]
    assert found.decided.tolist() == [True, True, False]
    assert not asked_before(read_ratings(log.path), {"q": 5}, "Eve").own.any()
