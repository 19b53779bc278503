"""The whole loop in Chromium: rate, learn, see another order, take it back; with a real model."""

import colorsys
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from browsing import ROOT, check_access
from PIL import Image

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
PATIENCE = 240_000  # milliseconds, for TensorFlow to start and to learn on a busy machine
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
ASKED = """() => ["query", "a", "b"]
  .map((side) => document.querySelector(`#teach-${side}-picture img`)?.alt.slice(11)).join("|")"""


def run(*arguments, cwd):
    subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, check=True)


def write_pictures(root):
    """Write 72 pictures of as many hues, in four patterns; a picture's name is its hue, 0 to 71."""
    root.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    patterns = [x // 6 % 2, y // 6 % 2, (x // 6 + y // 6) % 2, (x - 24) ** 2 + (y - 24) ** 2 < 300]
    for hue in range(72):
        colour = [40 + 170 * part for part in colorsys.hsv_to_rgb(hue / 72, 0.8, 0.9)]
        light = 45 * np.roll(patterns[rng.integers(4)], rng.integers(6), axis=0)[..., None]
        pixels = np.array(colour) + light + rng.normal(0, 12, (48, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{hue:02}.png")


def apart(one, other):
    """How far the hues of two pictures are apart, 0 to 36."""
    difference = abs(int(one[:2]) - int(other[:2])) % 72
    return min(difference, 72 - difference)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A server of a small model and 72 pictures, which learns."""
    folder = tmp_path_factory.mktemp("taught")
    write_pictures(folder / "photos")
    run(ROOT / "tests" / "light_model.py", "m.h5", cwd=folder)
    run("-m", "deep_ranking", "index", "--model", "m.h5", "--images", "photos", "--output",
        "photos.index", "--quiet", cwd=folder)  # fmt: skip
    program = subprocess.Popen(
        [sys.executable, "-m", "deep_ranking", "serve", "--index", "photos.index", "--teach",
         "--rater", "Ann", "--port", "0"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    yield re.search(r"http://[\d.:]+", program.stdout.readline())[0], folder
    program.terminate()
    program.communicate(timeout=30)


def question(page, before):
    """The paths of the next question."""
    page.wait_for_function(f"(before) => (({ASKED})() || before) !== before", arg=before)
    return page.evaluate(ASKED)


def answer_by_hue(page, count):
    """Answer questions: the picture whose hue is nearer is more like the query."""
    shown = ""
    for number in range(count):
        shown = question(page, shown)
        query, a, b = shown.split("|")
        page.keyboard.press("a" if apart(query, a) <= apart(query, b) else "b")
        page.wait_for_function(
            "(count) => parseInt(document.querySelector('#teach-progress').textContent) >= count",
            arg=number + 1,
        )


def order(page, address, path="00.png", count=16):
    found = page.request.post(
        f"{address}/api/v1/search", multipart={"path": path, "top": str(count)}
    )
    return [each["path"] for each in found.json()["results"]]


def test_rate_learn_see_the_order_change_and_take_it_back(opened, taught):
    address, folder = taught
    page = opened("/?view=teach", at=address)
    page.set_default_timeout(PATIENCE)
    page.wait_for_selector("#teach-ask:not([hidden])")
    before = order(page, address)
    answer_by_hue(page, 30)

    page.click("#teach-learn button")
    page.wait_for_selector(".learn-now .primary:enabled")  # it was getting ready
    assert page.locator(".learn-order ol").count() == 1
    check_access(page)
    page.click(".learn-now .primary")
    page.wait_for_selector(".learn-report h3")
    page.wait_for_selector("text=Learned")
    assert "Agrees with answers that it did not see" in page.inner_text(".learn-report")
    if page.inner_text(".learn-report h3").startswith("Not better yet"):  # 30 answers are few
        assert page.locator("#learn-shown").input_value() == "0"
        assert order(page, address) == before
        page.click("text=Use it all the same")
    page.wait_for_selector(".learn-order ol[aria-label=Before]")
    page.wait_for_selector(".learn-ways >> text=Go back")
    assert page.locator("#learn-shown").input_value() == "1"
    check_access(page)

    after = order(page, address)
    assert after != before
    assert (folder / "photos.index.taught" / "1" / "model.h5").is_file()

    page.click(".learn-ways >> text=Go back")
    page.wait_for_selector(".learn-ways button:not(:text('Go back'))")
    assert page.locator("#learn-shown").input_value() == "0"
    assert order(page, address) == before
    page.select_option("#learn-shown", "1")
    page.wait_for_selector(".learn-ways >> text=Go back")
    assert order(page, address) == after

    page.click("text=See this search")
    page.wait_for_selector(".tile")
    page.keyboard.press("Tab")
    assert page.locator("dialog.learn[open]").count() == 0
