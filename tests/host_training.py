"""Trains on one host of many; run as a program by a test: FOLDER HOSTS INDEX SETTINGS RUN ...

HOSTS is "-" for one host alone, and SETTINGS is JSON that overrides a run's. FOLDER/one/RUN.h5, or
FOLDER/many/RUN.h5, is the model. Ends as a command does: an error is one line, with code 1.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from shared_training import write_images
from stubs import training_stubs

from deep_ranking.config import NetworkConfig, SamplingConfig, TrainConfig
from deep_ranking.files import InputError
from deep_ranking.images.augmentation import Augmentation
from deep_ranking.training import hosts as joining
from deep_ranking.training.run import train

NUM_STEPS = 20  # an epoch each: the history has the loss of every step
CLASSES = {"batches": "classes", "images_per_class": 2, "batch_size": 8, "optimizer": "adam"}
RUNS = {
    # Eleven triplets in batches of 4, 4 and 3; an even number of hosts does not divide the last.
    "triplets": {"batch_size": 12, "weight_penalty": 0.01, "augmentation": Augmentation()},
    "drawn": {
        "sampling": SamplingConfig(strategy="out-of-class", num_pos_images=1, num_neg_images=1),
        "batch_size": 9,
        "hinge": "batch",
    },
    "mined": CLASSES | {"mining": "semi-hard", "memory": 6, "clip_norm": 0.1},
    "left_out": CLASSES | {"skip_broken": True, "images_per_class": 4, "weight_decay": 0.1},
}


def config_for(folder, name, **changes):
    settings = {
        "triplets": folder / "triplets.txt",
        "network": NetworkConfig(image_size=32, weights=None, dropout=0.0, embedding_size=4),
        "epochs": NUM_STEPS,
        "steps_per_epoch": 1,
        "learning_rate": 0.01,
        "gap": 0.5,
        "augmentation": None,
        "seed": 3,
    } | RUNS[name]
    if name != "triplets":
        del settings["triplets"]
        settings["dataset"] = folder / ("spoilt" if name == "left_out" else "images")
    return TrainConfig(**settings | changes)


def main(folder, hosts, index, changes, names):
    joining.JOIN_SECONDS = changes.pop("join_seconds", 120)
    set_clock_wrong(changes.pop("clock_seconds", 0))
    many = {} if hosts == "-" else {"hosts": hosts, "host_index": index}
    for name in names:
        output = folder / ("many" if many else "one") / f"{name}.h5"
        config = config_for(folder, name, **({"output": output} | changes))
        train(replace(config, **many), resume=True, verbose=0)


def set_clock_wrong(seconds):
    """Set Python's clock some seconds ahead."""
    right = time.time
    time.time = lambda: right() + seconds


def write_data(folder):
    write_images(folder / "images")
    write_images(folder / "spoilt")
    for name in ("class1/0.png", "class4/2.png"):
        (folder / "spoilt" / name).write_bytes(b"no image")


if __name__ == "__main__":
    try:
        with training_stubs(eager=False):
            main(
                Path(sys.argv[1]),
                sys.argv[2],
                int(sys.argv[3]),
                json.loads(sys.argv[4]),
                sys.argv[5:],
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
