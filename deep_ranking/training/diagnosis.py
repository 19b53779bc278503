"""What is wrong when training goes wrong, and which settings may fix it.

The signs are in the quantities that training logs: all embeddings collapse into one, the loss
sticks at the gap, no triplet is active, the loss swings up and down, weights are NaN or infinite.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from deep_ranking.config import TrainConfig
from deep_ranking.training.history import Row

COLLAPSED_DISTANCE = 0.05  # mean distance of query and negative
STUCK_SHARE = 0.01  # of the gap, between it and the loss
FEW_ACTIVE = 0.001  # share of active triplets
SWINGS = 4
SWING_SHARE = 0.1  # of the mean loss, from one epoch to the next
LOWER_RATE = 0.3  # times the learning rate
# From each mining to one with harder triplets, and to one with easier triplets.
HARDER = {"all": "semi-hard", "distance-weighted": "semi-hard", "semi-hard": "hard"}
EASIER = {"hard": "semi-hard", "semi-hard": "all"}


@dataclass(frozen=True)
class TrainingDiagnosis:
    """What is wrong, and what may fix it.

    Attributes:
        text: one line with the sign, its cause, and what to try.
        fixes: settings of `TrainConfig` that may fix it; empty if there is none.
        spoilt: whether the weights are of no use: training must go back to the epoch before.
    """

    text: str
    fixes: dict[str, Any] = field(default_factory=dict)
    spoilt: bool = False


def diagnose_training(history: list[Row], config: TrainConfig) -> TrainingDiagnosis | None:
    """Return the worst problem of a run, given its settings and history; None if it has none."""
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
        return TrainingDiagnosis(
            f"The loss swings up and down ({', '.join(f'{loss:.3g}' for loss in losses)}): steps "
            "are too long. Try a lower --learning_rate or a larger --batch_size.",
            _lower_rate(config),
        )
    return None


def not_finite(epoch: int, loss: float, config: TrainConfig) -> TrainingDiagnosis:
    """Return the diagnosis for an epoch, from 1, after which weights are NaN or infinite."""
    return TrainingDiagnosis(
        f"weights became NaN or infinite in epoch {epoch} (loss {loss}); start anew with a lower "
        "--learning_rate and --overwrite",
        _lower_rate(config),
        spoilt=True,
    )


def _collapse(row: Row, config: TrainConfig) -> TrainingDiagnosis:
    easier = _easier_mining(config)
    flag = f", --mining {easier['mining']}" if easier else ""
    sticks = (
        f", so the loss sticks at the gap of {config.gap:g}" if config.loss == "ranking" else ""
    )
    return TrainingDiagnosis(
        f"Collapse: all embeddings are alike (mean distance {row['negative_distance']:.2g})"
        f"{sticks}. Try a lower --learning_rate{flag}, a smaller --gap, or pre-trained --weights.",
        _lower_rate(config) | easier,
        spoilt=True,
    )


def _inactive(row: Row, config: TrainConfig) -> TrainingDiagnosis:
    seen = "No triplet is" if row["active_triplets"] == 0 else "Hardly any triplet is"
    why = (
        f"{seen} active: every negative is already further away than its positive by the gap of "
        f"{config.gap:g}, so nothing is learned."
    )
    if config.batches == "classes" and config.mining in HARDER:
        mining = HARDER[config.mining]
        return TrainingDiagnosis(
            f"{why} Try --mining {mining} or a larger --gap.", {"mining": mining}
        )
    return TrainingDiagnosis(f"{why} Try a larger --gap or sample new triplets.")


def _stuck(config: TrainConfig) -> TrainingDiagnosis:
    easier = _easier_mining(config)
    flag = f" --mining {easier['mining']}," if easier else ""
    return TrainingDiagnosis(
        f"The loss sticks at the gap of {config.gap:g}: positives come no nearer than negatives. "
        f"Try{flag} --optimizer adam with --learning_rate 0.0001, a smaller --gap, or "
        "pre-trained --weights.",
        easier or _lower_rate(config),
    )


def _easier_mining(config: TrainConfig) -> dict[str, Any]:
    """Return the setting that mines easier triplets; empty if there is none."""
    mines = config.loss == "ranking" and config.batches == "classes" and config.mining in EASIER
    return {"mining": EASIER[config.mining]} if mines else {}


def _swings(losses: list[float]) -> bool:
    """Return whether losses went up and down in turn, by much, without getting lower."""
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
