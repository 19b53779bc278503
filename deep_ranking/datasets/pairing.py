"""Images of one thing in two domains, such as customers' photographs and a shop's pictures.

They come from a pair file, or from two folders of the same classes.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from deep_ranking.datasets.correcting import corrected
from deep_ranking.datasets.folders import read_folder, with_folder_categories
from deep_ranking.datasets.labelled import LabelledImages, Labels
from deep_ranking.datasets.tables import read_positive_pairs, relative_prefix
from deep_ranking.files import InputError
from deep_ranking.files.words import counted
from deep_ranking.images import find_images

SHOWN = 3  # names in a message


def read_pairs(
    dataset: str | os.PathLike[str],
    pairs: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    level: int | None = None,
    by_content: bool = False,
    corrections: str | os.PathLike[str] | None = None,
) -> LabelledImages:
    """Read images of items in two domains: queries, and the gallery that they are searched in.

    Args:
        dataset: folder that the paths of a pair file start from; or the folder of the queries.
        pairs: pair file, query,positive,item[,category]; or the folder of the gallery, in which
            the folders of the classes have the same names as in `dataset`.
        label: what makes an image's class in the two folders, as for `read_folder` (None: the
            folder that holds it).
        level: number of leading folders that make an item's category (None: 1 in two folders; none
            with a pair file, which may name the categories).
        by_content: as for `read_folder`, in the two folders.
        corrections: corrections file; its paths start from `dataset`.

    Returns:
        The images with their items; `gallery` says which of them are the gallery's.

    Example:
        >>> data = read_pairs("photos", "shop")
        >>> data.items.names, int(data.gallery.sum()), len(data)
        (['cat', 'dog', 'owl'], 3, 15)

    Raises:
        InputError: as `read_positive_pairs`, `read_folder` and `corrected`; the two folders
            overlap or have no class in common; or `label` or `by_content` is given with a pair
            file.
    """
    if Path(pairs).is_dir():
        folders = Path(dataset), Path(pairs)
        roots = _apart(*folders)
        parts = [
            read_folder(each, label=label, level=level or 1, splits=False, by_content=by_content)
            for each in folders
        ]
        if corrections is not None:
            parts[0] = corrected(parts[0], corrections)
        return _two_folders(folders, roots, parts)
    if Path(pairs).is_file() and (label is not None or by_content):
        name = "by_content" if label is None else "label"
        raise InputError(f"{name} has no effect with the file {pairs}, which names the items")
    data = read_positive_pairs(pairs, dataset)
    if level is not None and data.categories is None:
        data = with_folder_categories(data, level)
    if corrections is not None:
        data = corrected(data, corrections)
    assert data.pairs is not None and data.gallery is not None  # each line of the file is a pair
    num_gallery = int(data.gallery.sum())
    notes = [
        *data.notes,
        f"{counted(len(data.pairs), 'pair')}: {counted(len(data) - num_gallery, 'image')} of the "
        f"queries' domain and {num_gallery:,} of the gallery's.",
    ]
    if others := set(find_images(dataset).paths) - set(data.paths):
        notes.append(f"{counted(len(others), 'image')} of {dataset} left out: not in {pairs}.")
    return replace(data, notes=tuple(notes))


def _apart(dataset: Path, pairs: Path) -> tuple[Path, Path]:
    """Return two folders without links, after refusing them if they overlap."""
    roots = Path(os.path.realpath(dataset)), Path(os.path.realpath(pairs))
    if roots[0] in (roots[1], *roots[1].parents) or roots[1] in roots[0].parents:
        raise InputError(
            f"{pairs}: --pairs and --dataset overlap; give the folder of the queries' images as "
            "--dataset and that of the gallery's as --pairs, neither inside the other"
        )
    return roots


def _two_folders(
    folders: tuple[Path, Path], roots: tuple[Path, Path], parts: list[LabelledImages]
) -> LabelledImages:
    dataset, pairs = folders
    root = Path(os.path.commonpath(roots))
    paths, labels, categories = [], [], []
    for folder, part in zip(roots, parts, strict=True):
        prefix = relative_prefix(folder, root)
        paths += [prefix + path for path in part.paths]
        labels += part.items.of_images()
        assert part.categories is not None  # there is a level
        categories += part.categories.of_images()
    names = [set(part.items.of_images()) for part in parts]
    if not names[0] & names[1]:
        raise InputError(
            f"no class of {dataset} ({_some(names[0])}) is in {pairs} ({_some(names[1])}); name "
            "the folders of a class alike in both, or pair the images by a file"
        )
    return LabelledImages(
        root,
        paths,
        Labels.of(labels),
        Labels.of(categories),
        notes=(
            *_domain_notes(dataset, pairs, parts, names),
            *(f"{part.root}: {note}" for part in parts for note in part.notes),
        ),
        labelled_by=parts[0].labelled_by,
        gallery=np.repeat([False, True], [len(part) for part in parts]),
    )


def _domain_notes(
    dataset: Path, pairs: Path, parts: list[LabelledImages], names: list[set[str]]
) -> Iterator[str]:
    both = counted(len(names[0] & names[1]), "item")
    yield (
        f"Queries: {counted(len(parts[0]), 'image')} of {dataset}; gallery: "
        f"{counted(len(parts[1]), 'image')} of {pairs}; {both} in both."
    )
    for folder, alone in ((dataset, names[0] - names[1]), (pairs, names[1] - names[0])):
        if alone:
            yield f"{counted(len(alone), 'item')} in {folder} only, without a pair: {_some(alone)}."


def _some(names: set[str]) -> str:
    """Return some of the names in words."""
    return ", ".join(sorted(names)[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
