"""From the folders of an archive to SPLIT/CLASS/IMAGE, and the list of them, `split.csv`.

Three layouts are known, in the archive's root or in folders that hold nothing else:

- Tiny ImageNet's own: train/CLASS/images/*.JPEG, and val/images/*.JPEG with the classes in
  val/val_annotations.txt;
- splits: train/CLASS/..., and any of unseen, val, held_back and test beside it;
- classes: CLASS/..., of which some are drawn as `unseen`.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deep_ranking.files import InputError, open_regular
from deep_ranking.images import find_images, is_image_name

SPLIT_FILE = "split.csv"
COLUMNS = ["path", "label", "split"]
SPLITS = ("train", "val", "held_back", "test", "unseen")
ANNOTATIONS = "val_annotations.txt"
MAX_ANNOTATION_BYTES = 1 << 28
MIN_CLASSES = 2  # on each side: one class has nothing to be told from


@dataclass(frozen=True)
class SplitSize:
    """How much a split holds."""

    num_images: int
    num_classes: int


def is_dataset_file(name: str) -> bool:
    """Whether a file of an archive, by its name without folders, has a place in the layout."""
    return is_image_name(name) or name == ANNOTATIONS


def split_folders(root: Path) -> list[str]:
    """Give the splits of a folder, in the order of `SPLITS`; none if it holds classes."""
    names = _folders(root)
    return [name for name in SPLITS if name in names] if set(names) <= set(SPLITS) else []


def arrange_splits(
    unpacked: Path, folder: Path, *, left_out: frozenset[str], unseen_share: float, seed: int
) -> bool:
    """Move the images of an unpacked archive into SPLIT/CLASS folders.

    Args:
        unpacked: folder with what the archive held.
        folder: where to; empty.
        left_out: folders that are no class.
        unseen_share: share of the classes to draw as unseen, if the archive has no split.
        seed: decides which.

    Returns:
        Whether the archive had a split.

    Raises:
        InputError: none of the layouts, or too few classes.
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
    """List all images of SPLIT/CLASS folders in `split.csv`, and count them.

    Raises:
        InputError: a split holds no image.
    """
    counts = {}
    # A file name may hold bytes that are no UTF-8.
    with (folder / SPLIT_FILE).open(
        "w", encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for split in split_folders(folder):
            try:
                listing = find_images(folder / split)
            except InputError:
                raise InputError(f"{split}: expected one folder of images a class") from None
            for path, label in zip(listing.paths, listing.labels.tolist(), strict=True):
                writer.writerow([f"{split}/{path}", listing.classes[label], split])
            counts[split] = SplitSize(len(listing.paths), len(listing.classes))
    return counts


def read_split_file(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Give path, label and split of each image, as `split.csv` lists them.

    Raises:
        InputError: the file is missing, or something else.
    """
    path = folder / SPLIT_FILE
    try:
        with (
            open_regular(path) as handle,
            io.TextIOWrapper(
                handle, encoding="utf-8", errors="surrogateescape", newline=""
            ) as file,
        ):
            reader = csv.reader(file, strict=True)
            if next(reader, None) != COLUMNS:
                raise InputError(f"{path}:1: expected the columns {', '.join(COLUMNS)}")
            for row in reader:
                if len(row) != len(COLUMNS):
                    raise InputError(f"{path}:{reader.line_num}: expected path, label and split")
                yield row[0], row[1], row[2]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a split file ({error})") from None


def _arrange_tiny_imagenet(root: Path, folder: Path) -> None:
    for name in _folders(root / "train"):
        images = root / "train" / name / "images"
        if images.is_dir():
            (folder / "train").mkdir(exist_ok=True)
            images.rename(folder / "train" / name)
    annotations = root / "val" / ANNOTATIONS
    classes = set(_folders(folder / "train")) if (folder / "train").is_dir() else set()
    if annotations.stat().st_size > MAX_ANNOTATION_BYTES:
        raise InputError(f"val/{ANNOTATIONS}: longer than a list of images should be")
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"val/{ANNOTATIONS}: not a text file") from None
    for number, line in enumerate(lines, start=1):
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
    """Go down folders that hold one folder and nothing else, but not into a split or a class."""
    while True:
        inner = list(folder.iterdir())
        if len(inner) != 1 or inner[0].name in SPLITS or not inner[0].is_dir():
            return folder
        if not _folders(inner[0]):
            return folder
        folder = inner[0]


def _draw(classes: list[str], share: float, seed: int) -> set[str]:
    """Draw the classes that are to be unseen."""
    count = max(MIN_CLASSES, round(share * len(classes)))
    if len(classes) - count < MIN_CLASSES:
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
