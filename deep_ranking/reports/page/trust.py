"""The report's section on probabilities: two reliability diagrams, and what they say."""

import numpy as np

from deep_ranking.files.array_types import BoolArray, Float64Array
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted, in_percent
from deep_ranking.metrics.evaluation import EmbeddedImages
from deep_ranking.metrics.reliability import reliability
from deep_ranking.model.calibration import Calibration
from deep_ranking.reports.page.html import Section, chart, section
from deep_ranking.reports.plots import plot_reliability
from deep_ranking.reports.probabilities import HITS_PER_QUERY, judge_hits, judge_pairs

SURE = 0.9


def trust(images: EmbeddedImages, calibration: Calibration | None, seed: int) -> Section:
    """Show how often stated probabilities come true.

    Args:
        images: images with classes and embeddings.
        calibration: the model's; None for a model that was never calibrated.
        seed: seed of what is drawn.
    """
    how = (
        "A probability can be trusted if it comes true: of the answers given with 80 %, four in "
        "five should be right. Points on the dotted line keep their promise; points below it "
        "promise too much, points above it too little. Large points stand for many answers; a "
        "small one tells little. The expected calibration error is their mean distance from the "
        "line."
    )
    parts = [*_pairs(images, calibration, seed), *_hits(images, calibration, seed)]
    return section("How far probabilities can be trusted", how, *parts)


def _pairs(images: EmbeddedImages, calibration: Calibration | None, seed: int) -> list[str]:
    title = "<h3>Two images</h3>"
    judged = judge_pairs(images.embeddings, images.labels, calibration, seed=seed)
    if judged is None:
        words = "Too few images or classes to judge the probability that two images share a class."
        return [title, paragraph(words)]
    source = (
        "The model's own calibration is shown. If the model was calibrated on these very images, "
        "the diagram looks better than it should."
        if calibration is not None
        else "The model is not calibrated. So a calibration was fitted to pairs of half of the "
        "classes, and is shown on pairs of the others."
    )
    found = reliability(*judged)
    ax = plot_reliability({"two images share a class": found})
    words = (
        "The probability that two images share a class, where same and different pairs are equally "
        f"frequent: {counted(len(judged.right), 'pair')}, half of them of one class. {source} "
        f"Expected calibration error {found.calibration_error:.3f}. "
        f"{_sure(judged.probabilities, judged.right, 'pairs')}"
    )
    return [title, chart(ax, "Reliability diagram of pairs", words)]


def _hits(images: EmbeddedImages, calibration: Calibration | None, seed: int) -> list[str]:
    title = "<h3>Hits of a search</h3>"
    judged = judge_hits(images.embeddings, images.labels, calibration, seed=seed)
    if judged is None:
        words = "Too few images or classes to learn the probability of a hit, and to judge it."
        return [title, paragraph(words)]
    found = reliability(judged.chances, judged.right)
    curves = {"a hit is right, p(hit)": found}
    texts = [
        "Half of the images of each class are a collection, which p(hit) is learned from: "
        f"{counted(judged.num_images, 'image')}. The others are the queries, "
        f"{judged.num_queries:,}, each with its {HITS_PER_QUERY} nearest images: "
        f"{counted(len(judged.right), 'hit')}, of which {in_percent(float(judged.right.mean()))} "
        f"are of the query's class. Expected calibration error {found.calibration_error:.3f}. "
        f"{_sure(judged.chances, judged.right, 'hits')}"
    ]
    if judged.pairwise is not None:
        pairwise = curves["two images share a class"] = reliability(judged.pairwise, judged.right)
        source = "" if calibration is not None else ", fitted to pairs of the collection,"
        texts.append(
            f"Grey: what the probability of two images{source} says of the same hits. It supposes "
            "that same and different pairs are equally frequent. But a collection has many more "
            "images of other classes than of the query's, so more of the near ones are wrong. "
            f"Expected calibration error {pairwise.calibration_error:.3f}. "
            f"{_sure(judged.pairwise, judged.right, 'hits')}"
        )
    ax = plot_reliability(curves)
    return [title, chart(ax, "Reliability diagram of hits", *texts)]


def _sure(probabilities: Float64Array, right: BoolArray, kind: str) -> str:
    """Return in a sentence how many answers with 0.9 or more are right."""
    sure = probabilities >= SURE
    if not sure.any():
        return f"No {kind} have {in_percent(SURE)} or more."
    count = int(np.count_nonzero(sure))
    correct = in_percent(float(right[sure].mean()))
    return f"Of the {count:,} {kind} with {in_percent(SURE)} or more, {correct} are right."
