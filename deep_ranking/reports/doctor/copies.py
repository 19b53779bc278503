"""Checks for copies and near-copies in a class, across classes (label noise) or splits (leaks).

Copies are files of equal content. Near-copies are what `near_copies.group_hashes` puts together:
images compressed, resized or converted again, and some that are only similar.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import counted
from deep_ranking.images.near_copies import group_hashes
from deep_ranking.reports.doctor.findings import NOTE, WARNING, Finding, make_finding
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
    """Check for groups of copies: those across splits and classes first, then within classes."""
    readable = np.flatnonzero(survey.readable)
    if len(readable) < 2:
        return
    digests = survey.digests[readable].view(f"V{survey.digests.shape[1]}").ravel()
    contents = np.unique(digests, return_inverse=True)[1]
    content = np.zeros(len(survey), np.int64)
    content[readable] = contents
    exact = _groups(readable, contents)
    near = _groups(readable, group_hashes(survey.hashes[readable], survey.glances[readable]))

    def part_of(number: int) -> int:
        return int(survey.part[number])

    def class_of(number: int) -> int:
        return int(survey.label[number])

    for kind, groups, words in (
        ("copies", exact, "exact copies"),
        ("near_copies", [_once(group, content) for group in near], "near-copies"),
    ):
        if across := [group for group in groups if _differ(group, part_of)]:
            yield make_finding(
                f"{kind}_across_splits",
                WARNING,
                f"{counted(len(across), 'group')} of {words} across {_splits(survey, across)}: "
                "leakage",
                ACROSS_SPLITS,
                map(survey.sized_items, across),
            )
        pieces = [piece for group in groups for piece in _split(group, part_of)]
        if across := [piece for piece in pieces if _differ(piece, class_of)]:
            yield make_finding(
                f"{kind}_across_classes",
                WARNING,
                f"{counted(len(across), 'group')} of {words} across classes: label noise",
                ACROSS_CLASSES,
                map(survey.sized_items, across),
            )
    for kind, groups, word in (
        ("copies", exact, "exact copy"),
        ("near_copies", near, "near-copy"),
    ):
        inside = [
            piece
            for group in groups
            for part in _split(group, part_of)
            for piece in _split(part, class_of)
        ]
        if kind == "near_copies":
            inside = [_once(piece, content) for piece in inside]
        inside = [piece for piece in inside if len(piece) > 1]
        if inside:
            extra = sum(len(piece) - 1 for piece in inside)
            yield make_finding(
                f"{kind}_inside_classes",
                NOTE,
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


def _once(group: Sequence[int], content: Int64Array) -> list[int]:
    """Return the first image of each content: the others are exact copies of it."""
    first: dict[int, int] = {}
    for number in group:
        first.setdefault(int(content[number]), number)
    return list(first.values())


def _split(group: Sequence[int], by: Callable[[int], int]) -> Groups:
    pieces: dict[int, list[int]] = {}
    for number in group:
        pieces.setdefault(by(number), []).append(number)
    return list(pieces.values())


def _differ(group: Sequence[int], by: Callable[[int], int]) -> bool:
    return len({by(number) for number in group}) > 1


def _splits(survey: Survey, groups: Groups) -> str:
    """Return the names of the splits that groups are in: "train, val and unseen"."""
    parts = sorted({int(survey.part[number]) for group in groups for number in group})
    names = [survey.parts[part].name or "training" for part in parts]
    return f"{', '.join(names[:-1])} and {names[-1]}"
