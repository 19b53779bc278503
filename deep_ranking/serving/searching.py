"""Searches of the API: what is asked -> what is answered."""

import base64
import binascii
import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array
from deep_ranking.files.content_digest import data_digest
from deep_ranking.metrics import cosine_at, pair_distances
from deep_ranking.model.calibration import probability_of_same
from deep_ranking.search.out_of_date import out_of_date
from deep_ranking.search.results import Result
from deep_ranking.search.subset import matching_labels
from deep_ranking.serving.answers import (
    ClassCount,
    CollectionAnswer,
    ComparisonAnswer,
    FoundImage,
    SearchAnswer,
    in_plain_text,
    likeness_in_words,
    thumbnail_of,
)
from deep_ranking.serving.image_ids import contents_of, image_id
from deep_ranking.serving.opened import OpenState, RankedResults
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.query_images import (
    Pair,
    Query,
    example_row,
    known_answer,
    known_image,
    query_row,
)

DEEPEST = 10_000
"""Results that a search can be continued to: what Milvus returns at most, and memory, bound them.
An answer that ends there says so."""
DEEPER = 4  # times: how much deeper a continued search goes than before


class Wanted(NamedTuple):
    """What a search shall return.

    Attributes:
        top: results.
        cursor: of an earlier answer.
        label: only images of this class.
        folder: only images below this folder, relative to the root.
        min_probability: only images with such a chance of a hit.
        smooth: whether to rank by the smoothed rows; None: as the collection has them.
        rerank: whether to rank again.
        leave_out: path of an image that is left out.
    """

    top: int
    cursor: str | None = None
    label: str | None = None
    folder: str | None = None
    min_probability: float | None = None
    smooth: bool | None = None
    rerank: bool = False
    leave_out: str | None = None


def search_collection(state: OpenState, query: Query, wanted: Wanted) -> SearchAnswer:
    """Search a collection.

    Raises:
        RequestError: the query or what is wanted cannot be used.
    """
    row = query_row(state, query)
    searcher = state.searcher(wanted.smooth)
    asked = repr((wanted._replace(top=0, cursor=None), state.order))
    key = data_digest(row.tobytes() + asked.encode(errors="surrogateescape"))[:8].hex()
    if state.ranked.find(key) is None:  # else it was checked
        _check(state, wanted)
    order = state.order
    begin = 0 if wanted.cursor is None else _read_cursor(wanted.cursor, key, order)
    end = min(begin + wanted.top, DEEPEST)
    found = _ranked(state, row, wanted, key, end + 1)
    page = [
        (rank, os.path.relpath(each.path, state.root), each)
        for rank, each in enumerate(found[begin:end], start=begin + 1)
    ]
    least = wanted.min_probability
    if least is not None:
        page = [each for each in page if (each[2].hit_probability or 0.0) >= least]
    is_more = len(found) > end and bool(page)
    answer = SearchAnswer(
        collection=state.name,
        results=_described(state, page),
        cursor=_written_cursor(end, key, order) if is_more and end < DEEPEST else None,
        is_cut=is_more and end == DEEPEST,
        ranked_by=_ranked_by(searcher.ranker.is_smoothed, wanted.rerank),
    )
    if state.collection.num_shards:
        answer.shards = state.collection.num_shards
        answer.left_out = _left_out(state)
    return answer


def _ranked(
    state: OpenState, row: Float32Array, wanted: Wanted, key: str, count: int
) -> Sequence[Result]:
    """Return the first results of a search, `count` or more; all if there are fewer.

    They are kept for the next cursor. A search that is continued goes several times as deep as
    before, so that going on to the end costs little more than the last search alone.
    """
    known = state.ranked.find(key)
    if known is not None and (known.depth >= count or len(known.results) < known.depth):
        return known.results
    out = int(wanted.leave_out is not None)
    depth = count + out
    if known is not None:
        depth = max(depth, min(DEEPER * known.depth, DEEPEST + 1 + out))
    (found,) = state.searcher(wanted.smooth).search(
        row, depth, label=wanted.label, folder=wanted.folder, rerank=wanted.rerank
    )
    ranking = RankedResults(depth, found)
    if wanted.leave_out is not None:
        own = str(state.root / wanted.leave_out)
        ranking = RankedResults(depth - out, [each for each in found if each.path != own])
    state.ranked.keep(key, ranking, len(found))
    return ranking.results


def neighbours_of(state: OpenState, given: str, top: int, cursor: str | None) -> SearchAnswer:
    """Return the images that are nearest to one of the collection, without itself.

    Raises:
        RequestError: there is no such image.
    """
    image = known_image(state, given)
    wanted = Wanted(top, cursor, leave_out=image.path)
    return search_collection(state, Query(image_id=given), wanted)


def compare_images(state: OpenState, pair: Pair) -> ComparisonAnswer:
    """Compare two images.

    Raises:
        RequestError: one of them is unknown or cannot be read.
    """
    rows = [
        example_row(state, pair.first, "first", pair.box),
        example_row(state, pair.second, "second"),
    ]
    place = np.zeros(1, np.int64)
    distance = float(pair_distances(rows[0], rows[1], place, place)[0])
    probability = probability_of_same(distance, state.collection.calibration)
    return ComparisonAnswer(
        distance=distance,
        cosine=cosine_at(distance),
        probability=probability,
        words=likeness_in_words(probability),
        first=known_answer(state, pair.first),
        second=known_answer(state, pair.second),
    )


def describe_collection(state: OpenState) -> CollectionAnswer:
    """Return what the API says of a collection."""
    settings = state.collection.settings
    with closing(state.collection.images()) as table:
        count, classes = len(table), table.classes()
    return CollectionAnswer(
        name=state.name,
        images=count,
        classes=[
            ClassCount(name=in_plain_text(label), images=number)
            for label, number in classes.items()
        ],
        index=settings.index["kind"],
        smoothed=state.is_smoothed,
        precision=settings.precision,
        probabilities=state.collection.hit_calibration is not None,
        shards=state.collection.num_shards,
        left_out=_left_out(state),
    )


def _left_out(state: OpenState) -> list[str]:
    return [in_plain_text(each.name) for each in state.collection.left_out]


def _described(state: OpenState, page: list[tuple[int, str, Result]]) -> list[FoundImage]:
    paths = [path for _, path, _ in page]
    contents = contents_of(state.collection, paths)
    problems = out_of_date(state.collection, paths)
    answers = []
    for rank, path, found in page:
        if path not in contents:  # a sync took it away meanwhile
            continue
        name = image_id(path, contents[path])
        problem = {"problem": problems[path]} if path in problems else {}
        answers.append(
            FoundImage.model_validate(
                {
                    "id": name,
                    "rank": rank,
                    "path": in_plain_text(path),
                    "class": in_plain_text(found.label),
                    "distance": found.distance,
                    "probability": found.hit_probability,
                    "thumbnail": thumbnail_of(name),
                    **problem,
                }
            )
        )
    return answers


def _check(state: OpenState, wanted: Wanted) -> None:
    """Refuse a class, folder or probability that the collection does not have."""
    with closing(state.collection.images()) as table:
        labels = None
        if wanted.label is not None:
            try:
                labels = matching_labels(wanted.label, table.classes())
            except InputError as error:
                raise RequestError(422, f"class: {error}") from None
        if wanted.folder is not None:
            _check_folder(wanted.folder)
        folder = wanted.folder or ""
        if (labels or folder) and not len(table.rows_of(labels, folder.strip("/"))):
            which = "the collection" if labels is None else "this class"
            raise RequestError(422, f"folder: no image of {which} is in it.")
    if wanted.min_probability is not None and state.collection.hit_calibration is None:
        raise RequestError(
            422, "min_probability: this collection tells no probabilities; leave it out."
        )


def _check_folder(folder: str) -> None:
    parts = PurePosixPath(folder).parts
    if "\0" in folder or folder.startswith("/") or ".." in parts or folder.startswith("."):
        raise RequestError(422, "folder: expected a folder of the collection, such as 2024/summer.")


def _ranked_by(is_smoothed: bool, rerank: bool) -> str:
    ranked_by = "smoothed distance" if is_smoothed else "distance"
    return f"{ranked_by}, again" if rerank else ranked_by


def _written_cursor(end: int, key: str, order: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([end, key, order]).encode()).decode()


def _read_cursor(cursor: str, key: str, order: str) -> int:
    try:
        end, of, by = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        end, of, by = None, None, order
    if type(end) is not int or not 1 <= end < DEEPEST:
        raise RequestError(422, "cursor: not what an answer had; leave it out to begin anew.")
    if by != order:
        raise RequestError(409, "The collection has another order since; search again.")
    if of != key:
        raise RequestError(422, "cursor: of another search; send the fields of that one with it.")
    return end
