import dataclasses
import json

import keras
import numpy as np
import pytest

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.config.recipes import RECIPES
from deep_ranking.images.augmentation import Augmentation
from deep_ranking.model.network import build_network


def fields_of(config):
    return {each.name for each in dataclasses.fields(config)}


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_those_of_a_run_and_go_together(name):
    settings = dict(RECIPES[name].settings)
    parts = {}
    for config in (NetworkConfig, Augmentation, TrainConfig):
        parts[config] = {key: settings.pop(key) for key in fields_of(config) & settings.keys()}
    assert not settings
    if parts[NetworkConfig].get("weights") == "none":
        parts[NetworkConfig]["weights"] = None
    TrainConfig(
        dataset="images",
        network=NetworkConfig(**parts[NetworkConfig]),
        augmentation=Augmentation(**parts[Augmentation]),
        **parts[TrainConfig],
    )


def test_blog_is_the_defaults_from_a_random_start():
    assert RECIPES["blog"].settings == {"weights": "none"}
    assert TrainConfig().batches == "triplets" and TrainConfig().loss == "ranking"


@pytest.mark.parametrize("name", RECIPES)
def test_says_what_it_gives_takes_and_how_to_run_it(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert f"--recipe {name}" in recipe.command
    assert recipe.summary and recipe.gives and recipe.takes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "trained_from"), [("retrieval", 512, "conv5"), ("port", 4096, "conv1")]
)
def test_recipes_of_other_systems_train_a_model_that_plain_keras_opens(
    tmp_path, write_colors, name, size, trained_from
):
    write_colors(tmp_path / "colors")
    data = ["--input_directory", str(tmp_path / "colors"), "--output_directory", str(tmp_path)]
    assert run_command("sample", [*data, "--num_pos_images", "1", "--num_neg_images", "1"]) == 0
    flags = ["--recipe", name, "--triplets", str(tmp_path / "triplets.txt"), "--weights", "none"]
    flags += ["--image_size", "32", "--batch_size", "6", "--steps_per_epoch", "2", "--epochs", "1"]
    assert run_command("train", [*flags, "--output", str(tmp_path / "m.h5")]) == 0
    model = keras.models.load_model(tmp_path / "m.h5", compile=False)
    assert model.output_shape == (None, size)
    settings = json.loads((tmp_path / "m.run" / "config.json").read_text())
    fresh = build_network(NetworkConfig(**settings["network"]), seed=settings["seed"])
    moved = [
        layer.name
        for layer in fresh.layers
        if layer.name.endswith("_conv")
        and not np.array_equal(layer.get_weights()[0], model.get_layer(layer.name).get_weights()[0])
    ]
    assert moved and min(moved).startswith(trained_from)
