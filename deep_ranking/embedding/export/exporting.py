"""`export_model`: write a model in another format, check it, and only then move it into place."""

import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking import __version__
from deep_ranking.embedding.export.formats import DEFAULT_TOLERANCE, FORMATS, Format, Runtime
from deep_ranking.embedding.export.pixel_recipe import pixel_recipe, recipe_in_words, recipe_path
from deep_ranking.files import InputError, atomic_folder, atomic_path, atomic_paths, disk_failure
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import byte_size, counted
from deep_ranking.images import read_image
from deep_ranking.model.keras_settings import default_settings

if TYPE_CHECKING:
    import keras

# Names that TensorFlow writes in the folder of a SavedModel.
SAVEDMODEL_ENTRIES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}

SEED = 0
RANDOM_BATCHES = (1, 2, 4, 1)
IMAGES_AT_ONCE = 4  # fits into memory even at 1024 pixels
LONGEST_REASON = 300


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        format: one of `FORMATS`.
        path: the file or folder.
        num_bytes: its size.
        difference: largest difference between its embeddings and the model's, over all numbers of
            all images of the check.
        num_images: images of the check.
        usage: Python code from `pixels`, float32 (batch, size, size, 3), RGB in [0, 255], to
            `embeddings`.
        image_size: side in pixels of the images that it takes.
        tolerance: largest difference that was allowed.

    Example:
        >>> done = Export("onnx", Path("m.onnx"), 2048, 1e-7, 8, "import onnxruntime; ...", 32)
        >>> print(done.recipe["use"])
        pixels = np.stack([image_to_pixels(path, 32) for path in paths]).astype(np.float32)
        >>> print(done)
        pixels of image files, with numpy, pillow, ...
        greatest difference to the model 1e-07, on 8 images (allowed: 0.0001)
        from Python: import onnxruntime; ...
        onnx in m.onnx, 2.0 KiB.
    """

    format: str
    path: Path
    num_bytes: int
    difference: float
    num_images: int
    usage: str
    image_size: int
    tolerance: float = DEFAULT_TOLERANCE

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes `pixels` of image files, with code; NAME.pixels.json has the same."""
        return pixel_recipe(self.image_size)

    def __repr__(self) -> str:
        return (
            f"{recipe_in_words(self.recipe, recipe_path(self.path))}\n\n"
            f"greatest difference to the model {self.difference:.2g}, on "
            f"{counted(self.num_images, 'image')} (allowed: {self.tolerance:g})\n"
            f"from Python: {self.usage}\n"
            f"{self.format} in {self.path}, {byte_size(self.num_bytes)}."
        )

    def _repr_html_(self) -> str:
        return "\n".join(paragraph(line) for line in repr(self).splitlines())


@default_settings()
def export_model(
    model: "keras.Model | str | os.PathLike[str]",
    path: str | os.PathLike[str],
    *,
    format: str,
    images: Sequence[str | os.PathLike[str]] = (),
    tolerance: float | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Export a model, and check the export in its own runtime before it appears under its name.

    Args:
        model: model file; a network of `build_network` or `load_model`; or any functional Keras
            model from images, float32 (batch, size, size, 3), to embeddings, float32 (batch, dim).
        path: file to write, ending in .onnx or .tflite; for a SavedModel, a folder. Beside it,
            PATH.pixels.json gets the recipe of pixels, which the export's notes hold too.
        format: "savedmodel", "onnx", "tflite" or "litert-int8".
        images: image files to check the export on, besides random images; for int8 they calibrate
            it too, and at least 20 are needed where a network has depthwise convolutions.
        tolerance: largest allowed difference between two numbers of the embeddings; None for that
            of the format, 1e-4, or 0.1 in int8, whose mean cosine must be .995 besides.
        overwrite: replace an earlier export.
        progress: called with a line as each step begins.

    Returns:
        The `Export`.

    Example:
        >>> done = export_model(model, "photos_model", format="savedmodel")
        >>> done.difference < 1e-4
        True

    Raises:
        InputError: the path cannot be written or exists; a package is missing; the model cannot be
            converted; an image cannot be read; or the export returns other embeddings. Then
            nothing is written, and an earlier export stays.
    """
    path = Path(path)
    check_output(path, format, overwrite=overwrite)
    kind = FORMATS[format]
    tolerance = kind.tolerance if tolerance is None else tolerance
    if not 0 <= tolerance < float("inf"):
        raise InputError(f"tolerance must be 0 or more. Received: {tolerance}")
    if isinstance(model, str | os.PathLike):
        from deep_ranking.model.file import load_model

        model = load_model(model)
    size = _image_size(model)
    report = progress or (lambda _: None)
    with _written(path, kind, size) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the converters, which no user can act on
        report(f"writing {format}")
        runtime = _converted(model, temporary, format, images)
        count = sum(RANDOM_BATCHES) + len(images)
        report(f"checking it on {sum(RANDOM_BATCHES)} random images and {len(images)} of yours")
        batches = itertools.chain(random_batches(size), _image_batches(images, size))
        difference = _largest_difference(model, runtime, batches)
        if not difference <= tolerance:  # true for NaN too
            raise InputError(
                f"{path}: not written, as the {format} returns other embeddings than the model: "
                f"they differ by up to {difference:.2g} on {count} images; --tolerance is "
                f"{tolerance:g}"
            )
        files = [each for each in (temporary, *temporary.rglob("*")) if each.is_file()]
        num_bytes = sum(each.stat().st_size for each in files)
    quoted_path = json.dumps(str(path), ensure_ascii=False)
    usage = kind.usage.format(path=quoted_path, name=model.inputs[0].name)
    return Export(format, path, num_bytes, difference, count, usage, size, tolerance)


def check_output(path: Path, format: str, *, overwrite: bool) -> None:
    """Raise an error for an export that cannot work, before the slow part.

    Raises:
        InputError: there is no such format; the path exists or has another format's suffix; or a
            package is missing.
    """
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}. Received: {format}")
    kind = FORMATS[format]
    if kind.suffix and path.suffix != kind.suffix:
        raise InputError(
            f"{path}: expected a name that ends in {kind.suffix}, as the format is {format}"
        )
    for each in (path, recipe_path(path)):
        if each.exists() and not overwrite:
            raise InputError(
                f"{each}: exists; choose another --output, or replace it by --overwrite"
            )
    if not kind.suffix and path.exists():
        _check_is_savedmodel(path)
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it, or choose another --output")
    missing = [module for module in kind.modules if find_spec(module) is None]
    if missing:
        raise InputError(
            f"the format {format} needs {' and '.join(missing)}, not installed here: "
            'pip install "deep-ranking[export]"'
        )


@contextmanager
def _written(path: Path, kind: Format, size: int) -> Iterator[Path]:
    """Yield a temporary path for an export, and move it and its recipe into place at the end.

    If the process is killed between the two, a file is missing, as `atomic_paths` says; a folder
    is complete and lacks the new recipe, which its notes have.
    """
    recipe = recipe_path(path)
    text = json.dumps(pixel_recipe(size), indent=2, ensure_ascii=False) + "\n"
    if kind.suffix:
        with atomic_paths([path, recipe]) as (temporary, beside):
            beside.write_text(text, encoding="utf-8")
            yield temporary
        return
    with atomic_path(recipe) as beside:
        beside.write_text(text, encoding="utf-8")
        with atomic_folder(path) as temporary:
            yield temporary


def _check_is_savedmodel(path: Path) -> None:
    """Refuse to replace a folder that holds anything but a SavedModel."""
    if not path.is_dir():
        raise InputError(f"{path}: is a file; a SavedModel is a folder; choose another --output")
    entries = {each.name for each in path.iterdir()}
    if "saved_model.pb" not in entries or not entries <= SAVEDMODEL_ENTRIES:
        raise InputError(f"{path}: a folder that is no SavedModel is never replaced")


def _image_size(model: "keras.Model") -> int:
    shape = model.input_shape
    size = shape[1] if len(shape) == 4 else None
    if size is None or shape != (None, size, size, 3) or len(model.output_shape) != 2:
        raise InputError(
            "expected a model from images (batch, size, size, 3) to embeddings (batch, dim). "
            f"Received: {shape} to {model.output_shape}"
        )
    return int(size)


def _converted(
    model: "keras.Model", path: Path, format: str, images: Sequence[str | os.PathLike[str]]
) -> Runtime:
    """Write a model in a format, and open what was written."""
    kind = FORMATS[format]
    try:
        kind.write(model, path, _notes(model), images)
        return kind.load(path, model.inputs[0].name)
    except (OSError, InputError):
        raise
    except Exception as error:  # converters and runtimes raise errors of any type
        if disk_failure(error) is not None:
            raise  # the disk is full: `atomic_path` or `atomic_folder` names the path
        raise InputError(
            f"the model cannot be written as {format} ({_one_line(error)}); try another of "
            f"{', '.join(FORMATS)}"
        ) from error


def _notes(model: "keras.Model") -> str:
    """Return, as JSON, what a program without Keras must know about the model."""
    size, dim = model.input_shape[1], model.output_shape[-1]
    notes: dict[str, Any] = {
        "writer": f"deep-ranking {__version__}",
        "input": f"RGB pixels, float32 in [0, 255], shape (batch, {size}, {size}, 3)",
        "output": f"embeddings, float32, shape (batch, {dim}); compare by Euclidean distance",
        "image_size": size,
        "embedding_size": dim,
        "pixels": pixel_recipe(size),
    }
    for name in ("network_config", "calibration"):
        value = getattr(model, name, None)
        notes[name] = None if value is None else json.loads(value.to_json())
    return json.dumps(notes)


def random_batches(size: int) -> Iterator[Float32Array]:
    """Draw images of coarse to fine patches, in batches of several sizes, with a fixed seed.

    Noise of single pixels is no test: all of it looks grey to a network. The first image is black,
    where an embedding may be 0 before it is scaled to unit length.

    Yields:
        float32 (batch, size, size, 3), [0, 255].
    """
    rng = np.random.default_rng(SEED)
    number = 0
    for count in RANDOM_BATCHES:
        images = np.zeros((count, size, size, 3), np.float32)
        for image in images:
            if number > 0:
                cells = min(2**number, size)  # along a side: 2, 4, 8 ...
                places = np.arange(size) * cells // size
                image[:] = rng.uniform(0, 255, (cells, cells, 3))[places][:, places]
            number += 1
        yield images


def _image_batches(paths: Sequence[str | os.PathLike[str]], size: int) -> Iterator[Float32Array]:
    """Read images, a few at a time: float32 (batch, size, size, 3), RGB in [0, 255]."""
    for begin in range(0, len(paths), IMAGES_AT_ONCE):
        part = paths[begin : begin + IMAGES_AT_ONCE]
        yield np.stack([read_image(path, size) for path in part]).astype(np.float32)


def _largest_difference(
    model: "keras.Model", runtime: Runtime, batches: Iterator[Float32Array]
) -> float:
    """Return the largest difference between two numbers of the embeddings of model and export.

    It is NaN if one of the export's numbers is NaN.

    Raises:
        InputError: the model's embeddings are not finite; or the export cannot embed a batch, or
            its embeddings have another shape.
    """
    differences = [0.0]
    with _full_precision():
        for images in batches:
            expected = np.asarray(model.predict_on_batch(images))
            if not np.isfinite(expected).all():
                raise InputError(
                    "the model's own embeddings are not finite, so nothing can be compared with "
                    "them; train it again, or export the best model of its run"
                )
            try:
                found = runtime(images)
            except Exception as error:  # runtimes raise errors of any type
                raise InputError(
                    f"the export cannot embed a batch of {len(images)} ({_one_line(error)})"
                ) from error
            if found.shape != expected.shape:  # NumPy would compare one row with all
                raise InputError(
                    f"the export returns embeddings of shape {found.shape} for "
                    f"{len(images)} images; expected {expected.shape}"
                )
            differences.append(np.abs(found - expected).max())
    return float(np.max(differences))


def _one_line(error: Exception) -> str:
    """Return the type and the beginning of the text of another library's error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"


@contextmanager
def _full_precision() -> Iterator[None]:
    """Make TensorFlow multiply in float32; recent GPUs round it to ten bits by default."""
    import tensorflow as tf

    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
