"""Plus and minus examples of a search -> answers that teach: P is more like the query than M is."""

import os
from collections.abc import Sequence

from deep_ranking.datasets.ratings import EXAMPLE, Answer
from deep_ranking.files.append_log import now
from deep_ranking.serving.image_ids import KnownImage, find_by_path
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.query_images import Query, known_image, query_row
from deep_ranking.serving.teach.teaching import Teaching

MOST_OTHERS = 3
"""Results that rank before a plus example, where there are no minus examples."""
DEPTH = 200  # results that are looked at for them


def answers_of_examples(
    state: OpenState, given: str, plus: Sequence[str], minus: Sequence[str], rater: str
) -> list[Answer]:
    """Return the answers that examples of a search give.

    With minus examples, each plus example is more like the query than each of them. Without, it is
    more like it than the three nearest images that rank before it now and are no examples.

    Args:
        state: the collection.
        given: id of the query.
        plus: ids of the plus examples.
        minus: ids of the minus examples.
        rater: whose answers they are.

    Raises:
        RequestError: an image is unknown, one is there twice, or no plus example is there.
    """
    if not plus:
        raise RequestError(422, "positive: send one or more ids.")
    query = known_image(state, given)
    more = [known_image(state, each, field="positive") for each in dict.fromkeys(plus)]
    less = [known_image(state, each, field="negative") for each in dict.fromkeys(minus)]
    rows = [each.row for each in (query, *more, *less)]
    if len(set(rows)) < len(rows):
        raise RequestError(
            422, "Send different images: one of them, or a copy of it, is there twice."
        )
    ranked = [] if less else _ranked(state, query)
    time, model = now(), state.collection.settings.fingerprint
    return [
        Answer(time, rater, query.path, each.path, other.path, asked=EXAMPLE, model=model)
        for each in more
        for other in less or _before(each, ranked, set(rows))
    ]


def _ranked(state: OpenState, query: KnownImage) -> list[KnownImage]:
    """Return the first results of a query alone, without examples, nearest first."""
    (found,) = state.searcher().search(query_row(state, Query(image_id=query.image_id)), DEPTH)
    paths = [os.path.relpath(each.path, state.root) for each in found]
    images = [find_by_path(state.collection, path) for path in paths]
    return [each for each in images if each is not None]


def _before(plus: KnownImage, ranked: Sequence[KnownImage], rows: set[int]) -> list[KnownImage]:
    """Return the nearest results that rank before an example and are no examples themselves.

    Args:
        plus: the example.
        ranked: the results.
        rows: of the query and of all examples.
    """
    found: dict[int, KnownImage] = {}
    for each in ranked:
        if each.row == plus.row or len(found) == MOST_OTHERS:
            break
        if each.row not in rows:
            found.setdefault(each.row, each)
    return list(found.values())


def keep_new(teaching: Teaching, answers: Sequence[Answer]) -> int:
    """Keep answers of one rater, all or none, but for those that stand; return how many are new.

    Raises:
        RequestError: the ratings file cannot be used.
    """
    with teaching.changing() as log:
        own = [known for each in answers[:1] for known in log.standing().of_rater(each.rater)]
        new = [each for each in answers if not any(each.is_of(known) for known in own)]
        if new:
            log.add(*new)
    return len(new)


def take_back_examples(teaching: Teaching, rater: str, number: int) -> None:
    """Take back the last answers of a rater, which came from examples: all of them, or none.

    Raises:
        RequestError: the last answers are others, or the ratings file cannot be used.
    """
    with teaching.changing() as log:
        last = log.standing().of_rater(rater)[-number:]
        if len(last) < number or any(each.asked != EXAMPLE for each in last):
            raise RequestError(
                409, "Other answers are your last ones by now; nothing was taken back."
            )
        log.take_back(rater, number)
