"""Forms as they arrive: fields that are checked, and uploads that stay in memory."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from deep_ranking.serving.problems import RequestError

FormType = TypeVar("FormType", bound="Fields")
MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 32, 64, 1 << 16
MOST_TOP, DEFAULT_TOP = 200, 20
NUMBER = re.compile(r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]{1,3})?|[0-9]+\.")
SLACK = 1e-6  # of shares that were rounded


class Box(NamedTuple):
    """A part of an image, as shares of its width and height once it is upright.

    Attributes:
        x: left side, 0 to 1.
        y: upper side.
        width: above 0.
        height: above 0.
    """

    x: float
    y: float
    width: float
    height: float


class Fields(BaseModel):
    """Fields of a form; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    collection: str | None = Field(None, description="name of a collection; the first by default")


class SearchFields(Fields):
    """The fields of a search."""

    path: str | None = Field(None, description="query: path of an image in the collection")
    id: str | None = Field(None, description="query: id of an image in the collection")
    top: int = Field(DEFAULT_TOP, ge=1, le=MOST_TOP, description="results to return")
    cursor: str | None = Field(None, description="of an earlier answer, to continue it")
    box: str | None = Field(
        None,
        description="x,y,width,height of the part of the query that counts, as shares of the image",
    )
    class_: str | None = Field(None, alias="class", description="find only this class")
    folder: str | None = Field(None, description="find only images below this folder")
    min_probability: float | None = Field(None, ge=0, le=1, description="leave out others")
    smooth: bool | None = Field(None, description="rank by the smoothed rows, if there are any")
    rerank: bool = Field(False, description="rank the results again")


class CompareFields(Fields):
    """The fields of a comparison: ids, where nothing is uploaded."""


class SetAsideFields(Fields):
    """The fields of a request to set duplicates aside."""

    keeper: str = Field(description="id of the image to keep")
    threshold: float = Field(0.3, ge=0, le=2, description="as for the list of duplicates")


class UndoFields(Fields):
    """The fields of a request to undo it."""

    undo: str = Field(description="what setting aside answered")


class ImagesFields(Fields):
    """The fields of a request for what is known of images."""

    ids: str = Field(
        min_length=1, description=f"ids of images, separated by commas; up to {MOST_TOP}"
    )


class Form(NamedTuple):
    """A form: its checked fields, and for each other name its texts and uploads in order."""

    fields: Any
    parts: Mapping[str, Sequence[str | bytes]]


async def read_form(request: Request, model: type[FormType], *others: str) -> Form:
    """Read the form of a request.

    Args:
        request: the request.
        model: its fields.
        others: names whose values may be texts or uploads, any number of each.

    Raises:
        RequestError: it is no form, or a field is unknown, twice there or out of range.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise RequestError(415, "Send a form: Content-Type multipart/form-data.")
    texts: dict[str, str] = {}
    parts: dict[str, list[str | bytes]] = {name: [] for name in others}
    try:
        async with request.form(
            max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES
        ) as form:
            for name, value in form.multi_items():
                given = value if isinstance(value, str) else await value.read()
                if name in parts:
                    if given != "":  # an empty field of a page
                        parts[name].append(given)
                elif isinstance(given, bytes):
                    raise RequestError(422, f"{name[:100]}: expected a text, received a file.")
                elif name in texts:
                    raise RequestError(422, f"{name[:100]}: is there twice.")
                elif given:
                    texts[name] = given
    except HTTPException as error:
        raise RequestError(400, f"The form cannot be read: {error.detail}") from None
    try:
        fields = model.model_validate(texts)
    except ValidationError as error:
        raise RequestError(422, in_a_sentence(error.errors())) from None
    return Form(fields, parts)


def keep_uploads_in_memory(upload_bytes: int) -> None:
    """Make the parser of forms keep files of up to so many bytes in memory, and write no log."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    MultiPartParser.spool_max_size = max(MultiPartParser.spool_max_size, upload_bytes + 1)


def in_a_sentence(errors: Sequence[Any]) -> str:
    """Return the first error of a model as a sentence: the field, and what is wrong with it."""
    first = errors[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    name = ".".join(where)[:100] or "the request"
    if first["type"] == "extra_forbidden":
        return f"{name}: no such field."
    if first["type"] == "missing":
        return f"{name}: is missing."
    message = str(first["msg"]).replace("Input should", "should")
    return f"{name}: {message}."


def read_box(text: str) -> Box:
    """Read the box of a query.

    Raises:
        RequestError: it is no box, or not inside the image.
    """
    numbers = text.split(",")
    if len(numbers) != 4 or not all(NUMBER.fullmatch(each.strip()) for each in numbers):
        raise RequestError(
            422, "box: expected x,y,width,height as shares of the image, such as 0.25,0.25,0.5,0.5."
        )
    box = Box(*map(float, numbers))
    if not (all(map(math.isfinite, box)) and box.width > 0 and box.height > 0):
        raise RequestError(422, "box: its width and height must be above 0.")
    if box.x + box.width > 1 + SLACK or box.y + box.height > 1 + SLACK:
        raise RequestError(422, "box: lies outside of the image, whose sides end at 1.")
    return box


def described(model: type[Fields], **others: str) -> dict[str, Any]:
    """Return how a form is described in OpenAPI.

    Args:
        model: its fields.
        **others: for each other name what it is: "file", or "many" for any number of files and ids.
    """
    schema = model.model_json_schema()
    file = {"type": "string", "format": "binary"}
    kinds = {
        "file": file,
        "either": {"anyOf": [file, {"type": "string"}]},
        "many": {"type": "array", "items": {"anyOf": [file, {"type": "string"}]}},
    }
    schema["properties"] |= {name: kinds[kind] for name, kind in others.items()}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
