"""A flag that cannot act beside the others is refused, if the command line itself gives it."""

import pytest
from test_cli import usage_error

from deep_ranking.cli.conflicts import given_flags
from deep_ranking.cli.main import make_parser, run_command
from deep_ranking.config import TrainConfig

CLASSES = ("--dataset", "photos", "--batches", "classes")
CACHED = (*CLASSES, "--cache_features", "--train_from", "head")
STRATEGY = ("--dataset", "photos", "--strategy")
LAPTOP = ("--recipe", "laptop", "--dataset", "photos", "--image_size", "32")
FOLDERS = ("--input_directory", "photos")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work where there is an empty folder of photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "flag", "others", "blamed"),
    [
        ("train", "--images_per_class 3", (), "--batches classes"),
        ("train", "--cached_views 2", (), "--cache_features"),
        ("train", "--cached_views 2", (*CACHED, "--no-augment"), "--no-augment"),
        ("train", "--cache_dir kept", CLASSES, "--cache_features"),
        ("train", "--triplets t.txt", CLASSES, "--batches classes"),
        ("train", "--no-shuffle", CLASSES, "--batches classes"),
        ("train", "--num_pos_images 10", (), "--strategy"),
        ("train", "--num_neg_images 50", (), "--strategy"),
        ("train", "--relevance_cap 1", (*STRATEGY, "hard"), "--strategy relevance"),
        ("train", "--relevance_gap 0.1", (*STRATEGY, "in-class"), "--strategy relevance"),
        ("train", "--buffer 9", (*STRATEGY, "in-class"), "--strategy relevance"),
        ("train", "--num_neighbours 9", (*STRATEGY, "in-class"), "--strategy hard"),
        ("train", "--mining hard", (*CLASSES, "--loss", "soft_margin"), "--loss soft_margin"),
        ("train", "--hinge batch", (*CLASSES, "--loss", "soft_margin"), "--loss soft_margin"),
        ("train", "--clip", (*CLASSES, "--loss", "multi_similarity"), "--loss multi_similarity"),
        ("train", "--temperature 0.2", (), "--loss ranking"),
        ("train", "--head_learning_rate 0.1", (), "--head_epochs"),
        ("train", "--learning_rate 0.1", ("--epochs", "2", "--head_epochs", "2",
         "--head_learning_rate", "0.1"), "--head_learning_rate in all"),
        ("train", "--backbone_rate 0.1", ("--train_from", "head"), "--train_from head"),
        ("train", "--plateau_patience 3", (), "--decay plateau"),
        ("train", "--plateau_factor 0.5", ("--decay", "cosine"), "--decay plateau"),
        ("train", "--validate_every 2", (), "--validation_share"),
        ("train", "--hidden_size 64", ("--hidden_layers", "0"), "--hidden_layers 0"),
        ("train", "--rotation 5", ("--no-augment",), "--no-augment"),
        ("train", "--grayscale 0.5", ("--no-augment",), "--no-augment"),
        ("train", "--horizontal_flip", CACHED, "--cached_views 1"),
        ("train", "--augment", CACHED, "--cached_views 1"),
        ("train", "--save_augmented seen", CACHED, "--cache_features"),
        # Set by the recipe, and asked for what it rules out.
        ("train", "--zoom 0.1", LAPTOP, "--cached_views 1"),
        ("train", "--hidden_size 64", LAPTOP, "--hidden_layers 0"),
        ("train", "--mining all", LAPTOP, "--loss supervised_contrastive"),
        ("train", "--triplets t.txt", LAPTOP, "--batches classes, as --recipe laptop has it"),
        ("train", "--label parent", (*CLASSES, "--classes", "c.csv"), "--classes"),
        ("train", "--no-splits", (*CLASSES, "--classes", "c.csv"), "--classes"),
        ("doctor", "--pooling gem", ("--dataset", ".", "--no-estimate"), "--no-estimate"),
        ("doctor", "--label 2", ("--dataset", ".", *CLASSES[2:], "--classes", "c"), "--classes"),
        ("doctor", "--images_per_class 3", ("--dataset", "."), "--batches classes"),
        ("doctor", "--cached_views 3", ("--dataset", "."), "--cache_features"),
        ("doctor", "--num_neighbours 3", ("--dataset", "."), "--strategy hard"),
        ("doctor", "--num_pos_images 3", ("--dataset", ".", *CLASSES[2:]), "--batches classes"),
        ("doctor", "--balance", ("--dataset", ".", *CLASSES[2:]), "--batches classes"),
        ("doctor", "--hidden_size 9", ("--dataset", ".", "--hidden_layers", "0"), "layers 0"),
        ("sample", "--relevance_cap 1", FOLDERS, "--strategy relevance"),
        ("sample", "--buffer 9", FOLDERS, "--strategy relevance"),
        ("sample", "--num_neighbours 9", FOLDERS, "--strategy hard"),
        ("sample", "--weights none", FOLDERS, "--relevance backbone"),
        ("sample", "--by item", FOLDERS, "--validation_share or shares in --split"),
        ("sample", "--by class", (*FOLDERS, "--split", "train"), "shares in --split"),
        ("sample", "--keep_together", (*FOLDERS, "--validation_share", "0.1"), "--split"),
        ("compare", "--skip_broken", ("-m", "m.h5", "-i1", "a.jpg", "-i2", "b.jpg"), "--pairs"),
        ("evaluate", "--weights none", ("-m", "m.h5", "--dataset", "d"), "--baselines"),
        ("evaluate", "--label 2", ("-m", "m.h5", "--dataset", "d", "--classes", "c"), "--classes"),
        ("calibrate", "--label 2", ("-m", "m.h5", "--dataset", "d", "--classes", "c"), "--classes"),
        ("report", "--splits", ("-m", "m.h5", "--dataset", "d", "--classes", "c", "-o", "r"),
         "--classes"),
        ("dataset stats", "--splits", (".", "--classes", "c"), "--classes"),
        ("sample", "--level 2", FOLDERS, "--strategy in-class or relevance"),
        ("sample", "--label 2", (*FOLDERS, "--classes", "c.csv"), "a file of images"),
        ("index", "--clusters 9", ("-o", "i", "-m", "m.h5", "--images", "."), "--index exact"),
        ("index", "--probes 9", ("-o", "i", "-m", "m.h5", "--images", "."), "--index"),
        ("index", "--target_recall 0.9", ("-o", "i", "--index", "exact", "-m", "m.h5",
         "--images", "."), "exact index"),
        ("index", "--clusters 9", ("-o", "i", "--index", "m.db", "-m", "m.h5", "--images", "."),
         "--index milvus"),
        ("duplicates", "--threshold 0.3", ("--undo", "u"), "--undo"),
        ("duplicates", "--json j", ("--undo", "u"), "--undo"),
        ("duplicates", "--move m", ("--undo", "u"), "--undo"),
        ("summary", "--image_size 224", ("--model", "m.h5"), "--model"),
        ("summary", "--hidden_size 9", ("--hidden_layers", "0"), "--hidden_layers 0"),
        ("dataset caltech101", "--keep_archive", ("-o", "o", "--archive", "a.zip"), "--archive"),
    ],
)  # fmt: skip
def test_a_flag_without_effect_is_refused(capsys, command, flag, others, blamed):
    line = usage_error(capsys, *command.split(), *others, *flag.split())
    assert f"error: {flag.split()[0]} has no effect with" in line
    assert blamed in line.partition("no effect")[2]


@pytest.mark.parametrize(
    "flags",
    [
        "--batches classes --dataset photos --images_per_class 3 --batch_size 9",
        "--hidden_layers 0 --dropout 0.1",
        "--no-horizontal_flip --no-augment",
        "--no-clip --batches classes --dataset photos --loss soft_margin",
        "--validation_triplets v.txt --batches classes --dataset photos --loss soft_margin --clip",
        "--no-balance --no-cache_features --shuffle",
        "--decay plateau --plateau_factor 0.3",
        "--recipe fine-tune --dataset photos --image_size 32 --rotation 5 --backbone_rate 0.2",
        "--recipe laptop --dataset photos --image_size 32 --cached_views 2 --rotation 5",
        "--recipe laptop --dataset photos --image_size 32",
        "--strategy hard --dataset photos --num_neighbours 9 --num_pos_images 2",
        "--patience 3",
        "--epochs 3 --head_epochs 2 --head_learning_rate 0.1 --learning_rate 0.1",
        "--batches classes --dataset photos --label 2 --validate_every 2 --validation_share 0.5",
    ],
)
def test_flags_that_act_are_let_through(flags, monkeypatch):
    class Reached(Exception):
        pass

    def stop():
        raise Reached

    monkeypatch.setattr("deep_ranking.cli.train.start_tensorflow", stop)
    with pytest.raises(Reached):
        run_command("train", flags.split())


def test_what_an_earlier_run_had_is_not_given(folder, monkeypatch, capsys):
    monkeypatch.setattr("deep_ranking.cli.train.start_tensorflow", lambda: 1 / 0)
    config = TrainConfig(head_learning_rate=0.1, plateau_factor=0.5, augmentation=None)
    (folder / "m.run").mkdir()
    (folder / "m.run" / "config.json").write_text(config.to_json())
    with pytest.raises(ZeroDivisionError):
        run_command("train", ["--output", "m.h5", "--resume"])
    line = usage_error(capsys, "train", "--output", "m.h5", "--resume", "--zoom", "0.1")
    assert "--zoom has no effect with --no-augment" in line


def test_a_recipe_that_an_earlier_run_did_not_begin_with_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr("deep_ranking.cli.train.start_tensorflow", lambda: 1 / 0)
    config = TrainConfig.from_recipe("fine-tune", epochs=40, dataset=folder / "photos",
                                     image_size=32)  # fmt: skip
    (folder / "m.run").mkdir()
    (folder / "m.run" / "config.json").write_text(config.to_json())
    resume = ["--output", "m.h5", "--resume", "--recipe"]
    with pytest.raises(ZeroDivisionError):
        run_command("train", [*resume, "fine-tune"])
    line = usage_error(capsys, "train", *resume, "laptop")
    assert "--recipe laptop has no effect with --resume" in line


def test_given_are_the_flags_of_the_line_and_not_their_defaults():
    parser = make_parser("train")
    parser.set_defaults(epochs=9)
    argv = ["--seed", "0", "--no-shuffle", "--augm", "-h"][:-1]
    assert given_flags(parser, argv) == {"--seed", "--no-shuffle", "--augment"}
    assert parser.parse_args(argv).epochs == 9
    search = ["--index", "i", "-i", "a", "--image", "b"]
    assert given_flags(make_parser("search"), search) == {"--index", "--image"}
    dataset = ["digits", "-o", "o", "--seed", "0"]
    assert set(given_flags(make_parser("dataset"), dataset)) >= {"--output", "--seed"}
    assert "--seed" not in given_flags(make_parser("dataset"), dataset[:3])


def test_a_split_to_validate_on_counts_as_validation_data(folder, monkeypatch, capsys):
    """It is found by its name: `train` validates on it though no flag says so."""
    monkeypatch.setattr("deep_ranking.cli.train.start_tensorflow", lambda: 1 / 0)
    every = ["--batches", "classes", "--dataset", "photos", "--validate_every", "2"]
    assert "--validate_every has no effect" in usage_error(capsys, "train", *every)
    for name in ("train", "val"):
        (folder / "photos" / name).mkdir()
    with pytest.raises(ZeroDivisionError):
        run_command("train", every)
    assert "no effect" in usage_error(capsys, "train", *every, "--no-splits")
