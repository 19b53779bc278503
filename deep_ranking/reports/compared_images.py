"""What an evaluation compares: one file of each content, and no query with its own content.

A copy of a file, or a link to it, has the same content. As a result of its own search it would be
at distance 0, and right, for every model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deep_ranking.datasets import LabelledImages
from deep_ranking.files import printable
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.content_digest import content_digests
from deep_ranking.files.words import counted
from deep_ranking.images import open_image

Content = bytes | str


class CopiedImage(NamedTuple):
    """A file with the content of an earlier file of the same folder.

    Attributes:
        root: folder that both paths start from.
        path: the later file.
        of: the first file with that content.
    """

    root: Path
    path: str
    of: str

    def __str__(self) -> str:
        return printable(f"{self.path} of {self.of}")

    def as_json(self) -> dict[str, str]:
        """Return both paths with the folder before them."""
        return {"path": str(self.root / self.path), "of": str(self.root / self.of)}


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """Images to search with and to search, without copies.

    Attributes:
        queries: the images to search with.
        gallery: the images to search; None if each query is searched for among the others.
        own: int64 (queries, most), for each query the rows of the gallery with its own content, -1
            for none; None without a gallery, or if no query has any.
        left_out: copies that were left out of "images" (without a gallery), or of "queries" and
            "gallery".
        contradictions: copies in another class than their first file. Without a gallery they are
            left out; of queries and of a gallery, both files stay.
    """

    queries: LabelledImages
    gallery: LabelledImages | None = None
    own: Int64Array | None = None
    left_out: dict[str, list[CopiedImage]] = field(default_factory=dict)
    contradictions: list[CopiedImage] = field(default_factory=list)

    def sets(self) -> list[LabelledImages]:
        """Return the queries, and the gallery if there is one."""
        return [self.queries] if self.gallery is None else [self.queries, self.gallery]

    @property
    def num_own(self) -> int:
        """Number of queries with their own content in the gallery."""
        return 0 if self.own is None else int((self.own >= 0).any(axis=1).sum())

    def content_left_out(self) -> str:
        """Return what was left out because of its content, and why, in words; "" for nothing."""
        parts = []
        for name, copies in self.left_out.items():
            if copies:
                what = counted(len(copies), {"queries": "query"}.get(name, "image"))
                where = " of the gallery" if name == "gallery" else ""
                parts.append(f"{what}{where}, copies of others or links to them ({copies[0]})")
        if self.gallery is None and self.contradictions:
            what = counted(len(self.contradictions), "image")
            parts.append(
                f"{what}, copies of images of another class ({self.contradictions[0]}), one of the "
                "two labels is wrong"
            )
        if self.num_own:
            queries = counted(self.num_own, "query")
            parts.append(f"the file, copy or link of {queries} in the gallery, from their results")
        return "; ".join(parts)


def compare_contents(
    queries: LabelledImages, gallery: LabelledImages | None = None
) -> ComparedImages:
    """Find files with the same content, and leave out what would be found as itself.

    Without a gallery, one image of each content stays: of one that is in two classes, the first.
    Of queries and of a gallery, one image of each content in each class stays.

    Args:
        queries: the images to search with.
        gallery: the images to search; None if each query is searched for among the others.
    """
    # The contents of both at once: they have one progress bar. A file that cannot be read is like
    # no other; who embeds it says what is wrong with it.
    files = [*queries.files(), *([] if gallery is None else gallery.files())]
    each_once = list(dict.fromkeys(files))
    known: dict[str, Content] = {
        file: digest if isinstance(digest, bytes) else file
        for file, digest in zip(
            each_once, content_digests(each_once, open_file=open_image), strict=True
        )
    }
    contents = [known[file] for file in files]
    if gallery is None:
        kept, _, copies, contradictions = _without_copies(queries, contents, one_class=True)
        return ComparedImages(kept, None, None, {"images": copies}, contradictions)
    kept, with_contents, of_queries, wrong = _without_copies(queries, contents[: len(queries)])
    found, in_contents, of_gallery, also_wrong = _without_copies(gallery, contents[len(queries) :])
    return ComparedImages(
        kept,
        found,
        _rows_of_contents(with_contents, in_contents),
        {"queries": of_queries, "gallery": of_gallery},
        list(dict.fromkeys([*wrong, *also_wrong])),  # both may be one folder
    )


def _without_copies(
    images: LabelledImages, contents: Sequence[Content], *, one_class: bool = False
) -> tuple[LabelledImages, list[Content], list[CopiedImage], list[CopiedImage]]:
    """Return the images that stay and their contents, the copies, and those in another class.

    Images of the same content in another class stay, unless `one_class`.
    """
    first: dict[Content, int] = {}
    first_of_class: dict[tuple[Content, int], int] = {}
    stays = np.ones(len(images), bool)
    copies: list[CopiedImage] = []
    contradictions: list[CopiedImage] = []
    for number, (content, code) in enumerate(
        zip(contents, images.items.codes.tolist(), strict=True)
    ):
        of = first_of_class.setdefault((content, code), number)
        copied, same_class = (of, True) if of != number else (first.setdefault(content, of), False)
        if copied == number:
            continue
        copy = CopiedImage(images.root, images.paths[number], images.paths[copied])
        (copies if same_class else contradictions).append(copy)
        stays[number] = not (same_class or one_class)
    numbers = np.flatnonzero(stays).tolist()
    chosen = images if stays.all() else images.select(stays)
    return chosen, [contents[number] for number in numbers], copies, contradictions


def _rows_of_contents(queries: Sequence[Content], gallery: Sequence[Content]) -> Int64Array | None:
    """Return the rows of each query's content: int64 (queries, most), -1 for none; None if all."""
    rows: dict[Content, list[int]] = {}
    for row, content in enumerate(gallery):
        rows.setdefault(content, []).append(row)
    own = [rows.get(content, []) for content in queries]
    most = max(map(len, own), default=0)
    if not most:
        return None
    return np.array([each + [-1] * (most - len(each)) for each in own], np.int64)
