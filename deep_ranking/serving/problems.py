"""Errors of requests: a status, and a sentence that says what to do and nothing of the server."""

from deep_ranking.files import InputError

BYTES = "the bytes of an image: "  # what the reader calls an upload


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        status: the HTTP status.
        sentence: what is wrong and how to mend it.
        retry_after: seconds after which to try again, if that may help.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)


def unreadable(what: str, error: InputError) -> RequestError:
    """Return the error for an image that the reader refused, by the name of its field."""
    return RequestError(422, f"{what}: {str(error).removeprefix(BYTES)}")
