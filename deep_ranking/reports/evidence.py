"""The evidence of an evaluation: what it compared, what it left out, and how much it can say."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files.words import counted, listed
from deep_ranking.images.near_copies import near_copy_pairs
from deep_ranking.metrics.evaluation import TRIPLETS_PER_QUERY, EmbeddingMetrics
from deep_ranking.reports.compared_images import ComparedImages

FEW_CLASSES = 5
"""With fewer classes of one size, a random order already has a recall@1 of more than a fifth."""

FEW_QUERIES = 30
"""With fewer queries, a single one moves recall@1 by more than 3 points, and the percentile
bootstrap knows too few values: its intervals are too narrow."""

UNEVEN = 2
"""Times that the largest class has the queries of the smallest, from which it is said."""

QUERIES_LOOKED_AT = 100
"""Queries that are looked at beside their nearest image: their share is known to 10 points."""

MANY_NEAR_COPIES = 0.2
"""Share from which recall@1 says little about other pictures, because any model finds a near copy.
Of the training images of Caltech-101, 2 % have one; of Tiny ImageNet's and of the grocery
photographs, none."""

AVERAGING = {
    "per query": "mean over queries, each of the same weight; 95 % bootstrap over queries",
    "median_rank": "median over queries; 95 % bootstrap over queries",
    "similarity_precision, roc_auc, equal_error_rate, equal_error_threshold, score_at_top_30": (
        f"{TRIPLETS_PER_QUERY} triplets drawn for each query; 95 % bootstrap over queries"
    ),
    "nmi": "all searched images at once",
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an evaluation compared, what was left out and why, and how much the figures can say.

    Attributes:
        compared: the images, and those that were left out because of their content.
        class_sizes: queries of each class.
        in_both: classes of the queries and of the gallery.
        in_queries_only: classes that the gallery lacks.
        in_gallery_only: classes that no query has.
        num_without_class: queries of a class that the gallery lacks; they are in no figure.
        num_only_own: queries whose right images are all left out; they are in no figure.
        single_classes: without a gallery, classes of one image; they are in no figure.
        num_judged: queries that the figures are of.
        num_judged_classes: classes of these.
        chance: recall@1 of a random order.
        num_looked_at: queries that were looked at beside their nearest image.
        num_near_copies: those of them whose nearest image is a near copy.
    """

    compared: ComparedImages
    class_sizes: dict[str, int]
    in_both: list[str]
    in_queries_only: list[str]
    in_gallery_only: list[str]
    num_without_class: int
    num_only_own: int
    single_classes: list[str]
    num_judged: int
    num_judged_classes: int
    chance: float
    num_looked_at: int
    num_near_copies: int

    @property
    def num_queries(self) -> int:
        """Number of images that were searched with."""
        return len(self.compared.queries)

    @property
    def num_gallery(self) -> int | None:
        """Number of images that were searched; None if these are the queries."""
        return None if self.compared.gallery is None else len(self.compared.gallery)

    def lines(self, median_rank: str | None) -> Iterator[str]:
        """Yield a sentence for each thing to know before the figures.

        Args:
            median_rank: with a gallery, the median rank in words.
        """
        queries = counted(self.num_queries, "query")
        first = f"{queries} of {counted(len(self.class_sizes), 'class')}"
        if self.num_gallery is None:
            yield f"{first}, each searched for among the others; {self._averages()}"
        else:
            gallery = counted(self.num_gallery, "image")
            yield f"{first}, searched for in {gallery}: median rank {median_rank}."
            yield f"{self._classes()}; {self._averages()}"
        if left_out := self.compared.content_left_out():
            yield f"Content left out: {left_out}."
        yield from self._in_no_figure()
        yield from self.warnings()

    def _averages(self) -> str:
        sizes = self.class_sizes.values()
        fewest, most = min(sizes), max(sizes)
        weights = ""
        if most >= UNEVEN * fewest:
            weights = f", so large classes weigh more ({fewest:,} to {most:,} queries a class)"
        return (
            f"figures are means over queries{weights}, with 95 % bootstrap intervals over queries; "
            f"a random order has recall@1 {self.chance:.3f}."
        )

    def _classes(self) -> str:
        both = f"{counted(len(self.in_both), 'class')} in both"
        parts = [
            f"{len(names):,} in {where} only ({listed(names)})"
            for names, where in (
                (self.in_queries_only, "the queries"),
                (self.in_gallery_only, "the gallery"),
            )
            if names
        ]
        return ", ".join([both, *parts])

    def _in_no_figure(self) -> Iterator[str]:
        """Yield which queries are in no figure, and why."""
        if self.num_without_class:
            yield (
                f"{counted(self.num_without_class, 'query')} of "
                f"{counted(len(self.in_queries_only), 'class')} without an image in the gallery "
                f"({listed(self.in_queries_only)}): in no figure."
            )
        if self.num_only_own:
            queries = counted(self.num_only_own, "query")
            yield f"{queries} whose right images are all copies of it: in no figure."
        if self.single_classes:
            classes = counted(len(self.single_classes), "class")
            yield f"{classes} of one image ({listed(self.single_classes)}): in no figure."

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each reason why the figures mean little."""
        copies = self.compared.contradictions
        if self.num_gallery is not None and copies:
            yield (
                f"{counted(len(copies), 'image')} with a copy in another class ({copies[0]}): one "
                "of the labels may be wrong."
            )
        random = f"a random order already has recall@1 {self.chance:.3f}"
        is_easy = self.chance >= 1 / FEW_CLASSES
        if self.num_judged_classes < FEW_CLASSES:
            classes = counted(self.num_judged_classes, "class")
            also = f", and {random}" if is_easy else ""
            yield f"Only {classes}: the figures say little about other classes{also}."
        elif is_easy:
            yield f"A few classes have most of the images: {random}."
        if self.num_judged < FEW_QUERIES:
            queries = counted(self.num_judged, "query")
            yield f"Only {queries}: one moves the figures a lot, and the intervals are too narrow."
        if self.num_near_copies >= MANY_NEAR_COPIES * max(self.num_looked_at, 1):
            yield (
                f"The nearest image of {self.num_near_copies:,} of "
                f"{counted(self.num_looked_at, 'query')} looked at is a near copy of it: recall@1 "
                "says little about other pictures."
            )

    def as_json(self) -> dict[str, Any]:
        """Return the evidence as JSON can hold it."""
        return {
            "queries": self.num_queries,
            "gallery": self.num_gallery,
            "queries_of_class": self.class_sizes,
            "classes_in_both": self.in_both,
            "classes_in_queries_only": self.in_queries_only,
            "classes_in_gallery_only": self.in_gallery_only,
            "copies_left_out": {
                name: [each.as_json() for each in copies]
                for name, copies in self.compared.left_out.items()
            },
            "copies_in_another_class": [each.as_json() for each in self.compared.contradictions],
            "queries_with_own_content_left_out": self.compared.num_own,
            "queries_in_figures": self.num_judged,
            "queries_in_no_figure": {
                "class_not_in_gallery": self.num_without_class,
                "only_own_content": self.num_only_own,
                "class_of_one_image": len(self.single_classes),
            },
            "averaging": AVERAGING,
            "recall_at_1_by_chance": self.chance,
            "near_copies": {"looked_at": self.num_looked_at, "found": self.num_near_copies},
            "warnings": list(self.warnings()),
        }


def gather_evidence(compared: ComparedImages, metrics: EmbeddingMetrics) -> Evidence:
    """Return the evidence of an evaluation; look at some queries beside their nearest image.

    Args:
        compared: the images that were compared.
        metrics: what a model found in them.
    """
    queries, gallery = compared.queries, compared.gallery
    labels = queries.classes_of_images()
    found = metrics.retrieval
    judged = found.num_positives > 0
    names, sizes = np.unique(labels, return_counts=True)
    others = names if gallery is None else np.unique(gallery.classes_of_images())
    missing = np.setdiff1d(names, others)
    has_class = ~np.isin(labels, missing)
    nearest = _nearest_files(compared, metrics)
    return Evidence(
        compared=compared,
        class_sizes=dict(zip(_texts(names), sizes.tolist(), strict=True)),
        in_both=_texts(np.intersect1d(names, others)),
        in_queries_only=_texts(missing),
        in_gallery_only=_texts(np.setdiff1d(others, names)),
        num_without_class=int((~has_class).sum()),
        num_only_own=0 if gallery is None else int((has_class & ~judged).sum()),
        single_classes=_texts(names[sizes == 1]) if gallery is None else [],
        num_judged=int(judged.sum()),
        num_judged_classes=len(np.unique(labels[judged])),
        chance=float((found.num_positives[judged] / found.num_ranked[judged]).mean()),
        num_looked_at=len(nearest[0]),
        num_near_copies=int(near_copy_pairs(*nearest).sum()),
    )


def _nearest_files(
    compared: ComparedImages, metrics: EmbeddingMetrics
) -> tuple[list[str], list[str]]:
    """Return queries, spread evenly over those in the figures, and the nearest image of each."""
    judged = np.flatnonzero(metrics.retrieval.num_positives > 0)
    count = min(len(judged), QUERIES_LOOKED_AT)
    rows = judged[np.linspace(0, len(judged) - 1, count).astype(np.int64)]
    files, found = compared.queries.files(), compared.sets()[-1].files()
    nearest = metrics.retrieval.neighbours[rows, 0]
    return [files[row] for row in rows], [found[row] for row in nearest]


def _texts(names: npt.NDArray[np.str_]) -> list[str]:
    return [str(each) for each in names]
