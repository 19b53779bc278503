"""Settings of the loss: which one, and which triplets of a batch it sees."""

from dataclasses import dataclass

from deep_ranking.config.base import Config, setting
from deep_ranking.files import InputError

LOSSES = ("ranking", "soft_margin", "supervised_contrastive", "multi_similarity")
DISTANCES = ("euclidean", "squared")
HINGES = ("triplet", "batch")
# Far less than for the other losses: ranking compares each query with each pair of references.
MAX_RANKING_MEMORY = 1024
MININGS = ("all", "semi-hard", "hard", "distance-weighted")
DEFAULT_GAP = 1.0  # lead required of the negative, in units of the distance


@dataclass(frozen=True, kw_only=True)
class LossConfig(Config):
    """The loss, and the triplets it sees: the blog's by default.

    Raises:
        InputError: a value is out of its range.
    """

    loss: str = setting(
        "ranking",
        "ranking: the paper's hinge of triplets; soft_margin: each query and positive against all "
        "negatives of the batch at once (Sohn 2016); supervised_contrastive: each query and "
        "positive against all other images (Khosla et al. 2020); multi_similarity: weighted pairs "
        "(Wang et al. 2019); all but ranking need --batches classes",
        choices=LOSSES,
    )
    gap: float = setting(
        DEFAULT_GAP,
        "how much farther than the positive the negative must be, in units of the distance "
        "(ranking)",
        metavar="GAP",
    )
    distance: str = setting(
        "euclidean", "distance in the ranking loss; squared is the paper's", choices=DISTANCES
    )
    distance_norm: float = setting(
        2.0,
        "degree P of the distance in the ranking loss, 1 or more: the P-th root of the sum of the "
        "differences to the power P; 2 is Euclidean",
        metavar="P",
    )
    hinge: str = setting(
        "triplet",
        "triplet: the formula, a hinge for each triplet; batch: the blog's code, one hinge for the "
        "mean of the batch (with --loss ranking)",
        choices=HINGES,
    )
    clip: bool = setting(
        False, "clip embeddings to [eps, 1 - eps], as the blog's code does (with --loss ranking)"
    )
    weight_penalty: float = setting(
        0.0,
        "add the sum of the squares of all trained kernels, times this number, to the loss (the "
        "paper's lambda is 0.001)",
        metavar="LAMBDA",
    )
    mining: str = setting(
        "all",
        "which triplets of a batch of classes the ranking loss sees: all; semi-hard: for each "
        "query and positive the nearest negative beyond the positive; hard: for each query the "
        "furthest positive and the nearest negative; distance-weighted: negatives weighted so that "
        "every distance counts the same",
        choices=MININGS,
    )
    temperature: float = setting(
        0.1,
        "divide cosine similarities by this in the losses other than ranking (multi_similarity: "
        "those of negatives)",
        metavar="T",
    )
    memory: int = setting(
        0,
        "number of embeddings of earlier batches to use as further positives and negatives "
        "(cross-batch memory; with --batches classes)",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._check_positive("gap", "temperature")
        self._check_range("distance_norm", 1, 100)
        if self.distance == "squared" and self.distance_norm != 2:
            raise InputError(
                "distance squared is the squared Euclidean distance, so distance_norm must be 2. "
                f"Received: {self.distance_norm}"
            )
        if self.mining == "distance-weighted" and self.distance_norm != 2:
            raise InputError(
                "mining distance-weighted uses Euclidean distances, so distance_norm must be 2. "
                f"Received: {self.distance_norm}"
            )
        self._check_range("weight_penalty", 0, 1000)
        self._check_range("memory", 0, MAX_RANKING_MEMORY if self.loss == "ranking" else 1_000_000)
