"""Settings of the data: which images or triplets to train on, in which batches."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from deep_ranking.config.base import setting
from deep_ranking.config.folders import FolderConfig
from deep_ranking.config.sampling import HARD, RELEVANCE, SamplingConfig
from deep_ranking.files import InputError

BATCHES = ("triplets", "classes")
TRIPLETS = Path("triplets.txt")


@dataclass(frozen=True, kw_only=True)
class DataConfig(FolderConfig):
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
        "triplet file to train on, with --batches triplets; or any file of a set "
        f"(default: {TRIPLETS})",
        metavar="FILE",
    )
    dataset: Path | None = setting(
        None,
        "folder of classes to train on, with --batches classes or --strategy; otherwise the folder "
        "that paths in triplet files start from (default: the file's own, or the working folder)",
        metavar="DIR",
    )
    pairs: Path | None = setting(
        None,
        "images of two domains, such as photographs and a shop's pictures, with --batches classes. "
        "DIR: the gallery's images, with folders of classes named as in --dataset, which holds the "
        "queries; FILE: lines of query,positive,item[,category], with paths from --dataset",
        metavar="FILE|DIR",
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
    shuffle: bool = setting(
        True, "shuffle all triplets in each epoch (batches of classes are always drawn anew)"
    )
    skip_broken: bool = setting(False, "leave out missing and broken images, and their triplets")
    save_augmented: Path | None = setting(
        None,
        "save the first 100 triplets of an epoch in this folder as PNG, as the network sees them; "
        "with --batches classes, its first 300 images",
        metavar="DIR",
    )
    cache_features: bool = setting(
        False,
        "compute the output of the frozen layers once for each image, keep it in --cache_dir, and "
        "train only the layers that follow: many times faster (with --batches classes and "
        "--train_from)",
    )
    cached_views: int = setting(
        1,
        "cached versions of each image, with --cache_features: 1 for the image itself, which no "
        "augmentation changes; more for augmented ones too",
    )
    cache_dir: Path | None = setting(
        None,
        "folder of the cached features, which later runs use again (default: deep_ranking_features "
        "beside the model)",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        """Check the ranges, and that a batch holds whole triplets or classes."""
        super().__post_init__()
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
        if self.pairs is not None:
            raise InputError(
                "pairs needs batches of classes: --batches classes; triplet_sampler.py --pairs "
                "draws triplets from a pair file"
            )
        if self.cache_features:
            raise InputError("cache_features needs batches of classes: --batches classes")

    def _check_classes(self) -> None:
        self._check_counts("images_per_class", low=2)
        if self.pairs is not None:
            for name in ("classes", "splits", "split"):
                if getattr(self, name) is not None:
                    raise InputError(f"give pairs or {name}, not both: pairs name the images")
        if self.dataset is None:
            raise InputError("batches of classes need a folder of classes: --dataset")
        if self.batch_size % self.images_per_class or self.batch_size < 2 * self.images_per_class:
            raise InputError(
                f"batch_size must be a multiple of images_per_class ({self.images_per_class}), for "
                f"2 or more classes. Received: {self.batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class DrawnTripletsConfig(DataConfig):
    """Which triplets to draw from the folders of a data set; by default, read a triplet file.

    Raises:
        InputError: a value is out of its range, or settings do not go together.
    """

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    level: int | None = setting(
        None,
        "number of leading folders of a path that make the category, with in-class, relevance and "
        "--pairs (default: 1; with a file in --pairs: as the file says)",
    )
    relevance: str | None = setting(
        None,
        "relevance of two images. PATH.csv: scores from lines of path,path,score; PATH.h5: cosine "
        "of the embeddings of a model; backbone: cosine of the embeddings of the untrained "
        "backbone with --weights; features: cosine of colour and texture; tree: share of folders "
        "that two images have in common",
        metavar="HOW",
    )
    neighbours_of: Path | None = setting(
        None,
        "hard: model file, or folder of an index of these images, that finds the first nearest "
        "images (default: the network as it starts)",
        metavar="FILE.h5|INDEX",
    )
    resample_every: int | None = setting(
        None,
        "number of epochs after which hard finds the nearest images again, by the network as it is "
        "then (default: 1; with --neighbours_of, never), and other strategies draw new triplets "
        "(default: 1)",
    )

    @property
    def reads_folders(self) -> bool:
        """Whether the run learns from the images of `dataset`, instead of a triplet file."""
        return self.batches == "classes" or self.draws_triplets

    @property
    def draws_triplets(self) -> bool:
        """Whether a strategy draws the triplets while training, instead of reading a file."""
        return self.sampling.strategy is not None

    def __post_init__(self) -> None:
        """Check the ranges, and that there is a folder to draw from."""
        self._path_as_text("relevance")
        super().__post_init__()
        self._check_counts("resample_every", "level")
        strategy = self.sampling.strategy
        if strategy is None:
            self._check_without_strategy()
            return
        if self.batches != "triplets":
            raise InputError(f"strategy {strategy} needs batches of triplets: --batches triplets")
        if self.triplets is not None:
            raise InputError(
                f"give strategy {strategy} or triplets, not both: it draws them from --dataset"
            )
        if self.dataset is None:
            raise InputError(f"strategy {strategy} needs the folder to draw from: --dataset")
        if self.level is not None and not self.sampling.has_nested_folders:
            raise InputError("level needs --strategy in-class or relevance")
        if (self.relevance is None) == (strategy == RELEVANCE):
            raise InputError("--strategy relevance and --relevance need each other")
        if self.neighbours_of is not None and strategy != HARD:
            raise InputError("neighbours_of needs --strategy hard")

    def _check_without_strategy(self) -> None:
        """Refuse settings that only a strategy uses."""
        unused = SamplingConfig()
        names = [
            each.name
            for each in fields(SamplingConfig)
            if getattr(self.sampling, each.name) != getattr(unused, each.name)
        ]
        own = ("level", "relevance", "neighbours_of", "resample_every")
        names += [name for name in own if getattr(self, name) is not None]
        if self.pairs is not None:
            names = [name for name in names if name != "level"]
        if self.batches == "triplets":  # read from a file, which knows no classes
            folders = ("label", "classes", "corrections", "splits", "split")
            names += [name for name in folders if getattr(self, name) is not None]
            names += ["by_content"] if self.by_content else []
        if names:
            also = ", or --pairs" if names[0] == "level" else ""
            raise InputError(
                f"{names[0]} needs --strategy, which draws triplets from --dataset{also}"
            )
