"""Questions in the page, in Chromium: by keyboard, by thumb, in two windows, over a bad line."""

import json

import pytest
from browsing import check_access, end, serve

from deep_ranking.datasets.ratings import read_ratings

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
PATHS = """() => ["query", "a", "b"]
  .map((side) => document.querySelector(`#teach-${side}-picture img`)?.alt.slice(11)).join("|")"""
CANNOT_SAY = "Can\N{RIGHT SINGLE QUOTATION MARK}t say"
KEYS = (
    ("a", "A"), ("ArrowRight", "B"), ("b", "B"), ("ArrowLeft", "A"),
    ("c", "cannot_say"), (" ", "cannot_say"),
)  # fmt: skip
LOADED = "() => performance.getEntriesByType('resource').map((each) => each.name)"


@pytest.fixture(scope="module")
def teaching(folder):
    """A server that asks about 130 hues; its address, and the ratings file."""
    program, address = serve(folder, "--index", "many", "--teach")
    yield address, folder / "many.ratings.csv"
    end(program)


@pytest.fixture
def teach(opened, teaching):
    """Opens the view, and begins as somebody."""

    def begin(name, **options):
        page = opened("/?view=teach", at=teaching[0], **options)
        page.wait_for_selector("#teach-who:not([hidden])")
        page.fill("#teach-name", name)
        page.keyboard.press("Enter")
        page.wait_for_selector("#teach-ask:not([hidden])")
        shown(page)
        return page

    return begin


def shown(page, other_than=""):
    """The paths of the question that is shown, once it is another one."""
    page.wait_for_function(f"(before) => (({PATHS})() || before) !== before", arg=other_than)
    return page.evaluate(PATHS)


def lines_of(teaching, rater):
    """What the file has of a rater: the question as it was shown, and the answer."""
    lines = []
    for line in teaching[1].read_text().splitlines()[1:]:
        _, name, query, chosen, other, answer, _, side, _ = line.split(",")
        if name == rater:
            a, b = (other, chosen) if side == "B" else (chosen, other)
            lines.append((f"{query}|{a}|{b}", answer if answer != "chosen" else side))
    return lines


def said(page, text):
    page.wait_for_function(
        "(text) => document.querySelector('#teach-said').textContent.includes(text)", arg=text
    )


def test_thirty_answers_by_keyboard(teach, teaching):
    page, given, seen, again, before = teach("Ann"), [], set(), 0, ""
    for number in range(30):
        before = shown(page, before)
        query, *others = before.split("|")
        question = (query, *sorted(others))
        again += question in seen
        key, due = KEYS[number % 4 if question in seen or number % 5 < 4 else 4 + number % 2]
        seen.add(question)
        page.keyboard.press(key)
        said(page, f"{number + 1} answer")
        given.append((before, due))
    assert lines_of(teaching, "Ann") == given
    progress = page.inner_text("#teach-progress")
    unsure = sum(answer == "cannot_say" for _, answer in given)
    assert progress.startswith(f"30 answers ({unsure} {CANNOT_SAY.lower()}); you agree with")
    assert unsure and again and f" of {again} repeat" in progress
    assert "too few to tell much" in progress
    shown(page, before)
    for key, (question, due) in zip(("u", "Backspace"), given[:-3:-1], strict=True):
        page.keyboard.press(key)
        said(page, f"Taken back: {CANNOT_SAY if due == 'cannot_say' else due}.")
        assert page.evaluate(PATHS) == question
    page.keyboard.press("b")
    said(page, "29 answers")
    ratings = read_ratings(teaching[1])
    assert (ratings.rater == ratings.raters.index("Ann")).sum() == 29
    page.reload()  # the name is known, and what was answered is in the file
    page.wait_for_selector("#teach-progress:has-text('29 answers')")
    assert page.inner_text("#teach-rename") == "Ann"


def test_the_pictures_of_the_next_question_are_there_before_it(teach):
    page = teach("Bea")
    page.wait_for_load_state("networkidle")
    loaded = page.evaluate(LOADED)
    before = page.evaluate(PATHS)
    page.keyboard.press("a")
    shown(page, before)
    sources = page.eval_on_selector_all("#teach-ask img", "all => all.map((each) => each.src)")
    assert len(sources) == 3 and set(sources) <= set(loaded)


def test_a_picture_that_does_not_come_is_told_in_its_place(teach, opened):
    page = teach("Flo")
    page.wait_for_load_state("networkidle")
    page.route("**/thumbnail*", lambda route: route.fulfill(status=410, body="{}"))
    for number in range(3):  # the next one has its pictures already
        # Once the question after the next is asked for, the next can be answered.
        with page.expect_response("**/teach/question"):
            page.keyboard.press("c")
        said(page, f"{number + 1} answer")
    page.wait_for_selector("#teach-ask .unshown:has-text('cannot be shown')")
    page.close()  # more pictures may be on their way
    opened.wrong[:] = [each for each in opened.wrong if "status of 410" not in each]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_hand_on_a_phone_is_enough(teach, teaching, scheme):
    page = teach(f"Thumb {scheme}", width=360, has_touch=True, color_scheme=scheme)
    check_access(page)
    size = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert size == [360, 800]
    boxes = {each: page.locator(f"#teach-{each}").bounding_box() for each in
             ("query-frame", "a", "b", "undo", "neither")}  # fmt: skip
    for name in ("a", "b"):
        assert boxes[name]["width"] > 150 and boxes[name]["height"] > 150
        assert boxes[name]["y"] > boxes["query-frame"]["y"] + boxes["query-frame"]["height"]
    assert all(boxes[each]["height"] >= 44 for each in ("undo", "neither"))
    first = page.evaluate(PATHS)
    page.tap("#teach-b")
    second = shown(page, first)
    page.tap("#teach-neither")
    shown(page, second)
    page.tap("#teach-undo")
    said(page, f"Taken back: {CANNOT_SAY}.")
    assert lines_of(teaching, f"Thumb {scheme}")[:2] == [(first, "B"), (second, "cannot_say")]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_name_is_asked_for_in_a_form_that_all_can_use(opened, teaching, width):
    page = opened("/", at=teaching[0], width=width)
    page.click("#to-teach")
    page.wait_for_selector("#teach-who:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "teach-name"
    assert page.title() == "Teach · Deep Ranking"
    check_access(page)
    page.go_back()
    page.wait_for_selector("#empty-view:not([hidden])")
    page.go_forward()
    page.wait_for_selector("#teach-who:not([hidden])")


def test_an_answer_whose_confirmation_is_lost_is_sent_again_and_kept_once(teach, teaching, opened):
    page = teach("Cy")
    first = page.evaluate(PATHS)

    def lose(route):
        route.fetch()  # it arrives, and is kept
        route.abort()

    page.route("**/teach/answers", lose)
    page.keyboard.press("a")
    page.wait_for_selector("#teach-problem:has-text('The server does not answer')")
    assert page.evaluate(PATHS) == first
    page.unroute("**/teach/answers")
    page.click("#teach-again")
    said(page, "kept already")
    second = shown(page, first)
    assert page.is_hidden("#teach-problem")
    full = {"detail": "The disk is full, so this was not kept."}
    page.route("**/teach/*", lambda route: route.fulfill(status=507, body=json.dumps(full)))
    page.keyboard.press("b")
    page.wait_for_selector("#teach-problem:has-text('The disk is full')")
    page.unroute("**/teach/*")
    page.keyboard.press("a")  # the person has thought again
    shown(page, second)
    assert lines_of(teaching, "Cy") == [(first, "A"), (second, "A")]
    assert all("Failed to load" in each for each in opened.wrong)
    opened.wrong.clear()


def test_in_two_windows_nothing_is_kept_twice_or_lost(teach, teaching, opened):
    one, another = teach("Dot"), teach("Dot")
    first = one.evaluate(PATHS)
    assert another.evaluate(PATHS) == first
    one.keyboard.press("a")
    second = shown(one, first)
    another.keyboard.press("a")
    said(another, "kept already")
    assert shown(another, first) == second
    one.keyboard.press("b")
    shown(one, second)
    another.keyboard.press("a")
    another.wait_for_selector("#teach-problem:has-text('answered already, and differently')")
    assert another.is_hidden("#teach-again")
    third = shown(another, second)
    assert lines_of(teaching, "Dot") == [(first, "A"), (second, "B")]
    another.keyboard.press("c")
    shown(another, third)
    one.keyboard.press("u")  # its last answer is no longer the rater's last
    one.wait_for_selector("#teach-problem:has-text('Another answer is your last one')")
    assert len(lines_of(teaching, "Dot")) == 3
    assert all("Failed to load" in each for each in opened.wrong)
    opened.wrong.clear()


def test_the_space_bar_presses_a_button_that_has_the_focus(teach, teaching):
    page = teach("Eve")
    first = page.evaluate(PATHS)
    page.focus("#teach-b")
    page.keyboard.press(" ")
    second = shown(page, first)
    page.dblclick("#teach-a")  # the second click is too early; then it is "can't say" again
    third = shown(page, second)
    page.keyboard.press(" ")
    shown(page, third)
    assert [each for _, each in lines_of(teaching, "Eve")] == ["B", "A", "cannot_say"]


def test_the_view_is_there_only_where_the_server_asks(opened):
    page = opened("/?view=teach")
    page.wait_for_selector("#toast:has-text('does not have the view')")
    assert page.locator("#to-teach").count() == 0
