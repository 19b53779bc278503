"""Images per second of our training step, against the same network in a bare Keras `fit`.

Ours is what `train.py` runs: `TripletSource` reads images from files and augments them as the blog
does; optimizer, loss and metrics are ours. The reference reads no files: random arrays in memory go
into the same network (the blog's, from random weights), compiled with Keras' own SGD and the
ranking loss in three lines of `keras.ops`, without metrics. Both use batches of 24 rows.

In each round the two take turns, and the order changes from round to round. The ratio is the median
of the ratios of all rounds, because the load of the machine changes from minute to minute. The
first steps, in which TensorFlow builds the graph, do not count. With `mixed_bfloat16` among
`--precisions`, the reference sets it as Keras' global policy.

With `--hosts`: our loop against `fit` at the same work (network, loss, arrays in memory), and two
processes of this machine as hosts against one, at the same batch: ratios of steps a second.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from deep_ranking import Augmentation, InputError, read_folder, sample_triplets, write_triplets
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.config import NetworkConfig, TrainConfig

TARGET = 0.95
LOOP_TARGET = 0.97
BATCH_SIZE = 24


def seconds_of(train, batches):
    """Return the seconds that training on a dataset takes."""
    start = time.perf_counter()
    train(batches)
    return time.perf_counter() - start


def fit_of(model):
    """Return a function that trains a compiled model on a dataset by Keras' `fit`."""
    return lambda batches: model.fit(batches, epochs=1, shuffle=False, verbose=0)


def our_step(size, precision, dataset, folder):
    """Return our training of a network, as `train.py` does it, and its batches.

    Args:
        size: side of the images in pixels.
        precision: as `train.py --precision`.
        dataset: folder of classes.
        folder: where to write a triplet file.

    Returns:
        A function that trains on a dataset, and one from a number of steps to a dataset of so many
        batches.
    """
    from deep_ranking.losses import make_loss, make_metrics
    from deep_ranking.model.mixed_precision import resolved_precision, set_precision
    from deep_ranking.model.network import build_network
    from deep_ranking.sampling.triplet_file import read_triplets
    from deep_ranking.training.batches import FileTriplets, TripletSource
    from deep_ranking.training.devices import Devices
    from deep_ranking.training.loop import TrainingLoop
    from deep_ranking.training.optimizers import make_optimizer

    data = read_folder(dataset)
    blocks = sample_triplets(data.items.codes, num_positives=1, num_negatives=1, seed=0)
    triplets = folder / "triplets.txt"
    write_triplets(triplets, data.files(), blocks)
    config = TrainConfig(
        triplets=triplets,
        network=NetworkConfig(image_size=size, weights=None),
        augmentation=Augmentation(),
        precision=precision,
    )
    model = build_network(config.network, seed=0)
    set_precision(model, resolved_precision(precision))
    loop = TrainingLoop(
        model,
        make_loss(config, "triplets", config.network.embedding_size),
        make_optimizer(
            config, model.backbone_layers, learning_rate=config.learning_rate, num_steps=1
        ),
        make_metrics(config, "triplets"),
        Devices(None),
    )

    def batches(steps):
        return TripletSource(
            FileTriplets(read_triplets(triplets)),
            image_size=size,
            batch_size=BATCH_SIZE,
            augmentation=config.augmentation,
            steps_per_epoch=steps,
        ).dataset(0)

    return loop.train_epoch, batches


def bare_step(size, precision):
    """Return the same as `our_step`, as a user of bare Keras would write it."""
    import keras
    import tensorflow as tf
    from keras import ops

    from deep_ranking.model.mixed_precision import resolved_precision
    from deep_ranking.model.network import build_network

    def loss(_, embeddings):
        query, positive, negative = (embeddings[role::3] for role in range(3))
        near, far = ops.norm(query - positive, axis=1), ops.norm(query - negative, axis=1)
        return ops.mean(ops.relu(1.0 + near - far))

    keras.config.set_dtype_policy(resolved_precision(precision))
    try:
        model = build_network(NetworkConfig(image_size=size, weights=None), seed=0)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9, nesterov=True), loss)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (BATCH_SIZE, size, size, 3)).astype(np.float32)
    rows = tf.data.Dataset.from_tensors((images, np.zeros(BATCH_SIZE, np.float32)))
    return fit_of(model), rows.repeat


def same_work(size, hosts=None):
    """Return our training of the blog's network on arrays in memory, its batches, and its model.

    Args:
        size: side of the images in pixels.
        hosts: the `Hosts` to train on; None for this process alone.
    """
    import keras
    import tensorflow as tf

    from deep_ranking.losses import RankingLoss
    from deep_ranking.model.network import build_network
    from deep_ranking.training.devices import Devices
    from deep_ranking.training.loop import TrainingLoop

    devices = Devices(None, hosts)
    with devices.scope():
        model = build_network(NetworkConfig(image_size=size, weights=None), seed=0)
        optimizer = keras.optimizers.SGD(0.001, momentum=0.9, nesterov=True)
        loss = RankingLoss()
    loop = TrainingLoop(model, loss, optimizer, [], devices)
    rows = BATCH_SIZE // devices.count // 3 * 3
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (rows, size, size, 3)).astype(np.float32)
    batch = tf.data.Dataset.from_tensors((images, np.arange(rows, dtype=np.int32) % 3))
    return lambda batches: loop.train_epoch(batches, 3), batch.repeat, model


def measure_loop(size, args):
    """Print our loop's speed against that of `fit` at the same work, and return the ratio."""
    import keras

    from deep_ranking.losses import RankingLoss

    train, batches, _ = same_work(size)
    _, _, model = same_work(size)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9, nesterov=True), RankingLoss())
    ways = {"loop": train, "fit": fit_of(model)}
    speeds = {name: [] for name in ways}
    for way in ways.values():
        seconds_of(way, batches(1))
    for number in range(args.rounds):
        for name in sorted(ways, reverse=number % 2 == 1):
            speeds[name].append(args.steps / seconds_of(ways[name], batches(args.steps)))
    ratio = statistics.median(np.divide(speeds["loop"], speeds["fit"]).tolist())
    ours, fit = (statistics.median(each) for each in speeds.values())
    verdict = "met" if ratio >= LOOP_TARGET else "MISSED"
    print(
        f"{size} px: our loop {ours:.2f} steps a second, fit {fit:.2f}: {ratio:.3f} of it "
        f"(target {LOOP_TARGET}: {verdict})"
    )
    return ratio


def train_as_host(size, args):
    """Train in this process as host `args.index` of `args.join`, and print the steps a second."""
    from deep_ranking.config.hosts import find_cluster
    from deep_ranking.training.hosts import Hosts

    train, batches, _ = same_work(size, Hosts(find_cluster(args.join, args.index)))
    seconds_of(train, batches(1))
    rounds = [seconds_of(train, batches(args.steps)) for _ in range(args.rounds)]
    print(json.dumps(args.steps / statistics.median(rounds)))


def measure_hosts(size, args):
    """Print the speed of two processes as hosts, against that of one with the same batch."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    hosts = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    common = [sys.executable, __file__, "--hosts", "--sizes", str(size), "--join", hosts]
    common += ["--steps", str(args.steps), "--rounds", str(args.rounds)]
    children = [
        subprocess.Popen([*common, "--index", str(index)], stdout=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    speeds = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
    train, batches, _ = same_work(size)
    seconds_of(train, batches(1))
    rounds = [seconds_of(train, batches(args.steps)) for _ in range(args.rounds)]
    alone = args.steps / statistics.median(rounds)
    print(
        f"{size} px: two hosts on this machine {min(speeds):.2f} steps a second, one alone "
        f"{alone:.2f}: {min(speeds) / alone:.3f} of it"
    )


def measure(size, precision, args, folder):
    """Print the speeds for one size, and return the ratio."""
    steps = {"ours": our_step(size, precision, args.dataset, folder)}
    steps["bare Keras"] = bare_step(size, precision)
    for train, batches in steps.values():
        seconds_of(train, batches(1))
    num_steps = max(1, round(args.steps * (64 / size) ** 2))
    speeds = {name: [] for name in steps}
    for number in range(args.rounds):
        for name in sorted(steps, reverse=number % 2 == 1):
            train, batches = steps[name]
            seconds = seconds_of(train, batches(num_steps))
            speeds[name].append(num_steps * BATCH_SIZE / seconds)
    ratio = statistics.median(np.divide(speeds["ours"], speeds["bare Keras"]).tolist())
    ours, bare = (statistics.median(each) for each in speeds.values())
    verdict = "met" if ratio >= TARGET else "MISSED"
    print(
        f"{size:4} px  {precision:15} {ours:8.2f} {bare:12.2f}   {ratio:.3f} of it "
        f"(target {TARGET}: {verdict}); {args.rounds} rounds of {num_steps} steps",
        flush=True,
    )
    return ratio


def main():
    """Measure every size in every precision; exit with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", type=Path, help="folder of classes; not for --hosts")
    parser.add_argument("--hosts", action="store_true", help="measure the loop, and two hosts")
    parser.add_argument("--join", help=argparse.SUPPRESS)  # of the processes that are hosts
    parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="PIXELS", help="default: 64 224; of --hosts: 32"
    )
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument(
        "--steps", type=int, help="default: 24 at 64 pixels, fewer above; of --hosts: 4"
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if not args.hosts and args.dataset is None:
        parser.error("give --dataset, or --hosts")
    args.sizes = args.sizes or ([32] if args.hosts else [64, 224])
    args.steps = args.steps or (4 if args.hosts else 24)
    start_tensorflow()
    if args.join:
        train_as_host(args.sizes[0], args)
        return
    if args.hosts:
        ratios = [measure_loop(size, args) for size in args.sizes]
        for size in args.sizes:
            measure_hosts(size, args)
        sys.exit(0 if min(ratios) >= LOOP_TARGET else 1)
    print("            images per second   ours   bare Keras")
    with tempfile.TemporaryDirectory() as folder:
        ratios = [
            measure(size, precision, args, Path(folder))
            for size in args.sizes
            for precision in args.precisions
        ]
    sys.exit(0 if min(ratios) >= TARGET else 1)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
