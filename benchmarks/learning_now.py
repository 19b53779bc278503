"""From "learn now" to the new order of searches: the seconds of each step, and searches meanwhile.

An index and a ratings file are served as `serve --index INDEX --teach RATINGS` does. Once the
features of all images are there, "learn now" is sent, some times over. Told are:

- each step in seconds, as the page tells it, and the sum: from the request to the first answer of a
  search in the new order (or in the old one, where what was learned is not better); in brackets the
  processor seconds of the process that learns, which other programs change less;
- milliseconds of searches by an image of the collection, one after the other: before, and while it
  learns;
- memory of the server and of the process that learns (PSS), after each learning.

The ratings may be those of `ratings --import`. What was taught is left in INDEX.taught/. The
reference is the same script on an earlier commit; run it with nothing else running.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deep_ranking.cli.arguments import positive_int  # noqa: E402 (the path comes first)

PATIENCE = 3600.0  # seconds for the features, which are computed once
POLL = 0.05


def main() -> None:
    """Serve, learn, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--index", type=Path, required=True, help="folder that `index` wrote")
    parser.add_argument("--ratings", type=Path, required=True, help="ratings file on its images")
    parser.add_argument("--times", type=positive_int, default=3, help="learnings")
    args = parser.parse_args()
    program = subprocess.Popen(
        [sys.executable, "-m", "deep_ranking", "serve", "--port", "0", "--index", str(args.index),
         "--teach", str(args.ratings), "--rater", "benchmark"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        address = re.search(r"http://[\d.:]+", program.stdout.readline())
        assert address is not None
        with httpx.Client(base_url=f"{address[0]}/api/v1/", timeout=60) as client:
            measure(client, program.pid, args.times)
    finally:
        program.terminate()
        program.communicate(timeout=60)


def measure(client: httpx.Client, server: int, times: int) -> None:
    """Print the seconds and the memory of some learnings."""
    begin = time.perf_counter()
    while (state := client.get("teach/learning").json())["status"] == "preparing":
        if time.perf_counter() - begin > PATIENCE:
            sys.exit("the features take too long")
        time.sleep(1)
    images = client.get("collections").json()["collections"][0]["images"]
    seconds = time.perf_counter() - begin
    print(f"{images:,} images; ready after {seconds:.1f} s {state['problem']}", flush=True)
    query = first_image(client)
    print(f"searches before: {told([search(client, query) for _ in range(50)])}", flush=True)
    for number in range(times):
        learn(client, query, server, number + 1)
        print(f"  memory: {memory_of(server)}", flush=True)


def learn(client: httpx.Client, query: str, server: int, number: int) -> None:
    """Learn once, and print what it took."""
    begin = last = time.perf_counter()
    first = used = processor_seconds(server)
    step, searches = "beginning", []
    client.post("teach/learn", data={"collection": client_collection(client)}).raise_for_status()
    print(f"learning {number}")
    while True:
        state = client.get("teach/learning").json()
        if state["step"] != step or state["status"] != "learning":
            now, spent = time.perf_counter(), processor_seconds(server)
            print(f"  {step}: {now - last:.1f} s ({spent - used:.1f})", flush=True)
            step, last, used = state["step"], now, spent
        if state["status"] != "learning":
            break
        searches.append(search(client, query))
        time.sleep(POLL)
    search(client, query)
    print(f"  from the request to the new order: {time.perf_counter() - begin:.1f} s "
          f"({processor_seconds(server) - first:.1f})")  # fmt: skip
    newest = state["generations"][0]
    print(f"  {'shown' if state['shown'] == newest['generation'] else 'not shown'}: "
          f"{newest['report']['verdict']} {state['problem']}")  # fmt: skip
    print(f"  searches meanwhile: {told(searches)}")


def first_image(client: httpx.Client) -> str:
    """Return the id of an image: one that a question is about."""
    asked = client.post("teach/question", data={"rater": "benchmark"}).json()
    return str(asked["question"]["query"]["id"])


def client_collection(client: httpx.Client) -> str:
    """Return the name of the collection."""
    return str(client.get("collections").json()["collections"][0]["name"])


def search(client: httpx.Client, query: str) -> float:
    """Return the seconds of a search."""
    begin = time.perf_counter()
    client.post("search", data={"id": query, "top": "48"}).raise_for_status()
    return time.perf_counter() - begin


def told(seconds: list[float]) -> str:
    """Return seconds as milliseconds, in words."""
    p50, p95, most = 1000 * np.percentile(seconds, [50, 95, 100])
    return f"p50 {p50:.0f} ms, p95 {p95:.0f}, longest {most:.0f}, of {len(seconds)}"


def processor_seconds(server: int) -> float:
    """Return the processor seconds of all that a server started."""
    ticks = 0
    for each in _children(server):
        fields = Path(f"/proc/{each}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user mode and in the kernel
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_of(server: int) -> str:
    """Return the memory of the server and of the processes that it started, in words."""
    parts = [("server", str(server)), *(("process", each) for each in _children(server))]
    return ", ".join(f"{name} {_pss(pid):.0f} MB" for name, pid in parts if _pss(pid) > 50)


def _children(server: int) -> list[str]:
    return Path(f"/proc/{server}/task/{server}/children").read_text(encoding="ascii").split()


def _pss(pid: str) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return 0.0 if found is None else int(found[1]) / 1024


if __name__ == "__main__":
    main()
