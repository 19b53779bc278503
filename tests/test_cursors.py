"""Continuing a search: equal to one search, without doing all of it again, within a bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import caller_of, make_served, row_of, use_stub_engine, write_photos
from test_serving import by_distance, png, results_of

from deep_ranking.embedding.embedder import Embedder
from deep_ranking.search.searcher import Searcher
from deep_ranking.serving import opened, searching
from deep_ranking.serving.recent import Recent


@pytest.fixture
def root(tmp_path):
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def call(tmp_path, root, monkeypatch):
    use_stub_engine(monkeypatch)
    return caller_of(make_served(tmp_path / "index", root))


@pytest.fixture
def depths(monkeypatch):
    """How deep each search goes."""
    found, search = [], Searcher.search

    def noted(self, queries, count, **options):
        found.append(count)
        return search(self, queries, count, **options)

    monkeypatch.setattr(Searcher, "search", noted)
    return found


def pages(call, data, **files):
    """The answers to a search and to all of its cursors."""
    answers, cursor = [], None
    while not answers or cursor:
        answer = call.search(data | ({"cursor": cursor} if cursor else {}), **files)
        results_of(answer)
        answers.append(answer.json())
        cursor = answers[-1]["cursor"]
    return answers


def paths(answers):
    return [each["path"] for answer in answers for each in answer["results"]]


def test_a_search_that_is_continued_goes_deeper_and_seldom(call, root, depths):
    data = png(np.full((30, 20, 3), (200, 60, 40)))
    answers = pages(call, {"top": "1"}, image=data)
    assert paths(answers) == [path for _, path in by_distance(row_of(data), root)]
    assert [each["rank"] for answer in answers for each in answer["results"]] == list(range(1, 14))
    assert depths == [2, 8, 32]  # the third finds that 13 are all


def test_an_image_is_left_out_of_its_own_neighbours_on_every_page(call, depths):
    own = results_of(call.search({"path": "red/0.png"}))[0]["id"]
    depths.clear()
    found, cursor = [], ""
    while cursor is not None:
        answer = call.get(f"images/{own}/neighbours?top=2{cursor and f'&cursor={cursor}'}").json()
        found += answer["results"]
        cursor = answer["cursor"]
    everything = results_of(call.search({"path": "red/0.png"}))
    assert [each["id"] for each in found] == [each["id"] for each in everything[1:]]
    assert depths[:3] == [4, 12, 44]


def test_an_upload_is_embedded_once_for_all_its_cursors(call, monkeypatch):
    embedded, engine = [], Embedder.engine(None)
    embed = type(engine).embed
    monkeypatch.setattr(
        type(engine), "embed", lambda self, images: embedded.append(1) or embed(self, images)
    )
    data = png(np.full((30, 20, 3), (200, 60, 40)))
    boxed = {"top": "3", "box": "0,0,0.5,0.5"}
    assert len(pages(call, boxed, image=data)) == 5 and len(embedded) == 1
    pages(call, {"top": "3"}, image=data)  # the whole of it is another picture
    assert len(embedded) == 2


def test_two_searches_do_not_mix(call):
    one = pages(call, {"path": "red/0.png", "top": "4"})
    other = pages(call, {"path": "red/0.png", "top": "4", "class": "blue"})
    again = pages(call, {"path": "red/0.png", "top": "5"})
    assert paths(one) == paths(again) and len(paths(one)) == 13
    assert len(paths(other)) == 5 and all(each.startswith("blue/") for each in paths(other))


def test_a_forgotten_search_is_done_again(tmp_path, root, monkeypatch, depths):
    use_stub_engine(monkeypatch)
    monkeypatch.setattr(opened, "RANKED_KEPT", 1)
    call = caller_of(make_served(tmp_path / "index", root))
    query = {"path": "red/0.png", "top": "2"}
    first = call.search(query).json()
    call.search({"path": "blue/0.png"})
    second = call.search(query | {"cursor": first["cursor"]}).json()
    assert depths == [3, 21, 5]
    whole = results_of(call.search(query | {"top": "4"}))
    assert first["results"] + second["results"] == whole


def test_a_search_ends_at_the_deepest_result_and_says_so(call, monkeypatch):
    monkeypatch.setattr(searching, "DEEPEST", 6)
    answers = pages(call, {"path": "red/0.png", "top": "4"})
    assert [len(each["results"]) for each in answers] == [4, 2]
    assert [each["is_cut"] for each in answers] == [False, True]
    monkeypatch.setattr(searching, "DEEPEST", 13)
    assert [each["is_cut"] for each in pages(call, {"path": "red/1.png", "top": "8"})] == [
        False
    ] * 2


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4), st.booleans()), max_size=40),
)
def test_what_was_not_asked_for_longest_goes_first(most, asked):
    """Against a list: newest last."""
    recent, known = Recent(most), []
    for key, size, keeps in asked:
        before = [each for each in known if each[0] == key]
        if keeps:
            recent.keep(key, str(key), size)
            known = [each for each in known if each[0] != key] + [(key, size)]
            while sum(size for _, size in known) > most and len(known) > 1:
                known.pop(0)
        else:
            assert recent.find(key) == (str(key) if before else None)
            known = [each for each in known if each[0] != key] + before
