"""Which triplets: index triplets (query, positive, negative) from class labels and a seed.

The rule is the blog's: every image is a query; positives are other images of its class; for each
(query, positive) pair, negatives are drawn afresh from all images of all other classes; nothing is
drawn twice in one draw, and counts are clamped to what exists. `ClassBatches` says which images
share a batch where no triplets are sampled beforehand.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deep_ranking.errors import InputError

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

BLOCK_TRIPLETS = 1 << 17


def sample_triplets(
    labels: npt.NDArray[np.integer], *, num_positives: int, num_negatives: int, seed: int
) -> Iterator[Int32Array]:
    """Sample triplets of images by the blog's rule, in order of their query.

    Args:
        labels: integers (images,), not decreasing: images of one class follow each other.
        num_positives: positives drawn for each query, 1 or more.
        num_negatives: negatives drawn for each (query, positive) pair, 1 or more.
        seed: the same seed gives the same triplets.

    Yields:
        int32 (triplets, 3): indices of query, positive and negative. The time a triplet takes does
        not depend on the number of images; memory is a bounded block beside the labels.

    Raises:
        InputError: there are fewer than two classes, no class has two images, or a count is
            below 1.
        ValueError: the labels decrease somewhere.
    """
    labels = np.asarray(labels)
    for name, count in (("num_positives", num_positives), ("num_negatives", num_negatives)):
        if count < 1:
            raise InputError(f"{name} must be 1 or more. Received: {count}")
    if np.any(labels[1:] < labels[:-1]):
        raise ValueError("labels must not decrease: sort the images by class")
    starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1])[: len(labels)])
    sizes = np.diff(starts, append=len(labels))
    if len(sizes) < 2:
        raise InputError(f"triplets need images of two classes or more. Received: {len(sizes)}")
    if sizes.max() < 2:
        raise InputError("no class has two images, so there is no positive for any query")
    return _blocks(starts, sizes, num_positives, num_negatives, np.random.default_rng(seed))


def _blocks(
    starts: Int64Array,
    sizes: Int64Array,
    num_positives: int,
    num_negatives: int,
    rng: np.random.Generator,
) -> Iterator[Int32Array]:
    num_images = int(sizes.sum())
    class_of = np.repeat(np.arange(len(sizes)), sizes)
    queries = np.flatnonzero(sizes[class_of] > 1)
    largest = min(num_positives, int(sizes.max()) - 1) * min(num_negatives, num_images - 1)
    step = max(1, BLOCK_TRIPLETS // largest)
    for begin in range(0, len(queries), step):
        query = queries[begin : begin + step]
        start, size = starts[class_of[query]], sizes[class_of[query]]
        # The class without the query is size - 1 numbers: those from the query's on move up by 1.
        drawn = draw_distinct(rng, size - 1, np.minimum(num_positives, size - 1))
        row, column = np.nonzero(drawn >= 0)
        positive = start[row] + drawn[row, column]
        positive += positive >= query[row]

        query, start, size = query[row], start[row], size[row]
        others = num_images - size  # ... and the images of other classes: those behind move up
        drawn = draw_distinct(rng, others, np.minimum(num_negatives, others))
        row, column = np.nonzero(drawn >= 0)
        negative = drawn[row, column]
        negative += np.where(negative >= start[row], size[row], 0)
        yield np.column_stack([query[row], positive[row], negative]).astype(np.int32)


def draw_distinct(
    rng: np.random.Generator, populations: Int64Array, counts: Int64Array
) -> Int64Array:
    """Draw numbers without replacement, many draws at once.

    Args:
        rng: source of randomness.
        populations: int (rows,); row i draws from 0 ... populations[i] - 1.
        counts: int (rows,); row i draws counts[i] <= populations[i] different numbers.

    Returns:
        int64 (rows, max(counts)); each row's numbers first, uniform over all such draws, then -1.
    """
    width = int(counts.max(initial=0))
    drawn = np.full((len(counts), width), -1, np.int64)
    # Most of a population: shuffle it all. Few of many: draw, and draw again what came up before;
    # less than half of the population is taken, so each further try hits at least every other time.
    for (population, count), rows in _groups(populations, counts):
        if 2 * count > population:
            everything = np.broadcast_to(np.arange(population), (len(rows), population))
            drawn[rows, :count] = rng.permuted(everything, axis=1)[:, :count]
    sparse = np.flatnonzero(2 * counts <= populations)
    wanted = np.arange(width) < counts[sparse, None]  # (sparse rows, width)
    high = np.broadcast_to(populations[sparse, None], wanted.shape)
    numbers = np.broadcast_to(-1 - np.arange(width), wanted.shape).copy()  # unlike any other
    again = wanted
    while again.any():
        numbers[again] = rng.integers(0, high[again])
        again = _repeats(numbers)
    drawn[sparse] = np.where(wanted, numbers, -1)
    return drawn


def _groups(
    populations: Int64Array, counts: Int64Array
) -> Iterator[tuple[tuple[int, int], Int64Array]]:
    """Yield each different (population, count) where count is most of it, and its rows."""
    dense = np.flatnonzero(2 * counts > populations)
    pairs, group = np.unique(
        np.column_stack([populations[dense], counts[dense]]), axis=0, return_inverse=True
    )
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(pairs) + 1))
    for (population, count), begin, end in zip(
        pairs.tolist(), bounds[:-1], bounds[1:], strict=True
    ):
        yield (population, count), dense[order[begin:end]]


def _repeats(numbers: Int64Array) -> npt.NDArray[np.bool_]:
    """Mark the numbers that stand further left in their row already."""
    order = np.argsort(numbers, axis=1, kind="stable")
    sorted_numbers = np.take_along_axis(numbers, order, axis=1)
    repeats = np.zeros(numbers.shape, bool)
    np.put_along_axis(
        repeats, order[:, 1:], sorted_numbers[:, 1:] == sorted_numbers[:, :-1], axis=1
    )
    return repeats


class ClassBatches:
    """Batches of P classes with K images of each, all of whose triplets can be learned from.

    Args:
        labels: integers (images,).
        batch_size: images a batch, P times K. With fewer than P classes, a batch has all of them;
            a class with fewer than K images gives all that it has.
        images_per_class: K.
        seed: with epoch and step, decides what is drawn.

    Raises:
        InputError: there are fewer than two classes, or no class has two images.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.integer],
        *,
        batch_size: int,
        images_per_class: int,
        seed: int,
    ) -> None:
        order = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[order])) + 1
        self._images = np.split(order, starts)
        if len(self._images) < 2:
            raise InputError(
                f"batches need images of two classes or more. Received: {len(self._images)}"
            )
        if max(map(len, self._images)) < 2:
            raise InputError("no class has two images, so there is no positive for any query")
        self.num_classes = min(batch_size // images_per_class, len(self._images))
        self.images_per_class = images_per_class
        self._seed = seed

    @property
    def num_images(self) -> int:
        """Images of a batch, if none of its classes has too few."""
        return self.num_classes * self.images_per_class

    def draw(self, epoch: int, step: int) -> Int64Array:
        """Draw one batch.

        Returns:
            int64 (rows,): indices of images, none twice, those of a class one after the other.
        """
        rng = np.random.default_rng([self._seed, epoch, step, 2])
        classes = rng.choice(len(self._images), self.num_classes, replace=False)
        drawn = []
        for number in classes:
            images = self._images[number]
            count = min(self.images_per_class, len(images))
            drawn.append(rng.choice(images, count, replace=False))
        return np.concatenate(drawn)


def hold_back_classes(
    labels: npt.NDArray[np.integer], share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Choose whole classes to judge on, so that training never sees an image of theirs.

    Args:
        labels: integers (images,).
        share: share of the classes to hold back, above 0 and below 1; two classes at least.
        seed: the same seed holds the same classes back.

    Returns:
        bool (images,): True where the image's class is held back.

    Raises:
        InputError: fewer than two classes would be left, or the share is out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"validation_share must lie between 0 and 1. Received: {share}")
    classes = np.unique(labels)
    count = max(2, round(share * len(classes)))
    if len(classes) - count < 2:
        raise InputError(
            f"{len(classes)} classes are too few to hold {count} back and train on the rest; "
            "lower --validation_share or add classes"
        )
    held = np.random.default_rng([seed, 1]).choice(classes, count, replace=False)
    return np.isin(labels, held)
