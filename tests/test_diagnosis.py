from dataclasses import replace

import pytest

from deep_ranking.config import TrainConfig
from deep_ranking.training.diagnosis import EASIER, HARDER, diagnose_training, not_finite
from deep_ranking.training.resuming import FIXED_SETTINGS


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
    found = diagnose_training(history, TrainConfig())
    assert (found is None) if said is None else (said in found.text and "Try" in found.text)


def config(**values):
    return TrainConfig(batches="classes", dataset="images", **values)


def losses(*values):
    return [row(epoch=epoch, loss=loss) for epoch, loss in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "swings"),
    [
        ((0.5, 0.9, 0.5, 0.9, 0.5), True),
        ((0.5, 0.9, 0.5, 0.9), False),  # too few to tell
        ((0.9, 0.8, 0.7, 0.6, 0.5), False),
        ((0.50, 0.51, 0.50, 0.51, 0.50), False),  # hardly moves
        ((0.9, 0.95, 0.6, 0.7, 0.4), False),  # swings, but comes down
    ],
)
def test_oscillation(values, swings):
    found = diagnose_training(losses(*values), config(learning_rate=0.01))
    assert (found is not None) == swings
    if found:
        assert "swings" in found.text
        assert found.fixes == {"learning_rate": pytest.approx(0.003)}
        assert not found.spoilt


@pytest.mark.parametrize(
    ("mining", "harder"),
    [("all", "semi-hard"), ("distance-weighted", "semi-hard"), ("semi-hard", "hard")],
)
def test_inactive_triplets_ask_for_harder_ones(mining, harder):
    found = diagnose_training([row(active_triplets=0.0005)], config(mining=mining))
    assert found.fixes == {"mining": harder}
    assert f"--mining {harder}" in found.text
    assert diagnose_training([row(active_triplets=0.01)], config(mining=mining)) is None


def test_there_is_nothing_harder_than_hard():
    found = diagnose_training([row(active_triplets=0.0)], config(mining="hard"))
    assert found.fixes == {} and "larger --gap" in found.text


def test_collapse_goes_back_and_looks_for_easier_triplets():
    found = diagnose_training(
        [row(negative_distance=0.01)],
        config(mining="hard", learning_rate=0.1, head_learning_rate=0.01),
    )
    assert found.spoilt
    assert found.fixes == {
        "learning_rate": pytest.approx(0.03),
        "head_learning_rate": pytest.approx(0.003),
        "mining": "semi-hard",
    }


def test_a_loss_at_the_gap_looks_for_easier_triplets_before_lower_rates():
    at_gap = losses(1.0, 1.0)
    assert diagnose_training(at_gap, config(mining="hard")).fixes == {"mining": "semi-hard"}
    assert diagnose_training(at_gap, TrainConfig()).fixes == {
        "learning_rate": pytest.approx(0.0003)
    }


@pytest.mark.parametrize("loss", ["soft_margin", "supervised_contrastive", "multi_similarity"])
def test_other_losses_have_no_gap_to_stick_at(loss):
    history = [row(loss=1.0, active_triplets=0.0), row(loss=1.0, active_triplets=0.0)]
    assert diagnose_training(history, config(loss=loss)) is None
    assert diagnose_training([row(negative_distance=0.01)], config(loss=loss)).spoilt


def test_all_that_is_fixed_is_accepted_in_a_checkpoint():
    histories = [
        [row(negative_distance=0.01)],
        [row(active_triplets=0.0)],
        losses(1.0, 1.0),
        losses(0.5, 0.9, 0.5, 0.9, 0.5),
    ]
    fixed = {}
    for mining in sorted(EASIER.keys() | HARDER.keys()):
        for head_learning_rate in (None, 0.01):
            settings = config(mining=mining, head_learning_rate=head_learning_rate)
            found = [diagnose_training(history, settings) for history in histories]
            for each in (*found, not_finite(1, 0.5, settings)):
                replace(settings, **each.fixes)  # which checks the values
                fixed |= {name: type(value) for name, value in each.fixes.items()}
    assert fixed == FIXED_SETTINGS
