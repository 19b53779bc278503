"""Runs of networks with branches that start from words of the training images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.files import InputError
from deep_ranking.model.file import load_model
from deep_ranking.training.run import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thin_vgg16", "eager")]

NETWORK = NetworkConfig(
    image_size=32,
    weights=None,
    multiscale="colour",
    hidden_layers=0,
    dropout=0.0,
    embedding_size=4,
)
STARTS = "The colour branches start from 128 words of"


@pytest.fixture(scope="module")
def colors(tmp_path_factory, write_colors):
    root = tmp_path_factory.mktemp("classes") / "colors"
    write_colors(root, images=4)
    return root


def config_for(root, output, **changes):
    settings = {
        "batches": "classes",
        "dataset": root,
        "output": output,
        "network": NETWORK,
        "batch_size": 6,
        "images_per_class": 2,
        "steps_per_epoch": 2,
        "epochs": 1,
        "learning_rate": 0.01,
        "augmentation": None,
        "cache_features": True,
        "train_from": "head",
        "train_branches": False,
        "embedding_start": "whitened",
    }
    return TrainConfig(**(settings | changes))


def words_of(path):
    return load_model(path).get_layer("branch_1_conv").get_weights()


def test_words_follow_from_the_images_and_the_seeds_share_features(colors, tmp_path, capsys):
    cache = tmp_path / "features"
    train(config_for(colors, tmp_path / "a.h5", cache_dir=cache), verbose=0)
    said = capsys.readouterr().out
    assert f"{STARTS} 12 images." in said
    assert said.count("Computing the frozen layers' features") == 2  # branch and backbone
    assert "Beside the backbone, the branches count 1 times" in said  # too few classes to choose
    stores = sorted(cache.iterdir())
    config = config_for(colors, tmp_path / "b.h5", cache_dir=cache, seed=1)
    train(config, verbose=0)
    for one, other in zip(words_of(tmp_path / "a.h5"), words_of(tmp_path / "b.h5"), strict=True):
        np.testing.assert_array_equal(one, other)
    # The random backbone of another seed has other features; the branch has not.
    assert len(set(cache.iterdir()) - set(stores)) == 1


def test_branches_are_trained_if_asked(colors, tmp_path, capsys):
    train(config_for(colors, tmp_path / "m.h5", train_branches=True), verbose=0)
    # 160 x 4 + 4 of the embedding layer, and 128 words of a colour and a bias.
    assert "1,156 of them trained" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_words(colors, tmp_path, capsys):
    config = config_for(colors, tmp_path / "m.h5")
    train(config, verbose=0)
    before = words_of(config.output)
    capsys.readouterr()
    train(replace(config, epochs=2), resume=True, verbose=0)
    said = capsys.readouterr().out
    assert STARTS not in said and "Computing" not in said
    for one, other in zip(before, words_of(config.output), strict=True):
        np.testing.assert_array_equal(one, other)


def test_words_of_a_model_are_kept_unless_a_start_is_asked_for(colors, tmp_path, capsys):
    first = tmp_path / "first.h5"
    train(config_for(colors, first), verbose=0)
    gray = tmp_path / "gray"
    for name in ("red", "green", "blue"):
        (gray / name).mkdir(parents=True)
        for path in Path(colors, name).iterdir():
            (gray / name / path.name).write_bytes(path.read_bytes())
    (gray / "red" / "0.png").unlink()
    capsys.readouterr()
    network = replace(NETWORK, weights=str(first))
    config = config_for(gray, tmp_path / "second.h5", network=network)
    train(config, verbose=0)
    assert STARTS not in capsys.readouterr().out
    for one, other in zip(words_of(first), words_of(config.output), strict=True):
        np.testing.assert_array_equal(one, other)
    train(replace(config, branch_start="kmeans"), overwrite=True, verbose=0)
    assert f"{STARTS} 11 images." in capsys.readouterr().out
    assert (words_of(first)[0] != words_of(config.output)[0]).any()


def test_a_broken_image_gives_no_words(tmp_path, write_colors, capsys):
    root = tmp_path / "colors"
    write_colors(root, images=4)
    (root / "green" / "1.png").write_bytes(b"no image")
    config = config_for(root, tmp_path / "m.h5")
    with pytest.raises(InputError, match=r"1\.png"):
        train(config, verbose=0)
    train(replace(config, skip_broken=True), verbose=0)
    assert f"{STARTS} 11 images." in capsys.readouterr().out


def test_a_start_of_no_branches_is_refused(tmp_path):
    network = replace(NETWORK, multiscale="none")
    with pytest.raises(InputError, match="branch_start needs branches"):
        config_for(tmp_path, tmp_path / "m.h5", network=network, branch_start="kmeans")
