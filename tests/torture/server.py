"""Hostile images before a server: sent to it, and asked for by id; others are answered meanwhile.

The model's engine is a stub: the mean colour of an image is its row. So the image that a search
finds tells what the server saw.
"""

import contextlib
import io
import os
import re
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from collections_of import make_collection
from PIL import Image
from served import StubEngine
from served_program import served_program

from deep_ranking.serving.image_ids import image_id
from torture.children import die_with_parent
from torture.images import PIXELS, REFUSED, cases, no_files, shows

RESIDENT = 2_500  # megabytes: decoding takes 1 GiB, uploads and answers up to 256 MiB each
SECONDS = 90  # for an answer: after 60 the server gives up
AT_ONCE = 3  # requests with hostile images
PULSE_SECONDS = 0.2
FIELDS = ("image", "box", "positive", "negative")
BOX = "0.05,0.05,0.4,0.4"  # of the upper left quarter
ANSWERS = {200: "accepted", 403: "refused", 410: "refused", 413: "refused", 422: "refused"}


def run(tally, folder, seed):
    """Send all cases, and ask for all."""
    images = folder / "images"
    corpus = list(cases(seed))
    paths = [images / f"class {number % 2}" / case.name for number, case in enumerate(corpus)]
    ids = _indexed(folder, images, corpus, paths)
    kept = {case.name for case in no_files()}
    sent, asked = [], []
    for case, path, name in zip(corpus, paths, ids, strict=True):
        asked += [(case, path, f"images/{name}{way}") for way in ("", "/thumbnail?size=128")]
        if case.name not in kept:
            fields = FIELDS if case.special and not case.is_huge else FIELDS[:2]
            sent += [(case, path, field) for field in fields]
    options = {
        "errors": folder / "errors.txt",
        "preexec_fn": lambda: die_with_parent(signal.SIGKILL),
    }
    with served_program(folder, "--index", "shown", "--index", "all", **options) as (
        address,
        program,
    ):
        client = httpx.Client(base_url=f"{address}/api/v1/", timeout=SECONDS)
        with client, ThreadPoolExecutor(AT_ONCE) as pool, _Others(tally, client) as others:
            for what, try_one, jobs in (("sent", _send, sent), ("asked for", _ask, asked)):
                statuses = Counter()
                results = pool.map(lambda job, one=try_one: _tried(one, client, *job), jobs)
                for (case, _, way), (status, odd) in zip(jobs, results, strict=True):
                    statuses[status] += 1
                    _judge(tally, f"{what}: {case.name!a}, {way}", case, status, odd)
                said = ", ".join(
                    f"{number} with {each}" for each, number in sorted(statuses.items())
                )
                print(f"  {len(jobs):,} {what}, answered: {said}", flush=True)
        _judge_server(tally, program, (folder / "errors.txt").read_text(errors="replace"))
        print(f"  {others.count:,} others answered meanwhile", flush=True)


def _judge(tally, label, case, status, odd):
    tally.tried += 1
    kind = ANSWERS.get(status)
    if status == 0:
        tally.problem("hangs", f"{label}: {odd}")
    elif kind is None or odd:
        tally.problem("wrong", f"{label}: {status} {odd}")
    else:
        setattr(tally, kind, getattr(tally, kind) + 1)
        if case.due == PIXELS and kind == "refused":
            tally.problem("wrong", f"{label}: refused with {status}")


def _judge_server(tally, program, errors):
    status = Path(f"/proc/{program.pid}/status").read_text()
    megabytes = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) >> 10
    print(f"  the server took {megabytes:,} MB of memory at most", flush=True)
    if megabytes > RESIDENT:
        tally.problem("wrong", f"the server took {megabytes:,} MB of memory")
    if program.poll() is not None or "Traceback" in errors:
        tally.problem("crashes", f"the server: {program.returncode}, {errors[-600:]!a}")


class _Others:
    """Somebody else who uses the server meanwhile."""

    def __init__(self, tally, client):
        self.count = 0
        self._tally, self._client = tally, client
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _ask(self):
        query = {"path": f"{next(iter(_references()))}.png"}
        while not self._end.wait(PULSE_SECONDS):
            try:
                answers = [self._client.get("health"), self._client.post("search", data=query)]
            except httpx.HTTPError as error:
                self._tally.problem("hangs", f"somebody else's request: {error!r}")
                return
            for answer in answers:
                self.count += 1
                if answer.status_code != 200:
                    self._tally.problem("wrong", f"somebody else's request: {answer.text}")


def _references():
    """What whole files show, and their upper left quarters: colours (2, 2, 3) by a name."""
    found = {}
    for case in cases(0, num_flips=0, bombs=False):
        if case.colors is not None:
            for colors in (case.colors, np.broadcast_to(case.colors[0, 0], (2, 2, 3))):
                found[_name(colors)] = np.asarray(colors, np.uint8)
    return found


def _name(colors):
    return np.asarray(colors, np.uint8).tobytes().hex()


def _indexed(folder, images, corpus, paths):
    """Index what is shown, for searches, and all cases, whatever they are; return their ids."""
    rows = {}
    for name, colors in _references().items():
        path = folder / "pictures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(colors.repeat(16, 0).repeat(16, 1)).save(path)
        (rows[path.name],) = StubEngine().embed(colors[None])
    make_collection(folder / "shown", folder / "pictures", rows)
    names, rows = {case.name for case in no_files()}, {}
    for case, path in zip(corpus, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        if case.name in names:  # it was a file when it was indexed
            path.write_bytes(os.fsencode(case.name))
        else:
            case.make(path)
        rows[str(path.relative_to(images))] = np.eye(4, dtype=np.float32)[0]
    collection = make_collection(folder / "all", images, rows)
    for case, path in zip(corpus, paths, strict=True):
        if case.name in names:
            path.unlink()
            case.make(path)
    with contextlib.closing(collection.images()) as table:
        found = table.recorded([str(path.relative_to(images)) for path in paths])
        ids = {file.path: image_id(file.path, content) for file, content in found}
    return [ids[str(path.relative_to(images))] for path in paths]


def _tried(one, client, case, path, way):
    """Return the status of an answer, 0 for none, and what is odd about it."""
    try:
        answer = one(client, path, way)
        if answer.status_code == 200:
            return 200, _oddness(answer, case, path, way)
        detail = answer.json()["detail"]
        return answer.status_code, "" if "\n" not in detail and str(
            path.parent
        ) not in detail else detail
    except httpx.HTTPError as error:
        return 0, repr(error)


def _send(client, path, field):
    data = {"top": "1"}
    if field == "box":
        data["box"] = BOX
    if field == "negative":  # of itself: it cancels the query, or moves it little
        data["path"] = f"{next(iter(_references()))}.png"
    files = {"image" if field == "box" else field: ("a.jpg", path.read_bytes())}
    return client.post("search", data=data, files=files)


def _ask(client, path, way):
    return client.get(way)


def _oddness(answer, case, path, way):
    """Say what is odd about an answer of 200; "" for nothing."""
    colors = case.colors
    if way in FIELDS:
        if case.due == REFUSED:
            return "accepted"
        if way == "negative" or colors is None:
            return ""
        due = np.broadcast_to(colors[0, 0], (2, 2, 3)) if way == "box" else colors
        found = answer.json()["results"][0]["path"]
        return "" if found == f"{_name(due)}.png" else f"taken for {found}"
    if "thumbnail" not in way and path.is_file() and answer.content == path.read_bytes():
        return ""  # sent as it is
    if case.due == REFUSED:
        return "accepted"
    with Image.open(io.BytesIO(answer.content)) as image:
        pixels = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX))
    return "" if colors is None or shows(pixels, colors) else "shown wrongly"
