"""Settings of the loss: which one, and which triplets of a batch it sees."""

from dataclasses import dataclass, field

from deep_ranking.config.checks import Config
from deep_ranking.files import InputError

LOSSES = ("ranking", "soft_margin", "supervised_contrastive", "multi_similarity")
DISTANCES = ("euclidean", "squared")
HINGES = ("triplet", "batch")
# The ranking loss compares each query with each pair of references.
MAX_RANKING_MEMORY = 1024
MININGS = ("all", "semi-hard", "hard", "distance-weighted")
DEFAULT_GAP = 1.0  # lead required of the negative, in units of the distance


@dataclass(frozen=True, kw_only=True)
class LossConfig(Config):
    """The loss: the blog's by default.

    Raises:
        InputError: a value is out of its range.
    """

    loss: str = field(
        default="ranking",
        metadata={
            "help": "ranking: the paper's hinge of triplets; soft_margin: each query and positive "
            "against all negatives of the batch at once (Sohn 2016); supervised_contrastive: "
            "against all other images (Khosla et al. 2020); multi_similarity: of pairs (Wang et "
            "al. 2019); all but ranking need --batches classes",
            "choices": LOSSES,
        },
    )
    gap: float = field(
        default=DEFAULT_GAP,
        metadata={"help": "lead required of the negative, in units of the distance (ranking)"},
    )
    distance: str = field(
        default="euclidean",
        metadata={
            "help": "distance in the ranking loss; squared is the paper's",
            "choices": DISTANCES,
        },
    )
    distance_norm: float = field(
        default=2.0,
        metadata={
            "help": "degree P of the distance in the ranking loss: the P-th root of the sum of the "
            "differences to the power P, 1 or more; 2 is Euclidean"
        },
    )
    hinge: str = field(
        default="triplet",
        metadata={
            "help": "triplet: the formula, a hinge for each triplet; batch: the blog's code, one "
            "hinge for the mean of the batch",
            "choices": HINGES,
        },
    )
    clip: bool = field(
        default=False, metadata={"help": "clip embeddings to [eps, 1 - eps], as the blog's code"}
    )
    weight_penalty: float = field(
        default=0.0,
        metadata={
            "help": "add this times the sum of the squares of all trained kernels to the loss (the "
            "paper's lambda is 0.001)"
        },
    )
    mining: str = field(
        default="all",
        metadata={
            "help": "which triplets of a batch of classes the ranking loss sees: all; semi-hard: "
            "for each query and positive the nearest negative beyond the positive; hard: for each "
            "query the furthest positive and the nearest negative; distance-weighted: negatives of "
            "every distance alike",
            "choices": MININGS,
        },
    )
    temperature: float = field(
        default=0.1,
        metadata={
            "help": "cosine similarity that counts as one unit in the losses other than ranking"
        },
    )
    memory: int = field(
        default=0,
        metadata={
            "help": "embeddings of earlier batches that serve as positives and negatives as well "
            "(cross-batch memory; with --batches classes)"
        },
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._check_choice("loss", LOSSES)
        self._check_choice("distance", DISTANCES)
        self._check_choice("hinge", HINGES)
        self._check_choice("mining", MININGS)
        self._check_positive("gap", "temperature")
        self._check_range("distance_norm", 1, 100)
        if self.distance == "squared" and self.distance_norm != 2:
            raise InputError(
                "distance squared is the square of the Euclidean one, of distance_norm 2. "
                f"Received: {self.distance_norm}"
            )
        if self.mining == "distance-weighted" and self.distance_norm != 2:
            raise InputError(
                "mining distance-weighted is of Euclidean distances, of distance_norm 2. "
                f"Received: {self.distance_norm}"
            )
        self._check_range("weight_penalty", 0, 1000)
        self._check_range("memory", 0, MAX_RANKING_MEMORY if self.loss == "ranking" else 1_000_000)
