"""Check that a file is still what was embedded, before it or its duplicates are moved."""

import os
import stat
from pathlib import Path

from deep_ranking.files.content_digest import Status, content_digest, file_status
from deep_ranking.search.keeper import DuplicateImage


class VerifiedFiles:
    """Hashes files again before a move, each once as long as it does not change.

    Args:
        root: folder of the images.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._known: dict[str, Status] = {}

    def problem(self, image: DuplicateImage, keeper: DuplicateImage) -> str:
        """Return why an image must not be moved now; "" if it may be."""
        return self._change(image) or self._change(keeper) or self._sameness(image, keeper)

    def _sameness(self, image: DuplicateImage, keeper: DuplicateImage) -> str:
        """Return whether both are one name of one file, by which both would go; "" if not."""
        path, kept = self._root / image.path, self._root / keeper.path
        try:
            if os.path.samefile(path, kept) and path.stat().st_nlink < 2:
                return f"{image.path} is {keeper.path} under another name"
        except OSError as error:
            return f"{image.path} is gone ({error.strerror})"
        return ""

    def _change(self, image: DuplicateImage) -> str:
        """Return how a file differs from the one that was embedded; "" if it does not."""
        path = self._root / image.path
        folder = os.path.dirname(image.path)
        try:
            before = path.lstat()
            # If a link moves, it may lead nowhere; if it is kept, its target may be moved.
            if stat.S_ISLNK(before.st_mode):
                return f"{image.path} is a link"
            if os.path.realpath(path.parent) != os.path.normpath(
                os.path.join(self._real_root, folder)
            ):
                return f"{image.path} is reached through a link"
            status = file_status(before)
            if self._known.get(image.path) == status:
                return ""
            same = before.st_size == image.num_bytes and content_digest(path) == image.content
            if same and file_status(path.lstat()) == status:
                self._known[image.path] = status
                return ""
        except OSError as error:
            return f"{image.path} is gone ({error.strerror})"
        return f"{image.path} has changed since it was embedded"
