"""Labelled images -> triplet files: what the command `sample` does."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from deep_ranking.config import IN_CLASS, SamplingConfig
from deep_ranking.datasets import (
    LabelledImages,
    read_folder,
    relative_prefix,
    write_classes,
)
from deep_ranking.files import InputError, make_folder
from deep_ranking.files.csv_lines import read_lines
from deep_ranking.files.html import paragraph
from deep_ranking.files.words import counted
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.sampling.parts import shares_in, split_parts, write_drawn_triplets
from deep_ranking.sampling.strategy_from_config import open_strategy
from deep_ranking.sampling.triplet_file import COLUMNS, COMPRESSED, shard_path

PARTITION = "partition.csv"
NUM_SHOWN, NUM_READ = 6, 20_000  # triplets that a notebook shows, and lines to find them in


@dataclass(frozen=True)
class SampledTriplets:
    """The triplet files that were written.

    Attributes:
        files: number of triplets in each file; with shards, by the first of them.
        lines: what was sampled, in words.

    Example:
        >>> sample("photos", "few", SamplingConfig(num_pos_images=1, num_neg_images=1))
        12 images, 3 classes (the first folder).
        12 triplets in few/triplets.txt.
    """

    files: dict[Path, int]
    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return "\n".join([*map(paragraph, self.lines), image_rows(self._examples())])

    def _examples(self) -> list[list[tuple[str, str]]]:
        """Return some triplets of the first file, each of another query."""
        file = next(iter(self.files))
        by_query: dict[str, list[tuple[str, str]]] = {}
        for _, fields in islice(read_lines(file, kind="triplets", hint=""), NUM_READ):
            paths = [str(file.parent / field) for field in fields]
            by_query.setdefault(fields[0], list(zip(paths, COLUMNS, strict=True)))
            if len(by_query) == NUM_SHOWN:
                break
        return list(by_query.values())


def sample(
    dataset: str | os.PathLike[str] | LabelledImages,
    output_directory: str | os.PathLike[str] = ".",
    config: SamplingConfig | None = None,
    *,
    split: Sequence[float] | Sequence[str] | None = None,
    validation_share: float | None = None,
    by: str = "class",
    keep_together: bool = True,
    relevance: str | None = None,
    weights: str | None = "imagenet",
    neighbours_of: str | os.PathLike[str] | None = None,
    compress: bool = False,
    shards: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> SampledTriplets:
    """Draw triplets (query, positive, negative) of images, and write them to triplets.txt.

    Args:
        dataset: folder with one folder for each class (category/.../item, if the strategy is
            in-class or relevance); or the images of `read_folder`, `read_classes`,
            `read_partition` or `read_positive_pairs`.
        output_directory: folder for triplets.txt; made if missing.
        config: which triplets, and how many; None for the usual settings.
        split: as for `split_parts`: shares for train, validation and test, or names of splits. Each
            part gets a file of its own.
        validation_share: hold back this share of the classes, for validation_triplets.txt.
        by: what a split keeps whole: "class" or "item".
        keep_together: with shares, keep copies and near-copies of an image in one part.
        relevance: for strategy relevance, as for `open_strategy`.
        weights: of the backbone, for relevance by the untrained backbone.
        neighbours_of: for strategy hard, a model file or the folder of an index.
        compress: write triplets.txt.gz.
        shards: write so many files instead of one.
        seed: the same seed gives the same file.
        progress: called with a line when something is known or done.

    Example:
        >>> found = sample("photos", "drawn", SamplingConfig(num_pos_images=2, num_neg_images=2))
        >>> found.files[Path("drawn/triplets.txt")]
        48

    Raises:
        InputError: the images cannot be found or split, give no such triplets, or the files cannot
            be written.
    """
    config = config or SamplingConfig()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if progress is not None:
            progress(line)

    if not isinstance(dataset, LabelledImages):
        dataset = read_folder(dataset, level=config.category_level(None))
    for line in _description(dataset, config):
        say(line)
    parts, data = split_parts(
        dataset,
        split,
        validation_share=validation_share,
        seed=seed,
        by=by,
        keep_together=keep_together,
    )
    for note in data.notes[len(dataset.notes) :]:
        say(note)
    with ExitStack() as opened:
        # Make all strategies before writing: no file appears if a part cannot give triplets.
        strategies = {}
        for stem, part in parts.items():
            strategy = open_strategy(
                config,
                part,
                seed=seed,
                relevance=relevance,
                weights=weights,
                neighbours_of=None if neighbours_of is None else Path(neighbours_of),
            )
            try:
                strategies[stem] = opened.enter_context(strategy)
            except InputError as error:
                others = f"{stem}: {error}; --split takes other splits"
                raise InputError(others if len(parts) > 1 else str(error)) from None
        output_dir = make_folder(output_directory)
        if not validation_share and shares_in(split) is not None:
            write_classes(output_dir / PARTITION, data, relative_prefix(data.root, output_dir))
            say(f"The part of each image is in {output_dir / PARTITION}.")
        files = {}
        for stem, part in parts.items():
            path = output_dir / f"{stem}.txt"
            if compress or shards is not None:
                path = path.with_name(path.name + COMPRESSED)
            count = write_drawn_triplets(path, part, strategies[stem], seed, shards=shards)
            first = path if shards is None else shard_path(path, 0, shards)
            files[first] = count
            where = path if shards is None else f"{shards} files, from {first} on"
            say(f"{counted(count, 'triplet')} in {where}.")
            missing = strategies[stem].num_triplets - count
            if relevance and missing > 0:
                say(
                    f"{counted(missing, 'triplet')} left out: no positive was found for the query, "
                    "or no negative less relevant by --relevance_gap."
                )
    return SampledTriplets(files, tuple(lines))


def _description(data: LabelledImages, config: SamplingConfig) -> Iterator[str]:
    """Yield the numbers of images and classes, and which of them cannot be queries."""
    yield from data.describe()
    if data.pairs is not None:
        yield f"{counted(len(data.pairs), 'pair')} of query and positive."
    elif singles := int((data.items.sizes() == 1).sum()):
        noun = "class" if data.categories is None else "item"
        verb = "has" if singles == 1 else "have"
        yield f"{counted(singles, noun)} {verb} one image only: it serves as a negative."
    if data.categories is not None and config.strategy == IN_CLASS and data.pairs is None:
        both = np.unique(np.column_stack([data.categories.codes, data.items.codes]), axis=0)
        alone = int((np.bincount(both[:, 0]) == 1).sum())
        if alone:
            verb, whose = ("has", "its") if alone == 1 else ("have", "their")
            images = f"none of {whose} images is a query"
            yield f"{counted(alone, 'category')} {verb} one item only: {images}."
