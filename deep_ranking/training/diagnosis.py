"""What is wrong when training goes wrong, told from the quantities that it logs, and what mends it.

The signs: embeddings that collapse into one, a loss that sticks at the gap, triplets of which none
is active, a loss that swings to and fro, weights that are no numbers any more.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from deep_ranking.config import TrainConfig
from deep_ranking.training.run_folder import Row

COLLAPSED_DISTANCE = 0.05
STUCK_SHARE = 0.01
FEW_ACTIVE = 0.001
SWINGS = 4
SWING_SHARE = 0.1
LOWER_RATE = 0.3
# Each mining sees harder triplets than the one before it.
HARDER = {"all": "semi-hard", "distance-weighted": "semi-hard", "semi-hard": "hard"}
EASIER = {"hard": "semi-hard", "semi-hard": "all"}


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, and what may mend it.

    Attributes:
        text: one line with what is seen, why, and what to try.
        fixes: settings of `TrainConfig` that may mend it; empty if none does.
        spoilt: whether the weights are lost, so that training has to go back to those of the
            epoch before.
    """

    text: str
    fixes: dict[str, Any] = field(default_factory=dict)
    spoilt: bool = False


def diagnose(history: list[Row], config: TrainConfig) -> Diagnosis | None:
    """Say what is wrong with a run.

    Args:
        history: rows of the epochs, the latest last, with what training logs in each.
        config: the run's settings.

    Returns:
        The gravest of what is found; None when nothing is wrong.
    """
    row = history[-1]
    trained = [row for row in history if "loss" in row]
    if row["negative_distance"] < COLLAPSED_DISTANCE:
        return _collapse(row, config)
    if config.loss == "ranking":
        if row["active_triplets"] <= (FEW_ACTIVE if config.batches == "classes" else 0):
            return _inactive(row, config)
        last = trained[-2:]
        if len(last) == 2 and all(
            abs(row["loss"] - row.get("weight_penalty", 0) - config.gap) < STUCK_SHARE * config.gap
            for row in last
        ):
            return _stuck(config)
    losses = [row["loss"] for row in trained[-SWINGS - 1 :]]
    if _swings(losses):
        return Diagnosis(
            f"The loss swings to and fro ({', '.join(f'{loss:.3g}' for loss in losses)}): steps "
            "are too long. Try a lower --learning_rate or a larger --batch_size.",
            _lower_rate(config),
        )
    return None


def not_finite(epoch: int, loss: float, config: TrainConfig) -> Diagnosis:
    """Say that an epoch left weights that are NaN or infinite.

    Args:
        epoch: number of the epoch, from 1.
        loss: its loss.
        config: the run's settings.
    """
    return Diagnosis(
        f"weights became NaN or infinite in epoch {epoch} (loss {loss}); start anew with a lower "
        "--learning_rate and --overwrite",
        _lower_rate(config),
        spoilt=True,
    )


def _collapse(row: Row, config: TrainConfig) -> Diagnosis:
    easier = f", --mining {EASIER[config.mining]}" if _can_be_easier(config) else ""
    fixes = _lower_rate(config)
    if easier:
        fixes["mining"] = EASIER[config.mining]
    sticks = (
        f", so the loss sticks at the gap of {config.gap:g}" if config.loss == "ranking" else ""
    )
    return Diagnosis(
        f"Collapse: all embeddings are alike (mean distance {row['negative_distance']:.2g})"
        f"{sticks}. Try a lower --learning_rate{easier}, a smaller --gap, or pre-trained "
        "--weights.",
        fixes,
        spoilt=True,
    )


def _inactive(row: Row, config: TrainConfig) -> Diagnosis:
    seen = "No triplet is" if row["active_triplets"] == 0 else "Hardly any triplet is"
    why = (
        f"{seen} active: every negative is already further away than its positive by the gap of "
        f"{config.gap:g}, so nothing is learned."
    )
    if config.batches == "classes" and config.mining in HARDER:
        mining = HARDER[config.mining]
        return Diagnosis(f"{why} Try --mining {mining} or a larger --gap.", {"mining": mining})
    return Diagnosis(f"{why} Try a larger --gap or sample new triplets.")


def _stuck(config: TrainConfig) -> Diagnosis:
    fixes = {"mining": EASIER[config.mining]} if _can_be_easier(config) else _lower_rate(config)
    easier = f" --mining {EASIER[config.mining]}," if _can_be_easier(config) else ""
    return Diagnosis(
        f"The loss sticks at the gap of {config.gap:g}: positives come no nearer than negatives. "
        f"Try{easier} --optimizer adam with --learning_rate 0.0001, a smaller --gap, or "
        "pre-trained --weights.",
        fixes,
    )


def _can_be_easier(config: TrainConfig) -> bool:
    ranks = config.loss == "ranking" and config.batches == "classes"
    return ranks and config.mining in EASIER


def _swings(losses: list[float]) -> bool:
    """Whether losses went up and down in turn, far, and came no lower."""
    if len(losses) <= SWINGS:
        return False
    steps = [after - before for before, after in pairwise(losses)]
    in_turn = all(before * after < 0 for before, after in pairwise(steps))
    mean = sum(losses) / len(losses)
    far = min(map(abs, steps)) > SWING_SHARE * abs(mean)
    return in_turn and far and min(losses[-2:]) > 0.9 * min(losses[:-2])


def _lower_rate(config: TrainConfig) -> dict[str, Any]:
    fixes = {"learning_rate": config.learning_rate * LOWER_RATE}
    if config.head_learning_rate is not None:
        fixes["head_learning_rate"] = config.head_learning_rate * LOWER_RATE
    return fixes
