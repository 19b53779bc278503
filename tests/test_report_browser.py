"""The HTML reports in Chromium: what people see of them, at several widths."""

import shutil

import numpy as np
import pytest
from browsing import check_access
from PIL import Image
from test_duplicates import make, odd  # noqa: F401

from deep_ranking.cli.main import main, run_command
from deep_ranking.metrics import Interval
from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings
from deep_ranking.reports.page.sections import write_report
from deep_ranking.reports.search_modes import SearchModes

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
LONG = "Packages/Juice/A-name-that-is-as-long-as-those-of-shops, 100 % orange"
CLASSES = ["Fruit/Apple/Golden-Delicious", LONG, *(f"class {number}" for number in range(7))]
WIDTHS = (360, 1280, 2560)
# What no reader can see: a part of a word outside the box that hides it, or outside the page.
CUT = """() => [...document.querySelectorAll("main *")].filter((each) => {
  const style = getComputedStyle(each);
  const hides = style.overflowX === "hidden" || style.textOverflow === "ellipsis";
  const hasText = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (hides && hasText && each.scrollWidth > each.clientWidth + 1) return true;
  const { right } = each.getBoundingClientRect();
  return hasText && !each.closest(".scroll") && right > innerWidth + 1;
}).map((each) => each.outerHTML.slice(0, 200))"""
OVER = """const box = (each) => each.getBoundingClientRect();
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 2 && b.top < a.bottom - 2;"""
# Words of a chart that lie over another or outside of it, or are too small.
CHARTS = f"""() => {{
  {OVER}
  return [...document.querySelectorAll(".chart svg")].flatMap((svg) => {{
    const texts = [...svg.querySelectorAll("text")], card = box(svg.closest(".chart"));
    return texts.filter((text, index) => {{
      const {{ left, right, top, bottom }} = box(text);
      if (left < card.left || right > card.right || top < card.top || bottom > card.bottom) {{
        return true;
      }}
      if (Math.max(right - left, bottom - top) < 9) return true;
      return texts.slice(index + 1).some((other) => over(box(text), box(other)));
    }}).map((text) => text.textContent);
  }});
}}"""
# The names on the map, its pictures, and the names that lie over a picture or another name.
MAP = f"""() => {{
  {OVER}
  const names = [...document.querySelectorAll(".map span")].map(box);
  const images = [...document.querySelectorAll(".map img")].map(box);
  const wrong = names.filter((name, index) =>
    [...images, ...names.slice(index + 1)].some((other) => over(name, other)));
  return [names.length, images.length, wrong.length];
}}"""
COLOURS = """() => [...document.querySelectorAll(".chart text")].map((each) =>
  getComputedStyle(each).fill + getComputedStyle(each.closest(".chart")).backgroundColor)"""


@pytest.fixture
def opened(browser):
    """Opens a file in a page of its own; it may load nothing, and nothing may go wrong."""
    contexts, asked, wrong = [], [], []

    def open_file(path, *, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text))
        page.goto(path.as_uri())
        return page

    yield open_file
    for each in contexts:
        each.close()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert wrong == []


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with every section, and names of classes as long as those of shops."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for number in range(20 * len(CLASSES)):
        path = folder / f"a file with quite a long name {number:03}.png"
        pixels = rng.integers(0, 255, (4, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((90, 60)).save(path)
        paths.append(str(path))
        labels.append(CLASSES[number % len(CLASSES)])
    rows = np.eye(len(CLASSES), 16)[np.arange(len(paths)) % len(CLASSES)]
    rows = rows + rng.normal(scale=0.25, size=rows.shape)
    rows[0] = rows[1] + 1e-4  # near-duplicates across classes
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    images = EmbeddedImages(paths, np.array(labels), rows.astype(np.float32))
    history = [{"epoch": n, "loss": 2.0 - n, "val_loss": 2.1 - n, "new": 5.0} for n in range(3)]
    figures = {
        name: Interval(0.5, 0.4, 0.6)
        for name in ("recall_at_1", "mean_reciprocal_rank", "map_at_r")
    }
    modes = SearchModes(
        {"plain": figures, "smoothed, re-ranked": figures},
        {"smoothed, re-ranked": figures},
        "over 10 nearest",
        True,
    )
    path = folder / "report.html"
    write_report(
        path,
        evaluate_embeddings(images),
        images,
        title=f"model.h5 on {folder}",
        left_out="Left out: 2 images.",
        history=history,
        modes=modes,
    )
    return path


@pytest.fixture
def doctor(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES[2:5]:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    shutil.copy(tmp_path / "data/class 0/0.png", tmp_path / "data/class 1/copy.png")
    (tmp_path / "data/class 2/broken.png").write_bytes(b"no image")
    arguments = ["--dataset", str(tmp_path / "data"), "--image_size", "64", "--no-estimate"]
    run_command("doctor", [*arguments, "--html", str(tmp_path / "doctor.html")])
    return tmp_path / "doctor.html"


@pytest.fixture
def duplicates(odd, tmp_path):  # noqa: F811
    page = tmp_path / "page.html"
    assert main(["duplicates", "--index", str(odd), "--threshold", "0.1", "--html", str(page)]) == 0
    return page


@pytest.mark.parametrize("kind", ["report", "doctor", "duplicates"])
def test_pages_fit_every_screen_and_axe_finds_nothing(kind, request, opened):
    path = request.getfixturevalue(kind)
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            page = opened(path, width=width, scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CUT) == []
            check_access(page)
            page.close()


def test_words_of_charts_are_legible_and_the_map_hides_nothing(report, opened):
    for width in WIDTHS:
        page = opened(report, width=width)
        assert page.evaluate(CHARTS) == []
        names, images, wrong = page.evaluate(MAP)
        assert names == len(CLASSES) and images == 150 and wrong == 0


def test_a_table_shows_its_last_column_on_a_telephone(report, opened):
    page = opened(report, width=360)
    for table in page.query_selector_all("table"):
        last = table.query_selector_all("tr")[1].query_selector_all("td")[-1].bounding_box()
        assert last["x"] + last["width"] <= 360


def test_charts_follow_a_dark_screen(report, opened):
    colours = {}
    for scheme in ("light", "dark"):
        page = opened(report, scheme=scheme)
        colours[scheme] = page.evaluate(COLOURS)
    assert set(colours["light"]).isdisjoint(colours["dark"])
    assert len(colours["light"]) == len(colours["dark"]) > 50


def test_a_report_prints(report, opened):
    page = opened(report, scheme="dark")
    page.emulate_media(media="print")
    styles = "(name) => getComputedStyle(document.querySelector(name))"
    assert page.evaluate(f"({styles})('html').colorScheme") == "light"
    assert page.evaluate(f"({styles})('h1').color") == "rgb(30, 29, 27)"
    assert not page.is_visible("nav")
