"""The view "Errors" in Chromium: what a person says is kept, and can be taken back."""

import pytest
from browsing import check_access, end, serve
from served import make_served, write_photos

from deep_ranking.datasets.corrections import read_corrections
from deep_ranking.datasets.ratings import read_ratings

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser


@pytest.fixture
def served(tmp_path):
    """Blue 3.png lies among the red pictures; corrections and answers are taken."""
    root = tmp_path / "photos"
    write_photos(root, copies=False)
    (root / "blue/3.png").rename(root / "red/blue.png")
    make_served(tmp_path / "index", root)
    program, address = serve(
        tmp_path, "--index", "index", "--corrections", "--teach", "--rater", "Ann"
    )
    yield tmp_path, address
    end(program)


def test_a_label_is_corrected_by_keys_and_by_another_class(served, opened):
    folder, address = served
    page = opened("/?view=errors", at=address, width=360)
    page.locator(".error").first.focus()
    check_access(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.keyboard.press("y")
    page.wait_for_selector(".error.done:has-text('Corrected to blue.')")
    check_access(page)
    file = folder / "index.corrections.csv"
    assert read_corrections(file).standing["red/blue.png"].to_class == "blue"
    page.locator(".error.done").first.focus()
    page.keyboard.press("u")
    page.wait_for_selector(".error.done", state="detached")
    assert not read_corrections(file).standing

    page.keyboard.press("r")
    page.wait_for_selector(".error.done:has-text('Kept: red is right.')")
    assert read_corrections(file).right["red/blue.png"].who == "Ann"
    page.locator(".error.done").first.focus()
    page.keyboard.press("u")
    page.wait_for_selector(".error.done", state="detached")
    assert not read_corrections(file).right
    lines = "[...document.querySelectorAll('.ending')].map((each) => each.getClientRects().length)"
    assert set(page.evaluate(lines)) == {1}  # no name of a file breaks within its ending

    page.keyboard.press("o")
    page.keyboard.type("<b>violet</b>")
    page.keyboard.press("Enter")
    page.wait_for_selector(".error.done:has-text('Corrected to <b>violet</b>, a new class.')")
    page.click("#errors-corrections summary")
    page.click("#errors-corrections button")
    page.wait_for_selector("#errors-corrections details", state="detached")
    assert not read_corrections(file).standing
    page.click("#errors-again")
    page.wait_for_selector(".error:not(.done)")


def test_what_is_alike_is_answered_and_why_is_shown(served, opened):
    folder, address = served
    page = opened("/?view=errors", at=address)
    card = page.locator(".error:has(button:has-text('Truly alike'))").first
    card.wait_for()
    paths = card.locator(".errors-picture .fine").evaluate_all("all => all.map((e) => e.title)")
    card.focus()
    page.keyboard.press("t")
    card.locator(".errors-said:has-text('of its class is more alike')").wait_for()
    file = folder / "index.ratings.csv"
    ratings = read_ratings(file)
    query, nearest, own = paths
    assert [ratings.paths[each] for each in ratings.rows[0]] == [query, own, nearest]
    card.focus()
    page.keyboard.press("u")
    card.locator(".errors-said").wait_for(state="hidden")
    assert len(read_ratings(file)) == 0
    page.keyboard.press("a")
    card.locator(".errors-said:has-text('truly more alike')").wait_for()
    ratings = read_ratings(file)
    assert [ratings.paths[each] for each in ratings.rows[0]] == [query, nearest, own]
    card.focus()
    page.keyboard.press("w")
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert page.evaluate("document.activeElement.className").startswith("error")


def test_without_the_flags_errors_are_shown_alone(tmp_path, opened, address):
    page = opened("/?view=errors")
    page.wait_for_selector("#errors-hint:has-text('--corrections to say that a class is wrong')")
    page.wait_for_selector("#errors-summary:has-text('3 classes')")
    assert not page.locator(".errors-acts .primary").count()
