"""Scrolling through the results of a search in a large collection: frames, memory, and the server.

A collection of small made-up pictures with random rows is served. Chromium opens a search by one of
them at each width, and scrolls at a steady speed until so many results were passed. Told are:

- frames: milliseconds between two frames (`requestAnimationFrame`) while the page scrolls. At 60
  frames a second each has 16.7. `waited` are the seconds at the end of what had been loaded;
- long tasks: what kept the page from answering for 50 ms or more, in seconds together;
- elements of the page and memory of its process (PSS), at the end;
- the server: milliseconds for each page of 48 results, asked one after the other by its cursor.

It needs Chromium (`make browser`) and what the tests need. The reference is the same script on an
earlier commit. Chromium has no graphics processor here, so it paints on the same cores.
"""

import argparse
import re
import runpy
import sys
import tempfile
import time
from pathlib import Path

import cv2
import httpx
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browsing import end, serve  # noqa: E402 (the paths come first)
from collections_of import make_collection  # noqa: E402

from deep_ranking.cli.arguments import positive_int  # noqa: E402

DIMENSION, SIDE, CLASS_SIZE, PAGE = 256, 16, 500, 48
COLUMNS = (
    *("width", "results passed", "seconds", "frame p50", "p95", "p99", "longest", "over 50 ms"),
    *("long tasks", "waited", "elements", "memory"),
)
HEIGHT = {360: 740}  # pixels of the window; others have 900
SCROLL = """async ([depth, speed]) => {
  const passed = () => {
    const tiles = [...document.querySelectorAll(".tile")];
    const at = tiles.findLastIndex((each) => each.getBoundingClientRect().top < innerHeight);
    return Number(tiles[at]?.getAttribute("aria-posinset") ?? at + 1);
  };
  const frames = [];
  let [waited, tasks, spent] = [0, 0, 0];
  const watch = new PerformanceObserver((list) => {
    for (const each of list.getEntries()) [tasks, spent] = [tasks + 1, spent + each.duration];
  });
  watch.observe({ type: "longtask" });
  let last = await new Promise(requestAnimationFrame);
  let place = 0;
  let stuck = 0;
  for (let turn = 0; stuck < 20_000; turn++) {
    const now = await new Promise(requestAnimationFrame);
    const gone = now - last;
    last = now;
    const most = document.documentElement.scrollHeight - innerHeight;
    if (place >= most - 1) {
      [waited, stuck] = [waited + gone, stuck + gone];
    } else {
      stuck = 0;
      frames.push(gone);
    }
    place = Math.min(most, place + (speed * Math.min(gone, 100)) / 1000);
    scrollTo(0, place);
    if (turn % 20 === 0 && passed() >= depth) break;
  }
  watch.disconnect();
  return { frames, waited: waited / 1000, tasks, spent: spent / 1000, passed: passed() };
}"""


def write_images(root, count):
    """Write images of random pixels; return a random unit row for the path of each."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    paths = [f"{number // CLASS_SIZE:03}/{number:06}.png" for number in range(count)]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (2, 2, 3), np.uint8)
        pixels = cv2.resize(small, (SIDE, SIDE)) + rng.integers(0, 9, (SIDE, SIDE, 3), np.uint8)
        (root / path).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return dict(zip(paths, rows, strict=True))


def time_pages(address, path, depth):
    """Return the id of an image, and milliseconds for each page of a search by its path."""
    milliseconds, cursor, found = [], None, None
    with httpx.Client(timeout=60) as client:
        while len(milliseconds) * PAGE < depth:
            fields = {"path": path, "top": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            began = time.perf_counter()
            answer = client.post(
                f"{address}/api/v1/search", files={n: (None, v) for n, v in fields.items()}
            )
            milliseconds.append((time.perf_counter() - began) * 1000)
            answer = answer.raise_for_status().json()
            found, cursor = found or answer["results"][0]["id"], answer["cursor"]
            if cursor is None:
                break
    return found, np.array(milliseconds)


def memory_of(process_id):
    """Return the memory of a process in MB: its own, and its share of what others use too."""
    text = Path(f"/proc/{process_id}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) / 1000


def scroll(browser, address, width, depth, speed):
    """Open an address at a width, and scroll; return what was measured."""
    page = browser.new_page(viewport={"width": width, "height": HEIGHT.get(width, 900)})
    page.goto(address)
    page.wait_for_selector(".tile")
    found = page.evaluate(SCROLL, [depth, speed])
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    found["memory"] = max(memory_of(each["id"]) for each in processes if each["type"] == "renderer")
    found["elements"] = page.evaluate("document.querySelectorAll('*').length")
    page.close()
    return found | {"width": width}


def tell_server(program, address, depth):
    """Print how long the server takes for its pages; return the id to search with."""
    query, times = time_pages(address, f"{0:03}/{0:06}.png", depth)
    print(
        f"server, {len(times)} pages of {PAGE}: first {times[0]:.0f} ms, median "
        f"{np.median(times):.0f} ms, slowest {times.max():.0f} ms, together "
        f"{times.sum() / 1000:.1f} s; {memory_of(program.pid):.0f} MB",
        flush=True,
    )
    return query


def tell(found):
    """Print a row of the table."""
    frames = np.array(found["frames"])
    p50, p95, p99 = np.percentile(frames, [50, 95, 99])
    cells = (
        found["width"],
        f"{found['passed']:,}",
        f"{frames.sum() / 1000:.0f}",
        f"{p50:.1f} ms",
        f"{p95:.1f} ms",
        f"{p99:.1f} ms",
        f"{frames.max():.0f} ms",
        f"{(frames > 50).mean():.1%}",
        f"{found['tasks']}, {found['spent']:.1f} s",
        f"{found['waited']:.1f} s",
        f"{found['elements']:,}",
        f"{found['memory']:.0f} MB",
    )
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def main():
    """Read the flags, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=positive_int, default=100_000)
    parser.add_argument("--depth", type=positive_int, default=10_000, help="results to pass")
    parser.add_argument("--speed", type=positive_int, default=6000, help="pixels a second")
    parser.add_argument("--widths", type=positive_int, nargs="+", default=[1280, 360])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the collection is kept")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = runpy.run_path(str(ROOT / "tools" / "browser.py"))["find_browser"]()
    with tempfile.TemporaryDirectory() as name:
        folder = args.keep or Path(name)
        if not (folder / "index").exists():
            rows = write_images(folder / "images", args.images)
            make_collection(folder / "index", folder / "images", rows)
        program, address = serve(folder, "--index", "index")
        try:
            query = tell_server(program, address, args.depth)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox"]
                )
                print("|", " | ".join(COLUMNS), "|")
                print("|" + " --- |" * len(COLUMNS), flush=True)
                for width in args.widths:
                    tell(scroll(browser, f"{address}/?id={query}", width, args.depth, args.speed))
                browser.close()
        finally:
            end(program)


if __name__ == "__main__":
    main()
