"""Many pairs of images and their embeddings -> a distance for each pair, and a summary.

A pairs file has one pair a line, `image1,image2` or `image1,image2,label`. Like a triplet file, it
has no header, quotes only names that need it, and starts its paths from its own folder or from the
working folder. A label tells whether the two are of one class: 1 or same, 0 or different.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Float32Array, Float64Array, Int32Array
from deep_ranking.files.csv_lines import read_lines
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted
from deep_ranking.images import resolve_image_paths
from deep_ranking.images.thumbnails import MOST_ROWS, image_rows
from deep_ranking.metrics import METRICS, cosine_at, pair_distances, pair_metrics
from deep_ranking.metrics.distances import slices
from deep_ranking.model.calibration import Calibration, probability_of_same

FORMS = {2: "image1,image2", 3: "image1,image2,label"}  # of a line, by its number of fields
LABELS = {"1": True, "same": True, "0": False, "different": False}
PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class ListedPairs:
    """The pairs of a file.

    Attributes:
        file: the pairs file; pair i is in its line i + 1.
        paths: the images, each once.
        rows: int32 (pairs, 2), indices into `paths`.
        same: bool (pairs,), whether the two are of one class; None for a file without labels.
    """

    file: Path
    paths: list[str]
    rows: Int32Array
    same: BoolArray | None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[Int32Array, BoolArray | None]]:
        """Yield blocks of pairs in order: their rows, and whether each is of one class."""
        for part in slices(len(self), PAIRS_AT_ONCE):
            yield self.rows[part], None if self.same is None else self.same[part]

    def check_images_exist(self) -> None:
        """Check that every image exists.

        Raises:
            InputError: an image is missing; with the line of its first pair.
        """
        for path in self.paths:
            if not os.path.exists(path):
                raise self.with_line(InputError(f"{path}: no such image"))

    def with_line(self, error: InputError) -> InputError:
        """Return an error that starts with an image's path, with the line of the image's pair."""
        named = [path for path in self.paths if str(error).startswith(f"{path}: ")]
        if not named:
            return error
        number = self.paths.index(max(named, key=len))
        line = int(np.argmax((self.rows == number).any(axis=1))) + 1
        return InputError(
            f"{self.file}:{line}: {error}; mend the image, or leave such pairs out with "
            "--skip_broken"
        )


class CrossedPairs:
    """All pairs of an image of one list with an image of another.

    Args:
        first: paths of the first images.
        second: paths of the second, which may be among the first.

    Attributes:
        paths: the images, each once.
    """

    def __init__(self, first: Sequence[str], second: Sequence[str]) -> None:
        numbers = {path: number for number, path in enumerate(dict.fromkeys((*first, *second)))}
        self.paths = list(numbers)
        self._first, self._second = (
            np.array([numbers[path] for path in each], np.int32) for each in (first, second)
        )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._first) * len(self._second)

    def blocks(self) -> Iterator[tuple[Int32Array, None]]:
        """Yield blocks of pairs: the first image with all of the other list, then the second ..."""
        for number in self._first:
            for part in slices(len(self._second), PAIRS_AT_ONCE):
                others = self._second[part]
                yield np.column_stack([np.full_like(others, number), others]), None


def read_image_pairs(path: str | os.PathLike[str]) -> ListedPairs:
    """Read a pairs file.

    Args:
        path: the file. Lines may end in LF or CRLF; a .gz file is decompressed.

    Returns:
        The `ListedPairs`: 8 bytes a pair, and each path once. This does not check that every image
        exists.

    Raises:
        InputError: the file is missing, empty or not text, a line is not a pair (with path and
            line), or none of the images is found.
    """
    path = Path(path)
    indices: dict[str, int] = {}
    rows, same = array("i"), array("b")
    width = None
    for line, fields in read_lines(path, kind="pairs", hint="check --pairs"):
        if not fields:  # an empty line
            continue
        width = width or len(fields)
        if width not in FORMS or len(fields) != width:
            expected = FORMS.get(width, " or ".join(FORMS.values()))
            found = counted(len(fields), "field")
            raise InputError(
                f"{path}:{line}: expected {expected}, received {found}; quote a path that has "
                "commas in it"
            )
        if not all(fields):
            raise InputError(f"{path}:{line}: a field is empty")
        if width == 3:
            label = fields.pop()
            if label.lower() not in LABELS:
                raise InputError(
                    f"{path}:{line}: expected a label, one of {', '.join(LABELS)}. Received: "
                    f"{label}; quote a path that has commas in it"
                )
            same.append(LABELS[label.lower()])
        rows.extend(indices.setdefault(each, len(indices)) for each in fields)
    if not rows:
        raise InputError(f"{path}: no pairs in this file")
    paths = resolve_image_paths(
        path,
        list(indices),
        [path.parent, Path()],
        "put the file into the folder that its paths start from",
    )
    table = np.frombuffer(rows, np.int32).reshape(-1, 2)  # (pairs, 2)
    return ListedPairs(path, paths, table, np.frombuffer(same, np.bool_) if same else None)


class PairComparison:
    """Pairs and the embeddings of their images, compared as `rows` is read.

    Args:
        pairs: the pairs.
        embeddings: float32 (images, dim), unit rows in the order of `pairs.paths`; may be
            memory-mapped. Pairs of a broken image, whose row is NaN, are left out.
        metric: one of `METRICS`.
        calibration: calibration of the model, if it has one.

    Attributes:
        columns: names of the columns of a row.
        value_name: that of the metric's column.

    Example:
        >>> compare_all(model, "photos/cat", "photos/dog")
        16 pairs of 8 images: mean distance ...
    """

    def __init__(
        self,
        pairs: ListedPairs | CrossedPairs,
        embeddings: Float32Array,
        *,
        metric: str = METRICS[0],
        calibration: Calibration | None = None,
    ) -> None:
        self.metric = metric
        self.calibration = calibration
        self._is_distance = metric == METRICS[0]
        self.value_name = "distance" if self._is_distance else metric
        self.columns = ["image1", "image2", self.value_name, "probability"]
        if isinstance(pairs, ListedPairs) and pairs.same is not None:
            self.columns.append("same")
        self._pairs = pairs
        self._embeddings = embeddings
        self._forget()

    def _forget(self) -> None:
        self._totals = np.zeros(3)  # of pairs, distances, squared distances
        self._nearest: tuple[float, tuple[str, ...]] = np.inf, ()
        self._same = array("b")
        self._distances = array("d")

    def __repr__(self) -> str:
        for _ in self.rows():
            pass
        return self.text()

    def _repr_html_(self) -> str:
        shown = list(islice(self.rows(), MOST_ROWS))
        pictures = [
            [(row[name], f"{row[self.value_name]:.3f}") for name in ("image1", "image2")]
            for row in shown
        ]
        return paragraph(repr(self)) + image_rows(pictures)

    @property
    def left_out(self) -> list[str]:
        """The images that cannot be read."""
        return [self._pairs.paths[row] for row in np.flatnonzero(np.isnan(self._embeddings[:, 0]))]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Compare the pairs in order, and yield a row for each."""
        self._forget()
        whole = ~np.isnan(self._embeddings[:, 0])
        for rows, same in self._pairs.blocks():
            kept = whole[rows].all(axis=1)
            distances = pair_distances(self._embeddings, self._embeddings, *rows[kept].T)
            labels = None if same is None else same[kept].astype(int).tolist()
            pairs = [tuple(self._pairs.paths[row] for row in pair) for pair in rows[kept].tolist()]
            self._add(pairs, distances, labels)
            for number, (pair, distance) in enumerate(zip(pairs, distances.tolist(), strict=True)):
                probability = probability_of_same(distance, self.calibration)
                label = () if labels is None else (labels[number],)
                values = *pair, self._value(distance), probability, *label
                yield dict(zip(self.columns, values, strict=True))

    def summary(self) -> dict[str, Any]:
        """Return a summary of the pairs compared so far.

        Returns:
            The numbers of pairs compared and left out, the mean, the nearest pair and its value;
            with labelled pairs, how well the distances tell the two kinds apart.

        Raises:
            InputError: no pair could be compared.
        """
        count, total, squares = self._totals.tolist()
        if not count:
            raise InputError("no pair is left: each has an image that cannot be read")
        distance, pair = self._nearest
        # The mean cosine is the cosine at the root mean square of the distances.
        mean = total / count if self._is_distance else cosine_at(sqrt(squares / count))
        found: dict[str, Any] = {
            "pairs": int(count),
            "images": len(self._pairs.paths),
            "left_out": len(self._pairs) - int(count),
            "mean": mean,
            "nearest": self._value(distance),
            "nearest_pair": pair,
        }
        same = np.array(self._same, bool)
        distances = np.array(self._distances)
        if same.any() and not same.all():
            judged = pair_metrics(distances[same], distances[~same])
            found |= {"roc_auc": judged.roc_auc, "equal_error_rate": judged.equal_error_rate}
        if len(same) and self.calibration is not None:
            called_same = distances <= self.calibration.threshold
            found["accuracy"] = float((called_same == same).mean())
        return found

    def text(self) -> str:
        """Return the summary in words."""
        found = self.summary()
        text = (
            f"{counted(found['pairs'], 'pair')} of {counted(found['images'], 'image')}: mean "
            f"{self.value_name} {found['mean']:.6f}, of the nearest pair {found['nearest']:.6f} "
            f"({', '.join(found['nearest_pair'])})"
        )
        if found["left_out"]:
            text += f"; {counted(found['left_out'], 'pair')} left out"
        if "roc_auc" in found:
            text += (
                f"; ROC-AUC {found['roc_auc']:.3f}, equal error rate "
                f"{found['equal_error_rate']:.3f}"
            )
        if "accuracy" in found and self.calibration is not None:
            threshold = self.calibration.threshold
            text += f"; accuracy {found['accuracy']:.3f} at the calibrated distance {threshold:.3f}"
        return text + "."

    def _value(self, distance: float) -> float:
        return distance if self._is_distance else cosine_at(distance)

    def _add(
        self, pairs: list[tuple[str, ...]], distances: Float64Array, labels: list[int] | None
    ) -> None:
        if not pairs:
            return
        self._totals += len(pairs), distances.sum(), (distances**2).sum()
        nearest = int(np.argmin(distances))
        if distances[nearest] < self._nearest[0]:
            self._nearest = float(distances[nearest]), pairs[nearest]
        if labels is not None:
            self._same.extend(labels)
            self._distances.extend(distances.tolist())
