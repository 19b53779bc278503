"""What TensorBoard shows of a run, in NAME.run/tensorboard: curves, batches, and embeddings.

Event files hold a curve for each quantity of the history. For each epoch they hold a picture of its
first rows as the network sees them: a triplet a row (query, positive, negative), or a class a row.
The end of training adds the files of the projector: `projector_config.pbtxt`, `tensors.tsv` (an
embedding a line), `metadata.tsv` (class and path) and `sprite.png`.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from deep_ranking.config import TrainConfig
from deep_ranking.datasets.labels import leading_folders
from deep_ranking.embedding.cached_features import cached_view
from deep_ranking.embedding.embed import embed_images
from deep_ranking.files import InputError, atomic_path, make_folder
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.content_digest import content_digest
from deep_ranking.images import read_image
from deep_ranking.training.batches import ClassSource, FeatureSource, TripletSource, split_by_class
from deep_ranking.training.history import Row
from deep_ranking.training.validation import Validation

NUM_ROWS = 6  # triplets or classes in a picture
MOST_COLUMNS = 8
MOST_PIXELS = 256  # side of an image in a picture
GAP = 2  # white pixels between the images of a picture
NUM_PROJECTED = 1000
THUMBNAIL_SIZE = 64


class TensorBoardWriter:
    """Writes the files for TensorBoard; nothing, unless the settings ask for it.

    Args:
        config: the run's settings.
        images: the batches of images to train on, also where training uses their cached features.
        validation: the validation data, if any.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        config: TrainConfig,
        images: TripletSource | ClassSource,
        validation: Validation | None,
    ) -> None:
        if config.tensorboard and find_spec("tensorboard") is None:
            raise InputError("--tensorboard needs the package tensorboard: pip install tensorboard")
        self.config = config
        self.folder = config.run_dir / "tensorboard"
        self._images = images
        self._validation = validation
        self._writer: Any = None

    def show_batch(self, source: TripletSource | ClassSource | FeatureSource, epoch: int) -> None:
        """Add a picture of the first rows of an epoch, from 0, before training it.

        TensorBoard shows its number from 1, like those of the curves.
        """
        if not self.config.tensorboard:
            return
        if isinstance(source, FeatureSource):
            rows = self._first_cached_rows(source, epoch)
        else:
            rows = source.first_rows(epoch, NUM_ROWS)
        name, row = "classes", "class a row"
        if isinstance(source, TripletSource):
            name, row = "triplets", "triplet a row: query, positive, negative"
        with self._events(epoch + 1):
            text = f"as the network sees them, a {row}"
            tf.summary.image(name, image_grid(rows)[None], description=text)

    def _first_cached_rows(self, source: FeatureSource, epoch: int) -> list[UInt8Array]:
        """Read the images, in the views, whose features are the first rows of an epoch."""
        size = self.config.network.image_size
        drawn, views = source.draw(epoch, 0)
        count = NUM_ROWS * source.batches.images_per_class
        images, labels = [], []
        for number, view_number in zip(drawn[:count], views[:count], strict=True):
            path = self._images.paths[number]
            try:
                content = content_digest(path)
                _, view = cached_view(content, int(view_number), self.config.augmentation, size)
                images.append(read_image(path, size, view))
            except (InputError, OSError):  # cached features do without the file
                continue
            labels.append(source.labels[number])
        return split_by_class(np.array(images), np.array(labels))[:NUM_ROWS] if images else []

    def add_epoch(self, row: Row) -> None:
        """Add an epoch's row of the history to the curves."""
        if not self.config.tensorboard:
            return
        with self._events(int(row["epoch"])):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)

    def write_embeddings(self, model: keras.Model) -> None:
        """Write embeddings of up to 1,000 images for the projector, at the end of the run.

        They are validation images, evenly spread over their list; without any, training images.
        Broken images are left out.
        """
        if not self.config.tensorboard:
            return
        if self._writer is not None:
            self._writer.close()
        paths = [os.fspath(path) for path in (self._validation or self._images).paths]
        names = class_names(paths)
        count = min(NUM_PROJECTED, len(paths))
        chosen = [number * len(paths) // count for number in range(count)]
        shown = [paths[number] for number in chosen]
        embeddings = embed_images(model, shown, skip_broken=True, progress=True)
        whole = np.flatnonzero(~np.isnan(embeddings[:, 0]))
        if not len(whole):
            return
        write_projector(
            self.folder,
            embeddings[whole],
            [shown[row] for row in whole],
            [names[chosen[row]] for row in whole],
        )
        print(f"Curves, batches and embeddings: tensorboard --logdir {self.folder}")

    @contextmanager
    def _events(self, epoch: int) -> Iterator[None]:
        """Make what `tf.summary` writes in this block an event of an epoch."""
        # One file for the whole run: TensorBoard reads the files of a folder one after another.
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.folder))
        with self._writer.as_default(step=epoch):
            yield
        self._writer.flush()


def image_grid(
    rows: list[UInt8Array], gap: int = GAP, most_columns: int = MOST_COLUMNS
) -> UInt8Array:
    """Arrange images in rows, with white between them: uint8 (height, width, 3).

    Args:
        rows: uint8 (images, side, side, 3), all with one side; images over 256 pixels are reduced.
        gap: white pixels between two images.
        most_columns: only so many images of a row are shown.
    """
    if not rows:
        return np.full((THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), 255, np.uint8)
    side = min(rows[0].shape[1], MOST_PIXELS)
    columns = min(most_columns, max(map(len, rows)))
    step = side + gap
    picture = np.full((len(rows) * step - gap, columns * step - gap, 3), 255, np.uint8)
    for number, images in enumerate(rows):
        for column, image in enumerate(images[:columns]):
            top, left = number * step, column * step
            shown = image
            if len(image) > side:
                shown = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
            picture[top : top + side, left : left + side] = shown
    return picture


def class_names(paths: list[str]) -> list[str]:
    """Return the class of each image: the first folder below the folder that all share, or ""."""
    root = os.path.commonpath([os.path.abspath(os.path.dirname(path)) for path in paths])
    relative = [os.path.relpath(path, root) for path in paths]
    names = [leading_folders(os.path.dirname(path), 1) for path in relative]
    return [os.path.basename(root) if not any(names) else name for name in names]


def write_projector(
    folder: Path, embeddings: Float32Array, paths: list[str], classes: list[str]
) -> None:
    """Write the files of the embedding projector to the folder of the run's events.

    `embeddings` is float32 (images, dim); thumbnails are read from `paths`.

    Raises:
        InputError: an image can no longer be read, or the folder cannot be written to.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector import EmbeddingInfo, ProjectorConfig, SpriteMetadata

    make_folder(folder)
    info = EmbeddingInfo(
        tensor_name="embedding",
        tensor_path="tensors.tsv",
        tensor_shape=embeddings.shape,
        metadata_path="metadata.tsv",
        sprite=SpriteMetadata(image_path="sprite.png", single_image_dim=[THUMBNAIL_SIZE] * 2),
    )
    with atomic_path(folder / info.tensor_path) as temporary:
        np.savetxt(temporary, embeddings, fmt="%.6g", delimiter="\t")
    with atomic_path(folder / info.metadata_path) as temporary:
        cells = zip(("class", *classes), ("path", *paths), strict=True)
        lines = [f"{_cell(name)}\t{_cell(path)}" for name, path in cells]
        temporary.write_text("\n".join(lines) + "\n", "utf-8", "backslashreplace")
    with atomic_path(folder / info.sprite.image_path) as temporary:
        per_side = math.ceil(math.sqrt(len(paths)))  # the sprite is a square
        thumbnails = np.stack([read_image(path, THUMBNAIL_SIZE) for path in paths])
        rows = [thumbnails[row * per_side :][:per_side] for row in range(per_side)]
        Image.fromarray(image_grid(rows, 0, per_side)).save(temporary)
    with atomic_path(folder / "projector_config.pbtxt") as temporary:
        config = ProjectorConfig(embeddings=[info])
        temporary.write_text(text_format.MessageToString(config), "utf-8")


def _cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("\t", " ")
