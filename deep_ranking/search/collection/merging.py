"""Merge the shards of a collection, which several machines embedded, into one."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import FloatArray
from deep_ranking.search.collection.folder import Collection
from deep_ranking.search.collection.own_files import SETTINGS
from deep_ranking.search.collection.syncing import assign_rows, pending_of

ROWS_AT_ONCE = 4096


def merge(parts: Sequence[Collection], output: Path) -> Collection:
    """Merge shards into one collection. Nothing is embedded, and the shards are not changed.

    Shards are not smoothed. If the output is, the caller brings its smoothed rows up to date.

    A merge can be stopped at any instant: the next one goes on. Merging into the same folder again
    brings it up to date with the shards.

    Args:
        parts: the shards 1 to N of N, in any order.
        output: folder for the whole; the caller holds its lock.

    Returns:
        The collection; its index does not hold the new rows yet.

    Raises:
        InputError: a shard is missing, given twice, not finished, damaged, or made by another
            model or with other settings; the output is a shard, or of other images; or the disk is
            full.
    """
    check_shards(parts)
    settings = replace(parts[0].settings, shard=None, index={"kind": "exact"})
    if (output / SETTINGS).exists():
        whole = Collection.open(output)
        whole.check_model(settings.fingerprint)
        if whole.settings.shard is not None:
            raise InputError(f"{output}: is a shard itself; choose another --output")
        if whole.settings.precision != settings.precision:
            raise InputError(
                f"{output}: was computed in {whole.settings.precision}, and the shards in "
                f"{settings.precision}; choose another --output"
            )
        if whole.settings.root != settings.root:
            raise InputError(
                f"{output}: holds the images of {whole.settings.root}, and the shards those of "
                f"{settings.root}; choose another --output or, if the images were moved, run "
                f"`index --output {output} --images {settings.root}` first"
            )
    else:
        whole = Collection.make(output, settings, parts[0].model, is_complete=False)
    store = whole.store
    store.check_space(
        sum(len(part.rows()) for part in parts) - len(store), "choose another --output"
    )
    for part in parts:
        store.extend(_missing(part, set(store.keys())))
    with closing(whole.images(writable=True)) as images:
        with images.change():
            images.clear()
            for part in parts:
                with closing(part.images()) as others:
                    images.add_from(others)
        assign_rows(images, whole)
    whole.change(folders=settings.folders)
    return whole


def check_shards(parts: Sequence[Collection]) -> None:
    """Check that these are all shards of one collection.

    Raises:
        InputError: as `merge`.
    """
    first = parts[0]
    for part in parts:
        part.check_model(first.settings.fingerprint)
        for name in ("dtype", "dimension", "precision"):
            mine, other = getattr(part.settings, name), getattr(first.settings, name)
            if mine != other:
                raise InputError(
                    f"{part.folder}: has {name} {mine}, and {first.folder} {other}; shards must be "
                    "made with the same settings"
                )
        if _labelling(part) != _labelling(first):
            raise InputError(
                f"{part.folder}: takes other classes than {first.folder}: {_in_words(part)}, not "
                f"{_in_words(first)}; run `index` again on one of them with the same --label, "
                "--classes, --corrections and --splits"
            )
        if part.settings.shard is None:
            raise InputError(f"{part.folder}: is not a shard; make shards with index --shard I/N")
        with closing(part.images()) as images:
            left = len(pending_of(images, part.settings))
        if left:
            raise InputError(
                f"{part.folder}: has {left:,} images that are not embedded yet; run index --output "
                f"{part.folder} again"
            )
    shards = [part.settings.shard or (1, 1) for part in parts]
    count = shards[0][1]
    if sorted(shards) != [(number, count) for number in range(1, count + 1)]:
        given = ", ".join(f"{number}/{of}" for number, of in sorted(shards))
        raise InputError(
            f"expected each of the shards 1/{count} to {count}/{count} once, got {given}"
        )


def _labelling(part: Collection) -> dict[str, Any]:
    """Return what decides the classes; files by name: each machine has its own copy."""
    folders = dict(part.settings.folders)
    for name in {"classes", "corrections"} & set(folders):
        folders[name] = Path(folders[name]).name
    return folders


def _in_words(part: Collection) -> str:
    settings = _labelling(part)
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "label first"


def _missing(part: Collection, known: set[bytes]) -> Iterator[tuple[list[bytes], FloatArray]]:
    """Yield the keys and rows that are in use and not known, some thousands at a time.

    Rows that are not in use may be damaged: `index --checksum` mends an image, not its old row.
    """
    keys, rows = part.store.keys(), part.embeddings()
    missing = [row for row in part.rows().tolist() if keys[row] not in known]
    for begin in range(0, len(missing), ROWS_AT_ONCE):
        block = missing[begin : begin + ROWS_AT_ONCE]
        yield [keys[row] for row in block], np.asarray(rows[block])
