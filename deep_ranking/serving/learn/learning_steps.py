"""The steps of learning from answers: features, a new model, its rows, its index."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_ranking.datasets import LabelledImages
from deep_ranking.datasets.answer_log import AnswerLog
from deep_ranking.datasets.labelled import Labels
from deep_ranking.datasets.not_duplicates import path_beside, read_not_duplicates
from deep_ranking.datasets.ratings import read_ratings
from deep_ranking.files import InputError
from deep_ranking.files.append_log import now
from deep_ranking.files.installed import check_installed
from deep_ranking.sampling.implied_answers import implied_answers
from deep_ranking.search.collection import Collection, Settings
from deep_ranking.search.reembedding import (
    RowFiles,
    check_reembedding,
    files_of_rows,
    reembed_collection,
)
from deep_ranking.serving.learn.generations import INDEX, MODEL, Generation, Generations
from deep_ranking.serving.learn.learning_process import Job, Tools

Tell = Callable[[str], Any]
FEATURES = "looking at the pictures"
IMPLIED = "implied.csv"  # beside the model: what it learned from, besides the ratings file


@dataclass
class Prepared:
    """What is ready once the process that learns is.

    Attributes:
        tools: the functions that learn.
        images: a file for each row of the collection.
        features: of these files.
        settings: of the collection when they were found.
    """

    tools: Tools
    images: RowFiles
    features: Any
    settings: Settings

    def follow(self, source: Collection, cache_dir: Path) -> None:
        """Find the images and their features anew if the collection has changed.

        Raises:
            InputError: the collection is damaged, or the disk is full.
        """
        if source.settings == self.settings:
            return
        images = files_of_rows(source)
        self.features = self.tools.features(source.model, images.files, cache_dir)
        self.images, self.settings = images, source.settings


def prepare_to_learn(job: Job, tell: Tell) -> Prepared:
    """Start TensorFlow, and compute the features of the images that are not known yet.

    Args:
        job: what is taught.
        tell: called with each step, in words.

    Returns:
        The functions that learn, and the features.

    Raises:
        InputError: TensorFlow is not installed, the collection cannot be taught, or the disk is
            full.
    """
    check_installed("Learning", "tensorflow", extra="train")
    collection = Collection.open(job.index)
    check_reembedding(collection)
    tools = job.tools(collection.model)
    tell(FEATURES)
    images = files_of_rows(collection)
    features = tools.features(collection.model, images.files, job.cache_dir)
    return Prepared(tools, images, features, collection.settings)


def learn_generation(job: Job, prepared: Prepared, tell: Tell, say: Tell) -> int:
    """Learn from all answers, and keep what was learned as the next generation.

    It goes on from the index's own model, never from one that was taught: that one has seen the
    answers that now judge what was learned. The new generation is shown if it is better.

    Args:
        job: what is taught.
        prepared: what is ready; it follows the collection.
        tell: called with each step, in words.
        say: called with what whoever runs the server should read.

    Returns:
        The number of the generation.

    Raises:
        InputError: there are no answers, or too few; a file is damaged, or the disk is full.
    """
    source, generations = Collection.open(job.index), Generations(job.index)
    with generations.making() as folder:
        tell(FEATURES)
        prepared.follow(source, job.cache_dir)
        tools = prepared.tools
        ratings = _all_ratings(job, source, folder / IMPLIED)
        num_answers = int(read_ratings(*ratings).decided.sum())
        tell("learning from the answers")
        model = folder / MODEL
        report = tools.teach(
            model=source.model,
            output=model,
            ratings=ratings,
            images=Path(source.settings.root),
            labelled=labelled_images(source),
            cache_dir=job.cache_dir,
        )
        tell("making the model fast")
        try:
            tools.compile(model)
        except InputError as error:
            say(f"{error}; pictures of one's own are embedded with Keras")
        tell("placing the pictures anew")
        embeddings = tools.embed(model, prepared.features)
        made = reembed_collection(
            source, folder / INDEX, model, rows=prepared.images.rows, embeddings=embeddings
        )
        number = generations.next_number()
        generation = Generation(
            number=number,
            time=now(),
            answers=num_answers,
            fingerprint=made.collection.settings.fingerprint,
            base=source.settings.fingerprint,
            state=source.settings.hits_of,
            is_better=bool(report.is_better),
            words=repr(report),
            report={name: each for name, each in report.as_json().items() if name != "output"},
        )
        generations.add(generation, is_shown=generation.is_better)
    return number


def _all_ratings(job: Job, source: Collection, implied: Path) -> tuple[Path, ...]:
    """Return the ratings file, and one of what follows from pairs that were told apart.

    Raises:
        InputError: there are neither, or a file is damaged.
    """
    pairs = read_not_duplicates(path_beside(job.index))
    answers = implied_answers(source, pairs)
    if answers:
        AnswerLog(implied).add(*answers)
    found = tuple(each for each in (job.ratings, implied) if each.exists())
    if not found:
        raise InputError("no answers yet; answer some questions first")
    return found


def labelled_images(collection: Collection) -> LabelledImages | None:
    """Return the images of a collection that have classes.

    None if fewer than two classes have two images: what is forgotten cannot be judged by them.

    Only images that can be found are among them, so that their features are known.
    """
    with closing(collection.images()) as table:
        images = [image for image in table.images() if image.label]
    sizes = Counter(image.label for image in images).values()
    if sum(each > 1 for each in sizes) < 2:
        return None
    return LabelledImages(
        Path(collection.settings.root),
        [image.path for image in images],
        Labels.of([image.label for image in images]),
        labelled_by="the index's classes",
    )
