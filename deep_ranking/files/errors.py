"""The one error that a user can mend: one line with what, where and how."""

import re

MOST_CHARACTERS = 10_000
# Of a name in somebody's file: line breaks of all kinds, and what a terminal takes for commands.
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is a single line that names the thing, says what was expected and what arrived,
    and how to mend it. Commands print it and exit with 1; libraries catch it as a `ValueError`.
    """

    def __init__(self, message: str) -> None:
        if len(message) > MOST_CHARACTERS:
            message = message[:MOST_CHARACTERS] + " ..."
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Give a text in which control characters stand as `repr` writes them."""
    return CONTROL_CHARACTERS.sub(lambda found: repr(found[0])[1:-1], text)
