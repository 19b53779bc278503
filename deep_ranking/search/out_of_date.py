"""Which files of a collection are gone, or hold something else than what was embedded."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from deep_ranking.files.content_digest import content_digests, file_status
from deep_ranking.search.collection import moved_hint
from deep_ranking.search.collection.searchable import Searchable
from deep_ranking.search.collection.syncing import UNREADABLE

GONE, CHANGED = "gone", "changed"


def out_of_date(collection: Searchable, paths: Iterable[str]) -> dict[str, str]:
    """Return `GONE` or `CHANGED` for each file that is not what was embedded.

    A file counts as unchanged while its size, times and inode are. Where any of these differs, the
    content decides: new permissions, a new name or a copy of the whole folder change nothing.

    Args:
        collection: the collection.
        paths: of its images, relative to its root.
    """
    root = Path(collection.settings.root)
    problems: dict[str, str] = {}
    if collection.settings.is_remote:
        return problems
    unsure: dict[str, bytes] = {}
    with closing(collection.images()) as table:
        for file, content in table.recorded(paths):
            try:
                status = file_status(os.stat(root / file.path))
            except OSError:
                problems[file.path] = GONE
                continue
            if file.size not in (status[0], UNREADABLE):
                problems[file.path] = CHANGED
            elif not file.has_status(status):
                unsure[file.path] = content
    digests = content_digests([root / path for path in unsure]) if unsure else ()
    for (path, content), digest in zip(unsure.items(), digests, strict=True):
        if digest != content:
            problems[path] = CHANGED
    return problems


def note_on_problems(collection: Searchable, problems: Mapping[str, str]) -> str:
    """Return what to do about files that are gone or changed, a line a shard; "" if there are none.

    Args:
        collection: the collection.
        problems: by the path, as `out_of_date` returns them.
    """
    if collection.settings.is_remote:
        return (
            f"{collection.folder}: the images are in {collection.settings.root}, where they are "
            "not looked at: some may be gone or changed."
        )
    notes = [
        _note(part, [problems[path] for path in paths])
        for part, paths in collection.parts_of(problems)
    ]
    return "\n".join(filter(None, notes))


def _note(collection: Searchable, problems: Sequence[str]) -> str:
    root, folder = collection.settings.root, collection.folder
    if not problems:
        return ""
    if not os.path.isdir(root):
        return f"{root}: the folder of the images is gone; {moved_hint(collection)}."
    said = []
    for kind, one, several in ((GONE, "is gone", "are gone"), (CHANGED, "has changed", "changed")):
        if number := problems.count(kind):
            said.append(f"{number:,} {one if number == 1 else several}")
    return (
        f"Of the files that were found, {' and '.join(said)} since the index was made: run "
        f"`index --output {folder}` again, which embeds only what is new."
    )
