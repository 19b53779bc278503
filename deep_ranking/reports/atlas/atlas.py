"""`Atlas`: the errors of a model on a data set, with the paths and the classes they are about."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deep_ranking.datasets import LabelledImages
from deep_ranking.datasets.corrections import Correction
from deep_ranking.files.words import counted
from deep_ranking.reports.atlas.errors import DoubtedLabel, ModelErrors, evidence

VERSION = 1


@dataclass(frozen=True)
class Atlas:
    """Where a model errs on labelled images.

    Attributes:
        data: the images, one of each content.
        errors: what was found; its rows are places in `data`.
        model: name of the model file.
        left_out: what was left out because of its content, in words; "" for nothing.
        corrected: the corrections that `data` has, by path.
    """

    data: LabelledImages
    errors: ModelErrors
    model: str
    left_out: str = ""
    corrected: Mapping[str, Correction] = field(default_factory=dict)

    @cached_property
    def labels(self) -> list[str]:
        """The class of each image."""
        return self.data.items.of_images()

    def label_of_code(self, code: int) -> str:
        """Return the name of a class."""
        return self.data.items.names[code]

    def evidence(self, suspect: DoubtedLabel) -> str:
        """Return in a sentence why a label is likely wrong."""
        return evidence(
            suspect, own=self.labels[suspect.row], proposed=self.label_of_code(suspect.proposed)
        )

    def suspected(self, *, time: str = "") -> list[Correction]:
        """Return the likely wrong labels as corrections that a person can look through.

        Args:
            time: of the lines.
        """
        found = []
        for each in self.errors.likely:
            path = self.data.paths[each.row]
            before = self.corrected.get(path)
            # What the folders say, also of an image that was corrected already.
            label = self.labels[each.row] if before is None else before.from_class
            note = f"suggested: {self.evidence(each)}"
            found.append(
                Correction(path, label, self.label_of_code(each.proposed), time, note=note)
            )
        return found

    def conclusion(self) -> str:
        """Return in a line what was found."""
        errors = self.errors
        return (
            f"{counted(len(self.data), 'image')} of {counted(self.data.num_classes, 'class')}: "
            f"{counted(len(errors.suspects), 'label')} likely wrong, "
            f"{counted(len(errors.wrong), 'image')} whose nearest is of another class in "
            f"{counted(len(errors.confusions), 'pair')} of classes, "
            f"{len(errors.far):,} far from their class."
        )

    def as_json(self) -> dict[str, Any]:
        """Return all errors as JSON can hold them, with paths from the folder of the images."""
        data, errors = self.data, self.errors
        return {
            "version": VERSION,
            "model": self.model,
            "root": str(data.root),
            "num_images": len(data),
            "num_classes": data.num_classes,
            "left_out": self.left_out,
            "num_confirmed": self.errors.num_confirmed,
            "paths": data.paths,
            "suspects": [
                self._image(each.row)
                | {
                    "proposed": self.label_of_code(each.proposed),
                    "margin": round(each.margin, 4),
                    "evidence": self.evidence(each),
                    "witness": data.paths[each.witness],
                }
                for each in errors.suspects
            ],
            "wrong_nearest": [
                self._image(each.row)
                | {
                    "nearest": self._image(each.nearest),
                    "nearest_of_class": data.paths[each.own],
                    "lead": round(each.lead, 4),
                }
                for each in errors.wrong
            ],
            "confusions": [
                {
                    "first": self.label_of_code(each.first),
                    "second": self.label_of_code(each.second),
                    "num_first": each.num_first,
                    "num_second": each.num_second,
                }
                for each in errors.confusions
            ],
            "far": [
                self._image(each.row)
                | {"cosine": round(each.cosine, 4), "usual": round(each.usual, 4)}
                for each in errors.far
            ],
        }

    def _image(self, row: int) -> dict[str, Any]:
        return {"path": self.data.paths[row], "class": self.labels[row]}

    def notes(self) -> Iterator[str]:
        """Yield a sentence for each thing that the lists leave out."""
        errors = self.errors
        if self.left_out:
            yield f"Left out: {self.left_out}."
        if errors.num_alone:
            images = counted(errors.num_alone, "image")
            yield f"{images} alone in a class: nothing can be said of that label."
        if errors.num_confirmed:
            labels = counted(errors.num_confirmed, "label")
            yield f"Not suspected, because --corrections says that it is right: {labels}."
        if (more := len(errors.suspects) - len(errors.likely)) > 0:
            yield f"{counted(more, 'likely wrong label')} more in atlas.json alone."
