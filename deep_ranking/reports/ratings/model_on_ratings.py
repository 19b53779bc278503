"""How often a model agrees with people: on what most raters answered to each question."""

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.datasets.ratings import ASKED, RANDOM, Ratings
from deep_ranking.embedding.embedder import Embedder
from deep_ranking.files import InputError
from deep_ranking.files.array_types import FloatArray, Int32Array, Int64Array
from deep_ranking.files.stored_rows import StoredRows
from deep_ranking.files.words import counted
from deep_ranking.metrics.agreement import Agreement, model_agreement
from deep_ranking.metrics.distances import pair_distances
from deep_ranking.sampling.rated_triplets import (
    counts_in_words,
    images_in,
    majority_triplets,
)
from deep_ranking.search.collection import Collection


@dataclass(frozen=True)
class ModelOnRatings:
    """A model's agreement with the answers of people.

    Attributes:
        model: the model's file, or the index with its rows.
        fingerprint: of the model.
        agreement: on each question that most raters answered in one way.
        at_random: on those that were asked at random: an honest estimate, as questions that a model
            was unsure of are harder than others.
        num_gone: questions left out because an image of theirs is gone or cannot be read.
        num_copies: questions left out because both images are of the same content.

    Example:
        >>> index_on_ratings(read_ratings("ratings.csv"), "photos.index").left_out()
        []
    """

    model: str
    fingerprint: str
    agreement: Agreement
    at_random: Agreement
    num_gone: int
    num_copies: int

    def as_json(self) -> dict[str, Any]:
        """Return all figures as JSON can hold them."""
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "agreement": agreement_as_json(self.agreement),
            "at_random": agreement_as_json(self.at_random),
            "gone": self.num_gone,
            "copies": self.num_copies,
        }

    def left_out(self) -> list[str]:
        """Return in words which questions are left out."""
        return counts_in_words(
            (self.num_gone, "question with an image that is gone or broken",
             "questions with images that are gone or broken"),
            (self.num_copies, "question about two copies", "questions about two copies"),
        )  # fmt: skip


def model_on_ratings(
    ratings: Ratings, model: str | os.PathLike[str], dataset_dir: str | os.PathLike[str]
) -> ModelOnRatings:
    """Embed the rated images, and return the model's agreement with the answers.

    Args:
        ratings: the ratings.
        model: model file.
        dataset_dir: the folder that the paths of the ratings start from.

    Example:
        >>> found = model_on_ratings(read_ratings("ratings.csv"), "model.h5", "photos")
        >>> found.agreement.num_compared
        8

    Raises:
        InputError: the folder holds none of the images, the model cannot be read, or no question is
            left.
    """
    from deep_ranking.embedding.embed import embedded_images

    used = sorted(set(majority_triplets(ratings).rows.ravel().tolist()))
    names, exists = images_in(Path(dataset_dir), [ratings.paths[each] for each in used])
    there = [number for number, exist in zip(used, exists, strict=True) if exist]
    files = [os.path.join(dataset_dir, names[i]) for i in np.flatnonzero(exists)]
    embedder = Embedder(model)
    with embedded_images(embedder, files, skip_broken=True) as rows:
        row_of = {number: row for row, number in enumerate(there) if np.isfinite(rows[row]).all()}
        return _agreement(ratings, str(model), embedder.fingerprint, rows, row_of)


def index_on_ratings(ratings: Ratings, index: str | os.PathLike[str]) -> ModelOnRatings:
    """Return the agreement of an index's rows with the answers; no image is read.

    Args:
        ratings: the ratings, with paths from the folder of the index's images.
        index: folder of the index.

    Example:
        >>> index_on_ratings(read_ratings("ratings.csv"), "photos.index").num_gone
        0

    Raises:
        InputError: there is no such index, it has none of the images, or no question is left.
    """
    collection = Collection.open(index)
    number_of = {path: number for number, path in enumerate(ratings.paths)}
    with closing(collection.images()) as images:
        row_of = {
            number_of[each.path]: each.row for each in images.images() if each.path in number_of
        }
    if not row_of:
        raise InputError(
            f"{index}: has none of the {counted(len(ratings.paths), 'rated image')}, such as "
            f"{ratings.paths[0]}; give the index of the folder that the ratings' paths start from"
        )
    fingerprint = collection.settings.fingerprint
    return _agreement(ratings, str(index), fingerprint, collection.embeddings(), row_of)


def _agreement(
    ratings: Ratings,
    model: str,
    fingerprint: str,
    rows: FloatArray | StoredRows,
    row_of: Mapping[int, int],
) -> ModelOnRatings:
    """Return the agreement of rows; `row_of` has the row of each path number that has one."""
    lookup = np.full(len(ratings.paths), -1, np.int64)
    lookup[list(row_of)] = list(row_of.values())
    found = majority_triplets(ratings)
    triplets = found.rows
    if not len(triplets):
        raise InputError(
            f"{model}: nothing to agree with, as no question has more votes for one image than for "
            f"the other ({'; '.join(found.left_out())})"
        )
    kept, num_copies = _distinct(rows, lookup, triplets)
    num_gone = len(triplets) - len(kept) - num_copies
    if not len(kept):
        raise InputError(
            f"{model}: no question is left of {len(triplets):,}: {num_gone:,} with an image that "
            f"is gone, {num_copies:,} about copies"
        )
    at_random = ratings.take(ratings.asked == ASKED.index(RANDOM))
    random, _ = _distinct(rows, lookup, majority_triplets(at_random).rows)
    on_all, on_random = (_of_rows(rows, lookup, each) for each in (kept, random))
    return ModelOnRatings(model, fingerprint, on_all, on_random, num_gone, num_copies)


def _distinct(
    rows: FloatArray | StoredRows, lookup: Int64Array, triplets: Int32Array
) -> tuple[Int32Array, int]:
    """Return the triplets whose images are there, and how many more are about two copies."""
    there = triplets[(lookup[triplets] >= 0).all(axis=1)]
    _, chosen, other = lookup[there].T
    copies = pair_distances(rows, rows, chosen, other) == 0
    return there[~copies], int(copies.sum())


def _of_rows(rows: FloatArray | StoredRows, lookup: Int64Array, triplets: Int32Array) -> Agreement:
    query, chosen, other = lookup[triplets].T
    to_chosen = pair_distances(rows, rows, query, chosen)
    to_other = pair_distances(rows, rows, query, other)
    return model_agreement(to_chosen, to_other, triplets[:, 0])


def agreement_as_json(agreement: Agreement) -> dict[str, Any]:
    """Return an agreement as JSON can hold it; None for a share of nothing."""
    share, low, high = (None if np.isnan(each) else each for each in agreement.share)
    return {"share": share, "low": low, "high": high, "compared": agreement.num_compared}
