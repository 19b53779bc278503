"""`doctor`: what is wrong with a data set, and what training on it would take."""

import argparse
import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.cli.arguments import (
    add_config_arguments,
    add_required_path,
    check_files_exist,
    config_from,
)
from deep_ranking.cli.notes import start_tensorflow
from deep_ranking.cli.train import take_settings_of_recipe, train_config
from deep_ranking.config import (
    RELEVANCE,
    STRATEGIES,
    DataConfig,
    DrawnTripletsConfig,
    NetworkConfig,
    SamplingConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)
from deep_ranking.config.recipes import RECIPES
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.words import counted

if TYPE_CHECKING:
    from deep_ranking.reports.doctor import Estimate, Examination, Finding, Survey

DESCRIPTION = (
    "Say what is wrong with a data set before anyone trains on it: broken images, classes of one, "
    "copies and near-copies inside and across classes and splits, imbalance, odd sizes and colour "
    "modes, likely mislabels; and what training by the flags given would take on this machine. "
    "Flags of the sampler and of train.py mean what they mean there. The exit code is 1 when "
    "training would fail."
)
MOST_GROUPS, MOST_IMAGES = 3, 4  # groups of a finding, and images of each, that are printed

# Of train.py's flags those that decide which images are read, how long it takes, and how much.
DATA = (
    "batches",
    "batch_size",
    "images_per_class",
    "max_images_per_class",
    "steps_per_epoch",
    "skip_broken",
    "cache_features",
    "cached_views",
)
SAMPLING = ("num_pos_images", "num_neg_images", "strategy", "num_neighbours", "balance")
SCHEDULE = ("train_from", "epochs", "optimizer")
VALIDATION = ("validation_dataset", "validation_share")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, and those of sampler and training that it goes by."""
    suppress = argparse.SUPPRESS
    add_required_path(
        parser,
        "--dataset",
        metavar="DIR",
        help_text="folder with one folder a class; or with train, val, unseen ... of such folders, "
        "which are compared with each other",
    )
    parser.add_argument(
        "--model",
        "-m",
        type=Path,
        default=suppress,
        metavar="PATH",
        help="model file of train.py that says which images are likely mislabelled; embeds all, "
        "which takes longer than all else",
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument(
        "--html",
        type=Path,
        default=suppress,
        metavar="FILE",
        help="write a page with thumbnails of what was found",
    )
    parser.add_argument(
        "--estimate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="build the network and time a few steps, to say how long training would take, and how "
        "much memory",
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, default=suppress, help="settings of train.py --recipe"
    )
    for config, title, names in (
        (SamplingConfig, "triplets, as in the sampler", SAMPLING),
        (DrawnTripletsConfig, "folders of in-class triplets", ("level",)),
        (DataConfig, "training: data", DATA),
        (ScheduleConfig, "training: schedule", SCHEDULE),
        (ValidationConfig, "training: validation", VALIDATION),
        (TrainConfig, "training: run", ("precision",)),
    ):
        add_config_arguments(parser, config, title, only=names)
    add_config_arguments(parser, NetworkConfig, "training: network")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Look, print, write; complain at the end if training would fail."""
    args = parser.parse_args(argv)
    if not args.dataset.is_dir():
        raise InputError(f"{args.dataset}: no such folder; check --dataset")
    if hasattr(args, "model"):
        check_files_exist(args, "model")
    if hasattr(args, "html"):
        _check_output(args.html)
    from deep_ranking.reports.doctor import examine, find_parts, survey_images, verdict

    if hasattr(args, "recipe"):
        with contextlib.redirect_stdout(io.StringIO()):  # its words are those of train.py
            take_settings_of_recipe(parser, RECIPES[args.recipe], argv)
        args = parser.parse_args(argv)
    config, sampling = _settings(parser, args)
    parts = find_parts(
        args.dataset,
        validation=config.validation_dataset,
        validation_share=config.validation_share,
    )
    found = survey_images(args.dataset, parts, progress=True)
    if args.estimate or hasattr(args, "model"):
        start_tensorflow()
    examination = examine(
        found, config, sampling, model=getattr(args, "model", None), measured=args.estimate
    )
    if args.json:
        print(json.dumps(examination.as_json(), indent=2, allow_nan=False))
    else:
        _print_text(examination)
    if hasattr(args, "html"):
        from deep_ranking.reports.doctor.page import doctor_page

        with atomic_path(args.html) as temporary:
            temporary.write_text(doctor_page(examination), encoding="utf-8")
        if not args.json:
            print(f"Pictures are in {args.html}.")
    result = verdict(examination)
    if examination.fails:
        raise InputError(f"{args.dataset}: {result}")
    if not args.json:
        print(f"{result[0].upper()}{result[1:]}.")


def _settings(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[TrainConfig, SamplingConfig]:
    """The run that is planned, and how its triplets are drawn: by it, or for a file before it."""
    if getattr(args, "strategy", None) == RELEVANCE:
        others = ", ".join(each for each in STRATEGIES if each != RELEVANCE)
        parser.error(f"--strategy: the doctor counts triplets of {others}. Received: {RELEVANCE}")
    try:
        sampling = config_from(args, SamplingConfig)
    except InputError as error:
        parser.error(str(error))
    args.augment = True
    if sampling.strategy is None:  # a file is drawn beforehand; training has no flags of it
        given = {name: getattr(args, name) for name in vars(args) if name not in SAMPLING}
        args = argparse.Namespace(**given)
    return train_config(parser, args), sampling


def _check_output(path: Path) -> None:
    """Complain of what cannot be written before the long work."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: expected the name of a file to write, in a folder; --html")


def _print_text(examination: "Examination") -> None:
    _print_parts(examination.found)
    for finding in examination.findings:
        _print_finding(finding)
    if examination.estimates:
        print("Training, estimated:")
        for estimate in examination.estimates:
            _print_estimate(estimate)
        print()


def _print_parts(found: "Survey") -> None:
    for number, part in enumerate(found.parts):
        name = str(found.root)
        if part.name:
            name += f", {part.name}{' (trained on)' if part.is_trained else ''}"
        readable = int(found.readable[found.part == number].sum())
        images = counted(len(part.listing.paths), "image")
        print(
            f"{name}: {images} in {counted(len(part.listing.classes), 'class')}, {readable:,} can "
            "be read"
        )
    print(f"Read in {found.seconds:.1f} seconds.\n")


def _print_finding(finding: "Finding") -> None:
    print(f"{finding.severity.upper():8}{finding.what}")
    for group in finding.groups[:MOST_GROUPS]:
        shown = " | ".join(
            f"{item.path} ({item.detail})" if item.detail else item.path
            for item in group[:MOST_IMAGES]
        )
        more = f" | and {len(group) - MOST_IMAGES:,} more" if len(group) > MOST_IMAGES else ""
        print(f"        {shown}{more}")
    if finding.num_groups > MOST_GROUPS:
        print(f"        and {finding.num_groups - MOST_GROUPS:,} more")
    print(f"        -> {finding.suggestion}\n")


def _print_estimate(estimate: "Estimate") -> None:
    print(f"  {estimate.kind:10}{estimate.what}")
    print(f"  {'':10}-> {estimate.suggestion}")
