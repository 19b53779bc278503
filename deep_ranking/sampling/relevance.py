"""How relevant images are to each other: r_ij of Wang et al. 2014, by several measures.

`open_relevance` opens the measure that `--relevance` names; `by_relevance` samples by it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from deep_ranking.datasets import LabelledImages
from deep_ranking.datasets.tables import read_table
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Float64Array, Int64Array, IntArray
from deep_ranking.files.progress_bar import progress_bar
from deep_ranking.files.row_store import temporary_rows

# Most images that each is compared with for its total, so that time grows with the number of
# images and not with its square.
MAX_REFERENCES = 1024
QUERIES_AT_ONCE = 1024
COLUMNS = ("path1", "path2", "score")

FEATURES, TREE, BACKBONE = "features", "tree", "backbone"
NAMES = (TREE, FEATURES, BACKBONE)
LARGEST_IMAGE_SIZE = 224


class Relevance(ABC):
    """Pairwise relevance r_ij of numbered images."""

    @abstractmethod
    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Return r_ij.

        Args:
            queries: int (queries,), numbers of images.
            candidates: int (candidates,).

        Returns:
            Float (queries, candidates), 0 or more, symmetric. The score of an image with itself
            can be anything.
        """

    def totals(self, categories: IntArray, seed: int = 0) -> Float64Array:
        """Return r_i, the sum of r_ij over the other images j of i's category.

        In a category of more than `MAX_REFERENCES` images, estimate it from as many of them.

        Args:
            categories: integers (images,).
            seed: decides which images stand for a large category.

        Returns:
            Float (images,).
        """
        totals = np.zeros(len(categories))
        rng = np.random.default_rng([seed, 6])
        order = np.argsort(categories, kind="stable")
        starts = np.flatnonzero(np.diff(categories[order])) + 1
        for images in np.split(order, starts):
            references = images
            if len(images) > MAX_REFERENCES:
                references = np.sort(rng.choice(images, MAX_REFERENCES, replace=False))
            for begin in range(0, len(images), QUERIES_AT_ONCE):
                queries = images[begin : begin + QUERIES_AT_ONCE]
                scores = self.scores(queries, references)
                itself = queries[:, None] == references
                others = len(references) - itself.sum(axis=1)
                sums = np.where(itself, 0, scores).sum(axis=1)
                totals[queries] = sums * (len(images) - 1) / np.maximum(others, 1)
        return totals


class RowCosine(Relevance):
    """Cosine of two rows of features, or 0 where it is negative.

    Args:
        rows: float (images, dim), rows of unit length; may be memory-mapped.
    """

    def __init__(self, rows: npt.NDArray[np.floating]) -> None:
        self._rows = rows
        self._threads = ThreadpoolController()

    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Return cosines."""
        left = np.asarray(self._rows[queries], np.float32)
        right = np.asarray(self._rows[candidates], np.float32)
        # Threads slow such small products down, tenfold on a busy machine.
        with self._threads.limit(limits=1, user_api="blas"):
            cosines = left @ right.T
        return np.asarray(np.maximum(cosines, 0), float)


class FolderTree(Relevance):
    """Share of the folders that two images have in common, from the root on.

    r_ij is the number of leading folders that hold both images, divided by the depth of the deeper
    one: 1 in the same folder, 2/3 for a/b/c and a/b/d, 0 where the first folders differ.

    Args:
        folder_paths: the folders of each image, with "/" between them; "" for none.
    """

    def __init__(self, folder_paths: Sequence[str]) -> None:
        folders = [path.split("/") if path else [] for path in folder_paths]
        depth = max(map(len, folders), default=0)
        self._depths = np.array([max(1, len(each)) for each in folders])
        # The number of each image's folder at each depth; -1 below its own folder.
        self._folders = np.full((len(folders), depth), -1, np.int32)
        numbers: dict[tuple[int, str], int] = {}
        for row, names in enumerate(folders):
            inside = -1
            for column, name in enumerate(names):
                inside = numbers.setdefault((inside, name), len(numbers))
                self._folders[row, column] = inside

    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Return shares of common folders."""
        shared = np.zeros((len(queries), len(candidates)))
        for column in self._folders.T:
            left = column[queries][:, None]
            shared += (left == column[candidates]) & (left >= 0)
        deeper = np.maximum(self._depths[queries][:, None], self._depths[candidates])
        return np.asarray(shared / deeper)


class ScoredPairs(Relevance):
    """Scores that somebody gave to pairs; all other pairs have 0.

    Args:
        pairs: integers (pairs, 2), numbers of two images, in either order; each pair once.
        scores: float (pairs,), 0 or more.
        num_images: number of all images.
    """

    def __init__(self, pairs: IntArray, scores: Float64Array, num_images: int) -> None:
        self._num_images = num_images
        both = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64)
        self._keys = both[:, 0] * num_images + both[:, 1]
        order = np.argsort(self._keys, kind="stable")
        self._keys = self._keys[order]
        self._scores = np.concatenate([scores, scores])[order]

    def scores(self, queries: Int64Array, candidates: Int64Array) -> Float64Array:
        """Return scores."""
        keys = queries[:, None] * self._num_images + candidates
        if not len(self._keys):
            return np.zeros(keys.shape)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._scores[place], 0)

    def totals(self, categories: IntArray, seed: int = 0) -> Float64Array:
        """Return exact sums over the pairs of a category; time grows with the number of pairs."""
        query, other = np.divmod(self._keys, self._num_images)
        inside = (categories[query] == categories[other]) & (query != other)
        sums = np.bincount(query[inside], self._scores[inside], self._num_images)
        return np.asarray(sums, float)


def read_scored_pairs(file: Path, paths: Sequence[str]) -> ScoredPairs:
    """Read a CSV file of lines `path,path,score`; each pair counts in both orders.

    Args:
        file: the file. It writes paths as `paths` does; pairs with any other path are left out.
        paths: image paths, in the order of their numbers.

    Raises:
        InputError: with path and line: a score is not a number of 0 or more, or a pair has two
            scores. Without a line: no pair is of these images.
    """
    numbers = {path: number for number, path in enumerate(paths)}
    found: dict[tuple[int, int], float] = {}
    for line, row in read_table(file, COLUMNS, num_required=3):
        try:
            score = float(row["score"])
        except ValueError:
            if line == 1:  # column names, whatever they are
                continue
            score = math.nan
        if not 0 <= score < math.inf:
            raise InputError(
                f"{file}:{line}: expected a score of 0 or more, received {row['score']}"
            )
        first, second = numbers.get(row["path1"], -1), numbers.get(row["path2"], -1)
        if first < 0 or second < 0 or first == second:
            continue
        pair = (min(first, second), max(first, second))
        if found.setdefault(pair, score) != score:
            raise InputError(f"{file}:{line}: {row['path1']} and {row['path2']} have two scores")
    if not found:
        raise InputError(
            f"{file}: none of its pairs is of two of these images; expected path,path,score with "
            f"paths like {paths[0]}"
        )
    return ScoredPairs(np.array(list(found)), np.array(list(found.values())), len(paths))


def needs_network(name: str) -> bool:
    """Return whether a relevance is computed by a network, and so needs TensorFlow."""
    return name == BACKBONE or Path(name).suffix.lower() in (".h5", ".hdf5")


@contextmanager
def open_relevance(
    name: str,
    data: LabelledImages,
    *,
    weights: str | None = "imagenet",
    skip_broken: bool = False,
) -> Iterator[Relevance]:
    """Yield the relevance of images; a temporary file holds rows of features meanwhile.

    Args:
        name: one of `NAMES`, a .csv file of scored pairs, or an .h5 file of a model.
        data: the images.
        weights: weights of the backbone, as in `NetworkConfig`.
        skip_broken: make an unreadable image relevant to none, instead of stopping.

    Yields:
        The relevance of the images as `data` numbers them.

    Raises:
        InputError: the name is none of these, or an image cannot be read.
    """
    if name == TREE:
        yield FolderTree(data.folders())
    elif name == FEATURES:
        with _hand_made_features(data, skip_broken) as relevance:
            yield relevance
    elif Path(name).suffix.lower() == ".csv":
        yield read_scored_pairs(Path(name), data.paths)
    elif needs_network(name):
        with _embeddings(name, data, weights, skip_broken) as relevance:
            yield relevance
    else:
        raise InputError(
            f"relevance: expected {', '.join(NAMES)}, a file of scored pairs (.csv) or a model "
            f"(.h5). Received: {name}"
        )


@contextmanager
def _hand_made_features(data: LabelledImages, skip_broken: bool) -> Iterator[Relevance]:
    """Colour and texture: the mean of the cosines of LAB histograms and of oriented gradients."""
    from deep_ranking.images import read_image
    from deep_ranking.images.hand_made_features import BASELINES

    parts = [BASELINES["LAB histogram"], BASELINES["HOG"]]
    with ExitStack() as held:
        rows = None
        progress = progress_bar(data.files(), title="features", unit="images")
        for number, path in enumerate(progress):
            try:
                features = [compute(read_image(path, size)) for compute, size in parts]
            except InputError:
                if not skip_broken:
                    raise
                continue  # rows that are not written are zeros
            lengths = [max(float(np.linalg.norm(each)), 1e-12) for each in features]
            row = np.concatenate(
                [each / length for each, length in zip(features, lengths, strict=True)]
            ) / np.sqrt(len(parts))
            if rows is None:
                rows = held.enter_context(temporary_rows(len(data), len(row)))
            rows[number] = row
        if rows is None:
            raise InputError(f"{data.root}: none of the images can be read")
        yield RowCosine(rows)


@contextmanager
def _embeddings(
    name: str, data: LabelledImages, weights: str | None, skip_broken: bool
) -> Iterator[Relevance]:
    """Cosine of embeddings by a model, or by the untrained backbone."""
    from deep_ranking.config import NetworkConfig
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.images import fitting_size
    from deep_ranking.model.file import load_model
    from deep_ranking.model.network import untrained_backbone

    files = data.files()
    if name == BACKBONE:
        size = fitting_size(files, LARGEST_IMAGE_SIZE)
        model = untrained_backbone(NetworkConfig(image_size=size, weights=None), weights)
    else:
        model = load_model(name)
    with embedded_images(model, files, skip_broken=skip_broken) as rows:
        rows[np.isnan(rows[:, 0])] = 0
        yield RowCosine(rows)
