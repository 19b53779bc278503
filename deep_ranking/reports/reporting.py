"""A model and labelled images -> the report, one HTML file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deep_ranking.datasets import LabelledImages, read_folder, take_split
from deep_ranking.datasets.splits import TO_JUDGE
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.metrics.evaluation import EmbeddedImages, draw_triplets, evaluate_embeddings
from deep_ranking.reports.compared_images import ComparedImages, compare_contents
from deep_ranking.reports.page.label_errors import LabelErrors
from deep_ranking.reports.page.sections import write_report
from deep_ranking.reports.search_modes import measure_modes
from deep_ranking.search.collection.settings import DEFAULT_NEIGHBOURS, DEFAULT_POWER
from deep_ranking.training.history import read_history

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: the HTML file.
        num_classes: classes of the images.
        errors: what is odd in the images: likely wrong labels, and copies across classes.
        paths: the images; rows of `errors` are places in this list.

    Example:
        >>> report(model, "photos", "found.html")
        11 images of 3 classes: ... likely mislabelled, ...
    """

    path: Path
    num_classes: int
    errors: LabelErrors
    paths: list[str] = field(repr=False)

    def __repr__(self) -> str:
        size = self.path.stat().st_size / 2**20 if self.path.exists() else 0.0
        return (
            f"{counted(len(self.paths), 'image')} of {counted(self.num_classes, 'class')}: "
            f"{len(self.errors.suspects)} likely mislabelled, "
            f"{counted(len(self.errors.duplicates), 'near-duplicate')} across classes (30 of each "
            f"at most).\nReport in {self.path}, {size:.1f} MiB."
        )

    def _repr_html_(self) -> str:
        parts = [paragraph(line) for line in repr(self).splitlines()]
        return "\n".join([*parts, *self._pictures()])

    def _pictures(self) -> Iterator[str]:
        if suspects := self.errors.suspects:
            yield paragraph("Likely mislabelled:")
            yield image_rows(
                [
                    [
                        (self.paths[each.row], f"{each.label}, not {each.proposed}?")
                        for each in suspects
                    ]
                ]
            )
        if duplicates := self.errors.duplicates:
            yield paragraph("Near-duplicates across classes:")
            yield image_rows(
                [
                    [(self.paths[row], f"{each.distance:.3f}") for row in (each.first, each.second)]
                    for each in duplicates
                ]
            )


def report(
    model: "keras.Model | str | os.PathLike[str]",
    dataset: str | os.PathLike[str] | LabelledImages,
    output: str | os.PathLike[str],
    *,
    history: str | os.PathLike[str] | None = None,
    title: str | None = None,
    seed: int = 0,
) -> Report:
    """Write all that is known of a model to one HTML file, which has its pictures in it.

    Of files with the same content in one class, one is taken.

    Args:
        model: model file, or a model from `build_network` or `load_model`.
        dataset: folder with one folder for each class, or the images of `read_folder`; best with
            classes not trained on.
        output: file to write, such as report.html.
        history: history.csv of the training run; None for the one beside the model file, if any.
        title: heading; None for the names of model and data set.
        seed: seed of everything drawn at random; the same seed gives the same page.

    Example:
        >>> report(model, "photos", "report.html").path.exists()
        True

    Raises:
        InputError: a file or an image cannot be read, the images are of a single class, or the
            page cannot be written.
    """
    if not isinstance(dataset, LabelledImages):
        dataset = take_split(read_folder(dataset), TO_JUDGE)
    # Copies in other classes stay: the page shows them, as near-duplicates across classes.
    compared = compare_contents(dataset, dataset)
    data, copies = compared.queries, compared.left_out["queries"]
    left_out = ""
    if copies:
        images_left = counted(len(copies), "image")
        left_out = f"Left out: {images_left}, copies of others or links to them ({copies[0]})."
    paths, labels = data.files(), data.classes_of_images()
    name = "the model"
    if isinstance(model, str | os.PathLike):
        file = Path(model)  # which may be ".", that has no name
        name, beside = file.name, file.parent / f"{file.stem}.run" / "history.csv"
        history = beside if history is None and beside.exists() else history
    rows = [] if history is None else read_history(Path(history))
    draw_triplets(labels)  # refuses a single class before the long work
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.model.file import opened_model

    network = opened_model(model)
    with embedded_images(network, paths) as embeddings:
        images = EmbeddedImages(paths, labels, embeddings, data.confirmed)
        errors = write_report(
            output,
            evaluate_embeddings(images, seed=seed),
            images,
            title=title or f"{name} on {data.root}",
            left_out=left_out,
            history=rows,
            calibration=getattr(network, "calibration", None),
            modes=measure_modes(
                ComparedImages(data),
                [embeddings],
                DEFAULT_NEIGHBOURS,
                DEFAULT_POWER,
                rerank=True,
                seed=seed,
            ),
            seed=seed,
        )
    return Report(Path(output), data.items.num_names, errors, paths)
