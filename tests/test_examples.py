"""The example in the docstring of every public class and function, run."""

import doctest
import inspect
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import deep_ranking

CLASSES = ("cat", "dog", "owl")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Public methods of these have an example of their own.
METHODS = (
    deep_ranking.Collection.open,
    deep_ranking.Collection.search,
    deep_ranking.Searcher.search_images,
    deep_ranking.Duplicates.move_aside,
)
# Twelve answers to eight questions.
RATED = (
    *(("Ann", number, "chosen") for number in (0, 1, 2, 3, 4, 5, 0)),
    *(("Bob", number, "chosen") for number in (0, 1, 6, 7)),
    ("Bob", 2, "cannot_say"),
)
PUBLIC = {
    name: value
    for name in deep_ranking.__all__
    if inspect.isclass(value := getattr(deep_ranking, name)) or inspect.isfunction(value)
}


def _save_one_pixel(figure, file, **options):
    if options.get("format") == "svg":
        file.write('<svg viewBox="0 0 1 1"/>')
        return
    Image.new("RGB", (1, 1)).save(file, options.get("format", "png"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the examples use: images, class files, triplets, a model and an index."""
    import keras
    import tensorflow as tf
    from stubs import build_thin_vgg16

    root = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    lines = []
    for channel, name in enumerate(CLASSES):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 160, (32, 32, 3), dtype=np.uint8)
            pixels[:, :, channel] += 90
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
            split = "test" if name == "owl" else "train"
            lines.append(f"photos/{name}/{number}.png,{name},{name},{split}\n")
    shutil.copy(root / "photos/cat/0.png", root / "photos/cat/3.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(keras.applications, "VGG16", build_thin_vgg16)
        patch.setattr(Figure, "savefig", _save_one_pixel)  # drawing takes most of the time
        tf.config.run_functions_eagerly(True)
        Path("classes.csv").write_text("path,label,category,split\n" + "".join(lines))
        Path("positives.csv").write_text(
            "query,positive,item\nphotos/cat/0.png,photos/cat/1.png,cat\n"
        )
        few = deep_ranking.SamplingConfig(num_pos_images=2, num_neg_images=2)
        deep_ranking.sample("photos", ".", few)
        log = deep_ranking.AnswerLog("ratings.csv")
        for rater, number, answer in RATED:
            paths = (
                f"cat/{number % 3}.png",
                f"cat/{(number + 1) % 3}.png",
                f"owl/{number % 4}.png",
            )
            log.add(deep_ranking.Answer("2026-11-29T19:30:28Z", rater, *paths, answer))
        wrong = deep_ranking.Correction("cat/0.png", "cat", "dog")
        deep_ranking.CorrectionLog("corrections.csv").add(wrong)
        log = deep_ranking.AnswerLog("answers.csv")
        for number in range(16):
            one, other, query = (number % 3, number // 3 % 3, (number + 1) % 3)
            paths = (
                f"dog/{query}.png",
                f"dog/{3 if one == query else one}.png",
                f"owl/{other}.png",
            )
            log.add(deep_ranking.Answer("2026-11-29T19:30:28Z", "Ann", *paths))
            paths = (f"owl/{number % 4}.png", f"owl/{(number + 1) % 4}.png", f"cat/{other}.png")
            log.add(deep_ranking.Answer("2026-11-29T19:30:28Z", "Ann", *paths))
        network = deep_ranking.NetworkConfig(
            image_size=32, weights=None, hidden_layers=0, embedding_size=8
        )
        model = deep_ranking.build_network(network, seed=0)
        model.calibration = None
        deep_ranking.save_model(model, "model.h5")
        deep_ranking.index_images("photos.index", model="model.h5", images="photos")
        yield root
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def names(folder):
    """What is defined where the examples run."""
    return {
        **PUBLIC,
        "Path": Path,
        "np": np,
        "model": deep_ranking.load_model("model.h5"),
    }


def each_example():
    """Default tests run what is quick: whichever of the slow ones is first compiles the model."""
    for value in (*PUBLIC.values(), *METHODS):
        slow = value in {deep_ranking.CompiledReport, deep_ranking.compile_model}
        yield pytest.param(value, id=value.__qualname__, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize("value", list(each_example()))
def test_its_example(value, names):
    text = inspect.cleandoc(value.__doc__)
    globs = {**names}
    example = doctest.DocTestParser().get_doctest(text, globs, value.__qualname__, None, None)
    assert example.examples, "no example in its docstring"
    said = io.StringIO()
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.write)
    assert said.getvalue() == ""
