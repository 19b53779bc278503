"""The sections of the report that show images, each as pieces of HTML."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deep_ranking.files.array_types import UInt8Array
from deep_ranking.files.html import escaped, paragraph, readable
from deep_ranking.files.words import counted
from deep_ranking.images.thumbnails import thumbnail
from deep_ranking.metrics.evaluation import EmbeddedImages, EmbeddingMetrics
from deep_ranking.reports.page.html import Section, section
from deep_ranking.reports.page.label_errors import LabelErrors
from deep_ranking.reports.page.picture_map import MOST_SEEN, lay_out, map_html
from deep_ranking.search.planar_map import map_points

MAP_SIZE = 500
NUM_EXAMPLES, NUM_EXTREMES, NUM_SHOWN = 8, 5, 9


@dataclass(frozen=True)
class Shown:
    """What the galleries show.

    Attributes:
        evaluation: of the images, searched for in themselves.
        images: the images.
        read: returns the pixels of an image file, uint8 (height, width, 3).
    """

    evaluation: EmbeddingMetrics
    images: EmbeddedImages
    read: Callable[[str], UInt8Array]

    def label(self, row: int) -> str:
        """Return the class of an image."""
        return str(self.images.labels[row])

    def name(self, row: int) -> str:
        """Return the path of an image, from the folder that all of them are in."""
        return os.path.relpath(self.images.paths[row], os.path.commonpath(self.images.paths))

    def figure(self, row: int, caption: str, mark: str = "", kind: str = "") -> str:
        """Return an image with its caption, as HTML."""
        pixels = self.read(self.images.paths[row])
        return thumbnail(pixels, caption, mark=mark, kind=kind, description=self.name(row))

    def search(self, query: int) -> str:
        """Return a query with its nearest images, as HTML."""
        label = self.label(query)
        figures = [self.figure(query, label, "Query")]
        for row, distance in zip(
            self.evaluation.retrieval.neighbours[query, :NUM_SHOWN],
            self.evaluation.retrieval.distances[query],
            strict=False,
        ):
            hit = self.label(row) == label
            mark = f"{'✓' if hit else '✗'} {distance:.3f}"
            caption = "" if hit else self.label(row)  # what all have in common tells nothing
            figures.append(self.figure(row, caption, mark, "hit" if hit else "miss"))
        return f'<div class="row search">{"".join(figures)}</div>'


def map_of_images(shown: Shown, seed: int) -> Section:
    """Show a map of at most 150 images, laid out with at most 500, all drawn at random."""
    images = shown.images
    rows = np.random.default_rng(seed).permutation(len(images.paths))[:MAP_SIZE]
    points = map_points(np.asarray(images.embeddings[rows]), seed=seed)
    rows, points = rows[:MOST_SEEN], points[:MOST_SEEN]
    nearest = shown.evaluation.retrieval.neighbours[rows, 0]
    odd = images.labels[nearest] != images.labels[rows]
    layout = lay_out(points, [readable(shown.label(row)) for row in rows])
    pixels = [shown.read(images.paths[row]) for row in rows]
    titles = [f"{shown.label(row)}: {shown.name(row)}" for row in rows]
    num_classes, num_named = len(np.unique(images.labels[rows])), len(layout.names)
    words = [
        f"A dashed orange frame: the nearest of all pictures is of another class; "
        f"{counted(int(odd.sum()), 'picture')} here."
    ]
    if len(rows) < len(images.paths):
        words.append(f"The {len(rows):,} pictures are drawn at random of {len(images.paths):,}.")
    if num_classes > num_named:
        words.append(f"{num_named} of {num_classes:,} classes have room for their name.")
    how = (
        "The model finds those pictures alike that lie near each other, so a class that it knows "
        "is one group. Distances across the map mean nothing, nor do left, right, up and down "
        "(t-SNE, then a grid)."
    )
    return section("Map", how, paragraph(" ".join(words)), map_html(layout, pixels, titles, odd))


def examples(shown: Shown, seed: int) -> Section:
    """Show queries drawn at random, with their nearest images."""
    defined = np.flatnonzero(shown.evaluation.retrieval.num_positives)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(defined, min(NUM_EXAMPLES, len(defined)), replace=False))
    how = (
        "Each row is one search: a picture drawn at random, then the pictures that the model finds "
        "most like it, nearest first. ✓ and a green frame: of the same class. ✗ and a dashed "
        "orange frame: of another. The number is the distance, 0 for the same picture."
    )
    return section("Examples", how, *(shown.search(int(query)) for query in chosen))


def extremes(shown: Shown) -> Section:
    """Show the worst and the best queries, with their nearest images."""
    values = shown.evaluation.per_query["mean_average_precision"]
    order = sorted(np.flatnonzero(~np.isnan(values)), key=lambda row: (values[row], row))
    count = min(NUM_EXTREMES, len(order) // 2)
    parts = []
    for kind, chosen in (("Worst", order[:count]), ("Best", order[::-1][:count])):
        for query in map(int, chosen):
            title = f"{kind}: {values[query]:.3f}, {shown.name(query)}"
            parts += [f"<h3>{escaped(title)}</h3>", shown.search(query)]
    how = (
        "The searches that went worst, and those that went best. The first number is the average "
        "precision: 1 if all pictures of the class come before all others, near 0 if they come "
        "last. Bad ones often show what is odd in the pictures: a wrong class, or a strange view."
    )
    return section("Worst and best queries", how, *parts)


def suspects(shown: Shown, errors: LabelErrors) -> Section:
    """Show images that are likely mislabelled, each beside an image of the class proposed."""
    pairs = [
        _pair(
            shown.figure(each.row, shown.name(each.row), f"labelled {each.label}", "miss"),
            shown.figure(each.witness, shown.name(each.witness), f"like {each.proposed}?", "hit"),
            each.evidence,
        )
        for each in errors.suspects
    ]
    how = (
        "On the left a picture that another class fits better than its own, by all other pictures; "
        "on the right the nearest picture of that class. The likeliest wrong labels come first. "
        "Either the label is wrong, or the model confuses the two classes."
    )
    none = "None: every picture fits its own class best."
    return section("Likely mislabelled", how, _pairs(pairs, none))


def duplicates(shown: Shown, errors: LabelErrors) -> Section:
    """Show near-duplicates across classes."""
    pairs = [
        _pair(
            shown.figure(first, shown.name(first), shown.label(first)),
            shown.figure(second, shown.name(second), shown.label(second)),
            f"Distance {distance:.4f}",
        )
        for first, second, distance in errors.duplicates
    ]
    rule = f"nearer than {errors.duplicate_distance:.4f}, a tenth of the distance at equal error"
    how = (
        f"Two pictures of different classes that are {rule}: nearly the same picture, so one of "
        "the two labels may be wrong."
    )
    none = f"None: no two pictures of different classes are {rule}."
    return section("Near-duplicates across classes", how, _pairs(pairs, none))


def _pairs(pairs: list[str], none: str) -> str:
    return f'<div class="pairs">{"".join(pairs)}</div>' if pairs else paragraph(none)


def _pair(first: str, second: str, text: str) -> str:
    return f'<div class="pair"><div class="row">{first}{second}</div>{paragraph(text)}</div>'
