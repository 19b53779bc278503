"""Fixtures that several test modules share."""

import atexit
import gc
import hashlib
import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A shared machine may be slow at any moment, and a test that failed must fail again.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")

# Both a plugin, for its fixtures, and a module, for its functions.
pytest.register_assert_rewrite("browsing", "served")

# The tests compute little: threads that share it cost more than they save, and each processor has a
# test of its own. Programs that tests start inherit this.
for library in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(library, "1")

# TensorFlow keeps the iterators of failed trainings. When Python ends, it waits for their threads,
# and xdist for the process: 15 seconds. Of what ends a process, Python runs this last.
if "PYTEST_XDIST_WORKER" in os.environ:
    atexit.register(os._exit, 0)

# Keras makes many objects: with Python's own threshold, collecting them takes a tenth of the time.
gc.set_threshold(10_000)
gc.disable()


def pytest_collection_finish():
    """What was imported stays: it is not looked through at each collection of garbage."""
    gc.freeze()
    gc.enable()


# Names that broke earlier systems: commas, quotes, spaces, hyphens, letter case, inner folders.
IMAGE_TREE = {
    "Hunde-groß": ["-dash.jpg", "Über alles.png"],
    "cats": ["Tabby.JPG", "a,b.png", "nested/deep-er/kitten.PpM", 'say "hi".jpeg', "two words.bmp"],
    "one image": ["single.gif"],
    "zebra": ["z 2.webp", "z1.TiF", "z10.jpg"],
}
DECOYS = ("loose.jpg", ".hidden/x.jpg", "cats/.hidden.jpg", "cats/.hidden/x.jpg")
NOT_IMAGES = ("notes.txt", "cats/notes.txt", "cats/jpg", "cats/x.jpg.part", "empty/readme.md")


MOST_GROWTH = 1 << 18  # kilobytes
_seen = {"peak": 0}


@pytest.hookimpl(trylast=True)  # the test's fixtures are gone
def pytest_runtest_teardown():
    """Networks refer to themselves, and Python collects such garbage by number, not by size: some
    large ones would fill the memory before it does.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak > _seen["peak"] + MOST_GROWTH:
        gc.collect()
        _seen["peak"] = peak


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What commands keep between runs is kept for these tests alone, by each of their processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEP_RANKING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_not_ignored():
    """A job that a script starts in the background (`make test &`) ignores Ctrl-C. Its children
    inherit that, and tests interrupt some of them.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory):
    """Folder with the images of `IMAGE_TREE`, each unlike the others, and with what is no image
    of a class. Not to be written to.
    """
    root = tmp_path_factory.mktemp("image_tree") / "two words, one comma"
    rng = np.random.default_rng(0)
    images = [f"{folder}/{name}" for folder, names in IMAGE_TREE.items() for name in names]
    for name in (*images, *DECOYS):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.repeat(rng.integers(0, 256, (4, 6, 3), np.uint8), 4, axis=0)
        Image.fromarray(np.repeat(pixels, 4, axis=1)).save(path)
    for name in NOT_IMAGES:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image\n", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def real_data():
    """Folder of the data sets and weights for development; skips where there is none."""
    folder = os.environ.get("DEEP_RANKING_DATA")
    if not folder:
        pytest.skip("DEEP_RANKING_DATA names no folder with real images and weights")
    root = Path(folder)
    for name in (
        "data/caltech101.tar",
        "data/tiny-imagenet.tar",
        "weights/vgg16_imagenet_notop.h5",
    ):
        if not (root / name).is_file():
            pytest.fail(f"DEEP_RANKING_DATA={folder}: has no {name}")
    return root


@pytest.fixture(scope="session")
def write_colors():
    """A function that writes images which a few steps can learn: one colour a class, with noise."""

    def write(root, classes=("red", "green", "blue"), images=4):
        rng = np.random.default_rng(0)
        for channel, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            for number in range(images):
                pixels = rng.integers(0, 60, (16, 16, 3), dtype=np.uint8)
                pixels[:, :, channel] += 180
                Image.fromarray(pixels).save(root / name / f"{number}.png")

    return write


@pytest.fixture(scope="session")
def image_tree_of_colors(tmp_path_factory, write_colors):
    root = tmp_path_factory.mktemp("tree") / "colors"
    write_colors(root)
    return root


@pytest.fixture
def eager():
    """Keras runs layer by layer: tracing a graph takes longer than a test computes with it."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def stub_network(request):
    """Training builds a network of one dense layer in place of the real one, and runs it layer
    by layer. Slow tests and those marked `graph` trace a graph, as real runs do.
    """
    from stubs import training_stubs

    graph = any(request.node.get_closest_marker(name) for name in ("graph", "slow"))
    with training_stubs(eager=not graph):
        yield


@pytest.fixture(scope="module")
def thin_vgg16():
    """Networks are built on a VGG16 with few filters, except in programs that tests start."""
    from keras import applications
    from stubs import build_thin_vgg16

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applications, "VGG16", build_thin_vgg16)
        yield


@pytest.fixture(scope="module")
def models_loaded_once():
    """Commands load model files of one content once, copies too: building a network takes longer
    than using it.
    """
    from deep_ranking.model import file

    load_model, loaded = file.load_model, {}

    def load_once(path):
        if not os.path.isfile(path):
            return load_model(path)
        content = hashlib.sha256(Path(path).read_bytes()).digest()
        if content not in loaded:
            loaded[content] = load_model(path)
        return loaded[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "load_model", load_once)
        yield


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory):
    """A folder with a small model, m.h5, and its compiled file. Not to be written to."""
    from keras import applications
    from stubs import build_thin_vgg16, save_thin_model

    from deep_ranking.embedding.compiled.compiling import compile_model

    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applications, "VGG16", build_thin_vgg16)
        compile_model(save_thin_model(folder / "m.h5"))
    return folder


@pytest.fixture
def compiled_model(compiled_once, tmp_path):
    """A model file, `model/m.h5`, beside its compiled file."""
    shutil.copytree(compiled_once, tmp_path / "model")
    return tmp_path / "model" / "m.h5"


@pytest.fixture
def time_limit():
    """Turn a call that waits for ever into a failure."""

    def fail(number, frame):
        pytest.fail("still waiting after 5 seconds")  # a TimeoutError is an OSError: often caught

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
