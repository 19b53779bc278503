"""Settings of the sampler: which triplets are drawn."""

from dataclasses import dataclass, field

from deep_ranking.config.checks import check_counts, check_share
from deep_ranking.files import InputError

OUT_OF_CLASS, IN_CLASS, RELEVANCE, HARD = "out-of-class", "in-class", "relevance", "hard"
STRATEGIES = (OUT_OF_CLASS, IN_CLASS, RELEVANCE, HARD)
OUT_OF_CLASS_SHARES = {IN_CLASS: 0.0, RELEVANCE: 0.2}


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How triplets are drawn.

    Raises:
        InputError: a value is out of its range.
    """

    num_pos_images: int = field(
        default=10, metadata={"help": "positives for each image, at most (relevance: on average)"}
    )
    num_neg_images: int = field(
        default=50,
        metadata={
            "help": "negatives for each pair of an image and a positive, at most (relevance: "
            "triplets for each positive)"
        },
    )
    strategy: str | None = field(
        default=None,
        metadata={
            "help": "negatives: out-of-class, images of all other classes; in-class, other items "
            "of the same category (folders: category/.../item/image); relevance, all three by how "
            "relevant images are to each other (Wang et al. 2014); hard, the nearest images of "
            "other classes (default of sample: out-of-class; with given pairs, in-class where a "
            "category has other items; default of train: a triplet file)",
            "choices": STRATEGIES,
        },
    )
    out_of_class_share: float | None = field(
        default=None,
        metadata={
            "help": "share of negatives of other categories, with in-class (default: 0) and "
            "relevance (default: 0.2)",
            "metavar": "SHARE",
        },
    )
    relevance_cap: float = field(
        default=1.0,
        metadata={"help": "T_p: relevance above it makes a positive no likelier", "metavar": "T"},
    )
    relevance_gap: float = field(
        default=0.05,
        metadata={
            "help": "T_r: a positive is by so much more relevant than an in-class negative",
            "metavar": "T",
        },
    )
    buffer: int = field(
        default=256,
        metadata={"help": "relevance: images of each category that are drawn from at a time"},
    )
    num_neighbours: int = field(
        default=50, metadata={"help": "hard: nearest images of other classes to draw from"}
    )
    balance: bool = field(
        default=False,
        metadata={"help": "every class gives equally many queries, images of small ones again"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        names = ("num_pos_images", "num_neg_images", "num_neighbours")
        check_counts(**{name: getattr(self, name) for name in names})
        if self.buffer < 2:
            raise InputError(f"buffer must be 2 or more. Received: {self.buffer}")
        if self.strategy not in (None, *STRATEGIES):
            raise InputError(
                f"strategy must be one of {', '.join(STRATEGIES)}. Received: {self.strategy}"
            )
        for name in ("relevance_cap", "relevance_gap"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0. Received: {getattr(self, name)}")
        if self.out_of_class_share is not None:
            check_share("out_of_class_share", self.out_of_class_share)
            if self.strategy not in OUT_OF_CLASS_SHARES:
                raise InputError("out_of_class_share needs strategy in-class or relevance")

    @property
    def share(self) -> float:
        """Share of negatives of other categories."""
        if self.out_of_class_share is not None:
            return self.out_of_class_share
        return OUT_OF_CLASS_SHARES.get(self.strategy or "", 0.0)
