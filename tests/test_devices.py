import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import deep_ranking
from deep_ranking.files import InputError
from deep_ranking.training.batches.shares import REPEATED
from deep_ranking.training.devices import Devices, _shares


def shares_of(num_rows, count, rows_together):
    rows = np.arange(num_rows)
    batch = (tf.constant(rows[:, None] * [1.0, 10.0]), tf.constant(rows % 3, tf.int32))
    shares = list(_shares(batch, count, rows_together))
    assert all(inputs.shape[0] == labels.shape[0] for inputs, labels in shares)
    return [(inputs[:, 0].numpy().astype(int), labels.numpy()) for inputs, labels in shares]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("triplets", [1, 2, 4, 7])
def test_no_triplet_is_split_and_none_is_lost_or_counted_twice(triplets, count):
    shares = shares_of(3 * triplets, count, 3)
    assert len(shares) == count
    assert len({len(rows) for rows, _ in shares}) == 1
    for rows, _ in shares:
        assert len(rows) % 3 == 0
        starts = rows.reshape(-1, 3)[:, :1]
        assert (starts % 3 == 0).all()
        np.testing.assert_array_equal(rows.reshape(-1, 3), starts + np.arange(3))
    rows, labels = (np.concatenate(each) for each in zip(*shares, strict=True))
    assert rows[labels != REPEATED].tolist() == list(range(3 * triplets))
    np.testing.assert_array_equal(labels[: 3 * triplets], np.arange(3 * triplets) % 3)
    assert len(rows) == count * 3 * -(-triplets // count)


def test_shares_of_classes_by_hand():
    rows, labels = zip(*shares_of(7, 3, 1), strict=True)
    assert [each.tolist() for each in rows] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert [each.tolist() for each in labels] == [[0, 1, 2], [0, 1, 2], [0, REPEATED, REPEATED]]


def test_inputs_of_several_tensors_are_split_alike():
    batch = ((tf.range(6), 10 * tf.range(6)), tf.zeros(6, tf.int32))
    for (first, second), _ in _shares(batch, 2, 3):
        np.testing.assert_array_equal(second, 10 * first)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("5", r"different numbers of the \d+ there are.*Received: 5"),
        ("0,0", r"different numbers of the \d+ there are.*Received: 0,0"),
        ("x", "all, or numbers such as 0,1. Received: x"),
        ("0,", "all, or numbers such as 0,1. Received: 0,"),
        ("-1", "different numbers"),
    ],
)
def test_devices_that_there_are_not_are_refused(names, said):
    with pytest.raises(InputError, match=said) as raised:
        Devices(names)
    assert "\n" not in str(raised.value)


def test_one_device_changes_nothing():
    for names in (None, "0"):
        devices = Devices(names)
        batches, rows = object(), (object(), object())
        assert devices.count == 1
        assert devices.share(batches, 3) is batches
        assert devices.run(devices.rows_of_all, rows) == rows


def results_of(tmp_path_factory, devices, *names):
    folder = tmp_path_factory.mktemp("shared")
    program = Path(__file__).with_name("shared_training.py")
    package = Path(deep_ranking.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(program), str(folder), devices, *names],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(package)},
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


def assert_the_same(results, name, devices, *, atol=1e-5):
    one, several = results[f"{name} None"], results[f"{name} {devices}"]
    assert one["devices"] == 1 and several["devices"] == results["count"]
    assert several["iterations"] == one["iterations"] > 0
    moved = 0.0
    for got, wanted, start in zip(
        several["weights"], one["weights"], results[f"{name} start"], strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=atol)
        moved = max(moved, np.abs(np.subtract(wanted, start)).max())
    assert moved > 100 * atol  # there is something to miss
    assert len(several["history"]) == len(one["history"]) >= 2
    for row, wanted in zip(several["history"], one["history"], strict=True):
        assert row.keys() == wanted.keys()
        for column in row:
            assert float(row[column] or 0) == pytest.approx(
                float(wanted[column] or 0), abs=10 * atol
            ), column


@pytest.fixture(scope="module")
def on_three(tmp_path_factory):
    return results_of(tmp_path_factory, "all", "mined")


@pytest.mark.slow
def test_three_devices_train_as_one_does(on_three):
    assert_the_same(on_three, "mined", "all")


@pytest.mark.slow
def test_a_step_is_left_out_on_all_devices_or_on_none(on_three):
    assert on_three["finite"] == [[True] * 3, [False] * 3]


@pytest.mark.slow
def test_a_process_keeps_its_devices(on_three):
    refused = on_three["refused"]
    assert "different numbers of the 3 there are (CPU)" in refused["3"]
    assert "different numbers of the 3 there are (CPU)" in refused["0,0"]
    assert "all, or numbers" in refused["x"]
    assert "has trained on other devices" in refused["0,2,1"]


@pytest.mark.slow
def test_three_devices_go_on_as_one_does(tmp_path_factory):
    results = results_of(tmp_path_factory, "all", "triplets", "short", "similar")
    assert_the_same(results, "triplets", "all")
    assert_the_same(results, "short", "all")
    assert_the_same(results, "similar", "all")


@pytest.mark.slow
def test_two_devices_train_as_one_does(tmp_path_factory):
    results = results_of(tmp_path_factory, "0,1", "triplets", "similar", "halves", "network")
    assert_the_same(results, "triplets", "0,1")
    assert_the_same(results, "similar", "0,1")
    assert_the_same(results, "halves", "0,1", atol=1e-4)
    # Batch normalisation goes by the images of each device: another result, but a result.
    found = results["network 0,1"]
    assert found["devices"] == 2
    assert all(np.isfinite(float(row["loss"])) for row in found["history"])
    assert all(np.isfinite(each).all() for each in found["weights"])
    moved = [
        np.abs(np.subtract(after, before)).max()
        for after, before in zip(found["weights"], results["network start"], strict=True)
    ]
    assert min(moved) > 0
