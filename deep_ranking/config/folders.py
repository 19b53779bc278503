"""Settings of reading a folder of images: what its classes are, and which files are images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from deep_ranking.config.base import Config, setting
from deep_ranking.datasets import LabelledImages, corrected, read_folder, take_split
from deep_ranking.datasets.labels import checked_label


@dataclass(frozen=True, kw_only=True)
class FolderConfig(Config):
    """What the classes of a folder of images are: its first folders, as in the blog, by default.

    Example:
        >>> FolderConfig(label="parent").read("photos").items.names
        ['cat', 'dog', 'owl']

    Raises:
        InputError: a value is out of its range.
    """

    label: str | None = setting(
        None,
        "what makes an image's class. first: the first folder of its path; parent: the folder that "
        "holds it; N: the first N folders (default: first; of items "
        "in categories: parent)",
        metavar="first|parent|N",
    )
    classes: Path | None = setting(
        None,
        "CSV file of images and their classes, path,label[,category[,split]], instead of folders; "
        "its paths start from the folder of the images",
        metavar="FILE",
    )
    corrections: Path | None = setting(
        None,
        "corrections file: classes that people say are wrong, path,from_class,to_class; its paths "
        "start from the folder of the images, of which no file is moved",
        metavar="FILE",
    )
    splits: bool | None = setting(
        None,
        "the first folders are splits such as train and val, not classes (default: decided by "
        "their names)",
    )
    split: str | None = setting(
        None,
        "the split to take of images that have splits (default: to train on, train; to judge on, "
        "unseen, test or val)",
    )
    by_content: bool = setting(
        False, "open files whose names are no image's, and take those whose first bytes are"
    )

    def __post_init__(self) -> None:
        """Check the label."""
        if isinstance(self.label, Integral) and not isinstance(self.label, bool):
            object.__setattr__(self, "label", str(self.label))
        super().__post_init__()
        if self.label is not None:
            object.__setattr__(self, "label", checked_label(self.label))

    def read(
        self,
        root: str | os.PathLike[str],
        *,
        kinds: Sequence[str] | None = None,
        level: int | None = None,
        with_files: bool = True,
        keep_outside: bool = False,
    ) -> LabelledImages:
        """Read the images of a folder by these settings.

        Args:
            root: the folder.
            kinds: kinds of splits to take one of, as for `take_split`; None for all images.
            level: as for `read_folder`.
            keep_outside: as for `read_folder`.
            with_files: whether `classes` and `corrections` are about this folder.

        Raises:
            InputError: as `read_folder` and `corrected`.
        """
        data = read_folder(
            root,
            label=self.label,
            classes=self.classes if with_files else None,
            splits=self.splits,
            level=level,
            by_content=self.by_content,
            keep_outside=keep_outside,
        )
        if with_files and self.corrections is not None:
            data = corrected(data, self.corrections, keep_outside=keep_outside)
        return data if kinds is None else take_split(data, kinds, self.split)
