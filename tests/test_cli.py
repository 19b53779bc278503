import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import deep_ranking
from deep_ranking.cli.main import COMMANDS, main, run_command
from deep_ranking.cli.output import csv_output
from deep_ranking.config import NetworkConfig
from deep_ranking.images import read_image
from deep_ranking.model.file import save_model
from deep_ranking.model.network import build_network

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager", "models_loaded_once")

ROOT = Path(__file__).parents[1]


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of three images, in folders and files with names people use."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("Café, outside", "old-town"):
        (root / name).mkdir()
        for number in range(3):
            pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"image {number}.JPG", "JPEG")
    return root


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    save_model(build_network(NetworkConfig(image_size=32, weights=None, hidden_size=8)), path)
    return path


@pytest.mark.slow
def test_three_commands_from_folders_to_a_distance(photos, tmp_path):
    """As the blog's users work: in one folder, with the root scripts and their defaults."""
    sampled = python(
        *(ROOT / "triplet_sampler.py", "--input_directory", photos),
        *("--num_pos_images", 1, "--num_neg_images", 1),
        cwd=tmp_path,
    )
    assert sampled.returncode == 0, sampled.stderr
    assert "6 images, 2 classes" in sampled.stdout
    assert "6 triplets in triplets.txt" in sampled.stdout
    trained = python(
        *(ROOT / "train.py", "--weights", "none", "--image_size", 32, "--hidden_size", 8),
        *("--epochs", 1, "--batch_size", 9),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""
    assert "Model in deepranking.h5" in trained.stdout.splitlines()[-1]
    compiled, *others = sorted(os.listdir(tmp_path))
    assert compiled.startswith("deepranking.") and compiled.endswith(".float32.litert")
    assert others == ["deepranking.h5", "deepranking.run", "triplets.txt"]
    images = sorted(photos.rglob("*.JPG"))
    compared = python(
        *(ROOT / "compare.py", "-m", "deepranking.h5", "-i1", images[0], "-i2", images[3]),
        cwd=tmp_path,
    )
    assert compared.returncode == 0, compared.stderr
    assert 0 < float(compared.stdout.splitlines()[0]) <= 2
    assert compared.stderr == ""


def test_compare_equals_plain_keras_by_hand(photos, model_path, capsys):
    first, second = sorted(photos.rglob("*.JPG"))[:2]
    arguments = ["--model", str(model_path), "--image1", str(first), "--image2", str(second)]
    assert main(["compare", *arguments]) == 0
    printed = float(capsys.readouterr().out.splitlines()[0])
    plain = keras.models.load_model(model_path)
    images = np.stack([read_image(path, 32) for path in (first, second)]).astype(np.float32)
    a, b = plain.predict_on_batch(images).astype(np.float64)
    assert printed == pytest.approx(np.sqrt(((a - b) ** 2).sum()), abs=1e-5)
    assert main(["compare", *arguments, "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["distance"] == pytest.approx(printed, abs=1e-6)
    assert settings["network"]["image_size"] == 32


def test_an_image_is_at_no_distance_of_itself(photos, model_path, capsys):
    image = str(next(photos.rglob("*.JPG")))
    assert run_command("compare", ["-m", str(model_path), "-i1", image, "-i2", image]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "0.000000"


def test_help_answers_without_tensorflow():
    code = (
        "import sys\nfrom deep_ranking.cli.main import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0, command\n"
        "    loaded = {'tensorflow', 'keras'} & sys.modules.keys()\n"
        "    assert not loaded, (command, loaded)\n"
    )
    done = python("-c", code, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert done.stdout.count(f"usage: deep-ranking {command} [options]") == 1


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"deep-ranking {deep_ranking.__version__}\n"


@pytest.mark.slow
def test_public_names_load_no_tensorflow_until_used():
    code = (
        "import sys, deep_ranking as d\n"
        "d.find_images, d.sample_triplets, d.read_triplets, d.write_triplets, d.read_image\n"
        "d.NetworkConfig(), d.TrainConfig()\n"
        "d.Collection, d.Calibration, d.SamplingConfig, d.find_duplicates, d.index_images\n"
        "d.evaluate, d.calibrate, d.compare, d.diagnose, d.sample, d.export_model, d.report\n"
        "assert set(d.__all__) <= set(dir(d))\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    done = python("-c", code, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_public_names():
    assert deep_ranking.__all__ == [
        "RECIPES",
        "Answer",
        "AnswerLog",
        "Augmentation",
        "BatchRankingLoss",
        "Calibration",
        "CalibrationResult",
        "Client",
        "Collection",
        "Comparison",
        "CompiledReport",
        "Correction",
        "CorrectionLog",
        "Corrections",
        "Duplicates",
        "EmbeddedTable",
        "Embedder",
        "Evaluation",
        "Examination",
        "Explanation",
        "Export",
        "ExportedRatings",
        "ExportedTable",
        "FolderConfig",
        "ImageListing",
        "ImportedRatings",
        "IndexReport",
        "InputError",
        "LabelledImages",
        "ModelOnRatings",
        "MoveReport",
        "MultiSimilarityLoss",
        "NetworkConfig",
        "Occlusion",
        "PairComparison",
        "RankingLoss",
        "Ratings",
        "RatingsSummary",
        "Report",
        "Result",
        "SampledTriplets",
        "SamplingConfig",
        "SearchResults",
        "Searcher",
        "Shards",
        "SoftMarginLoss",
        "SupervisedContrastiveLoss",
        "TableReport",
        "TaughtConfig",
        "TaughtReport",
        "TrainConfig",
        "TripletEvaluation",
        "Triplets",
        "WrittenAtlas",
        "__version__",
        "build_network",
        "calibrate",
        "compare",
        "compare_all",
        "compare_pairs",
        "compile_model",
        "corrected",
        "diagnose",
        "embed_images",
        "embed_table",
        "evaluate",
        "evaluate_on_triplets",
        "explain",
        "explain_by_occlusion",
        "export_model",
        "export_ratings",
        "export_table",
        "find_duplicates",
        "find_images",
        "import_ratings",
        "index_images",
        "index_on_ratings",
        "index_table",
        "load_model",
        "make_atlas",
        "model_on_ratings",
        "move_back",
        "read_classes",
        "read_corrections",
        "read_folder",
        "read_image",
        "read_partition",
        "read_positive_pairs",
        "read_ratings",
        "read_triplets",
        "report",
        "sample",
        "sample_triplets",
        "save_model",
        "summarize_ratings",
        "teach",
        "train",
        "triplet_dataset",
        "write_digits",
        "write_triplets",
    ]
    for name in deep_ranking.__all__:
        assert getattr(deep_ranking, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deep_ranking.nothing  # noqa: B018


def usage_error(capsys, command, *arguments):
    with pytest.raises(SystemExit) as end:
        run_command(command, list(map(str, arguments)))
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.endswith("; see --help\n") and line.count("\n") == 1
    return line


def data_error(capsys, command, *arguments):
    assert run_command(command, list(map(str, arguments))) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("sample", [], "--input_directory"),
        ("sample", ["--input_directory", ".", "--num_pos_images", "0"], "num_pos_images"),
        ("sample", ["--input_directory", ".", "--num_neg_images", "-3"], "num_neg_images"),
        ("sample", ["--input_directory", ".", "--num_neg_images", "many"], "num_neg_images"),
        ("sample", ["--input_directory", ".", "--validation_share", "1"], "validation_share"),
        ("sample", ["--input_directory", ".", "--seed", "-1"], "seed"),
        ("train", ["--batch_size", "25"], "batch_size"),
        ("train", ["--epochs", "0"], "epochs"),
        ("train", ["--gap", "0"], "gap"),
        ("train", ["--optimizer", "rmsprop"], "optimizer"),
        ("train", ["--image_size", "16"], "image_size"),
        ("train", ["--resume", "--overwrite"], "--resume"),
        ("train", ["--nonsense"], "--nonsense"),
        ("compare", ["--model", "m.h5"], "--image1"),
        ("demo", ["--epochs", "0"], "epochs"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(capsys, command, arguments, named):
    assert named in usage_error(capsys, command, *arguments)


def test_an_unknown_command_is_one_line_and_exit_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["smaple"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sampling_names_what_is_wrong_with_a_folder(capsys, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no such folder" in data_error(capsys, "sample", "--input_directory", tmp_path / "no")
    assert "no image in it" in data_error(capsys, "sample", "--input_directory", empty)
    (empty / "class").mkdir()
    assert "without images (class)" in data_error(capsys, "sample", "--input_directory", empty)
    (empty / "loose.jpg").touch()
    assert "no classes: expected folders of images, found 1 image in no folder" in data_error(
        capsys, "sample", "--input_directory", empty
    )
    (empty / "class" / "1.jpg").touch()
    arguments = ("--input_directory", empty, "--output_directory", tmp_path / "out")
    assert "two classes" in data_error(capsys, "sample", *arguments)
    (empty / "other").mkdir()
    (empty / "other" / "1.jpg").touch()
    assert "no class has two images" in data_error(capsys, "sample", *arguments)
    assert not (tmp_path / "out").exists()


def test_sampling_counts_what_it_leaves_out(capsys, tmp_path):
    for name in ("a/1.jpg", "a/2.JPG", "b/1.png", "a/line\nbreak.jpg", "loose.jpg", "a/notes.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    arguments = ["--input_directory", tmp_path / "images", "--output_directory", tmp_path / "out"]
    assert run_command("sample", list(map(str, arguments))) == 0
    said = capsys.readouterr().out
    assert "3 images, 2 classes" in said
    assert "1 class has one image only" in said
    assert "1 image left out: a line break" in said
    assert "1 image left out: in no folder" in said
    triplets = (tmp_path / "out" / "triplets.txt").read_text().splitlines()
    assert triplets == [
        "../images/a/1.jpg,../images/a/2.JPG,../images/b/1.png",
        "../images/a/2.JPG,../images/a/1.jpg,../images/b/1.png",
    ]


def test_sampling_holds_whole_classes_back(tmp_path):
    for label in range(10):
        for number in range(3):
            path = tmp_path / "images" / f"class{label}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    arguments = ["--input_directory", tmp_path / "images", "--output_directory", tmp_path]
    assert run_command("sample", [*map(str, arguments), "--validation_share", "0.3"]) == 0
    classes = {}
    for name in ("triplets.txt", "validation_triplets.txt"):
        lines = (tmp_path / name).read_text().splitlines()
        classes[name] = {Path(path).parent.name for line in lines for path in line.split(",")}
    assert len(classes["validation_triplets.txt"]) == 3
    assert len(classes["triplets.txt"]) == 7
    assert not classes["validation_triplets.txt"] & classes["triplets.txt"]


def test_training_and_comparing_name_the_file(capsys, tmp_path, photos, model_path):
    missing = tmp_path / "missing"
    image = next(photos.rglob("*.JPG"))
    assert str(missing) in data_error(capsys, "train", "--triplets", missing)
    (tmp_path / "two.txt").write_text("a.jpg,b.jpg\n")
    assert "two.txt:1: " in data_error(capsys, "train", "--triplets", tmp_path / "two.txt")
    for model, first, second in (
        (missing, image, image),
        (model_path, missing, image),
        (model_path, image, missing),
    ):
        arguments = ("-m", model, "-i1", first, "-i2", second)
        assert f"{missing}: no such file" in data_error(capsys, "compare", *arguments)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(image.read_bytes()[:300])
    arguments = ("-m", model_path, "-i1", image, "-i2", broken)
    assert str(broken) in data_error(capsys, "compare", *arguments)
    assert str(image) in data_error(capsys, "compare", "-m", image, "-i1", image, "-i2", image)


def test_demo_never_empties_a_folder_that_is_not_its_own(capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "holds other files" in data_error(capsys, "demo", "--output_directory", tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_no_permission_is_one_line(capsys, tmp_path, photos, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as in containers, may do anything
    arguments = ("--input_directory", photos, "--output_directory", tmp_path)
    assert "no permission" in data_error(capsys, "sample", *arguments)
    assert os.listdir(tmp_path) == []


def test_csv_on_standard_output_keeps_the_bytes_of_names(capfdbinary):
    with csv_output() as handle:
        handle.write(os.fsdecode(b"a\xff.jpg") + ",\u00e9\n")
    print("after")
    assert capfdbinary.readouterr().out == b"a\xff.jpg,\xc3\xa9\nafter\n"
