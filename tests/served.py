"""A small collection that is served, with a stub in place of the model's engine.

A test module takes the fixtures by `pytest_plugins = ("served",)`.
"""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest
from collections_of import make_collection
from PIL import Image

from deep_ranking.embedding.embedder import Embedder
from deep_ranking.images import read_image
from deep_ranking.serving.application import create_application
from deep_ranking.serving.opened import open_served
from deep_ranking.serving.settings import ServerSettings

SIZE, DIM = 32, 4
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230)}
SETTINGS = ServerSettings()


class StubEngine:
    """The mean colour of an image, as a row of unit length."""

    image_size, dimension, batch_size, num_threads = SIZE, DIM, 8, 1
    name = key = "stub"

    def embed(self, images):
        means = images.astype(np.float32).mean(axis=(1, 2)) / 255
        rows = np.concatenate([means, np.full((len(means), 1), 0.1, np.float32)], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class CornerEngine(StubEngine):
    """Three random mixtures of the upper left quarter, beside a constant; it counts its images."""

    def __init__(self):
        self.num_images = 0
        self.mixtures = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE // 4, 3))

    def embed(self, images):
        self.num_images += len(images)
        seen = images[:, : SIZE // 2, : SIZE // 2].reshape(len(images), -1) / 255 - 0.5
        rows = np.concatenate([seen @ self.mixtures, np.full((len(images), 1), 0.1)], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def use_stub_engine(patch):
    patch.setattr(Embedder, "engine", lambda *_: StubEngine())


def row_of(image):
    return StubEngine().embed(read_image(image, SIZE)[None])[0]


def write_photos(root, *, copies=True):
    """Write four images of each colour, each a little brighter than the one before."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((40, 60, 3), np.add(colour, number * 6).clip(0, 255), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    if copies:
        (root / "blue" / "copy.png").write_bytes((root / "blue" / "0.png").read_bytes())


def make_served(folder, root, **options):
    """Make a collection of all images below a folder."""
    paths = sorted(str(each.relative_to(root)) for each in root.rglob("*") if each.is_file())
    return make_collection(folder, root, {path: row_of(root / path) for path in paths}, **options)


@pytest.fixture
def stub_engine(monkeypatch):
    use_stub_engine(monkeypatch)


@pytest.fixture
def root(tmp_path):
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def collection(tmp_path, root):
    return make_served(tmp_path / "index", root)


class Caller:
    """Calls an application as a browser or `curl` would, each request in an event loop of its own.

    Args:
        application: the ASGI application.
        address: where it believes to be.
    """

    def __init__(self, application, address="http://127.0.0.1:8000"):
        self.application, self.address = application, address

    def __call__(self, method, path, **options):
        async def call():
            transport = httpx.ASGITransport(self.application)
            async with httpx.AsyncClient(transport=transport, base_url=self.address) as client:
                return await client.request(method, path, **options)

        return asyncio.run(call())

    def get(self, path, **options):
        return self("GET", f"/api/v1/{path}", **options)

    def post(self, path, data=None, **files):
        """Send a form; files are bytes, or lists of bytes."""
        parts = [
            (name, ("a.jpg", each))
            for name, given in files.items()
            for each in (given if isinstance(given, list) else [given])
        ]
        options = {"files": parts} if parts else {}
        return self("POST", f"/api/v1/{path}", data=data or {}, **options)

    def search(self, data=None, **files):
        return self.post("search", data, **files)


def caller_of(*collections, settings=SETTINGS):
    served = open_served([Path(each.folder) for each in collections])
    return Caller(create_application(served, settings))


def refused(answer, status, *words):
    """The sentence of a refusal, which has no path of the server."""
    assert answer.status_code == status, answer.text
    sentence = answer.json()["detail"]
    assert list(answer.json()) == ["detail"]
    assert all(word in sentence for word in words), sentence
    assert "/tmp" not in sentence and "photos" not in sentence and "Traceback" not in sentence
    return sentence
