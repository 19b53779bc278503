"""The list of shards: a text file with the folder of a shard in each line.

    # photos.shards: three machines, one collection
    /mnt/one/photos.index
    /mnt/two/photos.index
    three.index

A folder that does not begin with "/" starts from the folder of the list. Empty lines and lines that
begin with # count nothing.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from deep_ranking.files import InputError, read_text_file

MOST_SHARDS = 1 << 16
HINT = "expected a list of shards: the folder of an index in each line"


def listed_shards(given: Iterable[Path]) -> list[Path]:
    """Return the folders of shards, with those of lists among them.

    Args:
        given: folders of indexes, and lists of such folders.

    Raises:
        InputError: a list is none or names nothing, or a folder is there twice.
    """
    folders = [folder for each in given for folder in (_read(each) if each.is_file() else [each])]
    seen: dict[str, Path] = {}
    for folder in folders:
        before = seen.setdefault(os.path.realpath(folder), folder)
        if before is not folder:
            raise InputError(f"{folder}: given twice; search each shard once")
    return folders


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of the path of each folder, as many as tell all of them apart.

    Example:
        >>> short_names([Path("/mnt/one/photos.index"), Path("/mnt/two/photos.index")])
        ['one/photos.index', 'two/photos.index']
    """
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for number in range(1, max(map(len, parts))):
        names = ["/".join(each[-number:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(map(str, folders))


def _read(file: Path) -> list[Path]:
    lines = read_text_file(file, hint=HINT).splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names or len(names) > MOST_SHARDS or any("\0" in name for name in names):
        raise InputError(f"{file}: {HINT}; it has {len(names):,} lines that can be folders")
    return [file.parent / name for name in names]
