"""A part of a collection that a search is limited to: a class, a folder, or both."""

import difflib
import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from deep_ranking.datasets.labels import normal_label
from deep_ranking.files import InputError
from deep_ranking.files.path_forms import existing_form
from deep_ranking.files.words import listed
from deep_ranking.search.collection import GalleryImage
from deep_ranking.search.collection.searchable import Searchable

NUM_NEAR = 5
LEAST_LIKENESS = 0.5


@dataclass(frozen=True)
class Subset:
    """Images of some classes, below a folder.

    Attributes:
        labels: the classes; None for all.
        folder: relative to the collection's root, with "/" between folders; "" for all.
    """

    labels: frozenset[str] | None = None
    folder: str = ""

    def has(self, image: GalleryImage) -> bool:
        """Return whether an image belongs to it."""
        return (self.labels is None or image.label in self.labels) and (
            not self.folder or image.path.startswith(f"{self.folder}/")
        )


def find_subset(
    collection: Searchable, *, label: str | None, folder: str | os.PathLike[str] | None
) -> Subset | None:
    """Return the part of a collection that a search is limited to; None for all of it.

    Args:
        collection: the collection.
        label: name of a class, as for `matching_labels`.
        folder: a folder below the collection's root, relative to the root or to the working folder.

    Raises:
        InputError: there is no such class, or no image below the folder; with those nearest to it.
    """
    if label is None and folder is None:
        return None
    with closing(collection.images()) as table:
        labels = None if label is None else matching_labels(label, table.classes())
        inner = "" if folder is None else _relative(Path(collection.settings.root), str(folder))
        if not len(table.rows_of(labels, inner)):
            root = collection.settings.root
            if labels is None or not len(table.rows_of(None, inner)):
                raise InputError(f"{folder}: no image of the collection in it; they are in {root}")
            raise InputError(f"{folder}: no image of the class {label} in it")
    return Subset(None if labels is None else frozenset(labels), inner)


def matching_labels(name: str, labels: Iterable[str]) -> list[str]:
    """Return the classes that a name stands for.

    Those are the class of this name, and those below it: "Fruit" stands for "Fruit/Apple/Golden"
    too. If there are none, they are those that have the name among their folders: "Golden" and
    "Apple" stand for it as well.

    Raises:
        InputError: there are none; with classes of like names.
    """
    wanted = normal_label(name).strip("/")
    labels = sorted(label for label in labels if label)
    found = [label for label in labels if f"{label}/".startswith(f"{wanted}/")]
    found = found or [label for label in labels if f"/{wanted}/" in f"/{label}/"]
    if found and wanted:
        return found
    words = {part.casefold(): label for label in reversed(labels) for part in label.split("/")}
    words |= {label.casefold(): label for label in labels}
    holding = [label for label in labels if wanted and wanted.casefold() in label.casefold()]
    close = difflib.get_close_matches(wanted.casefold(), words, NUM_NEAR, LEAST_LIKENESS)
    near = holding or list(dict.fromkeys(words[each] for each in close))
    hint = f"did you mean {listed(near)}?"
    if not near:
        hint = f"its classes are {listed(labels)}" if labels else "its images have no classes"
    raise InputError(f"{name}: no class of the collection; {hint}")


def _relative(root: Path, folder: str) -> str:
    """Return a folder relative to the root, in the form in which it exists there.

    It starts from the root if it exists there, otherwise from the working folder; one that begins
    with a dot starts from the working folder if that is below the root.
    """
    from_root, from_here = os.path.join(root, folder), os.path.abspath(folder)
    candidates = [from_here, from_root] if folder.startswith(".") else [from_root, from_here]
    places = [(each, _below(root, each)) for each in map(existing_form, candidates)]
    for path, inner in places:
        if inner is not None and os.path.isdir(path):
            return inner
    for _, inner in reversed(places) if folder.startswith(".") else places:
        if inner is not None:  # of an index whose images are elsewhere
            return inner
    raise InputError(f"{folder}: not below the folder of the images, {root}; check --folder")


def _below(root: Path, path: str) -> str | None:
    """Return a path relative to the root, "" for the root; None if it is not below the root."""
    path = os.path.normpath(path)
    for base in (os.path.abspath(root), os.path.realpath(root)):
        inner = os.path.relpath(path, base).replace(os.sep, "/")
        if inner == os.curdir:
            return ""
        if not inner.startswith("../") and inner != "..":
            return inner
    return None
