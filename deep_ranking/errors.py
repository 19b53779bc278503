"""The one error that a user can mend: one line with what, where and how."""

# What a terminal would take for a new line or a command of its own, by what is shown for it.
SHOWN = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029)
} | {ord("\t"): "\t", ord("\n"): "\\n", ord("\r"): "\\r"}


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is a single line that names the thing, says what was expected and what arrived,
    and how to mend it. Commands print it and exit with 1; libraries catch it as a `ValueError`.
    """

    def __init__(self, message: str) -> None:
        # The name of a file may hold line breaks and control characters.
        super().__init__(message.translate(SHOWN))
