"""Checks for copies and near-copies in a class, across classes (label noise) or splits (leaks).

Copies are files of equal content. Near-copies are those of `images.near_copies`: images that were
compressed, resized or converted again, and some that are only similar.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from deep_ranking.files.array_types import Int32Array, Int64Array
from deep_ranking.files.words import counted
from deep_ranking.images.near_copies import group_hashes
from deep_ranking.reports.doctor.findings import Finding, make_finding
from deep_ranking.reports.doctor.survey import Survey

Groups = list[list[int]]

ACROSS_CLASSES = (
    "decide which class each belongs to, and delete the others: the same image as positive and as "
    "negative teaches nothing"
)
ACROSS_SPLITS = (
    "delete one of each: a model cannot be judged on images it was trained on; triplet_sampler.py "
    "--split keeps copies in one part"
)
INSIDE = (
    "keep one of each: `duplicates --index` says which and sets the others aside; as they are, "
    "they are positives that teach nothing"
)


def check_copies(survey: Survey) -> Iterator[Finding]:
    """Check for groups of copies across splits, across classes and within classes."""
    readable = np.flatnonzero(survey.readable)
    if len(readable) < 2:
        return
    contents = np.unique(survey.digests[readable], return_inverse=True)[1]
    content = np.zeros(len(survey), np.int64)
    content[readable] = contents
    near = group_hashes(survey.hashes[readable], survey.glances[readable])

    every = np.arange(len(survey))  # each its own: leaves none out
    for kind, word, words, groups, once in (
        ("copies", "exact copy", "exact copies", _groups(readable, contents), every),
        # Exact copies among near-copies are findings of their own.
        ("near_copies", "near-copy", "near-copies", _groups(readable, near), content),
    ):
        distinct = [_first_of_each(group, once) for group in groups]
        if across := [group for group in distinct if _differ(group, survey.part)]:
            yield make_finding(
                f"{kind}_across_splits",
                f"{counted(len(across), 'group')} of {words} across {_splits(survey, across)}: "
                "leakage",
                ACROSS_SPLITS,
                map(survey.sized_items, across),
            )
        pieces = [piece for group in distinct for piece in _split(group, survey.part)]
        if across := [piece for piece in pieces if _differ(piece, survey.label)]:
            yield make_finding(
                f"{kind}_across_classes",
                f"{counted(len(across), 'group')} of {words} across classes: label noise",
                ACROSS_CLASSES,
                map(survey.sized_items, across),
            )
        inside = [
            _first_of_each(piece, once)
            for group in groups
            for part in _split(group, survey.part)
            for piece in _split(part, survey.label)
        ]
        if inside := [piece for piece in inside if len(piece) > 1]:
            extra = sum(len(piece) - 1 for piece in inside)
            yield make_finding(
                f"{kind}_inside_classes",
                f"{counted(extra, word)} of other images of their class, in "
                f"{counted(len(inside), 'group')}",
                INSIDE,
                map(survey.sized_items, inside),
            )


def _groups(numbers: Int64Array, codes: Int64Array) -> Groups:
    """Return the images of each code that two or more images have."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return [members.tolist() for members in np.split(numbers[order], starts) if len(members) > 1]


def _first_of_each(group: Sequence[int], by: Int64Array) -> list[int]:
    return [piece[0] for piece in _split(group, by)]


def _split(group: Sequence[int], by: Int32Array | Int64Array) -> Groups:
    pieces: dict[int, list[int]] = {}
    for number in group:
        pieces.setdefault(int(by[number]), []).append(number)
    return list(pieces.values())


def _differ(group: Sequence[int], by: Int32Array | Int64Array) -> bool:
    return len(np.unique(by[group])) > 1


def _splits(survey: Survey, groups: Groups) -> str:
    """Return the names of the splits that groups are in: "train, val and unseen"."""
    parts = sorted({int(survey.part[number]) for group in groups for number in group})
    names = [survey.parts[part].name or "training" for part in parts]
    return f"{', '.join(names[:-1])} and {names[-1]}"
