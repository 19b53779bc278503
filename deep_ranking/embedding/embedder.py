"""`Embedder`: a model file as a function from images to embeddings, on the fastest engine."""

import os
import sys
import threading
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deep_ranking.config import NetworkConfig
from deep_ranking.embedding.compiled.names import PRECISIONS
from deep_ranking.embedding.compiled.opening import usable_engine
from deep_ranking.embedding.compiled.places import (
    KeptModel,
    compiled_precisions,
    open_compiled,
)
from deep_ranking.embedding.embed import BATCH_SIZE, Image, embed_images
from deep_ranking.embedding.engines import Engine
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.model.calibration import Calibration
from deep_ranking.model.header import ModelHeader, read_header

if TYPE_CHECKING:
    import keras

FLOAT32 = PRECISIONS[0]
MOST_FEW = 7  # images; an index embeds 8 at once or more


class Embedder:
    """A model file as a function from images to embeddings.

    It computes with the compiled model if there is one (see `compile_model`), which opens in a
    tenth of a second, and otherwise with Keras. The engine opens on first use, in each process. An
    embedder can be pickled, for other processes and machines that reach the model file under the
    same path; and threads can share one.

    Args:
        model: the model file.
        precision: "float32" or "int8"; None for the most exact one that the model is compiled in.

    Attributes:
        path: the model file.

    Example:
        >>> embedder = Embedder("model.h5")
        >>> rows, is_readable = embedder(["photos/cat/0.png", "no such file"])
        >>> rows.shape, is_readable.tolist()
        ((2, 8), [True, False])

    Raises:
        InputError: the file is missing, damaged, or not a model file; or another precision.
    """

    def __init__(self, model: str | os.PathLike[str], *, precision: str | None = None) -> None:
        if precision not in (None, *PRECISIONS):
            raise InputError(
                f"precision must be one of {', '.join(PRECISIONS)}. Received: {precision}"
            )
        self.path = Path(model)
        self._wanted = precision
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._compiled: KeptModel | None = None
        self._engines: dict[bool, Engine] = {}  # by whether they are for a few images
        self._network: keras.Model | None = None
        self._header = read_header(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_wanted": self._wanted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def __repr__(self) -> str:
        return f"Embedder of {self.path}, {self.precision}"

    def __call__(self, images: Sequence[Image]) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
        """Embed images.

        Args:
            images: image files, or the bytes of image files.

        Returns:
            float32 (images, dim), unit rows, NaN for an image that cannot be read; and
            bool (images,), whether it can be read.
        """
        rows = embed_images(self, images, skip_broken=True)
        return rows, np.asarray(~np.isnan(rows).any(axis=1))

    @property
    def network_config(self) -> NetworkConfig:
        """The settings that the network is built from."""
        return self._header.network

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the model; None if it was never calibrated."""
        return self._header.calibration

    @property
    def fingerprint(self) -> str:
        """A digest of the network and its weights: 32 hexadecimal digits."""
        return self._header.fingerprint

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the model takes."""
        return self._header.network.image_size

    @property
    def dimension(self) -> int:
        """Floats an embedding."""
        return self._header.network.embedding_size

    @cached_property
    def precision(self) -> str:
        """What the model computes in."""
        compiled = compiled_precisions(self.path, self._header)
        return self._wanted or (compiled or [FLOAT32])[0]

    def engine(self, batch_size: int = BATCH_SIZE) -> Engine:
        """Return what computes the model; it opens on the first call.

        A compiled file that is damaged is made anew, where TensorFlow is installed, with a line on
        standard error.

        Args:
            batch_size: most images at a time: of up to 7, if there are as many processors, all of
                these compute each one.

        Raises:
            InputError: there is no compiled file that can be used, and TensorFlow is not installed.
        """
        is_for_few = batch_size <= min(os.cpu_count() or 1, MOST_FEW)
        with self._lock:
            if is_for_few in self._engines:
                return self._engines[is_for_few]
            if self._network is None:
                engine = self._compiled_engine(is_for_few)
                if engine is not None:
                    self._engines[is_for_few] = engine
                    return engine
                self._network = self._keras_model()
        from deep_ranking.embedding.engines.keras_model import KerasEngine

        return KerasEngine(self._network, batch_size)

    def _compiled_engine(self, is_for_few: bool) -> Engine | None:
        """Return the engine of the compiled model; None if the model is not compiled."""
        try:
            return self._opened(self._header, is_for_few)
        except InputError as error:
            if find_spec("tensorflow") is None:
                raise InputError(f"{error}; {self._remedy()}") from None
            print(f"{error}; compiling it anew", file=sys.stderr)
        from deep_ranking.embedding.compiled.compiling import compile_model

        try:
            compile_model(self.path, precision=self.precision)
            return self._opened(read_header(self.path), is_for_few)
        except InputError as error:
            print(f"{error}; computing with Keras instead", file=sys.stderr)
            return None

    def _opened(self, header: ModelHeader, is_for_few: bool) -> Engine | None:
        """Open the compiled model, if the model is compiled.

        Raises:
            InputError: it is in no file that can be used, or not in the wanted precision.
        """
        if self._compiled is None:
            self._compiled = open_compiled(self.path, header, self.precision)
        if self._compiled is None:
            if self.precision != FLOAT32:
                raise InputError(f"{self.path}: not compiled in {self.precision}")
            return None
        kept = self._compiled
        try:
            return usable_engine(kept.compiled, kept.digest, is_for_few=is_for_few)
        except InputError as error:
            self._compiled = None  # it is read again, once it is compiled anew
            raise InputError(f"{kept.path}: {error}") from None

    def _keras_model(self) -> "keras.Model":
        if find_spec("tensorflow") is None:
            raise InputError(f"{self.path}: not compiled; {self._remedy()}")
        from deep_ranking.model.file import load_model

        return load_model(self.path)

    def _remedy(self) -> str:
        return (
            "TensorFlow is not installed here: compile the model where it is, by `python -m "
            f"deep_ranking compile --model {self.path.name}`, and copy the .litert file along with "
            'the model; or pip install "deep-ranking[train]"'
        )


def compiled_embedder(model: str | os.PathLike[str], precision: str) -> Embedder:
    """Return the `Embedder` of a model that was compiled in a precision.

    Args:
        model: the model file.
        precision: "float32" or "int8".

    Raises:
        InputError: it was not compiled in this precision.
    """
    header = read_header(model)
    if precision not in compiled_precisions(Path(model), header):
        raise InputError(
            f"{model}: not compiled in {precision}; compile it by `python -m deep_ranking compile "
            f"--model {model} --precision {precision}`"
        )
    return Embedder(model, precision=precision)


def opened_embedder(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
) -> "keras.Model | Embedder":
    """Return a model as it is, or the `Embedder` of a model file."""
    return Embedder(model) if isinstance(model, str | os.PathLike) else model
