import pytest

from deep_ranking.config import TrainConfig
from deep_ranking.diagnosis import diagnose


def row(**values):
    usual = {
        "epoch": 1,
        "loss": 0.6,
        "active_triplets": 0.8,
        "positive_distance": 0.4,
        "negative_distance": 0.8,
        "similarity_precision": 0.9,
    }
    return usual | values


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([row()], None),
        ([row(active_triplets=0.0, loss=0.0)], "No triplet is active"),
        ([row(loss=0.999, positive_distance=0.001, negative_distance=0.002)], "Collapse"),
        ([row(loss=0.999), row(loss=1.001)], "sticks at the gap"),
        ([row(loss=0.8), row(loss=1.001)], None),
        ([{"epoch": 0, "val_loss": 1.0}, row(loss=1.0)], None),
    ],
)
def test_says_when_nothing_is_learned(history, said):
    found = diagnose(history, TrainConfig())
    assert (found is None) if said is None else (said in found.text and "Try" in found.text)
