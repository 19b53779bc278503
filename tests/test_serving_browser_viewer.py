"""Two pictures side by side in a real browser: why they are alike, any two, and own examples."""

import json
import re

import numpy as np
import pytest
from browsing import SENT, at_query, check_access, red_id, tiles, upload

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
HOT = [[1.0 if (row, column) == (1, 5) else 0.0 for column in range(7)] for row in range(7)]
ANSWER = {
    "distance": 0.5,
    "cosine": 0.875,
    "probability": None,
    "words": None,
    "first": None,
    "second": None,
    "heat": [
        {"grid": HOT, "strongest": 0.2, "words": "The upper right counts most."},
        {"grid": HOT[::-1], "strongest": 0.1, "words": "The lower right counts most."},
    ],
}
OPACITY = """id => {
  const canvas = document.getElementById(id);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let [most, place, sum] = [-1, 0, 0];
  for (let at = 3; at < pixels.length; at += 4) {
    if (pixels[at] > most) [most, place] = [pixels[at], (at - 3) / 4];
    sum += pixels[at];
  }
  const { width, height } = canvas;
  return { most, x: (place % width) / width, y: Math.floor(place / width) / height,
           mean: sum / (width * height), width, height };
}"""

RECORDED = """() => {
  const real = window.fetch;
  window.fetch = (address, options) => {
    const named = ([name, each]) => [name, each.name ?? each];
    if (options?.body) window.form = [...options.body].map(named);
    return real(address, options);
  };
}"""


@pytest.fixture
def explained(opened):
    """Opens pages whose explanations are made up: the stub engine sees mean colours alone."""
    asked = []

    def open_page(path="/", **options):
        page = opened(path, **options)

        def answer(route):
            asked.append(route.request.post_data_buffer)
            route.fulfill(json=ANSWER)

        page.route("**/api/v1/explain", answer)
        return page

    open_page.asked = asked
    return open_page


def open_viewer(page, number=0):
    page.locator(".tile .picture").nth(number).click()
    page.wait_for_selector("#viewer[open]")


def ids(page):
    return page.eval_on_selector_all(".tile", "all => all.map((each) => each.dataset.id)")


def compared(page):
    return (at_query(page, "compare") or "").split(",")


def closed(page):
    page.wait_for_selector("#viewer", state="hidden")
    page.wait_for_function("() => !location.search.includes('compare=')")


def test_why_lays_the_heat_over_both_pictures(explained, folder):
    page = explained()
    upload(page, folder / "photos/red/0.png")
    open_viewer(page, 1)
    assert page.inner_text("#viewer-left-path") == "Query: 0.png"
    assert page.inner_text("#viewer-right-path").startswith("red · red/")
    assert re.match(
        r"Very likely the same, .+ % · distance 0\.\d{3}", page.inner_text("#viewer-title")
    )
    page.keyboard.press("w")
    page.wait_for_selector("#heat-legend:not([hidden])")
    assert "cover them, and the likeness falls" in page.inner_text("#heat-legend")
    assert page.inner_text("#viewer-left-words") == "The upper right counts most."
    assert page.inner_text("#viewer-right-words") == "The lower right counts most."
    assert page.get_attribute("#viewer-why", "aria-pressed") == "true"
    for side, y in (("left", 1.5 / 7), ("right", 5.5 / 7)):
        seen = page.evaluate(OPACITY, f"viewer-{side}-heat")
        assert seen["width"] / seen["height"] == pytest.approx(60 / 40, abs=0.02)
        assert (seen["x"], seen["y"]) == pytest.approx((5.5 / 7, y), abs=0.03)
        assert seen["most"] > 190 and seen["mean"] < 20
    page.click("#viewer-why")
    assert page.is_hidden("#heat-legend") and page.is_hidden("#viewer-left-heat")
    page.keyboard.press("w")
    page.wait_for_selector("#heat-legend:not([hidden])")
    assert len(explained.asked) == 1  # the tab keeps it


def test_why_of_a_box_lies_in_the_box(explained, address):
    page = explained()
    page.goto(f"{address}/?id={red_id(page, address)}&box=0.5,0.5,0.5,0.5")
    tiles(page, 12)
    open_viewer(page)
    page.keyboard.press("w")
    page.wait_for_selector("#heat-legend:not([hidden])")
    assert b'name="box"\r\n\r\n0.5,0.5,0.5,0.5' in explained.asked[0]
    pixels = """id => {
      const canvas = document.getElementById(id);
      const { width, height } = canvas;
      const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
      const at = (x, y) => Math.round(y * height) * width + Math.round(x * width);
      const opacity = (x, y) => data[4 * at(x, y) + 3];
      return [opacity(0.5 + 0.5 * 5.5 / 7, 0.5 + 0.5 * 1.5 / 7), opacity(0.1, 0.1)];
    }"""
    inside, outside = page.evaluate(pixels, "viewer-left-heat")
    assert inside > 190 and outside == 0


def test_why_ends_with_its_pair_and_says_when_it_fails(explained, opened, folder):
    page = explained()
    upload(page, folder / "photos/red/0.png")
    open_viewer(page)
    page.click("#viewer-why")
    page.wait_for_selector("#heat-legend:not([hidden])")
    page.unroute("**/api/v1/explain")
    page.route(
        "**/api/v1/explain",
        lambda route: route.fulfill(
            status=503, content_type="application/json",
            body=json.dumps({"detail": "The server is busy; try again."}),
        ),
    )  # fmt: skip
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("id => location.search.endsWith(id)", arg=ids(page)[2])
    assert page.get_attribute("#viewer-why", "aria-pressed") == "false"
    assert page.is_hidden("#viewer-left-heat") and page.is_hidden("#heat-legend")
    assert len(explained.asked) == 1
    page.keyboard.press("w")
    page.wait_for_selector("text=The server is busy; try again.")
    assert page.is_hidden("#heat-legend") and page.get_attribute("#viewer", "aria-busy") == "false"
    page.unroute("**/api/v1/explain")
    held = []
    page.route("**/api/v1/explain", lambda route: held.append(route))  # noqa: PLW0108
    page.click("#why-again")
    page.wait_for_selector("#why-busy:not([hidden])")
    assert page.get_attribute("#viewer", "aria-busy") == "true"
    held[0].fulfill(json=ANSWER)
    page.wait_for_selector("#heat-legend:not([hidden])")
    opened.wrong[:] = [each for each in opened.wrong if "status of 503" not in each]


def test_the_server_itself_explains(opened, folder):
    """With the stub engine no place counts alone in plain colours."""
    page = opened()
    upload(page, folder / "photos/red/0.png")
    open_viewer(page, 1)
    page.keyboard.press("w")
    page.wait_for_selector("#heat-legend:not([hidden])")
    assert "No place counts alone" in page.inner_text("#viewer-right-words")


def test_back_closes_and_arrows_leave_no_trail(opened, folder):
    page = opened()
    seen = upload(page, folder / "photos/red/0.png")
    names, asked = ids(page), []
    page.on("request", lambda request: asked.append(request.url))
    open_viewer(page)
    assert compared(page) == [names[0]]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert seen[2] in page.inner_text("#viewer-right-path") and compared(page) == [names[2]]
    page.go_back()
    closed(page)
    assert tiles(page, 13) == seen
    assert page.evaluate("document.activeElement.closest('.tile').title") == seen[2]
    page.go_forward()
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    closed(page)
    assert not any("/search" in each for each in asked)  # what is behind the pair stays
    page.go_back()
    page.wait_for_selector("#empty-view:not([hidden])")


def test_any_two_pictures_by_the_mouse(opened, folder):
    page = opened()
    seen = upload(page, folder / "photos/red/0.png")
    names = ids(page)
    open_viewer(page, 3)
    page.click("#viewer-pin")
    closed(page)
    assert f"compare with {seen[3].partition('/')[2]}" in page.inner_text("#pin")
    page.locator(".tile .picture").nth(7).click()
    page.wait_for_function(
        "() => document.querySelector('#viewer-title').textContent.includes('Distance')"
    )
    assert compared(page) == [names[3], names[7]]
    assert seen[3] in page.inner_text("#viewer-left-path")
    assert seen[7] in page.inner_text("#viewer-right-path")
    wanted = page.request.post(
        f"{page.url.partition('/?')[0]}/api/v1/compare",
        multipart={"first": names[3], "second": names[7]},
    ).json()["distance"]
    assert f"Distance {wanted:.3f}" in page.inner_text("#viewer-title")
    page.keyboard.press("Escape")
    closed(page)
    page.click("#pin-cancel")
    assert page.is_hidden("#pin")
    open_viewer(page, 7)
    assert compared(page) == [names[7]]


def test_any_two_pictures_by_the_keyboard_alone(explained, address):
    page = explained()
    page.goto(f"{address}/?id={red_id(page, address)}")
    tiles(page, 12)
    names = ids(page)
    page.locator(".tile .picture").first.focus()
    page.keyboard.press("c")
    page.wait_for_selector("#pin:not([hidden])")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert compared(page) == names[:2]
    page.keyboard.press("ArrowRight")
    page.wait_for_function("id => location.search.endsWith(id)", arg=names[2])
    page.keyboard.press("W")
    page.wait_for_selector("#heat-legend:not([hidden])")
    page.keyboard.press("Escape")
    closed(page)
    assert page.evaluate("document.activeElement.closest('.tile').dataset.id") == names[2]
    page.keyboard.press("Escape")
    assert page.is_hidden("#pin")


def test_two_pictures_that_are_sent_to_somebody(opened, address):
    page = opened()
    found = page.request.post(
        f"{address}/api/v1/search", multipart={"path": "red/0.png", "top": "13"}
    ).json()["results"]
    pair = found[0]["id"], found[12]["id"]
    page.goto(f"{address}/?id={found[0]['id']}&compare={','.join(pair)}")
    page.wait_for_selector("#viewer[open]")
    tiles(page, 12)
    page.wait_for_function("() => document.querySelector('#viewer-right-path').textContent")
    for side, each in (("left", found[0]), ("right", found[12])):
        assert page.inner_text(f"#viewer-{side}-path") == f"{each['class']} · {each['path']}"
        page.wait_for_function(
            f"() => document.querySelector('#viewer-{side}-image').naturalWidth > 0"
        )
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("id => location.search.endsWith(id)", arg=found[11]["id"])
    page.click("#viewer-close")
    closed(page)
    page.goto(f"{address}/?compare={','.join(pair)}")
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    closed(page)
    assert page.is_visible("#empty-view")


def test_an_unknown_picture_is_said(opened, address):
    page = opened(f"/?compare={'0' * 32},{'1' * 32}")
    page.wait_for_selector("text=No such image")
    opened.wrong[:] = [each for each in opened.wrong if "status of 404" not in each]


def sent_examples(page, action):
    """The names of the files of each field that the next search sends."""
    page.evaluate(RECORDED)
    with page.expect_response("**/search"):
        action()
    form = page.evaluate("window.form")
    return [(name, given) for name, given in form if name in ("positive", "negative")]


def test_own_pictures_are_examples(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    blue, green = folder / "photos/blue/0.png", folder / "photos/green/1.png"
    sent = sent_examples(page, lambda: page.set_input_files("#add-plus", [blue, green]))
    assert sent == [("positive", "0.png"), ("positive", "1.png")]
    tiles(page, 13)
    data = list(green.read_bytes())
    page.locator("#add-minus").focus()
    sent = sent_examples(page, lambda: page.evaluate(SENT, ["paste", "leaf.png", data]))
    assert sent[-1] == ("negative", "leaf.png") and len(sent) == 3
    tiles(page, 13)
    assert page.locator(".chip.plus").count() == 2 and page.locator(".chip.minus").count() == 1
    assert "leaf" not in page.url and "positive" not in page.url
    page.wait_for_function(
        "() => [...document.querySelectorAll('.chip img')].every((each) => each.naturalWidth)"
    )
    sent = sent_examples(page, page.locator(".chip.plus").first.click)
    assert sent == [("positive", "1.png"), ("negative", "leaf.png")]
    page.go_back()
    tiles(page, 13)
    assert page.locator(".chip.plus").count() == 2
    assert page.locator(".chip.plus").first.get_attribute("title") == "Remove more of 0.png"


def test_pictures_are_dropped_on_more_or_less(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    over = """() => document.body.dispatchEvent(new DragEvent("dragenter",
      { dataTransfer: (() => { const given = new DataTransfer();
        given.items.add(new File([], "a.png")); return given; })(), bubbles: true }))"""
    page.evaluate(over)
    assert page.is_visible("#veil [data-zone=minus]")
    data = list((folder / "photos/green/1.png").read_bytes())
    drop = SENT.replace("document.body.dispatchEvent", "document.querySelector(zone).dispatchEvent")
    drop = drop.replace("[kind, name, data]", "[kind, name, data, zone]")
    sent = sent_examples(
        page, lambda: page.evaluate(drop, ["drop", "leaf.png", data, "#veil [data-zone=minus]"])
    )
    assert sent == [("negative", "leaf.png")] and page.is_hidden("#veil")
    tiles(page, 13)
    page.evaluate(drop, ["drop", "leaf.png", data, "#veil [data-zone=query]"])
    page.wait_for_function("() => document.querySelector('#query-name').textContent === 'leaf.png'")
    assert page.locator(".chip").count() == 0


def test_too_many_own_pictures_and_lost_ones_are_said(opened, folder, address):
    page = opened()
    page.goto(f"{address}/?id={red_id(page, address)}")
    tiles(page, 12)
    page.set_input_files("#add-plus", [folder / "photos/blue/0.png"] * 33)
    assert "2 pictures left out: a search takes 31 of your own." in page.inner_text("#toast")
    tiles(page, 12)
    assert page.locator(".chip.plus").count() == 31
    page.reload()
    tiles(page, 12)
    assert "31 example pictures were not kept" in page.inner_text("#toast")
    assert page.locator(".chip").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_axe_finds_nothing_and_nothing_is_too_wide(explained, folder, width, scheme):
    def check(page):
        check_access(page)
        wide = (
            "id => document.querySelector(id).scrollWidth - document.querySelector(id).clientWidth"
        )
        assert page.evaluate(wide, "html") <= 0 and page.evaluate(wide, "#viewer") <= 0

    page = explained(width=width, color_scheme=scheme, has_touch=width == 360)
    upload(page, folder / "photos/red/0.png")
    page.set_input_files("#add-plus", folder / "photos/blue/0.png")
    page.wait_for_selector(".chip.plus", state="attached")
    tiles(page, 13)
    open_viewer(page, 1)
    page.keyboard.press("w")
    page.wait_for_selector("#heat-legend:not([hidden])")
    check(page)
    boxes = [page.locator(f"#viewer-{side}").bounding_box() for side in ("left", "right")]
    if width == 360:
        assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
        assert np.ptp([each["x"] for each in boxes]) == 0
    else:
        assert boxes[1]["x"] > boxes[0]["x"] + boxes[0]["width"]
    page.keyboard.press("c")
    closed(page)
    check(page)


def test_what_follows_the_closing_of_a_pair_is_not_lost(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    open_viewer(page, 1)
    # In the task that closes it: the browser is back at the address without the pair only later.
    page.evaluate("""() => {
      const plus = document.querySelectorAll(".tile")[2].querySelector("[data-act=plus]");
      document.querySelector("#viewer").addEventListener("close", () => plus.click());
      document.querySelector("#viewer").close();
    }""")
    page.wait_for_selector(".chip.plus")
    tiles(page, 13)
    assert at_query(page, "plus") and at_query(page, "compare") is None
    page.go_back()
    page.wait_for_selector(".chip.plus", state="detached")
    assert page.is_hidden("#viewer")
