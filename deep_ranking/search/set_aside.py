"""Set duplicates aside in a folder, and put them back; no file is ever overwritten or deleted.

The folder keeps an undo file, `undo.jsonl`: a JSON object a line, {"from": PATH, "to": PATH}, where
the image was and, relative to the undo file, where it went. A line is on the disk before its image
is moved, so that the file knows of every move, whenever the program was stopped; further moves are
appended. The folder may be moved as a whole, with its undo file in it.
"""

import errno
import filecmp
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from deep_ranking.files import InputError, make_folder, open_regular
from deep_ranking.search.duplicates import DuplicateGroup, DuplicateImage

UNDO_FILE = "undo.jsonl"
LINE_START = b'{"from": '
COPY = ".moving-"
# A hard link cannot be made: another file system, or one that has no hard links.
NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass
class MoveReport:
    """What was moved.

    Attributes:
        num_images: images that were moved.
        num_bytes: bytes of them.
        in_place: images that needed no move back: they are where they were.
        left: path and reason of images that were not moved.
    """

    num_images: int = 0
    num_bytes: int = 0
    in_place: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)


def check_folder(folder: Path, root: Path, index: Path) -> None:
    """Refuse a folder for duplicates where they would be indexed again, or lost.

    Args:
        folder: where they are to go; need not exist.
        root: folder of the images.
        index: folder of the collection.

    Raises:
        InputError: it lies in the images' folder and is not hidden, has that folder in it, or lies
            in the collection's folder.
    """
    real, real_root, real_index = (Path(os.path.realpath(each)) for each in (folder, root, index))
    if real.is_relative_to(real_root):
        inner = real.relative_to(real_root).parts
        if not any(part.startswith(".") for part in inner):
            raise InputError(
                f"{folder}: lies in the folder of the images, {root}, so that `index` would take "
                "them up again; name a folder outside of it, or a hidden one, such as "
                f"{root / '.duplicates'}"
            )
    elif real_root.is_relative_to(real):
        raise InputError(
            f"{folder}: has the folder of the images, {root}, in it; name a folder of its own"
        )
    if real.is_relative_to(real_index):
        raise InputError(f"{folder}: lies in the index; name a folder of its own")


def move_aside(groups: Sequence[DuplicateGroup], root: Path, folder: Path) -> MoveReport:
    """Move all images but the keepers into a folder, with their paths relative to the root.

    An image stays where it is if its file, or that of the image to keep, is not as it was when
    they were compared. Where there is another file in the folder, a new name is taken:
    "name (2).jpg".

    Args:
        groups: what `find_duplicates` found.
        root: folder of the images.
        folder: where they are to go, one that `check_folder` takes.

    Returns:
        What was moved.

    Raises:
        InputError: the folder or its undo file cannot be written.
    """
    make_folder(folder)
    file = folder / UNDO_FILE
    promised = {to: source for source, to in _read(file)} if file.exists() else {}
    _clear_copies(folder, promised.items())
    moved = MoveReport()
    try:
        with file.open("ab") as undo:
            _end_line(undo, file)
            _sync_folder(folder)
            for group in groups:
                for image in group.others:
                    problem = _problem(image, root) or _problem(group.keeper, root)
                    if problem is None:
                        problem = _move_one(image, root, folder, undo, promised)
                    if problem is None:
                        moved.num_images += 1
                        moved.num_bytes += image.num_bytes
                    else:
                        moved.left.append((image.path, problem))
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from None
    return moved


def move_back(file: Path) -> MoveReport:
    """Move all images of an undo file back to where they were.

    What is where it was is left alone, so that it may be called again, or after it was stopped.
    Where a file of the same bytes is in the old place, as after a move that was stopped between
    copying and removing, it stays, and the one in the folder goes.

    Args:
        file: an undo file.

    Returns:
        What was moved; `left` has what is in neither place, and what has another file in its place.

    Raises:
        InputError: it is no undo file.
    """
    lines = list(_read(file))
    _clear_copies(file.parent, ((to, source) for source, to in lines))
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
            moved.left.append((source, f"another file is in its place; left at {image}"))
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


def _problem(image: DuplicateImage, root: Path) -> str | None:
    """Why nothing should be moved: the file is not what was compared."""
    try:
        status = (root / image.path).lstat()
    except OSError as error:
        return f"{image.path} is gone ({error.strerror})"
    if stat.S_ISLNK(status.st_mode):
        # Moved, it might lead nowhere; kept, what it leads to might be moved.
        return f"{image.path} is a link"
    if (status.st_size, status.st_mtime_ns) != (image.num_bytes, image.changed):
        return f"{image.path} has changed"
    return None


def _move_one(
    image: DuplicateImage, root: Path, folder: Path, undo: IO[bytes], promised: dict[str, str]
) -> str | None:
    """Note a move, and make it; give the reason if it cannot be made."""
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
    return None


def _free_name(folder: Path, path: str, source: str, promised: dict[str, str]) -> str:
    """Give a path in the folder that no file has, and that no other image was promised."""
    plain = PurePosixPath(path)
    number, name = 1, path

    def is_free() -> bool:
        if name in promised:
            stopped = promised[name] == source
            return stopped and (
                _is_same(source, folder / name) or not os.path.lexists(folder / name)
            )
        return not os.path.lexists(folder / name)

    while not is_free():
        number += 1
        name = str(plain.with_name(f"{plain.stem} ({number}){plain.suffix}"))
    return name


def _move(source: Path, target: Path) -> None:
    """Move a file to a name that is free, or go on with a move that was stopped.

    Renaming would overwrite a file that came there in between; a hard link is refused then. If
    stopped, the file is there under one name or both.

    Raises:
        OSError: the target is another file, or cannot be written.
    """
    if not _is_same(source, target):
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            _copy(source, target)
    _sync_folder(target.parent)
    source.unlink()


def _is_same(source: str | Path, target: Path) -> bool:
    """Whether a move was stopped before its end: the file is under both names."""
    try:
        return os.path.samefile(source, target) or filecmp.cmp(source, target, shallow=False)
    except OSError:  # one of them is not there
        return False


def _copy(source: Path, target: Path) -> None:
    """Copy a file, with its times and permissions, to a name that is free."""
    descriptor, name = tempfile.mkstemp(prefix=COPY, dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb") as copied:
            os.fsync(copied.fileno())
        try:
            os.link(temporary, target)
        except OSError as error:
            if error.errno not in NO_LINK or os.path.lexists(target):
                raise
            temporary.rename(target)  # a file system without hard links
    finally:
        temporary.unlink(missing_ok=True)


def _clear_copies(folder: Path, moves: Iterable[tuple[str, str]]) -> None:
    """Remove the copies that killed moves left unfinished, or under a second name.

    Args:
        folder: that of the undo file.
        moves: where images went, relative to it, and where they were.
    """
    places = {
        place for to, source in moves for place in ((folder / to).parent, Path(source).parent)
    }
    for place in sorted(places):
        for left in place.glob(f"{COPY}????????"):
            with suppress(OSError):
                left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make sure that a new name outlasts a power cut, where folders can be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _end_line(undo: IO[bytes], file: Path) -> None:
    """End the last line if it was cut off, so that the next one is not lost with it."""
    if undo.tell():
        with file.open("rb") as written:
            written.seek(-1, os.SEEK_END)
            if written.read() != b"\n":
                undo.write(b"\n")


def _read(file: Path) -> Iterator[tuple[str, str]]:
    """Give from and to of each line; one that was cut off belongs to no move.

    Raises:
        InputError: it is no undo file.
    """
    try:
        with open_regular(file) as handle:
            lines = handle.read().splitlines()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            if line[: len(LINE_START)] == LINE_START[: len(line)]:
                continue
            values = None
        try:
            source, to = values["from"], values["to"]
            inner = PurePosixPath(to)
            legal = os.path.isabs(source) and not inner.is_absolute() and ".." not in inner.parts
        except (TypeError, LookupError):
            legal = False
        if not legal:
            raise InputError(f"{file}:{number}: not a line of an undo file; nothing is moved")
        yield source, to
