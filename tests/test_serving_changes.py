"""A collection that another process changes, takes away and replaces while it is served."""

import itertools
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from collections_of import make_collection
from served import make_served, use_stub_engine, write_photos
from served_program import served_program

from deep_ranking.search.indexing import index_images

SECONDS = 60  # for a state to be answered, on a busy machine
NUM_THREADS = 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    use_stub_engine(monkeypatch)
    write_photos(tmp_path / "photos")
    make_served(tmp_path / "index", tmp_path / "photos")
    return tmp_path


class Asking:
    """Requests of all kinds, one behind the other on a few threads, until the end of the block.

    Attributes:
        answers: number of answers, by address and status.
        sizes: numbers of images that searches found.
        latest: the last of those numbers, by thread.
        wrong: answers that nobody should get.
    """

    def __init__(self, address, photo):
        self.answers, self.sizes, self.wrong = Counter(), set(), []
        self.latest = [0] * NUM_THREADS
        self._client = httpx.Client(base_url=f"{address}/api/v1/", timeout=60)
        (found,) = self.search(top="1").json()["results"]
        get, post = self._client.get, self._client.post
        self.ways = {
            "path": lambda: self.search(top="50"),
            "image": lambda: post("search", files={"image": photo}),
            "smooth": lambda: self.search(smooth="true"),
            "rerank": lambda: self.search(rerank="true"),
            "collections": lambda: get("collections"),
            "neighbours": lambda: get(f"images/{found['id']}/neighbours"),
            "thumbnail": lambda: get(f"images/{found['id']}/thumbnail"),
            "duplicates": lambda: get("duplicates?threshold=0.1"),
        }
        self._end = threading.Event()
        self._pool = ThreadPoolExecutor(NUM_THREADS)

    def search(self, **fields):
        return self._client.post("search", data={"path": "red/1.png"} | fields)

    def wait_until_all_find(self, size):
        """Wait until the latest search of every thread found so many images."""
        until(lambda: self.latest == [size] * NUM_THREADS)

    def __enter__(self):
        self._calls = [self._pool.submit(self._ask, number) for number in range(NUM_THREADS)]
        return self

    def __exit__(self, *_):
        self._end.set()
        self._pool.shutdown()
        for each in self._calls:
            each.result()
        self._client.close()

    def _ask(self, first):
        for way in itertools.islice(itertools.cycle(self.ways), first, None):
            if self._end.is_set():
                return
            answer = self.ways[way]()
            self.answers[way, answer.status_code] += 1
            # 404, 422: a state has no such image yet, or no smoothed rows.
            is_due = answer.status_code in (200, 404, 422, 503)
            if way == "path" and answer.status_code == 200:
                self.latest[first] = len({each["path"] for each in answer.json()["results"]})
                self.sizes.add(self.latest[first])
            if not is_due:
                self.wrong.append((way, answer.status_code, answer.text))


def until(is_so):
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_no_request_fails_while_the_collection_changes(folder):
    index, photos = folder / "index", folder / "photos"
    photo = (photos / "red" / "1.png").read_bytes()
    options = {"errors": folder / "errors.txt"}
    with (
        served_program(folder, "--index", "index", **options) as (address, _),
        Asking(address, photo) as asking,
    ):
        for kind, smooth in (("clusters", 0), ("exact", 3), ("hierarchy", 0), ("exact", 0)):
            (photos / "red" / "3.png").rename(folder / "away.png")
            index_images(index, index=kind, smooth=smooth)
            asking.wait_until_all_find(12)
            (folder / "away.png").rename(photos / "red" / "3.png")
            index_images(index, index=kind, smooth=smooth)
            asking.wait_until_all_find(13)
            if smooth:  # no other state has smoothed rows
                until(lambda: asking.answers["smooth", 200])
        for _ in range(12):
            shutil.rmtree(index)
            until(lambda: asking.search().status_code == 503)
            make_served(index, photos)
            until(lambda: asking.search().status_code == 200)
        shutil.rmtree(index)
        rows = {f"red/{number}.png": np.eye(8)[number] for number in range(4)}
        make_collection(index, photos, rows)  # of another model
        until(lambda: len(asking.search().json().get("results", ())) == 4)
    assert not asking.wrong, asking.wrong[:5]
    errors = (folder / "errors.txt").read_text()
    assert "Traceback" not in errors, errors[-3000:]
    assert {12, 13} <= asking.sizes <= {4, 12, 13}  # of one state each
    assert {way for way, status in asking.answers if status == 200} == set(asking.ways)
