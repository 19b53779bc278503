"""What tests of the page in Chromium share: a server with a stub engine, and watched pages.

A test module takes the fixtures by `pytest_plugins = ("browsing",)`, and is marked `browser`.
"""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import make_served, write_photos

from deep_ranking.model.hit_calibration import HitCalibration
from deep_ranking.model.logistic_regression import LogisticRegression

ROOT = Path(__file__).parents[1]
HOSTILE = "<img src=x onerror=alert(1)>"  # the name of a folder
HITS = HitCalibration(
    None, LogisticRegression((0.5, 0.0, 0.0, 0.0), (1.0,) * 4, (-12.0, 0.0, 0.0, 0.0), 0.0), 20
)
PATIENCE = 15_000  # milliseconds that a page may take on a busy machine
PROGRAM = """
import sys
import pytest
from served import use_stub_engine
with pytest.MonkeyPatch.context() as patch:
    use_stub_engine(patch)
    from deep_ranking.cli.main import main
    main(["serve", "--port", "0", *sys.argv[1:]])
"""

# Pastes or drops a picture.
SENT = """([kind, name, data]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(data)], name, { type: "image/png" }));
  const given = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: files, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true });
  document.body.dispatchEvent(given);
}"""


def serve(folder, *flags, token=""):
    """Start a server; return the program and its address."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "DEEP_RANKING_TOKEN": token},
        stdout=subprocess.PIPE,
        text=True,
    )
    line = program.stdout.readline()
    return program, re.search(r"http://[\d.:]+", line)[0]


def end(program):
    program.terminate()
    program.communicate(timeout=30)


def needed(name):
    """Import a module of the tests in a browser."""
    try:
        return __import__(name, fromlist=["sync_api"])
    except ImportError:
        missing(f"{name.partition('.')[0]} is not installed; run `make install`")


def missing(what):
    """Skip the test; where all tests must run, as in CI, it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two collections: `index` tells probabilities, and `many` takes several pages."""
    folder = tmp_path_factory.mktemp("browser")
    write_photos(folder / "photos")
    collection = make_served(folder / "index", folder / "photos")
    collection.change(hits=HITS)
    (folder / "hues" / HOSTILE).mkdir(parents=True)
    for number in range(130):
        colour = np.array([200 - number, 60 + number, 40 + number // 2], np.uint8)
        Image.fromarray(np.tile(colour, (12, 12, 1))).save(
            folder / "hues" / HOSTILE / f"{number:03}.png"
        )
    make_served(folder / "many", folder / "hues")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    program, address = serve(folder, "--index", "index", "--index", "many", "--allow_changes")
    yield address
    end(program)


@pytest.fixture(scope="module")  # while Playwright runs, other tests cannot use asyncio
def browser():
    sync_api = needed("playwright.sync_api")
    chromium = runpy.run_path(str(ROOT / "tools" / "browser.py"))["find_browser"]()
    if chromium is None:
        missing("no Chromium is installed; run `make browser`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens a page of its own; no request may leave this machine, and nothing may go wrong."""
    contexts, asked, wrong = [], [], []

    def open_page(path="/", *, at=address, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.goto(at + path)
        return page

    open_page.wrong = wrong
    yield open_page
    for each in contexts:
        each.close()
    assert asked
    assert [each for each in asked if not re.match(r"(blob:)?http://127\.0\.0\.1:", each)] == []
    assert wrong == []


def tiles(page, number=None):
    """The paths of the tiles, once there are so many (or any) and no search runs."""
    wanted = "tiles.length > 0" if number is None else f"tiles.length === {number}"
    page.wait_for_function(
        "() => { const tiles = document.querySelectorAll('.tile');"
        f"return {wanted} && document.querySelector('#results').ariaBusy === 'false'; }}"
    )
    return page.eval_on_selector_all(".tile", "all => all.map((each) => each.title)")


def upload(page, file):
    page.set_input_files("#choose", file)
    return tiles(page, 13)


def red_id(page, address):
    """The id of red/0.png."""
    return page.request.post(
        f"{address}/api/v1/search", multipart={"path": "red/0.png", "top": "1"}
    ).json()["results"][0]["id"]


def at_query(page, name):
    """The value of a part of the address bar."""
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


def check_access(page):
    """Fail where axe finds that somebody cannot use the page."""
    axe = needed("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found] == []
