"""`LabelledImages`: the one description of labelled images, whatever they were read from."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, Int32Array
from deep_ranking.files.words import counted
from deep_ranking.images import LeftOut


@dataclass(frozen=True)
class Labels:
    """A label for each image.

    Attributes:
        codes: int32 (images,), indices into `names`.
        names: the different labels.
    """

    codes: Int32Array
    names: list[str]

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """Make labels from the label of each image; `names` is sorted."""
        names = sorted(set(labels))
        numbers = {name: number for number, name in enumerate(names)}
        return cls(np.fromiter((numbers[label] for label in labels), np.int32), names)

    def select(self, chosen: npt.NDArray[np.intp]) -> Self:
        """Return the labels of some images."""
        return replace(self, codes=self.codes[chosen])

    def of_images(self) -> list[str]:
        """Return the label of each image."""
        return [self.names[code] for code in self.codes.tolist()]

    @property
    def num_names(self) -> int:
        """Number of labels that any image has."""
        return int(np.count_nonzero(self.sizes()))

    def sizes(self) -> npt.NDArray[np.intp]:
        """Return the number of images of each name."""
        return np.bincount(self.codes, minlength=len(self.names))


@dataclass(frozen=True)
class LabelledImages:
    """Images with their labels.

    Attributes:
        root: folder that the paths start from.
        paths: of the images, without repetition, with "/" between folders.
        items: the class of each image, or a finer label: the thing that it shows.
        categories: the group of items that each image is in; None if that is not known.
        splits: str (images,), the split of each image; None if there are no splits.
        pairs: int32 (pairs, 2), queries and their positives; None if the positives of a query are
            all images of its item.
        notes: a sentence for each guess about the images, and each kind of file left out.
        labelled_by: what makes an image's class, in words.
        left_out: what was left out of the listing of a folder.
        gallery: bool (images,), True for the images of the gallery's domain, such as a shop's
            pictures, and False for those of the queries' domain; None if there is one domain.
        confirmed: bool (images,), True where a person said that the class is right; None if nobody
            said so of any.

    Example:
        >>> data = read_classes("classes.csv")
        >>> len(data), data.items.names
        (12, ['cat', 'dog', 'owl'])
    """

    root: Path
    paths: list[str]
    items: Labels
    categories: Labels | None = None
    splits: npt.NDArray[np.str_] | None = None
    pairs: Int32Array | None = None
    notes: tuple[str, ...] = ()
    labelled_by: str = "as given"
    left_out: LeftOut = field(default_factory=LeftOut)
    gallery: BoolArray | None = None
    confirmed: BoolArray | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def select(self, chosen: BoolArray) -> Self:
        """Return some of the images, in order, with the pairs that are wholly among them.

        Args:
            chosen: bool (images,), True for each image to return.

        Raises:
            InputError: `chosen` is anything else, such as the numbers of images.
        """
        if chosen.dtype != bool or len(chosen) != len(self):
            raise InputError(
                f"chosen must be {len(self):,} booleans, one for each image. Received: "
                f"{len(chosen):,} of {chosen.dtype}"
            )
        numbers = np.flatnonzero(chosen)
        pairs = self.pairs
        if pairs is not None:
            new = (np.cumsum(chosen) - 1).astype(np.int32)
            pairs = new[pairs[chosen[pairs].all(axis=1)]]
        return replace(
            self,
            paths=[self.paths[number] for number in numbers],
            items=self.items.select(numbers),
            categories=None if self.categories is None else self.categories.select(numbers),
            splits=None if self.splits is None else self.splits[numbers],
            pairs=pairs if pairs is not None and len(pairs) else None,
            gallery=None if self.gallery is None else self.gallery[numbers],
            confirmed=None if self.confirmed is None else self.confirmed[numbers],
        )

    @property
    def num_classes(self) -> int:
        """Number of classes (items) that any image has, not counting images without one."""
        sizes = self.items.sizes().tolist()
        return sum(bool(name and size) for name, size in zip(self.items.names, sizes, strict=True))

    def describe(self) -> list[str]:
        """Return what was read in words: the number of images and classes, then all notes."""
        images, by = counted(len(self), "image"), f"({self.labelled_by})"
        if self.categories is None:
            first = f"{images}, {counted(self.num_classes, 'class')} {by}."
        else:
            categories = counted(self.categories.num_names, "category")
            first = f"{images}, {counted(self.num_classes, 'item')} {by}, {categories}."
        return [first, *self.notes]

    def classes_of_images(self) -> npt.NDArray[np.str_]:
        """Return the class of each image: str (images,)."""
        return np.array(self.items.names)[self.items.codes]

    def folders(self) -> list[str]:
        """Return the folders of each image, without its split: "Fruit/Apple", "" for none."""
        found = []
        for path, split in zip(
            self.paths,
            itertools.repeat("") if self.splits is None else self.splits.tolist(),
            strict=False,
        ):
            folder = path.rpartition("/")[0]
            first, _, rest = folder.partition("/")
            found.append(rest if split and first == split else folder)
        return found

    def files(self) -> list[str]:
        """Return the paths with `root` before them."""
        return [str(self.root / path) for path in self.paths]


def limit_classes(
    data: LabelledImages, *, fewest: int | None = None, most: int | None = None
) -> LabelledImages:
    """Return the images without small classes (items), and with a part of those of large classes.

    In data of two domains, `most` holds for each domain alone.

    Args:
        data: the images.
        fewest: images that a class must have to stay.
        most: images of a class that stay, spread evenly over its list.

    Raises:
        InputError: no class is left.
    """
    codes = data.items.codes
    sizes = data.items.sizes()
    kept = np.ones(len(codes), bool)
    if fewest is not None:
        kept = sizes[codes] >= fewest
        if not kept.any():
            raise InputError(
                f"min_images_per_class {fewest}: no class has so many images; the largest has "
                f"{sizes.max()}"
            )
    if most is not None:
        if data.gallery is not None:
            codes = 2 * codes + data.gallery
            sizes = np.bincount(codes)
        order = np.argsort(codes, kind="stable")
        rank = np.empty(len(codes), np.int64)
        rank[order] = np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes[order]]
        # Of `size` images, the numbers k * size // most stay: those where the division steps up.
        size = np.maximum(sizes[codes], most)
        kept &= rank == -(-rank * most // size) * size // most
    if kept.all():
        return data
    left = data.select(kept)
    limits = (("at least", fewest, "min"), ("at most", most, "max"))
    said = " and ".join(
        f"{words} {limit} of each class (--{name}_images_per_class)"
        for words, limit, name in limits
        if limit is not None
    )
    note = f"{len(left):,} of {counted(len(data), 'image')} used: {said}."
    return replace(left, notes=(*left.notes, note))
