"""Every command reads the classes of a folder alike, says what it took, and takes the flags."""

import json
from pathlib import Path

import pytest
from PIL import Image
from stubs import build_thin_vgg16

from deep_ranking.cli.main import run_command
from deep_ranking.datasets.corrections import KIND

PARENT = "16 images, 4 classes (the folder that holds the image)."
FIRST = "16 images, 2 classes (the first folder)."
HINT = "Folders lie deeper than these 2 classes: --label parent"


@pytest.fixture(scope="module")
def products(tmp_path_factory, write_colors):
    root = tmp_path_factory.mktemp("flags") / "products"
    write_colors(root / "warm", classes=("red", "orange"))
    write_colors(root / "cold", classes=("blue", "green"))
    tell_apart(root)
    return root


@pytest.fixture(scope="module")
def splits(tmp_path_factory, write_colors):
    root = tmp_path_factory.mktemp("flags") / "splits"
    for name in ("train", "valid", "test_seen"):
        write_colors(root / name, classes=("red", "blue"))
    tell_apart(root)
    return root


def tell_apart(root):
    """Give each image a pixel of its own, because copies are left out of some results."""
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        with Image.open(path) as image:
            changed = image.convert("RGB")
        changed.putpixel((0, 0), (number, 255 - number, 9))
        changed.save(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from keras import applications

    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.file import save_model
    from deep_ranking.model.network import build_network

    path = tmp_path_factory.mktemp("flags") / "m.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applications, "VGG16", build_thin_vgg16)
        config = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=8)
        save_model(build_network(config, seed=0), path)
    return path


def commands(folder, model, output):
    """Return the arguments of each command that reads a folder of classes."""
    read = ["--dataset", folder]
    judged = ["--model", model, *read]
    triplets = ["--num_pos_images", 1, "--num_neg_images", 1]
    return {
        "sample": ["--input_directory", folder, "--output_directory", output, *triplets],
        "dataset": ["stats", folder],
        "doctor": [*read, "--no-estimate"],
        "evaluate": judged,
        "calibrate": judged,
        "report": [*judged, "--output", output / "r.html"],
        "index": ["--model", model, "--images", folder, "--output", output / "index"],
        "train": [
            *read, "--batches", "classes", "--batch_size", 4, "--images_per_class", 2,
            "--steps_per_epoch", 1, "--epochs", 1, "--image_size", 32, "--weights", "none",
            "--output", output / "trained.h5", "--overwrite",
        ],
    }  # fmt: skip


LONG = ("report", "evaluate", "calibrate", "train")
COMMANDS = [
    pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
    for name in commands("", "", Path())
]
pytestmark = pytest.mark.usefixtures("stub_network", "thin_vgg16", "models_loaded_once")


def lines_of(capsys, name, arguments):
    assert run_command(name, [str(each) for each in arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_labels(capsys, tmp_path, products, model, name):
    arguments = commands(products, model, tmp_path)[name]
    said = lines_of(capsys, name, [*arguments, "--label", "parent"])
    assert said[0] == PARENT
    assert not any(HINT in line for line in said)
    said = lines_of(capsys, name, [*arguments, "--label", "first"])
    assert said[0] == FIRST
    assert said[1].startswith(HINT)


@pytest.mark.parametrize("name", COMMANDS)
def test_splits(capsys, tmp_path, splits, model, name):
    arguments = commands(splits, model, tmp_path)[name]
    said = lines_of(capsys, name, arguments)
    assert said[0] in (
        "24 images, 2 classes (the first folder).",  # all splits
        "8 images, 2 classes (the first folder).",  # the one that is taken
    )
    assert "train 8, valid 8, test_seen 8 (--no-splits: they are classes)" in said[1]
    taken = {"evaluate": "test_seen", "report": "test_seen", "calibrate": "valid"}
    if name in taken:
        assert said[2].startswith(f"Taken: split {taken[name]} of train, valid, test_seen")
    if name == "train":
        assert "Validation: split valid, 8 images, 2 classes." in said
    said = lines_of(capsys, name, [*arguments, "--no-splits"])
    assert said[0] == "24 images, 3 classes (the first folder)."


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_class_files(capsys, tmp_path, products, model, name):
    lines = [
        f"{group}/{color}/{number}.png,{'pale' if number < 2 else 'bright'}"
        for group, color in (("warm", "red"), ("cold", "blue"))
        for number in range(4)
    ]
    file = tmp_path / "classes.csv"
    file.write_text("\n".join(["path,label", *lines]) + "\n")
    arguments = commands(products, model, tmp_path)[name]
    said = lines_of(capsys, name, [*arguments, "--classes", file])
    kept = name == "index"  # searches the images without a class too
    assert said[0] == f"{16 if kept else 8} images, 2 classes ({file})."
    assert any(line.startswith("8 images") and "classes.csv" in line for line in said[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_corrections(capsys, tmp_path, products, model, name):
    file = tmp_path / "corrections.csv"
    file.write_text(f"{','.join(KIND.columns)}\n,,warm/red/0.png,warm,cold,\n,,x.png,warm,cold,\n")
    arguments = [*commands(products, model, tmp_path)[name], "--corrections", file]
    said = lines_of(capsys, name, arguments)
    assert said[0] == FIRST
    assert f"1 correction applied from {file}; 1 not applied: 1 image not there (x.png)." in said
    if name == "index":  # which keeps the file for later runs
        with file.open("a") as opened:
            opened.write(",,warm/red/1.png,warm,cold,\n")
        said = lines_of(capsys, name, ["--output", tmp_path / "index"])
        assert "0 embedded now" in "\n".join(said)
        query = ["--index", tmp_path / "index", "--image", products / "cold/blue/0.png"]
        found = json.loads("".join(lines_of(capsys, "search", [*query, "--json", "--top", "20"])))
        moved = {each["path"] for each in found if each["class"] == "cold"}
        assert moved >= {str(products / f"warm/red/{number}.png") for number in (0, 1)}
        assert len(moved) == 10


def test_search_says_the_class_of_the_index(capsys, tmp_path, products, model):
    index = tmp_path / "index"
    made = ["--model", model, "--images", products, "--output", index]
    query = ["--index", index, "--image", products / "warm/red/0.png", "--json"]
    first, parent = {"warm", "cold"}, {"warm/red", "warm/orange", "cold/blue", "cold/green"}
    for flags, classes in (([], first), (["--label", "parent"], parent), ([], parent)):
        said = "\n".join(lines_of(capsys, "index", [*made, *flags]))
        assert f"{16 if classes == first else 0} embedded now" in said
        found = json.loads("".join(lines_of(capsys, "search", query)))
        assert {each["class"] for each in found} == classes
