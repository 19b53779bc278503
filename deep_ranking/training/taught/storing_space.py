"""What teaching learns, written for a process that has neither TensorFlow nor SciPy."""

from pathlib import Path

import numpy as np

from deep_ranking.embedding.cached_features import CachedFeatures, Features
from deep_ranking.files.array_types import IntArray
from deep_ranking.sampling.stored_space import MadeOf, StoredSpace
from deep_ranking.training.taught.features import Model, sizes_of
from deep_ranking.training.taught.space import LearnedSpace


def write_space(
    model: Model, features: Features, questions: IntArray, file: Path, made_of: MadeOf
) -> None:
    """Learn from the questions that were answered so far, and write the space of what was learned.

    Args:
        model: a network or a model file, to go on from.
        features: of `taught_features`, of all images.
        questions: integer (questions, 3), indices into the images: query, chosen, other.
        file: to write.
        made_of: what the file says of itself.

    Raises:
        InputError: the model or the features cannot be used, or the disk is full.
    """
    store_space(LearnedSpace.of(model, features, questions), made_of).write(file)


def store_space(space: LearnedSpace, made_of: MadeOf) -> StoredSpace:
    """Return a space that gives the same gradients, from features on disk."""
    features, columns = space.features, space.columns
    parts = [features] if isinstance(features, CachedFeatures) else features.parts
    positions = (
        [range(len(features.shapes))]
        if isinstance(features, CachedFeatures)
        else features.positions
    )
    ends = np.cumsum([0, *sizes_of(features)])
    order = [
        feature
        for of_part in positions
        for place in of_part
        for feature in range(ends[place], ends[place + 1])
    ]
    dim = space.old_kernel.shape[1]
    members = np.zeros((dim + len(columns.members), len(space.weights)))
    members[:dim, 0] = 1
    members[dim:, 1:] = columns.members
    return StoredSpace.of(
        made_of,
        [(str(part.file.path.parent.absolute()), part.file.shape[1]) for part in parts],
        np.concatenate([space.old_kernel, columns.kernel], axis=1)[order],
        members,
        space.weights,
    )
