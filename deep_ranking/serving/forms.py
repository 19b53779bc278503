"""Forms as they arrive: fields that are checked, and uploads that stay in memory."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.json_schema import SkipJsonSchema
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from deep_ranking.serving.problems import RequestError

FormType = TypeVar("FormType", bound="Fields")
Absent = SkipJsonSchema[None]  # what a field is if it is not there: no form can send null
Name = Annotated[str | Absent, Query(description="of a collection; the first by default")]
MOST_FILES, MOST_FIELDS, MOST_FIELD_BYTES = 32, 64, 1 << 16
MOST_TOP, DEFAULT_TOP = 200, 20
Top = Annotated[int, Query(ge=1, le=MOST_TOP)]
ENCODED = b"application/x-www-form-urlencoded"
NUMBER = re.compile(r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]{1,3})?|[0-9]+\.")
AN_ID: dict[str, JsonValue] = {"pattern": "^[0-9a-f]{32}$"}
CURSOR: dict[str, JsonValue] = {"pattern": "^[A-Za-z0-9_=-]+$"}
A_BOX: dict[str, JsonValue] = {"pattern": f"^({NUMBER.pattern})(, ?({NUMBER.pattern})){{3}}$"}
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

    collection: str | Absent = Field(None, description="name of a collection; the first by default")


class SearchFields(Fields):
    """The fields of a search."""

    path: str | Absent = Field(None, description="query: path of an image in the collection")
    id: str | Absent = Field(
        None, description="query: id of an image in the collection", json_schema_extra=AN_ID
    )
    top: int = Field(DEFAULT_TOP, ge=1, le=MOST_TOP, description="results to return")
    cursor: str | Absent = Field(
        None, description="of an earlier answer, to continue it", json_schema_extra=CURSOR
    )
    box: str | Absent = Field(
        None,
        description="x,y,width,height of the part of the query that counts, as shares of the image",
        json_schema_extra=A_BOX,
    )
    class_: str | Absent = Field(None, alias="class", description="find only this class")
    folder: str | Absent = Field(None, description="find only images below this folder")
    min_probability: float | Absent = Field(None, ge=0, le=1, description="leave out others")
    smooth: bool | Absent = Field(None, description="rank by the smoothed rows, if there are any")
    rerank: bool = Field(False, description="rank the results again")


class CompareFields(Fields):
    """The fields of a comparison, besides both images."""

    box: str | Absent = Field(
        None,
        description="x,y,width,height of the part of the first image that counts",
        json_schema_extra=A_BOX,
    )


class ExplainFields(CompareFields):
    """The fields of an explanation."""

    as_: Literal["json", "picture"] = Field(
        "json", alias="as", description="picture: a JPEG of both images with the heat over them"
    )


class SetAsideFields(Fields):
    """The fields of a request to set duplicates aside."""

    keeper: str = Field(description="id of the image to keep", json_schema_extra=AN_ID)
    threshold: float = Field(0.3, ge=0, le=2, description="as for the list of duplicates")


class UndoFields(Fields):
    """The fields of a request to undo it."""

    undo: str = Field(
        description="what setting aside answered",
        json_schema_extra={"pattern": "^[0-9]{8}-[0-9]{6}-[0-9]{6}$"},
    )


class ImagesFields(Fields):
    """The fields of a request for what is known of images."""

    ids: str | Absent = Field(
        None, description=f"ids of images, separated by commas; up to {MOST_TOP}"
    )
    path: str | Absent = Field(None, description="instead: path of an image in the collection")


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
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind not in (b"multipart/form-data", ENCODED):
        raise RequestError(415, "Send a form: Content-Type multipart/form-data.")
    # Some of Python's codecs raise other errors than the parser expects, or make no legal text.
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise RequestError(415, "Send the form in UTF-8.")
    # The parser looks at each sign of empty fields, which takes seconds, and does not count them.
    if kind == ENCODED and (await request.body()).count(b"&") >= MOST_FIELDS:
        raise RequestError(400, f"The form cannot be read: it has more than {MOST_FIELDS} fields.")
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


def described(model: type[Fields], *required: str, **others: str) -> dict[str, Any]:
    """Return how a form is described in OpenAPI.

    Args:
        model: its fields.
        *required: those of the other names that must be there.
        **others: for each other name what it is: "file", "either" for a file or an id, "many" for
            any number of files and ids, "ids" for one or more ids, or "some" for any number of ids.
    """
    schema = model.model_json_schema()
    file, an_id = {"type": "string", "format": "binary"}, {"type": "string", **AN_ID}
    kinds = {
        "file": file,
        "either": {"anyOf": [file, an_id]},
        "many": {"type": "array", "items": {"anyOf": [file, an_id]}},
        "ids": {"type": "array", "items": an_id, "minItems": 1},
        "some": {"type": "array", "items": an_id},
    }
    schema["properties"] |= {name: kinds[kind] for name, kind in others.items()}
    if required:
        schema["required"] = [*schema.get("required", ()), *required]
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
