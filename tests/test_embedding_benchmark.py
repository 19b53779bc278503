"""benchmarks/embedding.py and its reference networks: their figures, and the command."""

import math
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deep_ranking import InputError
from deep_ranking.images import read_image
from deep_ranking.metrics import bootstrap_interval

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
benchmark = runpy.run_path(str(BENCHMARKS / "embedding.py"))
quality = runpy.run_path(str(BENCHMARKS / "precision_quality.py"))
references = types.SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "reference_networks.py")))
Method, Run = benchmark["Method"], benchmark["Run"]


class MeanEngine:
    """The mean colour of an image, as an `Engine`; it notes how many images it gets at once."""

    image_size, dimension, batch_size, name, key = 8, 3, 4, "mean", "mean"

    def __init__(self, num_threads):
        self.num_threads, self.counts = num_threads, []

    def embed(self, images):
        self.counts.append(len(images))
        return images.mean(axis=(1, 2), dtype=np.float32)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / f"c{label}").mkdir()
        for number in range(6):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"c{label}" / f"{number}.jpg")
    return [str(each) for each in sorted(tmp_path.rglob("*.jpg"))]


def cells(table):
    return [[each.strip() for each in line.strip("|").split("|")] for line in table.splitlines()]


def test_speeds_and_ratios_are_medians_over_rounds():
    # The ratios of the rounds are 2, 2 and 5; that of the median speeds is 10 / 4.
    keras = Method("Keras", None, runs=[Run(8, 2, 0.9), Run(8, 1, 0.7), Run(8, 4, 0.8)])
    keras.reference, keras.num_images = keras, 8
    memory = Method("memory", None, keras, runs=[Run(40, 2), Run(40, 1), Run(40, 20)])
    ours = Method(
        "ours", None, keras, memory, [Run(40, 5, 0.5), Run(40, 2.5, 0.6), Run(40, 4, 0.7)]
    )
    ours.num_images = 40
    _, _, *rows = cells(benchmark["table_of_speeds"]([keras, ours, memory], memory))
    assert rows == [
        ["Keras", "4.0", "1.00", "-", "80%", "8", "0.20"],
        ["ours", "10.0", "2.00", "40%", "60%", "40", "0.40"],
        ["memory", "20.0", "5.00", "-", "-", "0", "1.00"],
    ]
    headings = cells(benchmark["table_of_speeds"]([keras]))[0]
    assert headings[-1] == "images a round"


def test_rounds_share_files_go_back_and_forth_and_slow_methods_take_a_quarter(files):
    taken = []

    def method(name, speed):
        def run(given):
            taken.append((name, given))
            return Run(len(given), len(given) / speed)

        return Method(name, run)

    fast, slow = method("fast", 1000), method("slow", 2)
    benchmark["measure"]([fast, slow], files, rounds=3, quarter=2)
    assert [name for name, _ in taken[4:]] == ["fast", "slow", "slow", "fast", "fast", "slow"]
    assert all(given == files[:2] for _, given in taken[:4])
    given = dict(taken[6:8])
    assert given["fast"] == files[8:12] + files[:4] and given["slow"] == files[8:10]
    assert (fast.num_images, slow.num_images) == (8, 2)
    assert [len(each.runs) for each in (fast, slow)] == [3, 3]


def test_a_round_has_whole_batches():
    assert [benchmark["quarter_of"](*each) for each in ((256, 1000), (999, 1000), (256, 90))] == [
        64,
        192,
        22,
    ]
    with pytest.raises(InputError, match="at least 4"):
        benchmark["quarter_of"](256, 3)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_the_engine_gets_every_image_once(files, num_threads, monkeypatch):
    kept = []

    class Rows(np.ndarray):
        def flush(self):
            kept.append(np.array(self))

    class Temporary:
        def __init__(self, count, width):
            self.rows = np.zeros((count, width), np.float32).view(Rows)

        def __enter__(self):
            return self.rows

        def __exit__(self, *_):
            pass

    monkeypatch.setitem(benchmark["embed_files"].__globals__, "temporary_rows", Temporary)
    engine = MeanEngine(num_threads)
    found = benchmark["embed_files"](files, engine)
    assert sum(engine.counts) == found.count == 12 and 0 < found.share <= 1
    expected = np.stack([read_image(file, 8).mean(axis=(0, 1)) for file in files])
    np.testing.assert_allclose(kept[0], expected, rtol=1e-5)
    engine = MeanEngine(num_threads)
    found = benchmark["embed_arrays"](files, engine)
    assert sum(engine.counts) == found.count == 12 and math.isnan(found.share)
    assert benchmark["decode"](files, 8).count == 12


def test_methods_of_a_model_know_their_keras_and_their_limit():
    engines = {"Keras": MeanEngine(0), "ours": MeanEngine(2)}
    keras, keras_limit, ours, limit = benchmark["methods_of"]("m.h5", engines)
    assert [each.reference for each in (keras, keras_limit, ours, limit)] == [keras] * 4
    assert keras.limit is keras_limit and ours.limit is limit and limit.limit is None
    assert ours.name == "m.h5: ours, from files" and limit.name == "m.h5: ours, in memory"


def test_quality_is_compared_query_by_query():
    keras_rows = np.eye(3, dtype=np.float32)
    ours = np.array([[1, 0, 0], [0, 0.6, 0.8], [0, 0, 1]], np.float32)
    keras = quality["Judged"](keras_rows, np.array([0.5, 1, np.nan]), np.array([1, 1, np.nan]))
    int8 = quality["Judged"](ours, np.array([0.25, 1, np.nan]), np.array([0, 1, np.nan]))
    _, _, first, second = cells(quality["table_of_quality"]({"m": {"Keras": keras, "x": int8}}))
    assert first == ["m: Keras", "0.7500", "-", "1.0000", "-", "-", "-"]
    found = bootstrap_interval(np.array([-0.25, 0, np.nan]))
    assert second[1:3] == ["0.6250", f"-0.1250 [{found.low:+.4f}, {found.high:+.4f}]"]
    assert second[3] == "0.5000" and second[4].startswith("-0.5000 [-1.0000, ")
    assert second[5:] == ["0.8667", "0.6000"]


def test_the_transformer_has_the_published_number_of_weights():
    shapes = references.VisionTransformer().shapes().values()
    assert sum(math.prod(shape) for shape in shapes) == 87_849_216  # of CLIP ViT-B/32's image tower


def norm(x, weights, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}.scale"] + weights[f"{name}.bias"]


def dense(x, weights, name):
    return x @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]


def by_loops(image, weights, sizes):
    """The row of an image, head by head and patch by patch."""
    pixels = (image - np.array(references.PIXEL_MEANS)) / np.array(references.PIXEL_SCALES)
    patch, width = sizes.patch, sizes.width // sizes.num_heads
    tokens = [weights["class_token"][0, 0]]
    for top in range(0, sizes.size, patch):
        for left in range(0, sizes.size, patch):
            part = pixels[top : top + patch, left : left + patch]
            tokens.append(np.einsum("yxc,wcyx->w", part, weights["patches.kernel"]))
    x = norm(np.stack(tokens) + weights["positions"], weights, "first_norm")
    for block in range(sizes.num_blocks):
        query, key, value = np.split(
            dense(norm(x, weights, f"{block}.norm_1"), weights, f"{block}.attention"), 3, axis=1
        )
        heads = []
        for begin in range(0, sizes.width, width):
            part = slice(begin, begin + width)
            scores = np.exp(query[:, part] @ key[:, part].T / np.sqrt(width))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ value[:, part])
        x = x + dense(np.concatenate(heads, axis=1), weights, f"{block}.attended")
        hidden = dense(norm(x, weights, f"{block}.norm_2"), weights, f"{block}.hidden")
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2))) / 2
        x = x + dense(hidden, weights, f"{block}.output")
    return norm(x[0], weights, "last_norm") @ weights["projection"]


@pytest.mark.filterwarnings("ignore")  # those of onnxruntime
def test_the_transformer_computes_what_loops_do(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    sizes = references.VisionTransformer(
        size=8, patch=4, width=12, num_blocks=2, num_heads=3, dimension=5
    )
    # So that attention is far from even.
    monkeypatch.setitem(references.write_vision_transformer.__globals__, "WEIGHT_SCALE", 0.5)
    path = tmp_path / "tiny.onnx"
    references.write_vision_transformer(path, sizes)
    arrays = {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer
    }
    assert {name: arrays[name].shape for name in sizes.shapes()} == sizes.shapes()
    engine = references.OnnxEngine(path, "tiny")
    assert (engine.image_size, engine.dimension) == (8, 5)
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    expected = [by_loops(image.astype(np.float64), arrays, sizes) for image in images]
    np.testing.assert_allclose(engine.embed(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of converters and of onnxruntime
def test_mobilenet_is_the_part_that_imagededup_uses(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "m.onnx"
    references.write_mobilenet(path, size=32)
    engine = references.OnnxEngine(path, "MobileNetV3-small")
    assert (engine.image_size, engine.dimension) == (32, 576)
    assert engine.embed(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 576)
    weights = sum(math.prod(each.dims) for each in onnx.load(path).graph.initializer)
    assert 0.9e6 < weights < 1e6  # torchvision's `features` have 927,008


@pytest.mark.slow
@pytest.mark.usefixtures("thin_vgg16")
@pytest.mark.filterwarnings("ignore")  # those of the converter
def test_the_command_prints_both_tables(files, monkeypatch, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.file import save_model
    from deep_ranking.model.network import build_network

    config = NetworkConfig(image_size=32, weights=None, embedding_size=8)
    model = tmp_path / "m.h5"
    save_model(build_network(config, seed=0), model)
    flags = ["--model", model, "--images", tmp_path, "--judge", tmp_path, "--rounds", 1]
    flags += ["--images_a_round", 8, "--precisions", "float32", "--without_references"]
    monkeypatch.setattr(sys, "argv", ["embedding.py", *map(str, flags)])
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark["main"]()
    printed = cells(capsys.readouterr().out)
    names = [row[0] for row in printed if len(row) > 1]
    assert names == [
        *("method", "---", "decoding alone, 32 px"),
        *(f"{model}: {engine}, {place}"
          for engine in ("Keras float32", "LiteRT float32")
          for place in ("from files", "in memory")),
        *("method", "---", f"{model}: Keras float32", f"{model}: LiteRT float32"),
    ]  # fmt: skip
    assert printed[-1][-2:] == ["1.0000", "1.0000"]
