"""A model and labelled images -> the folder of an atlas: a page, and files for the next step.

atlas.html          the page, self-contained
atlas.json          all errors, for programs and for the next atlas's --before
suspects.csv        likely wrong labels, in the columns of a corrections file
hard_triplets.txt   triplets of what the model confuses, for `train.py --triplets`
"""

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deep_ranking.datasets import LabelledImages, read_folder, relative_prefix, take_split
from deep_ranking.datasets.corrections import KIND, read_corrections
from deep_ranking.datasets.splits import TO_JUDGE
from deep_ranking.files import InputError, atomic_path
from deep_ranking.files.append_log import now
from deep_ranking.files.csv_lines import write_lines
from deep_ranking.files.html import paragraph
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.words import counted
from deep_ranking.files.writing import make_folder
from deep_ranking.images.thumbnails import fitted_pixels
from deep_ranking.metrics.evaluation import EmbeddedImages, check_finite_images
from deep_ranking.reports.atlas.atlas import Atlas
from deep_ranking.reports.atlas.changes import AtlasChanges, compare_atlases, read_atlas
from deep_ranking.reports.atlas.errors import confusion_examples, find_errors
from deep_ranking.reports.atlas.page import (
    AtlasPictures,
    Heat,
    atlas_page,
    shown_confusions,
)
from deep_ranking.reports.compared_images import compare_contents
from deep_ranking.sampling.triplet_file import write_triplets

if TYPE_CHECKING:
    import keras

    from deep_ranking.embedding.embedder import Embedder

ATLAS, PAGE, SUSPECTS, TRIPLETS = "atlas.json", "atlas.html", "suspects.csv", "hard_triplets.txt"
NUM_HEATED = 8  # pairs of pictures whose heat is computed: 100 embeddings each
THUMBNAIL_SIZE = 144  # pixels of the longer side


@dataclass(frozen=True)
class WrittenAtlas:
    """An atlas that was written.

    Attributes:
        folder: where its files are.
        atlas: what was found.
        num_triplets: hard triplets that were written.
        changes: what became of the errors of an earlier atlas; None if none was given.

    Example:
        >>> make_atlas(model, "photos", "errors").folder
        PosixPath('errors')
    """

    folder: Path
    atlas: Atlas
    num_triplets: int
    changes: AtlasChanges | None = None

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        return "\n".join(map(paragraph, self._lines()))

    def _lines(self) -> Iterator[str]:
        if self.changes is not None:
            yield from self.changes.lines()
        yield from self.atlas.notes()
        yield self.atlas.conclusion()
        parts = [f"Look at {self.folder / PAGE}."]
        if likely := self.atlas.errors.likely:
            parts.append(
                f"{counted(len(likely), 'label')} in {SUSPECTS}: delete the lines whose label is "
                f"right, then --corrections {self.folder / SUSPECTS}."
            )
        yield " ".join([*parts, f"{counted(self.num_triplets, 'triplet')} in {TRIPLETS}."])


def new_atlas_folder(folder: Path) -> Path:
    """Make the folder of an atlas; refuse one that has an atlas: a person may have worked on it.

    Raises:
        InputError: it has one, or cannot be made or written to.
    """
    for name in (ATLAS, SUSPECTS):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name}: there is an atlas already; choose another --atlas, and compare "
                f"with this one by --before {folder}"
            )
    return make_folder(folder)


def make_atlas(
    model: "keras.Model | Embedder | str | os.PathLike[str]",
    data: LabelledImages | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    corrections: str | os.PathLike[str] | None = None,
    before: str | os.PathLike[str] | None = None,
) -> WrittenAtlas:
    """Write where a model errs on labelled images, and which labels are likely wrong.

    Args:
        model: model file, an `Embedder`, or a model from `build_network` or `load_model`.
        data: folder with one folder for each class, or the images of `read_folder`.
        folder: folder to write; made if missing.
        corrections: the corrections file that `data` was read with, so that `suspects.csv` names
            the class that the folders say.
        before: an earlier atlas of these images: its folder, or its `atlas.json`.

    Example:
        >>> written = make_atlas(model, "photos", "wrong")
        >>> sorted(each.name for each in written.folder.iterdir())
        ['atlas.html', 'atlas.json', 'hard_triplets.txt', 'suspects.csv']

    Raises:
        InputError: the images are of a single class, an image cannot be read, the folder has an
            atlas or cannot be written, or `before` is none.
    """
    folder = new_atlas_folder(Path(folder))
    earlier = None if before is None else read_atlas(Path(before))
    from deep_ranking.embedding.embedder import opened_embedder
    from deep_ranking.embedding.kept_rows import kept_embeddings

    if not isinstance(data, LabelledImages):
        data = take_split(read_folder(data), TO_JUDGE)
    compared = compare_contents(data)
    data = compared.queries
    if data.num_classes < 2:
        raise InputError(f"{data.root}: images of one class; an atlas needs two or more")
    opened = opened_embedder(model)
    with kept_embeddings(opened, data.files()) as embeddings:
        check_finite_images(EmbeddedImages(data.files(), data.classes_of_images(), embeddings))
        with progress_bar(total=len(data), title="errors", unit="images") as bar:
            errors = find_errors(
                np.asarray(embeddings), data.items.codes, bar.update, confirmed=data.confirmed
            )
    name = Path(model).name if isinstance(model, str | os.PathLike) else "the model"
    known = {} if corrections is None else read_corrections(corrections).standing
    atlas = Atlas(data, errors, name, compared.content_left_out(), known)
    found = atlas.as_json()
    changes = None
    if earlier is not None and before is not None:
        changes = compare_atlases(earlier, found, Path(before))
        found["changes"] = changes.as_json()
    pictures = AtlasPictures(
        functools.lru_cache(maxsize=1024)(
            functools.partial(fitted_pixels, largest=THUMBNAIL_SIZE, enlarges=True)
        ),
        _heat(opened, atlas),
    )
    text = atlas_page(atlas, pictures, title=f"Where {name} errs on {data.root.name}")
    triplets = errors.hard_triplets()
    prefix = relative_prefix(data.root, folder)
    write_triplets(folder / TRIPLETS, [prefix + path for path in data.paths], [triplets])
    with atomic_path(folder / SUSPECTS) as temporary:
        suspects = (each.fields() for each in atlas.suspected(time=now()))
        write_lines(temporary, [KIND.columns, *suspects])
    with atomic_path(folder / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_path(folder / ATLAS) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return WrittenAtlas(folder, atlas, len(triplets), changes)


def _heat(model: "keras.Model | Embedder", atlas: Atlas) -> dict[int, Heat]:
    """Return why the clearest example of each of the first confused pairs is like its nearest."""
    from deep_ranking.reports.occlusion import explain_by_occlusion

    files = atlas.data.files()
    rows = [
        confusion_examples(atlas.errors, each)[0] for each in shown_confusions(atlas)[:NUM_HEATED]
    ]
    found: dict[int, Heat] = {}
    for row in progress_bar(rows, title="heat", unit="pairs"):
        nearest = int(atlas.errors.neighbours.nearest[row, 0])
        seen = explain_by_occlusion(model, files[row], files[nearest])
        found[row] = (seen.heat, [seen.words(number) for number in (0, 1)])
    return found
