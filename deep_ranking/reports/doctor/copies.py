"""Copies and near-copies: inside a class, across classes (label noise), across splits (leakage).

Copies are files of the same content. Near-copies are those of `images.near_copies`: it sees
images that were compressed, resized or converted, and some that are only alike.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import counted
from deep_ranking.images.near_copies import group_hashes
from deep_ranking.reports.doctor.findings import NOTE, WARNING, Finding, finding
from deep_ranking.reports.doctor.survey import Survey

Groups = list[list[int]]

ACROSS_CLASSES = (
    "decide which class each is of, and delete the others: the same image as positive and as "
    "negative teaches nothing"
)
ACROSS_SPLITS = (
    "delete one of each: what was trained on cannot be judged on; triplet_sampler.py --split "
    "keeps copies in one part"
)
INSIDE = (
    "keep one of each: `duplicates --index` says which and sets the others aside; as they are, "
    "they are positives that teach nothing"
)


def check_copies(found: Survey) -> Iterator[Finding]:
    """Find groups of copies, by how far apart they stand; the worst first."""
    readable = np.flatnonzero(found.readable)
    if len(readable) < 2:
        return
    digests = found.digests[readable].view(f"V{found.digests.shape[1]}").ravel()
    contents = np.unique(digests, return_inverse=True)[1]
    content = np.zeros(len(found), np.int64)
    content[readable] = contents
    alike = group_hashes(found.hashes[readable], found.glances[readable])
    exact = _groups(readable, contents)
    near = _groups(readable, alike)

    def part_of(number: int) -> int:
        return int(found.part[number])

    def class_of(number: int) -> int:
        return int(found.label[number])

    for kind, groups, words in (
        ("copies", exact, ("exact copy", "exact copies")),
        ("near_copies", [_once(group, content) for group in near], ("near-copy", "near-copies")),
    ):
        if across := [group for group in groups if _differ(group, part_of)]:
            yield finding(
                f"{kind}_across_splits",
                WARNING,
                f"{counted(len(across), 'group')} of {words[1]} across {_sides(found, across)}: "
                "leakage",
                ACROSS_SPLITS,
                (_items(found, group) for group in across),
            )
        pieces = [piece for group in groups for piece in _split(group, part_of)]
        if across := [piece for piece in pieces if _differ(piece, class_of)]:
            yield finding(
                f"{kind}_across_classes",
                WARNING,
                f"{counted(len(across), 'group')} of {words[1]} across classes: label noise",
                ACROSS_CLASSES,
                (_items(found, piece) for piece in across),
            )
    for kind, groups, words in (
        ("copies", exact, ("exact copy", "exact copies")),
        ("near_copies", near, ("near-copy", "near-copies")),
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
            yield finding(
                f"{kind}_inside_classes",
                NOTE,
                f"{counted(extra, words[0], words[1])} of other images of their class, in "
                f"{counted(len(inside), 'group')}",
                INSIDE,
                (_items(found, piece) for piece in inside),
            )


def check_shared_classes(found: Survey) -> Iterator[Finding]:
    """Find classes that are trained on, and are to be unseen."""
    trained = {name for part in found.parts if part.is_trained for name in part.listing.classes}
    for part in found.parts:
        shared = sorted(trained & set(part.listing.classes)) if part.must_be_unseen else []
        if shared:
            more = f" and {len(shared) - 5:,} more" if len(shared) > 5 else ""
            yield finding(
                "shared_classes",
                WARNING,
                f"{counted(len(shared), 'class', 'classes')} of {part.name} also trained on: "
                f"{', '.join(shared[:5])}{more}",
                "judge on classes that training never sees, or the figures say nothing of new ones",
            )


def _groups(numbers: Int64Array, codes: Int64Array) -> Groups:
    """Images of one code, of codes that two or more have."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return [members.tolist() for members in np.split(numbers[order], starts) if len(members) > 1]


def _once(group: Sequence[int], content: Int64Array) -> list[int]:
    """Leave out further images of the same content, which are copies and not only near-copies."""
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


def _sides(found: Survey, groups: Groups) -> str:
    """Name the splits that groups stand in."""
    parts = sorted({int(found.part[number]) for group in groups for number in group})
    names = [found.parts[part].name or "training" for part in parts]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _items(found: Survey, group: Sequence[int]) -> list:  # type: ignore[type-arg]
    return [found.item(number, f"{found.width[number]}x{found.height[number]}") for number in group]
