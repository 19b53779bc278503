"""Move duplicates to a folder, and move them back; no file is ever overwritten or deleted.

The folder has an undo file, `undo.jsonl`. Each line is a JSON object, {"from": PATH, "to": PATH}:
where the image was and, relative to the undo file, where it went. Each line is on disk before its
image moves, so the file knows every move even if the program was stopped. Later moves are appended.
The folder can be moved as a whole, including its undo file.
"""

import errno
import filecmp
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from deep_ranking.files import InputError, make_folder, open_regular
from deep_ranking.files.words import byte_size, counted
from deep_ranking.files.writing import sync_folder
from deep_ranking.search.keeper import DuplicateImage
from deep_ranking.search.kept_groups import DuplicateGroup
from deep_ranking.search.links import freed_bytes
from deep_ranking.search.verified_files import VerifiedFiles

UNDO_FILE = "undo.jsonl"
LINE_START = b'{"from": '
COPY_PREFIX = ".moving-"
# Errors that mean that no hard link is possible: another file system, or one without hard links.
NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass
class MoveReport:
    """The result of a move.

    Attributes:
        num_images: images moved.
        num_bytes: the space that they take; a file with several names (hard links) takes none
            before all of them are moved.
        in_place: images that were back in their old place already.
        left: path and reason of each image that was not moved.

    Example:
        >>> MoveReport(num_images=3, num_bytes=2048)
        3 images moved, 2.0 KiB; 0 already in place, 0 not moved
    """

    num_images: int = 0
    num_bytes: int = 0
    in_place: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)

    def __repr__(self) -> str:
        return (
            f"{counted(self.num_images, 'image')} moved, {byte_size(self.num_bytes)}; "
            f"{self.in_place:,} already in place, {len(self.left):,} not moved"
        )


def check_folder(folder: Path, root: Path, index: Path) -> None:
    """Refuse a folder where duplicates would be indexed again or lost.

    Args:
        folder: target folder for the duplicates; it need not exist.
        root: folder of the images.
        index: folder of the collection.

    Raises:
        InputError: the target folder lies in the folder of the images and is not hidden, contains
            that folder, or lies in the folder of the collection.
    """
    real, real_root, real_index = (Path(os.path.realpath(each)) for each in (folder, root, index))
    if real.is_relative_to(real_root):
        inner = real.relative_to(real_root).parts
        if not any(part.startswith(".") for part in inner):
            raise InputError(
                f"{folder}: lies in the folder of the images, {root}, so `index` would add them "
                "again; name a folder outside it, or a hidden one, such as "
                f"{root / '.duplicates'}"
            )
    elif real_root.is_relative_to(real):
        raise InputError(
            f"{folder}: contains the folder of the images, {root}; name a separate folder"
        )
    if real.is_relative_to(real_index):
        raise InputError(f"{folder}: lies in the index; name a separate folder")


def move_aside(groups: Sequence[DuplicateGroup], root: Path, folder: Path) -> MoveReport:
    """Move all images except the keepers into a folder; keep their paths relative to the root.

    Before an image is moved, its file and the keeper's are hashed again: it stays in place if
    either is not what was embedded, or if a link leads to it. If the target name is taken, the
    image gets a new one: "name (2).jpg".

    Args:
        groups: groups from `find_duplicates`.
        root: folder of the images.
        folder: target folder, checked by `check_folder`.

    Returns:
        The numbers of images and bytes moved, and the images left in place.

    Raises:
        InputError: the folder or its undo file cannot be written.
    """
    make_folder(folder)
    file = folder / UNDO_FILE
    lines = list(_read_undo(file)) if file.exists() else []
    _remove_unfinished_copies(folder, lines)
    promised = {to: source for source, to in lines}
    moved, gone = MoveReport(), []
    files = VerifiedFiles(root)
    try:
        with file.open("a+b") as undo:
            if undo.tell():  # end a last line that was cut off
                undo.seek(-1, os.SEEK_END)
                if undo.read() != b"\n":
                    undo.write(b"\n")
            sync_folder(folder)
            for group in groups:
                for image in group.others:
                    problem = image.why_it_stays or files.problem(image, group.keeper)
                    if not problem:
                        problem = _move_aside_one(image, root, folder, undo, promised)
                    if not problem:
                        moved.num_images += 1
                        gone.append(image)
                    else:
                        moved.left.append((image.path, problem))
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from None
    moved.num_bytes = freed_bytes(gone)
    return moved


def move_back(file: str | os.PathLike[str]) -> MoveReport:
    """Move all images of an undo file back to their old places.

    Images that are in their old place already are skipped, so this may run again, also after it was
    stopped. If a file with the same bytes is in the old place, as after a move that was stopped
    between copying and removing, it stays, and the one in the folder is removed.

    Args:
        file: an undo file.

    Returns:
        The numbers of images and bytes moved; `left` has images that are in neither place, and
        images whose old place holds another file.

    Example:
        >>> _ = find_duplicates("photos.index", threshold=0).move_aside("copies")
        >>> move_back("copies/undo.jsonl")
        1 image moved, ...

    Raises:
        InputError: it is not an undo file.
    """
    file = Path(file)
    lines = list(_read_undo(file))
    _remove_unfinished_copies(file.parent, lines)
    moved = MoveReport()
    for source, to in reversed(lines):
        image = file.parent / to
        there, back = os.path.lexists(image), os.path.lexists(source)
        if not there:
            if back:
                moved.in_place += 1
            else:
                moved.left.append((source, f"is no longer at {image}"))
            continue
        if back and not _is_same(source, image):
            moved.left.append((source, f"another file is in its old place; left at {image}"))
            continue
        try:
            num_bytes = image.stat().st_size
            Path(source).parent.mkdir(parents=True, exist_ok=True)
            _move(image, Path(source))
        except OSError as error:
            moved.left.append((source, f"{error.strerror or error}; left at {image}"))
        else:
            moved.num_images += 1
            moved.num_bytes += num_bytes
    return moved


def _move_aside_one(
    image: DuplicateImage, root: Path, folder: Path, undo: IO[bytes], promised: dict[str, str]
) -> str:
    """Write a move to the undo file, then make it; return the reason if it fails, or ""."""
    source = os.path.abspath(root / image.path)
    to = _free_name(folder, image.path, source, promised)
    line = json.dumps({"from": source, "to": to}) + "\n"
    undo.write(line.encode())
    undo.flush()
    os.fsync(undo.fileno())
    promised[to] = source
    try:
        (folder / to).parent.mkdir(parents=True, exist_ok=True)
        _move(Path(source), folder / to)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _free_name(folder: Path, path: str, source: str, promised: dict[str, str]) -> str:
    """Return a path in the folder that is neither taken nor promised to another image."""
    plain = PurePosixPath(path)
    number, name = 1, path

    def is_free() -> bool:
        taken = os.path.lexists(folder / name)
        if name not in promised:
            return not taken
        # An earlier move of the same image was stopped.
        return promised[name] == source and (not taken or _is_same(source, folder / name))

    while not is_free():
        number += 1
        name = str(plain.with_name(f"{plain.stem} ({number}){plain.suffix}"))
    return name


def _move(source: Path, target: Path) -> None:
    """Move a file to a free name, or finish a move that was stopped.

    Make a hard link first, because renaming would overwrite a file that appeared there meanwhile.
    After a stop, the file has one of the names or both.

    Raises:
        OSError: the target is another file, or cannot be written.
    """
    if not _is_same(source, target) and not _link(source, target):
        _copy(source, target)
    sync_folder(target.parent)
    source.unlink()


def _is_same(source: str | Path, target: Path) -> bool:
    """Return whether both names have the same file or the same bytes, as after a stopped move."""
    try:
        return os.path.samefile(source, target) or filecmp.cmp(source, target, shallow=False)
    except OSError:  # one of them does not exist
        return False


def _link(source: Path, target: Path) -> bool:
    """Make a hard link; return False where none is possible, and the target is free."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK or os.path.lexists(target):
            raise
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a file, with its times and permissions, to a free name."""
    descriptor, name = tempfile.mkstemp(prefix=COPY_PREFIX, dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb") as copied:
            os.fsync(copied.fileno())
        if not _link(temporary, target):
            temporary.rename(target)  # a file system without hard links
    finally:
        temporary.unlink(missing_ok=True)


def _remove_unfinished_copies(folder: Path, lines: Sequence[tuple[str, str]]) -> None:
    """Remove temporary copies that killed moves left behind, by the lines of the undo file."""
    places = {Path(source).parent for source, _ in lines}
    places |= {(folder / to).parent for _, to in lines}
    for place in sorted(places):
        for left in place.glob(f"{COPY_PREFIX}????????"):
            with suppress(OSError):
                left.unlink()


def _read_undo(file: Path) -> Iterator[tuple[str, str]]:
    """Yield "from" and "to" of each line; skip cut-off lines: their moves were not made.

    Raises:
        InputError: it is not an undo file.
    """
    try:
        with open_regular(file) as handle:
            lines = handle.read().splitlines()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            source, to = values["from"], values["to"]
            inner = PurePosixPath(to)
            legal = os.path.isabs(source) and not inner.is_absolute() and ".." not in inner.parts
        except (ValueError, RecursionError):
            if line[: len(LINE_START)] == LINE_START[: len(line)]:
                continue
            legal = False
        except (TypeError, LookupError):
            legal = False
        if not legal:
            raise InputError(f"{file}:{number}: not a line of an undo file; nothing is moved")
        yield source, to
