"""`compile_model`: convert a model for LiteRT once, check the result against Keras, and keep it."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_ranking.embedding.compiled.file import (
    CompiledHeader,
    CompiledModel,
    engine_version,
    made_up_images,
    this_processor,
)
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.embedding.compiled.opening import litert_engine, usable_engine
from deep_ranking.embedding.compiled.places import (
    compiling,
    keep_compiled,
    open_compiled,
)
from deep_ranking.embedding.engines import Engine
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import byte_size, counted
from deep_ranking.images import read_image
from deep_ranking.model.header import read_header

if TYPE_CHECKING:
    import keras

FLOAT32, INT8 = PRECISIONS
MAX_DIFFERENCE = 1e-3  # of two unit rows, in float32
MIN_COSINE = 0.995  # on average, in int8
MIN_RECALL = 0.95
MOST_COMPARED = 200
LEAST_FOR_RECALL = 100
NEAREST_SHARE = 20  # one in 20 images is among the nearest, 20 at most
LEAST_CALIBRATED = 20
MOST_TOLD = 200  # characters of an error of the converter


@dataclass(frozen=True)
class CompiledReport:
    """What compiling did.

    Attributes:
        path: the compiled file.
        header: what it says of itself.
        is_new: whether it was made now; otherwise a good one was there.

    Example:
        >>> done = compile_model("model.h5")
        >>> done.header.precision
        'float32'
    """

    path: Path
    header: CompiledHeader
    is_new: bool

    def __repr__(self) -> str:
        header = self.header
        images = [counted(header.num_images, "image")] if header.num_images else []
        if not _by_real_images_alone(header.precision, header.num_images):
            images.append("made-up ones")
        agreement = f"rows differ by up to {header.difference:.2g}"
        if header.precision != FLOAT32:
            agreement += f", mean cosine {header.cosine:.4f}"
        if header.recall is not None:
            agreement += f", {header.recall:.1%} of the nearest images are the same"
        size = byte_size(self.path.stat().st_size) if self.path.exists() else "no file"
        return (
            f"compared with Keras on {' and '.join(images)}: {agreement}\n"
            f"{header.precision} ({header.scheme}) in {self.path}, {size}"
            f"{'' if self.is_new else '; was there already'}."
        )

    def _repr_html_(self) -> str:
        return "\n".join(paragraph(line) for line in repr(self).splitlines())


def compile_model(
    model: str | os.PathLike[str],
    *,
    precision: str = FLOAT32,
    images: Sequence[str | os.PathLike[str]] = (),
    anew: bool = False,
    progress: Callable[[str], None] | None = None,
) -> CompiledReport:
    """Compile a model file, so that embedding images needs no TensorFlow and starts at once.

    The compiled file lies beside the model file, which names its digest; or in the cache folder,
    if the model's folder cannot be written to. It is kept only if its embeddings agree with those
    of Keras: in float32 to 0.001, the distance of two unit rows; in int8 to a mean cosine of .995.

    Args:
        model: the model file.
        precision: "float32"; or "int8", which is faster and less exact.
        images: image files to compare the embeddings on, besides made-up ones, and to calibrate
            int8 on; up to 200 are read. For int8, at least 20 are needed if the network has
            depthwise convolutions, as EfficientNet and MobileNet do.
        anew: compile again even if a good file is there.
        progress: called with a line as each step begins.

    Returns:
        A `CompiledReport`.

    Example:
        >>> compile_model("model.h5")
        compared with Keras on made-up ones: rows differ by up to ...
        float32 (...) in model....float32.litert, ...

    Raises:
        InputError: a file cannot be read or written, the network cannot be converted, there are too
            few images, or the embeddings differ by more; then nothing is kept.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}. Received: {precision}")
    path, header = Path(model), read_header(model)
    report = progress or (lambda _: None)
    with compiling(header.fingerprint, precision):
        if not anew:
            try:
                found = open_compiled(path, read_header(path), precision)
                if found is not None:
                    usable_engine(found.compiled)
                    return CompiledReport(found.path, found.compiled.header, is_new=False)
            except InputError as error:
                report(f"{error}; compiling it anew")
        from deep_ranking.model.file import load_model

        report(f"compiling for LiteRT in {precision}")
        network = load_model(path)
        pixels = read_for_calibration(images, int(network.input_shape[1]))
        scheme, content, compared = checked_conversion(path, network, precision, pixels, report)
        compiled = compiled_model(header.fingerprint, precision, scheme, content, compared)
        return CompiledReport(keep_compiled(path, compiled), compiled.header, is_new=True)


def checked_conversion(
    path: Path,
    network: "keras.Model",
    precision: str,
    pixels: UInt8Array,
    report: Callable[[str], None],
    *,
    flag: str = "--calibrate",
) -> tuple[str, bytes, "ComparedRows"]:
    """Convert a network for LiteRT in the fastest way whose embeddings agree with those of Keras.

    Args:
        path: of the model, or of what is made of it, for an error.
        network: from images, float32 (batch, size, size, 3), to rows, float32 (batch, dim).
        precision: one of `PRECISIONS`.
        pixels: uint8 (images, size, size, 3), RGB, to compare on, besides made-up ones, and to
            calibrate int8 on.
        report: called with why a way was not good.
        flag: names the images, for an error.

    Returns:
        The way in words, the network for LiteRT, and how its rows agree.

    Raises:
        InputError: the network cannot be converted, no way is good enough, or there are too few
            images.
    """
    from deep_ranking.embedding.engines.keras_model import KerasEngine

    reference = _Reference(KerasEngine(network, 8), pixels)
    reasons = []
    for scheme, content in _conversions(network, precision, pixels, flag):
        compared = _compared(litert_engine(content, precision), reference, precision)
        reason = compared.problem(precision)
        if reason is None:
            return scheme, content, compared
        reasons.append(f"{scheme}: {reason}")
        report(reasons[-1])
    raise InputError(
        f"{path}: not compiled in {precision}, as its embeddings would differ too much from those "
        f"of Keras ({'; '.join(reasons)})"
    )


class _Reference:
    """The rows of Keras, of made-up and of real images."""

    def __init__(self, engine: Engine, pixels: UInt8Array) -> None:
        self.made_up = made_up_images(engine.image_size)
        self.pixels = pixels
        self.of_made_up = rows_of(engine, self.made_up)
        self.of_pixels = rows_of(engine, pixels)
        if not np.isfinite(self.of_made_up).all():
            raise InputError(
                "the model's own embeddings are not finite, so nothing can be compared with them; "
                "train it again, or compile the best model of its run"
            )


def rows_of(engine: Engine, pixels: UInt8Array) -> Float32Array:
    """Return the rows of images in memory: float32 (images, dim)."""
    batches = range(0, len(pixels), engine.batch_size)
    rows = [engine.embed(pixels[begin : begin + engine.batch_size]) for begin in batches]
    return np.concatenate(rows) if rows else np.empty((0, engine.dimension), np.float32)


def recall_of(rows: Float32Array, reference: Float32Array) -> float | None:
    """Return the share of each image's nearest by the reference that are nearest by the rows.

    Args:
        rows: float32 (images, dim), unit rows.
        reference: likewise, of the same images.

    Returns:
        0 to 1; None of fewer than 100 images.
    """
    count = len(rows)
    if count < LEAST_FOR_RECALL:
        return None
    nearest = min(20, count // NEAREST_SHARE)
    found = []
    for each in (rows, reference):
        similarity = each @ each.T
        np.fill_diagonal(similarity, -np.inf)
        found.append(np.argsort(-similarity, axis=1, kind="stable")[:, :nearest])
    return float((found[0][:, :, None] == found[1][:, None]).any(axis=1).mean())


def read_for_calibration(images: Sequence[str | os.PathLike[str]], size: int) -> UInt8Array:
    """Read up to 200 images, without those that cannot be read: uint8 (images, size, size, 3)."""
    pixels = []
    for image in images[:: max(1, -(-len(images) // MOST_COMPARED))]:
        try:
            pixels.append(read_image(image, size))
        except InputError:
            continue
    return np.stack(pixels) if pixels else np.empty((0, size, size, 3), np.uint8)


def _conversions(
    network: "keras.Model", precision: str, pixels: UInt8Array, flag: str
) -> Iterator[tuple[str, bytes]]:
    """Yield scheme and content of each way to convert a network, the fastest first."""
    from deep_ranking.embedding.compiled.converting import (
        FLOAT_CONVOLUTIONS,
        needs_images,
        to_dynamic_int8,
        to_litert,
        to_static_int8,
    )

    is_static = precision != FLOAT32 and needs_images(network)
    if is_static and len(pixels) < LEAST_CALIBRATED:
        raise InputError(
            f"int8 needs at least {LEAST_CALIBRATED} images to calibrate this network on, and "
            f"{len(pixels)} can be read; give a folder of images like yours by {flag}"
        )
    try:
        if precision == FLOAT32:
            yield "as in Keras", to_litert(network)
        elif not is_static:
            yield "int8 kernels, activations quantised image by image", to_dynamic_int8(network)
        else:
            for count in FLOAT_CONVOLUTIONS:
                scheme = f"backbone in int8, its first {count} convolutions in float32"
                yield scheme, to_static_int8(network, pixels, count)
    except Exception as error:  # the converter raises errors of many types, and of many lines
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:MOST_TOLD]
        raise InputError(f"LiteRT cannot convert the model ({reason})") from None


@dataclass(frozen=True)
class ComparedRows:
    """How the rows of an engine agree with those of Keras; attributes as of `CompiledHeader`."""

    check: Float32Array
    num_images: int
    difference: float
    cosine: float
    recall: float | None

    def problem(self, precision: str) -> str | None:
        """Return why the engine is no good in a precision; None if it is good."""
        if precision == FLOAT32:
            if self.difference <= MAX_DIFFERENCE:  # false for NaN
                return None
            return f"a row differs by {self.difference:.2g}; allowed is {MAX_DIFFERENCE:g}"
        if self.cosine >= MIN_COSINE:
            return None
        return f"the mean cosine is {self.cosine:.4f}; needed is {MIN_COSINE:g}"


def _by_real_images_alone(precision: str, num_images: int) -> bool:
    """Return whether made-up images are left out: ranges learned from real ones do not fit them."""
    return precision != FLOAT32 and num_images >= LEAST_CALIBRATED


def _compared(engine: Engine, reference: _Reference, precision: str) -> ComparedRows:
    check, rows = rows_of(engine, reference.made_up), rows_of(engine, reference.pixels)
    ours, theirs = rows, reference.of_pixels
    if not _by_real_images_alone(precision, len(rows)):
        ours = np.concatenate([check, rows])
        theirs = np.concatenate([reference.of_made_up, reference.of_pixels])
    distances = np.linalg.norm(ours - theirs, axis=1)
    return ComparedRows(
        check=check,
        num_images=len(rows),
        difference=float(distances.max()),
        # Of unit rows; two rows of 0, as of a black image, agree as well.
        cosine=float((1 - distances**2 / 2).mean()),
        recall=recall_of(rows, reference.of_pixels),
    )


def compiled_model(
    fingerprint: str, precision: str, scheme: str, content: bytes, compared: ComparedRows
) -> CompiledModel:
    """Return a compiled model with its header.

    Args:
        fingerprint: of the model that was compiled.
        precision: "float32" or "int8".
        scheme: how it computes, in words.
        content: the network, for LiteRT.
        compared: how its rows agree with those of Keras.
    """
    engine = litert_engine(content, precision)
    header = CompiledHeader(
        fingerprint=fingerprint,
        precision=precision,
        scheme=scheme,
        image_size=engine.image_size,
        dimension=engine.dimension,
        num_images=compared.num_images,
        difference=compared.difference,
        cosine=compared.cosine,
        recall=compared.recall,
        engine=engine_version(),
        processor=this_processor(),
    )
    return CompiledModel(header, content, compared.check)
