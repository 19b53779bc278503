import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from keras import applications
from matplotlib.figure import Figure
from PIL import Image
from stubs import build_stub, training_stubs

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.datasets import read_folder
from deep_ranking.embedding.embed import embed_images
from deep_ranking.files import InputError
from deep_ranking.images.augmentation import Augmentation
from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings
from deep_ranking.model.file import load_model
from deep_ranking.model.network import build_network
from deep_ranking.sampling import sample_triplets
from deep_ranking.sampling.triplet_file import write_triplets
from deep_ranking.training.data import RunImages
from deep_ranking.training.run import train
from deep_ranking.training.validation import make_validation

pytestmark = pytest.mark.usefixtures("thin_vgg16")

SMALL = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=8, dropout=0.2)


def write_sampled(root, path, seed=0):
    data = read_folder(root)
    paths = [f"{root.name}/{name}" for name in data.paths]
    blocks = sample_triplets(data.items.codes, num_positives=1, num_negatives=1, seed=seed)
    write_triplets(path, paths, blocks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_colors):
    """12 triplets to train on and 12 others to validate on."""
    root = tmp_path_factory.mktemp("colors")
    write_colors(root / "images")
    write_sampled(root / "images", root / "triplets.txt")
    write_sampled(root / "images", root / "validation.txt", seed=1)
    return root


def config_for(folder, output, **changes):
    settings = {
        "triplets": folder / "triplets.txt",
        "output": output,
        "network": SMALL,
        "batch_size": 6,
        "epochs": 2,
        "steps_per_epoch": 2,
        "seed": 4,
        "learning_rate": 0.01,
    }
    return TrainConfig(**(settings | changes))


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory, thin_vgg16):
    """A run of three epochs that nothing interrupts, with dropout, augmentation and momentum."""
    output = tmp_path_factory.mktemp("undisturbed") / "model.h5"
    config = config_for(folder, output, validation_triplets=folder / "validation.txt", epochs=3)
    with pytest.MonkeyPatch.context() as patch:  # the picture takes as long as the epochs
        patch.setattr("deep_ranking.training.history.run_figure", lambda _: Figure((2, 3)))
        model = train(config, verbose=0)
    return config, model


def read_history(config):
    with (config.run_dir / "history.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_leaves_a_model_and_its_run_folder(undisturbed):
    config, model = undisturbed
    assert sorted(os.listdir(config.run_dir)) == [
        "best.h5",
        "checkpoint.h5",
        "config.json",
        "history.csv",
        "history.png",
    ]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    loaded = load_model(config.output)
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-6)
    with Image.open(config.run_dir / "history.png") as picture:
        assert picture.width * 3 == picture.height * 2  # as `undisturbed` draws it


def test_history_starts_before_training(undisturbed):
    config, _ = undisturbed
    history = read_history(config)
    assert [int(row["epoch"]) for row in history] == [0, 1, 2, 3]
    assert history[0]["loss"] == ""
    for row in history[1:]:
        lag = 1 + float(row["positive_distance"]) - float(row["negative_distance"])
        assert 0 <= float(row["similarity_precision"]) <= 1
        assert 0 <= float(row["active_triplets"]) <= 1
        assert float(row["loss"]) >= lag - 1e-5  # equal if all triplets are active
    assert all(0 <= float(row["val_similarity_precision"]) <= 1 for row in history)


def test_best_is_the_epoch_of_the_highest_validation_precision(undisturbed):
    config, _ = undisturbed
    trained = read_history(config)[1:]
    precisions = [float(row["val_similarity_precision"]) for row in trained]
    best = load_model(config.run_dir / "best.h5")
    last = load_model(config.output)
    same = np.array_equal(
        best.get_layer("embedding").get_weights()[0], last.get_layer("embedding").get_weights()[0]
    )
    assert same == (int(np.argmax(precisions)) == len(precisions) - 1)


def test_config_json_holds_every_setting(undisturbed):
    config, _ = undisturbed
    written = json.loads((config.run_dir / "config.json").read_text())
    assert written["seed"] == 4
    assert written["network"]["hidden_size"] == 8
    assert written["augmentation"]["rotation"] == Augmentation().rotation


def test_a_judged_model_is_calibrated(undisturbed):
    config, model = undisturbed
    for path in (config.output, config.run_dir / "best.h5"):
        assert load_model(path).calibration is not None
    assert load_model(config.output).calibration == model.calibration


def weights_of(path):
    with h5py.File(path) as file:
        arrays = {}
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


def assert_same_run(config, whole):
    wanted, got = weights_of(whole.output), weights_of(config.output)
    assert wanted.keys() == got.keys()
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])
    assert read_history(config) == read_history(whole)


@pytest.mark.slow
def test_a_run_stopped_between_epochs_goes_on_to_the_same_result(folder, undisturbed, tmp_path):
    whole, _ = undisturbed
    config = replace(whole, output=tmp_path / "model.h5", epochs=1)
    train(config, verbose=0)
    config = replace(config, epochs=3)
    train(config, resume=True, verbose=0)
    assert_same_run(config, whole)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(folder, tmp_path, monkeypatch):
    # The program that is killed builds the real network.
    monkeypatch.setattr(applications, "VGG16", applications.vgg16.VGG16)
    output = tmp_path / "whole.h5"
    whole = config_for(folder, output, validation_triplets=folder / "validation.txt", epochs=3)
    train(whole, verbose=0)
    config = replace(whole, output=tmp_path / "model.h5")
    flags = [
        *("--triplets", config.triplets, "--validation_triplets", config.validation_triplets),
        *("--output", config.output, "--weights", "none", "--image_size", 32),
        *("--hidden_size", 8, "--embedding_size", 8, "--dropout", 0.2, "--batch_size", 6),
        *("--epochs", 3, "--steps_per_epoch", 2, "--seed", 4, "--learning_rate", 0.01),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "deep_ranking", "train", *map(str, flags)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    checkpoint = config.run_dir / "checkpoint.h5"
    deadline = time.monotonic() + 90
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
    process.stderr.close()
    assert not config.output.exists()
    assert run_command("train", ["--output", str(config.output), "--resume"]) == 0
    assert_same_run(config, whole)


@pytest.mark.slow
def test_training_pays(folder, tmp_path):
    config = config_for(
        folder,
        tmp_path / "model.h5",
        network=replace(SMALL, dropout=0.0),
        validation_triplets=folder / "validation.txt",
        optimizer="adam",
        learning_rate=1e-3,
        gap=1.5,
        batch_size=12,
        epochs=1,
        steps_per_epoch=8,
        augmentation=None,
    )
    train(config, verbose=0)
    before, after = read_history(config)
    assert float(after["val_loss"]) < 0.75 * float(before["val_loss"])


@pytest.mark.slow
def test_frozen_layers_stay_as_they_were(folder, tmp_path):
    config = config_for(folder, tmp_path / "model.h5", train_from="block5_conv3", epochs=1)
    model = train(config, verbose=0)
    fresh = build_network(SMALL, seed=config.seed)
    for name, moved in (
        ("block1_conv1", False),
        ("block5_conv2", False),
        ("block5_conv3", True),
        ("branch_1_conv", True),
        ("embedding", True),
    ):
        difference = np.abs(
            model.get_layer(name).get_weights()[0] - fresh.get_layer(name).get_weights()[0]
        ).max()
        assert (difference > 0) == moved, name


def test_an_earlier_run_is_never_lost_by_accident(folder, undisturbed):
    config, _ = undisturbed
    data = config.output.read_bytes()
    with pytest.raises(InputError, match=r"--resume.*--overwrite"):
        train(config, verbose=0)
    with pytest.raises(InputError, match=r"began with seed 4\. Received: 5"):
        train(replace(config, seed=5), resume=True, verbose=0)
    with pytest.raises(InputError, match=r"began with augment True\. Received: False"):
        train(replace(config, augmentation=None), resume=True, verbose=0)
    with pytest.raises(InputError, match="not what the run began with"):
        train(replace(config, triplets=folder / "validation.txt"), resume=True, verbose=0)
    network = replace(SMALL, weights="missing.h5")
    with pytest.raises(InputError, match=r"missing\.h5"):
        train(replace(config, network=network), overwrite=True, verbose=0)
    assert config.output.read_bytes() == data
    assert (config.run_dir / "checkpoint.h5").exists()


def test_a_damaged_checkpoint_is_named(undisturbed, tmp_path):
    whole, _ = undisturbed
    config = replace(whole, output=tmp_path / "model.h5")
    config.run_dir.mkdir()
    (config.run_dir / "config.json").write_text(config.to_json())
    data = (whole.run_dir / "checkpoint.h5").read_bytes()
    (config.run_dir / "checkpoint.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"checkpoint\.h5.*--overwrite"):
        train(config, resume=True, verbose=0)


@pytest.mark.parametrize("part", ["weights", "optimizer", "state"])
def test_a_number_of_a_checkpoint_that_changed_is_noticed(undisturbed, tmp_path, part):
    whole, _ = undisturbed
    config = replace(whole, output=tmp_path / "model.h5", epochs=4)
    shutil.copytree(whole.run_dir, config.run_dir)
    checkpoint = config.run_dir / "checkpoint.h5"
    with h5py.File(checkpoint, "r+") as file:
        array = file[part] if part == "state" else file[f"{part}/2"]
        data = array[()].copy()
        last = data.reshape(-1)
        last[-1] = ord(" ") if part == "state" else np.nextafter(last[-1], np.float32(9))
        array[...] = data
    with pytest.raises(InputError, match=rf"{checkpoint}: damaged.*start anew by --overwrite"):
        train(config, resume=True, verbose=0)
    checkpoint.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
    with pytest.raises(InputError, match=rf"{checkpoint}: .*start anew by --overwrite"):
        train(config, resume=True, verbose=0)


def test_everything_is_checked_before_the_network_is_built(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "deep_ranking.training.trainer.build_network", lambda *_, **__: pytest.fail("built")
    )
    broken = tmp_path / "triplets.txt"
    broken.write_text("a.png,b.png,c.png\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.h5").mkdir()
    for changes, said in (
        ({"triplets": broken}, "not found"),
        ({"triplets": tmp_path / "none.txt"}, "no such triplet file"),
        ({"validation_triplets": tmp_path / "none.txt"}, "no such triplet file"),
        ({"output": tmp_path / "file" / "model.h5"}, "folder"),
        ({"output": tmp_path / "folder.h5"}, "is a folder"),
        ({"dataset": tmp_path / "none"}, "check --dataset"),
    ):
        with pytest.raises(InputError, match=said):
            train(config_for(folder, **({"output": tmp_path / "model.h5"} | changes)), verbose=0)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.h5", "triplets.txt"]


@pytest.mark.usefixtures("stub_network")
def test_a_broken_image_ends_training_with_its_line_or_is_left_out(tmp_path, write_colors, capsys):
    write_colors(tmp_path / "images")
    write_sampled(tmp_path / "images", tmp_path / "triplets.txt")
    (tmp_path / "images" / "green" / "0.png").write_bytes(b"no image")
    config = config_for(
        tmp_path, tmp_path / "model.h5", epochs=1, steps_per_epoch=None, shuffle=False
    )
    with pytest.raises(InputError, match=r"triplets\.txt:\d+: .*0\.png.*--skip_broken"):
        train(config, verbose=0)
    train(replace(config, skip_broken=True), overwrite=True, verbose=0)
    lines = (tmp_path / "triplets.txt").read_text().splitlines()
    broken = sum("green/0.png" in line for line in lines)
    assert f"{broken} triplets left out" in capsys.readouterr().out


@pytest.mark.usefixtures("stub_network")
def test_a_loss_of_nan_ends_the_run(folder, tmp_path, monkeypatch):
    def build_spoilt(*args, **options):
        model = build_stub(*args, **options)
        model.get_layer("embedding").bias.assign([np.nan] * 8)
        return model

    monkeypatch.setattr("deep_ranking.training.trainer.build_network", build_spoilt)
    config = config_for(folder, tmp_path / "model.h5")
    with pytest.raises(InputError, match="--learning_rate"):
        train(config, verbose=0)
    assert not config.output.exists()


@pytest.fixture(scope="module")
def judged_on_classes(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("classes") / "model.h5"
    config = config_for(
        folder,
        output,
        validation_dataset=folder / "images",
        validate_every=2,
        epochs=5,
        steps_per_epoch=1,
        monitor="map_at_r",
        tensorboard=True,
    )
    with training_stubs():
        return config, train(config, verbose=0)


def test_judges_on_classes_every_other_epoch_and_at_the_end(judged_on_classes):
    config, _ = judged_on_classes
    history = read_history(config)
    assert [bool(row["val_map_at_r"]) for row in history] == [True, False, True, False, True, True]
    assert all(0 <= float(row["val_recall_at_1"] or 0) <= 1 for row in history)


def test_what_training_finds_is_what_evaluate_finds(judged_on_classes):
    config, model = judged_on_classes
    data = read_folder(config.validation_dataset)
    paths = data.files()
    images = EmbeddedImages(paths, data.classes_of_images(), embed_images(model, paths))
    found = evaluate_embeddings(images, seed=config.seed)
    last = read_history(config)[-1]
    for name in ("similarity_precision", "recall_at_1", "map_at_r"):
        assert float(last[f"val_{name}"]) == pytest.approx(found.intervals[name].mean)


def test_curves_for_tensorboard(judged_on_classes):
    config, _ = judged_on_classes
    events = b"".join(path.read_bytes() for path in config.run_dir.glob("tensorboard/*"))
    assert b"val_map_at_r" in events and b"active_triplets" in events


@pytest.mark.usefixtures("stub_network")
def test_stops_early_and_stays_stopped(folder, tmp_path, capsys, monkeypatch):
    # Validation that gets worse and worse: the best is before training, then 2 chances.
    values = iter([0.9, 0.8, 0.7, 0.6, 0.5])
    monkeypatch.setattr(
        "deep_ranking.training.validation.TripletValidation.measure",
        lambda *_: ({"val_similarity_precision": next(values), "val_loss": 1.0}, None),
    )
    config = config_for(
        folder,
        tmp_path / "model.h5",
        validation_triplets=folder / "validation.txt",
        steps_per_epoch=1,
        epochs=5,
        patience=2,
    )
    train(config, verbose=0)
    assert [int(row["epoch"]) for row in read_history(config)] == [0, 1, 2, 3]
    assert "Stopped early after epoch 3" in capsys.readouterr().out
    train(config, resume=True, verbose=0)
    assert len(read_history(config)) == 4


@pytest.mark.graph
@pytest.mark.usefixtures("stub_network")
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_weights_of_nan_end_the_run_even_after_the_last_step(folder, tmp_path):
    # One step an epoch: its loss is that of the first weights, and the weights are gone after it.
    config = config_for(
        folder, tmp_path / "model.h5", learning_rate=1e39, steps_per_epoch=1, epochs=1
    )
    with pytest.raises(InputError, match="--learning_rate"):
        train(config, verbose=0)
    assert not config.output.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 25},
        {"epochs": 0},
        {"steps_per_epoch": 0},
        {"learning_rate": 0.0},
        {"gap": -1.0},
        {"seed": -1},
        {"optimizer": "sgdd"},
        {"distance_norm": 0.5},
        {"weight_penalty": -0.1},
        {"plateau_patience": 0},
        {"plateau_factor": 1.0},
        {"clip_norm": 0.0},
        {"start_epoch": 25},
        {"precision": "float8"},
        {"output": "model.keras"},
        {"validate_every": 0},
        {"patience": 0},
        {"monitor": "accuracy"},
        {"monitor": "map_at_r"},
        {"backbone_rate": None},
        {"network": None},
    ],
)
def test_config_refuses_values_by_name(values, tmp_path):
    if "output" in values:
        values = {"output": tmp_path / values["output"]}
    with pytest.raises(InputError, match=next(iter(values))):
        TrainConfig(**values)


def test_a_model_of_nan_is_refused_on_few_triplets_too(folder, tmp_path):
    lines = (folder / "triplets.txt").read_text().splitlines()
    few = folder / "few.txt"
    few.write_text(lines[0] + "\n")
    validation = make_validation(
        config_for(folder, tmp_path / "m.h5", validation_triplets=few), RunImages()
    )
    rows = np.eye(len(validation.paths), dtype=np.float32)
    found, calibration = validation.measure(rows)
    assert np.isfinite(found["val_loss"]) and calibration is None
    with pytest.raises(InputError, match="not finite"):
        validation.measure(np.full_like(rows, np.nan))
