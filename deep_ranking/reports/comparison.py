"""A model and images -> their distances: of two, of the pairs of a file, of all with all."""

import os
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.config import DEFAULT_GAP
from deep_ranking.files import InputError
from deep_ranking.files.html import paragraph
from deep_ranking.images import find_images, read_image
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.metrics import METRICS, cosine_at, row_distances
from deep_ranking.model.calibration import Calibration, probability_of_same
from deep_ranking.reports.comparing import (
    CrossedPairs,
    ListedPairs,
    PairComparison,
    read_image_pairs,
)

if TYPE_CHECKING:
    import keras

    from deep_ranking.embedding.embedder import Embedder

SMALL = 32  # pixels; enough to learn why an image cannot be read


@dataclass(frozen=True)
class Comparison:
    """The distance of two images, and what it means.

    Attributes:
        image1: an image file.
        image2: another.
        distance: Euclidean distance of the embeddings, 0 (alike) to 2.
        calibration: the model's; None if it was never calibrated.

    Example:
        >>> found = Comparison("a.jpg", "b.jpg", 0.5, None)
        >>> print(found)
        0.500000
        similar, by the article's rule of thumb alone ...
    """

    image1: str
    image2: str
    distance: float
    calibration: Calibration | None

    @property
    def cosine(self) -> float:
        """Cosine of the two embeddings, 1 (alike) to -1."""
        return cosine_at(self.distance)

    @property
    def probability(self) -> float | None:
        """Probability that the two are of one class; None if the model is not calibrated."""
        return probability_of_same(self.distance, self.calibration)

    @property
    def meaning(self) -> str:
        """One line: what the distance means."""
        if self.calibration is None:
            word = "similar" if self.distance < DEFAULT_GAP else "not similar"
            return (
                f"{word}, by the article's rule of thumb alone (similar: below the gap of "
                f"{DEFAULT_GAP:g}); for a probability, calibrate the model"
            )
        nearer = self.calibration.share_of_same_nearer, self.calibration.share_of_different_nearer
        same, different = (1 - share(self.distance) for share in nearer)
        return (
            f"same class with a probability of {self.probability:.3f} (if same and different "
            f"pairs are equally frequent); nearer than {same:.1%} of same pairs and "
            f"{different:.1%} of different pairs"
        )

    def __repr__(self) -> str:
        return self.text()

    def text(self, *, metric: str = METRICS[0]) -> str:
        """Return the distance, or the cosine, and its meaning."""
        value = self.cosine if metric == "cosine" else self.distance
        return f"{value:.6f}\n{self.meaning}"

    def _repr_html_(self) -> str:
        files = [(path, os.path.basename(path)) for path in (self.image1, self.image2)]
        return image_rows([files]) + paragraph(f"{self.distance:.6f}: {self.meaning}")


def compare(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
    image1: str | os.PathLike[str],
    image2: str | os.PathLike[str],
) -> Comparison:
    """Return the distance of two images under a model.

    Args:
        model: model file, an `Embedder`, or a model from `build_network` or `load_model`.
        image1: an image file.
        image2: another.

    Example:
        >>> found = compare(model, "photos/cat/0.png", "photos/dog/0.png")
        >>> 0 < found.distance < 2
        True

    Raises:
        InputError: a file is missing or cannot be read.
    """
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.embedding.embedder import opened_embedder

    network = opened_embedder(model)
    first, second = embed_images(network, [image1, image2])
    distance = float(row_distances(first[None], second[None])[0])
    return Comparison(os.fspath(image1), os.fspath(image2), distance, _calibration(network))


def compare_all(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
    images1: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    images2: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    metric: str = METRICS[0],
) -> PairComparison:
    """Compare every image of one folder with every image of another.

    Args:
        model: as for `compare`.
        images1: a folder of images, an image file, or several of either. Images of a folder that
            cannot be read are left out.
        images2: others, in the same way.
        metric: "euclidean" or "cosine".

    Example:
        >>> found = compare_all(model, "photos/cat", "photos/dog")
        >>> len(list(found.rows()))
        16

    Raises:
        InputError: a file is missing, or an image that is no part of a folder cannot be read.
    """
    pairs = CrossedPairs(_images(images1), _images(images2))
    return _compared(model, pairs, metric=metric, skip_broken=True)


def compare_pairs(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
    pairs: str | os.PathLike[str],
    *,
    metric: str = METRICS[0],
    skip_broken: bool = False,
) -> PairComparison:
    """Compare the pairs of a file, one a line: `image1,image2` or `image1,image2,label`.

    Args:
        model: as for `compare`.
        pairs: the file, as for `read_image_pairs`.
        metric: "euclidean" or "cosine".
        skip_broken: leave out pairs with a missing or broken image.

    Example:
        >>> _ = Path("pairs.csv").write_text("photos/cat/0.png,photos/dog/0.png,different")
        >>> [row["same"] for row in compare_pairs(model, "pairs.csv").rows()]
        [0]

    Raises:
        InputError: a file is missing or cannot be read; with the line of the pair.
    """
    listed = read_image_pairs(pairs)
    if not skip_broken:
        listed.check_images_exist()
    try:
        return _compared(model, listed, metric=metric, skip_broken=skip_broken)
    except InputError as error:
        raise listed.with_line(error) from None


def _compared(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
    pairs: ListedPairs | CrossedPairs,
    *,
    metric: str,
    skip_broken: bool,
) -> PairComparison:
    """Embed the images into a temporary file, which is deleted with the comparison."""
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.embedding.embedder import opened_embedder

    network = opened_embedder(model)
    with ExitStack() as opened:
        rows = opened.enter_context(embedded_images(network, pairs.paths, skip_broken=skip_broken))
        found = PairComparison(pairs, rows, metric=metric, calibration=_calibration(network))
        weakref.finalize(found, opened.pop_all().close)
        return found


def _calibration(model: "keras.Model | Embedder") -> Calibration | None:
    calibration: Calibration | None = getattr(model, "calibration", None)
    return calibration


def _images(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the images of folders, broken ones too; and images, checked to be readable."""
    images: list[str] = []
    for path in map(Path, [given] if isinstance(given, str | os.PathLike) else given):
        if path.is_dir():
            images += find_images(path).files()
        else:
            read_image(path, SMALL)  # raises the error of a broken image
            images.append(str(path))
    return images
