"""Settings of the data: which images to train on, in which batches."""

from dataclasses import dataclass
from pathlib import Path

from deep_ranking.config.base import Config, setting
from deep_ranking.files import InputError

BATCHES = ("triplets", "classes")
TRIPLETS = Path("triplets.txt")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """What to train on: the blog's triplet file by default.

    Raises:
        InputError: a value is out of its range.
    """

    batches: str = setting(
        "triplets",
        "triplets: three images each, read from --triplets or drawn by --strategy; classes: some "
        "images of each of some classes of --dataset, and all triplets of these",
        choices=BATCHES,
    )
    triplets: Path | None = setting(
        None,
        "triplet file to train on, with --batches triplets; any file of a set stands "
        f"for the whole set (default: {TRIPLETS})",
    )
    dataset: Path | None = setting(
        None,
        "with --batches classes or --strategy, the folder of classes to train on; otherwise the "
        "folder that the paths in the triplet files start from (default: the triplet file's folder "
        "or, if no image is there, the working folder)",
    )
    batch_size: int = setting(
        24,
        "images in a batch: 3 times the number of triplets, or --images_per_class times the number "
        "of classes",
    )
    images_per_class: int = setting(4, "images of each class in a batch, with --batches classes")
    max_images_per_class: int | None = setting(
        None,
        "train on at most this many images of each class, spread evenly over its list (with "
        "--batches classes or --strategy; default: all)",
    )
    steps_per_epoch: int | None = setting(
        None,
        "batches in an epoch; a checkpoint follows each epoch (default: one pass over the triplets "
        "or the images)",
    )
    shuffle: bool = setting(True, "shuffle all triplets in each epoch")
    skip_broken: bool = setting(False, "leave out missing and broken images, and their triplets")
    save_augmented: Path | None = setting(
        None,
        "save the first 100 triplets of an epoch in this folder as PNG, as the network sees them; "
        "with --batches classes, its first 300 images",
    )
    cache_features: bool = setting(
        False,
        "compute the output of the frozen layers once for each image, keep it in --cache_dir, and "
        "train only the layers that follow: many times faster (with --batches classes and "
        "--train_from)",
    )
    cached_views: int = setting(
        1, "cached versions of each image: the image itself, and augmented ones"
    )
    cache_dir: Path | None = setting(
        None,
        "folder of the cached features, which later runs use again (default: deep_ranking_features "
        "beside the model)",
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that a batch holds whole triplets or classes."""
        super().__post_init__()
        self._check_choice("batches", BATCHES)
        self._check_counts("steps_per_epoch", "cached_views")
        self._check_counts("max_images_per_class", low=2)
        if self.batches == "triplets":
            self._check_triplets()
        else:
            self._check_classes()

    @property
    def triplet_file(self) -> Path:
        """The triplet file to train on."""
        return self.triplets or TRIPLETS

    def _check_triplets(self) -> None:
        if self.batch_size < 3 or self.batch_size % 3:
            raise InputError(
                "batch_size must be a multiple of 3, as each triplet is three images. "
                f"Received: {self.batch_size}"
            )
        if self.cache_features:
            raise InputError("cache_features needs batches of classes: --batches classes")

    def _check_classes(self) -> None:
        self._check_counts("images_per_class", low=2)
        if self.dataset is None:
            raise InputError("batches of classes need a folder of classes: --dataset")
        if self.batch_size % self.images_per_class or self.batch_size < 2 * self.images_per_class:
            raise InputError(
                f"batch_size must be a multiple of images_per_class ({self.images_per_class}), for "
                f"2 or more classes. Received: {self.batch_size}"
            )
