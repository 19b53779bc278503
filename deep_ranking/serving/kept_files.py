"""Errors of the files that people's answers go to, as answers of the API."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deep_ranking.files import InputError
from deep_ranking.serving.problems import RequestError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def told_of_file(what: str) -> Iterator[None]:
    """Turn an error of such a file into an answer; whoever runs the server sees all of it.

    Args:
        what: the file holds, in the plural: "answers".
    """
    try:
        yield
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, TimeoutError):
            raise RequestError(
                503, f"Others are writing {what}; try again.", retry_after=1
            ) from None
        print(error, file=sys.stderr, flush=True)
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            raise RequestError(
                507, "The disk is full, so this was not kept. Free some room, then try again."
            ) from None
        raise RequestError(
            503,
            f"The file of the {what} cannot be used, so this was not kept. Whoever runs the "
            "server sees why.",
            retry_after=5,
        ) from None
