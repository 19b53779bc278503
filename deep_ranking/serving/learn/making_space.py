"""The process that learns makes the space in which the server's questions are chosen."""

from contextlib import closing

import numpy as np

from deep_ranking.datasets.not_duplicates import path_beside, read_not_duplicates
from deep_ranking.datasets.ratings import Standing, ratings_of, read_standing
from deep_ranking.files import InputError, make_folder
from deep_ranking.files.array_types import Int64Array
from deep_ranking.sampling.implied_answers import implied_answers
from deep_ranking.sampling.questions import asked_before
from deep_ranking.sampling.stored_space import MadeOf, StoredSpace
from deep_ranking.search.collection import Collection
from deep_ranking.serving.learn.generations import Generations
from deep_ranking.serving.learn.learning_process import Job
from deep_ranking.serving.learn.learning_steps import Prepared
from deep_ranking.serving.learn.taught_space import is_due


class SpaceMaker:
    """Makes the space when it is due.

    Args:
        job: what is taught.
        prepared: what is ready; it follows the collection.
    """

    def __init__(self, job: Job, prepared: Prepared) -> None:
        self._job, self._prepared = job, prepared
        self._file = Generations(job.index).space

    def make(self) -> bool:
        """Make the space, of all answers so far; return False if none is due.

        Raises:
            InputError: a file is damaged, or the disk is full.
        """
        job, source = self._job, Collection.open(self._job.index)
        given = read_standing(job.ratings) if job.ratings.exists() else Standing()
        made_of = MadeOf(
            source.settings.fingerprint,
            source.settings.hits_of,
            int(ratings_of({job.ratings: given}).decided.sum()),
        )
        if not is_due(self._made_of(), made_of):
            return False
        self._prepared.follow(source, job.cache_dir)
        questions = self._questions(source, given)
        make_folder(self._file.parent)
        self._prepared.tools.write_space(
            source.model, self._prepared.features, questions, self._file, made_of
        )
        return True

    def _made_of(self) -> MadeOf | None:
        try:
            return StoredSpace.read(self._file).made_of
        except InputError:  # missing, or damaged
            return None

    def _questions(self, source: Collection, given: Standing) -> Int64Array:
        """Return what was answered, as indices into the features: int64 (questions, 3)."""
        told_apart = path_beside(self._job.index)
        implied = Standing()
        for answer in implied_answers(source, read_not_duplicates(told_apart)):
            implied.add(answer)
        ratings = ratings_of({self._job.ratings: given, told_apart: implied})
        with closing(source.images()) as table:
            rows = table.rows_by_path(ratings.paths)
        known = {row: index for index, row in enumerate(self._prepared.images.rows.tolist())}
        index_by_path = {path: known[row] for path, row in rows.items() if row in known}
        asked = asked_before(ratings, index_by_path, "")
        return asked.rows[asked.decided].astype(np.int64)
