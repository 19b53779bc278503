"""The page in Chromium: what people do on it. `test_serving_browser_rows.py` has long lists."""

import re

import numpy as np
import pytest
from browsing import SENT, at_query, check_access, end, red_id, serve, tiles, upload

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
TOKEN = "a-token-of-enough-length"


def test_choose_a_picture(opened, folder):
    page = opened()
    page.wait_for_selector("text=Find what looks like it")
    assert upload(page, folder / "photos/red/0.png")[0] == "red/0.png"
    first, second = (page.locator(".tile").nth(number).inner_text() for number in (0, 1))
    assert re.match(r"The same picture\s+distance 0.000\s+red", first)
    assert re.match(r"Very likely the same\s+>99 % · distance 0.0[1-9]", second)
    assert "Unlikely" in page.locator(".tile").last.inner_text()
    assert page.inner_text("#status") == "13 pictures, nearest first"
    assert page.is_visible("#query-image") and page.inner_text("#query-name") == "0.png"
    page.wait_for_function("() => document.querySelector('.tile img').naturalWidth > 0")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_drop_and_paste(opened, folder, kind):
    page = opened()
    page.wait_for_selector("#empty-view:not([hidden])")
    data = list((folder / "photos/green/0.png").read_bytes())
    page.evaluate(SENT, [kind, "leaf.png", data])
    assert tiles(page, 13)[0] == "green/0.png"
    assert page.inner_text("#query-name") == "leaf.png"


def test_more_like_this_and_back(opened, folder):
    page = opened()
    before = upload(page, folder / "photos/red/0.png")
    page.hover(".tile:last-child")
    page.click(".tile:last-child [data-act=more]")
    after = tiles(page, 12)  # without itself
    assert before[-1] not in after and at_query(page, "id")
    page.go_back()
    assert tiles(page, 13) == before
    page.go_back()
    page.wait_for_selector("#empty-view:not([hidden])")
    page.go_forward()
    assert tiles(page, 13) == before


def test_plus_and_minus(opened, folder):
    page = opened()

    def distance():
        text = page.inner_text(".tile[title='red/0.png'] .distance")
        return float(text.rpartition(" ")[2])

    liked = upload(page, folder / "photos/red/0.png")[-1]
    page.hover(".tile:last-child")
    with page.expect_response("**/search"):
        page.click(".tile:last-child [data-act=plus]")
    moved = tiles(page, 13)
    assert moved.index(liked) < 12
    near = distance()
    page.hover(".tile:first-child")
    with page.expect_response("**/search"):
        page.click(".tile:first-child [data-act=minus]")
    tiles(page, 13)
    assert distance() > near
    assert page.locator(".chip.plus").count() == page.locator(".chip.minus").count() == 1
    assert page.locator("[data-act=plus][aria-pressed=true]").count() == 1
    page.click(".chip.plus")
    page.click(".chip.minus")
    page.wait_for_selector(".chip", state="detached")
    assert at_query(page, "plus") is None and at_query(page, "minus") is None


def test_filters_and_clear(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    page.select_option("#class", "green")
    assert all(each.startswith("green/") for each in tiles(page, 4))
    page.click("#clear-filters")
    tiles(page, 13)
    page.fill("#folder", "blue/")
    page.press("#folder", "Enter")
    assert all(each.startswith("blue/") for each in tiles(page, 5))
    page.go_back()
    tiles(page, 13)
    page.focus("#least")
    page.keyboard.press("End")
    assert all(each.startswith("red/") for each in tiles(page, 4))
    assert at_query(page, "min") == "0.95" and page.inner_text("#least-text") == "at least 95 %"


def test_copies_are_told_unless_a_part_is_searched_for(opened, folder):
    page = opened()
    upload(page, folder / "photos/blue/copy.png")
    likeness = "#grid .tile[title^='blue/'] .likeness:text-is('The same picture')"
    assert page.locator(likeness).count() == 2
    page.set_input_files("#add-plus", folder / "photos/green/0.png")
    page.wait_for_selector(".chip.plus")
    tiles(page, 13)
    assert page.locator(".tile .distance:text-is('distance 0.000')").count() == 0
    assert page.locator(likeness).count() == 2  # by the content, wherever the examples lead
    page.click("#box-button")
    page.wait_for_function("() => location.search.includes('box')")
    page.wait_for_selector(likeness, state="detached")


def test_nothing_is_like_it(opened, address):
    page = opened()
    name = red_id(page, address)
    page.goto(f"{address}/?id={name}&class=green")
    tiles(page, 4)
    page.wait_for_selector("#query-name:text-is('0.png')")  # though no result is the query
    said = "Even the nearest pictures with these filters are unlikely to be the same."
    assert page.inner_text("#nothing").startswith(f"Probably none of these\n\n{said}")
    page.goto(f"{address}/?id={name}&class=green&min=0.9")
    page.wait_for_selector("#nothing-title:text-is('No picture is left')")
    assert page.locator(".tile").count() == 0
    page.click("#nothing-clear")
    tiles(page, 12)
    assert page.is_hidden("#nothing")
    page.goto(f"{address}/?id={name}&class=green&folder=red")
    page.wait_for_selector("text=Folder: no image of this class is in it.")
    assert page.inner_text("#nothing-title") == "Nothing in this folder"
    page.click("#nothing-clear")
    tiles(page, 12)
    page.goto(f"{address}/?id={name}&class=mauve")
    page.wait_for_selector("#nothing-title:text-is('No such class')")
    assert "Class: mauve: no class of the collection" in page.inner_text("#nothing-text")
    page.click("#nothing-clear")
    tiles(page, 12)
    opened.wrong[:] = [each for each in opened.wrong if "status of 422" not in each]


def test_an_address_that_is_sent_to_somebody(opened, address):
    page = opened()
    path = f"/?id={red_id(page, address)}&class=red&box=0.1,0.1,0.5,0.5"
    other = opened(path)
    assert len(tiles(other, 3)) == 3
    assert other.input_value("#class") == "red" and other.is_visible("#box")
    assert other.inner_text("#query-name") == "0.png"


def test_a_box_is_drawn(opened, folder):
    page = opened()
    upload(page, folder / "photos/red/0.png")
    page.wait_for_selector("#stage.can-box")
    area = page.locator("#stage").bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.2, area["y"] + area["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.7, area["y"] + area["height"] * 0.8)
    with page.expect_response("**/search") as answer:
        page.mouse.up()
    assert answer.value.status == 200
    box = [float(each) for each in at_query(page, "box").split(",")]
    np.testing.assert_allclose(box, [0.2, 0.3, 0.5, 0.5], atol=0.02)
    page.click("#box-button")
    page.wait_for_function("() => !location.search.includes('box')")


def test_the_keyboard_alone(opened, address):
    page = opened()
    page.goto(f"{address}/?id={red_id(page, address)}")
    tiles(page, 12)
    focused = "document.activeElement"
    page.keyboard.press("/")
    assert page.evaluate(f"{focused}.id") == "replace"
    page.keyboard.press("Escape")
    assert page.evaluate(f"{focused}.closest('.tile') === document.querySelector('.tile')")
    page.keyboard.press("ArrowRight")
    second = page.evaluate(f"{focused}.closest('.tile').title")
    assert second == page.locator(".tile").nth(1).get_attribute("title")
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.dataset.act") == "more"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert second in page.inner_text("#viewer-right-path")
    page.keyboard.press("ArrowRight")
    third = page.locator(".tile").nth(2).get_attribute("title")
    assert third in page.inner_text("#viewer-right-path")
    page.keyboard.press("Escape")
    page.wait_for_function(f"third => {focused}.closest('.tile')?.title === third", arg=third)
    page.keyboard.press("+")
    page.wait_for_selector(".chip.plus")
    tiles(page, 12)
    assert page.evaluate(f"{focused}.closest('.tile').title") == third
    page.wait_for_selector("#stage.can-box")
    page.focus("#box-button")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_function("() => location.search.includes('box=0.23,0.25,0.5,0.52')")
    page.keyboard.press("Delete")
    page.wait_for_function("() => !location.search.includes('box=')")


def test_axe_finds_nothing(opened, folder, address):
    for width, scheme in ((1280, "light"), (360, "dark")):
        page = opened(width=width, color_scheme=scheme)
        page.wait_for_selector("#empty-view:not([hidden])")
        check_access(page)
        upload(page, folder / "photos/red/0.png")
        page.focus(".tile .picture")
        page.keyboard.press("+")
        page.wait_for_selector(".chip.plus", state="attached")
        tiles(page, 13)
        check_access(page)
        page.click(".tile .picture")
        page.wait_for_selector("#viewer[open]")
        check_access(page)
        page.goto(f"{address}/?view=duplicates")
        page.wait_for_selector(".group")
        check_access(page)


def test_360_pixels(opened, folder, address):
    page = opened(width=360, has_touch=True, is_mobile=True)
    wide = "document.documentElement.scrollWidth"
    page.wait_for_selector("#empty-view:not([hidden])")
    assert page.evaluate(wide) == 360 and page.is_visible(".ways .photograph")
    page.evaluate("document.querySelector('#views').append(...'abcd'.repeat(9))")  # more views
    assert page.evaluate(wide) == 360
    upload(page, folder / "photos/red/0.png")
    assert page.evaluate(wide) == 360 and page.is_visible(".tile [data-act=plus]")
    page.tap("#panel-button")
    assert page.is_visible("#folder") and page.evaluate(wide) == 360
    page.goto(f"{address}/?view=duplicates")
    page.wait_for_selector(".group")
    assert page.evaluate(wide) == 360


def test_duplicates_are_set_aside_and_put_back(opened, folder):
    page = opened("/?view=duplicates&threshold=0.05")
    page.wait_for_selector(".group")
    copy = page.locator(".group", has_text="copy.png")
    assert "Suggested: keep 0.png. No better than the others" in copy.inner_text()
    groups = page.locator(".group").count()
    files = {each.name for each in (folder / "photos/blue").iterdir()}
    with page.expect_response("**/set_aside"):
        copy.get_by_role("button", name="Set aside").click()
    page.wait_for_selector("#toast:not([hidden])")
    assert page.locator(".group").count() == groups - 1
    left = "No group is left." if groups == 1 else f"{groups - 1} group"
    assert page.inner_text("#duplicates-summary").startswith(left)
    assert {each.name for each in (folder / "photos/blue").iterdir()} < files
    page.click("#toast-undo")
    page.wait_for_selector("text=put back")
    assert {each.name for each in (folder / "photos/blue").iterdir()} == files
    page.wait_for_selector(".group")


def test_a_file_that_is_gone_is_said_on_its_tile(opened, folder):
    file = folder / "photos/green/3.png"
    data = file.read_bytes()
    file.unlink()
    try:
        page = opened()
        upload(page, folder / "photos/green/0.png")
        tile = page.locator(".tile[title='green/3.png']")
        assert "The file is gone since it was indexed." in tile.inner_text()
    finally:
        file.write_bytes(data)


def test_an_error_is_one_sentence(opened):
    page = opened()
    page.set_input_files(
        "#choose", {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"}
    )
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem-text").startswith("This picture: ")
    assert page.is_visible("#query-unseen")
    opened.wrong[:] = [each for each in opened.wrong if "status of 422" not in each]


def test_the_token_is_asked_for_once(opened, folder):
    program, at = serve(folder, "--index", "index", token=TOKEN)
    try:
        page = opened(at=at)
        page.fill("#token", "wrong")
        page.press("#token", "Enter")
        page.wait_for_selector("#token-wrong:not([hidden])")
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#empty-view:not([hidden])")
        upload(page, folder / "photos/red/0.png")
        page.wait_for_function(
            "() => document.querySelector('.tile img').src.startsWith('blob:')"
            "&& document.querySelector('.tile img').naturalWidth > 0"
        )
        page.reload()
        page.wait_for_selector("text=The picture was not kept")
        page.set_input_files("#choose", folder / "photos/red/0.png")
        tiles(page, 13)
        page.focus(".tile:last-child .picture")
        page.keyboard.press("m")
        tiles(page, 12)
        page.wait_for_selector("#stage.can-box")
        page.keyboard.press("Enter")
        shown = "document.querySelector('#viewer-left-image')"
        page.wait_for_function(f"() => {shown}.complete && {shown}.naturalWidth > 0")
        assert TOKEN not in page.content() and TOKEN not in page.url
        opened.wrong[:] = [each for each in opened.wrong if "status of 401" not in each]
    finally:
        end(program)
