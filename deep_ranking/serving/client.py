"""A client of the server, for Python programs; it needs the standard library alone."""

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from deep_ranking.files import InputError
from deep_ranking.images.decoding import read_file

Upload = str | os.PathLike[str] | bytes
IMAGES = "images"
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

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return a result of an answer."""
        return cls(
            values["id"],
            values["rank"],
            values["path"],
            values["class"],
            values["distance"],
            values["probability"],
            values.get("problem", ""),
        )


@dataclass(frozen=True)
class Matches(Sequence[Match]):
    """Results, nearest first, and the cursor that continues them; None at their end."""

    results: tuple[Match, ...]
    cursor: str | None

    def __getitem__(self, number: Any) -> Any:
        """Return a result, or several."""
        return self.results[number]

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.results)


@dataclass(frozen=True)
class ImageMap:
    """Where the images of a collection lie on its map; each tuple has an entry an image.

    Attributes:
        image_ids: the ids.
        x: 0, on the left, to 65535.
        y: 0, above, to 65535.
        labels: the classes; "" for none.
        left_out: images that are not on the map, because there are so many.
    """

    image_ids: tuple[str, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    labels: tuple[str, ...]
    left_out: int = 0

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Return the map of an answer."""
        names = [each["name"] for each in values["classes"]]
        return cls(
            tuple(values["ids"]),
            tuple(values["x"]),
            tuple(values["y"]),
            tuple(names[number] for number in values["class"]),
            values["left_out"],
        )


class Client:
    """Asks a server that `python -m deep_ranking serve` runs.

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

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.address = address.rstrip("/")
        self._token = token
        self._timeout = timeout

    def collections(self) -> list[dict[str, Any]]:
        """Return the collections: name, images, classes and settings of each."""
        return list(json.loads(self._ask("collections"))["collections"])

    def search(
        self,
        image: Upload | None = None,
        *,
        positive: Sequence[Upload] = (),
        negative: Sequence[Upload] = (),
        **fields: Any,
    ) -> Matches:
        """Search with an image file or the bytes of one, or by `path` or `id` of a known image.

        Args:
            image: what is uploaded; None with `path` or `id`.
            positive: images that the results shall be more like.
            negative: images that they shall be less like.
            **fields: of the form, such as top, cursor, box, class_, folder, min_probability.

        Raises:
            InputError: the server refuses it, with its sentence; or does not answer.
        """
        files = [("image", image)] if image is not None else []
        files += [("positive", each) for each in positive]
        files += [("negative", each) for each in negative]
        given = {name.rstrip("_"): value for name, value in fields.items() if value is not None}
        return _matches(self._ask("search", *_form(given, files)))

    def neighbours(self, image_id: str, top: int = 20) -> Matches:
        """Return the images that are nearest to a known one."""
        return _matches(self._ask(f"{IMAGES}/{quote(image_id)}/neighbours?top={top}"))

    def image(self, image_id: str) -> bytes:
        """Return an image, as an image file."""
        return self._ask(f"{IMAGES}/{quote(image_id)}")

    def thumbnail(self, image_id: str, size: int = 256) -> bytes:
        """Return a small picture of an image, as a JPEG."""
        return self._ask(f"{IMAGES}/{quote(image_id)}/thumbnail?size={size}")

    def compare(self, first: Upload | Match, second: Upload | Match) -> dict[str, Any]:
        """Return distance, cosine, and the probability that two images are of one class."""
        return dict(json.loads(self._ask("compare", *_two(first, second, {}))))

    def explain(
        self, first: Upload | Match, second: Upload | Match, **fields: Any
    ) -> dict[str, Any]:
        """Return which places make two images alike: of each a grid of heat, and words.

        Args:
            first: an image file, the bytes of one, or what a search found.
            second: another.
            **fields: of the form: box, collection.

        Raises:
            InputError: as for `search`.
        """
        return dict(json.loads(self._ask("explain", *_two(first, second, fields))))

    def explanation_picture(
        self, first: Upload | Match, second: Upload | Match, **fields: Any
    ) -> bytes:
        """Return both images side by side with the heat over them, as a JPEG; as `explain`."""
        return self._ask("explain", *_two(first, second, {**fields, "as": "picture"}))

    def duplicates(self, threshold: float = 0.3, **fields: Any) -> dict[str, Any]:
        """Return groups of duplicates; `cursor` of an answer continues it."""
        return dict(
            json.loads(self._ask(f"duplicates?{urlencode({'threshold': threshold, **fields})}"))
        )

    def map(self, collection: str | None = None, *, patience: float = 600.0) -> ImageMap:
        """Return the map of a collection, which the server makes once for each of its states.

        Args:
            collection: its name; the first one by default.
            patience: seconds to wait until it is made.

        Raises:
            InputError: it takes longer, the server refuses it, or does not answer.
        """
        path = "map" if collection is None else f"map?{urlencode({'collection': collection})}"
        end = time.monotonic() + patience
        while True:
            values = json.loads(self._ask(path))
            if "ids" in values:
                return ImageMap.from_values(values)
            if time.monotonic() > end:
                raise InputError(
                    f"{self.address}/api/v1/{path}: the map is {values['status']} and not ready "
                    f"after {patience:g} s; ask again later"
                )
            time.sleep(POLL_SECONDS)

    def _ask(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        address = f"{self.address}/api/v1/{path}"
        request = Request(address, body, {"Content-Type": kind} if kind else {})
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urlopen(request, timeout=self._timeout) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise InputError(f"{address}: {_sentence(error)}") from None
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise InputError(f"{address}: no answer ({reason}); is the server running?") from None


def _two(
    first: Upload | Match, second: Upload | Match, fields: Mapping[str, Any]
) -> tuple[bytes, str]:
    """Return the form of two images, each a file or an id, and its content type."""
    given = (("first", first), ("second", second))
    ids = {name: each.image_id for name, each in given if isinstance(each, Match)}
    files = [(name, each) for name, each in given if not isinstance(each, Match)]
    return _form({**fields, **ids}, files)


def _form(fields: Mapping[str, Any], files: Sequence[tuple[str, Upload]]) -> tuple[bytes, str]:
    """Return a form and its content type."""
    boundary = secrets.token_hex(16)
    parts = []
    for name, value in fields.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        parts.append((f'name="{name}"', text.encode()))
    for name, given in files:
        data = given if isinstance(given, bytes) else read_file(Path(given))
        parts.append((f'name="{name}"; filename="image"', data))
    lines = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    ]
    return b"".join([*lines, f"--{boundary}--\r\n".encode()]), (
        f"multipart/form-data; boundary={boundary}"
    )


def _matches(answer: bytes) -> Matches:
    values = json.loads(answer)
    return Matches(tuple(map(Match.from_values, values["results"])), values["cursor"])


def _sentence(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, TypeError, LookupError, OSError):
        return f"{error.code} {error.reason}"
