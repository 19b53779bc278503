"""Two atlases of the same images -> which errors are gone, stayed and came."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_ranking.files import InputError, read_text_file
from deep_ranking.files.words import counted, listed

MAX_BYTES = 1 << 28
KINDS = {"suspects": "likely wrong labels", "wrong_nearest": "nearest of another class"}


@dataclass(frozen=True)
class KindOfChange:
    """What became of one kind of errors.

    Attributes:
        gone: paths of images with such an error before, and none now.
        stayed: with it both times.
        came: with it now alone.
    """

    gone: list[str]
    stayed: list[str]
    came: list[str]


@dataclass(frozen=True)
class AtlasChanges:
    """What became of the errors of an earlier atlas, of the images that both have.

    Attributes:
        before: the earlier file.
        kinds: by the name of a kind in atlas.json.
        num_new: images that the earlier atlas lacks.
        num_no_more: images that only it has.
    """

    before: Path
    kinds: dict[str, KindOfChange]
    num_new: int
    num_no_more: int

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the table of changes, and what it leaves out."""
        width = max(map(len, KINDS.values()))
        yield f"{f'Since {self.before}:':{width}}   gone  stayed    came"
        for name, words in KINDS.items():
            kind = self.kinds[name]
            counts = "".join(f"{len(each):>8,}" for each in (kind.gone, kind.stayed, kind.came))
            yield f"{words:{width}}{counts}"
        for name, words in KINDS.items():
            if came := self.kinds[name].came:
                yield f"New among {words}: {listed(came)}."
        if self.num_new or self.num_no_more:
            new, gone = counted(self.num_new, "new image"), f"{self.num_no_more:,} no longer there"
            yield f"Not compared: {new}, {gone}."

    def as_json(self) -> dict[str, Any]:
        """Return the changes as JSON can hold them."""
        return {
            "before": str(self.before),
            "num_new_images": self.num_new,
            "num_images_no_more": self.num_no_more,
        } | {name: vars(kind) for name, kind in self.kinds.items()}


def read_atlas(path: Path) -> dict[str, Any]:
    """Read an `atlas.json`, or that of an atlas's folder.

    Raises:
        InputError: there is none, or it is something else.
    """
    file = path / "atlas.json" if path.is_dir() else path
    text = read_text_file(file, max_bytes=MAX_BYTES, hint="evaluate --atlas DIR writes it")
    try:
        found = json.loads(text)
        if found["version"] != 1:
            raise ValueError
        for name in KINDS:
            if not all(isinstance(each["path"], str) for each in found[name]):
                raise ValueError
        if not all(isinstance(each, str) for each in found["paths"]):
            raise ValueError
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InputError(f"{file}: not what `evaluate --atlas` writes; check --before") from None
    return dict(found)


def compare_atlases(before: dict[str, Any], now: dict[str, Any], file: Path) -> AtlasChanges:
    """Return what became of each kind of errors.

    Args:
        before: as `read_atlas` returns it.
        now: `Atlas.as_json()`.
        file: where the earlier one was read from.

    Raises:
        InputError: the two have no image in common.
    """
    old, new = set(before["paths"]), set(now["paths"])
    both = old & new
    if not both:
        raise InputError(f"{file}: is of other images than {now['root']}; check --before")
    kinds = {}
    for name in KINDS:
        was = {each["path"] for each in before[name]} & both
        found = [each["path"] for each in now[name] if each["path"] in both]
        kinds[name] = KindOfChange(
            sorted(was - set(found)),
            [each for each in found if each in was],
            [each for each in found if each not in was],
        )
    return AtlasChanges(file, kinds, len(new - old), len(old - new))
