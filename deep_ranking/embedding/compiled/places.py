"""Where the compiled files of a model lie, and which of them are trusted.

A compiled file lies beside its model file, NAME.FINGERPRINT.PRECISION.litert, and the model file
names its digest. Where the model's folder or file cannot be written, it lies in the cache folder,
and a record there names its digest. No other file is ever opened.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from deep_ranking.embedding.compiled.file import CompiledModel, read_compiled, write_compiled
from deep_ranking.embedding.compiled.names import PRECISIONS, SUFFIX
from deep_ranking.files import InputError, atomic_path, make_folder, read_text_file
from deep_ranking.files.cache_folder import cache_folder
from deep_ranking.model.header import (
    COMPILED_ATTRIBUTE,
    ModelHeader,
    digests_from_json,
    read_digests,
    store_attribute,
)

FOLDER, RECORD = "compiled", "digests.json"
NAME_DIGITS = 12  # of the fingerprint, in the name


class KeptModel(NamedTuple):
    """A compiled model that was read, its file, and the SHA-256 of that."""

    path: Path
    digest: str
    compiled: CompiledModel


def compiled_path(model: Path, fingerprint: str, precision: str) -> Path:
    """Return where the compiled file of a model lies: beside the file, behind links."""
    model = model.resolve() if model.is_symlink() else model
    return model.with_name(f"{model.stem}.{fingerprint[:NAME_DIGITS]}.{precision}{SUFFIX}")


def compiled_precisions(model: Path, header: ModelHeader) -> list[str]:
    """Return the precisions in which a model is compiled, the most exact first."""
    return [each for each in PRECISIONS if _places(model, header, each)]


def open_compiled(model: Path, header: ModelHeader, precision: str) -> KeptModel | None:
    """Read the compiled file of a model; None if the model is not compiled.

    Args:
        model: the model file.
        header: its header.
        precision: one of `PRECISIONS`.

    Raises:
        InputError: it is compiled, but none of its compiled files can be used; with the reason.
    """
    failure = None
    for path, digest in _places(model, header, precision):
        try:
            found = read_compiled(path, digest)
        except FileNotFoundError:
            failure = failure or InputError(f"{path}: missing, though the model names it")
            continue
        except InputError as error:
            failure = error
            continue
        if (found.header.fingerprint, found.header.precision) == (header.fingerprint, precision):
            return KeptModel(path, digest, found)
        failure = InputError(f"{path}: compiled from another model")
    if failure is not None:
        raise failure
    return None


def keep_compiled(model: Path, compiled: CompiledModel) -> Path:
    """Write a compiled model beside its model file, or else into the cache folder.

    Earlier compiled files of the same name and precision, of what the model file was before, are
    removed.

    Args:
        model: the model file.
        compiled: what to write.

    Returns:
        The file.

    Raises:
        InputError: neither can be written, or the disk is full.
    """
    header = compiled.header
    path = compiled_path(model, header.fingerprint, header.precision)
    try:
        digest = write_compiled(path, compiled)
    except (InputError, OSError):  # a folder that is read-only, or full; a name that is too long
        return _keep_in_cache(compiled)
    try:
        _name_digest(model, header.precision, digest)
    except InputError:
        path.unlink(missing_ok=True)
        return _keep_in_cache(compiled)
    stem = path.name.removesuffix(f".{header.fingerprint[:NAME_DIGITS]}.{header.precision}{SUFFIX}")
    earlier = re.compile(rf"{re.escape(stem)}\.[0-9a-f]{{{NAME_DIGITS}}}\.{header.precision}")
    for each in path.parent.glob(f"*{SUFFIX}"):
        if each != path and earlier.fullmatch(each.stem):
            each.unlink(missing_ok=True)
    return path


def copy_compiled(model: Path, header: ModelHeader, copy: Path) -> None:
    """Copy the compiled files of a model beside a copy of the model file, which then names them.

    Good files that the copy has already stay: the rows of a collection were computed by these.

    Args:
        model: the model file.
        header: its header.
        copy: the copy of the model file.
    """
    digests, named = {}, read_digests(copy)
    for precision in PRECISIONS:
        target = compiled_path(copy, header.fingerprint, precision)
        own = [(target, named[precision])] if precision in named else []
        for path, digest in [*own, *_places(model, header, precision)]:
            with suppress(FileNotFoundError, InputError):
                read_compiled(path, digest)
                if path != target:
                    with atomic_path(target) as temporary:
                        shutil.copyfile(path, temporary)
                digests[precision] = digest
                break
    if digests and digests != named:
        store_attribute(copy, COMPILED_ATTRIBUTE, json.dumps(digests))


@contextmanager
def compiling(fingerprint: str, precision: str) -> Iterator[None]:
    """Let one process at a time compile a model; others wait, and then find what it made.

    Without a cache folder that can be written to, or on a file system without locks, two may
    compile the same; the last one counts.
    """
    from filelock import FileLock

    lock = None
    with suppress(InputError, OSError, NotImplementedError):  # the last: filelock, of no locks
        if (folder := cache_folder()) is not None:
            lock = FileLock(make_folder(folder / FOLDER) / f"{fingerprint}.{precision}.lock")
            lock.acquire()
    try:
        yield
    finally:
        if lock is not None and lock.is_locked:
            lock.release()


def _places(model: Path, header: ModelHeader, precision: str) -> list[tuple[Path, str]]:
    """Return the files that may hold a compiled model, each with the digest it must have."""
    places = []
    if precision in header.compiled:
        path = compiled_path(model, header.fingerprint, precision)
        places.append((path, header.compiled[precision]))
    folder = _cache_of(header.fingerprint)
    if folder is not None and (digest := _recorded(folder).get(precision)):
        places.append((folder / f"{precision}{SUFFIX}", digest))
    return places


def _keep_in_cache(compiled: CompiledModel) -> Path:
    header = compiled.header
    folder = _cache_of(header.fingerprint)
    if folder is None:
        raise InputError("neither the model's folder nor a cache folder can be written to")
    make_folder(folder)
    path = folder / f"{header.precision}{SUFFIX}"
    digest = write_compiled(path, compiled)
    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(_recorded(folder) | {header.precision: digest}))
    return path


def _cache_of(fingerprint: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / FOLDER / fingerprint


def _recorded(folder: Path) -> dict[str, str]:
    with suppress(OSError, InputError):
        return digests_from_json(read_text_file(folder / RECORD, hint="remove it"))
    return {}


def _name_digest(model: Path, precision: str, digest: str) -> None:
    """Let a model file name a compiled file."""
    digests = read_digests(model)
    if digests.get(precision) != digest:
        store_attribute(model, COMPILED_ATTRIBUTE, json.dumps(digests | {precision: digest}))
