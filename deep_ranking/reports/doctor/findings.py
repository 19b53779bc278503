"""What a finding is: what is wrong, how bad that is, how to mend it, and which images it is about.

Everything that the doctor finds, whatever the check, has this one form, so that text, JSON and page
show it alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAILS, WARNING, NOTE = "fails", "warning", "note"
SEVERITIES = (FAILS, WARNING, NOTE)
MOST_KEPT = 1000  # groups of images that a finding keeps; it counts all


@dataclass(frozen=True)
class Item:
    """An image that a finding is about.

    Attributes:
        path: as it is shown: relative to the data set, or whole if it lies outside.
        file: where it is.
        detail: what to say beside it: its problem, its class, its size.
    """

    path: str
    file: Path
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a data set.

    Attributes:
        kind: name of the check, for programs.
        severity: "fails", training would not get to its end; "warning", it would learn worse or
            be judged wrongly; "note", worth knowing.
        what: one line.
        suggestion: one line, how to mend it.
        groups: the images, those that belong together in one group; at most `MOST_KEPT` of them.
        num_groups: how many groups there are in all.
    """

    kind: str
    severity: str
    what: str
    suggestion: str
    groups: tuple[tuple[Item, ...], ...] = field(default=())
    num_groups: int = 0

    def as_json(self) -> dict[str, Any]:
        """Give all of it as what JSON can hold."""
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


def finding(
    kind: str,
    severity: str,
    what: str,
    suggestion: str,
    groups: Iterable[Sequence[Item]] = (),
) -> Finding:
    """Make a finding of any number of groups, of which it keeps the first."""
    kept, count = [], 0
    for group in groups:
        if count < MOST_KEPT:
            kept.append(tuple(group))
        count += 1
    return Finding(kind, severity, what, suggestion, tuple(kept), count)
