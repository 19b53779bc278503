"""The table of backbones: size, images a second, and retrieval without training.

Each network is the backbone, average-pooled, and an embedding of 128 numbers. "Keras" embeds as
`embed_images` does, batch norms folded, and "ONNX" with our own export in ONNX Runtime; images lie
in memory, as arrays. In each round every network embeds one batch, one after the other, and a
speed is the median over the rounds. The load of the machine changes, so the ratio to VGG16, in
brackets, counts: the median of the ratios of all rounds. A network that cannot be exported has "no
ONNX" in its cell; the reason goes to standard error.

mAP@R is that of average-pooled features without any training, on all images of --dataset, none of
which the backbone was trained on. It is "not measured" where ImageNet weights are neither installed
nor given by --weights, and "failed" where they cannot be used; the reason goes to standard error.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from deep_ranking import InputError, read_folder
from deep_ranking.cli.library_messages import start_tensorflow
from deep_ranking.config import BACKBONES, NetworkConfig, find_backbone

REFERENCE = "vgg16"
TIMED = "vgg16,efficientnet-lite0,mobilenetv2,resnet50,efficientnetv2b0,convnexttiny"
INSTALLED = {"efficientnet-lite0": "imagenet"}  # weights that need no download


def config_of(name, size, weights=None):
    """Return the settings of a backbone's network, average-pooled and without other parts."""
    return NetworkConfig(
        image_size=max(size, find_backbone(name).min_size),
        backbone=name,
        weights=weights,
        hidden_layers=0,
        multiscale="none",
        embedding_size=128,
    )


def million_parameters(name):
    """Return the number of a backbone's weights, without building arrays for them."""
    import keras

    from deep_ranking.model.network import build_network

    with keras.StatelessScope(initialize_variables=False):
        network = build_network(config_of(name, 32))
    return sum(network.get_layer(each).count_params() for each in network.backbone_layers) / 1e6


def saved_megabytes(name):
    """Return the size of a network's model file."""
    from deep_ranking.model.file import save_model
    from deep_ranking.model.network import build_network

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.h5"
        save_model(build_network(config_of(name, 32), seed=0), path)
        return path.stat().st_size / 1e6


def functions(names, size, kind):
    """Return name -> a function from images to embeddings, by "Keras" or by "ONNX".

    Networks that cannot be exported are left out.
    """
    from deep_ranking.embedding.export import FORMATS, export_model
    from deep_ranking.model.folding import fold_batch_norms
    from deep_ranking.model.network import build_network

    found = {}
    for name in names:
        network = build_network(config_of(name, size), seed=0)
        if kind == "Keras":
            found[name] = fold_batch_norms(network).predict_on_batch
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            try:
                export_model(network, path, format="onnx", tolerance=1e-3)
            except InputError as error:
                print(f"{name}: no ONNX: {error}", file=sys.stderr, flush=True)
                continue
            found[name] = FORMATS["onnx"].load(path, network.inputs[0].name)
    return found


def speeds(names, size, kind, args):
    """Return name -> images a second, and the ratio to VGG16; without those that cannot embed.

    The ratio is NaN where VGG16 is one of these.
    """
    embed = functions(names, size, kind)
    names = list(embed)
    rng = np.random.default_rng(0)
    images = {}
    for name in names:
        side = config_of(name, size).image_size
        images[name] = rng.uniform(0, 255, (args.batch_size, side, side, 3)).astype(np.float32)
        embed[name](images[name])  # Keras builds its graph
    seconds = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            start = time.perf_counter()
            embed[name](images[name])
            seconds[name].append(time.perf_counter() - start)
    reference = seconds.get(REFERENCE, [np.nan])
    ratios = {
        name: statistics.median(np.divide(reference, each).tolist())
        for name, each in seconds.items()
    }
    found = {
        name: (args.batch_size / statistics.median(each), ratios[name])
        for name, each in seconds.items()
    }
    for name, (speed, ratio) in found.items():
        print(f"{kind} {size} px {name}: {speed:.1f} a second, {ratio:.2f} times", flush=True)
    return found


def map_at_r(name, data, args):
    """Return the cell of mAP@R of a backbone's untouched features."""
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.metrics import retrieval_metrics
    from deep_ranking.model.network import untrained_backbone

    source = args.weights.get(name, INSTALLED.get(name))
    if source is None:
        return "not measured"
    try:
        model = untrained_backbone(config_of(name, args.image_sizes[0]), source)
        rows = embed_images(model, [Path(each) for each in data.files()])
    except InputError as error:
        print(f"{name}: no mAP@R: {error}", file=sys.stderr, flush=True)
        return "failed"
    metrics = retrieval_metrics(rows, data.items.codes)
    return f"{np.nanmean(metrics.per_query['map_at_r']):.3f}"


def speed_cell(found, name, kind):
    """Return the cell of a timed network: images a second, and in brackets the ratio to VGG16."""
    if name not in found:
        return f"no {kind}"
    speed, ratio = found[name]
    return f"{speed:.1f}" if np.isnan(ratio) else f"{speed:.1f} ({ratio:.2f})"


def print_table(args):
    """Measure, and print the table in Markdown."""
    timed = args.backbones
    data = read_folder(args.dataset, label=args.label) if args.dataset else None
    columns = {}
    for size in args.image_sizes if args.rounds else ():
        columns["Keras", size] = speeds(timed, size, "Keras", args)
        gc.collect()
        if size in args.onnx_sizes:
            columns["ONNX", size] = speeds(timed, size, "ONNX", args)
    quality = {}
    for name in timed if data else ():
        quality[name] = map_at_r(name, data, args)
        print(f"mAP@R {name}: {quality[name]}", flush=True)
    header = ["backbone", "million parameters", "MB of the .h5"]
    header += [f"{kind}, {size} px" for kind, size in columns]
    header += ["mAP@R without training"] if data else []
    print("", f"| {' | '.join(header)} |", "|" + " --- |" * len(header), sep="\n")
    others = [each for each in BACKBONES if each not in timed] if args.others else []
    for name in [*timed, *others]:
        parameters = million_parameters(name)
        size = saved_megabytes(name) if name in timed else 4 * parameters  # four bytes a weight
        cells = [f"{parameters:.1f}", f"{size:.0f}"]
        for (kind, _), found in columns.items():
            cells.append(speed_cell(found, name, kind) if name in timed else "")
        cells += [quality.get(name, "not measured")] if data else []
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def read_flags():
    """Return the flags: the backbones with VGG16, and the weights by the backbone's name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--backbones", default=TIMED, metavar="NAMES", help="to time")
    parser.add_argument("--others", action="store_true", help="list all others, without speeds")
    parser.add_argument("--image_sizes", type=int, nargs="+", default=[128, 224], metavar="PIXELS")
    parser.add_argument(
        "--onnx_sizes",
        type=int,
        nargs="*",
        metavar="PIXELS",
        help="those of --image_sizes to time in ONNX Runtime too (default: 128, if one of them)",
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="0: no speeds")
    parser.add_argument("--dataset", type=Path, help="folder of classes, for mAP@R")
    parser.add_argument("--label", help="what an image's class is, as for train.py")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=PATH", help="for mAP@R")
    args = parser.parse_args()
    args.backbones = [find_backbone(each).name for each in args.backbones.split(",") if each]
    if args.backbones and REFERENCE not in args.backbones:
        args.backbones.insert(0, REFERENCE)
    if args.onnx_sizes is None:
        args.onnx_sizes = [each for each in [128] if each in args.image_sizes]
    if not set(args.onnx_sizes) <= set(args.image_sizes):
        parser.error(f"--onnx_sizes: expected some of --image_sizes, got {args.onnx_sizes}")
    if (args.label or args.weights) and not args.dataset:
        parser.error("--label and --weights act only with --dataset")
    weights = [each.partition("=") for each in args.weights]
    args.weights = {find_backbone(name).name: path for name, _, path in weights}
    unused = args.weights.keys() - set(args.backbones)
    if unused or not all(args.weights.values()):
        parser.error("--weights: expected NAME=PATH, each NAME one of --backbones")
    return args


def main():
    """Read the flags and print the table."""
    args = read_flags()
    start_tensorflow()
    print_table(args)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
