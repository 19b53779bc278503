"""How many images a second models embed: the first given is the reference of the others.

    python benchmarks/embedding_speed.py --models vgg16.h5 lite0.h5

Images lie in memory, as arrays, and networks run as in `embed_images`, batch norms folded. In each
round every model embeds one batch, one after the other, and a speed is the median over the rounds.
The load of the machine changes, so the median of the ratios of all rounds counts.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from deep_ranking import InputError
from deep_ranking.cli.library_messages import start_tensorflow


def main():
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    start_tensorflow()
    from deep_ranking.model.file import load_model
    from deep_ranking.model.folding import inference_model

    models = [load_model(path) for path in args.models]
    rng = np.random.default_rng(0)
    embed, images = [], []
    for model in models:
        side = model.network_config.image_size
        images.append(rng.uniform(0, 255, (args.batch_size, side, side, 3)).astype(np.float32))
        embed.append(inference_model(model).predict_on_batch)
        embed[-1](images[-1])  # Keras builds its graph
    seconds = [[] for _ in models]
    for number in range(args.rounds):
        order = range(len(models))
        for which in order if number % 2 == 0 else reversed(order):
            start = time.perf_counter()
            embed[which](images[which])
            seconds[which].append(time.perf_counter() - start)
    print("| model | backbone | sees | images a second | times |", "|" + " --- |" * 5, sep="\n")
    for path, model, each in zip(args.models, models, seconds, strict=True):
        config = model.network_config
        ratio = statistics.median(np.divide(seconds[0], each).tolist())
        speed = args.batch_size / statistics.median(each)
        size = f"{config.image_size} pixels, the backbone {config.seen_size}"
        print(f"| {path} | {config.backbone} | {size} | {speed:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
