"""Trains the same on one device and on several; run as a program by a test: FOLDER DEVICES RUN ...

Logical processors stand for the devices. They must be made before TensorFlow starts, and can be
grouped in one way only, hence a program. FOLDER/results.json says what each run left.
"""

import csv
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from stubs import build_stub

from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.files import InputError
from deep_ranking.model.network import build_network
from deep_ranking.training import run as training
from deep_ranking.training import trainer
from deep_ranking.training.devices import Devices
from deep_ranking.training.optimizers import RankingLossScale

NUM_DEVICES = 3
SEED = 3
STUB = NetworkConfig(image_size=32, weights=None, dropout=0.0, embedding_size=4)
CLASSES = {
    "batches": "classes",
    "images_per_class": 2,
    "batch_size": 8,  # shares of 3, 3 and 2, one of which is filled up
    "optimizer": "adam",
}
# Eleven triplets: batches of 4, 4 and 3; or of 5, 5 and 1, fewer than devices.
RUNS = {
    "triplets": {"batch_size": 12, "weight_penalty": 0.01, "weight_decay": 0.1},
    "short": {"batch_size": 15, "hinge": "batch", "optimizer": "adam"},
    "mined": CLASSES | {"mining": "semi-hard", "memory": 6, "clip_norm": 0.1, "optimizer": "sgd"},
    "halves": CLASSES | {"precision": "mixed_float16", "batch_size": 6},
    "similar": CLASSES
    | {
        "loss": "supervised_contrastive",
        "memory": 6,
        "cache_features": True,
        "train_from": "head",
        "embedding_start": "pca",
        "validation_share": 0.4,
    },
    "network": CLASSES
    | {
        "network": NetworkConfig(
            image_size=32,
            backbone="mobilenetv2",
            weights=None,
            multiscale="none",
            hidden_layers=0,
            embedding_size=4,
        ),
        "epochs": 1,
        "steps_per_epoch": 2,
        "validation_triplets": None,
    },
}

STOPPED = ("triplets", "similar")  # and gone on with


def write_images(root):
    rng = np.random.default_rng(0)
    for number in range(5):
        (root / f"class{number}").mkdir(parents=True)
        for image in range(4):
            pixels = rng.integers(0, 240, (4, 4, 3), dtype=np.uint8)
            pixels[:, :, number % 3] += 3 * number
            Image.fromarray(pixels).resize((32, 32)).save(root / f"class{number}" / f"{image}.png")
    names = [f"images/class{number}/{image}.png" for number in range(5) for image in range(4)]
    lines = [",".join((names[each], names[each ^ 1], names[(each + 7) % 20])) for each in range(11)]
    (root.parent / "triplets.txt").write_text("\n".join(lines) + "\n")


def config_for(folder, name, devices, **changes):
    settings = {
        "triplets": folder / "triplets.txt",
        "validation_triplets": folder / "triplets.txt",
        "output": folder / name / f"{devices}.h5",
        "network": STUB,
        "epochs": 2,
        "learning_rate": 0.01,
        "gap": 0.5,
        "augmentation": None,
        "seed": SEED,
        "devices": devices,
    } | changes
    if settings.get("batches") == "classes":
        settings["dataset"] = folder / "images"
        settings["cache_dir"] = folder / "features" / name / str(devices)
        if "validation_share" in settings:
            settings["validation_triplets"] = None
    return TrainConfig(**settings)


def weights_of(model):
    return [np.asarray(keras.ops.convert_to_numpy(each)).tolist() for each in model.weights]


def found(config, model):
    with (config.run_dir / "history.csv").open(newline="") as handle:
        history = list(csv.DictReader(handle))
    return {"history": history, "weights": weights_of(model)}


def run(config, *, stop_after=None):
    """Train, if so wanted with an interruption after some epochs; and give what is left."""
    runs = []

    class Watched(training.TrainingRun):
        def begin(self):
            runs.append(self)
            super().begin()

        def train_epoch(self, verbose):
            if self.state.num_epochs == stop_after:
                raise KeyboardInterrupt
            super().train_epoch(verbose)

    whole, training.TrainingRun = training.TrainingRun, Watched
    try:
        model = training.train(config, resume=stop_after is None, verbose=0)
    except KeyboardInterrupt:
        return None
    finally:
        training.TrainingRun = whole
    iterations = int(keras.ops.convert_to_numpy(runs[0].trainer.optimizer.iterations))
    return found(config, model) | {"iterations": iterations, "devices": runs[0].devices.count}


def shared_finiteness(devices):
    """What each device finds when the gradients of the last one are not finite."""
    strategy = Devices(devices)._strategy
    with strategy.scope():
        optimizer = RankingLossScale(keras.optimizers.SGD())

    @tf.function
    def step(bad):
        def on_device():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            last = tf.equal(tf.cast(number, tf.int32), strategy.num_replicas_in_sync - 1)
            return optimizer.check_finite([tf.where(last, bad, 1.0)])

        return strategy.experimental_local_results(strategy.run(on_device))

    return [[bool(each) for each in step(tf.constant(bad))] for bad in (1.0, np.inf)]


def refused(folder, devices):
    try:
        training.train(config_for(folder, "refused", devices), verbose=0)
    except InputError as error:
        return str(error)
    return None


def main(folder, devices, names):
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES
    )
    write_images(folder / "images")
    results = {"count": NUM_DEVICES if devices == "all" else len(devices.split(","))}
    set_trainable_from = trainer.set_trainable_from
    for name in names:
        settings = RUNS[name]
        stub = name != "network"
        trainer.build_network = build_stub if stub else build_network
        trainer.set_trainable_from = (lambda *_, **__: None) if stub else set_trainable_from
        start = trainer.build_network(settings.get("network", STUB), seed=SEED)
        results[f"{name} start"] = weights_of(start)
        for each in (None, devices) if stub else (devices,):
            config = config_for(folder, name, each, **settings)
            if each is not None and name in STOPPED:
                run(config, stop_after=1)
            results[f"{name} {each}"] = run(config)
    results["refused"] = {each: refused(folder, each) for each in ("3", "0,0", "x", "0,2,1")}
    results["finite"] = shared_finiteness(devices)
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
