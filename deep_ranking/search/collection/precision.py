"""What embeds the images of a collection: its model compiled, in the precision of its rows."""

import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from deep_ranking.config.backbones import find_backbone
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.embedding.compiled.places import compiled_precisions, open_compiled
from deep_ranking.embedding.engines import Engine
from deep_ranking.files import InputError
from deep_ranking.model.header import read_header
from deep_ranking.search.collection.folder import Collection

FLOAT32, INT8 = PRECISIONS
AUTO = "auto"
CHOICES = (*PRECISIONS, AUTO)
WORTH_COMPILING = 200
"""Images: of fewer, compiling takes longer than it saves."""
WORTH_INT8 = {True: 500, False: 10_000}
"""Images, by whether the backbone is dense: of fewer, measuring int8 takes longer than it saves.

int8 is four times as fast as float32 for dense convolutions, and needs no calibration; for
depthwise ones it is one and a half times as fast, and is calibrated for half a minute.
"""


def check_precision(collection: Collection, precision: str | None) -> None:
    """Refuse a precision other than that of the rows there are.

    Raises:
        InputError: the collection has rows of another precision, or it is none.
    """
    if precision not in (None, *CHOICES):
        raise InputError(f"precision must be one of {', '.join(CHOICES)}. Received: {precision}")
    found = collection.settings.precision
    if precision not in (None, AUTO, found) and len(collection.store):
        raise InputError(
            f"{collection.folder}: made with --precision {found}, which cannot change; choose "
            "another --output"
        )


def chosen_engine(
    collection: Collection, images: Sequence[Path], *, precision: str | None, is_new: bool
) -> Engine:
    """Return what embeds images; choose the precision of a new collection, compile its model.

    Args:
        collection: the collection; the caller holds its lock.
        images: the images that will be embedded.
        precision: as for `index_images`.
        is_new: whether there are no rows yet.

    Raises:
        InputError: int8 is asked for, or what the rows there are were computed in, and the model
            cannot be compiled in it.
    """
    compiled = compiled_precisions(collection.model, read_header(collection.model))
    if precision == AUTO and collection.settings.shard is not None:
        precision = None  # each part could choose another, and `merge` would refuse them
    if is_new and precision == AUTO:
        if is_there := _has_int8(collection):
            print("Precision: int8, which the model is compiled in; --precision changes it.")
        precision = INT8 if is_there or _holds_in_int8(collection, images) else FLOAT32
    elif is_new and precision == INT8:
        _compile(collection, INT8, images)
    if is_new and precision not in (None, collection.settings.precision):
        collection.change(precision=precision)
    wanted = collection.settings.precision
    if wanted == INT8 and not _has_int8(collection):
        # Lost: rows in float32 among these would be wrong in silence.
        with closing(collection.images()) as table:
            root = Path(collection.settings.root)
            _compile(collection, INT8, [*images, *(root / file.path for file in table.files())])
    elif wanted not in compiled and len(images) >= WORTH_COMPILING and _can_compile():
        try:
            _compile(collection, wanted, images)
        except InputError as error:
            print(f"{error}; embedding with Keras", file=sys.stderr)
    vars(collection).pop("embedder", None)
    return collection.embedder.engine(collection.settings.batch_size)


def _has_int8(collection: Collection) -> bool:
    """Return whether the model is compiled in int8, in a file that can be read."""
    try:
        return open_compiled(collection.model, read_header(collection.model), INT8) is not None
    except InputError:  # the model names a file that is damaged, or was left behind
        return False


def _holds_in_int8(collection: Collection, images: Sequence[Path]) -> bool:
    """Return whether int8 finds nearly the same images, as measured; say so in a line."""
    backbone = find_backbone(read_header(collection.model).network.backbone)
    if len(images) < WORTH_INT8[backbone.is_dense] or not _can_compile():
        return False
    from deep_ranking.embedding.compiled.compiling import MIN_RECALL

    try:
        recall = _compile(collection, INT8, images)
    except InputError as error:
        print(f"{error}; embedding in float32", file=sys.stderr)
        return False
    holds = recall is not None and recall >= MIN_RECALL
    found = (
        f"finds {recall:.1%} of the nearest images"
        if recall is not None
        else ("was compared on too few images")
    )
    print(
        f"Precision: {INT8 if holds else FLOAT32}, as int8 {found}, and {MIN_RECALL:.0%} are asked "
        "for; --precision changes it."
    )
    return holds


def _compile(collection: Collection, precision: str, images: Sequence[Path]) -> float | None:
    """Compile the collection's model; return the share of nearest images that it finds."""
    from deep_ranking.embedding.compiled.compiling import compile_model

    chosen = images if precision == INT8 else ()
    return compile_model(collection.model, precision=precision, images=chosen).header.recall


def _can_compile() -> bool:
    return find_spec("tensorflow") is not None and find_spec("ai_edge_litert") is not None
