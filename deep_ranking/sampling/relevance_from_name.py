"""Value of `--relevance` -> relevance of images: a file, a model, or a measure's name."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from deep_ranking.datasets import LabelledImages
from deep_ranking.files import InputError
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import temporary_rows
from deep_ranking.sampling.relevance import FolderTree, Relevance, RowCosine, read_scored_pairs

FEATURES, TREE, BACKBONE = "features", "tree", "backbone"
NAMES = (TREE, FEATURES, BACKBONE)
LARGEST_IMAGE_SIZE = 224


def needs_network(name: str) -> bool:
    """Return whether a relevance is computed by a network, and so needs TensorFlow."""
    return name == BACKBONE or Path(name).suffix.lower() in (".h5", ".hdf5")


@contextmanager
def open_relevance(
    name: str,
    data: LabelledImages,
    *,
    weights: str | None = "imagenet",
    skip_broken: bool = False,
) -> Iterator[Relevance]:
    """Yield the relevance of images; a temporary file holds rows of features meanwhile.

    Args:
        name: one of `NAMES`, a .csv file of scored pairs, or an .h5 file of a model.
        data: the images.
        weights: weights of the backbone, as in `NetworkConfig`.
        skip_broken: make an unreadable image relevant to none, instead of stopping.

    Yields:
        The relevance of the images as `data` numbers them.

    Raises:
        InputError: the name is none of these, or an image cannot be read.
    """
    if name == TREE:
        yield FolderTree(data.paths)
    elif name == FEATURES:
        with _hand_made_features(data, skip_broken) as relevance:
            yield relevance
    elif Path(name).suffix.lower() == ".csv":
        yield read_scored_pairs(Path(name), data.paths)
    elif needs_network(name):
        with _embeddings(name, data, weights, skip_broken) as relevance:
            yield relevance
    else:
        raise InputError(
            f"relevance: expected {', '.join(NAMES)}, a file of scored pairs (.csv) or a model "
            f"(.h5). Received: {name}"
        )


@contextmanager
def _hand_made_features(data: LabelledImages, skip_broken: bool) -> Iterator[Relevance]:
    """Colour and texture: the mean of the cosines of LAB histograms and of oriented gradients."""
    from deep_ranking.images import read_image
    from deep_ranking.images.hand_made_features import BASELINES

    parts = [BASELINES["LAB histogram"], BASELINES["HOG"]]
    with ExitStack() as held:
        rows = None
        progress = progress_bar(data.files(), title="features", unit="images")
        for number, path in enumerate(progress):
            try:
                features = [compute(read_image(path, size)) for compute, size in parts]
            except InputError:
                if not skip_broken:
                    raise
                continue  # rows that are not written are zeros
            lengths = [max(float(np.linalg.norm(each)), 1e-12) for each in features]
            row = np.concatenate(
                [each / length for each, length in zip(features, lengths, strict=True)]
            ) / np.sqrt(len(parts))
            if rows is None:
                rows = held.enter_context(temporary_rows(len(data), len(row)))
            rows[number] = row
        if rows is None:
            raise InputError(f"{data.root}: none of the images can be read")
        yield RowCosine(rows)


@contextmanager
def _embeddings(
    name: str, data: LabelledImages, weights: str | None, skip_broken: bool
) -> Iterator[Relevance]:
    """Cosine of embeddings by a model, or by the untrained backbone."""
    from deep_ranking.config import NetworkConfig
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.images import fitting_size
    from deep_ranking.model.file import load_model
    from deep_ranking.model.network import untrained_backbone

    files = data.files()
    if name == BACKBONE:
        size = fitting_size(files, LARGEST_IMAGE_SIZE)
        model = untrained_backbone(NetworkConfig(image_size=size, weights=None), weights)
    else:
        model = load_model(name)
    with embedded_images(model, files, skip_broken=skip_broken) as rows:
        rows[np.isnan(rows[:, 0])] = 0
        yield RowCosine(rows)
