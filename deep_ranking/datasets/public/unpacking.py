"""Unpack an archive of unknown origin: only into one folder, and only a bounded amount.

The kind (zip, tar or tar.gz) is recognised by the first bytes. The whole archive is refused if a
member's path leads out of the folder, is absolute or holds control characters, if a member is a
link or a device, or if there is too much of it.
"""

import gzip
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from deep_ranking.files import InputError, open_regular
from deep_ranking.files.progress_bar import progress_bar

MAX_BYTES = 16 << 30  # of all members of an archive together, unpacked
MAX_MEMBERS = 2_000_000
BLOCK = 1 << 20


@dataclass(frozen=True)
class _Member:
    """A file in an archive, with the checked `parts` of its path; `open` opens it for reading."""

    parts: tuple[str, ...]
    num_bytes: int
    open: Callable[[], IO[bytes]]


class _RefusedError(Exception):
    """The archive would do something that an archive of images never does."""


def unpack(
    archive: Path, folder: Path, *, wanted: Callable[[str], bool], progress: bool = False
) -> int:
    """Unpack the wanted files of an archive, and return how many.

    Hidden files, and those in hidden folders or in the __MACOSX that Macs add, are skipped.

    Args:
        archive: a zip, tar or tar.gz file.
        folder: empty folder to unpack to. Files unpacked before an error stay in it.
        wanted: tells whether to write a file, by its name without its folders.
        progress: whether to show a progress bar on standard error, if that is a terminal.

    Raises:
        InputError: it is not such an archive, is broken or cut off, or is refused; see above.
    """
    num_files = num_bytes = 0
    try:
        with (
            open_regular(archive) as file,
            progress_bar(
                total=archive.stat().st_size, title="unpacking", unit="B", shown=progress
            ) as bar,
        ):
            for number, member in enumerate(_members(file), start=1):
                num_bytes += member.num_bytes
                if number > MAX_MEMBERS:
                    raise _RefusedError(f"more than {MAX_MEMBERS:,} files in it")
                if num_bytes > MAX_BYTES:
                    raise _RefusedError(f"more than {MAX_BYTES:,} bytes when unpacked")
                is_hidden = any(part[0] == "." or part == "__MACOSX" for part in member.parts)
                if not is_hidden and wanted(member.parts[-1]):
                    _write(member, folder.joinpath(*member.parts))
                    num_files += 1
                bar.update(max(0, file.tell() - bar.n))
    except _RefusedError as error:
        raise InputError(f"{archive}: refused: {error}") from None
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{archive}: broken or cut archive ({error}); get it again") from None
    except (NotImplementedError, RuntimeError) as error:  # from zipfile: encrypted, odd compression
        raise InputError(f"{archive}: cannot be unpacked ({error})") from None
    return num_files


def _write(member: _Member, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
            written = target.tell()
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        name = "/".join(member.parts)
        raise _RefusedError(f"{name!r} is a file and a folder, or lies below a file") from None
    if written != member.num_bytes:
        raise EOFError(f"{'/'.join(member.parts)!r} ends early")


def _parts(name: str) -> tuple[str, ...]:
    """Check a member's path, and return its folders and file name."""
    shown = repr(name[:200])
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        raise _RefusedError(f"the path {shown} is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _RefusedError(f"the path {shown} climbs out of its folder")
    if "\\" in name or any(unicodedata.category(each) == "Cc" for each in name):
        raise _RefusedError(f"the path {shown} holds a backslash or a control character")
    return parts


def _members(file: IO[bytes]) -> Iterator[_Member]:
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(b"PK"):
        return _zip_members(file)
    return _tar_members(file, is_gzip=magic.startswith(b"\x1f\x8b"))


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            parts = _parts(info.orig_filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: not stored
                raise _RefusedError(f"{info.filename!r} is a link or a device")
            if parts and not info.is_dir():
                yield _Member(parts, info.file_size, partial(archive.open, info))


def _tar_members(file: IO[bytes], *, is_gzip: bool) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:gz" if is_gzip else "r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all in memory
            parts = _parts(info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse() or info.size < 0:
                raise _RefusedError(f"{info.name!r} is a link, a device or a sparse file")
            if parts:
                # `extractfile` returns None only for other than regular files.
                opener = cast(Callable[[], IO[bytes]], partial(archive.extractfile, info))
                yield _Member(parts, info.size, opener)
        _check_end(archive)


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise an error if the end mark is missing, or if the checksum of the whole is wrong.

    `TarFile.next` also stops at a broken header, and where a file is cut off between two members.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it ends without the end mark of a tar file")
    num_bytes = 0
    while block := archive.fileobj.read(BLOCK):  # at its end, gzip checks its checksum
        num_bytes += len(block)
        if num_bytes > MAX_BYTES:
            raise _RefusedError(f"more than {MAX_BYTES:,} bytes when unpacked")
