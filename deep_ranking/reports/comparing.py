"""Many pairs of images and a model -> their distances, and what they come to.

The pairs file has a pair a line, `image1,image2` or `image1,image2,label`, read like the triplet
file: no header, quotes only where a name needs them, paths from the file's folder or the working
folder. A label says whether the two are of one class: 1 or same, 0 or different.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Float32Array, Int32Array
from deep_ranking.files.csv_lines import read_lines
from deep_ranking.images import resolve_image_paths
from deep_ranking.metrics import METRICS, cosine_at, pair_distances, pair_metrics
from deep_ranking.model.calibration import Calibration

LABELS = {"1": True, "same": True, "0": False, "different": False}
PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class ListedPairs:
    """The pairs of a file.

    Attributes:
        file: the pairs file; pair i stands in its line i + 1.
        paths: the images, each once.
        rows: int32 (pairs, 2), indices into `paths`.
        same: bool (pairs,), whether the two are of one class; None if the file does not say.
    """

    file: Path
    paths: list[str]
    rows: Int32Array
    same: BoolArray | None

    def __len__(self) -> int:
        """Give the number of pairs."""
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[Int32Array, BoolArray | None]]:
        """Yield some pairs at a time, in order: their rows, and whether they are of one class."""
        for begin in range(0, len(self), PAIRS_AT_ONCE):
            part = slice(begin, begin + PAIRS_AT_ONCE)
            yield self.rows[part], None if self.same is None else self.same[part]

    def check_images_exist(self) -> None:
        """Complain of a missing image before anything slow is done.

        Raises:
            InputError: an image is missing; with the line of its first pair.
        """
        for number, path in enumerate(self.paths):
            if not os.path.exists(path):
                raise self._located(number, f"{path}: no such image")

    def located(self, error: InputError) -> InputError:
        """Give the fault of an image, which begins with its path, with the line of its pair."""
        begun = [n for n, path in enumerate(self.paths) if str(error).startswith(f"{path}: ")]
        if not begun:
            return error
        return self._located(max(begun, key=lambda number: len(self.paths[number])), str(error))

    def _located(self, number: int, fault: str) -> InputError:
        line = int(np.argmax((self.rows == number).any(axis=1))) + 1
        return InputError(
            f"{self.file}:{line}: {fault}; mend the image, or leave such pairs out with "
            "--skip_broken"
        )


@dataclass(frozen=True)
class CrossedPairs:
    """Every image of one list with every image of another.

    Attributes:
        paths: the images, each once.
        first: int32, indices into `paths`.
        second: int32, likewise.
    """

    paths: list[str]
    first: Int32Array
    second: Int32Array

    @classmethod
    def of(cls, first: Sequence[str], second: Sequence[str]) -> "CrossedPairs":
        """Pair the images of two lists of paths, which may share some."""
        numbers = {path: number for number, path in enumerate(dict.fromkeys((*first, *second)))}
        rows = [np.array([numbers[path] for path in each], np.int32) for each in (first, second)]
        return cls(list(numbers), *rows)

    def __len__(self) -> int:
        """Give the number of pairs."""
        return len(self.first) * len(self.second)

    def blocks(self) -> Iterator[tuple[Int32Array, None]]:
        """Yield some pairs at a time: the first image with all others, then the second ..."""
        for number in self.first:
            for begin in range(0, len(self.second), PAIRS_AT_ONCE):
                others = self.second[begin : begin + PAIRS_AT_ONCE]
                yield np.column_stack([np.full_like(others, number), others]), None


def read_pairs(path: str | os.PathLike[str]) -> ListedPairs:
    """Read a pairs file.

    Args:
        path: the file; lines may end in LF or CRLF, and .gz is decompressed.

    Returns:
        The `ListedPairs`; 8 bytes a pair, and each path once. Whether each image exists is not
        checked.

    Raises:
        InputError: there is no such file, it is no text or empty, a line is no pair, with path and
            line; or none of its images is found.
    """
    path = Path(path)
    indices: dict[str, int] = {}
    rows, same = array("i"), array("b")
    width = None
    for line, fields in read_lines(path, kind="pairs", hint="check --pairs"):
        width = width or len(fields)
        if width not in (2, 3) or len(fields) != width:
            expected = "image1,image2" if width == 2 else "image1,image2,label"
            if width not in (2, 3):
                expected = "image1,image2 or image1,image2,label"
            found = f"{len(fields)} field{'s' * (len(fields) != 1)}" if fields else "an empty line"
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


class Comparison:
    """Pairs and the embeddings of their images, compared while the rows are read.

    Args:
        pairs: the pairs.
        embeddings: float32 (images, dim), unit rows in the order of `pairs.paths`, which may be
            memory-mapped; NaN for a broken image, whose pairs are left out.
        metric: one of `METRICS`.
        calibration: what the model's distances mean, if that is known.

    Attributes:
        columns: names of what a row has.
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
        self.columns = ["image1", "image2", self.value_name, "probability"]
        if isinstance(pairs, ListedPairs) and pairs.same is not None:
            self.columns.append("same")
        self._pairs = pairs
        self._embeddings = embeddings
        self._totals = np.zeros(3)  # pairs, their distances, the squares of these
        self._nearest = np.inf, ("", "")
        self._same = array("b")
        self._distances = array("d")

    @property
    def value_name(self) -> str:
        """What the column of the metric is called."""
        return "distance" if self.metric == METRICS[0] else self.metric

    def rows(self) -> Iterator[dict[str, Any]]:
        """Compare, and yield a row a pair, in order."""
        whole = ~np.isnan(self._embeddings[:, 0])
        paths = self._pairs.paths
        for rows, same in self._pairs.blocks():
            kept = whole[rows].all(axis=1)
            first, second = rows[kept].T
            distances = pair_distances(self._embeddings, self._embeddings, first, second)
            self._take_in(rows[kept], distances, None if same is None else same[kept])
            labels = None if same is None else same[kept].astype(int).tolist()
            for number, (one, other) in enumerate(rows[kept].tolist()):
                distance = float(distances[number])
                row = {
                    "image1": paths[one],
                    "image2": paths[other],
                    self.value_name: self._value(distance),
                    "probability": self.calibration and self.calibration.probability(distance),
                }
                yield row if labels is None else row | {"same": labels[number]}

    def summary(self) -> dict[str, Any]:
        """What the pairs that were compared so far come to.

        Returns:
            Numbers of pairs and of those left out, the mean, the nearest pair and its value; where
            the pairs are labelled, how well the distances tell the two kinds apart.

        Raises:
            InputError: no pair could be compared.
        """
        count, total, squares = self._totals.tolist()
        if not count:
            raise InputError("no pair is left: their images cannot be read")
        distance, pair = self._nearest
        found: dict[str, Any] = {
            "pairs": int(count),
            "images": len(self._pairs.paths),
            "left_out": len(self._pairs) - int(count),
            # The mean cosine is that at the root mean square of the distances.
            "mean": total / count
            if self.metric == METRICS[0]
            else self._value(sqrt(squares / count)),
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

    def _value(self, distance: float) -> float:
        return distance if self.metric == METRICS[0] else cosine_at(distance)

    def _take_in(
        self, rows: Int32Array, distances: npt.NDArray[np.float64], same: BoolArray | None
    ) -> None:
        if not len(rows):
            return
        self._totals += len(rows), distances.sum(), (distances**2).sum()
        least = int(np.argmin(distances))
        if distances[least] < self._nearest[0]:
            one, other = (self._pairs.paths[number] for number in rows[least])
            self._nearest = float(distances[least]), (one, other)
        if same is not None:
            self._same.extend(same.tolist())
            self._distances.extend(distances.tolist())
