"""Settings of the schedule: what is trained when, from which start, and how fast."""

from dataclasses import dataclass, field

from deep_ranking.config.checks import Config

OPTIMIZERS = ("sgd", "adam")
DECAYS = ("none", "cosine", "plateau")
STARTS = ("random", "pca", "whitened")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Config):
    """How long, which layers, and at what rate: the blog's by default.

    Raises:
        InputError: a value is out of its range.
    """

    epochs: int = field(default=25, metadata={"help": "epochs in all, also when resuming"})
    start_epoch: int = field(
        default=0,
        metadata={
            "help": "epochs that --weights were trained for already: the first one here has the "
            "next number, and its order and augmentation"
        },
    )
    train_from: str | None = field(
        default=None,
        metadata={
            "help": "train this layer or block of the backbone and what follows it, such as "
            "block4_conv1 of VGG16 or conv5 of ResNet50; head: all but the backbone (default: "
            "everything)",
            "metavar": "LAYER",
        },
    )
    head_epochs: int = field(
        default=0,
        metadata={"help": "freeze the whole backbone in so many epochs at first"},
    )
    head_learning_rate: float | None = field(
        default=None,
        metadata={"help": "learning rate in these epochs (default: --learning_rate)"},
    )
    embedding_start: str = field(
        default="random",
        metadata={
            "help": "what the embedding layer starts as; pca: the axes of largest variance of its "
            "input on training images; whitened: of largest variance once that within classes "
            "is 1 (both need --batches classes)",
            "choices": STARTS,
        },
    )
    optimizer: str = field(
        default="sgd",
        metadata={"help": "sgd has Nesterov momentum 0.9", "choices": OPTIMIZERS},
    )
    learning_rate: float = field(default=0.001, metadata={"help": "step size of the optimizer"})
    backbone_rate: float = field(
        default=1.0,
        metadata={"help": "learning rate of the backbone, as a multiple of the other layers'"},
    )
    warmup_steps: int = field(
        default=0, metadata={"help": "batches over which the learning rate rises from 0"}
    )
    decay: str = field(
        default="none",
        metadata={
            "help": "cosine: the learning rate falls to 0 until the last of --epochs; plateau: it "
            "is multiplied by --plateau_factor when --plateau_patience judgements in turn were no "
            "better than the best",
            "choices": DECAYS,
        },
    )
    plateau_patience: int = field(
        default=10, metadata={"help": "judgements without a better one, with --decay plateau"}
    )
    plateau_factor: float = field(
        default=0.1, metadata={"help": "what the learning rate is multiplied by then"}
    )
    clip_norm: float | None = field(
        default=None,
        metadata={
            "help": "shorten the gradient of all weights together to this length if it is longer "
            "(default: never)"
        },
    )
    weight_decay: float = field(
        default=0.0,
        metadata={
            "help": "share of each weight that a step takes off, times the learning rate, apart "
            "from the loss"
        },
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._check_counts("epochs")
        self._check_counts("plateau_patience")
        self._check_counts("head_epochs", "warmup_steps", "start_epoch", low=0)
        self._check_positive("learning_rate", "backbone_rate")
        for name in ("head_learning_rate", "clip_norm"):
            if getattr(self, name) is not None:
                self._check_positive(name)
        self._check_range("plateau_factor", 0.001, 0.999)
        self._check_range("weight_decay", 0, 1)
        self._check_choice("optimizer", OPTIMIZERS)
        self._check_choice("decay", DECAYS)
        self._check_choice("embedding_start", STARTS)
