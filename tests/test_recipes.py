import dataclasses

import pytest

from deep_ranking.augmentation import Augmentation
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.recipes import RECIPES


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
