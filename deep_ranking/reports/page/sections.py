"""Evaluation + images -> the report: numbers and curves, and the page they stand on."""

import functools
import math
import os
from dataclasses import dataclass

import numpy as np

from deep_ranking.files import atomic_path
from deep_ranking.images import read_image
from deep_ranking.images.near_copies import EQUAL_ERROR_SHARE
from deep_ranking.metrics import triplet_distances
from deep_ranking.metrics.evaluation import (
    EmbeddedImages,
    Evaluation,
    draw_triplets,
    means_by_class,
)
from deep_ranking.reports.page import galleries
from deep_ranking.reports.page.findings import (
    Confusion,
    Duplicate,
    Suspect,
    class_confusions,
    duplicates_across_classes,
    in_class_negatives,
    likely_mislabelled,
    precision_over_shares,
)
from deep_ranking.reports.page.html import (
    contents,
    page,
    paragraph,
    picture,
    readable,
    section,
    table,
)
from deep_ranking.reports.plots import plot_confusions, plot_distances, plot_negatives, plot_recall
from deep_ranking.training.history_plot import History, plot_history

THUMBNAIL_SIZE = 96
NUM_WORST_CLASSES = 20
NEGATIVE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

MEANINGS = {
    "similarity_precision": "triplets whose positive is nearer than the negative",
    "recall_at_1": "queries whose nearest image is of their class",
    "recall_at_5": "queries with an image of their class among the 5 nearest",
    "recall_at_10": "the same of the 10 nearest",
    "precision_at_30": "images of the query's class among its 30 nearest",
    "knn_accuracy": "queries whose 30 nearest vote for their class",
    "r_precision": "images of the query's class among as many nearest as it has",
    "map_at_r": "the same, where earlier hits count more",
    "mean_average_precision": "precision at each image of the query's class, averaged",
    "score_at_top_30": "triplets in order less those not, of those among the 30 nearest",
    "nmi": "agreement of a clustering with the classes, 0 to 1",
    "roc_auc": "chance that a same pair is nearer than a different one",
    "equal_error_rate": "wrong same and wrong different pairs at the threshold",
    "equal_error_threshold": "the distance at which both are equally many",
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


@dataclass(frozen=True)
class Findings:
    """What is odd in the images.

    Attributes:
        suspects: images that are likely mislabelled, at most 30, the likeliest first.
        duplicates: near-duplicates across classes, at most 30, the nearest first.
        confusions: classes taken for others, at most 15, the most confused first.
    """

    suspects: list[Suspect]
    duplicates: list[Duplicate]
    confusions: list[Confusion]


def find(evaluation: Evaluation, images: EmbeddedImages) -> Findings:
    """Look for what is odd in images that were searched for among themselves.

    Near-duplicates are nearer than a tenth of the distance at equal error.

    Args:
        evaluation: `evaluate(images)`, without another gallery.
        images: those images.
    """
    nearest = evaluation.retrieval.neighbours, evaluation.retrieval.distances
    return Findings(
        likely_mislabelled(images.labels, *nearest),
        duplicates_across_classes(images.labels, *nearest, below=_tiny(evaluation)),
        class_confusions(images.labels, nearest[0]),
    )


def write_report(
    path: str | os.PathLike[str],
    evaluation: Evaluation,
    images: EmbeddedImages,
    *,
    title: str = "Visual similarity",
    history: History = (),
    seed: int = 0,
) -> Findings:
    """Write one HTML file with all that is known of a model: pictures included, nothing to load.

    Args:
        path: file to write.
        evaluation: `evaluate(images, seed=seed)`, without another gallery.
        images: those images; some are read again for the page.
        title: plain text.
        history: rows of the training run, if known.
        seed: decides what is drawn; the same seed gives the same page.

    Returns:
        The `Findings` that the page shows.

    Raises:
        InputError: the file cannot be written, or an image can no longer be read.
    """
    read: galleries.ReadPixels = functools.lru_cache(maxsize=2048)(
        functools.partial(read_image, size=THUMBNAIL_SIZE)
    )
    findings = find(evaluation, images)
    sections = {
        "Summary": _summary(evaluation, images),
        "Training": _training(history),
        "Distances": _distances(evaluation, images, seed),
        "Recall": _recall(evaluation),
        "Hard negatives": _negatives(images, seed),
        "Classes": _classes(evaluation, images),
        "Confusions": _confusions(findings),
        "Map": galleries.map_of_images(images, read, seed),
        "Examples": galleries.examples(evaluation, images, read, seed),
        "Worst and best queries": galleries.extremes(evaluation, images, read),
        "Likely mislabelled": galleries.suspects(findings.suspects, images, read),
        "Near-duplicates across classes": galleries.duplicates(
            findings.duplicates, images, read, below=_tiny(evaluation)
        ),
    }
    shown = {name: parts for name, parts in sections.items() if parts}
    body = "\n".join(
        [contents(list(shown)), *(section(name, *parts) for name, parts in shown.items())]
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page(title, body), encoding="utf-8")
    return findings


def _summary(evaluation: Evaluation, images: EmbeddedImages) -> list[str]:
    rows = [
        (_words(name), f"{each.mean:.3f}", f"{each.low:.3f} to {each.high:.3f}", MEANINGS[name])
        for name, each in evaluation.intervals.items()
    ]
    for name, value in evaluation.whole.items():
        if name in MEANINGS:
            number = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
            rows.append((_words(name), number, "", MEANINGS[name]))
    return [
        paragraph(
            f"{len(images.paths):,} images of {len(np.unique(images.labels)):,} classes, each "
            "searched for among the others; means over queries with 95 % bootstrap intervals. "
            f"{int(evaluation.whole['triplets']):,} triplets were drawn."
        ),
        table(("metric", "value", "95 % interval", "what it is"), rows, text=[3]),
    ]


def _training(history: History) -> list[str]:
    measured = {name.removeprefix("val_") for row in history for name in row} - {"epoch"}
    known = {name for names in HISTORY_PICTURES.values() for name in names}
    pictures = dict(HISTORY_PICTURES)
    if others := tuple(sorted(measured - known)):
        pictures["Other quantities"] = others
    parts = []
    for title, names in pictures.items():
        if present := [name for name in names if name in measured]:
            ax = plot_history(history, present)
            ax.set_title(title.lower())
            parts.append(picture(ax, f"{title} over the epochs of training"))
    return [f'<div class="pictures">{"".join(parts)}</div>'] if parts else []


def _distances(evaluation: Evaluation, images: EmbeddedImages, seed: int) -> list[str]:
    # The same draw as that of `evaluate`, so these are the pairs that the threshold is of.
    triplets = draw_triplets(images.labels, seed=seed)
    distances = triplet_distances(images.embeddings, triplets)
    ax = plot_distances(*distances, evaluation.whole["equal_error_threshold"])
    return [
        paragraph(
            "How far apart images of one class are, and images of two. The less the two overlap, "
            "the more a distance says. Up to the threshold a pair is called the same; there, "
            f"{evaluation.whole['equal_error_rate']:.1%} of either kind are called wrongly."
        ),
        picture(ax, "Histogram of same and different distances"),
    ]


def _recall(evaluation: Evaluation) -> list[str]:
    ax = plot_recall(evaluation.retrieval.first_positive_rank)
    text = "Share of the queries with an image of their class among the k nearest."
    return [paragraph(text), picture(ax, "Recall at k over k")]


def _negatives(images: EmbeddedImages, seed: int) -> list[str]:
    names, codes = np.unique(images.labels, return_inverse=True)
    means = np.stack(
        [np.mean(images.embeddings[codes == code], axis=0) for code in range(len(names))]
    )
    in_class, words = in_class_negatives([str(name) for name in names], means)
    precisions = precision_over_shares(
        images.embeddings, images.labels, in_class, NEGATIVE_SHARES, seed=seed
    )
    if precisions is None:
        return [paragraph("There are no negatives of two kinds to compare: too few classes.")]
    ax = plot_negatives(NEGATIVE_SHARES, precisions, in_class=words)
    return [
        paragraph(
            "Similarity precision as more of the negatives are in-class, that is "
            f"{words}, and hard. On the left all negatives are others, on the right all are "
            "in-class; what lies between is their mixture."
        ),
        picture(ax, "Similarity precision over the share of in-class ones"),
    ]


def _classes(evaluation: Evaluation, images: EmbeddedImages) -> list[str]:
    by_class = means_by_class(evaluation, images.labels)
    ordered = sorted(
        by_class.items(), key=lambda item: (math.isnan(item[1]["map_at_r"]), item[1]["map_at_r"])
    )
    rows = [
        (name, f"{values['queries']:.0f}", *(_number(values[column]) for column in CLASS_COLUMNS))
        for name, values in ordered
    ]
    header = ("class", "images", *map(_words, CLASS_COLUMNS))
    parts = [
        paragraph("Worst first, by MAP@R. A class of one image has nothing to be found."),
        table(header, rows[:NUM_WORST_CLASSES]),
    ]
    if rest := rows[NUM_WORST_CLASSES:]:
        summary = f"the other {len(rest):,} classes"
        parts.append(f"<details><summary>{summary}</summary>{table(header, rest)}</details>")
    return parts


def _confusions(findings: Findings) -> list[str]:
    if not findings.confusions:
        return [paragraph("No image has one of another class among its nearest.")]
    pairs = [(readable(each.label), readable(each.other)) for each in findings.confusions]
    ax = plot_confusions(pairs, [each.share for each in findings.confusions])
    return [
        paragraph("For each image, the nearest one of another class: how often it is of which."),
        picture(ax, "Most confused pairs of classes"),
    ]


def _tiny(evaluation: Evaluation) -> float:
    return EQUAL_ERROR_SHARE * evaluation.whole["equal_error_threshold"]


def _words(name: str) -> str:
    if name in SPELLINGS:
        return SPELLINGS[name]
    return name.replace("_at_top_", " at top ").replace("_at_", "@").replace("_", " ")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"  # noqa: RUF001
