import csv
import io
import os
from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image
from stubs import build_stub, training_stubs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from tensorboard.util import tensor_util
from werkzeug.test import Client

from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.datasets import read_folder
from deep_ranking.embedding.cached_features import cache_features
from deep_ranking.embedding.embed import embed_images
from deep_ranking.files import InputError
from deep_ranking.images import read_image
from deep_ranking.images.augmentation import Augmentation
from deep_ranking.sampling import sample_triplets
from deep_ranking.sampling.triplet_file import write_triplets
from deep_ranking.training import tensorboard
from deep_ranking.training.batches import FeatureSource
from deep_ranking.training.data import image_source
from deep_ranking.training.run import train
from deep_ranking.training.tensorboard import TensorBoardWriter, class_names, image_grid

SIZE = 32
SMALL = NetworkConfig(image_size=SIZE, weights=None, hidden_size=8, embedding_size=8, dropout=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_colors):
    """Three classes of four images, 12 triplets of them, and three further classes."""
    root = tmp_path_factory.mktemp("colors")
    write_colors(root / "images")
    write_colors(root / "others", classes=("r", "g", "b"), images=3)
    data = read_folder(root / "images")
    blocks = sample_triplets(data.items.codes, num_positives=1, num_negatives=1, seed=0)
    write_triplets(root / "triplets.txt", [f"images/{path}" for path in data.paths], blocks)
    return root


def config_for(folder, output, **changes):
    settings = {
        "triplets": folder / "triplets.txt",
        "output": output,
        "network": SMALL,
        "batch_size": 6,
        "epochs": 2,
        "seed": 4,
        "learning_rate": 0.01,
        "tensorboard": True,
    }
    return TrainConfig(**(settings | changes))


def classes_config(folder, output, **changes):
    settings = {"batches": "classes", "dataset": folder / "images", "batch_size": 9}
    return config_for(folder, output, **(settings | {"images_per_class": 3} | changes))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A run of two epochs, judged on other classes: its settings and its model."""
    output = tmp_path_factory.mktemp("run") / "model.h5"
    config = config_for(folder, output, validation_dataset=folder / "others")
    with training_stubs():
        return config, train(config, verbose=0)


def events_of(path):
    """By name of a curve or picture, its values by epoch, as TensorBoard reads them."""
    accumulator = EventAccumulator(str(path), size_guidance={"tensors": 0})
    accumulator.Reload()
    return {
        name: {each.step: tensor_util.make_ndarray(each.tensor_proto) for each in events}
        for name in accumulator.Tags()["tensors"]
        for events in [accumulator.Tensors(name)]
    }


def pixels_of(value):
    """The picture of an event, which is its width, its height, and a PNG file."""
    picture = np.asarray(Image.open(io.BytesIO(value[2])))
    assert (int(value[0]), int(value[1])) == picture.shape[1::-1]
    return picture


def laid_out(rows):
    """Rows of images, with two white pixels between them: by concatenation alone."""
    most = max(map(len, rows))
    white = np.full((1, SIZE, SIZE, 3), 255)
    bands = []
    for images in rows:
        row = np.concatenate([images, *[white] * (most - len(images))])
        padded = np.pad(row, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
        bands.append(np.concatenate(padded, axis=1))
    return np.concatenate(bands)[:-2, :-2]


# Curves and pictures


def test_curves_are_those_of_the_history(trained):
    config, _ = trained
    events = events_of(config.run_dir / "tensorboard")
    with (config.run_dir / "history.csv").open(newline="") as handle:
        history = [row for row in csv.DictReader(handle) if int(row["epoch"]) > 0]
    assert len(history) == 2 and "val_map_at_r" in history[0]
    for row in history:
        for name, value in row.items():
            if name != "epoch":
                assert events[name][int(row["epoch"])] == pytest.approx(float(value), rel=1e-6)
    assert events.keys() == history[0].keys() - {"epoch"} | {"triplets"}


def test_pictures_are_the_first_triplets_as_they_are_trained_on(trained):
    config, _ = trained
    pictures = events_of(config.run_dir / "tensorboard")["triplets"]
    assert sorted(pictures) == [1, 2]
    for epoch in (0, 1):
        batches = [images.numpy() for images, _ in image_source(config).dataset(epoch).take(3)]
        expected = laid_out(np.concatenate(batches).reshape(6, 3, SIZE, SIZE, 3))
        np.testing.assert_array_equal(pixels_of(pictures[epoch + 1]), expected)


def test_pictures_of_classes(folder, tmp_path):
    config = classes_config(folder, tmp_path / "model.h5")
    source = image_source(config)
    TensorBoardWriter(config, source, None).show_batch(source, 3)
    (images, labels), *_ = image_source(config).dataset(3)
    assert labels.numpy().tolist() == np.repeat(labels.numpy()[::3], 3).tolist()
    picture = events_of(config.run_dir / "tensorboard")["classes"][4]
    expected = laid_out(images.numpy().reshape(3, 3, SIZE, SIZE, 3))
    np.testing.assert_array_equal(pixels_of(picture), expected)


def test_pictures_of_cached_features_are_the_images_they_are_of(folder, tmp_path, monkeypatch):
    """The layers give the pixels themselves, so features are what the network sees."""
    config = classes_config(folder, tmp_path / "model.h5", augmentation=Augmentation(grayscale=0.3))
    images = image_source(config)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    pixels = keras.Model(image, [keras.layers.Rescaling(1.0, name="same")(image)])
    options = {"num_views": 3, "augmentation": config.augmentation}
    features = cache_features(pixels, images.paths, tmp_path / "cache", **options)
    source = FeatureSource(features, images.labels, batches=images.batches, seed=config.seed)
    writer = TensorBoardWriter(config, images, None)
    writer.show_batch(source, 1)
    ((seen,), _), *_ = source.dataset(1)
    expected = laid_out(seen.numpy().reshape(3, 3, SIZE, SIZE, 3))
    pictures = events_of(config.run_dir / "tensorboard")["classes"]
    np.testing.assert_array_equal(pixels_of(pictures[2]), expected)
    # Features do without their files: what is gone is left out of the picture.
    gone = images.paths[source.draw(2, 0)[0][0]]
    images.paths[images.paths.index(gone)] = str(tmp_path / "gone.png")
    writer.show_batch(source, 2)
    ((seen,), _), *_ = source.dataset(2)
    rows = list(seen.numpy().reshape(3, 3, SIZE, SIZE, 3))
    rows[0] = rows[0][1:]
    pictures = events_of(config.run_dir / "tensorboard")["classes"]
    np.testing.assert_array_equal(pixels_of(pictures[3]), laid_out(rows))


def test_large_images_are_shown_smaller_and_long_rows_cut():
    halves = np.zeros((10, 512, 512, 3), np.uint8)
    halves[:, :, 256:] = 200
    picture = image_grid([halves, halves[:2]])
    assert picture.shape == (2 * 256 + 2, 8 * 258 - 2, 3)
    assert (picture[:256, :128] == 0).all() and (picture[:256, 128:256] == 200).all()
    assert (picture[:, 256:258] == 255).all() and (picture[258:, 2 * 258 :] == 255).all()


def test_without_the_flag_nothing_is_written(folder, tmp_path):
    config = config_for(folder, tmp_path / "model.h5", tensorboard=False)
    source = image_source(config)
    writer = TensorBoardWriter(config, source, None)
    writer.show_batch(source, 0)
    writer.add_epoch({"epoch": 1, "loss": 0.5})
    writer.write_embeddings(None)
    assert os.listdir(tmp_path) == []


def test_the_package_is_missing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        train(config_for(folder, tmp_path / "model.h5"), verbose=0)
    assert os.listdir(tmp_path) == []


# The projector


class Projector:
    """TensorBoard's projector, asked as its page asks it."""

    def __init__(self, folder):
        self.apps = ProjectorPlugin(TBContext(logdir=str(folder))).get_plugin_apps()

    def get(self, route, name="embedding"):
        answer = Client(self.apps[route]).get(f"?run=.&name={name}")
        assert answer.status_code == 200, answer.text
        return answer

    def metadata(self):
        return [line.split("\t") for line in self.get("/metadata").text.splitlines()]

    def tensor(self, dim=8):
        return np.frombuffer(self.get("/tensor").data, np.float32).reshape(-1, dim)

    def thumbnails(self, count):
        sprite = np.asarray(Image.open(io.BytesIO(self.get("/sprite_image").data)))
        (info,) = self.get("/info").json["embeddings"]
        width, height = info["sprite"]["singleImageDim"]
        across = sprite.shape[1] // width
        places = [(number // across * height, number % across * width) for number in range(count)]
        return [sprite[top : top + height, left : left + width] for top, left in places]


def test_projector_shows_the_validation_images(trained):
    config, model = trained
    projector = Projector(config.run_dir / "tensorboard")
    (info,) = projector.get("/info").json["embeddings"]
    assert info["tensorShape"] == [9, 8]
    data = read_folder(config.validation_dataset)
    paths = data.files()
    header, *rows = projector.metadata()
    assert header == ["class", "path"]
    assert rows == [[path.split("/")[-2], path] for path in paths]
    np.testing.assert_allclose(projector.tensor(), embed_images(model, paths), atol=1e-5)
    for thumbnail, path in zip(projector.thumbnails(9), paths, strict=True):
        np.testing.assert_array_equal(thumbnail, read_image(path, 64))


@pytest.mark.parametrize("make", [config_for, classes_config])
def test_projector_shows_some_training_images_without_the_broken_ones(
    folder, tmp_path, monkeypatch, make
):
    monkeypatch.setattr(tensorboard, "NUM_PROJECTED", 4)
    config = replace(make(folder, tmp_path / "model.h5"), skip_broken=True)
    source = image_source(config)
    paths = [os.fspath(path) for path in source.paths]
    chosen = [paths[0], paths[3], paths[6], paths[9]]
    (tmp_path / "broken.png").write_bytes(b"none")
    source.paths = [
        str(tmp_path / "broken.png") if path == chosen[1] else path for path in source.paths
    ]
    model = build_stub(SMALL, seed=0)
    TensorBoardWriter(config, source, None).write_embeddings(model)
    projector = Projector(config.run_dir / "tensorboard")
    left = [chosen[0], *chosen[2:]]
    assert [row[1] for row in projector.metadata()[1:]] == left
    np.testing.assert_allclose(projector.tensor(), embed_images(model, left), atol=1e-5)


def test_class_names():
    assert class_names(["a/x/1.png", "a/y/2.png"]) == ["x", "y"]
    assert class_names(["x/in/1.png", "./y/2.png", "3.png"]) == ["x", "y", ""]
    assert class_names(["photos/x/1.png", "photos/x/2.png"]) == ["x", "x"]
    assert class_names([os.path.abspath("x/1.png"), "y/1.png"]) == ["x", "y"]


def test_names_with_tabs_and_line_breaks_stay_in_their_cell(folder, tmp_path):
    image = str(folder / "images" / "red" / "0.png")
    odd = tmp_path / os.fsdecode(b"t\tab\xe9.png")
    odd.write_bytes((folder / "images" / "red" / "0.png").read_bytes())
    rows = np.eye(2, dtype=np.float32)
    tensorboard.write_projector(tmp_path, rows, [image, str(odd)], ["red", "a\tb\u2028c"])
    lines = (tmp_path / "metadata.tsv").read_text("utf-8").split("\n")
    assert lines[1:] == [f"red\t{image}", f"a b c\t{tmp_path}/t ab\\udce9.png", ""]
