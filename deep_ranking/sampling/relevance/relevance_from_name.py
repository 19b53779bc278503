"""What `--relevance` says -> relevance of images."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from deep_ranking.datasets import LabelledImages
from deep_ranking.files import InputError
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import temporary_rows
from deep_ranking.sampling.relevance.base import Relevance
from deep_ranking.sampling.relevance.rows import RowCosine
from deep_ranking.sampling.relevance.scored_pairs import read_scored_pairs
from deep_ranking.sampling.relevance.tree import FolderTree

FEATURES, TREE, BACKBONE = "features", "tree", "backbone"
KINDS = (TREE, FEATURES, BACKBONE)
WITHOUT_NETWORK = (TREE, FEATURES, ".csv")  # endings of what needs no TensorFlow
LARGEST_IMAGE_SIZE = 224


@contextmanager
def open_relevance(
    kind: str,
    data: LabelledImages,
    *,
    weights: str | None = "imagenet",
    skip_broken: bool = False,
) -> Iterator[Relevance]:
    """Give the relevance of images; rows of features are in a temporary file meanwhile.

    Args:
        kind: one of `KINDS`, a .csv file of scored pairs, or an .h5 file of a model.
        data: the images.
        weights: of the backbone, as in `NetworkConfig`.
        skip_broken: let an image that cannot be read be relevant to none, rather than stop.

    Yields:
        The relevance of the images as `data` numbers them.

    Raises:
        InputError: it is none of these, or an image cannot be read.
    """
    suffix = Path(kind).suffix.lower()
    if kind == TREE:
        yield FolderTree(data.paths)
    elif kind == FEATURES:
        with _hand_made_features(data, skip_broken) as relevance:
            yield relevance
    elif suffix == ".csv":
        yield read_scored_pairs(Path(kind), data.paths)
    elif kind == BACKBONE or suffix in (".h5", ".hdf5"):
        with _embeddings(kind, data, weights, skip_broken) as relevance:
            yield relevance
    else:
        raise InputError(
            f"relevance: expected {', '.join(KINDS)}, a file of scored pairs (.csv) or a model "
            f"(.h5). Received: {kind}"
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
    kind: str, data: LabelledImages, weights: str | None, skip_broken: bool
) -> Iterator[Relevance]:
    from deep_ranking.config import NetworkConfig
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.images import fitting_size
    from deep_ranking.model.file import load_model
    from deep_ranking.model.network import untrained_backbone

    files = data.files()
    if kind == BACKBONE:
        size = fitting_size(files, LARGEST_IMAGE_SIZE)
        model = untrained_backbone(NetworkConfig(image_size=size, weights=None), weights)
    else:
        model = load_model(kind)
    with embedded_images(model, files, skip_broken=skip_broken) as rows:
        rows[np.isnan(rows[:, 0])] = 0
        yield RowCosine(rows)
