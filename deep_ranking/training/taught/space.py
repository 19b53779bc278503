"""What teaching learns from a question, so that the questions can be chosen that teach most.

`sampling.questions` chooses by gradients of the loss. Here they are those of the model that is
taught: of the weights of base distances, as answers so far have set them.
"""

from dataclasses import dataclass

import numpy as np

from deep_ranking.embedding.cached_features import Features
from deep_ranking.files.array_types import Float32Array, Float64Array, Int64Array, IntArray
from deep_ranking.training.taught.answers import FEWEST_QUERIES, FEWEST_QUESTIONS
from deep_ranking.training.taught.base_distances import Columns, base_distances
from deep_ranking.training.taught.features import Head, Model, read_parts, sizes_of
from deep_ranking.training.taught.fitting import Comparisons, fit

MOST_IMAGES = 2000  # by which base distances are scaled
NUM_TRIPLETS = 1000
NUM_NEAREST = 20


@dataclass(frozen=True)
class LearnedSpace:
    """The weights of base distances, as answers so far have set them.

    Attributes:
        features: of all images, by `taught_features`; only those of a question are read.
        columns: the base distances.
        old_kernel: float32 (features, dim), whose squared distance is the first base distance.
        weights: float64 (1 + distances,).

    Example:
        >>> space = LearnedSpace.of("model.h5", features, asked.rows)
        >>> next_question(embeddings, asked, space=space).asked
        'informative'
    """

    features: Features
    columns: Columns
    old_kernel: Float32Array
    weights: Float64Array

    @classmethod
    def of(
        cls, model: Model, features: Features, questions: IntArray, *, seed: int = 0
    ) -> "LearnedSpace":
        """Learn from the questions that were answered so far; with few, nothing is learned yet.

        Args:
            model: a network of `build_network` or a model file, to go on from.
            features: of `taught_features`, of all images.
            questions: integer (questions, 3), images: query, chosen, other.
            seed: decides folds and draws.
        """
        sizes = sizes_of(features)
        head = Head.of(model, sizes).with_layout(sizes)
        rng = np.random.default_rng([seed, 3])
        whole = np.flatnonzero(features.rows[:, 0] >= 0)
        parts = read_parts(features, np.sort(rng.permutation(whole)[:MOST_IMAGES]))
        rows = np.concatenate(parts, axis=1)
        usual = _near_triplets(head.embed(parts), rng)
        columns = base_distances(parts, np.concatenate([usual[:, :2], usual[:, ::2]]))
        old = rows @ head.kernel
        near = np.mean(np.sum((old[usual[:, 0]] - old[usual[:, 1]]) ** 2, axis=1))
        old_kernel = head.kernel / np.sqrt(max(float(near), 1e-12))
        weights = np.zeros(1 + len(columns.typical))
        weights[0] = 1
        space = cls(features, columns, old_kernel, weights)
        questions = questions[(features.rows[questions, 0] >= 0).all(axis=1)]
        num_queries = len(np.unique(questions[:, 0]))
        if len(questions) >= FEWEST_QUESTIONS and num_queries >= FEWEST_QUERIES:
            votes = np.tile([1.0, 0.0], (len(questions), 1))
            known = Comparisons(space.differences(questions), votes, questions[:, 0])
            found = fit(known, columns.typical, seed=seed)
            weights[1:] = found.mixture * found.weights
        return space

    def differences(self, questions: IntArray) -> Float64Array:
        """Return the differences of base distances, float64 (questions, 1 + distances).

        They are 0 for a question with a broken image: nothing is learned from it.
        """
        whole = (self.features.rows[questions, 0] >= 0).all(axis=1)
        differences = np.zeros((len(questions), len(self.weights)))
        if whole.any():
            used, places = np.unique(questions[whole], return_inverse=True)
            rows = np.concatenate(read_parts(self.features, used.astype(np.int64)), axis=1)
            places = places.reshape(-1, 3)
            differences[whole] = _differences(self.columns, self.old_kernel, rows, places)
        return differences

    def gradients(self, questions: IntArray) -> tuple[Float32Array, Float32Array]:
        """Return what `sampling.questions.QuestionSpace` asks for."""
        differences = self.differences(questions)
        margins = (differences @ self.weights).astype(np.float32)
        return margins, differences.astype(np.float32)


def _differences(
    columns: Columns, old_kernel: Float32Array, rows: Float32Array, questions: IntArray
) -> Float64Array:
    query, one, other = (rows @ old_kernel)[questions.T].astype(np.float64)
    first = np.sum((query - other) ** 2 - (query - one) ** 2, axis=1)
    return np.column_stack([first, columns.differences(rows, questions)])


def _near_triplets(embeddings: Float32Array, rng: np.random.Generator) -> Int64Array:
    """Return random images, each with two of its nearest: int64 (NUM_TRIPLETS, 3)."""
    queries = rng.integers(len(embeddings), size=NUM_TRIPLETS)
    cosines = embeddings[queries] @ embeddings.T
    cosines[np.arange(NUM_TRIPLETS), queries] = -np.inf
    count = min(NUM_NEAREST, len(embeddings) - 1)
    nearest = np.argpartition(cosines, -count, axis=1)[:, -count:]
    chosen = rng.permuted(nearest, axis=1)[:, :2]
    return np.column_stack([queries, chosen]).astype(np.int64)
