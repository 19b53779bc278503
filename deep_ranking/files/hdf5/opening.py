"""HDF5 files that may come from a stranger: opened, and gone through by hard links only."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from deep_ranking.files.errors import InputError
from deep_ranking.files.hdf5.heaps import longest_text

MAX_NAMES = 100_000


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    Args:
        path: the file.

    Yields:
        Its `h5py.File`.

    Raises:
        InputError: there is no such file, it is no HDF5 file, or it is cut off or damaged. An
            `InputError` of the block itself gets the path put before it.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; expected an .h5 file")
    try:
        longest_text(path)  # refuses those without an end
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read this file") from None
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        # Of the block too, where HDF5 finds only then that the file does not hang together.
        what = "cut off" if "truncated" in str(error) else "damaged, or not an HDF5 file"
        raise InputError(f"{path}: {what}; expected an .h5 file") from None


def child(group: Any, name: str) -> Any | None:
    """Give what a hard link in a group leads to, or None when there is no such link.

    Args:
        group: an h5py group.
        name: name of the link; "/" leads through groups, each by a hard link.

    Raises:
        InputError: the link is soft or external.
    """
    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or "\0" in part or part in ("", "."):
            return None
        links = group.id.links
        if not links.exists(part.encode()):
            return None
        if links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise InputError(f"{group.name}/{part} is a link that leads elsewhere; refused")
        try:
            group = group[part]
        except (TypeError, ValueError):  # h5py knows no such object
            raise InputError(f"{group.name}/{part} is of an unknown kind; refused") from None
    return group


def names_in(group: Any) -> list[str]:
    """Give the names of all links of a group, in sorted order.

    Raises:
        InputError: there are more than any file of ours has, or one is no text.
    """
    if len(group) > MAX_NAMES:
        raise InputError(f"{group.name} holds {len(group):,} names; refused")
    names = list(group)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{group.name} holds a name that is not UTF-8; refused")
    return sorted(names)
