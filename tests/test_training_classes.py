import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from stopped_runs import history_of, interrupted
from stubs import build_stub

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.datasets import read_folder
from deep_ranking.files import InputError
from deep_ranking.images import read_image
from deep_ranking.model.network import build_network
from deep_ranking.model.whitening import whitening_axes
from deep_ranking.training.diagnosis import TrainingDiagnosis
from deep_ranking.training.run import TrainingRun, train

pytestmark = pytest.mark.usefixtures("thin_vgg16")

SMALL = NetworkConfig(
    image_size=32,
    weights=None,
    multiscale="none",
    hidden_layers=0,
    dropout=0.0,
    embedding_size=4,
)


@pytest.fixture(scope="module")
def colors(tmp_path_factory, write_colors):
    """Five classes of four images."""
    root = tmp_path_factory.mktemp("classes") / "colors"
    write_colors(root, images=4)
    rng = np.random.default_rng(1)
    for name, low in (("dark", 0), ("bright", 200)):
        (root / name).mkdir()
        for number in range(4):
            pixels = rng.integers(low, low + 50, (16, 16, 3), dtype=np.uint8)
            keras.utils.save_img(root / name / f"{number}.png", pixels, scale=False)
    return root


def config_for(colors, output, **changes):
    settings = {
        "batches": "classes",
        "dataset": colors,
        "output": output,
        "network": SMALL,
        "batch_size": 8,
        "images_per_class": 2,
        "steps_per_epoch": 3,
        "epochs": 2,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "loss": "supervised_contrastive",
        "augmentation": None,
        "seed": 3,
    }
    return TrainConfig(**(settings | changes))


def kernel_of(model):
    return model.get_layer("embedding").get_weights()[0]


@pytest.mark.slow
@pytest.mark.graph
@pytest.mark.usefixtures("stub_network")
@pytest.mark.parametrize("loss", ["ranking", "soft_margin", "multi_similarity"])
def test_training_on_classes_pays(colors, tmp_path, loss):
    changes = {"gap": 0.5, "batch_size": 10, "learning_rate": 1e-3, "steps_per_epoch": 10}
    changes["network"] = replace(SMALL, embedding_size=2)
    config = config_for(colors, tmp_path / "m.h5", loss=loss, **changes)
    train(config, verbose=0)
    first, last = (float(row["loss"]) for row in history_of(config))
    assert last < 0.97 * first


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_cached_features_train_to_the_same_weights(colors, tmp_path):
    plain = train(config_for(colors, tmp_path / "plain.h5"), verbose=0)
    config = config_for(
        colors, tmp_path / "cached.h5", cache_features=True, train_from="head", epochs=2
    )
    cached = train(config, verbose=0)
    start = kernel_of(build_stub(SMALL, seed=config.seed))
    moved = np.abs(kernel_of(plain) - start).max()
    assert moved > 0.01
    # Features are kept in half precision.
    np.testing.assert_allclose(kernel_of(cached), kernel_of(plain), atol=0.02 * moved)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    assert not np.allclose(cached(images), build_stub(SMALL, seed=config.seed)(images), atol=1e-3)


@pytest.mark.usefixtures("stub_network")
@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_goes_on_in_the_middle_of_its_schedule(colors, tmp_path, monkeypatch, after):
    def config(name):
        return config_for(
            colors,
            tmp_path / name,
            network=replace(SMALL, dropout=0.5),
            cache_features=True,
            cache_dir=tmp_path / "features",
            train_from="block5_conv3",
            head_epochs=2,
            head_learning_rate=0.02,
            epochs=4,
            decay="cosine",
            warmup_steps=2,
            memory=8,
            embedding_start="pca",
            validation_share=0.4,
        )

    undisturbed = train(config("whole.h5"), verbose=0)
    interrupted(config("stopped.h5"), monkeypatch, after)
    resumed = train(config("stopped.h5"), resume=True, verbose=0)
    np.testing.assert_array_equal(kernel_of(resumed), kernel_of(undisturbed))
    assert history_of(config("stopped.h5")) == history_of(config("whole.h5"))


@pytest.mark.slow
def test_the_head_trains_first_and_then_the_upper_layers(colors, tmp_path, monkeypatch):
    config = config_for(
        colors,
        tmp_path / "m.h5",
        cache_features=True,
        train_from="block5_conv3",
        head_epochs=1,
        steps_per_epoch=1,
        backbone_rate=0.1,
    )
    fresh = build_network(SMALL, seed=config.seed)
    seen = {}
    whole = TrainingRun.train_epoch

    def train_epoch(run, verbose):
        whole(run, verbose)
        seen[run.state.num_epochs] = {
            name: np.abs(
                run.trainer.model.get_layer(name).get_weights()[0]
                - fresh.get_layer(name).get_weights()[0]
            ).max()
            for name in ("block5_conv2", "block5_conv3", "embedding")
        }

    monkeypatch.setattr(TrainingRun, "train_epoch", train_epoch)
    train(config, verbose=0)
    assert seen[1]["embedding"] > 0
    assert seen[1]["block5_conv3"] == 0 < seen[2]["block5_conv3"]
    assert seen[2]["block5_conv2"] == 0
    # Adam's first step is the learning rate, whatever the gradient.
    assert seen[2]["block5_conv3"] == pytest.approx(0.1 * config.learning_rate, rel=0.01)


@pytest.mark.usefixtures("stub_network")
@pytest.mark.parametrize("cached", [False, True])
def test_the_embedding_starts_from_the_training_images(colors, tmp_path, monkeypatch, cached):
    monkeypatch.setattr(TrainingRun, "is_over", True)
    config = config_for(
        colors,
        tmp_path / "m.h5",
        embedding_start="whitened",
        cache_features=cached,
        train_from="head",
    )
    model = train(config, verbose=0)
    data = read_folder(colors)
    images = np.stack([read_image(data.root / path, 32) for path in data.paths])
    features = images.reshape(20, 2, 16, 2, 16, 3).mean(axis=(2, 4)).reshape(20, -1)
    kernel, bias = whitening_axes(features, data.items.codes, 4)
    rows = features @ kernel + bias
    wanted = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(model(images.astype(np.float32)), wanted, atol=0.05)


@pytest.mark.usefixtures("stub_network")
def test_held_back_classes_are_judged_and_not_trained_on(colors, tmp_path, capsys):
    config = config_for(
        colors,
        tmp_path / "m.h5",
        validation_share=0.4,
        cache_features=True,
        train_from="head",
        steps_per_epoch=1,
    )
    train(config, verbose=0)
    assert "12 images of 3 classes" in capsys.readouterr().out
    history = history_of(config)
    assert [row["epoch"] for row in history] == ["0", "1", "2"]
    assert all(0 <= float(row["val_map_at_r"]) <= 1 for row in history)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_a_broken_image_is_named_or_left_out(tmp_path, write_colors, capsys):
    root = tmp_path / "colors"
    write_colors(root)
    (root / "green" / "1.png").write_bytes(b"no image")
    for cached in (False, True):
        config = config_for(
            root,
            tmp_path / f"{cached}.h5",
            batch_size=6,
            steps_per_epoch=8,
            epochs=1,
            cache_features=cached,
            train_from="head",
        )
        with pytest.raises(InputError, match=r"green/1\.png.*"):
            train(config, verbose=0)
        train(replace(config, skip_broken=True), overwrite=True, verbose=0)
        assert "1 image left out" in capsys.readouterr().out


def mended(config, monkeypatch, findings):
    """Train with a diagnosis that finds what is wrong in given epochs."""
    found = iter(findings)
    monkeypatch.setattr("deep_ranking.training.run.diagnose_training", lambda *_: next(found, None))
    return train(config, verbose=0)


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_spoilt_weights_go_back_and_learn_more_slowly(colors, tmp_path, monkeypatch, capsys):
    config = config_for(colors, tmp_path / "m.h5", auto_fix=True, epochs=2)
    spoilt = TrainingDiagnosis("Collapse.", {"learning_rate": 0.001}, spoilt=True)
    model = mended(config, monkeypatch, [None, spoilt, None])
    assert "learning_rate 0.01 -> 0.001, back to" in capsys.readouterr().out
    # As if the second epoch had been trained at the lower rate from the first one's checkpoint.
    other = config_for(colors, tmp_path / "other.h5", auto_fix=True, epochs=2)
    again = mended(other, monkeypatch, [TrainingDiagnosis("Slow down.", {"learning_rate": 0.001})])
    np.testing.assert_array_equal(kernel_of(model), kernel_of(again))
    assert [row["epoch"] for row in history_of(config)] == ["1", "2"]


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_what_was_mended_stays_mended_when_the_run_goes_on(colors, tmp_path, monkeypatch):
    def finding():
        return [TrainingDiagnosis("Slow down.", {"learning_rate": 0.001, "mining": "semi-hard"})]

    whole = config_for(colors, tmp_path / "whole.h5", auto_fix=True, loss="ranking", epochs=3)
    undisturbed = mended(whole, monkeypatch, finding())
    config = replace(whole, output=tmp_path / "m.h5")
    found = iter(finding())
    monkeypatch.setattr("deep_ranking.training.run.diagnose_training", lambda *_: next(found, None))
    interrupted(config, monkeypatch, 2)
    resumed = train(config, resume=True, verbose=0)
    np.testing.assert_array_equal(kernel_of(resumed), kernel_of(undisturbed))


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_weights_of_nan_are_mended(colors, tmp_path, monkeypatch):
    monkeypatch.setattr("deep_ranking.training.diagnosis.LOWER_RATE", 1e-41)
    config = config_for(
        colors, tmp_path / "m.h5", auto_fix=True, optimizer="sgd", learning_rate=1e39
    )
    model = train(config, verbose=0)
    assert np.isfinite(kernel_of(model)).all()
    monkeypatch.setattr("deep_ranking.training.diagnosis.LOWER_RATE", 1.0)
    with pytest.raises(InputError, match="NaN or infinite"):  # after five attempts
        train(config, overwrite=True, verbose=0)


@pytest.mark.usefixtures("stub_network")
def test_without_auto_fix_nothing_is_changed(colors, tmp_path, monkeypatch, capsys):
    config = config_for(colors, tmp_path / "m.h5", steps_per_epoch=1)
    plain = train(config, verbose=0)
    other = replace(config, output=tmp_path / "other.h5")
    found = mended(other, monkeypatch, [TrainingDiagnosis("Slow down.", {"learning_rate": 1e-9})])
    assert "Slow down." in capsys.readouterr().out
    np.testing.assert_array_equal(kernel_of(found), kernel_of(plain))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batches": "triplets", "batch_size": 6}, "batches classes"),
        ({"dataset": None}, "--dataset"),
        ({"images_per_class": 1}, "images_per_class"),
        ({"batch_size": 7}, "batch_size"),
        ({"batch_size": 2}, "batch_size"),
        ({"cache_features": True}, "--train_from"),
        ({"loss": "hinge"}, "loss"),
        ({"mining": "easy"}, "mining"),
        ({"temperature": 0.0}, "temperature"),
        ({"memory": -1}, "memory"),
        ({"validation_share": 0.4, "validation_dataset": "x"}, "not both"),
        ({"head_learning_rate": 0.0}, "head_learning_rate"),
        ({"precision": "float8"}, "precision"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        config_for(tmp_path, tmp_path / "m.h5", **changes)


RECIPE_FLAGS = ("--weights", "none", "--embedding_size", "3", "--epochs", "1", "--batch_size", "8")


@pytest.mark.usefixtures("stub_network")
def test_a_recipe_needs_a_folder_and_nothing_else(colors, tmp_path, capsys):
    output = tmp_path / "m.h5"
    flags = ["--recipe", "laptop", "--dataset", str(colors), "--output", str(output)]
    stub = ("--train_from", "head", "--multiscale", "none", "--steps_per_epoch", "2")
    assert run_command("train", [*flags, *RECIPE_FLAGS, *stub]) == 0
    said = capsys.readouterr().out
    assert "Recipe laptop" in said and "The network sees images at 16 pixels" in said
    settings = json.loads(output.with_suffix(".run").joinpath("config.json").read_text())
    assert settings["batches"] == "classes"
    assert settings["cache_features"] and not settings["augmentation"]["vertical_flip"]
    assert settings["network"]["image_size"] == 16
    assert settings["network"]["backbone_size"] == 64  # four times as large
    assert settings["batch_size"] == 8 and settings["epochs"] == 1  # the flags given
    assert (tmp_path / "deep_ranking_features").is_dir()


def test_a_recipe_without_a_folder_asks_for_it(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command("train", ["--recipe", "laptop", "--output", str(tmp_path / "m.h5")])
    assert ended.value.code == 2
    assert "--dataset" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("stub_network")
def test_a_run_of_a_recipe_goes_on_without_naming_it(colors, tmp_path):
    output = str(tmp_path / "m.h5")
    flags = ["--recipe", "laptop", "--dataset", str(colors), "--output", output]
    assert run_command("train", [*flags, *RECIPE_FLAGS]) == 0
    assert run_command("train", ["--output", output, "--resume", "--epochs", "2"]) == 0
    history = (tmp_path / "m.run" / "history.csv").read_text().splitlines()
    assert len(history) == 3


def test_flags_of_a_recipe_can_be_changed(colors, tmp_path, capsys):
    flags = ["--recipe", "laptop", "--dataset", str(colors), "--output", str(tmp_path / "m.h5")]
    for more, said in (
        (["--image_size", "7"], "image_size must lie between"),
        (["--backbone_size", "15"], "backbone_size must lie between"),
        (["--batches", "triplets"], "batches"),
        (["--recipe", "desktop"], "invalid choice"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_command("train", [*flags, *more])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.usefixtures("stub_network")
def test_classes_can_be_judged_by_triplets(colors, tmp_path):
    triplets = tmp_path / "triplets.txt"
    triplets.write_text("red/0.png,red/1.png,blue/0.png\ndark/0.png,dark/1.png,red/2.png\n")
    config = config_for(colors, tmp_path / "m.h5", validation_triplets=triplets, steps_per_epoch=1)
    train(config, verbose=0)
    assert all(0 <= float(row["val_similarity_precision"]) <= 1 for row in history_of(config))
