"""The one error that a user can mend: one line with what, where and how."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is a single line that names the thing, says what was expected and what arrived,
    and how to mend it. Commands print it and exit with 1; libraries catch it as a `ValueError`.
    """

    def __init__(self, message: str) -> None:
        # The name of a file may hold line breaks.
        super().__init__(message.replace("\n", "\\n").replace("\r", "\\r"))
