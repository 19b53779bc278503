"""Every flag of every command, in each of its main modes, is effective or refused.

A command runs once in each mode, on tiny data, while every read of a setting or flag is recorded.
Then each flag is given beside the flags of the mode: it must be refused, or be one that was read.
"""

import argparse
import dataclasses
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded_reads import recorded_reads
from stubs import build_stub, training_stubs

from deep_ranking.cli import flag_table
from deep_ranking.cli.conflicts import given_flags
from deep_ranking.cli.main import COMMANDS, make_parser, run_command
from deep_ranking.config import DrawnTripletsConfig, FolderConfig, NetworkConfig, TrainConfig
from deep_ranking.config.training import PARTS
from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import Answer
from deep_ranking.model.file import save_model
from deep_ranking.model.network import build_network

pytestmark = pytest.mark.usefixtures("eager", "thin_vgg16")

TRAIN = "train --output m.h5 --overwrite --image_size 32 --weights none --epochs 1 --batch_size 12"
SMALL = "--hidden_layers 0 --embedding_size 4"
CLASSES = f"{TRAIN} {SMALL} --dataset photos --batches classes --images_per_class 3"
STRATEGY = f"{TRAIN} {SMALL} --dataset photos --num_pos_images 1 --num_neg_images 1 --strategy"
PLAN = "doctor --dataset photos --image_size 32 --batch_size 12"
DOCTOR = f"{PLAN} --weights none --hidden_layers 0"
SAMPLE = "sample --output_directory drawn --num_pos_images 1 --num_neg_images 1"
ON_PHOTOS = f"{SAMPLE} --input_directory photos"
EVALUATE = "evaluate --model small.h5"

MODES = {
    "train": [
        f"{TRAIN} {SMALL} --triplets triplets.txt",
        f"{TRAIN} {SMALL} --triplets triplets.txt --validation_triplets triplets.txt "
        "--decay plateau",
        f"{TRAIN} {SMALL} --triplets triplets.txt --no-augment --validation_dataset photos",
        f"{CLASSES}",
        f"{CLASSES} --validation_share 0.4 --head_epochs 1 --max_images_per_class 4",
        f"{CLASSES} --loss soft_margin",
        f"{CLASSES} --loss soft_margin --validation_triplets triplets.txt",
        f"{CLASSES} --classes classes.csv --train_from head",
        f"{CLASSES} --pairs shop --validation_share 0.4",
        f"{CLASSES} --pairs two_domains.csv",
        f"{CLASSES} --cache_features --train_from head",
        f"{CLASSES} --cache_features --train_from head --cached_views 2",
        f"{CLASSES} --cache_features --train_from head --no-augment",
        f"{STRATEGY} out-of-class",
        f"{STRATEGY} hard --num_neighbours 3 --resample_every 1",
        f"{STRATEGY} in-class --dataset nested",
        f"{STRATEGY} relevance --relevance tree --dataset nested",
        "train --recipe taught --ratings many.csv --dataset photos --weights small.h5 "
        "--output t.h5 --overwrite",
        "train --recipe laptop --dataset photos --output m.h5 --overwrite --weights none "
        "--embedding_size 4 --batch_size 12 --pooled_blocks 1 --embedding_start random",
    ],
    "doctor": [
        f"{DOCTOR}",
        f"{PLAN} --no-estimate",
        f"{PLAN} --no-estimate --batches classes --images_per_class 3",
        f"{PLAN} --no-estimate --batches classes --dataset splits",
        f"{DOCTOR} --strategy hard",
        f"{DOCTOR} --batches classes --images_per_class 3 --cache_features --train_from head",
    ],
    "sample": [
        f"{ON_PHOTOS}",
        f"{ON_PHOTOS} --validation_share 0.4",
        f"{ON_PHOTOS} --split 0.5 0.5",
        f"{ON_PHOTOS} --strategy hard --model small.h5 --num_neighbours 3",
        f"{SAMPLE} --input_directory nested --strategy in-class",
        f"{SAMPLE} --input_directory nested --strategy relevance --relevance tree",
        f"{SAMPLE} --input_directory photos --classes classes.csv",
    ],
    "summary": [
        "summary --weights none --image_size 32 --embedding_size 4 --hidden_size 4",
        "summary --weights none --image_size 32 --embedding_size 4 --hidden_layers 0 "
        "--multiscale none",
        "summary --model small.h5",
    ],
    "compare": [
        "compare -m small.h5 -i1 photos/red/0.png -i2 photos/red/1.png",
        "compare -m small.h5 --pairs pairs.csv",
        "compare -m small.h5 -i1 photos -i2 photos --json",
    ],
    "evaluate": [
        f"{EVALUATE} --dataset photos",
        f"{EVALUATE} --dataset photos --baselines --weights none",
        f"{EVALUATE} --dataset photos --classes classes.csv",
        f"{EVALUATE} --queries photos --gallery photos",
        f"{EVALUATE} --triplets triplets.txt",
    ],
    "calibrate": ["calibrate -m small.h5 --dataset photos",
                  "calibrate -m small.h5 --dataset photos --classes classes.csv"],
    "report": ["report -m small.h5 --dataset photos -o r.html",
               "report -m small.h5 --dataset photos --classes classes.csv -o r.html"],
    "ratings": ["ratings ratings.csv",
                "ratings ratings.csv --model small.h5 --dataset photos",
                "ratings ratings.csv --dataset photos --export rated.txt",
                "ratings imported.csv --dataset . --import triplets.txt --rater Ann"],
    "explain": ["explain -m small.h5 -i1 photos/red/0.png -i2 photos/red/1.png",
                "explain -m small.h5 -i1 photos/red/0.png -i2 photos/red/1.png --json",
                "explain -m small.h5 -i1 photos/red/0.png -i2 photos/red/1.png --method occlusion"],
    "dataset": ["dataset stats photos", "dataset stats photos --classes classes.csv",
                "dataset digits --output digits"],
    "compile": ["compile -m small.h5 --anew",
                "compile -m small.h5 --anew --precision int8 --calibrate photos"],
    "embed": ["embed -m small.h5 --images photos -o t.parquet",
              "embed -m small.h5 --images photos --classes classes.csv -o u.parquet",
              "embed -m small.h5 --images named.parquet -o v.parquet"],
    "export": ["export -m small.h5 --format savedmodel -o saved --overwrite"],
}  # fmt: skip
# The flags of an index depend on its kind; `tests/test_conflicts.py` has them.
OF_AN_INDEX = {"index", "search", "merge", "duplicates"}
# All flags of `demo` always act; `tests/test_serving_teach.py` has those of `serve`.
OTHERS = {"demo", "serve"}
# Values that parse, where the kind of the flag does not tell one.
VALUES = {
    "train": {
        "backbone": "resnet50", "label": "parent", "monitor": "loss", "devices": "0",
        "relevance": "tree", "train_from": "head", "validation_share": "0.3", "output": "n.h5",
        "validation_split": "val", "resized_crop": "0.5", "random_crop": "0.5", "dropout": "0.3",
        "plateau_factor": "0.5", "out_of_class_share": "0.5", "weight_decay": "0.1",
        "batch_size": "24", "hidden_layers": "1", "image_size": "64", "backbone_size": "96",
        "memory": "8", "start_epoch": "0", "max_images_per_class": "4", "epochs": "2",
        "buffer": "300", "pairs": "shop",
    },
    "sample": {"label": "parent", "relevance": "tree", "split": "0.5 0.5", "buffer": "300"},
    "summary": {"backbone": "resnet50", "backbone_size": "96", "hidden_layers": "1"},
    "export": {"tolerance": "0.1"},
    "dataset": {"label": "parent"},
    "embed": {"label": "parent"},
    "evaluate": {"label": "parent", "weights": "none", "smooth": "5", "smooth_power": "2"},
}  # fmt: skip
VALUES["doctor"] = VALUES["train"]
VALUES["calibrate"] = VALUES["report"] = VALUES["evaluate"]

REFUSED = "no effect|need|not both|exclude|not allowed|give |measured|counts triplets|split"
ALWAYS = {
    "help", "help_all", "verbose", "quiet", "max_megapixels", "command",
    "resume", "overwrite", "recipe",  # about what was there before, and other flags' defaults
    "dataset",  # of `dataset`: the subcommand
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_colors, thin_vgg16):
    """Everything that the modes name."""
    root = tmp_path_factory.mktemp("modes")
    for names in (("red", "green", "blue"), ("warm", "fresh", "cold")):
        write_colors(root / "photos", classes=names, images=4)
        write_colors(root / "shop", classes=names, images=1)
    lines = [f"{name}/0.png,{name}/1.png,{name}" for name in ("red", "green", "blue")]
    (root / "two_domains.csv").write_text("\n".join(lines) + "\n")
    for number, name in enumerate(("fruit", "tool")):
        write_colors(root / "nested" / name, classes=(f"{number} a", f"{number} b"))
    paths = sorted(path.relative_to(root) for path in (root / "photos").rglob("*.png"))
    lines = [f"{paths[i]},{paths[i ^ 1]},{paths[(i + 5) % 24]}" for i in range(24)]
    (root / "triplets.txt").write_text("\n".join(lines) + "\n")
    (root / "pairs.csv").write_text(f"{paths[0]},{paths[1]}\n{paths[0]},{paths[9]}\n")
    listed = [f"{path.relative_to('photos')},{path.parent.name}" for path in paths]
    (root / "classes.csv").write_text("\n".join(["path,label", *listed]) + "\n")
    rated = [str(path.relative_to("photos")) for path in paths[:3]]
    AnswerLog(root / "ratings.csv").add(Answer("2026-11-29", "Ann", *rated))
    rated = [str(path.relative_to("photos")) for path in paths]
    questions = [(i % 24, (i + 1) % 24, (i + 9) % 24) for i in range(24)]
    AnswerLog(root / "many.csv").add(
        *(Answer("2026-11-29", "Ann", *(rated[each] for each in rows)) for rows in questions)
    )
    pq.write_table(pa.table({"path": [f"photos/{path}" for path in rated]}), root / "named.parquet")
    for name in ("train", "val"):
        write_colors(root / "splits" / name)
    network = NetworkConfig(image_size=32, weights=None, hidden_layers=0, embedding_size=4)
    save_model(build_network(network, seed=0), root / "small.h5")
    return root


class PassedTheChecksError(Exception):
    pass


def is_refused(command, argv, capsys, monkeypatch):
    """Whether the command line is a usage error; which must say what goes with what."""

    def stop(*_, **__):
        raise PassedTheChecksError

    module = __import__(f"deep_ranking.cli.{command}", fromlist=["run"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "refuse_flags_without_effect", checked_then(stop), raising=False)
        try:
            run_command(command, argv)
        except PassedTheChecksError:
            return False
        except SystemExit as end:
            line = capsys.readouterr().err
            assert end.code == 2 and re.search(REFUSED, line), line
            return True
    return False


def checked_then(stop):
    from deep_ranking.cli.conflicts import refuse_flags_without_effect

    def check(*args, **options):
        refuse_flags_without_effect(*args, **options)
        stop()

    return check


def flags_of(parser):
    """Each flag as it is typed, with a value, and the name of what it sets."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or not action.option_strings:
            continue
        for flag in action.option_strings:
            if flag.startswith("--"):
                yield flag, action


def value_of(command, action):
    known = VALUES.get(command, {}).get(action.dest)
    if action.nargs == 0:
        value = ""
    elif known is not None:
        value = known
    elif action.choices:
        value = [each for each in action.choices if each != action.default][-1]
    elif isinstance(action.default, float) or action.type is float:
        value = (action.default or 0.0) + 0.25
    elif isinstance(action.default, int) or (action.type and "int" in action.type.__name__):
        value = (action.default or 0) + 3
    else:
        value = {"html": "page.html", "json": "found.json"}.get(action.dest, "classes.csv")
    return str(value).split()


SETTINGS = {
    each.name
    for kind in (TrainConfig, DrawnTripletsConfig, FolderConfig, *PARTS.values())
    for each in dataclasses.fields(kind)
}
# Flags that reach a command as settings of a config.
CONFIGURED = {
    "train": SETTINGS,
    "doctor": SETTINGS,
    "summary": NetworkConfig.__dataclass_fields__.keys(),
}
# Read only where the data gives reason to, which these do not.
BY_THE_DATA = {
    ("doctor", "skip_broken"),  # where an image is broken
    ("compare", "skip_broken"),  # of folders, broken images are always left out
    ("train", "plateau_patience"),  # after an epoch that is no better
}


LONG = ("doctor", "report", "explain", "export", "evaluate", "compile")


def each_mode():
    """Default tests run what is quick: one mode of most commands; the others are slow tests."""
    quick = {modes[0] for name, modes in MODES.items() if name not in LONG}
    quick |= {MODES["doctor"][1], MODES["train"][3], MODES["train"][11]}
    for name, modes in MODES.items():
        for mode in modes:
            yield pytest.param(name, mode, marks=() if mode in quick else pytest.mark.slow)


@pytest.mark.parametrize(("command", "mode"), list(each_mode()))
def test_every_flag_is_effective_or_refused(folder, monkeypatch, capsys, command, mode):
    monkeypatch.chdir(folder)
    argv = mode.split()[1:]
    with recorded_reads() as (settings, flags):
        if command == "train":
            with training_stubs(build=stub_that_reads):
                code = run_command(command, argv)
        else:
            code = run_command(command, argv)
    assert code == 0, capsys.readouterr().err
    parser = make_parser(command)
    if command == "dataset":
        choice = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = choice.choices[argv[0]]
    idle, refused = [], set()
    for flag, action in flags_of(parser):
        if action.dest in ALWAYS or action.required or (command, action.dest) in BY_THE_DATA:
            continue
        is_setting = action.dest in CONFIGURED.get(command, ())
        name = {"augment": "augmentation"}.get(action.dest, action.dest)
        if name in settings or (not is_setting and name in flags):
            continue
        if asks_for_what_is_so(flag, action, refused):
            continue
        if is_refused(command, [*argv, flag, *value_of(command, action)], capsys, monkeypatch):
            refused.add(flag)
        else:
            idle.append(flag)
    assert not idle, f"neither effective nor refused: {' '.join(idle)}"


def asks_for_what_is_so(flag, action, refused):
    """Whether a flag says on of what is always on, or off of what cannot act."""
    if not isinstance(action, argparse.BooleanOptionalAction):
        return False
    if flag.startswith("--no-"):
        return not action.default or f"--{action.dest}" in refused
    return action.default is True and action.dest == "shuffle"


def stub_that_reads(config, *, seed=None):
    """The stub in place of the network; `summary` shows that the real one reads all settings."""
    for each in dataclasses.fields(config):
        if each.name != "hidden_size" or config.hidden_layers:
            getattr(config, each.name)
    return build_stub(config, seed=seed)


def test_all_commands_have_modes():
    assert COMMANDS.keys() == MODES.keys() | OF_AN_INDEX | OTHERS


def test_the_table_names_flags_that_there_are():
    """The doctor shares rows with train, and has not all of their flags."""
    for command, rows in flag_table.TABLE.items():
        parsers = [make_parser(command)]
        if command == "doctor":
            parsers.append(make_parser("train"))
        for action in parsers[0]._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        known = {flag for parser in parsers for flag in parser._option_string_actions}
        named = {flag for names, _ in rows for flag in names}
        assert named <= known, (command, named - known)


def test_a_flag_that_is_taken_out_of_the_table_is_noticed(folder, monkeypatch, capsys):
    rows = [row for row in flag_table.TABLE["train"] if "--temperature" not in row[0]]
    monkeypatch.setitem(flag_table.TABLE, "train", rows)
    with pytest.raises(AssertionError, match="--temperature"):
        test_every_flag_is_effective_or_refused(
            folder, monkeypatch, capsys, "train", MODES["train"][0]
        )


def test_values_of_a_recipe_are_not_given():
    argv = ["--recipe", "laptop", "--dataset", "photos"]
    assert given_flags(make_parser("train"), argv) == {"--recipe", "--dataset"}
    assert np.all([flag not in argv for flag in ("--batches", "--cache_features")])
