import itertools
import json
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.metrics import pair_metrics
from deep_ranking.model.calibration import Calibration, fit_calibration
from deep_ranking.model.file import load_model, save_model
from deep_ranking.model.header import CALIBRATION_ATTRIBUTE, store_calibration
from deep_ranking.model.network import build_network

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "hit_probability.py"
KINDS, MADE_UP = map(runpy.run_path(str(BENCHMARK)).get, ("KINDS", "groups"))

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager")


def distances(seed=0, same=4000, different=9000):
    """Same pairs around 0.6, different pairs around 1.1."""
    rng = np.random.default_rng(seed)
    return (
        np.clip(rng.normal(0.6, 0.2, same), 0, 2),
        np.clip(rng.normal(1.1, 0.2, different), 0, 2),
    )


def test_probability_is_bayes_rule_with_both_kinds_as_frequent():
    same, different = distances()
    calibration = fit_calibration(same, different)

    def density(x, mean):
        return np.exp(-(((x - mean) / 0.2) ** 2) / 2)

    for distance in (0.5, 0.7, 0.85, 1.0, 1.2):
        bayes = density(distance, 0.6) / (density(distance, 0.6) + density(distance, 1.1))
        assert calibration.probability(distance) == pytest.approx(bayes, abs=0.05)


def test_knots_are_isotonic_regression_by_pooling():
    # By hand: 10 same pairs at 0.1, 10 different at 0.2, 10 same at 0.3, 20 different at 0.4.
    # Each same pair weighs 1/20, each different one 1/30. At 0.2 "same" weighs 0, at 0.3 all of
    # 1/2: the order is wrong, so both are pooled: (1/2) / (1/2 + 1/3) = 0.6.
    same = np.repeat([0.1, 0.3], 10)
    different = np.repeat([0.2, 0.4], [10, 20])
    calibration = fit_calibration(same, different)
    assert calibration.probability(0.2) == pytest.approx(0.6, abs=1e-6)
    assert calibration.probability(0.3) == pytest.approx(0.6, abs=1e-6)
    assert calibration.probability(0.1) == pytest.approx(1, abs=0.02)
    assert calibration.probability(0.4) == pytest.approx(0, abs=0.02)
    assert 0 < calibration.probability(2) < calibration.probability(0) < 1


def groups(kind, seed):
    """Distances of same and of different pairs, and the probability of "same" at a distance."""
    return MADE_UP(kind, seed, 60 if kind == "few pairs" else 20_000)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_right_wherever_there_are_pairs(kind):
    same, different, bayes = groups(kind, 0)
    calibration = fit_calibration(same, different)
    both = np.concatenate([same, different])
    isotonic = IsotonicRegression(increasing=False).fit(both, np.arange(len(both)) < len(same))
    some = np.sort(both)[:: max(1, len(both) // 5_000)]  # and everywhere
    found = np.array([calibration.probability(each) for each in some])
    assert np.abs(found - isotonic.predict(some)).max() < 0.02
    fresh = np.concatenate(groups(kind, 1)[:2])
    said = np.array([calibration.probability(each) for each in fresh])
    assert np.abs(said - bayes(fresh)).mean() < 0.02
    # Of fresh pairs with about the same probability, that share is the same.
    is_same = np.arange(len(fresh)) < len(fresh) / 2
    for part in np.array_split(np.argsort(fresh), 5):
        assert is_same[part].mean() == pytest.approx(said[part].mean(), abs=0.02)


def test_the_fall_between_two_groups_far_apart_is_where_it_is():
    same, different, _ = groups("separated", 0)
    calibration = fit_calibration(same, different)
    assert calibration.probability(0.87) > 0.98  # it was 0.786
    assert calibration.probability(1.2) < 0.02


def test_shares_and_threshold():
    same, different = distances()
    calibration = fit_calibration(same, different)
    for distance in (0.3, 0.6, 0.9, 1.3):
        nearer = calibration.share_of_same_nearer(distance)
        assert nearer == pytest.approx((same < distance).mean(), abs=0.01)
        nearer = calibration.share_of_different_nearer(distance)
        assert nearer == pytest.approx((different < distance).mean(), abs=0.01)
    assert calibration.share_of_same_nearer(-1) == 0
    assert calibration.share_of_same_nearer(3) == 1
    assert calibration.threshold == pair_metrics(same, different).threshold
    assert calibration.num_pairs == 13_000


@given(st.integers(0, 1000), st.lists(st.floats(0, 2), min_size=2, max_size=20))
def test_a_larger_distance_is_never_likelier_the_same(seed, tried):
    calibration = fit_calibration(*distances(seed, 30, 20))
    probabilities = [calibration.probability(distance) for distance in sorted(tried)]
    assert all(a >= b for a, b in itertools.pairwise(probabilities))


def test_json_comes_back_equal():
    calibration = fit_calibration(*distances())
    assert Calibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize(
    "change",
    [
        {"probabilities": [0.1, 0.9]},
        {"probabilities": [2.0, 0.5]},
        {"distances": [1.0, 0.5]},
        {"distances": [1.0]},
        {"distances": []},
        {"distances": "ab"},
        {"same_quantiles": [0.0, float("nan")]},
        {"threshold": None},
        {"threshold": float("inf")},
        {"other": 1},
    ],
)
def test_numbers_of_a_stranger_are_checked(change):
    good = {
        "distances": [0.5, 1.0],
        "probabilities": [0.9, 0.1],
        "same_quantiles": [0.1, 0.6],
        "different_quantiles": [0.4, 1.6],
        "threshold": 0.7,
        "num_pairs": 20,
    }
    assert Calibration.from_json(json.dumps(good)).probability(0.75) == pytest.approx(0.5)
    with pytest.raises(InputError, match="calibration"):
        Calibration.from_json(json.dumps(good | change))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000])
def test_no_json_of_ours_is_refused(text):
    with pytest.raises(InputError, match="calibration"):
        Calibration.from_json(text)


def test_too_few_pairs_and_nan_are_refused():
    same, different = distances()
    with pytest.raises(InputError, match="10 same pairs"):
        fit_calibration(same[:9], different)
    with pytest.raises(InputError, match="10 different pairs"):
        fit_calibration(same, different[:9])
    with pytest.raises(InputError, match="not finite"):
        fit_calibration(np.append(same, np.nan), different)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("calibrated") / "model.h5"
    config = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=8)
    save_model(build_network(config, seed=0), path)
    return path


@pytest.mark.slow
def test_is_kept_in_the_model_file(model_path):
    assert load_model(model_path).calibration is None
    for seed in (0, 1):
        calibration = fit_calibration(*distances(seed))
        store_calibration(model_path, calibration)
        model = load_model(model_path)
        assert model.calibration == calibration
    save_model(model, model_path)
    assert load_model(model_path).calibration == calibration
    with h5py.File(model_path, "r+") as file:
        file.attrs[CALIBRATION_ATTRIBUTE] = "{}"
    with pytest.raises(InputError, match=r"model\.h5: the calibration"):
        load_model(model_path)
    with h5py.File(model_path, "r+") as file:
        del file.attrs[CALIBRATION_ATTRIBUTE]


@pytest.mark.slow
def test_the_command_calibrates_and_compare_says_it(model_path, image_tree_of_colors, capsys):
    images = [str(path) for path in sorted(image_tree_of_colors.rglob("*.png"))[:2]]
    compare = ["-m", str(model_path), "-i1", images[0], "-i2", images[1]]
    assert run_command("compare", compare) == 0
    distance, meaning = capsys.readouterr().out.splitlines()
    assert "rule of thumb" in meaning
    arguments = ["--model", str(model_path), "--dataset", str(image_tree_of_colors)]
    assert run_command("calibrate", arguments) == 0
    assert f"stored in {model_path}" in capsys.readouterr().out.splitlines()[-1]
    calibration = load_model(model_path).calibration
    assert run_command("compare", compare) == 0
    again, meaning = capsys.readouterr().out.splitlines()
    assert again == distance
    assert f"{calibration.probability(float(distance)):.3f}" in meaning
    assert run_command("compare", [*compare, "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)
    expected = calibration.probability(settings["distance"])
    assert settings["probability_of_same"] == pytest.approx(expected)


def test_a_dataset_without_pairs_is_refused(model_path, tmp_path, capsys):
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    arguments = ["--model", str(model_path), "--dataset", str(tmp_path)]
    assert run_command("calibrate", arguments) == 1
    assert str(tmp_path) in capsys.readouterr().err
