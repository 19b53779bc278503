"""Evaluation + images -> the report: one page of images, numbers and curves."""

import functools
import os

from deep_ranking.files import atomic_path
from deep_ranking.images.thumbnails import fitted_pixels
from deep_ranking.metrics.evaluation import EmbeddedImages, EmbeddingMetrics
from deep_ranking.model.calibration import Calibration
from deep_ranking.reports.page import figures, galleries
from deep_ranking.reports.page.html import page
from deep_ranking.reports.page.label_errors import LabelErrors, find_label_errors
from deep_ranking.reports.page.trust import trust
from deep_ranking.reports.search_modes import SearchModes
from deep_ranking.training.history import History

THUMBNAIL_SIZE = 144  # pixels of the longer side


def write_report(
    path: str | os.PathLike[str],
    evaluation: EmbeddingMetrics,
    images: EmbeddedImages,
    *,
    title: str = "Visual similarity",
    left_out: str = "",
    history: History = (),
    calibration: Calibration | None = None,
    modes: SearchModes | None = None,
    seed: int = 0,
) -> LabelErrors:
    """Write all that is known of a model to one HTML file, which has its pictures in it.

    Args:
        path: file to write.
        evaluation: `evaluate_embeddings(images, seed=seed)`, without another gallery.
        images: those images; some are read again for the page.
        title: plain text.
        left_out: which images of the data set are left out, in a sentence; "" for none.
        history: rows of the training run, if known.
        calibration: the model's; None for a model that was never calibrated.
        modes: searches with smoothing and without; None for no such section.
        seed: seed of everything drawn at random; the same seed gives the same page.

    Returns:
        The `LabelErrors` that the page shows.

    Raises:
        InputError: the file cannot be written, or an image can no longer be read.
    """
    read = functools.lru_cache(maxsize=4096)(
        functools.partial(fitted_pixels, largest=THUMBNAIL_SIZE, enlarges=True)
    )
    errors = find_label_errors(evaluation, images)
    shown = galleries.Shown(evaluation, images, read)
    sections = [
        figures.summary(evaluation, images, left_out),
        galleries.examples(shown, seed),
        galleries.map_of_images(shown, seed),
        galleries.extremes(shown),
        galleries.suspects(shown, errors),
        galleries.duplicates(shown, errors),
        figures.classes(evaluation, images),
        figures.confusions(errors),
        figures.all_figures(evaluation),
        figures.distances(evaluation, images, seed),
        trust(images, calibration, seed),
        figures.recall(evaluation),
        figures.negatives(images, seed),
        figures.search_modes(modes),
        figures.training(history),
    ]
    with atomic_path(path) as temporary:
        temporary.write_text(page(title, [each for each in sections if each]), encoding="utf-8")
    return errors
