"""A client of the server, for Python programs; it needs the standard library alone."""

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from deep_ranking.files import InputError
from deep_ranking.images.decoding import read_file

Upload = str | os.PathLike[str] | bytes
"""An image file, or the bytes of one."""
Answer = dict[str, Any]
"""JSON of the server; `/api/docs` describes it."""
Form = list[tuple[str, Any]]
UPLOADED = {"image", "positive", "negative", "first", "second"}
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Match:
    """An image that the server found.

    Attributes:
        image_id: its id, which later requests may name.
        rank: 1 for the nearest.
        path: relative to the collection's root.
        label: its class; "" for none.
        distance: Euclidean, 0 (alike) to 2.
        probability: that it is of the query's class; None where nothing tells it.
        problem: "gone" or "changed" if its file is not what was indexed; "" if it is.
    """

    image_id: str
    rank: int
    path: str
    label: str
    distance: float
    probability: float | None
    problem: str = ""


class Matches(list[Match]):
    """Results, nearest first; `cursor` continues them, and is None at their end."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(
            Match(each["id"], each["rank"], each["path"], each["class"], each["distance"],
                  each["probability"], each.get("problem", ""))
            for each in answer["results"]
        )  # fmt: skip
        self.cursor: str | None = answer["cursor"]


@dataclass(frozen=True)
class Client:
    """Asks a server that `python -m deep_ranking serve` runs.

    Each method raises an `InputError` with the server's own sentence when it refuses, or when it
    does not answer. `fields` are those of the API, such as top, cursor, box, class_, collection.

    Args:
        address: of the server.
        token: that of the server, if it has one.
        timeout: seconds to wait for an answer.

    Example:
        >>> client = Client("http://127.0.0.1:1", timeout=1)
        >>> client.search("photos/cat/0.png", top=3)
        Traceback (most recent call last):
        deep_ranking.files.errors.InputError: http://127.0.0.1:1/api/v1/search: no answer ...
    """

    address: str = "http://127.0.0.1:8000"
    _: KW_ONLY
    token: str | None = field(default=None, repr=False)
    timeout: float = 60.0

    def collections(self) -> list[Answer]:
        """Return the collections: name, images, classes and settings of each."""
        return list(self._ask("collections")["collections"])

    def search(
        self,
        image: Upload | None = None,
        *,
        positive: Sequence[Upload | Match] = (),
        negative: Sequence[Upload | Match] = (),
        **fields: Any,
    ) -> Matches:
        """Search with an image file or the bytes of one, or by `path` or `id` of a known image.

        Args:
            image: what is uploaded; None with `path` or `id`.
            positive: images that the results shall be more like.
            negative: images that they shall be less like.
            **fields: of the form, such as folder, min_probability.
        """
        examples = [("positive", each) for each in positive]
        examples += [("negative", each) for each in negative]
        return Matches(self._ask("search", [("image", image), *fields.items(), *examples]))

    def neighbours(self, image_id: str, top: int = 20) -> Matches:
        """Return the images that are nearest to a known one."""
        return Matches(self._ask(f"images/{quote(image_id)}/neighbours", top=top))

    def image(self, image_id: str) -> bytes:
        """Return an image, as an image file."""
        return self._bytes(f"images/{quote(image_id)}")

    def thumbnail(self, image_id: str, size: int = 256) -> bytes:
        """Return a small picture of an image, as a JPEG."""
        return self._bytes(f"images/{quote(image_id)}/thumbnail", size=size)

    def compare(self, first: Upload | Match, second: Upload | Match, **fields: Any) -> Answer:
        """Return distance, cosine, and the probability that two images are of one class."""
        return self._ask("compare", _pair(first, second, fields))

    def explain(self, first: Upload | Match, second: Upload | Match, **fields: Any) -> Answer:
        """Return which places make two images alike: of each a grid of heat, and words."""
        return self._ask("explain", _pair(first, second, fields))

    def explanation_picture(
        self, first: Upload | Match, second: Upload | Match, **fields: Any
    ) -> bytes:
        """Return both images side by side with the heat over them, as a JPEG; as `explain`."""
        return self._bytes("explain", _pair(first, second, {**fields, "as": "picture"}))

    def duplicates(self, threshold: float = 0.3, **fields: Any) -> Answer:
        """Return groups of duplicates; `cursor` of an answer continues it."""
        return self._ask("duplicates", threshold=threshold, **fields)

    def map(self, collection: str | None = None, *, patience: float = 600.0) -> Answer:
        """Return the map of a collection, which the server makes once for each of its states.

        Args:
            collection: its name; the first one by default.
            patience: seconds to wait until it is made; then an `InputError` says so.

        Returns:
            `ids`, `x` and `y` (0, on the left and above, to 65535) and `class`, a list each with an
            entry an image; `classes`, which the numbers of `class` are places in; and `left_out`.
        """
        end = time.monotonic() + patience
        while "ids" not in (found := self._ask("map", collection=collection)):
            if time.monotonic() > end:
                raise InputError(
                    f"{self.address}/api/v1/map: the map is {found['status']} and not ready "
                    f"after {patience:g} s; ask again later"
                )
            time.sleep(POLL_SECONDS)
        return found

    def _ask(self, path: str, form: Form | None = None, **query: Any) -> Answer:
        answer: Answer = json.loads(self._bytes(path, form, **query))
        return answer

    def _bytes(self, path: str, form: Form | None = None, **query: Any) -> bytes:
        """Return an answer to a form, if there is one, or to a query; leave out what is None."""
        address = f"{self.address.rstrip('/')}/api/v1/{path}"
        if given := {name: value for name, value in query.items() if value is not None}:
            address += f"?{urlencode(given)}"
        body, headers = (None, {}) if form is None else _encoded(form)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            with urlopen(Request(address, body, headers), timeout=self.timeout) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise InputError(f"{address}: {_sentence(error)}") from None
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise InputError(f"{address}: no answer ({reason}); is the server running?") from None


def _pair(first: Any, second: Any, fields: Answer) -> Form:
    return [("first", first), ("second", second), *fields.items()]


def _encoded(form: Form) -> tuple[bytes, dict[str, str]]:
    """Return a form and its header: files are uploaded, and what was found is named by its id."""
    boundary, body = secrets.token_hex(16), bytearray()
    for name, value in form:
        if value is None:
            continue
        head = f'name="{name.rstrip("_")}"'
        if isinstance(value, Match):
            data = value.image_id.encode()
        elif name in UPLOADED:
            head += '; filename="image"'
            data = value if isinstance(value, bytes) else read_file(Path(value))
        else:
            data = (str(value).lower() if isinstance(value, bool) else str(value)).encode()
        body += f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
        body += data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return bytes(body), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def _sentence(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, TypeError, LookupError, OSError):
        return f"{error.code} {error.reason}"
