"""Errors of the files that people's answers go to, as answers of the API."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deep_ranking.files import InputError
from deep_ranking.serving.answers import without_folders
from deep_ranking.serving.problems import RequestError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
LOCK_SECONDS = 5.0  # that a request waits for others who are writing


@contextmanager
def told_of_file(path: Path, what: str) -> Iterator[None]:
    """Turn an error of such a file into an answer that names the file, and not its folder.

    Whoever runs the server sees all of it on standard error.

    Args:
        path: the file.
        what: it holds, in the plural: "answers".

    Raises:
        RequestError: the file cannot be used.
    """
    try:
        yield
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, TimeoutError):
            raise RequestError(
                503, f"Others are writing {what}; try again.", retry_after=1
            ) from None
        folders = {str(path.parent), str(path.absolute().parent)}
        print(error, file=sys.stderr, flush=True)
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            raise RequestError(
                507, "The disk is full, so this was not kept. Free some room, then try again."
            ) from None
        raise RequestError(
            503,
            f"The file of the {what} cannot be used, and nothing is kept in it until it is "
            f"mended: {without_folders(str(error), dict.fromkeys(folders, 'its folder'))}.",
        ) from None  # with no Retry-After: the page would wait, and tell nobody
