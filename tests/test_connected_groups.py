import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from deep_ranking.images.connected_groups import join_pairs


def by_scipy(count, first, second):
    graph = coo_array((np.ones(len(first), bool), (first, second)), (count, count))
    return connected_components(graph, directed=False)[1].tolist()


@pytest.mark.parametrize("num_pairs", [0, 30, 150, 600])
@pytest.mark.parametrize("seed", range(5))
def test_groups_and_their_order_are_scipy_s(num_pairs, seed):
    first, second = np.random.default_rng(seed).integers(0, 300, (2, num_pairs))
    found = join_pairs(np.arange(300), first, second)
    assert found.dtype == np.int64
    assert found.tolist() == by_scipy(300, first, second)


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_a_long_chain_is_one_group(order):
    members = np.arange(2000)
    if order != "rising":
        members = members[::-1]
    if order == "shuffled":
        members = np.random.default_rng(0).permutation(2000)
    assert (join_pairs(np.arange(2000), members[:-1], members[1:]) == 0).all()


def test_joining_in_parts_is_joining_at_once():
    first, second = np.random.default_rng(3).integers(0, 500, (2, 400))
    groups = np.arange(500)
    for begin in range(0, 400, 37):
        groups = join_pairs(groups, first[begin : begin + 37], second[begin : begin + 37])
    assert groups.tolist() == by_scipy(500, first, second)


def test_no_members_have_no_groups():
    nothing = np.empty(0, np.int64)
    assert join_pairs(nothing, nothing, nothing).tolist() == []
