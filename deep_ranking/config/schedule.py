"""Settings of the schedule: which layers to train, when, from which start, and how fast."""

from dataclasses import dataclass

from deep_ranking.config.base import Config, setting

OPTIMIZERS = ("sgd", "adam")
DECAYS = ("none", "cosine", "plateau")
STARTS = ("random", "pca", "whitened")
BRANCH_STARTS = ("random", "kmeans")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Config):
    """How long to train, which layers, and at what rate: the blog's by default.

    Raises:
        InputError: a value is out of its range.
    """

    epochs: int = setting(25, "total number of epochs, also when resuming")
    start_epoch: int = setting(
        0,
        "number of epochs that --weights were already trained for; the run starts with the next "
        "one, its order and its augmentation",
    )
    train_from: str | None = setting(
        None,
        "first layer or block of the backbone to train, such as block4_conv1 of VGG16 or conv5 of "
        "ResNet50, whose batch norms stay as they are; head: train none of it (default: train all)",
        metavar="LAYER",
    )
    head_epochs: int = setting(0, "freeze the whole backbone in this many first epochs")
    head_learning_rate: float | None = setting(
        None, "learning rate in --head_epochs (default: --learning_rate)", metavar="RATE"
    )
    embedding_start: str = setting(
        "random",
        "first weights of the embedding layer. pca: the axes of largest variance of its input on "
        "training images; whitened: the same, after scaling the variance within classes to 1, each "
        "branch counted as suits the training classes (both need --batches classes)",
        choices=STARTS,
    )
    branch_start: str | None = setting(
        None,
        "first weights of the shallow branches. kmeans: words of patches of up to 1,000 training "
        "images (default: kmeans with --multiscale colour, otherwise random)",
        choices=BRANCH_STARTS,
    )
    train_branches: bool = setting(
        True, "train the shallow branches; otherwise they keep their first weights"
    )
    optimizer: str = setting("sgd", "sgd: with Nesterov momentum 0.9", choices=OPTIMIZERS)
    learning_rate: float = setting(0.001, "step size of the optimizer", metavar="RATE")
    backbone_rate: float = setting(
        1.0,
        "learning rate of the backbone, as a multiple of the other layers' (not with --train_from "
        "head)",
        metavar="FACTOR",
    )
    warmup_steps: int = setting(0, "batches over which the learning rate rises from 0")
    decay: str = setting(
        "none",
        "cosine: the learning rate falls to 0 by the last of --epochs; plateau: it is multiplied "
        "by --plateau_factor after --plateau_patience validations in a row without improvement",
        choices=DECAYS,
    )
    plateau_patience: int = setting(
        10, "validations in a row without improvement, with --decay plateau"
    )
    plateau_factor: float = setting(
        0.1, "factor on the learning rate, with --decay plateau", metavar="FACTOR"
    )
    clip_norm: float | None = setting(
        None,
        "largest length of the gradient of all weights together; a longer one is shortened to it "
        "(default: no limit)",
        metavar="LENGTH",
    )
    weight_decay: float = setting(
        0.0,
        "share of each weight that a step subtracts, times the learning rate, outside of the loss",
        metavar="SHARE",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self._check_counts("epochs", "plateau_patience")
        self._check_counts("head_epochs", "warmup_steps", "start_epoch", low=0)
        self._check_positive("learning_rate", "backbone_rate", "head_learning_rate", "clip_norm")
        self._check_range("plateau_factor", 0.001, 0.999)
        self._check_range("weight_decay", 0, 1)
