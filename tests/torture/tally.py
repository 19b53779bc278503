"""What was tried, and what became of it."""

import sys
from dataclasses import dataclass, field, fields


@dataclass
class Tally:
    """Counts of one or more parts.

    Attributes:
        tried: hostile inputs that were given to some reader.
        accepted: of these, those that gave a right result.
        refused: of these, those that gave one clear error that names the file.
        kills: processes that were killed, after which all was as it should be.
        interrupts: commands stopped by Ctrl-C or SIGTERM that ended by one line and left nothing
            half-written.
        faults: disks that were full, folders that were closed and files that were damaged, after
            which all was as it should be.
        lost: states that were complete before, and were not there or not right afterwards.
        crashes: processes that ended by a signal of their own, or showed a traceback.
        hangs: processes that did not end in time.
        wrong: any other answer than the one that was due.
        problems: a line about each of the last four kinds.
    """

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    kills: int = 0
    interrupts: int = 0
    faults: int = 0
    lost: int = 0
    crashes: int = 0
    hangs: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, crashed, hung or answered wrongly."""
        return not (self.lost or self.crashes or self.hangs or self.wrong)

    def problem(self, kind: str, text: str) -> None:
        """Count a state lost, a crash, a hang or a wrong answer, and say at once which."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.problems.append(f"{kind}: {text}")
        print(f"  {self.problems[-1]}", file=sys.stderr, flush=True)

    def add(self, other: "Tally") -> None:
        """Add the counts of another part."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
