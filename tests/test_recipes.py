import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, SamplingConfig, TrainConfig
from deep_ranking.config.recipes import RECIPES
from deep_ranking.files import InputError
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


FLAGS = {
    "laptop": {"image_size": 48, "epochs": 5, "cached_views": 3, "rotation": 3.0},
    "laptop, VGG16": {"backbone": "vgg16", "epochs": 5},
    "laptop, pairs": {"pairs": "shop", "epochs": 5},
    "laptop, pairs at a rate": {"pairs": "shop", "learning_rate": 1e-3},
    "paper": {"triplets": "t.txt", "weights": "none", "gap": 0.5},
    "fine-tune": {"backbone_size": 256, "validation_share": 0.5, "augment": False},
    "blog": {},
    "port": {"augment": False},
    "retrieval": {"strategy": "hard", "num_neighbours": 7, "shear": 1.0},
}


@pytest.mark.parametrize("case", FLAGS)
def test_call_and_command_make_the_same_settings(monkeypatch, image_tree_of_colors, case):
    def as_flags(setting, value):
        if isinstance(value, bool):
            return [f"--{setting}" if value else f"--no-{setting}"]
        return [f"--{setting}", str(value)]

    name = case.split(",")[0]
    settings = dict(FLAGS[case])
    if "triplets" not in settings:
        settings["dataset"] = str(image_tree_of_colors)
    flags = [flag for each in settings.items() for flag in as_flags(*each)]
    trained = []
    monkeypatch.setattr(
        "deep_ranking.training.run.train", lambda config, **_: trained.append(config)
    )
    assert run_command("train", ["--recipe", name, *flags]) == 0
    called = TrainConfig.from_recipe(name, **settings)
    assert trained == [called]
    assert trained[0].to_json() == called.to_json()


@pytest.mark.parametrize(
    ("backbone", "image_size", "sizes"),
    [
        ({}, {}, (16, 64)),  # the images have 16 pixels
        ({}, {"image_size": 100}, (100, 224)),
        ({}, {"image_size": 240}, (240, 240)),
        ({"backbone": "EfficientNetLite0"}, {}, (16, 64)),
        ({}, {"image_size": 8}, (8, 32)),
        ({"backbone": "vgg16"}, {"image_size": 8}, (8, 32)),  # twice the size is too small
        ({"backbone": "vgg16"}, {}, (16, 32)),
        ({"backbone": "vgg16"}, {"image_size": 100}, (100, 192)),
    ],
)
def test_laptop_chooses_sizes_by_the_images(image_tree_of_colors, backbone, image_size, sizes):
    settings = backbone | image_size | {"dataset": image_tree_of_colors}
    network = TrainConfig.from_recipe("laptop", **settings).network
    assert (network.image_size, network.backbone_size) == sizes
    assert TrainConfig.from_recipe("paper", dataset=image_tree_of_colors).network.image_size == 225


def test_laptop_is_what_it_was_with_another_backbone(image_tree_of_colors):
    own = TrainConfig.from_recipe("laptop", dataset=image_tree_of_colors)
    assert (own.network.backbone, own.train_from) == ("efficientnet-lite0", "block6")
    other = TrainConfig.from_recipe("laptop", dataset=image_tree_of_colors, backbone="vgg16")
    assert (other.network.backbone, other.train_from) == ("vgg16", "head")
    assert (other.network.multiscale, other.network.embedding_size) == ("none", 1024)


@pytest.mark.parametrize(
    ("flags", "rate"),
    [
        ({}, 3e-4),
        ({"pairs": None}, 3e-4),
        ({"pairs": "pairs.csv"}, 3e-5),
        ({"pairs": Path("shop"), "backbone": "EfficientNetLite0"}, 3e-5),
        ({"pairs": "shop", "learning_rate": 1e-3}, 1e-3),
        ({"pairs": "shop", "backbone": "vgg16"}, 3e-4),  # not measured
    ],
)
def test_laptop_lowers_its_rate_for_pairs(image_tree_of_colors, flags, rate):
    alone = TrainConfig.from_recipe("laptop", dataset=image_tree_of_colors)
    config = TrainConfig.from_recipe("laptop", dataset=image_tree_of_colors, **flags)
    assert config.learning_rate == rate
    if "backbone" not in flags:  # all else is the same
        pairs = config.pairs
        assert config == dataclasses.replace(alone, learning_rate=rate, pairs=pairs)


def test_the_first_flag_that_differs_takes_the_place_of_a_recipe():
    laptop = RECIPES["laptop"]
    assert list(laptop.with_flags) == ["backbone", "pairs"]
    for flags, wanted in (
        ({}, laptop),
        ({"backbone": None, "pairs": None, "epochs": 7}, laptop),
        ({"backbone": "EfficientNet-Lite0"}, laptop),
        ({"backbone": "vgg16", "pairs": "shop"}, laptop.with_flags["backbone"]),
        ({"pairs": "shop"}, laptop.with_flags["pairs"]),
    ):
        assert laptop.on(flags) is wanted
    with pytest.raises(InputError, match="backbone"):
        laptop.on({"backbone": "vgg61"})
    for flag, recipe in laptop.with_flags.items():
        assert recipe.name == "laptop" and f"--{flag} " in recipe.command
        assert recipe.settings.keys() <= laptop.settings.keys()


def test_help_and_the_first_line_say_what_pairs_change(capsys, monkeypatch, image_tree_of_colors):
    monkeypatch.setattr("deep_ranking.training.run.train", lambda *_, **__: None)
    said = "at a tenth of the learning rate"
    for flags, wanted in ((["--pairs", "shop"], True), ([], False)):
        run_command("train", ["--recipe", "laptop", "--dataset", str(image_tree_of_colors), *flags])
        assert (said in capsys.readouterr().out) == wanted
    with pytest.raises(SystemExit):
        run_command("train", ["--help-all"])
    text = " ".join(capsys.readouterr().out.split())
    assert "- laptop with --pairs: " in text and said in text
    assert "- laptop with --backbone: " in text and "- fine-tune: " in text


def test_a_whole_part_replaces_that_of_the_recipe():
    config = TrainConfig.from_recipe(
        "retrieval",
        network=NetworkConfig(image_size=64),
        augmentation=None,
        sampling=SamplingConfig(strategy="hard"),
        dataset="d",
    )
    assert config.network == NetworkConfig(image_size=64)  # not a ResNet, as the recipe's
    assert config.augmentation is None and config.sampling.strategy == "hard"
    assert config.gap == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("lapptop", {}, r"^recipe must be one of blog, .*taught\. Received: lapptop$"),
        (["blog"], {}, r"^recipe must be one of"),
        ("blog", {"epoch": 3}, r"^there is no setting epoch; known: augmentation, .*epochs, .*gap"),
        ("blog", {"network": NetworkConfig(), "dropout": 0.0}, "give network or dropout, not both"),
        ("blog", {"augmentation": None, "zoom": 0.1}, "give augmentation or zoom, not both"),
        ("blog", {"network": {}}, r"network must be a NetworkConfig. Received: {} \(dict\)"),
        ("laptop", {"image_size": "32", "dataset": "d"}, "image_size must be an integer"),
        ("laptop", {"dataset": 3}, "dataset must be a path"),
        ("laptop", {"dataset": "no/such"}, "no/such"),
        ("laptop", {}, "batches of classes need a folder of classes"),
        ("taught", {}, r"does not train in epochs: call teach\(TaughtConfig"),
    ],
)
def test_calls_that_are_refused(name, settings, said):
    with pytest.raises(InputError, match=said):
        TrainConfig.from_recipe(name, **settings)


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
