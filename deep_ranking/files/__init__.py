"""Files: errors, safe opening, atomic writing, CSV lines, rows on disk, HDF5."""

from deep_ranking.files.errors import InputError, printable, without_path
from deep_ranking.files.opening import open_regular, read_text_file
from deep_ranking.files.writing import (
    atomic_folder,
    atomic_path,
    atomic_paths,
    disk_failure,
    make_folder,
)

__all__ = [
    "InputError",
    "atomic_folder",
    "atomic_path",
    "atomic_paths",
    "disk_failure",
    "make_folder",
    "open_regular",
    "printable",
    "read_text_file",
    "without_path",
]
