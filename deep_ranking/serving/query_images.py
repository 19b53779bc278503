"""Query images of requests -> rows to search with."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.content_digest import data_digest
from deep_ranking.images import read_image
from deep_ranking.images.decoding import decode_bytes
from deep_ranking.search.feedback import moved_queries
from deep_ranking.search.index.base import read_rows
from deep_ranking.serving.answers import ImageAnswer, told_image
from deep_ranking.serving.forms import Box
from deep_ranking.serving.image_ids import KnownImage, find_by_id, find_by_path
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.pictures import verified_bytes
from deep_ranking.serving.problems import BYTES, RequestError, unreadable

SMALL = 32  # pixels; enough to learn why an image cannot be read
LARGEST_DECODED = 8192  # pixels of a side, however small the box


class Query(NamedTuple):
    """What a request searches with.

    Attributes:
        upload: the bytes of an image file.
        path: of an image of the collection, relative to its root.
        image_id: of an image of the collection.
        box: the part of it that counts.
        positive: images that the results shall be more like: bytes, or ids.
        negative: images that they shall be less like.
    """

    upload: bytes | None = None
    path: str | None = None
    image_id: str | None = None
    box: Box | None = None
    positive: Sequence[str | bytes] = ()
    negative: Sequence[str | bytes] = ()


class Pair(NamedTuple):
    """Two images to compare: the bytes of files, or ids.

    Attributes:
        first: one of them.
        second: the other.
        box: the part of the first one that counts.
    """

    first: str | bytes
    second: str | bytes
    box: Box | None = None


def known_image(state: OpenState, image_id: str, *, field: str = "id") -> KnownImage:
    """Return the image of an id.

    Raises:
        RequestError: the collection has no such image.
    """
    found = find_by_id(state.collection, image_id)
    if found is None:
        raise RequestError(404, f"{field}: no such image in the collection {state.name}.")
    return found


def query_row(state: OpenState, query: Query) -> Float32Array:
    """Return the row to search with, moved by the examples: float32 (1, dim).

    Without a query, the mean of the positive examples is the query.

    Raises:
        RequestError: there is no query, more than one, or one that is unknown or cannot be read.
    """
    given = [each for each in (query.upload, query.path, query.image_id) if each is not None]
    if len(given) > 1:
        raise RequestError(422, "Send one query: image, path or id.")
    like = [example_row(state, each, "positive") for each in query.positive]
    unlike = [example_row(state, each, "negative") for each in query.negative]
    if not given:
        if query.box is not None or not like:
            raise RequestError(422, "Send a query: the file field image, or path, or id.")
        row, like = _mean(like), []
    else:
        row = _row_of_query(state, query)
    try:
        return moved_queries(
            row, *(np.concatenate(each) if each else None for each in (like, unlike))
        )
    except InputError:
        raise RequestError(422, "negative: these cancel the query; leave some out.") from None


def example_row(
    state: OpenState, example: str | bytes, field: str, box: Box | None = None
) -> Float32Array:
    """Return the row of an uploaded image, or of an id: float32 (1, dim).

    Args:
        state: the collection.
        example: the bytes of an image file, or the id.
        field: the field that sent it, for errors.
        box: the part of it that counts.

    Raises:
        RequestError: it is unknown or cannot be read; with the name of its field.
    """
    if isinstance(example, bytes):
        return _row_of_bytes(state, example, field, box)
    return _row_of_known(state, known_image(state, example, field=field), field, box)


def _row_of_query(state: OpenState, query: Query) -> Float32Array:
    if query.upload is not None:
        return _row_of_bytes(state, query.upload, "image", query.box)
    if query.image_id is not None:
        return example_row(state, query.image_id, "id", query.box)
    found = find_by_path(state.collection, query.path or "")
    if found is None:
        raise RequestError(404, f"path: no such image in the collection {state.name}.")
    return _row_of_known(state, found, "path", query.box)


def _row_of_known(state: OpenState, image: KnownImage, field: str, box: Box | None) -> Float32Array:
    if box is None:
        return _stored_row(state, image)
    data = verified_bytes(*state.collection.place_of(image.path), image.content)
    return _row_of_bytes(state, data, field, box)


def bytes_of_example(state: OpenState, example: str | bytes, field: str) -> bytes:
    """Return the bytes of an uploaded image, or of an id.

    Raises:
        RequestError: it is empty or unknown, or its file is gone or has changed.
    """
    if isinstance(example, str):
        image = known_image(state, example, field=field)
        return verified_bytes(*state.collection.place_of(image.path), image.content)
    if not example:
        raise RequestError(422, f"{field}: the file is empty.")
    return example


def known_answer(state: OpenState, example: str | bytes) -> ImageAnswer | None:
    """Return what the API says of an image of the collection; None for an upload.

    Raises:
        RequestError: the collection has no such image.
    """
    if isinstance(example, bytes):
        return None
    return told_image(known_image(state, example))


def cropped(data: bytes, box: Box, size: int, *, field: str = "image") -> bytes:
    """Return a part of an image, with as many pixels as a model that sees `size` can use.

    Args:
        data: bytes of an image file.
        box: the part, of the upright image.
        size: side in pixels of the images that the model takes.
        field: the field that sent it, for errors.

    Returns:
        The bytes of a PNG, which is read as any other image.

    Raises:
        RequestError: the image cannot be read.
    """
    wanted = min(math.ceil(size / min(box.width, box.height)), LARGEST_DECODED)
    try:
        pixels = decode_bytes(data, wanted, BYTES.removesuffix(": "))
    except InputError as error:
        raise unreadable(field, error) from None
    part = cv2.cvtColor(part_of(pixels, box), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".png", part, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def part_of(pixels: UInt8Array, box: Box) -> UInt8Array:
    """Return a part of an image (height, width, 3), of a pixel or more."""
    height, width = pixels.shape[:2]
    left, top = min(int(box.x * width), width - 1), min(int(box.y * height), height - 1)
    right = max(left + 1, min(width, round((box.x + box.width) * width)))
    bottom = max(top + 1, min(height, round((box.y + box.height) * height)))
    return pixels[top:bottom, left:right]


def _row_of_bytes(
    state: OpenState, data: bytes, field: str, box: Box | None = None
) -> Float32Array:
    """Return the row of an image, or of a part of it; it is embedded once for all its cursors."""
    if not data:
        raise RequestError(422, f"{field}: the file is empty.")
    key = (data_digest(data), box)
    row = state.upload_rows.find(key)
    if row is not None:
        return row
    if box is not None:
        data = cropped(data, box, state.collection.settings.image_size, field=field)
    row = state.searcher().rows_of([data])
    if np.isnan(row[0, 0]):
        try:
            read_image(data, SMALL)
        except InputError as error:
            raise unreadable(field, error) from None
        raise RequestError(422, f"{field}: cannot be read.")
    state.upload_rows.keep(key, row)
    return row


def _stored_row(state: OpenState, image: KnownImage) -> Float32Array:
    rows = read_rows(state.searcher().ranker.embeddings, np.array([image.row]))
    return np.asarray(rows, np.float32)


def _mean(rows: Sequence[Float32Array]) -> Float32Array:
    mean = np.mean(np.concatenate(rows), axis=0, keepdims=True, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise RequestError(422, "positive: these cancel each other; leave some out.")
    return np.asarray(mean / length, np.float32)
