"""Validation of a model while it trains, on triplets or classes that training does not see."""

from abc import ABC, abstractmethod
from pathlib import Path

import keras
import numpy as np

from deep_ranking.config import TrainConfig
from deep_ranking.datasets import LabelledImages
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, IntArray
from deep_ranking.losses import make_metrics, ranking_loss
from deep_ranking.metrics import correct_triplets, triplet_distances
from deep_ranking.metrics.evaluation import EmbeddedImages, draw_triplets, evaluate_embeddings
from deep_ranking.model.calibration import MIN_PAIRS, Calibration, fit_calibration
from deep_ranking.sampling.triplet_file import read_triplets
from deep_ranking.training.batches import FileTriplets
from deep_ranking.training.data import RunImages, read_run_images
from deep_ranking.training.history import Row

MEASURED_TRIPLETS = 1024


class Validation(ABC):
    """Validation data of a run. Each validation embeds each image once.

    Args:
        config: the run's settings.
        paths: the images.
    """

    def __init__(self, config: TrainConfig, paths: list[str]) -> None:
        self.config = config
        self.paths = paths

    def measure(self, rows: Float32Array) -> tuple[Row, Calibration | None]:
        """Measure how good a model's embeddings of the images are.

        Args:
            rows: float32 (images, dim), unit rows in the order of `paths`; NaN for a broken image.

        Returns:
            The results, with names that begin with "val_"; and the calibration of the model's
            distances, if there are enough pairs for it.

        Raises:
            InputError: an embedding is not finite.
        """
        skip = self.config.skip_broken
        whole = np.flatnonzero(~np.isnan(rows[:, 0])) if skip else np.arange(len(rows))
        if not np.isfinite(rows[whole]).all():
            raise InputError(
                "the model's embeddings are not finite: its weights are damaged, or the learning "
                "rate is too high"
            )
        found, triplets = self._measure(rows, whole)
        found = {f"val_{name}": value for name, value in found.items()}
        if len(triplets) < MIN_PAIRS:
            return found, None
        return found, fit_calibration(*triplet_distances(rows, triplets))

    @abstractmethod
    def _measure(self, rows: Float32Array, whole: IntArray) -> tuple[Row, IntArray]:
        """Measure embeddings; `whole` are the rows whose image could be read.

        Returns:
            The results, and triplets of rows to calibrate with.
        """


class TripletValidation(Validation):
    """Validation on a triplet file, by the loss and the metrics that training shows."""

    def __init__(self, config: TrainConfig, path: Path) -> None:
        file = FileTriplets(read_triplets(path), config.dataset)
        file.find_missing(skip_broken=config.skip_broken)  # checks that the images exist
        super().__init__(config, list(file.paths))
        self.triplets = file.triplets.rows

    def _measure(self, rows: Float32Array, whole: IntArray) -> tuple[Row, IntArray]:
        triplets = self.triplets[np.isin(self.triplets, whole).all(axis=1)]
        config = self.config
        # Not the run's own loss, which may need batches of classes.
        loss = ranking_loss(config)
        metrics = make_metrics(config, "triplets")
        mean_loss = keras.metrics.Mean(name="loss")
        # With hinge "batch", the loss depends on which triplets share a batch.
        per_batch = max(1, config.batch_size // 3)
        step = per_batch if config.hinge == "batch" else MEASURED_TRIPLETS
        for begin in range(0, len(triplets), step):
            part = triplets[begin : begin + step]
            embeddings = keras.ops.convert_to_tensor(rows[part.ravel()])
            # Loss and metrics ignore the labels: the embeddings take their place.
            mean_loss.update_state(loss(embeddings, embeddings), sample_weight=len(part))
            for metric in metrics:
                metric.update_state(embeddings, embeddings)
        return {each.name: float(each.result()) for each in (mean_loss, *metrics)}, triplets


class ClassValidation(Validation):
    """Validation on labelled images, by how well each finds the others of its class.

    Of two domains, the queries find images of the gallery.
    """

    def __init__(self, config: TrainConfig, data: LabelledImages) -> None:
        super().__init__(config, data.files())
        self.labels = data.classes_of_images()
        self.gallery = data.gallery
        # Raises an error for a single class, before the long work.
        self._draw_triplets(np.arange(len(data)))

    def _draw_triplets(self, whole: IntArray) -> IntArray:
        queries, gallery = self._domains(whole)
        if gallery is None:
            return queries[draw_triplets(self.labels[queries], seed=self.config.seed)]
        drawn = draw_triplets(self.labels[queries], self.labels[gallery], seed=self.config.seed)
        return np.column_stack([queries[drawn[:, 0]], gallery[drawn[:, 1:]]])

    def _domains(self, whole: IntArray) -> tuple[IntArray, IntArray | None]:
        if self.gallery is None:
            return whole, None
        in_gallery = self.gallery[whole]
        return whole[~in_gallery], whole[in_gallery]

    def _measure(self, rows: Float32Array, whole: IntArray) -> tuple[Row, IntArray]:
        queries, gallery = (
            None if each is None else self._embedded(rows, each) for each in self._domains(whole)
        )
        assert queries is not None
        found = evaluate_embeddings(queries, gallery, seed=self.config.seed)
        triplets = self._draw_triplets(whole)
        # What `found` leaves out where each query has one right image, a run still goes by.
        values = found.retrieval.per_query | found.per_query
        if "similarity_precision" not in values:
            correct = correct_triplets(*triplet_distances(rows, triplets))
            values["similarity_precision"] = correct.astype(np.float64)
        names = ("similarity_precision", "recall_at_1", "map_at_r")
        return {name: float(np.nanmean(values[name])) for name in names}, triplets

    def _embedded(self, rows: Float32Array, chosen: IntArray) -> EmbeddedImages:
        paths = [self.paths[number] for number in chosen]
        return EmbeddedImages(paths, self.labels[chosen], self._rows(rows, chosen))

    def _rows(self, rows: Float32Array, chosen: IntArray) -> Float32Array:
        # All of them are the memory-mapped file itself rather than a copy.
        return rows if len(chosen) == len(rows) else rows[chosen]


def make_validation(config: TrainConfig, images: RunImages | None = None) -> Validation | None:
    """Return the validation data of a run, checked; None if it has none.

    Args:
        config: the run's settings.
        images: as `read_run_images` returns them; None to read them.

    Raises:
        InputError: the data cannot be used.
    """
    if config.validation_triplets is not None:
        return TripletValidation(config, config.validation_triplets)
    data = (images or read_run_images(config)).validated
    return None if data is None else ClassValidation(config, data)


def validation_summary(found: Row) -> str:
    """Return the main results of a validation in words."""
    shown = ("val_similarity_precision", "val_recall_at_1", "val_map_at_r", "val_loss")
    return ", ".join(
        f"{name.removeprefix('val_').replace('_', ' ')} {found[name]:.4f}"
        for name in shown
        if name in found
    )
