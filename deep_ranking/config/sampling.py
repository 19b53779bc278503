"""Settings of the sampler: which triplets are drawn."""

from dataclasses import dataclass

from deep_ranking.config.base import Config, check_positive, setting
from deep_ranking.files import InputError

OUT_OF_CLASS, IN_CLASS, RELEVANCE, HARD = "out-of-class", "in-class", "relevance", "hard"
STRATEGIES = (OUT_OF_CLASS, IN_CLASS, RELEVANCE, HARD)
OUT_OF_CLASS_SHARES = {IN_CLASS: 0.0, RELEVANCE: 0.2}


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Config):
    """How triplets are drawn.

    Example:
        >>> SamplingConfig(strategy="in-class").has_nested_folders
        True

    Raises:
        InputError: a value is out of its range.
    """

    num_pos_images: int = setting(10, "positives for each image, at most (relevance: on average)")
    num_neg_images: int = setting(
        50,
        "negatives for each pair of an image and a positive, at most (relevance: triplets for each "
        "positive)",
    )
    strategy: str | None = setting(
        None,
        "where negatives come from. out-of-class: all other classes; in-class: other items of the "
        "same category (folders: category/.../item/image); relevance: query, positive and negative "
        "are all drawn by how relevant images are to each other (Wang et al. 2014); hard: the "
        "nearest images of other classes (default of sample: out-of-class, or with given pairs "
        "in-class where a category has other items; default of train: read a triplet file)",
        choices=STRATEGIES,
    )
    out_of_class_share: float | None = setting(
        None,
        "share of negatives that come from other categories, with in-class (default: 0) and "
        "relevance (default: 0.2)",
        metavar="SHARE",
    )
    relevance_cap: float = setting(
        1.0, "T_p: more relevance than this makes a positive no more likely", metavar="RELEVANCE"
    )
    relevance_gap: float = setting(
        0.05,
        "T_r: a positive is at least this much more relevant than an in-class negative",
        metavar="RELEVANCE",
    )
    buffer: int = setting(256, "relevance: images of each category to draw from at a time")
    num_neighbours: int = setting(50, "hard: nearest images of other classes to draw from")
    balance: bool = setting(
        False, "draw as many queries from every class, repeating images of small classes"
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._check_counts("num_pos_images", "num_neg_images", "num_neighbours")
        self._check_counts("buffer", low=2)
        check_positive(relevance_cap=self.relevance_cap, relevance_gap=self.relevance_gap)
        if self.out_of_class_share is not None:
            self._check_range("out_of_class_share", 0, 1)
            if self.strategy not in OUT_OF_CLASS_SHARES:
                raise InputError("out_of_class_share needs strategy in-class or relevance")

    @property
    def has_nested_folders(self) -> bool:
        """Whether the strategy reads folders as category/.../item, not as one class each."""
        return self.strategy in (IN_CLASS, RELEVANCE)

    def category_level(self, level: int | None) -> int | None:
        """Return the number of leading folders that make the category; None for no categories."""
        return (level or 1) if self.has_nested_folders else None

    @property
    def share(self) -> float:
        """Share of negatives of other categories, the strategy's default filled in."""
        if self.out_of_class_share is not None:
            return self.out_of_class_share
        return OUT_OF_CLASS_SHARES.get(self.strategy or "", 0.0)
