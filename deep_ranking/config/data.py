"""Settings of the data: which images, in what batches."""

from dataclasses import dataclass, field
from pathlib import Path

from deep_ranking.config.checks import Config
from deep_ranking.files import InputError

BATCHES = ("triplets", "classes")
TRIPLETS = Path("triplets.txt")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """What is trained on: the blog's triplet file by default.

    Raises:
        InputError: a value is out of its range.
    """

    batches: str = field(
        default="triplets",
        metadata={
            "help": "triplets: of --triplets, or drawn by --strategy, three images each; classes: "
            "some images of each of some classes of --dataset, of which all triplets count",
            "choices": BATCHES,
        },
    )
    triplets: Path | None = field(
        default=None,
        metadata={
            "help": "triplet file to train on, with --batches triplets; one of a set stands for "
            f"all (default: {TRIPLETS})"
        },
    )
    dataset: Path | None = field(
        default=None,
        metadata={
            "help": "with --batches classes or --strategy, the folder of classes to train on; "
            "otherwise the folder that the paths in the triplet files start from (default: tried "
            "in turn, the triplet file's folder and the working folder)"
        },
    )
    batch_size: int = field(
        default=24,
        metadata={
            "help": "images a batch: 3 times the number of triplets, or --images_per_class times "
            "the number of classes"
        },
    )
    images_per_class: int = field(
        default=4,
        metadata={"help": "images of each class in a batch, with --batches classes"},
    )
    max_images_per_class: int | None = field(
        default=None,
        metadata={
            "help": "train on at most so many images of each class, spread evenly over its list "
            "(with --batches classes or --strategy; default: all)"
        },
    )
    steps_per_epoch: int | None = field(
        default=None,
        metadata={
            "help": "batches an epoch, and so between checkpoints (default: one pass over the "
            "triplets or the images)"
        },
    )
    shuffle: bool = field(default=True, metadata={"help": "permute all triplets in each epoch"})
    skip_broken: bool = field(
        default=False,
        metadata={"help": "leave out missing and broken images, and their triplets"},
    )
    save_augmented: Path | None = field(
        default=None,
        metadata={
            "help": "folder for the first 100 triplets of an epoch as PNG, as the network sees "
            "them; with --batches classes, for its first 300 images"
        },
    )
    cache_features: bool = field(
        default=False,
        metadata={
            "help": "compute what the frozen layers give once an image, keep it in --cache_dir, "
            "and train only what follows: many times faster (with --batches classes and "
            "--train_from)"
        },
    )
    cached_views: int = field(
        default=1,
        metadata={"help": "kept versions of each image: the image itself, and augmented ones"},
    )
    cache_dir: Path | None = field(
        default=None,
        metadata={
            "help": "folder of the features, which later runs find again (default: "
            "deep_ranking_features beside the model)"
        },
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that a batch is made of whole triplets or classes."""
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
                "batch_size must be a multiple of 3, as rows are query, positive and negative in "
                f"turn. Received: {self.batch_size}"
            )
        if self.cache_features:
            raise InputError("cache_features needs batches of classes: --batches classes")

    def _check_classes(self) -> None:
        self._check_counts("images_per_class", low=2)
        if self.dataset is None:
            raise InputError("batches of classes need the folder of the classes: --dataset")
        if self.batch_size % self.images_per_class or self.batch_size < 2 * self.images_per_class:
            raise InputError(
                f"batch_size must be images_per_class ({self.images_per_class}) times 2 or more "
                f"classes. Received: {self.batch_size}"
            )
