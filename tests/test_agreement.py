"""Agreement with oneself, between raters and of a model, beside naive loops."""

import itertools
import math

import numpy as np
import pytest

from deep_ranking.metrics import agreement
from deep_ranking.metrics.agreement import (
    between_raters,
    majority,
    model_agreement,
    pooled_agreement,
    steadiness,
    votes_of,
)


@pytest.fixture
def answers():
    """Rater, question and answer of 300 answers, with repeats and contradictions."""
    rng = np.random.default_rng(3)
    return rng.integers(4, size=300), rng.integers(30, size=300), rng.random(300) < 0.6


def test_steadiness_equals_a_loop(answers):
    found = steadiness(*answers, 5)
    for rater in range(5):
        last, agree = {}, []
        for each, question, first in zip(*answers, strict=True):
            if each == rater:
                if question in last:
                    agree.append(last[question] == first)
                last[question] = first
        assert found[rater].num_compared == len(agree)
        if agree:
            assert found[rater].share.mean == pytest.approx(np.mean(agree))
    assert found[4].num_compared == 0 and math.isnan(found[4].share.mean)


def votes_by_loop(answers):
    leads = {}
    for rater, question, first in zip(*answers, strict=True):
        leads[rater, question] = leads.get((rater, question), 0) + (1 if first else -1)
    return leads


def test_votes_and_majority_equal_loops(answers):
    leads, votes = votes_by_loop(answers), votes_of(*answers)
    found = dict(zip(zip(votes.rater, votes.question, strict=True), votes.first, strict=True))
    assert found == {key: lead > 0 for key, lead in leads.items() if lead}
    assert votes.num_undecided == sum(lead == 0 for lead in leads.values()) > 0
    sums = {}
    for (_, question), first in found.items():
        sums[question] = sums.get(question, 0) + (1 if first else -1)
    questions, first, num_ties = majority(votes)
    assert dict(zip(questions, first, strict=True)) == {q: s > 0 for q, s in sums.items() if s}
    assert num_ties == sum(s == 0 for s in sums.values()) > 0


def test_agreement_between_raters_equals_a_loop(answers, monkeypatch):
    votes = votes_of(*answers)
    found = between_raters(votes)
    expected = []
    for i, j in itertools.combinations(range(len(votes.rater)), 2):
        if votes.question[i] == votes.question[j]:
            assert votes.rater[i] < votes.rater[j]
            same = votes.first[i] == votes.first[j]
            expected.append((votes.rater[i], votes.rater[j], votes.question[i], same))
    assert sorted(zip(*found, strict=True)) == sorted(expected)
    pooled = pooled_agreement(found)
    assert pooled.share.mean == pytest.approx(np.mean([each[3] for each in expected]))
    assert pooled.num_compared == len(expected)
    monkeypatch.setattr(agreement, "MOST_COMPARED", 2)
    fewer = between_raters(votes)
    assert len(np.unique(fewer.question)) == len(fewer.question) == len(np.unique(found.question))


def test_a_model_agrees_where_the_chosen_image_is_nearer():
    found = model_agreement(np.array([1.0, 2, 3]), np.array([2.0, 2, 4]), np.array([0, 0, 1]))
    assert found.share.mean == pytest.approx(2 / 3) and found.num_compared == 3
    assert (found.share.low, found.share.high) == (0.5, 1.0)  # two queries: 1/2 and 1
    assert math.isnan(model_agreement(*np.empty((2, 0)), np.empty(0, int)).share.mean)
