import json
import os

import numpy as np
import pytest
from stubs import weights_of_0

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.model.calibration import fit_calibration
from deep_ranking.model.file import save_model
from deep_ranking.model.network import build_network

# The convolutions of VGG16, as its paper counts them.
VGG16 = 14_714_688
BRANCH = 8 * 8 * 3 * 96 + 96
FLAGS = ["--image_size", "32", "--hidden_size", "8", "--embedding_size", "16"]
# A branch sees 32 pixels as one place of 96 features; hidden layers 512 -> 8 -> 8.
HEAD = 2 * BRANCH + (512 * 8 + 8) + (8 * 8 + 8) + ((2 * 96 + 8) * 16 + 16)


pytestmark = pytest.mark.usefixtures("models_loaded_once")


@pytest.fixture(scope="module", autouse=True)
def _weights_of_0():
    with weights_of_0():
        yield


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    config = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=16)
    model = build_network(config, seed=0)
    model.calibration = fit_calibration(np.linspace(0, 1, 20), np.linspace(0.5, 2, 20))
    save_model(model, path)
    return path


def summary(capsys, *arguments):
    assert run_command("summary", list(map(str, arguments))) == 0
    return capsys.readouterr().out


def test_a_model_as_a_table(capsys, monkeypatch, model_path):
    monkeypatch.delenv("COLUMNS", raising=False)
    said = summary(capsys, "--model", model_path)
    for word in ("GlobalAveragePooling2D", "unit_convnet[0][0]", "unit_branch_2[0][0]", "295,168"):
        assert word in said  # nothing is cut
    row = next(line for line in said.splitlines() if "block5_conv3 (Conv2D)" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "block5_conv3 (Conv2D)",
        "(None, 2, 2, 512)",
        f"{3 * 3 * 512 * 512 + 512:,}",
        "block5_conv2[0][0]",
        "Y",
    ]
    total = VGG16 + HEAD
    assert said.splitlines()[-6:] == [
        "backbone        vgg16",
        "normalisation   unit",
        "calibrated      yes",
        "image size      32 pixels",
        "embedding size  16",
        f"{model_path}: {total:,} parameters, {total:,} of them trained, {4 * total:,} bytes.",
    ]
    assert "COLUMNS" not in os.environ
    monkeypatch.setenv("COLUMNS", "0")  # as some terminals say that they do not know
    assert summary(capsys, "--model", model_path) == said
    assert os.environ["COLUMNS"] == "0"


def test_the_table_takes_the_width_there_is(capsys, monkeypatch, model_path):
    monkeypatch.setenv("COLUMNS", "90")
    said = summary(capsys, "--model", model_path)
    assert max(map(len, said.splitlines()[:-1])) <= 90
    assert os.environ["COLUMNS"] == "90"


def test_json_says_how_layers_are_connected(capsys, model_path):
    found = json.loads(summary(capsys, "--model", model_path, "--json"))
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["image"]["connected_to"] == []
    assert layers["unit_range"]["connected_to"] == ["image"]
    assert layers["merged"]["connected_to"] == ["shallow", "unit_convnet"]
    assert layers["merged"]["output_shape"] == [None, 200]
    assert layers["hidden_1"] == {
        "name": "hidden_1",
        "type": "Dense",
        "output_shape": [None, 8],
        "parameters": 512 * 8 + 8,
        "trained": True,
        "connected_to": ["pooled"],
    }
    assert found["parameters"] == found["trained_parameters"] == VGG16 + HEAD
    assert found["bytes"] == 4 * (VGG16 + HEAD)
    assert (found["image_size"], found["embedding_size"]) == (32, 16)
    assert (found["backbone"], found["normalisation"]) == ("vgg16", "unit")
    assert found["calibrated"] is True
    assert found["network"]["hidden_size"] == 8
    assert found["model"] == str(model_path)


def test_flags_in_the_place_of_a_model(capsys):
    found = json.loads(summary(capsys, *FLAGS, "--train_from", "head", "--json"))
    assert found["model"] is None and found["calibrated"] is False
    # What train.py would start from, ImageNet's weights, decides on the normalisation.
    assert found["normalisation"] == "backbone"
    assert (found["parameters"], found["trained_parameters"]) == (VGG16 + HEAD, HEAD)
    trained = {layer["name"] for layer in found["layers"] if layer["trained"]}
    assert trained == {"branch_1_conv", "branch_2_conv", "hidden_1", "hidden_2", "embedding"}
    random = summary(capsys, *FLAGS, "--weights", "none", "--multiscale", "none")
    assert "normalisation   unit" in random and "branch" not in random
    assert random.splitlines()[-1].startswith("random weights: ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--model", "no.h5"], 1, "no.h5: no such file; check --model"),
        ([*FLAGS, "--train_from", "block9"], 1, "no layer block9"),
        (["--image_size", "7"], 2, "image_size must lie between"),
        (
            ["--model", "m.h5", "--pooling", "gem"],
            2,
            "--pooling has no effect with --model, which fixes the network",
        ),
    ],
)
def test_wrong_calls_are_one_line(capsys, arguments, code, said):
    try:
        assert run_command("summary", arguments) == code
    except SystemExit as end:
        assert end.code == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
