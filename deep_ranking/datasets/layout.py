"""Folders of SPLIT/CLASS/IMAGE: move those of an archive there, and list them in `split.csv`.

An archive may have one of three layouts, in its root or below folders that hold nothing else:

- Tiny ImageNet's own: train/CLASS/images/*.JPEG, and val/images/*.JPEG with the classes in
  val/val_annotations.txt;
- splits: train/CLASS/..., and any of unseen, val, held_back and test beside it;
- classes: CLASS/...; some of them are drawn as `unseen`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking.datasets.folders import read_folder
from deep_ranking.datasets.splits import ordered_splits, split_kind
from deep_ranking.datasets.splitting import FEWEST_CLASSES
from deep_ranking.files import InputError, read_text_file
from deep_ranking.files.csv_lines import read_lines, write_lines
from deep_ranking.images import is_image_name

SPLIT_FILE = "split.csv"
COLUMNS = ["path", "label", "split"]
ANNOTATIONS = "val_annotations.txt"
MAX_ANNOTATION_BYTES = 1 << 28


@dataclass(frozen=True)
class SplitSize:
    """Number of images and classes of a split."""

    num_images: int
    num_classes: int


def is_dataset_file(name: str) -> bool:
    """Return whether the layout has a place for a file with this name (without its folders)."""
    return is_image_name(name) or name == ANNOTATIONS


def split_folders(root: Path) -> list[str]:
    """Return the splits of a folder, training first; none if it holds classes."""
    names = _folders(root)
    return ordered_splits(names) if all(map(split_kind, names)) else []


def arrange_splits(
    unpacked: Path, folder: Path, *, left_out: frozenset[str], unseen_share: float, seed: int
) -> bool:
    """Move the images of an unpacked archive into SPLIT/CLASS folders.

    Args:
        unpacked: folder with the content of the archive.
        folder: empty folder to move the images to.
        left_out: folders that are not classes.
        unseen_share: share of the classes to draw as unseen, if the archive has no split.
        seed: decides which classes.

    Returns:
        Whether the archive had splits.

    Raises:
        InputError: it has none of the layouts, or too few classes.
    """
    root = _root(unpacked)
    names = _folders(root)
    if (root / "val" / ANNOTATIONS).is_file() and "train" in names:
        _arrange_tiny_imagenet(root, folder)
        return True
    if splits := split_folders(root):
        for name in splits:
            (root / name).rename(folder / name)
        return True
    classes = [name for name in names if name not in left_out and _has_images(root / name)]
    if not classes:
        raise InputError("expected one folder of images a class, or train/CLASS; found none")
    unseen = _draw(classes, unseen_share, seed)
    for name in classes:
        target = folder / ("unseen" if name in unseen else "train") / name
        target.parent.mkdir(exist_ok=True)
        (root / name).rename(target)
    return False


def write_split_file(folder: Path) -> dict[str, SplitSize]:
    """List all images of SPLIT/CLASS folders in `split.csv`, and return the size of each split.

    Raises:
        InputError: a split holds no image.
    """
    counts = {}

    def lines() -> Iterator[list[str]]:
        yield COLUMNS
        for split in split_folders(folder):
            try:
                data = read_folder(folder / split, splits=False)
            except InputError:
                raise InputError(f"{split}: expected one folder of images a class") from None
            for path, label in zip(data.paths, data.items.of_images(), strict=True):
                yield [f"{split}/{path}", label, split]
            counts[split] = SplitSize(len(data), data.items.num_names)

    write_lines(folder / SPLIT_FILE, lines())
    return counts


def read_split_file(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield path, label and split of each image, as `split.csv` lists them.

    Raises:
        InputError: the file is missing, or is not a split file.
    """
    path = folder / SPLIT_FILE
    lines = read_lines(path, kind="split", hint="make the data set again")
    _, names = next(lines, (1, None))
    if names != COLUMNS:
        raise InputError(f"{path}:1: expected the columns {', '.join(COLUMNS)}")
    for line, fields in lines:
        if len(fields) != len(COLUMNS):
            raise InputError(f"{path}:{line}: expected path, label and split")
        yield fields[0], fields[1], fields[2]


def _arrange_tiny_imagenet(root: Path, folder: Path) -> None:
    for name in _folders(root / "train"):
        images = root / "train" / name / "images"
        if images.is_dir():
            (folder / "train").mkdir(exist_ok=True)
            images.rename(folder / "train" / name)
    annotations = root / "val" / ANNOTATIONS
    classes = set(_folders(folder / "train")) if (folder / "train").is_dir() else set()
    try:
        text = read_text_file(annotations, hint="get it again", max_bytes=MAX_ANNOTATION_BYTES)
    except InputError as error:
        raise InputError(str(error).removeprefix(f"{root}/")) from None
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"val/{ANNOTATIONS}:{number}"
        image, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in classes:  # so it is the name of a folder, and leads nowhere else
            raise InputError(f"{where}: class {label!r} has no folder train/{label}/images")
        if Path(image).name != image or not (root / "val" / "images" / image).is_file():
            raise InputError(f"{where}: there is no image val/images/{image}")
        target = folder / "val" / label
        target.mkdir(parents=True, exist_ok=True)
        (root / "val" / "images" / image).rename(target / image)
    if left := [path.name for path in (root / "val" / "images").glob("*")]:
        raise InputError(f"val/images/{min(left)}: val/{ANNOTATIONS} gives it no class")


def _root(folder: Path) -> Path:
    """Descend through folders that hold only one folder; stop above a split or a class."""
    while True:
        inner = list(folder.iterdir())
        if len(inner) != 1 or split_kind(inner[0].name) or not inner[0].is_dir():
            return folder
        if not _folders(inner[0]):
            return folder
        folder = inner[0]


def _draw(classes: list[str], share: float, seed: int) -> set[str]:
    """Draw the unseen classes."""
    count = max(FEWEST_CLASSES, round(share * len(classes)))
    if len(classes) - count < FEWEST_CLASSES:
        raise InputError(
            f"{len(classes)} classes are too few to draw {count} as unseen; lower --unseen_share, "
            "or take an archive with more"
        )
    drawn = np.random.default_rng([seed, 1]).permutation(len(classes))[:count]
    return {sorted(classes)[number] for number in drawn.tolist()}


def _has_images(folder: Path) -> bool:
    return any(is_image_name(path.name) for path in folder.rglob("*") if path.is_file())


def _folders(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
