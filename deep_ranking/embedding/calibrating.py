"""A model and labelled images -> what its distances mean, stored in the model file."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.datasets import LabelledImages, read_folder, take_split
from deep_ranking.datasets.splits import TO_CALIBRATE
from deep_ranking.files import InputError
from deep_ranking.files.html import paragraph, table
from deep_ranking.files.words import counted
from deep_ranking.metrics import pair_distances, pair_metrics, sample_pairs
from deep_ranking.model.calibration import Calibration, fit_calibration

if TYPE_CHECKING:
    import keras

NUM_ROWS = 11


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration, and how well distances tell the pairs apart that it was fitted on.

    Attributes:
        calibration: what the model's distances mean.
        num_images: images that the pairs were drawn from.
        error_rate: share of the pairs judged wrongly by the calibration's threshold.
        path: the model file that holds the calibration; None for a model in memory.

    Example:
        >>> calibrate(model, "photos")
        36 pairs of 12 images: with "same" up to a distance of ...
    """

    calibration: Calibration
    num_images: int
    error_rate: float
    path: Path | None

    def __repr__(self) -> str:
        where = "" if self.path is None else f"\nCalibration stored in {self.path}."
        return (
            f"{counted(self.calibration.num_pairs, 'pair')} of "
            f'{counted(self.num_images, "image")}: with "same" up to a distance of '
            f"{self.calibration.threshold:.4f}, {self.error_rate:.1%} of the pairs are judged "
            f"wrongly.{where}"
        )

    def _repr_html_(self) -> str:
        low, high = self.calibration.distances[0], self.calibration.distances[-1]
        distances = [low + (high - low) * number / (NUM_ROWS - 1) for number in range(NUM_ROWS)]
        rows = [(f"{each:.3f}", f"{self.calibration.probability(each):.3f}") for each in distances]
        text = "".join(paragraph(line) for line in repr(self).splitlines())
        return text + table(("distance", "probability of the same class"), rows)


def calibrate(
    model: "keras.Model | str | os.PathLike[str]",
    dataset: str | os.PathLike[str] | LabelledImages,
    *,
    num_pairs: int = 20_000,
    seed: int = 0,
) -> CalibrationResult:
    """Learn from pairs of images what a model's distances mean; best with classes not trained on.

    Args:
        model: model file, which the calibration is stored in; or a model, whose attribute
            `calibration` it becomes.
        dataset: folder with one folder for each class; or the images of `read_folder`.
        num_pairs: at most so many pairs of each kind, same and different.
        seed: seed of the draw of pairs.

    Example:
        >>> found = calibrate(model, "photos")
        >>> found.calibration.num_pairs
        36

    Raises:
        InputError: a file or an image cannot be read, there are too few pairs, or the model file
            cannot be written.
    """
    if not isinstance(dataset, LabelledImages):
        dataset = take_split(read_folder(dataset), TO_CALIBRATE)
    data = dataset
    try:
        pairs = sample_pairs(data.items.codes, num_pairs, seed=seed)
    except ValueError as error:
        raise InputError(f"{data.root}: {error}") from None
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.embedding.embedder import opened_embedder
    from deep_ranking.model.header import store_calibration

    with embedded_images(opened_embedder(model), data.files()) as rows:
        same, different = (pair_distances(rows, rows, *chosen.T) for chosen in pairs)
    calibration = fit_calibration(same, different)
    path = None
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        store_calibration(path, calibration)
    else:
        model.calibration = calibration
    error_rate = pair_metrics(same, different).equal_error_rate
    return CalibrationResult(calibration, len(data), error_rate, path)
