"""Several hosts train one network. Processes on the loopback stand for the hosts."""

import csv
import json
import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from host_training import CLASSES, RUNS, config_for, write_data

import deep_ranking
from deep_ranking.config import SamplingConfig, TrainConfig
from deep_ranking.config.hosts import Cluster, find_cluster
from deep_ranking.files import InputError
from deep_ranking.training.batches.shares import REPEATED, WHOLE, Share
from deep_ranking.training.data import image_source
from deep_ranking.training.hosts import _lost_host
from deep_ranking.training.meeting import meet

TESTS = Path(__file__).parent
TWO = "a:1,b:2"
# What a person can turn up: see docs/guides/many_machines.md.
NUM_HOSTS = int(os.environ.get("DEEP_RANKING_TEST_HOSTS", "2"))
NUM_KILLS = int(os.environ.get("DEEP_RANKING_TEST_KILLS", "1"))
SECONDS_TO_END = 60  # a busy machine; docs promise 30


# Which hosts.


def in_variable(monkeypatch, **settings):
    monkeypatch.setenv("TF_CONFIG", json.dumps(settings))


def test_hosts_come_from_flags_or_from_tensorflows_variable(monkeypatch):
    assert find_cluster(None, None) is None
    assert find_cluster("a:1,[::1]:2", 1) == Cluster(("a:1", "[::1]:2"), 1)
    workers = {"worker": ["a:1", "b:2"]}
    in_variable(monkeypatch, cluster=workers, task={"type": "worker", "index": 1})
    assert find_cluster(None, None) == Cluster(("a:1", "b:2"), 1)
    with pytest.raises(InputError, match="not both: unset TF_CONFIG"):
        find_cluster(TWO, 0)
    chief = {"chief": ["c:3"], **workers}
    in_variable(monkeypatch, cluster=chief, task={"type": "worker", "index": 1})
    assert find_cluster(None, None) == Cluster(("c:3", "a:1", "b:2"), 2)
    in_variable(monkeypatch, cluster={"worker": ["a:1"]}, task={"type": "worker", "index": 0})
    assert find_cluster(None, None) is None


@pytest.mark.parametrize(
    ("hosts", "index", "said"),
    [
        ("a:1", 1, "0 to 0, as there are 1 hosts. Received: 1"),
        (TWO, 2, "0 to 1, as there are 2 hosts. Received: 2"),
        (TWO, -1, "Received: -1"),
        ("a:1,a:1", 0, "Received twice: a:1"),
        ("a:1,b", 0, "Received: b"),
        ("a:1,", 0, "Received: nothing between two commas"),
        ("a:1,b:0", 0, "ports from 1 to 65535. Received: b:0"),
        ("a:1,b c:2", 0, "Received: b c:2"),
        (TWO, None, "give --host_index"),
        (None, 0, "give --hosts"),
    ],
)
def test_hosts_that_cannot_be_are_refused(hosts, index, said):
    with pytest.raises(InputError, match=said) as raised:
        TrainConfig(hosts=hosts, host_index=index)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"cluster": {"worker": ["a:1", "b:2"]}}', '{"cluster": {"worker": 3}}']
    + [
        json.dumps({"cluster": {"worker": ["a:1", "b:2"], **more}, "task": task})
        for more, task in (
            ({"ps": ["c:1"]}, {"type": "worker", "index": 0}),
            ({}, {"type": "evaluator", "index": 0}),
            ({}, {"type": "worker", "index": 2}),
        )
    ],
)
def test_a_variable_that_is_wrong_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=r"TF_CONFIG|host_index must be 0 to 1") as raised:
        find_cluster(None, None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"devices": "all"},
        {"xla": True},
        {"save_augmented": "pictures"},
        CLASSES | {"dataset": "x", "cache_features": True, "train_from": "head"},
        {"dataset": "x", "sampling": SamplingConfig(strategy="hard")},
    ],
)
def test_settings_that_do_not_go_with_hosts_are_refused(monkeypatch, settings):
    TrainConfig(**settings)
    with pytest.raises(InputError, match="does not go with several hosts"):
        TrainConfig(**settings, hosts=TWO, host_index=0)
    workers = {"worker": ["a:1", "b:2"]}
    in_variable(monkeypatch, cluster=workers, task={"type": "worker", "index": 0})
    with pytest.raises(InputError, match="does not go with several hosts"):
        TrainConfig(**settings).cluster  # noqa: B018 (it checks)


def test_settings_are_stored_without_the_hosts():
    config = TrainConfig(hosts=TWO, host_index=1)
    assert config.to_json() == TrainConfig().to_json()


# What a host says of another.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Graph execution error:\n\nCollective ops is aborted by: Error reported from "
            "/job:worker/task:1: x.png: not an image\nThe error could be from a previous",
            "host 1 (b:2): x.png: not an image; start all hosts again",
        ),
        (
            "Collective ops is aborted by: Socket closed\nfrom remote target "
            "/job:worker/replica:0/task:1 while calling",
            "host 1 (b:2) ended or cannot be reached; start",
        ),
        ("Collective ops is aborted by: ?", "another host ended or cannot be reached"),
    ],
)
def test_an_error_of_tensorflow_becomes_a_line(text, said):
    line = _lost_host(text, Cluster(("a:1", "b:2"), 0))
    assert line.startswith(said) and "\n" not in line
    assert _lost_host("out of memory", Cluster(("a:1", "b:2"), 0)) is None


# Which rows a host reads.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    write_data(root)
    return root


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("count", [2, 3])
def test_hosts_together_read_the_batches_of_one(folder, tmp_path, name, count):
    config = config_for(folder, name, output=tmp_path / "m.h5", steps_per_epoch=None)
    parts = []
    for share in (WHOLE, *(Share(first, 1, count) for first in range(count))):
        source = image_source(config)
        source.share = share
        parts.append([(images.numpy(), labels.numpy()) for images, labels in source.dataset(1)])
    whole, *parts = parts
    for batch, (images, labels) in enumerate(whole):
        shares = [part[batch] for part in parts]
        assert len({len(rows) for _, rows in shares}) == 1  # which devices need
        kept = [rows != REPEATED for _, rows in shares]
        if name == "triplets":
            assert all(
                len(rows) % 3 == 0 and sum(real) % 3 == 0
                for rows, real in zip((rows for _, rows in shares), kept, strict=True)
            )
        for number, wanted in enumerate((images, labels)):
            found = [each[number][real] for each, real in zip(shares, kept, strict=True)]
            np.testing.assert_array_equal(np.concatenate(found), wanted)


def test_a_batch_whose_triplets_are_all_broken_has_one_triplet(folder, tmp_path):
    config = config_for(
        folder,
        "triplets",
        output=tmp_path / "m.h5",
        skip_broken=True,
        shuffle=False,
        batch_size=6,
        steps_per_epoch=None,
    )
    source = image_source(replace(config, dataset=None))
    wanted = next(iter(source.dataset(0)))[0][:3]
    first_two = [each for row in source.triplets.triplets.rows[:2] for each in row.tolist()]
    parts = []
    for share in (WHOLE, Share(0, 1, 2), Share(1, 1, 2)):
        source.share, source.broken_images = share, set(first_two)
        parts.append([rows.numpy() for rows in next(iter(source.dataset(0)))])
    (images, labels), first, second = parts
    assert labels.tolist() == first[1].tolist() == [0, 1, 2]
    assert (second[1] == REPEATED).all() and len(second[1]) == 3
    np.testing.assert_array_equal(first[0], images)
    assert not np.array_equal(images, wanted)


# How they meet.


def meet_all(clusters, *values):
    """Return what each host is told: "" if all have met."""

    def told(cluster, own):
        try:
            meet(cluster, own, seconds=2)
        except InputError as error:
            assert "\n" not in str(error)
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        return list(pool.map(told, clusters, values))


def clusters_of(count, *indices):
    hosts = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
    return [Cluster(hosts, index) for index in indices or range(count)]


def test_hosts_meet_and_differences_are_named_on_all():
    same = {"tensorflow": "2.21"}
    assert meet_all(clusters_of(3), same, same, same) == ["", "", ""]
    first, second = clusters_of(2)
    for line in meet_all([first, second], same, {"tensorflow": "2.20"}):
        assert f"{second.name(1)} has tensorflow 2.20, and {first.name(0)} has 2.21" in line
    assert all(
        "two hosts have --host_index 1" in each
        for each in meet_all(clusters_of(3, 0, 1, 1), same, same, same)
    )
    one, other = Cluster(first.addresses, 0), Cluster((first.addresses[0], "127.0.0.1:9"), 1)
    assert all("has hosts 127.0.0.1" in each for each in meet_all([one, other], same, same))


@pytest.mark.slow
def test_a_host_that_does_not_come_is_named():
    (chief,) = meet_all(clusters_of(2, 0), {})
    assert "did not come within 2 seconds" in chief
    (other,) = meet_all(clusters_of(2, 1), {})
    assert "cannot be reached within 2 seconds" in other
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        (taken,) = meet_all([Cluster((f"127.0.0.1:{port}", "b:1"), 0)], {})
    assert "the port cannot be used" in taken


# Hosts.


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(folder, hosts, index, *names, **changes):
    package = Path(deep_ranking.__file__).parents[1]
    return subprocess.Popen(
        [
            *(sys.executable, str(TESTS / "host_training.py"), str(folder), hosts, str(index)),
            *(json.dumps(changes), *names),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{package}:{TESTS}", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def start_all(folder, *names, of=NUM_HOSTS, **changes):
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(of))
    return [start(folder, hosts, index, *names, **changes) for index in range(of)]


def end(process, timeout=600):
    """Return the exit code, what was printed, and our own line of standard error."""
    out, errors = process.communicate(timeout=timeout)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert process.returncode in (0, 1) and len(lines) == process.returncode, errors[-3000:]
    return process.returncode, out, "".join(lines)


def history_of(folder, kind, name):
    with (folder / kind / f"{name}.run" / "history.csv").open(newline="") as handle:
        return [{key: float(each) for key, each in row.items()} for row in csv.DictReader(handle)]


def weights_of(path):
    found = {}
    with h5py.File(path) as file:
        file["model_weights"].visititems(
            lambda name, each: (
                found.update({name: each[()]}) if isinstance(each, h5py.Dataset) else None
            )
        )
    assert found
    return found


@pytest.fixture(scope="module")
def trained(folder):
    """Every run, by one process and by several."""
    processes = [start(folder, "-", 0, *RUNS), *start_all(folder, *RUNS)]
    ends = [end(each) for each in processes]
    assert [code for code, _, _ in ends] == [0] * (NUM_HOSTS + 1), ends
    return folder, ends


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_hosts_train_as_one_does(trained, name):
    folder, _ = trained
    one, many = (history_of(folder, kind, name) for kind in ("one", "many"))
    assert len(one) == len(many) == 20
    for row, wanted in zip(many, one, strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)
    assert len({row["loss"] for row in one}) > 10
    one, many = (weights_of(folder / kind / f"{name}.h5") for kind in ("one", "many"))
    assert one.keys() == many.keys()
    for key, wanted in one.items():
        np.testing.assert_allclose(many[key], wanted, atol=1e-5)


@pytest.mark.slow
def test_all_hosts_count_what_they_left_out_and_the_chief_alone_speaks(trained):
    alone, chief, *others = (out for _, out, _ in trained[1])
    assert "2 images left out" in alone and "2 images left out" in chief
    assert all(len(out.splitlines()) == 1 and out.startswith("This is host ") for out in others)


@pytest.mark.slow
def test_killed_hosts_end_the_others_and_go_on_to_the_same_bytes(trained, tmp_path):
    folder, _ = trained
    rng = random.Random(NUM_KILLS)
    killed = folder / "killed.h5"
    history = killed.with_suffix(".run") / "history.csv"
    for number in range(NUM_KILLS):
        processes = start_all(folder, "mined", output=str(killed))
        lines = (number + 1) * 18 // (NUM_KILLS + 1)
        while not (history.exists() and len(history.read_text().splitlines()) > lines):
            assert all(each.poll() is None for each in processes), [end(each) for each in processes]
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        victim = rng.randrange(NUM_HOSTS)
        processes[victim].kill()
        begin = time.monotonic()
        for index, each in enumerate(processes):
            if index == victim:
                each.communicate()
                continue
            code, _, line = end(each, timeout=SECONDS_TO_END)
            assert code == 1 and "ended or cannot be reached; start all hosts again" in line
        print(f"killed host {victim}; the others ended {time.monotonic() - begin:.1f} s later")
    processes = start_all(folder, "mined", output=str(killed))
    assert [end(each)[0] for each in processes] == [0] * NUM_HOSTS
    whole, found = weights_of(folder / "many" / "mined.h5"), weights_of(killed)
    for key, wanted in whole.items():
        np.testing.assert_array_equal(found[key], wanted)


@pytest.mark.slow
def test_a_host_whose_clock_is_wrong_trains_as_the_others(trained, tmp_path):
    output = tmp_path / "m.h5"
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(NUM_HOSTS))
    processes = [
        start(trained[0], hosts, index, "mined", output=str(output), clock_seconds=-86_400 * index)
        for index in range(NUM_HOSTS)
    ]
    assert [end(each)[0] for each in processes] == [0] * NUM_HOSTS
    whole, found = weights_of(trained[0] / "many" / "mined.h5"), weights_of(output)
    for key, wanted in whole.items():
        np.testing.assert_array_equal(found[key], wanted)


@pytest.mark.slow
def test_hosts_that_do_not_fit_are_refused_by_all(folder, tmp_path):
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    pair = [
        start(folder, hosts, index, "mined", output=str(tmp_path / "m.h5"), gap=0.5 + index)
        for index in range(2)
    ]
    # Nobody listens at the other address.
    alone = start(folder, f"127.0.0.1:{free_ports(1)[0]},127.0.0.1:9", 0, "mined", join_seconds=5)
    for each in pair:
        code, _, line = end(each)
        assert code == 1
        assert "host 1 (127.0.0.1:" in line and "another gap than host 0" in line
        assert "1.5 instead of 0.5" in line
    assert not (tmp_path / "m.run").exists()
    code, _, line = end(alone)
    assert code == 1 and "host 1 (127.0.0.1:9) did not come within 5 seconds" in line


@pytest.mark.slow
def test_hosts_with_other_images_are_refused_by_all(tmp_path):
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    for index in range(2):
        write_data(tmp_path / str(index))
    (tmp_path / "1" / "images" / "class1" / "0.png").unlink()
    output = str(tmp_path / "m.h5")
    for each in [
        start(tmp_path / str(index), hosts, index, "mined", output=output) for index in range(2)
    ]:
        code, _, line = end(each)
        assert code == 1
        assert "host 1 (127.0.0.1:" in line and "than host 0 (127.0.0.1:" in line
        assert ", in data: " in line
    assert not (tmp_path / "m.run").exists()
