"""Answers that follow from what people said otherwise: that two images are no duplicates.

Said of Q and B, it follows for each of the two, as the query Q:

- its copies (images nearer than duplicates are, which nobody told apart from it) are more like it
  than B is;
- if B is of another class, so are the nearest images of its own class.

Where it has neither, nothing follows. Equal files are no answer: every model finds them.
"""

from collections.abc import Mapping
from contextlib import closing

import numpy as np

from deep_ranking.datasets.not_duplicates import Pair
from deep_ranking.datasets.ratings import DUPLICATE, Answer
from deep_ranking.files.append_log import now
from deep_ranking.images.near_copies import MAX_EMBEDDING_DISTANCE
from deep_ranking.search.collection import Collection, GalleryImage
from deep_ranking.search.index.base import read_rows
from deep_ranking.search.index.exact import ExactIndex

DEPTH = 50  # nearest images that are looked at
MOST_CHOSEN = 3  # answers of a query, for each pair
MOST_PAIRS = 1000  # the last ones
NOBODY = "not a duplicate"


def implied_answers(collection: Collection, pairs: Mapping[Pair, str]) -> list[Answer]:
    """Return the answers that follow from pairs that are no duplicates.

    Args:
        collection: an open one; pairs of other images are passed over.
        pairs: pairs of paths, each with who told them apart.

    Raises:
        InputError: the collection is damaged.
    """
    last = list(pairs.items())[-MOST_PAIRS:]
    with closing(collection.images()) as table:
        wanted = {path for pair, _ in last for path in pair}
        images = {each.path: each for each in table.images() if each.path in wanted}
        directed = [
            (images[query], images[other], who)
            for pair, who in last
            if pair <= images.keys()
            for query, other in (tuple(pair), tuple(pair)[::-1])
        ]
        if not directed:
            return []
        directed.sort(key=lambda each: (each[0].path, each[1].path))
        embeddings = collection.embeddings()
        queries = read_rows(embeddings, np.array([each[0].row for each in directed], np.int64))
        found = ExactIndex(embeddings, collection.rows()).search(queries, DEPTH)
        near = table.of_rows(np.unique(found.rows[found.rows >= 0]).tolist())
    time = now()
    return [
        Answer(time, who or NOBODY, query.path, chosen.path, other.path, asked=DUPLICATE)
        for (query, other, who), rows, distances in zip(
            directed, found.rows.tolist(), found.distances.tolist(), strict=True
        )
        for chosen in _more_alike(
            query, other, pairs, near, dict(zip(rows, distances, strict=True))
        )
    ]


def _more_alike(
    query: GalleryImage,
    other: GalleryImage,
    pairs: Mapping[Pair, str],
    near: Mapping[int, list[GalleryImage]],
    distances: Mapping[int, float],
) -> list[GalleryImage]:
    """Return images that are more like a query than another one, the nearest first.

    Args:
        query: the query.
        other: the image that is no duplicate of it.
        pairs: all pairs that were told apart.
        near: the images of each row.
        distances: of the nearest rows from the query, the nearest first.
    """
    chosen = []
    for row, distance in distances.items():
        image = next(iter(near.get(row, ())), None)
        if image is None or row in (query.row, other.row):
            continue
        is_apart = frozenset((query.path, image.path)) in pairs
        is_copy = distance < MAX_EMBEDDING_DISTANCE
        is_of_class = bool(query.label) and image.label == query.label != other.label
        if not is_apart and (is_copy or is_of_class):
            chosen.append(image)
    return chosen[:MOST_CHOSEN]
