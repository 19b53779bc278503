"""Pictures of the page for docs/guides/serve.md: `python docs/pictures.py --demo demo_output`.

`deep-ranking demo` made the index of digits. Shapes are drawn here; a model learns some drawings, a
minute or two, and an index is made of others. Servers of both are opened in Chromium (`make
browser`) with Playwright. Colours and sizes of the pictures are reduced: the files stay small.
"""

import argparse
import io
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "images"
SIDE, FINER = 240, 3  # pixels of a drawing; it is drawn this many times larger
COLOURS = (
    *((214, 69, 65), (230, 150, 50), (62, 142, 92), (52, 120, 190), (140, 90, 180)),
    *((225, 120, 150), (90, 100, 110), (40, 160, 165)),
)
GROUNDS = ((250, 247, 240), (232, 238, 244), (240, 232, 226), (46, 50, 58))
CORNERS = {"triangle": 3, "square": 4, "hexagon": 6}
SHAPES = (*CORNERS, "star", "circle", "ring", "moon", "cross")
DRAWINGS = 24  # of each shape
LEARNED = ("--recipe", "laptop", "--multiscale", "texture", "--epochs", "3")
WIDTHS = {"wide": (1280, 800, 1000), "narrow": (360, 740, 360)}  # window, and pixels of the file
MOST_COLOURS = 255


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """Return a drawing of a shape: its colour, size, place, angle and ground are random."""
    size = SIDE * FINER
    ground = GROUNDS[int(rng.integers(len(GROUNDS)))]
    colour = COLOURS[int(rng.integers(len(COLOURS)))]
    image = Image.new("RGB", (size, size), ground)
    pen = ImageDraw.Draw(image)
    radius = size * rng.uniform(0.24, 0.4)
    x, y = size * rng.uniform(0.42, 0.58, 2)
    angle = rng.uniform(0, 2 * math.pi)

    def disc(radius: float, colour: tuple[int, ...], x: float = x, y: float = y) -> None:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def corners(number: int, *radii: float) -> list[tuple[float, float]]:
        turns = [angle + 2 * math.pi * each / number for each in range(number)]
        lengths = [radii[each % len(radii)] for each in range(number)]
        return [
            (x + length * math.cos(turn), y + length * math.sin(turn))
            for turn, length in zip(turns, lengths, strict=True)
        ]

    if shape in CORNERS:
        pen.polygon(corners(CORNERS[shape], radius), fill=colour)
    elif shape == "star":
        pen.polygon(corners(10, radius, radius * 0.45), fill=colour)
    elif shape == "cross":
        for begin, end in zip(corners(4, radius)[:2], corners(4, radius)[2:], strict=True):
            pen.line((begin, end), fill=colour, width=round(radius * 0.45))
    else:
        disc(radius, colour)
        if shape == "ring":
            disc(radius * 0.55, ground)
        elif shape == "moon":
            disc(radius * 0.85, ground, *corners(1, radius * 0.45)[0])
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def write_shapes(folder: Path, seed: int) -> None:
    """Write drawings of all shapes."""
    rng = np.random.default_rng(seed)
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True)
        for number in range(DRAWINGS):
            draw(shape, rng).save(folder / shape / f"{shape}_{number:02}.png")


def add_copies(folder: Path) -> None:
    """Write some drawings once more, as they are and as JPEG."""
    for shape in ("hexagon", "moon", "star"):
        file = folder / shape / f"{shape}_03.png"
        shutil.copy(file, file.with_name(f"copy of {file.name}"))
        Image.open(file).save(file.with_suffix(".jpg"), quality=92)


def run(*arguments: str | Path) -> None:
    """Run a command of the package."""
    program = (sys.executable, "-m", "deep_ranking", *arguments)
    subprocess.run(program, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@contextmanager
def served(index: Path, *flags: str) -> Iterator[str]:
    """Serve an index; yield the address."""
    program = subprocess.Popen(
        [*(sys.executable, "-m", "deep_ranking", "serve", "--port", "0"), "--index", index, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        found = re.search(r"http://[\d.:]+", program.stdout.readline())
        if found is None:
            sys.exit(f"{index}: is not served")
        yield found[0]
    finally:
        program.terminate()
        program.wait()


class Camera:
    """Opens pages in a browser, and keeps what they show as small files.

    Args:
        browser: of Playwright.
    """

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def open(self, address: str, size: str = "wide", scheme: str = "light") -> Any:
        """Open an address."""
        width, height, _ = WIDTHS[size]
        is_small = size == "narrow"
        page = self._browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            is_mobile=is_small,
            has_touch=is_small,
        )
        page.set_default_timeout(60_000)
        page.goto(address)
        return page

    def keep(self, page: Any, name: str) -> None:
        """Write what a page shows, once all of its pictures are there."""
        page.mouse.move(2, 2)
        page.wait_for_function(
            "() => [...document.images].every((each) => each.hidden || !each.getAttribute('src') ||"
            " each.getBoundingClientRect().top > innerHeight || each.naturalWidth > 0)"
        )
        page.wait_for_timeout(500)  # for what fades in
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        width = next(file for window, _, file in WIDTHS.values() if window == image.width)
        image = image.resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
        path = OUTPUT / f"{name}.png"
        image.quantize(MOST_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
        page.close()


def search(page: Any, image: Path) -> None:
    """Search with an image file."""
    page.wait_for_selector("#empty-view:not([hidden])")
    page.set_input_files("#choose", image)
    page.wait_for_selector(".tile")


def add_example(page: Any, number: int, key: str) -> None:
    """Make a result a plus or minus example."""
    page.focus(f".tile:nth-child({number}) .picture")
    with page.expect_response("**/search"):
        page.keyboard.press(key)
    page.wait_for_selector("#results[aria-busy=false]")
    page.evaluate("document.activeElement.blur()")


def take_shapes(camera: Camera, address: str, image: Path) -> None:
    """Take the pictures of the shapes."""
    page = camera.open(address)
    search(page, image)
    add_example(page, 3, "+")
    camera.keep(page, "serve")
    page = camera.open(address, scheme="dark")
    search(page, image)
    page.wait_for_selector("#stage.can-box")
    with page.expect_response("**/search"):
        page.click("#box-button")
    page.evaluate("document.activeElement.blur()")
    camera.keep(page, "serve_dark")
    page = camera.open(address)
    search(page, image)
    page.click(".tile:nth-child(2) .picture")
    page.click("#viewer-why")
    page.wait_for_selector("#heat-legend:not([hidden])")
    camera.keep(page, "serve_why")
    page = camera.open(f"{address}/?view=duplicates&threshold=0.15")
    page.wait_for_selector(".group")
    camera.keep(page, "serve_duplicates")


def take_digits(camera: Camera, address: str, image: Path) -> None:
    """Take the pictures of the digits."""
    page = camera.open(address)
    page.set_viewport_size({"width": WIDTHS["wide"][0], "height": 560})
    search(page, image)
    camera.keep(page, "serve_digits")
    page = camera.open(address, "narrow")
    search(page, image)
    camera.keep(page, "serve_narrow")
    page = camera.open(f"{address}/?view=map")
    page.wait_for_selector("#legend li")
    places = page.request.get(f"{address}/api/v1/map").json()
    page.goto(f"{address}/?view=map&lasso={around(places, '8')}")
    page.wait_for_selector("#map-chosen .tile")
    camera.keep(page, "map")


def around(places: dict[str, Any], name: str) -> str:
    """Return a lasso around most pictures of a class, as an address has it."""
    number = [each["name"] for each in places["classes"]].index(name)
    numbers = np.array(places["class"]) == number
    low, high = np.quantile([np.array(places[axis])[numbers] for axis in "xy"], (0.05, 0.95), 1)
    turns = np.arange(24) * np.pi / 12
    corners = (low + high) / 2 + 0.6 * (high - low) * np.stack([np.cos(turns), np.sin(turns)], 1)
    return ",".join(str(round(each)) for each in corners.ravel())


def main() -> None:
    """Read the flags, and write the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--demo", type=Path, default=Path("demo_output"), metavar="DIR")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = runpy.run_path(str(ROOT / "tools" / "browser.py"))["find_browser"]()
    demo = args.demo.absolute()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        write_shapes(folder / "learned", seed=1)
        write_shapes(folder / "shapes", seed=2)
        add_copies(folder / "shapes")
        draw("star", np.random.default_rng(3)).save(folder / "a star.png")
        run("train", *LEARNED, "--dataset", folder / "learned", "--output", folder / "shapes.h5")
        run("compile", "--model", folder / "shapes.h5")
        of_shapes = ("--images", folder / "shapes", "--output", folder / "shapes.index")
        run("index", "--model", folder / "shapes.h5", *of_shapes)
        camera = Camera(playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]))
        with served(folder / "shapes.index", "--allow_changes") as address:
            take_shapes(camera, address, folder / "a star.png")
        with served(demo / "index") as address:
            take_digits(camera, address, demo / "digits" / "unseen" / "9" / "0009.png")


if __name__ == "__main__":
    main()
