"""Long lists of results in Chromium: only what is near the view is in the page.

The collection `many` has 130 pictures, which take two pages of results and many rows.
"""

import io

import numpy as np
import pytest
from browsing import HOSTILE, tiles
from PIL import Image

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
MOST_TILES = 60  # in the page at once, at the width of these tests
FOCUSED = "document.activeElement.closest('.tile')?.ariaPosInSet"
# The rank of the first tile that is wholly in view, and where it begins.
IN_VIEW = """() => {
  const found = [...document.querySelectorAll(".tile")]
    .map((each) => [Number(each.ariaPosInSet), each.getBoundingClientRect().top])
    .filter(([, top]) => top >= 0);
  return found.sort(([one], [other]) => one - other)[0];
}"""


def search(page):
    """Search the collection; return how many results are told at first."""
    page.wait_for_selector("#empty-view:not([hidden])")
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), (200, 60, 40), np.uint8)).save(buffer, "PNG")
    page.set_input_files(
        "#choose", {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    tiles(page)
    return int(page.inner_text("#status").split()[0])


def search_all(page):
    search(page)
    load_all(page)


def load_all(page):
    """Scroll until all 130 results are loaded."""
    while "130 pictures," not in page.inner_text("#status"):
        told = page.inner_text("#status")
        scroll(page, 1e6)
        page.wait_for_function(
            "told => document.querySelector('#status').innerText !== told", arg=told
        )


def scroll(page, place):
    """Scroll to a place, and wait until the page has drawn it."""
    page.evaluate(
        "place => new Promise((done) => { scrollTo(0, place);"
        "requestAnimationFrame(() => requestAnimationFrame(done)); })",
        place,
    )


def ranks(page):
    """The ranks of the tiles that are in the page, in its order."""
    return page.eval_on_selector_all(".tile", "all => all.map((e) => Number(e.ariaPosInSet))")


def wait_for_focus(page, rank):
    page.wait_for_function(f"rank => {FOCUSED} === String(rank)", arg=rank)


@pytest.fixture
def narrow(opened):
    return opened("/?collection=many", width=360)


def test_more_results_come_while_scrolling(narrow):
    assert 48 <= search(narrow) < 130
    assert narrow.is_hidden("#least-field")  # this collection tells no probabilities
    assert narrow.get_attribute(".tile", "aria-setsize") == "-1"  # not known yet
    load_all(narrow)
    height = narrow.evaluate("document.documentElement.scrollHeight")
    seen = {}
    for place in range(0, height, 600):
        scroll(narrow, place)
        found = ranks(narrow)
        assert found == list(range(found[0], found[-1] + 1)) and len(found) <= MOST_TILES
        seen |= dict(zip(found, tiles(narrow), strict=True))
    assert sorted(seen) == list(range(1, 131)) and len(set(seen.values())) == 130
    assert narrow.get_attribute(".tile", "aria-setsize") == "130"
    assert HOSTILE in narrow.inner_text(".tile[aria-posinset='130'] .places")
    assert narrow.locator("img[src=x]").count() == 0
    assert narrow.evaluate("document.documentElement.scrollHeight") == pytest.approx(height, abs=2)


def test_there_is_room_for_results_that_are_not_in_the_page_yet(narrow):
    search(narrow)
    scroll(narrow, 2000)  # near enough to the end for more, and too far for tiles of them
    narrow.wait_for_selector("text=130 pictures,")
    assert max(ranks(narrow)) < 48
    assert narrow.evaluate("document.querySelector('#grid').offsetHeight") > 65 * 200


def test_what_is_in_view_stays_where_it_is(narrow):
    search_all(narrow)
    scroll(narrow, 3000)
    for step in [700, -500] * 4 + [-300] * 6:
        rank, before = narrow.evaluate(IN_VIEW)
        scroll(narrow, narrow.evaluate("scrollY") + step)
        tile = narrow.locator(f".tile[aria-posinset='{rank}']")
        after = tile.evaluate("tile => tile.getBoundingClientRect().top")
        assert after == pytest.approx(before - step, abs=1.5)


def test_another_width_keeps_what_is_in_view(narrow):
    search_all(narrow)
    scroll(narrow, 6000)
    rank, _ = narrow.evaluate(IN_VIEW)
    narrow.set_viewport_size({"width": 1000, "height": 700})
    narrow.wait_for_function(
        f"rank => {{ const [first, top] = ({IN_VIEW})(); return first <= rank && rank < first + 8"
        " && top < 400; }",
        arg=rank,
    )


def test_the_keyboard_goes_to_the_end_and_back(narrow):
    search_all(narrow)
    scroll(narrow, 0)
    narrow.focus(".tile[aria-posinset='1'] .picture")
    narrow.keyboard.press("End")
    wait_for_focus(narrow, 130)
    assert len(ranks(narrow)) <= MOST_TILES
    narrow.keyboard.press("ArrowUp")
    wait_for_focus(narrow, 128)
    narrow.keyboard.press("Home")
    wait_for_focus(narrow, 1)
    narrow.wait_for_function("() => scrollY < 600")


def test_the_focus_stays_when_its_tile_is_scrolled_out_of_sight(narrow):
    search_all(narrow)
    scroll(narrow, 0)
    narrow.focus(".tile[aria-posinset='3'] .picture")
    scroll(narrow, 9000)
    assert narrow.evaluate(FOCUSED) == "3" and ranks(narrow)[:2] != [1, 2]
    assert narrow.evaluate("scrollY") == pytest.approx(9000, abs=100)
    narrow.keyboard.press("ArrowRight")
    wait_for_focus(narrow, 4)
    narrow.wait_for_function("() => scrollY < 1000")
    assert ranks(narrow)[:4] == [1, 2, 3, 4]


def test_the_tab_key_enters_where_one_looks(narrow):
    search_all(narrow)
    scroll(narrow, 9000)
    narrow.wait_for_selector(".tile button[tabindex='0']", state="attached")
    rank, _ = narrow.evaluate(IN_VIEW)
    narrow.focus("#replace")
    for _ in range(8):
        narrow.keyboard.press("Tab")
        if narrow.evaluate(FOCUSED):
            break
    assert narrow.evaluate(FOCUSED) == str(rank)


def test_back_returns_to_the_place(narrow):
    search_all(narrow)
    scroll(narrow, 8000)
    rank, _ = narrow.evaluate(IN_VIEW)
    assert rank > 40
    narrow.focus(f".tile[aria-posinset='{rank}'] .picture")
    narrow.keyboard.press("m")
    narrow.wait_for_function("() => location.search.includes('id=')")
    tiles(narrow)
    narrow.wait_for_function("() => scrollY === 0")
    narrow.go_back()
    narrow.wait_for_function("() => !location.search.includes('id=') && scrollY > 4000")
    tiles(narrow)
    narrow.wait_for_selector(f".tile[aria-posinset='{rank}']")
    box = narrow.locator(f".tile[aria-posinset='{rank}']").bounding_box()
    assert 0 <= box["y"] < 740


def test_a_search_that_is_cut_says_so(narrow):
    def cut(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"cursor": None, "is_cut": True})

    narrow.route("**/search", cut)
    assert search(narrow) == 48
    assert "A search ends here" in narrow.inner_text("#grid-end")


def test_what_is_there_stays_when_the_server_goes_away(narrow, opened):
    assert search(narrow) < 130
    narrow.route("**/search", lambda route: route.abort())
    scroll(narrow, 1e6)
    narrow.wait_for_selector("text=The server does not answer")
    assert len(ranks(narrow)) > 8
    narrow.unroute("**/search")
    narrow.click("#problem-again")
    narrow.wait_for_selector("#problem", state="hidden")
    opened.wrong[:] = [each for each in opened.wrong if "ERR_FAILED" not in each]
