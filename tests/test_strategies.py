"""What each strategy draws, against its formula. Seeds are fixed: a test passes or fails for good.

At a p-value of 0.001 a right sampler fails one time in a thousand.
"""

from collections import Counter
from itertools import islice, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from deep_ranking.config import SamplingConfig
from deep_ranking.files import InputError
from deep_ranking.sampling import ByRelevance, make_strategy, sample_triplets
from deep_ranking.sampling import by_relevance as relevance_module
from deep_ranking.sampling import strategy as strategy_module
from deep_ranking.sampling.drawing import Pool
from deep_ranking.sampling.negatives import HardNegatives, InClassNegatives, OutOfClassNegatives
from deep_ranking.sampling.positives import GivenPositives, SameItemPositives
from deep_ranking.sampling.reservoir import Reservoirs
from deep_ranking.sampling.strategy import ByQuery


def drawn(strategy, seed=0, epoch=0, **options):
    return np.concatenate(list(strategy.triplets(seed, epoch, **options)))


def assert_shares(counts, shares):
    """Counts follow shares; what has none was never drawn."""
    counts, shares = np.asarray(counts, float), np.asarray(shares, float)
    assert not counts[shares == 0].any()
    there = shares > 0
    expected = shares[there] / shares.sum() * counts.sum()
    assert expected.min() >= 5
    if there.sum() > 1:
        assert chisquare(counts[there], expected).pvalue > 0.001


def assert_share(hits, total, share):
    assert binomtest(int(hits), int(total), share).pvalue > 0.001


# Pools


@given(st.data())
def test_ranges_of_a_pool_hold_what_they_say(data):
    size = data.draw(st.integers(1, 20))
    items = np.array(data.draw(st.lists(st.integers(-3, 6), min_size=size, max_size=size)))
    categories = items * 7 % 3  # several items each, none beside the other
    members = np.array(
        sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size)))
    )
    pool = Pool(items, categories, members)
    queries = np.arange(size)
    for ranges, labels in (
        (pool.item_ranges(queries), items),
        (pool.category_ranges(queries), categories),
    ):
        for query, start, length in zip(queries, *ranges, strict=True):
            found = sorted(pool.images[start : start + length].tolist())
            assert found == [each for each in members.tolist() if labels[each] == labels[query]]
    assert pool.num_items == len(set(items[members]))
    assert pool.num_categories == len(set(categories[members]))


# In-class. Items 0 ... 5 of the categories 0, 0, 0, 1, 1, 2, in an order that is none.

ITEMS = np.array([3, 0, 1, 0, 4, 2, 5, 3, 1, 0, 4, 5, 2, 3])
CATEGORIES = np.array([0, 0, 0, 1, 1, 2])[ITEMS]


def in_class(num_negatives=1, share=0.0, num_positives=1):
    pool = Pool(ITEMS, CATEGORIES)
    negatives = InClassNegatives(pool, num_negatives, out_of_class_share=share)
    return ByQuery(SameItemPositives(pool, num_positives), negatives)


def test_in_class_negatives_are_other_items_of_the_category():
    triplets = np.concatenate([drawn(in_class(2, num_positives=2), seed) for seed in range(300)])
    query, positive, negative = triplets.T
    assert (ITEMS[query] == ITEMS[positive]).all() and (query != positive).all()
    assert (CATEGORIES[query] == CATEGORIES[negative]).all()
    assert (ITEMS[query] != ITEMS[negative]).all()
    # Item 5 is alone in its category: no negative, and so no query.
    assert set(query) == set(np.flatnonzero(ITEMS < 5))
    for image in (1, 4):
        allowed = (CATEGORIES[image] == CATEGORIES) & (ITEMS[image] != ITEMS)
        assert_shares(np.bincount(negative[query == image], minlength=len(ITEMS)), allowed)


def test_in_class_share_of_other_categories():
    triplets = np.concatenate([drawn(in_class(1, share=0.2), seed) for seed in range(400)])
    query, _, negative = triplets.T
    outside = CATEGORIES[query] != CATEGORIES[negative]
    assert_share(outside.sum(), len(triplets), 0.2)
    others = negative[outside & (query == 1)]
    assert_shares(np.bincount(others, minlength=len(ITEMS)), CATEGORIES[1] != CATEGORIES)


def test_in_class_draws_nothing_twice_for_a_pair():
    for seed in range(50):
        triplets = drawn(in_class(6, share=0.5, num_positives=2), seed)
        assert len(set(map(tuple, triplets.tolist()))) == len(triplets)
        assert len(triplets) <= in_class(6, share=0.5, num_positives=2).num_triplets


def test_a_category_of_one_item_each_is_an_error():
    pool = Pool([0, 0, 1, 1], [0, 0, 1, 1])
    with pytest.raises(InputError, match="no category has two items"):
        InClassNegatives(pool, 1)
    with pytest.raises(InputError, match="one category"):
        InClassNegatives(Pool([0, 0, 1, 1]), 1, out_of_class_share=0.1)
    with pytest.raises(InputError, match=r"lie between 0 and 1. Received: 1.5"):
        InClassNegatives(pool, 1, out_of_class_share=1.5)


# Given pairs


def test_given_positives_and_negatives_of_the_gallery():
    # Queries 0, 1, 2 of the items 0, 1, 2; gallery 3 ... 8; items 0 and 1 are of one category.
    items = np.array([0, 1, 2, 0, 0, 1, 1, 2, 2])
    pairs = np.array([[1, 5], [0, 4], [0, 3], [2, 7], [1, 5], [1, 6]])
    strategy = make_strategy(
        SamplingConfig(num_pos_images=1, num_neg_images=1),
        items,
        categories=np.array([0, 0, 1])[items],
        pairs=pairs,
    )
    triplets = np.concatenate([drawn(strategy, seed) for seed in range(500)])
    assert {tuple(each) for each in triplets[:, :2]} == {tuple(each) for each in pairs}
    of = {query: triplets[triplets[:, 0] == query] for query in range(3)}
    assert_shares(np.bincount(of[0][:, 1], minlength=9), np.isin(np.arange(9), (3, 4)))
    assert_shares(np.bincount(of[0][:, 2], minlength=9), np.isin(np.arange(9), (5, 6)))
    # Item 2 is alone in its category, so its negatives are of any other item; 8 is no positive.
    assert_shares(np.bincount(of[2][:, 2], minlength=9), np.isin(np.arange(9), (3, 4, 5, 6)))


def test_all_given_positives_at_most():
    given_ones = GivenPositives(np.array([[4, 1], [4, 2], [4, 3], [0, 1]]), 2)
    assert given_ones.queries.tolist() == [0, 4]
    assert given_ones.counts(np.array([0, 4])).tolist() == [1, 2]
    assert given_ones.most == 2


# Hard


def test_hard_negatives_are_of_the_neighbours_each_as_likely():
    items = np.array([0, 0, 1, 1, 2])
    neighbours = np.array([[2, 4, -1], [3, -1, -1], [0, 1, 4], [-1, -1, -1], [0, -1, -1]])
    strategy = ByQuery(SameItemPositives(Pool(items), 1), HardNegatives(neighbours, items, 1))
    assert strategy.queries.tolist() == [0, 1, 2]  # 3 has no neighbour, 4 no positive
    triplets = np.concatenate([drawn(strategy, seed) for seed in range(500)])
    for query in (0, 1, 2):
        negatives = triplets[triplets[:, 0] == query, 2]
        allowed = np.isin(np.arange(5), neighbours[query])
        assert_shares(np.bincount(negatives, minlength=5), allowed)
    assert HardNegatives(neighbours, items, 2).counts(np.arange(5)).tolist() == [2, 1, 2, 0, 1]


def test_a_neighbour_of_the_own_class_is_refused():
    with pytest.raises(ValueError, match="own class"):
        HardNegatives(np.array([[1], [0]]), np.array([4, 4]), 1)
    with pytest.raises(InputError, match="no image has a neighbour"):
        HardNegatives(np.array([[-1], [-1]]), np.array([4, 4]), 1)


# Balance


def test_balanced_classes_give_equally_many_queries():
    items = np.repeat([0, 1, 2, 3], [2, 5, 20, 1])
    pool = Pool(items)
    parts = (SameItemPositives(pool, 1), OutOfClassNegatives(pool, 2))
    strategy = ByQuery(*parts, balanced_items=items)
    seen = Counter()
    for epoch in range(300):
        triplets = drawn(strategy, 1, epoch)
        queries = triplets[::2, 0]  # each has one positive with two negatives
        assert np.bincount(items[queries]).tolist() == [9, 9, 9]  # 27 queries of 3 classes
        assert len(triplets) == strategy.num_triplets
        counts = np.bincount(queries, minlength=28)
        assert set(counts[:2]) <= {4, 5} and set(counts[2:7]) <= {1, 2}
        assert set(counts[7:27]) <= {0, 1}
        seen.update(queries.tolist())
    assert_shares([seen[image] for image in range(7, 27)], np.ones(20))


# Epochs and streams


def strategies():
    items = np.repeat(np.arange(6), 5)
    categories = items // 2
    scores = np.random.default_rng(1).random((30, 30))
    scores += scores.T
    relevance = (Matrix(scores), totals_of(scores, categories))
    neighbours = (np.arange(30)[:, None] + [5, 10, 15]) % 30
    for name in ("out-of-class", "in-class", "relevance", "hard"):
        yield make_strategy(
            SamplingConfig(strategy=name, num_pos_images=2, num_neg_images=3),
            items,
            categories=categories,
            relevance=relevance,
            neighbours=neighbours,
        )


def test_epochs_differ_and_can_be_drawn_again():
    for strategy in strategies():
        first = drawn(strategy, 3, 1)
        np.testing.assert_array_equal(drawn(strategy, 3, 1), first)
        for other in (drawn(strategy, 3, 0), drawn(strategy, 3, 2), drawn(strategy, 4, 1)):
            assert not np.array_equal(other, first)
        assert first.dtype == np.int32


def test_a_stream_goes_on_at_any_epoch_and_never_ends():
    for strategy in strategies():
        per_epoch = len(list(strategy.triplets(5, 0, shuffle=True)))
        blocks = list(islice(strategy.stream(5), 3 * per_epoch))
        again = list(islice(strategy.stream(5, epoch=1), 2 * per_epoch))
        assert not np.array_equal(blocks[0], blocks[per_epoch])
        np.testing.assert_array_equal(np.concatenate(again), np.concatenate(blocks[per_epoch:]))


def test_a_stream_is_in_random_order(monkeypatch):
    monkeypatch.setattr(strategy_module, "BLOCK_TRIPLETS", 60)  # ten queries: two classes in order
    for strategy in strategies():
        triplets = next(strategy.stream(5))
        assert len(set(triplets[:, 0] // 5)) > 3
        classes = triplets[:, 0] // 5
        # Class by class, nearly all neighbours would be of one class; at random a sixth are.
        assert (classes[1:] == classes[:-1]).mean() < 0.4


def test_a_stream_mixes_the_triplets_of_many_queries(monkeypatch):
    monkeypatch.setattr(strategy_module, "BLOCK_TRIPLETS", 12)  # of two queries
    strategy = next(strategies())
    triplets = next(strategy.stream(5))
    assert len(triplets) == 180  # one pass
    assert len(set(triplets[:12, 0].tolist())) > 4
    np.testing.assert_array_equal(np.bincount(triplets[:, 0]), np.full(30, 6))
    monkeypatch.setattr(strategy_module, "SHUFFLED_TRIPLETS", 60)  # memory is bounded
    assert [len(block) for block in islice(strategy.stream(5), 4)] == [60, 60, 60, 60]


def test_shuffled_queries_keep_the_rule():
    items = np.repeat(np.arange(4), 5)
    pool = Pool(items)
    strategy = ByQuery(SameItemPositives(pool, 2), OutOfClassNegatives(pool, 3))
    query, positive, negative = drawn(strategy, 2, shuffle=True).T
    assert (items[query] == items[positive]).all() and (items[query] != items[negative]).all()
    assert np.bincount(query).tolist() == [6] * 20


def test_out_of_class_is_what_it_was():
    items = np.repeat([4, 5, 9], [3, 1, 7])
    strategy = make_strategy(SamplingConfig(num_pos_images=2, num_neg_images=3), items)
    blocks = sample_triplets(items, num_positives=2, num_negatives=3, seed=9)
    np.testing.assert_array_equal(drawn(strategy, 9), np.concatenate(list(blocks)))
    assert strategy.num_triplets == len(drawn(strategy, 9))


# Reservoirs


def test_a_buffer_is_a_weighted_sample_without_replacement():
    weights = np.array([1.0, 2.0, 4.0, 0.5, 3.0])
    exact = Counter()
    for order in permutations(range(5), 3):
        left, chance = weights.sum(), 1.0
        for image in order:
            chance *= weights[image] / left
            left -= weights[image]
        exact[frozenset(order)] += chance
    found = Counter()
    for seed in range(4000):
        rng = np.random.default_rng(seed)
        reservoirs = Reservoirs(2, 3)
        for part in np.split(rng.permutation(5), [2, 4]):  # images go by in several steps
            reservoirs.add(rng, part, np.full(len(part), 1), weights[part])
        found[frozenset(reservoirs.images.tolist())] += 1
        assert reservoirs.starts.tolist() == [0, 0, 3]
    assert sum(exact.values()) == pytest.approx(1)
    assert_shares([found[each] for each in exact], list(exact.values()))


def test_inclusion_makes_sums_over_a_buffer_right_on_average():
    # Horvitz and Thompson: the sum of 1 / inclusion over a buffer is the number of images.
    weights = np.random.default_rng(0).random(40) + 0.1
    estimates = []
    for seed in range(3000):
        rng = np.random.default_rng(seed)
        reservoirs = Reservoirs(1, 8)
        for part in np.split(rng.permutation(40), [20, 36]):  # the last few seldom get in
            reservoirs.add(rng, part, np.zeros(len(part), int), weights[part])
        estimates.append((1 / reservoirs.inclusion(0)).sum())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - 40) < 4 * error
    whole = Reservoirs(1, 40)
    whole.add(np.random.default_rng(0), np.arange(40), np.zeros(40, int), weights)
    assert (whole.inclusion(0) == 1).all()


# Relevance


class Matrix:
    def __init__(self, scores):
        self.matrix = scores

    def scores(self, queries, candidates):
        return self.matrix[np.ix_(queries, candidates)]


def totals_of(scores, categories):
    """r_i, pair by pair."""
    return np.array(
        [
            sum(
                scores[i, j]
                for j in range(len(scores))
                if j != i and categories[j] == categories[i]
            )
            for i in range(len(scores))
        ]
    )


def by_relevance(num_images=12, per_image=4000, *, scale=1.0, **options):
    rng = np.random.default_rng(7)
    categories = rng.permutation(np.arange(num_images) % 3 > 0).astype(int) * 5
    scores = scale * rng.random((num_images, num_images))
    scores = (scores + scores.T) / 2
    totals = totals_of(scores, categories)
    strategy = ByRelevance(
        Matrix(scores), totals, categories, triplets_per_image=per_image, **options
    )
    return strategy, scores, totals, categories


def test_queries_are_drawn_by_total_relevance():
    strategy, _, totals, _ = by_relevance(gap=0.001, per_image=2000, out_of_class_share=1.0)
    triplets = drawn(strategy)
    assert len(triplets) == strategy.num_triplets == 24_000
    assert_shares(np.bincount(triplets[:, 0]), totals)


def test_positives_are_drawn_by_relevance_up_to_the_cap():
    strategy, scores, totals, categories = by_relevance(cap=0.5, out_of_class_share=1.0)
    triplets = drawn(strategy)
    assert (scores > 0.5).mean() > 0.3
    for query in np.argsort(totals)[-3:]:
        wanted = np.minimum(scores[query], 0.5) * (categories == categories[query])
        wanted[query] = 0
        positives = triplets[triplets[:, 0] == query, 1]
        assert_shares(np.bincount(positives, minlength=12), wanted)


def test_in_class_negatives_are_drawn_as_positives_are_under_the_gap():
    strategy, scores, totals, categories = by_relevance(
        cap=0.5, gap=0.2, per_image=20_000, out_of_class_share=0.0
    )
    triplets = drawn(strategy)
    query, positive, negative = triplets.T
    assert (scores[query, positive] - scores[query, negative] >= 0.2).all()
    assert (categories[query] == categories[negative]).all()
    assert (query != negative).all() and (positive != negative).all()
    best = int(np.argmax(totals))
    weights = np.minimum(scores[best], 0.5) * (categories == categories[best])
    weights[best] = 0
    feasible = 0 * weights
    for image in range(12):
        allowed = weights * (scores[best, image] - scores[best] >= 0.2)
        feasible[image] = weights[image] * allowed.any()
        here = (query == best) & (positive == image)
        if allowed.any() and weights[image]:
            assert_shares(np.bincount(negative[here], minlength=12), allowed)
        else:
            assert not here.any()
    assert_shares(np.bincount(positive[query == best], minlength=12), feasible)


def test_out_of_class_share_and_its_negatives():
    strategy, _, _, categories = by_relevance(gap=0.01, out_of_class_share=0.3)
    query, _, negative = drawn(strategy).T
    outside = categories[query] != categories[negative]
    # Some in-class triplets find no negative; those that are out-of-class all are there.
    assert_share(outside.sum(), strategy.num_triplets, 0.3)
    for category in (0, 5):
        here = negative[outside & (categories[query] == category)]
        assert_shares(np.bincount(here, minlength=12), categories != category)


def test_default_share_is_a_fifth():
    scores = np.random.default_rng(0).random((60, 60))
    scores += scores.T
    categories = np.arange(60) % 2
    strategy = make_strategy(
        SamplingConfig(strategy="relevance", relevance_gap=1e-6),
        categories,
        relevance=(Matrix(scores), totals_of(scores, categories)),
    )
    query, _, negative = drawn(strategy).T
    assert_share((categories[query] != categories[negative]).sum(), strategy.num_triplets, 0.2)


def test_equal_relevance_makes_no_in_class_triplet():
    # All scores are 0.5, but images 0 and 1 have 1.0: with a gap of 0.5 exactly, these only.
    scores = np.full((6, 6), 0.5)
    scores[0, 1] = scores[1, 0] = 1.0
    categories = np.zeros(6, int)
    strategy = ByRelevance(
        Matrix(scores),
        totals_of(scores, categories),
        categories,
        triplets_per_image=50,
        gap=0.5,
        out_of_class_share=0,
    )
    triplets = drawn(strategy)
    assert {tuple(sorted(each)) for each in triplets[:, :2].tolist()} == {(0, 1)}
    assert len(triplets) < strategy.num_triplets


@pytest.mark.slow
@pytest.mark.parametrize("buffer", [12, 60])
def test_small_buffers_draw_by_the_same_formulas(buffer):
    """One pass through buffers that hold a fraction, over many seeds: shares by r_i and r_ij."""
    rng = np.random.default_rng(3)
    traits = rng.random(60) + 0.05
    scores = np.outer(traits, traits)  # some images are relevant to all, others to none
    categories = np.zeros(60, int)
    categories[50:] = 1
    totals = totals_of(scores, categories)
    strategy = ByRelevance(
        Matrix(scores),
        totals,
        categories,
        triplets_per_image=1,
        cap=9.0,
        out_of_class_share=1.0,
        buffer=buffer,
    )
    triplets = np.concatenate([drawn(strategy, seed) for seed in range(1500)])
    queries = np.bincount(triplets[:, 0], minlength=60) / len(triplets)
    # Triplets of one pass share a buffer, so that their counts spread wider than chi-square's.
    np.testing.assert_allclose(queries, totals / totals.sum(), rtol=0.2, atol=0.0012)
    first = triplets[categories[triplets[:, 0]] == 0]
    positives = np.bincount(first[:, 1], minlength=60) / len(first)
    expected = np.zeros(60)
    for query in range(50):
        weights = np.where(categories == 0, scores[query], 0)
        weights[query] = 0
        expected += totals[query] / totals[:50].sum() * weights / weights.sum()
    np.testing.assert_allclose(positives, expected, rtol=0.2, atol=0.0012)
    if buffer == 12:
        assert max(len(set(drawn(strategy, seed)[:, 1])) for seed in range(20)) <= 12 + 10


def test_many_arrivals_and_parts_give_every_triplet(monkeypatch):
    monkeypatch.setattr(relevance_module, "IMAGES_AT_ONCE", 16)
    monkeypatch.setattr(relevance_module, "TRIPLETS_AT_ONCE", 50)
    monkeypatch.setattr(relevance_module, "SCORES_AT_ONCE", 40)
    monkeypatch.setattr(relevance_module, "BLOCK_TRIPLETS", 20)
    strategy, scores, _, categories = by_relevance(100, 10, gap=1e-9, buffer=8)
    blocks = list(strategy.triplets(0))
    assert max(map(len, blocks)) <= 20
    query, positive, negative = np.concatenate(blocks).T
    assert 950 <= len(query) <= 1000
    inside = categories[query] == categories[negative]
    assert (categories[query] == categories[positive]).all()
    assert (scores[query, positive] > scores[query, negative])[inside].all()
    assert len(set(query)) > 30  # buffers change while images go by


def test_categories_keep_their_shares_while_images_arrive(monkeypatch):
    monkeypatch.setattr(relevance_module, "IMAGES_AT_ONCE", 16)
    strategy, _, totals, categories = by_relevance(
        100, 10, gap=1e-9, buffer=8, out_of_class_share=1.0
    )
    share = totals[categories == 0].sum() / totals.sum()
    for seed in range(6):
        query = drawn(strategy, seed)[:, 0]
        assert len(query) == 1000
        assert_share((categories[query] == 0).sum(), 1000, share)


def test_balanced_categories_give_equally_many_queries():
    strategy, _, totals, categories = by_relevance(balance=True, out_of_class_share=1.0)
    queries = drawn(strategy)[:, 0]
    shares = totals.copy()
    for category in (0, 5):
        shares[categories == category] /= totals[categories == category].sum()
    assert_shares(np.bincount(queries, minlength=12), shares)


def test_a_gap_that_no_pair_satisfies_ends_with_a_count_and_advice():
    strategy, _, _, _ = by_relevance(per_image=10, gap=3.0)
    message = (
        r"relevance_gap 3: none of \d+ queries has a positive .*largest difference seen is 0\.\d+\)"
        r"; lower --relevance_gap"
    )
    with pytest.raises(InputError, match=message):
        drawn(strategy)
    with pytest.raises(InputError, match=message):
        list(strategy.stream(0))  # which has no end otherwise


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": 0}, "relevance_cap must be above 0"),
        ({"gap": float("nan")}, "relevance_gap must be above 0"),
        ({"out_of_class_share": -0.1}, "out_of_class_share must lie between 0 and 1"),
        ({"scale": 0.0}, "no two images of a category have a relevance above 0"),
    ],
)
def test_settings_of_relevance_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        by_relevance(**options)


def test_one_category_has_no_other():
    scores = np.ones((3, 3))
    with pytest.raises(InputError, match="one category"):
        ByRelevance(Matrix(scores), np.full(3, 2.0), np.zeros(3, int), triplets_per_image=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pos_images": 0}, "num_pos_images must be 1 or more"),
        ({"buffer": 1}, "buffer must be 2 or more"),
        ({"strategy": "soft"}, "strategy must be one of"),
        ({"relevance_gap": -1.0}, "relevance_gap must be above 0"),
        ({"out_of_class_share": 0.2}, "needs strategy in-class or relevance"),
        ({"strategy": "in-class", "out_of_class_share": 2.0}, "must lie between 0 and 1"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        SamplingConfig(**options)
