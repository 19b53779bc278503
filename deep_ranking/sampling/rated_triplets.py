"""Triplets of what most raters answered: to train on, to evaluate on, and from other files.

Each rater has one vote on a question, however often it was answered: what the rater said most
often. The chosen image is the positive of the triplet, the other one the negative.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.ratings import (
    COLUMNS,
    IMPORTED,
    MAX_ANSWERS,
    Answer,
    Ratings,
    read_standing,
)
from deep_ranking.datasets.tables import relative_prefix
from deep_ranking.files import InputError
from deep_ranking.files.append_log import SEPARATORS, now
from deep_ranking.files.array_types import BoolArray, Int32Array
from deep_ranking.files.csv_lines import read_lines
from deep_ranking.files.path_forms import existing_form
from deep_ranking.files.words import counted, listed
from deep_ranking.metrics.agreement import majority, votes_of
from deep_ranking.sampling.triplet_file import (
    Triplets,
    read_triplets,
    resolve_paths,
    write_triplets,
)


@dataclass(frozen=True)
class MajorityTriplets:
    """A triplet of each question that most raters answered in one way.

    Attributes:
        rows: int32 (triplets, 3), indices into the paths of the ratings: query, chosen, other.
        num_ties: questions with as many votes for one image as for the other.
        num_undecided: times that a rater answered a question both ways equally often.
        num_cannot_say: answers that chose no image.
    """

    rows: Int32Array
    num_ties: int
    num_undecided: int
    num_cannot_say: int

    def left_out(self) -> list[str]:
        """Return in words what of the ratings is in no triplet."""
        return counts_in_words(
            (self.num_ties, "question with as many votes for one as for the other", "questions "
             "with as many votes for one as for the other"),
            (self.num_undecided, "question that a rater answered both ways equally often",
             "questions that a rater answered both ways equally often"),
            (self.num_cannot_say, "answer that chose neither", "answers that chose neither"),
        )  # fmt: skip


def counts_in_words(*counts: tuple[int, str, str]) -> list[str]:
    """Return each number that is not 0 with its noun, in the singular or the plural."""
    return [counted(number, one, many) for number, one, many in counts if number]


def majority_triplets(ratings: Ratings) -> MajorityTriplets:
    """Return the triplets of ratings.

    Example:
        >>> majority_triplets(read_ratings("ratings.csv")).rows.shape
        (8, 3)
    """
    decided = ratings.decided
    chosen = ratings.take(decided)
    question, first = chosen.questions()
    votes = votes_of(chosen.rater, question, first)
    won, by_first, num_ties = majority(votes)
    # Any answer to a question has its images; in it, the first of the two is chosen or other.
    _, example = np.unique(question, return_index=True)
    rows = chosen.rows[example[won]].copy()
    swapped = first[example[won]] != by_first
    rows[swapped, 1:] = rows[swapped, :0:-1]
    return MajorityTriplets(rows, num_ties, votes.num_undecided, int((~decided).sum()))


def images_in(dataset_dir: Path, paths: Sequence[str]) -> tuple[list[str], BoolArray]:
    """Return the paths as they are in a folder, in whichever normal form, and which exist.

    Raises:
        InputError: there is no such folder, or no image of the paths is in it.
    """
    if not dataset_dir.is_dir():
        raise InputError(
            f"{dataset_dir}: no such folder; give the folder that the ratings' paths start from"
        )
    files = [existing_form(os.path.join(dataset_dir, path)) for path in paths]
    exists = np.array([os.path.isfile(file) for file in files], bool)
    if not exists.any():
        raise InputError(
            f"{dataset_dir}: holds none of the {counted(len(paths), 'rated image')}, such as "
            f"{paths[0] if paths else 'any'}; give the folder that the ratings' paths start from"
        )
    return [os.path.relpath(file, dataset_dir) for file in files], exists


@dataclass(frozen=True)
class ExportedRatings:
    """What `export_ratings` wrote.

    Attributes:
        file: the triplet file.
        num_triplets: triplets in it.
        num_gone: triplets left out because an image of theirs is gone.
        triplets: those of the ratings, and what is in none.

    Example:
        >>> export_ratings(read_ratings("ratings.csv"), "photos", "rated.txt").num_gone
        0
    """

    file: Path
    num_triplets: int
    num_gone: int
    triplets: MajorityTriplets

    def __repr__(self) -> str:
        gone = (
            self.num_gone,
            "triplet with an image that is gone",
            "triplets with images that are gone",
        )
        left_out = [*self.triplets.left_out(), *counts_in_words(gone)]
        text = f"{counted(self.num_triplets, 'triplet')} in {self.file}."
        return f"{text} Left out: {'; '.join(left_out)}." if left_out else text

    def as_json(self) -> dict[str, Any]:
        """Return all counts as JSON can hold them."""
        return {
            "file": str(self.file),
            "triplets": self.num_triplets,
            "gone": self.num_gone,
            "ties": self.triplets.num_ties,
            "undecided": self.triplets.num_undecided,
            "cannot_say": self.triplets.num_cannot_say,
        }


def export_ratings(
    ratings: Ratings, dataset_dir: str | os.PathLike[str], output: str | os.PathLike[str]
) -> ExportedRatings:
    """Write what most raters answered as a triplet file, to train or evaluate on.

    Args:
        ratings: the ratings.
        dataset_dir: the folder that their paths start from.
        output: triplet file to write; its paths start from its own folder.

    Example:
        >>> export_ratings(read_ratings("ratings.csv"), "photos", "rated.txt")
        8 triplets in rated.txt. Left out: ...

    Raises:
        InputError: no triplet is left, the folder holds none of the images, or the file cannot be
            written.
    """
    found, output = majority_triplets(ratings), Path(output)
    if not len(found.rows):
        why = "; ".join(found.left_out()) or "no answers"
        raise InputError(f"{_names(ratings)}: no triplet to write: {why}")
    used, rows = np.unique(found.rows, return_inverse=True)
    names, exists = images_in(Path(dataset_dir), [ratings.paths[each] for each in used])
    rows = rows.reshape(found.rows.shape)
    kept = rows[exists[rows].all(axis=1)]
    if not len(kept):
        raise InputError(
            f"{dataset_dir}: {counted(len(rows), 'triplet')}, each with an image that is gone; "
            "give the folder that the ratings' paths start from"
        )
    prefix = relative_prefix(Path(dataset_dir), output.parent)
    paths = [prefix + name.replace(os.sep, "/") for name in names]
    count = write_triplets(output, paths, [kept])
    return ExportedRatings(output, count, len(rows) - count, found)


@dataclass(frozen=True)
class ImportedRatings:
    """What `import_ratings` added.

    Attributes:
        file: the ratings file.
        num_added: answers added to it.
        num_known: answers that it had already, or that the other file has twice.
        num_gone: answers left out because an image of theirs is gone.
        num_outside: answers left out because an image of theirs is outside the folder.

    Example:
        >>> import_ratings("ratings.csv", "others.csv").num_added
        11
    """

    file: Path
    num_added: int
    num_known: int = 0
    num_gone: int = 0
    num_outside: int = 0

    def __repr__(self) -> str:
        left_out = counts_in_words(
            (self.num_known, "known already", "known already"),
            (self.num_gone, "with an image that is gone", "with images that are gone"),
            (
                self.num_outside,
                "with an image outside the folder",
                "with images outside the folder",
            ),
        )
        text = f"{counted(self.num_added, 'answer')} added to {self.file}."
        return f"{text} Left out: {'; '.join(left_out)}." if left_out else text

    def as_json(self) -> dict[str, Any]:
        """Return all counts as JSON can hold them."""
        return {
            "file": str(self.file),
            "added": self.num_added,
            "known": self.num_known,
            "gone": self.num_gone,
            "outside": self.num_outside,
        }


def import_ratings(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    rater: str | None = None,
    dataset_dir: str | os.PathLike[str] | None = None,
) -> ImportedRatings:
    """Add the answers of another file to a ratings file.

    Args:
        source: a triplet file query,positive,negative of anybody, whose paths are found as training
            finds them; or a ratings file, also one that a spreadsheet saved.
        output: ratings file to add to; made if it is missing.
        rater: who answered; None for the names in `source`, which a triplet file lacks.
        dataset_dir: the folder that paths of the ratings start from. A triplet file needs it; of a
            ratings file, no path is changed.

    Example:
        >>> import_ratings("triplets.txt", "all.csv", rater="Ann", dataset_dir="photos")
        48 answers added to all.csv.

    Raises:
        InputError: a file cannot be read or written, the rater or the folder is missing, or no
            answer is left.
    """
    source, log = Path(source), AnswerLog(output)
    if _is_ratings(source):
        answers = read_standing(source).answers
        raters = sorted({each.rater for each in answers})
        if rater is not None and len(raters) > 1:
            raise InputError(
                f"{source}: answers of {listed(raters)}, which cannot all be {rater}'s; leave the "
                "rater out to keep their names"
            )
        if rater is not None:
            answers = [replace(each, rater=rater) for each in answers]
        num_gone = num_outside = 0
    else:
        if rater is None or dataset_dir is None:
            raise InputError(f"{source}: a triplet file names no rater and no folder; give both")
        answers, num_gone, num_outside = _of_triplets(
            read_triplets(source), rater, Path(dataset_dir)
        )
    known = set(map(_key, read_standing(log.path).answers if log.path.exists() else ()))
    new: dict[tuple[str, ...], Answer] = {}
    for each in answers:
        if _key(each) not in known:
            new.setdefault(_key(each), each)
    result = ImportedRatings(log.path, len(new), len(answers) - len(new), num_gone, num_outside)
    if not new:
        raise InputError(f"{source}: nothing to import: {result}")
    log.add(*new.values())
    return result


def _names(ratings: Ratings) -> str:
    return ", ".join(map(str, ratings.files))


def _is_ratings(file: Path) -> bool:
    """Return whether the first line of a file names the columns of ratings."""
    lines = read_lines(
        file, kind="triplet or ratings", hint="check --import", separators=SEPARATORS
    )
    _, fields = next(lines, (0, []))
    return sorted(each.strip().lower() for each in fields) == sorted(COLUMNS)


def _key(answer: Answer) -> tuple[str, ...]:
    """Return what makes an answer the same one: for imported ones, the time does not count."""
    time = "" if answer.asked == IMPORTED else answer.moment().isoformat()
    question = (answer.query, answer.chosen, answer.other)
    return (time, answer.rater, *question, answer.answer, answer.asked)


def _of_triplets(
    triplets: Triplets, rater: str, dataset_dir: Path
) -> tuple[list[Answer], int, int]:
    """Return the answers of triplets; how many have an image that is gone, and one outside."""
    if len(triplets) > MAX_ANSWERS:
        raise InputError(f"{triplets.file}: more than {MAX_ANSWERS:,} triplets; take fewer")
    files = resolve_paths(triplets, dataset_dir)
    exists = np.array([os.path.isfile(file) for file in files], bool)
    names = [_below(dataset_dir, file) for file in files]
    inside = np.array([name is not None for name in names], bool)
    gone = ~exists[triplets.rows].all(axis=1)
    outside = ~gone & ~inside[triplets.rows].all(axis=1)
    answers, time = [], now()
    for number in np.flatnonzero(~(gone | outside)).tolist():
        query, chosen, other = (names[each] or "" for each in triplets.rows[number])
        try:
            answers.append(Answer(time, rater, query, chosen, other, asked=IMPORTED))
        except InputError as error:
            raise InputError(
                f"{triplets.place(number)}: {error}; mend or remove this line"
            ) from None
    return answers, int(gone.sum()), int(outside.sum())


def _below(folder: Path, file: str) -> str | None:
    """Return the path of a file from a folder, with "/"; None if it is not below it."""
    for resolve in (os.path.abspath, os.path.realpath):
        name = os.path.relpath(resolve(file), resolve(folder))
        if name.split(os.sep)[0] != os.pardir:
            return name.replace(os.sep, "/")
    return None
