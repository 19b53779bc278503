"""Duplicates in the API: told in pages, set aside, put back."""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import Query
from pydantic import JsonValue

from deep_ranking.files import InputError, without_path
from deep_ranking.search.duplicates import Duplicates
from deep_ranking.search.keeper import EQUAL_DETAIL, LOSSLESS, DuplicateImage
from deep_ranking.search.kept_groups import DuplicateGroup
from deep_ranking.search.set_aside import UNDO_FILE, MoveReport, check_folder, move_aside, move_back
from deep_ranking.serving.answers import (
    DuplicateAnswer,
    DuplicatesAnswer,
    GroupAnswer,
    SetAsideAnswer,
    UndoAnswer,
    in_plain_text,
    thumbnail_of,
    without_folders,
)
from deep_ranking.serving.forms import Absent
from deep_ranking.serving.image_ids import image_id
from deep_ranking.serving.opened import OpenState
from deep_ranking.serving.problems import RequestError

SET_ASIDE = ".set_aside"
"""Folder below the root that gets duplicates; `index` passes hidden folders by."""
NAME = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{6}")
NUMBER = re.compile(r"[0-9]{1,9}")
CURSOR: dict[str, JsonValue] = {"pattern": f"^{NUMBER.pattern}$"}
Cursor = Annotated[str | Absent, Query(json_schema_extra=CURSOR)]


def told(state: OpenState, found: Duplicates, top: int, cursor: str | None) -> DuplicatesAnswer:
    """Return a page of groups.

    Raises:
        RequestError: the cursor is not one of an answer.
    """
    begin = place_of(cursor) or 0
    end = begin + top
    return DuplicatesAnswer(
        collection=state.name,
        threshold=found.threshold,
        total=len(found.groups),
        summary=found.summary,
        groups=[_group(each) for each in found.groups[begin:end]],
        cursor=str(end) if end < len(found.groups) else None,
    )


def place_of(cursor: str | None) -> int | None:
    """Return the place that a cursor tells; None for None.

    Raises:
        RequestError: it is not one of an answer.
    """
    if cursor is not None and not NUMBER.fullmatch(cursor):
        raise RequestError(422, "cursor: not what an answer had; leave it out to begin anew.")
    return None if cursor is None else int(cursor)


def why_kept(group: DuplicateGroup) -> str:
    """Return why the keeper of a group was chosen over the others, in words."""
    keeper, others = group.keeper, group.others
    if all(each.effective_side < EQUAL_DETAIL * keeper.effective_side for each in others):
        return "it has the most detail"
    pixels = keeper.width * keeper.height
    most = max(each.width * each.height for each in others)
    if pixels > most:
        return "as much detail as the best of the others, and more pixels"
    if pixels < most:
        return "as much detail as the best of the others, which are enlarged or blurred"
    is_lossless = [each.file_format in LOSSLESS for each in others]
    if keeper.file_format in LOSSLESS and not all(is_lossless):
        return "saved without loss"
    if keeper.num_bytes > max(each.num_bytes for each in others):
        return "as much detail as the others, in the largest file"
    return "no better than the others; its path comes first"


def set_aside(
    state: OpenState, found: Duplicates, keeper: str, images: Sequence[str | bytes]
) -> SetAsideAnswer:
    """Move images of one group into a hidden folder below the root, with an undo file.

    Args:
        state: the collection.
        found: its duplicates.
        keeper: id of the group's image to keep.
        images: ids of those to move.

    Raises:
        RequestError: there is no such group, or an image is not one of its duplicates.
    """
    group = next((each for each in found.groups if _id(each.keeper) == keeper), None)
    if group is None:
        raise RequestError(404, "keeper: no group of duplicates keeps this image.")
    by_id: dict[str | bytes, DuplicateImage] = {_id(each): each for each in group.others}
    if not images or not set(images) <= by_id.keys():
        raise RequestError(422, "image: expected ids of duplicates of the image that is kept.")
    name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    folder = state.root / SET_ASIDE / name
    try:
        check_folder(folder, state.root, state.collection.folder)
        chosen = DuplicateGroup((group.keeper, *(by_id[each] for each in dict.fromkeys(images))))
        moved = move_aside([chosen], state.root, folder)
    except InputError as error:
        raise RequestError(
            409, f"They cannot be moved: {_without_folders(str(error), state)}"
        ) from None
    return SetAsideAnswer(undo=name, moved=moved.num_images, left=_left(moved, state))


def undo_set_aside(state: OpenState, name: str) -> UndoAnswer:
    """Move back what was set aside.

    Raises:
        RequestError: nothing of this name was set aside.
    """
    state.one_index("A list of duplicates")
    file = state.root / SET_ASIDE / name / UNDO_FILE
    unknown = RequestError(404, "undo: nothing of this name was set aside.")
    if not NAME.fullmatch(name) or not file.is_file():
        raise unknown
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(state.root)):
        raise unknown
    try:
        moved = move_back(file)
    except InputError as error:
        raise RequestError(409, f"undo: {without_path(error, file)}") from None
    return UndoAnswer(moved=moved.num_images, in_place=moved.in_place, left=_left(moved, state))


def undo_names(state: OpenState) -> list[str]:
    """Return what can be undone, the newest first."""
    state.one_index("A list of duplicates")
    folder = state.root / SET_ASIDE
    if not folder.is_dir():
        return []
    names = sorted((each.parent.name for each in folder.glob(f"*/{UNDO_FILE}")), reverse=True)
    return [name for name in names if NAME.fullmatch(name) and _has_images(folder / name)]


def _has_images(folder: Path) -> bool:
    return any(each.name != UNDO_FILE and not each.is_dir() for each in folder.rglob("*"))


def _left(moved: MoveReport, state: OpenState) -> list[str]:
    return [
        f"{_without_folders(path, state)}: {_without_folders(reason, state)}"
        for path, reason in moved.left
    ]


def _without_folders(text: str, state: OpenState) -> str:
    """Return a text with the paths of the collection's root taken out."""
    images = "the folder of the images"
    folders = {str(state.root): images, os.path.realpath(state.root): images}
    return without_folders(text, {**folders, str(state.collection.folder): "the index"})


def _group(group: DuplicateGroup) -> GroupAnswer:
    return GroupAnswer(
        keeper=_member(group.keeper), why=why_kept(group), others=list(map(_member, group.others))
    )


def _member(image: DuplicateImage) -> DuplicateAnswer:
    name = _id(image)
    return DuplicateAnswer.model_validate(
        {
            "id": name,
            "path": in_plain_text(image.path),
            "class": in_plain_text(image.label),
            "thumbnail": thumbnail_of(name),
            "distance": image.distance,
            "width": image.width,
            "height": image.height,
            "bytes": image.num_bytes,
            "stays": in_plain_text(image.why_it_stays),
        }
    )


def _id(image: DuplicateImage) -> str:
    return image_id(image.path, image.content)
