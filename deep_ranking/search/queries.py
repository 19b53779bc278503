"""The images that are searched with: files and folders, as they are named."""

import os
from collections.abc import Sequence
from pathlib import Path

from deep_ranking.files import InputError
from deep_ranking.files.path_forms import existing_form
from deep_ranking.images import find_images

PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def are_given(images: PathOrPaths) -> bool:
    """Return whether there is a path."""
    return isinstance(images, str | os.PathLike) or bool(len(images))


def list_queries(images: PathOrPaths, *, flag: str = "--image") -> dict[str, bool]:
    """Return the query images of files and folders; True for those left out if they are broken.

    A path in another Unicode normal form than the file's finds it.

    Args:
        images: files and folders.
        flag: the flag that names them, for errors.

    Raises:
        InputError: there is no such file, or a folder has no images.
    """
    given = [images] if isinstance(images, str | os.PathLike) else images
    queries: dict[str, bool] = {}
    for each in given:
        path = Path(existing_form(os.fspath(each)))
        if path.is_dir():
            queries |= dict.fromkeys(find_images(path).files(), True)
        elif path.exists():
            queries[str(path)] = False
        else:
            raise InputError(f"{each}: no such image; check {flag}")
    if not queries:
        raise InputError("no query images")
    return queries
