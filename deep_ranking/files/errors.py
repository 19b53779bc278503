"""`InputError`, the error that a user can mend: one line with what, where and how."""

import re

MOST_CHARACTERS = 10_000
# A name in a user's file may hold line breaks of any kind, or commands to a terminal.
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(ValueError):
    """An argument, a file or a folder that the user gave cannot be used.

    The message is a single line: what is wrong, what was expected, what arrived, and how to mend
    it. Commands print it and exit with 1; libraries catch it as a `ValueError`.

    Example:
        >>> find_images("nowhere")
        Traceback (most recent call last):
        deep_ranking.files.errors.InputError: nowhere: no such folder; expected a folder of images
    """

    def __init__(self, message: str) -> None:
        if len(message) > MOST_CHARACTERS:
            message = message[:MOST_CHARACTERS] + " ..."
        super().__init__(printable(message))


def without_path(error: InputError, path: object) -> str:
    """Return an error's message without the path of the file that it begins with."""
    return str(error).removeprefix(f"{printable(str(path))}: ")


def printable(text: str) -> str:
    """Return a text with its control characters escaped as `repr` writes them."""
    return CONTROL_CHARACTERS.sub(lambda found: repr(found[0])[1:-1], text)
