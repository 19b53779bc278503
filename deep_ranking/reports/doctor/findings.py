"""What a finding is: what is wrong, how bad it is, how to mend it, and the images it is about.

Every check of the doctor returns findings of this one form, so text, JSON and page show them alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAILS, WARNING, NOTE = "fails", "warning", "note"
SEVERITIES = (FAILS, WARNING, NOTE)
MOST_KEPT = 1000  # groups of images that a finding keeps; it counts all
KINDS = {  # severity of each kind of finding, and its title on the page
    "broken": (WARNING, "Broken images"),  # or FAILS: training would stop there
    "wrong_extension": (NOTE, "Wrong file extensions"),
    "no_images": (FAILS, "No image can be read"),
    "no_triplets": (FAILS, "Nothing to learn from"),
    "unreadable_classes": (WARNING, "Classes without a readable image"),
    "classes_of_one": (WARNING, "Classes of one image"),
    "imbalance": (WARNING, "Imbalance"),
    "outside_classes": (NOTE, "Images in no class"),
    "unlistable": (NOTE, "Files that cannot be listed"),
    "links_seen_again": (NOTE, "Links to folders already listed"),
    "unreadable_folders": (WARNING, "Folders that may not be read"),
    "without_reader": (WARNING, "Images without a reader"),
    "system_folders": (NOTE, "Folders of the system"),
    "other_files": (NOTE, "Other files"),
    "hidden": (NOTE, "Hidden files"),
    "near_equal_names": (WARNING, "Nearly equal names of classes"),
    "empty_folders": (NOTE, "Folders without images"),
    "validation_share": (FAILS, "Too few classes to hold back"),
    "copies_across_splits": (WARNING, "Copies across splits"),
    "near_copies_across_splits": (WARNING, "Near-copies across splits"),
    "copies_across_classes": (WARNING, "Copies across classes"),
    "near_copies_across_classes": (WARNING, "Near-copies across classes"),
    "copies_inside_classes": (NOTE, "Copies inside classes"),
    "near_copies_inside_classes": (NOTE, "Near-copies inside classes"),
    "shared_classes": (WARNING, "Classes also trained on"),
    "small": (NOTE, "Small images"),
    "long": (NOTE, "Long images"),
    "odd_size": (NOTE, "Images of another size"),
    "stretched_range": (NOTE, "16-bit images that use a part of their range"),
    "first_bands": (NOTE, "Images of many bands"),
    "on_black": (NOTE, "White drawings on a transparent background"),
    "colour_modes": (NOTE, "Colour modes"),
    "modes_tell_classes": (WARNING, "Classes that differ by colour mode"),
    "mislabelled": (WARNING, "Likely mislabelled"),
    "disk": (FAILS, "Disk"),
    "memory": (WARNING, "Memory"),
    "long_training": (WARNING, "Time"),
}


@dataclass(frozen=True)
class Item:
    """An image that a finding is about.

    Attributes:
        path: path to show: relative to the data set, or whole if the image lies outside.
        file: path to open.
        detail: text to show beside it: its problem, its class or its size.
    """

    path: str
    file: Path
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a data set.

    Attributes:
        kind: name of the check, for programs.
        severity: "fails", training would stop before its end; "warning", it would learn worse or
            be judged wrongly; "note", worth knowing.
        what: one line.
        suggestion: one line, how to mend it.
        groups: the images, at most `MOST_KEPT` groups of images that belong together.
        num_groups: number of groups in all.
    """

    kind: str
    severity: str
    what: str
    suggestion: str
    groups: tuple[tuple[Item, ...], ...] = field(default=())
    num_groups: int = 0

    @property
    def title(self) -> str:
        """Title of its section on the page."""
        return KINDS[self.kind][1]

    def as_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "what": self.what,
            "suggestion": self.suggestion,
            "count": self.num_groups,
            "images": [
                [{"path": item.path, "detail": item.detail} for item in group]
                for group in self.groups
            ],
        }


def make_finding(
    kind: str,
    what: str,
    suggestion: str,
    groups: Iterable[Sequence[Item]] = (),
    *,
    severity: str | None = None,
) -> Finding:
    """Return a finding that counts all groups and keeps the first `MOST_KEPT`.

    Its severity is that of its kind in `KINDS`, unless it is given.
    """
    kept, count = [], 0
    for group in groups:
        if count < MOST_KEPT:
            kept.append(tuple(group))
        count += 1
    return Finding(kind, severity or KINDS[kind][0], what, suggestion, tuple(kept), count)
