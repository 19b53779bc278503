"""Evaluation + images -> the report: one page of numbers, curves and images."""

import functools
import math
import os

import numpy as np

from deep_ranking.files import atomic_path
from deep_ranking.files.html import paragraph, readable, table
from deep_ranking.images import read_image
from deep_ranking.metrics import triplet_distances
from deep_ranking.metrics.evaluation import (
    EmbeddedImages,
    EmbeddingMetrics,
    draw_triplets,
    means_by_class,
)
from deep_ranking.model.calibration import Calibration
from deep_ranking.reports.page import galleries
from deep_ranking.reports.page.hard_negatives import in_class_negatives, precision_over_shares
from deep_ranking.reports.page.html import contents, page, picture, section
from deep_ranking.reports.page.label_errors import LabelErrors, find_label_errors
from deep_ranking.reports.page.trust import trust
from deep_ranking.reports.plots import plot_confusions, plot_distances, plot_negatives, plot_recall
from deep_ranking.reports.search_modes import SearchModes
from deep_ranking.training.history import History, plot_history

THUMBNAIL_SIZE = 96
NUM_WORST_CLASSES = 20
NEGATIVE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

MEANINGS = {
    "similarity_precision": "triplets whose positive is nearer than the negative",
    "recall_at_1": "queries whose nearest image is of their class",
    "recall_at_5": "queries with an image of their class among the 5 nearest",
    "recall_at_10": "the same among the 10 nearest",
    "precision_at_30": "images of the query's class among its 30 nearest",
    "knn_accuracy": "queries whose 30 nearest vote for their class",
    "r_precision": "images of the query's class among as many nearest as it has",
    "map_at_r": "the same, with earlier hits counting more",
    "mean_average_precision": "precision at each image of the query's class, averaged",
    "score_at_top_30": "triplets in order minus those not, of those among the 30 nearest",
    "nmi": "agreement of a clustering with the classes, 0 to 1",
    "roc_auc": "chance that a same pair is nearer than a different pair",
    "equal_error_rate": "same pairs, and different pairs, called wrongly at the threshold",
    "equal_error_threshold": "the distance at which both are equally frequent",
}
SPELLINGS = {
    "nmi": "NMI",
    "roc_auc": "ROC-AUC",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "knn_accuracy": "k-NN accuracy",
}
CLASS_COLUMNS = ("similarity_precision", "recall_at_1", "map_at_r")
HISTORY_PICTURES = {
    "Loss": ("loss",),
    "Mean distance to the query": ("positive_distance", "negative_distance"),
    "Share of triplets": ("similarity_precision", "active_triplets"),
    "Share of images": ("recall_at_1", "map_at_r"),
}


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
    read: galleries.ReadPixels = functools.lru_cache(maxsize=2048)(
        functools.partial(read_image, size=THUMBNAIL_SIZE)
    )
    errors = find_label_errors(evaluation, images)
    sections = {
        "Summary": _summary(evaluation, images, left_out),
        "Training": _training(history),
        "Distances": _distances(evaluation, images, seed),
        "How far probabilities can be trusted": trust(images, calibration, seed),
        "Recall": _recall(evaluation),
        "Searches with and without smoothing": _modes(modes),
        "Hard negatives": _negatives(images, seed),
        "Classes": _classes(evaluation, images),
        "Confusions": _confusions(errors),
        "Map": galleries.map_of_images(images, read, seed),
        "Examples": galleries.examples(evaluation, images, read, seed),
        "Worst and best queries": galleries.extremes(evaluation, images, read),
        "Likely mislabelled": galleries.suspects(errors, images, read),
        "Near-duplicates across classes": galleries.duplicates(errors, images, read),
    }
    shown = {name: parts for name, parts in sections.items() if parts}
    body = "\n".join(
        [contents(list(shown)), *(section(name, *parts) for name, parts in shown.items())]
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page(title, body), encoding="utf-8")
    return errors


def _summary(evaluation: EmbeddingMetrics, images: EmbeddedImages, left_out: str) -> list[str]:
    rows = [
        (
            _metric_name(name),
            f"{each.mean:.3f}",
            f"{each.low:.3f} to {each.high:.3f}",
            MEANINGS[name],
        )
        for name, each in evaluation.intervals.items()
    ]
    for name, value in evaluation.whole.items():
        if name in MEANINGS:
            number = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
            rows.append((_metric_name(name), number, "", MEANINGS[name]))
    return [
        paragraph(
            f"{len(images.paths):,} images of {len(np.unique(images.labels)):,} classes, each "
            "searched for among the others. Means over queries have 95 % bootstrap intervals. "
            f"{int(evaluation.whole['triplets']):,} triplets were drawn."
        ),
        *([paragraph(left_out)] if left_out else []),
        table(("metric", "value", "95 % interval", "meaning"), rows, text=[3]),
    ]


def _training(history: History) -> list[str]:
    measured = {name.removeprefix("val_") for row in history for name in row} - {"epoch"}
    known = {name for names in HISTORY_PICTURES.values() for name in names}
    pictures = HISTORY_PICTURES | {"Other quantities": tuple(sorted(measured - known))}
    parts = []
    for title, names in pictures.items():
        if present := [name for name in names if name in measured]:
            ax = plot_history(history, present)
            ax.set_title(title.lower())
            parts.append(picture(ax, f"{title} over the epochs of training"))
    return [f'<div class="pictures">{"".join(parts)}</div>'] if parts else []


def _distances(evaluation: EmbeddingMetrics, images: EmbeddedImages, seed: int) -> list[str]:
    # `evaluate_embeddings` draws the same triplets, so the threshold is of these pairs.
    triplets = draw_triplets(images.labels, seed=seed)
    distances = triplet_distances(images.embeddings, triplets)
    ax = plot_distances(*distances, evaluation.whole["equal_error_threshold"])
    return [
        paragraph(
            "Distances of two images of one class, and of two classes. The less the two overlap, "
            "the more a distance tells. Pairs up to the threshold are called the same class; at "
            f"it, {evaluation.whole['equal_error_rate']:.1%} of either kind are called wrongly."
        ),
        picture(ax, "Histogram of same and different distances"),
    ]


def _modes(modes: SearchModes | None) -> list[str]:
    """Return searches by plain rows, by smoothed ones, and ranked again."""
    if modes is None:
        return []
    names, *rows = modes.rows()
    parts = [name.partition(" ") for name in names]  # such as "map_at_r over plain"
    header = [f"{_metric_name(name)}{space}{rest}" for name, space, rest in parts]
    return [paragraph(modes.heading()), table(header, rows)]


def _recall(evaluation: EmbeddingMetrics) -> list[str]:
    ax = plot_recall(evaluation.retrieval.first_positive_rank)
    text = "Share of the queries with an image of their class among the k nearest."
    return [paragraph(text), picture(ax, "Recall at k over k")]


def _negatives(images: EmbeddedImages, seed: int) -> list[str]:
    names, codes = np.unique(images.labels, return_inverse=True)
    means = np.stack(
        [np.mean(images.embeddings[codes == code], axis=0) for code in range(len(names))]
    )
    in_class, description = in_class_negatives([str(name) for name in names], means)
    precisions = precision_over_shares(
        images.embeddings, images.labels, in_class, NEGATIVE_SHARES, seed=seed
    )
    if precisions is None:
        return [paragraph("Too few classes to compare negatives of two kinds.")]
    ax = plot_negatives(NEGATIVE_SHARES, precisions, in_class=description)
    return [
        paragraph(
            "Similarity precision as more of the negatives are in-class, that is "
            f"{description}, and hard. On the left no negative is in-class, on the right all are; "
            "between them, both kinds are mixed."
        ),
        picture(ax, "Similarity precision over the share of in-class negatives"),
    ]


def _classes(evaluation: EmbeddingMetrics, images: EmbeddedImages) -> list[str]:
    by_class = means_by_class(evaluation, images.labels)
    ordered = sorted(
        by_class.items(), key=lambda item: (math.isnan(item[1]["map_at_r"]), item[1]["map_at_r"])
    )
    rows = [
        (name, f"{values['queries']:.0f}", *(_number(values[column]) for column in CLASS_COLUMNS))
        for name, values in ordered
    ]
    header = ("class", "images", *map(_metric_name, CLASS_COLUMNS))
    parts = [
        paragraph("Worst first, by MAP@R. A class of one image has no other image to find."),
        table(header, rows[:NUM_WORST_CLASSES]),
    ]
    if rest := rows[NUM_WORST_CLASSES:]:
        summary = f"the other {len(rest):,} classes"
        parts.append(f"<details><summary>{summary}</summary>{table(header, rest)}</details>")
    return parts


def _confusions(errors: LabelErrors) -> list[str]:
    if not errors.confusions:
        return [paragraph("No image has an image of another class among its nearest.")]
    pairs = [(readable(each.label), readable(each.other)) for each in errors.confusions]
    ax = plot_confusions(pairs, [each.share for each in errors.confusions])
    return [
        paragraph("Share of a class's images whose nearest wrong image is of the other class."),
        picture(ax, "Most confused pairs of classes"),
    ]


def _metric_name(name: str) -> str:
    if name in SPELLINGS:
        return SPELLINGS[name]
    return name.replace("_at_top_", " at top ").replace("_at_", "@").replace("_", " ")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"  # noqa: RUF001
