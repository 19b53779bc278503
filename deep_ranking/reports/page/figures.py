"""The sections of the report that show numbers and curves, each as pieces of HTML."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from deep_ranking.files.html import escaped, paragraph, readable
from deep_ranking.files.words import counted, in_percent
from deep_ranking.metrics import triplet_distances
from deep_ranking.metrics.evaluation import (
    EmbeddedImages,
    EmbeddingMetrics,
    draw_triplets,
    means_by_class,
)
from deep_ranking.reports.page.hard_negatives import in_class_negatives, precision_over_shares
from deep_ranking.reports.page.html import Section, bar_table, chart, key_figures, section
from deep_ranking.reports.page.label_errors import LabelErrors
from deep_ranking.reports.plots import new_axes, plot_distances, plot_negatives, plot_recall
from deep_ranking.reports.plots.style import styled
from deep_ranking.reports.search_modes import PLAIN, SHOWN, SearchModes
from deep_ranking.training.history import History, plot_history

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
KEY_FIGURES = {
    "recall_at_1": "of searches find a picture of the right class first",
    "recall_at_10": "find one among the 10 nearest",
    "similarity_precision": "of the time, a picture of the same class is nearer than another",
}
SPELLINGS = {
    "nmi": "NMI",
    "roc_auc": "ROC-AUC",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "knn_accuracy": "k-NN accuracy",
}
HISTORY_PICTURES = {
    "Loss": ("loss",),
    "Mean distance to the query": ("positive_distance", "negative_distance"),
    "Share of triplets": ("similarity_precision", "active_triplets"),
    "Share of images": ("recall_at_1", "map_at_r"),
}


def summary(evaluation: EmbeddingMetrics, images: EmbeddedImages, left_out: str) -> Section:
    """Show the figures that tell most, in large."""
    large = []
    for name, meaning in KEY_FIGURES.items():
        mean, low, high = evaluation.intervals.get(name, (math.nan,) * 3)
        if not math.isnan(mean):
            sure = f"between {in_percent(low)} and {in_percent(high)}, 95 % sure"
            if low == high:  # nothing differs that the bootstrap could draw from
                sure = "without exception"
            large.append((in_percent(mean), meaning, sure))
    threshold = f"at the best distance, {evaluation.whole['equal_error_threshold']:.3f}"
    right = in_percent(1 - evaluation.whole["equal_error_rate"])
    large.append((right, "of pairs are called rightly the same class, or another", threshold))
    how = (
        f"{len(images.paths):,} pictures of {len(np.unique(images.labels)):,} classes, each "
        "searched for among the others. The large figures say in short how good the model is; the "
        "more pictures, the narrower the range in which the truth lies."
    )
    parts = [paragraph(left_out)] if left_out else []
    return section("Summary", how, *parts, key_figures(large))


def all_figures(evaluation: EmbeddingMetrics) -> Section:
    """Show all figures in a table, each with what it means."""
    rows = [
        (name, f"{each.mean:.3f}", f"{each.low:.3f} to {each.high:.3f}")
        for name, each in evaluation.intervals.items()
    ]
    for name, value in evaluation.whole.items():
        if name in MEANINGS:
            rows.append((name, f"{value:,}" if isinstance(value, int) else f"{value:.3f}", ""))
    lines = "\n".join(
        f'<tr><th scope="row">{escaped(metric_name(name))}<small>{escaped(MEANINGS[name])}</small>'
        f"</th><td>{value}</td><td>{interval}</td></tr>"
        for name, value, interval in rows
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("metric", "value", "95 % interval"))
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>"
    how = (
        "Each figure with what it means. Higher is better, except for the two lines on equal "
        "error. The truth lies in the interval, 95 % sure (bootstrap over queries). "
        f"{int(evaluation.whole['triplets']):,} triplets were drawn."
    )
    return section("All figures", how, table)


def training(history: History) -> Section | None:
    """Show curves of a training run; nothing if there is none."""
    measured = {name.removeprefix("val_") for row in history for name in row} - {"epoch"}
    known = {name for names in HISTORY_PICTURES.values() for name in names}
    pictures = HISTORY_PICTURES | {"Other quantities": tuple(sorted(measured - known))}
    parts = []
    for title, names in pictures.items():
        if present := [name for name in names if name in measured]:
            ax = _training_axes(history, present)
            if title.startswith("Share"):
                ax.set_ylim(0, 1.02)
                ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            description = f"{title} over the epochs of training"
            parts.append(f"<div><h3>{title}</h3>{chart(ax, description)}</div>")
    how = (
        "How learning went, epoch after epoch: the loss should fall, the distance to positives "
        "stay below that to negatives, and the shares rise. Validation is on images that are not "
        "trained on: once only training gets better, the model learns by heart."
    )
    if not parts:
        return None
    return section("Training", how, f'<div class="charts">{"".join(parts)}</div>')


@styled
def _training_axes(history: History, names: list[str]) -> Axes:
    return plot_history(history, names, new_axes())


def distances(evaluation: EmbeddingMetrics, images: EmbeddedImages, seed: int) -> Section:
    """Show the distances of pairs of one class, and of two."""
    # `evaluate_embeddings` draws the same triplets, so the threshold is of these pairs.
    triplets = draw_triplets(images.labels, seed=seed)
    threshold = evaluation.whole["equal_error_threshold"]
    ax = plot_distances(*triplet_distances(images.embeddings, triplets), threshold)
    how = (
        "How far apart pairs of pictures are: of one class in green, of two classes in grey. The "
        "less the two hills overlap, the more a distance tells."
    )
    words = (
        f"Pairs nearer than the threshold, {threshold:.3f}, are called the same class. At it, "
        f"{in_percent(evaluation.whole['equal_error_rate'])} of either kind are called wrongly.",
    )
    return section("Distances", how, chart(ax, "Distances of pairs of pictures", *words))


def search_modes(modes: SearchModes | None) -> Section | None:
    """Show searches by plain rows, by smoothed ones, and ranked again."""
    if modes is None:
        return None
    names = [name for name in SHOWN if name in modes.figures[PLAIN]]
    rows: list[list[str | float]] = [
        [mode, *(float(values[name].mean) for name in names)]
        for mode, values in modes.figures.items()
    ]
    gains = [
        f"{mode}: {lead.mean:+.3f}, between {lead.low:+.3f} and {lead.high:+.3f}"
        for mode, lead in ((mode, leads[names[-1]]) for mode, leads in modes.leads.items())
    ]
    words = f"Gain in {metric_name(names[-1])} over {PLAIN}, 95 % sure: {'; '.join(gains)}."
    header = ["search", *map(metric_name, names)]
    how = (
        "The same searches, answered in other ways: each line is one way, and longer bars are "
        "better."
    )
    title = "Searches with and without smoothing"
    return section(title, how, bar_table(header, rows), *map(paragraph, (words, modes.heading())))


def recall(evaluation: EmbeddingMetrics) -> Section:
    """Show recall over the number of nearest images."""
    ax = plot_recall(evaluation.retrieval.first_positive_rank)
    how = (
        "How many pictures one must look at: the share of searches with a picture of the right "
        "class among the nearest 1, 5, 10 and so on. The sooner the line is near 100 %, the better."
    )
    return section("Recall", how, chart(ax, "Searches that found their class, by depth"))


def negatives(images: EmbeddedImages, seed: int) -> Section:
    """Show the similarity precision over the share of hard negatives."""
    names, codes = np.unique(images.labels, return_inverse=True)
    means = np.stack(
        [np.mean(images.embeddings[codes == code], axis=0) for code in range(len(names))]
    )
    in_class, description = in_class_negatives([str(name) for name in names], means)
    precisions = precision_over_shares(
        images.embeddings, images.labels, in_class, NEGATIVE_SHARES, seed=seed
    )
    how = (
        "Can the model tell apart what looks alike? Each triplet asks which of two pictures is of "
        "the query's class. The wrong one is easy on the left, of any other class, and hard on the "
        f"right: {description}. The flatter the line, the finer the model's eye."
    )
    if precisions is None:
        none = paragraph("Too few classes to compare negatives of two kinds.")
        return section("Hard negatives", how, none)
    ax = plot_negatives(NEGATIVE_SHARES, precisions, in_class=description)
    words = "Points between mix both kinds. The band is where the truth lies, 95 % sure."
    return section("Hard negatives", how, chart(ax, "Triplets in order, by hardness", words))


def classes(evaluation: EmbeddingMetrics, images: EmbeddedImages) -> Section:
    """Show figures of each class, worst first."""
    by_class = means_by_class(evaluation, images.labels)
    ordered = sorted(
        by_class.items(), key=lambda item: (math.isnan(item[1]["map_at_r"]), item[1]["map_at_r"])
    )
    rows = [
        (name, f"{each['queries']:.0f}", float(each["recall_at_1"]), f"{each['map_at_r']:.3f}")
        for name, each in ordered
    ]
    rows = [(*row[:3], row[3].replace("nan", "–")) for row in rows]  # noqa: RUF001
    header = ("class", "pictures", "found first", "MAP@R")
    parts = [bar_table(header, rows[:NUM_WORST_CLASSES])]
    if rest := rows[NUM_WORST_CLASSES:]:
        words = f"the other {counted(len(rest), 'class')}"
        parts.append(f"<details><summary>{words}</summary>{bar_table(header, rest)}</details>")
    how = (
        "Which classes the model finds hard, worst first by MAP@R. The bar is the share of the "
        "class's pictures whose nearest picture is of the class too. A class of one picture has no "
        "other picture to find."
    )
    return section("Classes", how, *parts)


def confusions(errors: LabelErrors) -> Section:
    """Show which classes are taken for which."""
    how = (
        "What the model mixes up, most often first: of all pictures of the first class, the share "
        "whose nearest wrong picture is of the second. Classes that people mix up too are no harm."
    )
    if not errors.confusions:
        none = paragraph("No picture has one of another class among its nearest.")
        return section("Confusions", how, none)
    rows = [
        (f"{readable(each.label)} → {readable(each.other)}", f"{each.num_images:,}", each.share)
        for each in errors.confusions
    ]
    return section("Confusions", how, bar_table(("class → taken for", "pictures", "share"), rows))


def metric_name(name: str) -> str:
    """Return how the report spells the name of a metric."""
    if name in SPELLINGS:
        return SPELLINGS[name]
    return name.replace("_at_top_", " at top ").replace("_at_", "@").replace("_", " ")
