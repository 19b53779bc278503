"""Reading, embedding and taking the rows overlap; order, errors and threads stay as they should."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deep_ranking.embedding import embed
from deep_ranking.embedding.embed import EngineTime, embed_batches
from deep_ranking.files import InputError
from deep_ranking.images import read_image

SIZE, DIMENSION = 8, 3
MIX = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, DIMENSION)).astype(np.float32)
every_number_of_threads = pytest.mark.parametrize("num_threads", [0, 1, 3])


class Engine:
    """Embeds by a matrix, one image after the other."""

    image_size, dimension, name, key = SIZE, DIMENSION, "matrix", "matrix"

    def __init__(self, num_threads=0, batch_size=4):
        self.num_threads, self.batch_size = num_threads, batch_size
        self.batches, self.threads = [], set()

    def embed(self, images):
        assert images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE, 3)
        assert 0 < len(images) <= self.batch_size
        self.batches.append(len(images))
        self.threads.add(threading.current_thread())
        return np.stack([row_of(each) for each in images])


def row_of(image):
    return image.reshape(-1).astype(np.float32) @ MIX


@pytest.fixture
def photos(tmp_path):
    """Nineteen images; the names do not sort as they are."""
    paths = []
    for number in range(19):
        cells = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        paths.append(tmp_path / f"{number % 7}{number}.png")
        Image.fromarray(cells).save(paths[-1])
    return paths


def expected_of(paths):
    return np.stack([row_of(read_image(path, SIZE)) for path in paths])


@every_number_of_threads
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_rows_come_in_order(photos, num_threads, batch_size):
    engine = Engine(num_threads, batch_size)
    batches = list(embed_batches(engine, photos))
    np.testing.assert_array_equal(
        np.concatenate([each.rows for each in batches]), expected_of(photos)
    )
    assert all(each.readable.all() and len(each.readable) == len(each.rows) for each in batches)
    assert sum(engine.batches) == 19
    if num_threads == 0:
        assert engine.threads == {threading.current_thread()}  # the one that may call it
    else:
        assert threading.current_thread() not in engine.threads


def test_no_images():
    assert list(embed_batches(Engine(2), [])) == []


def test_a_few_images_are_shared_by_all_threads(photos):
    assert [len(each.rows) for each in embed_batches(Engine(3, 64), photos[:7])] == [3, 3, 1]
    assert [len(each.rows) for each in embed_batches(Engine(0, 64), photos[:7])] == [7]


@every_number_of_threads
def test_the_first_broken_image_in_order_is_the_one_that_is_told(photos, num_threads, monkeypatch):
    """The first is slow to read: others are known to be broken before it."""
    for number in (6, 7, 9, 18):
        photos[number].write_bytes(b"no image")
    later_failed = threading.Event()

    def read(path, size):
        if path == photos[6]:
            later_failed.wait(30)
        try:
            return read_image(path, size)
        except InputError:
            if path != photos[6]:
                later_failed.set()
            raise

    monkeypatch.setattr(embed, "read_image", read)
    batches = embed_batches(Engine(num_threads, 4), photos)
    found = []
    with pytest.raises(InputError) as caught:
        found.extend(batches)
    assert str(caught.value).startswith(f"{photos[6]}: ")
    rows = np.concatenate([each.rows for each in found])  # what came before it
    np.testing.assert_array_equal(rows, expected_of(photos[:4]))


@every_number_of_threads
def test_broken_images_are_rows_of_nan_and_named_by_the_mask(photos, num_threads):
    for number in (0, 5, 8, 9, 10, 11, 18):  # 8 to 11 are a batch
        photos[number].write_bytes(b"no image")
    engine = Engine(num_threads)
    found = list(embed_batches(engine, [*photos, b"", "nowhere"], skip_broken=True))
    rows = np.concatenate([each.rows for each in found])
    readable = np.concatenate([each.readable for each in found])
    wanted = [number not in (0, 5, 8, 9, 10, 11, 18) for number in range(19)] + [False, False]
    assert readable.tolist() == wanted
    assert np.isnan(rows[~readable]).all()
    good = [path for path, is_good in zip(photos, wanted, strict=False) if is_good]
    np.testing.assert_array_equal(rows[readable], expected_of(good))
    assert len(engine.batches) == len(found) - 2  # of a batch that is all broken, nothing


@every_number_of_threads
def test_an_error_of_the_engine_is_told(photos, num_threads):
    class Failing(Engine):
        def embed(self, images):
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        list(embed_batches(Failing(num_threads), photos))


@every_number_of_threads
def test_it_reads_only_some_batches_ahead(photos, num_threads, monkeypatch):
    read = []
    monkeypatch.setattr(embed, "read_image", lambda *a: read.append(a) or read_image(*a))
    batches = embed_batches(Engine(num_threads, 2), photos)
    next(batches)
    waiting = num_threads + embed.BATCHES_AHEAD + 1
    assert len(read) <= 2 * waiting < len(photos)
    batches.close()


@every_number_of_threads
def test_a_consumer_that_stops_early_leaves_no_thread(photos, num_threads):
    before = set(threading.enumerate())
    engine = Engine(num_threads, 2)
    batches = embed_batches(engine, photos)
    next(batches)
    batches.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
    assert len(engine.batches) < 10


def test_an_error_leaves_no_thread(photos):
    photos[0].write_bytes(b"no image")
    before = set(threading.enumerate())
    with pytest.raises(InputError):
        list(embed_batches(Engine(2, 2), photos))
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_the_time_that_the_engine_works_is_measured(photos):
    class Slow(Engine):
        def embed(self, images):
            time.sleep(0.01)
            return super().embed(images)

    worked = EngineTime()
    list(embed_batches(Slow(2, 2), photos, worked=worked))
    assert worked.num_threads == 2
    assert worked.seconds > 0.05  # of ten batches


STOPPED = """
import signal, sys, time
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
from test_embedding_pipeline import Engine
from deep_ranking.embedding import embed

def slowly(path, size):
    time.sleep(0.02)
    return read_image(path, size)

read_image, embed.read_image = embed.read_image, slowly
batches = embed.embed_batches(Engine({num_threads}, 2), 5000 * [{image!r}])
next(batches)
print("ready", flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("for each in batches: pass", -signal.SIGINT),  # interrupted in the midst
        ("raise SystemExit(3)", 3),  # the generator is neither ended nor closed
        ("batches.close(); raise SystemExit(4)", 4),
    ],
)
@pytest.mark.parametrize("num_threads", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_program_that_stops_early_ends(photos, then, code, num_threads):
    """It would read for more than a minute otherwise."""

    program = STOPPED.format(
        tests=str(Path(__file__).parent), num_threads=num_threads, image=str(photos[0]), then=then
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    if code < 0:
        process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("it goes on after it was stopped")
    assert process.returncode == code, errors
