"""Leakage: validation images that are training images too, as the same file or as a copy."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deep_ranking.config import TrainConfig
from deep_ranking.files.content_digest import PathLike, content_digests
from deep_ranking.files.errors import printable
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import counted

# How to mend it, by the setting that the validation data come from.
REMEDIES = {
    "validation_triplets": "sample both files in one run of triplet_sampler.py --split 0.9 0.1, "
    "and give its validation_triplets.txt to --validation_triplets",
    "validation_dataset": "give a folder of other images to --validation_dataset",
    "validation_share": "delete one of each copy; doctor lists them, given the same --dataset, "
    "--recipe or --batches, and --validation_share",
    "validation_split": "delete one of each copy; doctor lists them, given the same --dataset; or "
    "choose another split by --validation_split",
}


@dataclass(frozen=True)
class Leakage:
    """Validation images that are training images too.

    Attributes:
        count: how many validation images are.
        validated: the first of them.
        trained: the training image that it is.
        is_one_file: whether these two are one file, by their paths or by a link, rather than two
            files of the same content.
    """

    count: int
    validated: str
    trained: str
    is_one_file: bool


def leakage_notes(
    config: TrainConfig, trained: Sequence[PathLike], validated: Sequence[str]
) -> Iterator[str]:
    """Yield a line about validation images that are training images too, if there are any.

    Args:
        config: the run's settings, with its validation data.
        trained: the images to train on.
        validated: the images to validate on.
    """
    found = find_leakage(trained, validated)
    if found is None:
        return
    if found.validated == found.trained:
        example = f"{found.validated}, which is in both"
    else:
        relation = "the same file as" if found.is_one_file else "a copy of"
        example = f"{found.validated}, {relation} {found.trained}"
    remedy = next(text for name, text in REMEDIES.items() if getattr(config, name) is not None)
    yield (
        f"{found.count:,} of {counted(len(validated), 'validation image')} "
        f"{'is' if found.count == 1 else 'are'} also trained on, such as {printable(example)}: "
        "validation results are too good, and the best epoch, early stopping and the calibration "
        f"go by them; {remedy}."
    )


def find_leakage(trained: Sequence[PathLike], validated: Sequence[str]) -> Leakage | None:
    """Find the validation images that are training images too.

    Each file is looked up once. Only files as large as one of the other side are hashed, and of
    these only those whose content is not known yet (`content_digests`). Empty and missing files do
    not count, nor do near-copies, such as an image that was compressed again.

    Args:
        trained: the images to train on.
        validated: the images to validate on.

    Returns:
        What was found; None if no image is on both sides.
    """
    validation_files = [_file(path) for path in validated]
    sizes = {file.size for file in validation_files if file is not None}
    training_files: dict[_File, str] = {}
    for path in progress_bar(trained, title="looking for validation images", unit="images"):
        file = _file(path)
        if file is not None and file.size in sizes:
            training_files.setdefault(file, os.fspath(path))
    sizes = {file.size for file in training_files}
    same: dict[int, str] = {}  # number of a validation image -> the training image that it is
    unknown: dict[int, int] = {}  # number of a validation image -> its size
    for number, file in enumerate(validation_files):
        if file in training_files:
            same[number] = training_files[file]
        elif file is not None and file.size in sizes:
            unknown[number] = file.size
    sizes = set(unknown.values())
    candidates = [path for file, path in training_files.items() if file.size in sizes]
    found = same | _copies(candidates, {number: validated[number] for number in unknown})
    if not found:
        return None
    first = min(found)
    return Leakage(len(found), validated[first], found[first], first in same)


class _File(NamedTuple):
    """A file, whatever its path."""

    size: int
    device: int
    inode: int | str


def _file(path: PathLike) -> _File | None:
    """Return the file of a path; None if it is missing or empty."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a zero in the path
        return None
    # Some file systems number no inodes.
    inode = status.st_ino or os.path.realpath(path)
    return _File(status.st_size, status.st_dev, inode) if status.st_size else None


def _copies(trained: Sequence[str], validated: Mapping[int, str]) -> dict[int, str]:
    """Return, for the number of each validation image that is a copy, the training image."""
    if not validated:
        return {}
    digests = list(content_digests([*trained, *validated.values()]))
    originals = {
        digest: path
        for digest, path in zip(reversed(digests[: len(trained)]), reversed(trained), strict=True)
        if isinstance(digest, bytes)  # otherwise it cannot be read
    }
    return {
        number: originals[digest]
        for number, digest in zip(validated, digests[len(trained) :], strict=True)
        if isinstance(digest, bytes) and digest in originals
    }
