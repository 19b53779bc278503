"""The sections of the report that show images, each as pieces of HTML."""

from collections.abc import Callable

import numpy as np

from deep_ranking.files.array_types import UInt8Array
from deep_ranking.files.html import escaped, paragraph, readable
from deep_ranking.images.thumbnails import thumbnail
from deep_ranking.metrics.evaluation import EmbeddedImages, EmbeddingMetrics
from deep_ranking.reports.page.html import picture
from deep_ranking.reports.page.label_errors import LabelErrors
from deep_ranking.reports.plots import Neighbours, embedding_map, neighbours_figure

ReadPixels = Callable[[str], UInt8Array]
"""Returns the pixels of an image file, uint8 (size, size, 3)."""

MAP_SIZE = 500
NUM_EXAMPLES, NUM_EXTREMES, NUM_SHOWN = 8, 5, 9


def map_of_images(images: EmbeddedImages, read: ReadPixels, seed: int) -> list[str]:
    """Show a map of at most 500 of the images, drawn at random."""
    rows = np.arange(len(images.paths))
    if len(rows) > MAP_SIZE:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAP_SIZE, replace=False))
    ax = embedding_map(
        np.asarray(images.embeddings[rows]),
        [read(images.paths[row]) for row in rows],
        [readable(str(images.labels[row])) for row in rows],
        seed=seed,
    )
    return [
        paragraph(
            f"{len(rows):,} images laid out so that like embeddings lie together (t-SNE); the "
            "color is the class. Near images are alike; larger distances mean nothing here."
        ),
        picture(ax, "Map of the embeddings with thumbnails"),
    ]


def examples(
    evaluation: EmbeddingMetrics, images: EmbeddedImages, read: ReadPixels, seed: int
) -> list[str]:
    """Show queries drawn at random, with their nearest images."""
    defined = np.flatnonzero(evaluation.retrieval.num_positives)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(defined, min(NUM_EXAMPLES, len(defined)), replace=False))
    rows = []
    for query in chosen:
        near = evaluation.retrieval.neighbours[query, :NUM_SHOWN]
        rows.append(
            Neighbours(
                readable(str(images.labels[query])),
                read(images.paths[query]),
                [read(images.paths[row]) for row in near],
                [bool(hit) for hit in images.labels[near] == images.labels[query]],
                [float(each) for each in evaluation.retrieval.distances[query, :NUM_SHOWN]],
            )
        )
    return [
        paragraph(
            "Queries drawn at random, each followed by its nearest images with their distances: "
            "green (✓) of its class, red (✗) not. All images of this page are stretched to a "
            "square, as the network sees them."
        ),
        picture(neighbours_figure(rows), "Random queries with their nearest images", wide=True),
    ]


def extremes(evaluation: EmbeddingMetrics, images: EmbeddedImages, read: ReadPixels) -> list[str]:
    """Show the worst and the best queries, with their nearest images."""
    values = evaluation.per_query["mean_average_precision"]
    order = sorted(np.flatnonzero(~np.isnan(values)), key=lambda row: (values[row], row))
    count = min(NUM_EXTREMES, len(order) // 2)
    parts = [paragraph("By average precision: how early the images of the query's class come.")]
    for kind, chosen in (("Worst", order[:count]), ("Best", order[::-1][:count])):
        for query in chosen:
            label = str(images.labels[query])
            figures = [_image(int(query), images, read, label)]
            for row, distance in zip(
                evaluation.retrieval.neighbours[query, :NUM_SHOWN],
                evaluation.retrieval.distances[query],
                strict=False,
            ):
                hit = images.labels[row] == label
                caption = f"{'✓' if hit else '✗'} {distance:.3f} {images.labels[row]}"
                figures.append(_image(row, images, read, caption, "hit" if hit else "miss"))
            title = f"{kind}: {values[query]:.3f} {images.paths[query]}"
            parts.append(f"<h3>{escaped(title)}</h3>")
            parts.append(f'<div class="row">{"".join(figures)}</div>')
    return parts


def suspects(errors: LabelErrors, images: EmbeddedImages, read: ReadPixels) -> list[str]:
    """Show images that are likely mislabelled, each beside an image of the class proposed."""
    if not errors.suspects:
        return [paragraph("None: no image has most of its 30 nearest in one other class.")]
    pairs = [
        _pair(
            _image(each.row, images, read, each.label, "miss"),
            _image(each.witness, images, read, each.proposed, "hit"),
            f"{images.paths[each.row]}: labelled {each.label}, looks like {each.proposed} "
            f"({each.share:.0%} of its nearest)",
        )
        for each in errors.suspects
    ]
    return [
        paragraph(
            "Images most of whose 30 nearest, weighted by distance, are of one other class; beside "
            "each the nearest image of that class. These are wrong labels, or mistakes of a model "
            "that confuses the two classes."
        ),
        f'<div class="pairs">{"".join(pairs)}</div>',
    ]


def duplicates(errors: LabelErrors, images: EmbeddedImages, read: ReadPixels) -> list[str]:
    """Show near-duplicates across classes."""
    rule = f"nearer than {errors.duplicate_distance:.4f}, a tenth of the distance at equal error"
    if not errors.duplicates:
        return [paragraph(f"None: no two images of different classes are {rule}.")]
    pairs = [
        _pair(
            _image(first, images, read, str(images.labels[first])),
            _image(second, images, read, str(images.labels[second])),
            f"{distance:.4f}: {images.paths[first]} and {images.paths[second]}",
        )
        for first, second, distance in errors.duplicates
    ]
    return [
        paragraph(f"Two images of different classes that are {rule}."),
        f'<div class="pairs">{"".join(pairs)}</div>',
    ]


def _image(row: int, images: EmbeddedImages, read: ReadPixels, caption: str, kind: str = "") -> str:
    path = images.paths[row]
    return thumbnail(read(path), caption, kind=kind, description=path)


def _pair(first: str, second: str, text: str) -> str:
    return f'<div class="pair"><div class="row">{first}{second}</div>{paragraph(text)}</div>'
