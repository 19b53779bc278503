"""What is wrong when training learns nothing, told from the quantities that it logs."""

from deep_ranking.run_folder import Row

COLLAPSED_DISTANCE = 0.05
STUCK_SHARE = 0.01


def diagnose(history: list[Row], gap: float) -> str | None:
    """Say what is wrong when training learns nothing.

    Args:
        history: rows of the epochs, the latest last.
        gap: the loss's gap.

    Returns:
        One line with what is seen, why, and what to try; None when nothing is wrong.
    """
    row = history[-1]
    if row["active_triplets"] == 0:
        return (
            "No triplet is active: every negative is already further away than its positive by "
            f"the gap of {gap:g}, so nothing is learned. Try a larger --gap or sample new triplets."
        )
    if row["negative_distance"] < COLLAPSED_DISTANCE:
        return (
            f"Collapse: all embeddings are alike (mean distance {row['negative_distance']:.2g}), "
            f"so the loss sticks at the gap of {gap:g}. Try a lower --learning_rate, a smaller "
            "--gap, or pre-trained --weights."
        )
    trained = [row for row in history if "loss" in row]
    if len(trained) > 1 and all(abs(row["loss"] - gap) < STUCK_SHARE * gap for row in trained[-2:]):
        return (
            f"The loss sticks at the gap of {gap:g}: positives come no nearer than negatives. "
            "Try --optimizer adam with --learning_rate 0.0001, a smaller --gap, or pre-trained "
            "--weights."
        )
    return None
