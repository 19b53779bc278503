import math

import keras
import numpy as np
import pytest

from deep_ranking.config import TrainConfig
from deep_ranking.training.optimizers import (
    RankingAdam,
    RankingLossScale,
    RankingSGD,
    WarmupDecay,
    make_optimizer,
)


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


# Schedule


def test_without_warmup_and_decay_the_rate_is_constant():
    schedule = WarmupDecay(0.25)
    assert rates(schedule, [0, 1, 7, 100_000]) == [0.25] * 4


def test_warmup_by_hand():
    schedule = WarmupDecay(0.5, warmup_steps=4)
    expected = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert rates(schedule, range(6)) == expected
    assert rates(WarmupDecay(0.5, warmup_steps=1), range(3)) == [0.5] * 3


def test_cosine_by_hand():
    # Half a cosine over 6 steps: the angles are 0, 30, 60, 90, 120, 150 and 180 degrees.
    cosines = [1, math.sqrt(3) / 2, 0.5, 0, -0.5, -math.sqrt(3) / 2, -1]
    expected = [0.1 * (1 + cosine) for cosine in cosines]
    schedule = WarmupDecay(0.2, decay_steps=6)
    assert rates(schedule, range(7)) == pytest.approx(expected, abs=1e-7)
    assert rates(schedule, [7, 8, 1000]) == pytest.approx([0, 0, 0], abs=1e-7)


def test_cosine_begins_after_the_warmup():
    schedule = WarmupDecay(0.2, warmup_steps=2, decay_steps=8)
    expected = [0.1, 0.2, *rates(WarmupDecay(0.2, decay_steps=6), range(7))]
    assert rates(schedule, range(9)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("warmup_steps", [0, 1, 5, 20, 50])
@pytest.mark.parametrize("decay_steps", [None, 1, 5, 20])
def test_rate_stays_in_its_range(warmup_steps, decay_steps):
    values = rates(WarmupDecay(0.3, warmup_steps, decay_steps), range(60))
    assert values[0] > 0
    assert all(0 <= value <= 0.3 * (1 + 1e-6) for value in values)
    falls = np.flatnonzero(np.diff(values) < 0)
    rises = np.flatnonzero(np.diff(values) > 0)
    assert not len(falls) or not len(rises) or rises.max() < falls.min()
    if decay_steps is not None:
        assert values[-1] == pytest.approx(0, abs=1e-7)


def test_schedule_is_made_again_from_its_config():
    schedule = WarmupDecay(0.3, 4, 17)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert isinstance(again, WarmupDecay)
    assert rates(again, range(20)) == rates(schedule, range(20))


# Steps


def two_layers():
    """A layer of the backbone, and one that is not."""
    image = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(3, 3, name="block5_conv1")(image)
    x = keras.layers.Flatten(name="flat")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="embedding")(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, weight.shape) for weight in model.weights])
    return model


def weights(model):
    return {weight.path: np.array(weight.value) for weight in model.weights}


BACKBONE = ["block5_conv1"]


def config(**options):
    return TrainConfig(augmentation=None, **options)


def changes(num_steps=1, learning_rate=0.5, model=None, **options):
    """What so many steps with given gradients do to each weight; weights go back in between."""
    model = model or two_layers()
    optimizer = make_optimizer(
        config(**options),
        BACKBONE,
        learning_rate=learning_rate,
        num_steps=max(num_steps, 2),
    )
    optimizer.build(model.trainable_variables)
    start = model.get_weights()
    rng = np.random.default_rng(1)
    found = []
    for _ in range(num_steps):
        model.set_weights(start)
        before = weights(model)
        gradients = [
            keras.ops.convert_to_tensor(rng.normal(0, 1, weight.shape).astype(np.float32))
            for weight in model.trainable_variables
        ]
        optimizer.apply(gradients)
        found.append({path: after - before[path] for path, after in weights(model).items()})
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rate", [0.25, 2.0])
def test_backbone_has_a_rate_of_its_own(optimizer, rate):
    # Several steps, so that momentum counts too; a power of 2, so that only sums are rounded.
    plain = changes(3, optimizer=optimizer)
    scaled = changes(3, optimizer=optimizer, backbone_rate=rate)
    for one, other in zip(plain, scaled, strict=True):
        assert len(one) == 4
        for path, change in one.items():
            assert np.abs(change).min() > 1e-4
            factor = rate if path.startswith("block5_conv1/") else 1
            np.testing.assert_allclose(other[path], factor * change, rtol=0, atol=2e-6)


def test_steps_of_sgd_by_hand():
    # Nesterov momentum m: m <- 0.9 m - r g, w <- w + 0.9 m - r g.
    rng = np.random.default_rng(1)
    momenta = {}
    for found in changes(3, learning_rate=0.25, optimizer="sgd", backbone_rate=0.5):
        for path, change in found.items():
            step = 0.25 * (0.5 if "block5" in path else 1) * rng.normal(0, 1, change.shape)
            momenta[path] = 0.9 * momenta.get(path, 0) - step
            np.testing.assert_allclose(change, 0.9 * momenta[path] - step, rtol=0, atol=2e-6)


def test_first_step_of_adam_is_the_rate():
    (found,) = changes(1, optimizer="adam", learning_rate=0.5, backbone_rate=0.1)
    for path, change in found.items():
        rate = 0.05 if "block5" in path else 0.5
        np.testing.assert_allclose(np.abs(change), rate, rtol=1e-3)


def test_rate_finds_its_layers_where_some_are_frozen():
    model = two_layers()
    model.get_layer("block5_conv1").trainable = False
    (found,) = changes(1, model=model, optimizer="adam", backbone_rate=0.1)
    for path, change in found.items():
        expected = 0 if "block5" in path else 0.5
        np.testing.assert_allclose(np.abs(change), expected, rtol=1e-3)


def test_rate_finds_its_layers_in_a_model_within_a_model():
    # Its weights are named sequential/block5_conv1/kernel, and so on.
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 3, name="block5_conv1"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(2, name="embedding"),
        ]
    )
    (found,) = changes(1, model=model, optimizer="adam", backbone_rate=0.1)
    assert len(found) == 4
    for path, change in found.items():
        np.testing.assert_allclose(np.abs(change), 0.05 if "block5" in path else 0.5, rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weight_decay_takes_a_share_off(optimizer):
    model = two_layers()
    start = weights(model)
    plain = changes(2, optimizer=optimizer)
    decayed = changes(2, model=model, optimizer=optimizer, weight_decay=0.1)
    for one, other in zip(plain, decayed, strict=True):
        for path, change in one.items():
            # The rate is 0.5, so a step takes off a twentieth.
            np.testing.assert_allclose(other[path], change - 0.05 * start[path], atol=2e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_gradient_and_no_weight_decay_change_nothing(optimizer):
    model = two_layers()
    before = weights(model)
    made = make_optimizer(config(optimizer=optimizer), BACKBONE, learning_rate=0.5, num_steps=3)
    made.apply(
        [keras.ops.zeros(weight.shape) for weight in model.trainable_variables],
        model.trainable_variables,
    )
    for path, after in weights(model).items():
        np.testing.assert_array_equal(after, before[path])


# Settings and training


def test_settings_become_an_optimizer():
    sgd = make_optimizer(config(), BACKBONE, learning_rate=0.5, num_steps=10)
    assert type(sgd) is RankingSGD
    assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.9, True, None)
    assert sgd._learning_rate.get_config() == WarmupDecay(0.5).get_config()
    assert sgd.backbone_rate == 1
    settings = {"warmup_steps": 3, "weight_decay": 0.01, "backbone_rate": 0.1, "decay": "cosine"}
    adam = make_optimizer(
        config(optimizer="adam", **settings), BACKBONE, learning_rate=0.2, num_steps=10
    )
    assert type(adam) is RankingAdam
    assert (adam.weight_decay, adam.backbone_rate) == (0.01, 0.1)
    assert adam._learning_rate.get_config() == WarmupDecay(0.2, 3, 10).get_config()
    assert RankingAdam().backbone_rate == 1  # of this one alone


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fit(optimizer):
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 1, (8, 4, 4, 2)).astype(np.float32)
    targets = rng.normal(0, 1, (8, 2)).astype(np.float32)
    model = two_layers()
    before = weights(model)
    settings = {"backbone_rate": 1e-4, "decay": "cosine", "warmup_steps": 2}
    made = make_optimizer(
        config(optimizer=optimizer, **settings), BACKBONE, learning_rate=0.02, num_steps=16
    )
    model.compile(made, loss="mse")
    history = model.fit(inputs, targets, batch_size=4, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    moved = {path: np.abs(after - before[path]).max() for path, after in weights(model).items()}
    assert min(change for path, change in moved.items() if "embedding" in path) > 1e-3
    assert max(change for path, change in moved.items() if "block5" in path) < 1e-3
    assert min(change for path, change in moved.items() if "block5" in path) > 0
    assert float(made.learning_rate) == pytest.approx(0, abs=1e-6)


# Clipping


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_clipping_shortens_the_gradient_of_all_weights_together(clip_norm):
    # The gradients that `changes` draws, as the one vector that they are.
    rng = np.random.default_rng(1)
    gradients = {
        weight.path: rng.normal(0, 1, weight.shape) for weight in two_layers().trainable_variables
    }
    length = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    factor = min(1.0, clip_norm / length)
    assert length > 1
    (found,) = changes(1, learning_rate=0.25, clip_norm=clip_norm, backbone_rate=0.5)
    for path, change in found.items():
        rate = 0.125 if "block5" in path else 0.25
        # The first Nesterov step is 1.9 times the gradient's.
        np.testing.assert_allclose(change, -1.9 * rate * factor * gradients[path], atol=2e-6)


def test_clipping_is_asked_of_both_optimizers():
    for optimizer in ("sgd", "adam"):
        made = make_optimizer(
            config(optimizer=optimizer, clip_norm=0.3), BACKBONE, learning_rate=1, num_steps=2
        )
        assert made.global_clipnorm == 0.3
        made = make_optimizer(config(optimizer=optimizer), BACKBONE, learning_rate=1, num_steps=2)
        assert made.global_clipnorm is None


def test_half_precision_scales_the_loss_and_clips_what_is_scaled_back():
    made = make_optimizer(
        config(precision="mixed_float16", clip_norm=0.5), BACKBONE, learning_rate=0.25, num_steps=2
    )
    assert type(made) is RankingLossScale
    model = two_layers()
    before = weights(model)
    made.build(model.trainable_variables)
    scale = float(made.scale_loss(1.0))
    assert scale > 1000
    rng = np.random.default_rng(1)
    plain = [rng.normal(0, 1, weight.shape) for weight in model.trainable_variables]
    length = np.sqrt(sum((gradient**2).sum() for gradient in plain))
    made.apply([keras.ops.convert_to_tensor(scale * each, "float32") for each in plain])
    for (path, after), gradient in zip(weights(model).items(), plain, strict=True):
        step = -1.9 * 0.25 * (0.5 / length) * gradient
        np.testing.assert_allclose(after - before[path], step, atol=2e-6)
    # A gradient that is not finite changes nothing but the scale.
    middle = weights(model)
    made.apply([keras.ops.full(weight.shape, np.inf) for weight in model.trainable_variables])
    for path, after in weights(model).items():
        np.testing.assert_array_equal(after, middle[path])
    assert float(made.scale_loss(1.0)) == scale / 2
