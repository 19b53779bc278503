"""Searches by upload at a running server, by several clients at once, and its memory.

    python benchmarks/serving.py --model m.h5 --uploads photos --work folder

The server is `deep-ranking serve`, a process of its own. Each client keeps one connection, and
sends the next photograph of --uploads as soon as its last answer is there. A time runs from the
first byte of the request to the last byte of the answer, as the client sees it. A request is lost
if its connection breaks or its answer is not a whole list of results. The clients run in this
process, on the same cores as the server: with more clients than cores the times are those of
waiting in turn.

The reference is the same work without a server: the same photographs one after the other in this
process, read, embedded and searched by `Searcher`.

The collections are made once, in --work: so many small files with random rows (see `cold.py`), one
searched exactly and one in clusters. Memory is the resident memory of the server's process after
ten seconds of eight clients and at the end, and its peak.
"""

import argparse
import http.client
import json
import re
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cold import make_collection

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deep_ranking import InputError  # noqa: E402 (the path of the package comes first)
from deep_ranking.cli.arguments import positive_int  # noqa: E402

KINDS = ("exact", "clusters")
TOP = 20
# Photographs that take turns: more than the searches whose results a server keeps for cursors, so
# that each is searched for.
MOST_UPLOADS = 2_500


@dataclass
class Client:
    """One client at its own connection.

    Attributes:
        address: host and port.
        bodies: requests, which it sends in turn.
        seconds: of each answer.
        lost: what became of the other requests.
    """

    address: str
    bodies: list[tuple[bytes, str]]
    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def ask(self, end, first=0):
        """Send requests until a time of `time.perf_counter`."""
        connection = http.client.HTTPConnection(self.address, timeout=120)
        number = first
        while (start := time.perf_counter()) < end:
            body, kind = self.bodies[number % len(self.bodies)]
            number += 1
            try:
                connection.request("POST", "/api/v1/search", body, {"Content-Type": kind})
                answer = connection.getresponse()
                data = answer.read()
                found = len(json.loads(data)["results"]) if answer.status == 200 else 0
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                self.lost.append(repr(error))
                connection.close()
                continue
            self.seconds.append(time.perf_counter() - start)
            if found != TOP:
                self.lost.append(f"{answer.status}: {data[:200]!r}")


def form(data):
    """Return the body of a search by upload, and its content type."""
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Disposition: form-data; name="
    body = f'{head}"top"\r\n\r\n{TOP}\r\n{head}"image"; filename="a.jpg"\r\n\r\n'.encode()
    body += data + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def ask_at_once(address, bodies, clients, seconds):
    """Let so many clients ask for so long; return them."""
    all_clients = [Client(address, bodies) for _ in range(clients)]
    end = time.perf_counter() + seconds
    threads = [
        threading.Thread(target=each.ask, args=(end, number * len(bodies) // clients))
        for number, each in enumerate(all_clients)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return all_clients


class Server:
    """`deep-ranking serve` of an index, as a process."""

    def __init__(self, index):
        command = [sys.executable, "-m", "deep_ranking", "serve", "--port", "0", "--index", index]
        began = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.seconds = time.perf_counter() - began
        found = re.search(r"http://([\d.:]+)", line)
        if found is None:
            raise InputError(f"{index}: the server does not start")
        self.address = found[1]

    def memory(self, name="VmRSS"):
        """Return the resident memory of the process in MB; its peak as `VmHWM`."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024 / 1e6

    def end(self):
        """End the process."""
        self.process.terminate()
        self.process.wait()


def percentile(seconds, share):
    """Return a percentile in milliseconds."""
    return float(np.percentile(seconds, share) * 1000)


def bare_seconds(index, uploads):
    """Return the seconds of each search of the same photographs, without a server."""
    from deep_ranking.search.collection import Collection
    from deep_ranking.search.searcher import Searcher

    searcher = Searcher(Collection.open(index))
    taken = []
    for data in uploads[:505]:
        start = time.perf_counter()
        searcher.search(searcher.rows_of([data]), TOP)
        taken.append(time.perf_counter() - start)
    return taken[5:]


def make_collections(work, model, count):
    """Make the collections that are missing; return them by kind.

    Raises:
        InputError: one cannot be made.
    """
    found = {kind: work / f"{kind}.index" for kind in KINDS}
    for kind, index in found.items():
        if not index.exists():
            make_collection(index, model, count)
            command = [sys.executable, "-m", "deep_ranking", "index", "--output", index]
            subprocess.run([*command, "--index", kind], cwd=ROOT, check=True)
    return found


def measure(kind, index, uploads, args):
    """Print the rows of one collection; return whether no request was lost."""
    bare = bare_seconds(index, uploads)
    print(line(kind, "no server", bare), flush=True)
    server = Server(index)
    try:
        bodies = [form(data) for data in uploads]
        ask_at_once(server.address, bodies, 8, 10)
        before = server.memory()
        lost = []
        for clients in args.clients:
            asked = ask_at_once(server.address, bodies, clients, args.seconds)
            seconds = [second for each in asked for second in each.seconds]
            lost += (gone := [text for each in asked for text in each.lost])
            memory = f"{server.memory():.0f} ({server.memory() / before - 1:+.1%})"
            print(line(kind, clients, seconds, len(gone), memory), flush=True)
        peak = server.memory("VmHWM")
        print(
            f"{kind}: ready after {server.seconds:.2f} s; memory {before:.0f} MB at the start, "
            f"{server.memory():.0f} MB at the end, peak {peak:.0f} MB",
            file=sys.stderr,
        )
    finally:
        server.end()
    for text in lost[:5]:
        print(f"{kind}: lost: {text}", file=sys.stderr)
    return not lost


def line(kind, clients, seconds, lost=0, memory=""):
    """Return one line of the table."""
    middle, late = (f"{percentile(seconds, share):.0f}" for share in (50, 99))
    cells = [kind, clients, len(seconds), lost, middle, late, memory]
    return f"| {' | '.join(map(str, cells))} |"


def main():
    """Read the flags, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FILE.h5")
    parser.add_argument("--uploads", type=Path, required=True, metavar="DIR", help="photographs")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for collections")
    parser.add_argument("--images", type=positive_int, default=20_000, help="of a collection")
    parser.add_argument("--clients", type=positive_int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=positive_int, default=120, help="of each row")
    args = parser.parse_args()
    from deep_ranking.embedding.compiled.compiling import compile_model

    print(compile_model(args.model), file=sys.stderr, flush=True)
    args.work.mkdir(parents=True, exist_ok=True)
    indexes = make_collections(args.work.absolute(), args.model.absolute(), args.images)
    files = [path for path in sorted(args.uploads.rglob("*.jpg")) if path.is_file()]
    if len(files) < MOST_UPLOADS:
        raise InputError(
            f"{args.uploads}: {len(files)} .jpg files; --uploads needs {MOST_UPLOADS:,}, as the "
            "server knows the results of fewer"
        )
    chosen = np.random.default_rng(0).permutation(len(files))[:MOST_UPLOADS]
    uploads = [files[number].read_bytes() for number in chosen]
    headings = ["collection", "clients", "searches", "lost", "p50 ms", "p99 ms"]
    headings.append("MB of the server")
    print(f"| {' | '.join(headings)} |\n| {' | '.join(['---'] * len(headings))} |", flush=True)
    kept = [measure(kind, index, uploads, args) for kind, index in indexes.items()]
    if not all(kept):
        raise InputError("requests were lost; see above")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
