"""Where the views of the page meet, in Chromium: one must not show or lose what another leaves.

Also what a collection without classes says, and texts that are pasted or dropped.
"""

import pytest
from browsing import HOSTILE, at_query, check_access, end, red_id, serve, tiles, upload

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
FOCUSED = "document.activeElement.closest('.tile')?.title"
SEARCHES = (
    "() => performance.getEntriesByType('resource').filter((e) => /search$/.test(e.name)).length"
)

# Pastes or drops a text, as another page gives it; with a picture if there is one.
TEXT = """([kind, text, picture, onto]) => {
  const given = new DataTransfer();
  given.setData("text/plain", text);
  const bytes = picture && Uint8Array.from(picture);
  if (bytes) given.items.add(new File([bytes], "a.png", { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: given, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true });
  document.querySelector(onto).dispatchEvent(event);
  return event.defaultPrevented;
}"""

LOADED = "() => performance.getEntriesByType('resource').map((each) => each.name).join()"


def send(page, kind, text, picture=None, onto="body"):
    return page.evaluate(TEXT, [kind, text, picture, onto])


def toast(page, part):
    page.wait_for_selector(f"#toast:has-text('{part}')")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_the_text_of_a_path_searches_for_its_picture(opened, kind):
    page = opened()
    page.wait_for_selector("#empty-view:not([hidden])")
    assert send(page, kind, " red/0.png\n")
    assert len(tiles(page, 12)) == 12
    assert page.inner_text("#query-name") == "0.png" and at_query(page, "id")
    page.focus("#add-plus")  # where it is pasted
    send(page, kind, "blue/1.png", onto="[data-zone=plus]")
    page.wait_for_selector(".chip.plus")
    tiles(page, 12)
    send(page, kind, "blue/nothing.png")
    toast(page, "No picture of the collection has this path: blue/nothing.png")
    assert page.locator(".chip").count() == 1


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_an_address_is_never_loaded(opened, kind):
    """The fixture fails if anything but the server of the test is asked."""
    page = opened()
    page.wait_for_selector("#empty-view:not([hidden])")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    send(page, kind, "https://example.org/a.jpg")
    toast(
        page, "This server loads nothing from other machines. Save the picture, and drop it here."
    )
    assert asked == [] and page.is_visible("#empty-view")


def test_an_address_of_this_page_is_a_picture_of_the_collection(opened, address):
    page = opened()
    page.wait_for_selector("#empty-view:not([hidden])")
    send(page, "drop", f"{address}/api/v1/images/{red_id(page, address)}?collection=index")
    tiles(page, 12)
    assert page.inner_text("#query-name") == "0.png"


def test_the_picture_of_another_tab_is_taken_where_the_browser_gives_it(opened, folder):
    page = opened()
    page.wait_for_selector("#empty-view:not([hidden])")
    picture = list((folder / "photos/green/0.png").read_bytes())
    send(page, "drop", "https://example.org/a.png", picture)
    assert tiles(page, 13)[0] == "green/0.png"
    assert page.is_hidden("#toast")


def test_texts_for_a_field_stay_in_the_field(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    for kind in ("paste", "drop"):
        assert not send(page, kind, "red/1.png", onto="#folder")
    assert at_query(page, "id") is None


def test_a_zoomed_map_stays_while_the_viewer_closes_over_a_search(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    page.click("#to-map")
    page.wait_for_selector("#legend li")
    page.click("#map-in")
    page.wait_for_function("() => location.search.includes('at=')")
    sight = at_query(page, "at")
    page.click("#to-search")
    tiles(page, 13)
    before = page.evaluate(SEARCHES)
    page.locator(".tile .picture").nth(2).click()
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.search.includes('compare')")
    tiles(page, 13)
    assert page.evaluate(SEARCHES) == before
    page.click("#to-map")
    page.wait_for_function("sight => location.search.includes('at=' + sight)", arg=sight)


def test_what_is_in_sight_is_kept_when_a_picture_is_opened_at_once(opened):
    page = opened("/?view=map")
    page.wait_for_selector("#legend li")
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('at=')")
    before = at_query(page, "at")
    page.evaluate("""() => new Promise((done) => {
      const made = (key) => new KeyboardEvent("keydown", { key, bubbles: true });
      const press = (key) => map.dispatchEvent(made(key));
      press("ArrowLeft");
      press("+");
      requestAnimationFrame(() => requestAnimationFrame(() => done(press("Enter"))));
    })""")
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.search.includes('compare')")
    assert at_query(page, "at").endswith(",1.5") and at_query(page, "at") != before


def test_a_cut_search_leaves_nothing_on_the_map(opened, address):
    def cut(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"is_cut": True})

    page = opened()
    name = red_id(page, address)
    page.route("**/search", cut)
    page.goto(f"{address}/?id={name}")
    tiles(page, 12)
    assert page.is_visible("#grid-end")
    page.click("#to-map")
    page.wait_for_selector("#legend li")
    page.click("#map-sight")
    tiles(page, 13)
    assert page.is_hidden("#grid-end")


def test_a_map_that_is_left_at_once_leaves_the_results_alone(opened, folder):
    page = opened()
    page.evaluate("""() => {
      const real = crypto.subtle.digest.bind(crypto.subtle);
      crypto.subtle.digest = async (...given) => {
        window.digests = (window.digests ?? 0) + 1;
        await new Promise((done) => setTimeout(done, 700));
        setTimeout(() => (window.isDone = true), 100);
        return real(...given);
      };
    }""")
    upload(page, folder / "photos/red/0.png")
    page.click("#to-map")
    page.wait_for_function("() => window.digests")
    page.click("#to-search")
    tiles(page, 13)
    page.wait_for_function("() => window.isDone")
    assert page.is_visible("#results") and len(tiles(page, 13)) == 13


def test_another_collection_takes_over_nothing_of_the_last_one(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    assert page.locator("#folders option").count() == 3
    page.focus(".tile .picture")
    page.keyboard.press("c")
    assert page.is_visible("#pin")
    page.select_option("#collection", "many")
    page.wait_for_function("() => document.querySelector('.tile')?.title.startsWith('<img')")
    assert page.is_hidden("#pin")
    assert page.locator("#folders option").count() == 1


def test_back_gives_the_focus_to_where_one_was(opened):
    page = opened("/?collection=many", width=360)
    page.wait_for_selector("#empty-view:not([hidden])")
    send(page, "paste", f"{HOSTILE}/000.png")
    tiles(page)
    for place in (6000, 14_000):  # beyond the first page of results
        page.evaluate("place => scrollTo(0, place)", place)
        page.wait_for_timeout(500)
    page.evaluate(
        "() => [...document.querySelectorAll('.tile .picture')]"
        ".find((each) => each.getBoundingClientRect().top > 260).focus()"
    )
    title = page.evaluate(FOCUSED)
    page.keyboard.press("m")
    page.wait_for_function("() => scrollY === 0")
    tiles(page)
    page.go_back()
    page.wait_for_function("() => scrollY > 4000")
    tiles(page)
    page.wait_for_function(f"() => {FOCUSED}")
    place, wanted = (
        page.evaluate("title => document.querySelector(`[title='${title}']`).ariaPosInSet", each)
        for each in (page.evaluate(FOCUSED), title)
    )
    assert abs(int(place) - int(wanted)) <= 4  # in the same rows, not at the top


def test_undo_leaves_the_focus_in_the_groups(opened):
    page = opened("/?view=duplicates&threshold=0.05")
    page.wait_for_selector(".group")
    page.locator(".group", has_text="copy.png").get_by_role("button", name="Set aside").click()
    page.wait_for_selector("#toast-undo:not([hidden])")
    page.focus("#toast-undo")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=put back")
    page.wait_for_function("() => document.activeElement.matches('.group')")


def test_chances_are_told_for_results_alone(opened, folder):
    """`compare` tells how likely two images are of one class if half of all pairs were."""
    page = opened()
    upload(page, folder / "photos/red/0.png")

    def sure(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"probability": 0.97, "words": "x"})

    page.route("**/compare", sure)
    page.focus(".tile .picture")
    page.keyboard.press("c")
    page.locator(".tile .picture").nth(7).click()
    page.wait_for_selector("#viewer-title:has-text('Distance')")
    assert page.inner_text("#viewer-title").endswith("(the same picture has 0)")


def test_a_collection_without_chances_says_what_distances_mean(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    assert page.is_hidden("#no-chances") and page.is_visible("#least")
    page.select_option("#collection", "many")
    page.wait_for_selector("#no-chances:not([hidden])")
    assert page.is_hidden("#least")
    page.wait_for_function("() => document.querySelector('.tile')?.title.startsWith('<img')")
    assert page.is_hidden("#nothing")
    page.locator(".tile .picture").first.click()
    page.wait_for_selector("#viewer[open]")
    assert page.inner_text("#viewer-title").startswith("Distance 0.")
    page.keyboard.press("Escape")
    page.set_input_files("#replace", folder / "hues" / HOSTILE / "005.png")
    page.wait_for_selector(".tile .distance:text-is('The same picture')")
    page.locator(".tile .picture").first.click()
    page.wait_for_selector("#viewer-title:text-is('The same picture · distance 0.000')")


def test_a_map_without_classes_has_no_legend(opened):
    page = opened()

    def plain(route):
        answer = route.fetch()
        made = answer.json()
        classes = {"class": [0] * len(made["ids"]), "classes": [{"name": "", "images": 13}]}
        route.fulfill(response=answer, json=made | classes)

    page.route("**/map?*", plain)
    page.click("#to-map")
    page.wait_for_selector("#map-told:has-text('13 pictures on the map')")
    assert page.is_hidden("#legend")
    page.focus("#map")
    page.keyboard.press("+")
    page.wait_for_selector("#map-hint img[src]")
    assert "no class" not in page.inner_text("#map-view")


def test_what_is_pinned_does_not_cover_the_tools_of_the_map(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    page.focus(".tile .picture")
    page.keyboard.press("c")
    page.click("#to-map")
    page.wait_for_selector("#legend li")
    pin, tools = (page.locator(each).bounding_box() for each in ("#pin", ".map-tools"))
    assert pin["y"] + pin["height"] <= tools["y"]
    page.click("#to-duplicates")  # where no second picture can be chosen
    page.wait_for_selector("#pin", state="hidden")
    page.click("#to-search")
    assert page.is_visible("#pin")


def test_cutting_text_sets_nothing_aside(opened):
    page = opened("/?view=duplicates&threshold=0.05")
    page.wait_for_selector(".group")
    asked = []
    page.on("request", lambda request: asked.append(request.method))
    page.focus(".group")
    for held in ("Control", "Alt", "Meta"):
        page.keyboard.press(f"{held}+x")
    page.wait_for_timeout(300)
    assert "POST" not in asked


def test_links_of_the_views_lead_where_a_click_leads(opened, folder, address):
    page = opened()
    page.goto(f"{address}/?id={red_id(page, address)}")
    tiles(page, 12)
    page.locator(".tile .picture").first.click()
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    for view in ("duplicates", "map", "search"):
        link = page.get_attribute(f"#to-{view}", "href")
        page.click(f"#to-{view}")
        assert page.evaluate("location.pathname + location.search") == link


def test_a_view_is_loaded_when_it_is_meant_and_said_to_be_missing(opened, folder):
    page = opened()
    page.wait_for_selector("#empty-view:not([hidden])")
    page.evaluate("() => new Promise((done) => requestIdleCallback(() => setTimeout(done, 200)))")
    assert not any(name in page.evaluate(LOADED) for name in ("map", "duplicates", "viewer"))
    page.hover("#to-duplicates")
    page.wait_for_function("() => [...document.styleSheets].some((e) => /dupl/.test(e.href))")
    assert page.is_visible("#empty-view")
    page.route("**/page/map.css", lambda route: route.abort())
    page.click("#to-map")
    page.wait_for_selector("#problem:has-text('This part of the page did not come.')")
    assert page.is_hidden("#problem-again")
    page.unroute("**/page/map.css")
    page.reload()
    page.wait_for_selector("#map-view:not([hidden])")
    assert page.is_hidden("#problem") and page.is_hidden("#empty-view")
    page.click("#to-search")
    upload(page, folder / "photos/red/0.png")
    page.wait_for_function(f"() => ({LOADED})().includes('viewer.js')")  # before it is opened
    assert page.is_hidden("#viewer") and "heat.js" not in page.evaluate(LOADED)
    opened.wrong.clear()


def test_a_view_that_this_server_does_not_have_is_said(opened):
    for name in ("none", "viewer", "constructor"):
        page = opened(f"/?view={name}")
        toast(page, "This server does not have the view of this address.")
        assert page.is_visible("#empty-view") and at_query(page, "view") is None


def test_several_indexes_as_one(opened, folder):
    """What is left out is said; views of one index are not offered, and not opened."""
    (folder / "both.shards").write_text("index\nmany\naway/third.index\n")
    program, address = serve(folder, "--index", "both.shards", "--skip_unavailable")
    try:
        page = opened(at=address)
        page.set_input_files("#choose", folder / "photos" / "red" / "0.png")
        assert tiles(page)[0] == "photos/red/0.png"
        assert page.inner_text("#left-out") == (
            "1 of 3 indexes cannot be searched now, so pictures may be missing: third.index"
        )
        assert page.inner_text("#views") == "Search"
        assert "Each of the 3 indexes that are searched" in page.inner_text("#no-chances")
        check_access(page)
        page.goto(f"{address}/?view=map")
        toast(page, "it has no such view")
    finally:
        end(program)
