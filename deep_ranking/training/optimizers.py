"""How fast each layer learns: warm-up, decay, and a separate rate for the backbone."""

import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from deep_ranking.config import TrainConfig
from deep_ranking.model.mixed_precision import resolved_precision


@keras.saving.register_keras_serializable(package="deep_ranking")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises from 0, stays, and may fall to 0 along a half cosine.

    Args:
        learning_rate: the highest rate, above 0.
        warmup_steps: steps in which the rate rises linearly; already the first is above 0.
        decay_steps: step at which the rate reaches 0 along a half cosine (Loshchilov and Hutter
            2017, eq. 5), which begins after the warm-up; None for no decay.
    """

    def __init__(
        self, learning_rate: float, warmup_steps: int = 0, decay_steps: int | None = None
    ) -> None:
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        step = ops.cast(step, "float32")
        share = ops.minimum(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay_steps is not None:
            length = max(1, self.decay_steps - self.warmup_steps)
            done = ops.clip((step - self.warmup_steps) / length, 0.0, 1.0)
            share = share * 0.5 * (1.0 + ops.cos(math.pi * done))
        return ops.multiply(ops.cast(self.learning_rate, "float32"), share)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
        }


class _BackboneRate:
    """Mixin of optimizers whose learning rate differs in the layers of the backbone."""

    backbone_rate = 1.0
    backbone_layers: frozenset[str] = frozenset()

    def build(self, variables: Any) -> None:
        super().build(variables)  # type: ignore[misc]
        self._rates = [
            # In a nested model, the path has the model's name before the layer's.
            1.0 if self.backbone_layers.isdisjoint(variable.path.split("/")) else self.backbone_rate
            for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = self._rates[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        super().update_step(gradient, variable, learning_rate * rate)  # type: ignore[misc]

    def _clip_gradients(self, gradients: list[Any]) -> list[Any]:
        """Clip the sum of all devices' gradients; Keras would clip those of each device."""
        replica = tf.distribute.get_replica_context()
        if self.global_clipnorm is None or replica is None:  # type: ignore[attr-defined]
            return gradients
        count = replica.num_replicas_in_sync
        if count > 1:
            gradients = list(replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients))
        clipped = super()._clip_gradients(gradients)  # type: ignore[misc]
        return [gradient / count for gradient in clipped]  # Keras sums them up once more


class RankingSGD(_BackboneRate, keras.optimizers.SGD):
    """Stochastic gradient descent with its own rate for the backbone."""


class RankingAdam(_BackboneRate, keras.optimizers.Adam):
    """Adam with its own rate for the backbone."""


class RankingLossScale(keras.optimizers.LossScaleOptimizer):
    """Scales the loss for half precision, and skips a step on all devices or on none."""

    def check_finite(self, gradients: Any) -> Any:
        """Return whether the gradients of all devices are finite."""
        finite = super().check_finite(gradients)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        infinite = ops.cast(ops.logical_not(finite), "float32")
        return ops.equal(replica.all_reduce(tf.distribute.ReduceOp.SUM, infinite), 0)


def make_optimizer(
    config: TrainConfig, backbone_layers: Iterable[str], *, learning_rate: float, num_steps: int
) -> keras.optimizers.Optimizer:
    """Return the optimizer of a run, or of a part of it with a separate schedule.

    Args:
        config: the run's settings.
        backbone_layers: names of the layers that learn at `config.backbone_rate` times the rate.
        learning_rate: the highest rate of the other layers.
        num_steps: steps until a decaying rate reaches 0.
    """
    # A schedule even for a constant rate, which would be a variable that a checkpoint restores.
    decay_steps = num_steps if config.decay == "cosine" else None
    rate = WarmupDecay(learning_rate, config.warmup_steps, decay_steps)
    options: dict[str, Any] = {
        "weight_decay": config.weight_decay or None,
        "global_clipnorm": config.clip_norm,
    }
    if config.optimizer == "adam":
        optimizer = RankingAdam(rate, **options)
    else:
        optimizer = RankingSGD(rate, momentum=0.9, nesterov=True, **options)
    optimizer.backbone_rate = config.backbone_rate
    optimizer.backbone_layers = frozenset(backbone_layers)
    if resolved_precision(config.precision) == "mixed_float16":  # where small gradients become 0
        return RankingLossScale(optimizer)
    return optimizer
