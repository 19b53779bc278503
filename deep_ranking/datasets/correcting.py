"""Apply a corrections file to labelled images: other classes, and images that belong to none."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from deep_ranking.datasets.corrections import Corrections, read_corrections
from deep_ranking.datasets.labelled import LabelledImages, Labels
from deep_ranking.datasets.labels import near_equal_labels
from deep_ranking.files import InputError
from deep_ranking.files.words import counted, listed


def corrected(
    data: LabelledImages,
    corrections: Corrections | str | os.PathLike[str],
    *,
    keep_outside: bool = False,
) -> LabelledImages:
    """Return the images with corrected classes; a note says what was applied and what was not.

    An item's category is that of the item's other images. A new item is in the category that is a
    leading part of its name, or else in that which its image was in. Given pairs whose two images
    are now of different items are left out.

    Args:
        data: the images.
        corrections: of some of them, or the file.
        keep_outside: keep images that belong to no class, with the label "".

    Example:
        >>> corrected(read_folder("photos"), "corrections.csv").notes[-1]
        '1 correction applied from corrections.csv.'

    Raises:
        InputError: the file cannot be read; or none of its corrections is about these images as
            they are.
    """
    if not isinstance(corrections, Corrections):
        corrections = read_corrections(corrections)
    fit = _fit(data, corrections)
    if corrections.standing and not fit.changed and not fit.num_done:
        raise InputError(
            f"{corrections.file}: none of {counted(len(corrections), 'correction')} is about "
            f"{data.root} as it is: {fit.problems()}; check --corrections, --label and the folder "
            "that its paths start from"
        )
    found = _relabelled(data, fit.changed)
    if fit.confirmed:
        confirmed = np.zeros(len(data), bool)
        confirmed[fit.confirmed] = True
        found = replace(found, confirmed=confirmed)
    out = [row for row, name in fit.changed.items() if not name]
    if out and not keep_outside:
        kept = np.ones(len(data), bool)
        kept[out] = False
        found = found.select(kept)
    notes = _notes(corrections, fit, set(data.items.of_images()))
    return replace(found, notes=(*found.notes, *notes))


class _Fit(NamedTuple):
    """How corrections fit images.

    Attributes:
        changed: the class that each image gets, by its row; "" for none.
        num_done: corrections whose image is of the right class already.
        gone: paths that name no image.
        others: images that are of another class than they were, each in words.
        confirmed: rows of the images whose class is right, as somebody said.
    """

    changed: dict[int, str]
    num_done: int
    gone: list[str]
    others: list[str]
    confirmed: list[int]

    def problems(self) -> str:
        """Return in words why some do not fit."""
        parts = []
        if self.gone:
            parts.append(f"{counted(len(self.gone), 'image')} not there ({self.gone[0]})")
        if self.others:
            images = counted(len(self.others), "image")
            parts.append(f"{images} of another class by now ({self.others[0]})")
        return ", ".join(parts)


def _fit(data: LabelledImages, corrections: Corrections) -> _Fit:
    labels = data.items.of_images()
    row_of = {_form(path): row for row, path in enumerate(data.paths)}
    found = _Fit({}, 0, [], [], [])
    num_done = 0
    for path, each in corrections.standing.items():
        row = row_of.get(_form(path))
        if row is None:
            found.gone.append(path)
        elif labels[row] == each.to_class:
            num_done += 1
        elif each.from_class and labels[row] != each.from_class:
            found.others.append(f"{path}: {labels[row] or 'none'}, not {each.from_class}")
        else:
            found.changed[row] = each.to_class
    for path, each in corrections.right.items():
        row = row_of.get(_form(path))
        if row is not None and found.changed.get(row, labels[row]) == each.to_class:
            found.confirmed.append(row)
    return found._replace(num_done=num_done)


def _form(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _relabelled(data: LabelledImages, changed: dict[int, str]) -> LabelledImages:
    """Return the images with other items, whose categories and pairs follow."""
    labels = data.items.of_images()
    for row, name in changed.items():
        labels[row] = name
    categories = data.categories
    if categories is not None:
        of_rows = categories.of_images()
        of_items = dict(zip(data.items.of_images(), of_rows, strict=True))
        for row, name in changed.items():
            leading = [each for each in categories.names if f"{name}/".startswith(f"{each}/")]
            of_rows[row] = of_items.get(name) or max(leading, key=len, default=of_rows[row])
        categories = Labels.of(of_rows)
    items = Labels.of(labels)
    pairs = data.pairs
    if pairs is not None:
        pairs = pairs[items.codes[pairs[:, 0]] == items.codes[pairs[:, 1]]]
        if not len(pairs):
            raise InputError("the corrections leave no pair of two images of one item")
    return replace(data, items=items, categories=categories, pairs=pairs)


def _notes(corrections: Corrections, fit: _Fit, before: set[str]) -> Iterator[str]:
    file = corrections.file
    words = f"{counted(len(fit.changed), 'correction')} applied from {file}"
    if num_out := sum(not name for name in fit.changed.values()):
        words += f", {num_out:,} of them for images of no class"
    if fit.num_done:
        words += f"; {fit.num_done:,} more made in the folders already"
    if fit.confirmed:
        words += f"; {counted(len(fit.confirmed), 'label')} right, as the file says"
    if num_others := len(fit.gone) + len(fit.others):
        words += f"; {num_others:,} not applied: {fit.problems()}"
    yield f"{words}."
    if new := sorted(set(fit.changed.values()) - before - {""}):
        yield f"New by the corrections: {counted(len(new), 'class')}, {listed(new)}."
        for group in near_equal_labels([*before, *new]):
            if set(group) & set(new):
                named = " and ".join(map(repr, group))
                yield f"Nearly equal names of classes, taken as different classes: {named}."
    if corrections.cut_off:
        yield f"The last line of {file} has no line break, and is passed over: add one."
