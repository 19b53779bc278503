"""Open HDF5 files of unknown origin, and follow only their hard links."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from deep_ranking.files.errors import InputError
from deep_ranking.files.hdf5.texts import MAX_NAMES, longest_text


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    Args:
        path: the file.

    Yields:
        Its `h5py.File`.

    Raises:
        InputError: there is no such file, it is not an HDF5 file, or it is cut off or damaged. An
            `InputError` raised by the block gets the path as prefix.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; expected an .h5 file")
    try:
        longest_text(path)  # refuses endless heaps
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read this file") from None
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        # The block raises these too, if HDF5 only then finds that the file is inconsistent.
        what = "cut off" if "truncated" in str(error) else "damaged, or not an HDF5 file"
        raise InputError(f"{path}: {what}; expected an .h5 file") from None


def child(group: Any, name: str) -> Any | None:
    """Return the target of a hard link in a group, or None if there is no such link.

    Args:
        group: an h5py group.
        name: name of the link; "/" separates groups, each reached by a hard link.

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
        except (TypeError, ValueError):  # a kind of object that h5py does not know
            raise InputError(f"{group.name}/{part} is of an unknown kind; refused") from None
    return group


def names_in(group: Any) -> list[str]:
    """Return the names of all links of a group, in sorted order.

    Raises:
        InputError: there are more than `MAX_NAMES`, or one is not text.
    """
    if len(group) > MAX_NAMES:
        raise InputError(f"{group.name} holds {len(group):,} names; refused")
    names = list(group)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{group.name} holds a name that is not UTF-8; refused")
    return sorted(names)
