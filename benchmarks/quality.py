"""What training gives on classes that it never saw, beside features that nobody trained.

Two uses:

    python benchmarks/quality.py choose --train DIR --weights PATH --output choose.md
    python benchmarks/quality.py judge --train DIR --judge DIR --weights PATH --output judge.md

`choose` compares settings: every variant is trained on four fifths of the classes of --train and
judged on the rest, which it never saw. All choices are made there. `judge` trains the recipe as it
is on all of --train, once a seed, and judges it on the other classes of --judge, beside the
untouched VGG16 (average-pooled, at the same image size; and with images enlarged as the recipe
enlarges them). Embeddings that another library made (benchmarks/quality_pytorch.py) are judged in the same run with
--reference NAME=FILE.npz. Differences have 95 % bootstrap intervals over queries.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("recall_at_1", "map_at_r", "similarity_precision")
HEADER = "recall@1 | mAP@R | similarity precision"

# Each changes one thing of the recipe `laptop`; without enlargement, so that many can be tried.
SMALL = "--enlarge 1"
VARIANTS = {
    "laptop without enlargement": SMALL,
    "start: random": f"{SMALL} --embedding_start random",
    "start: PCA": f"{SMALL} --embedding_start pca",
    "pooling: average of block 5": f"{SMALL} --pooling average --pooled_blocks 1",
    "pooling: max of block 5": f"{SMALL} --pooling max --pooled_blocks 1",
    "pooling: GeM of block 5": f"{SMALL} --pooling gem --pooled_blocks 1",
    "pooling: average and max of block 5": f"{SMALL} --pooled_blocks 1",
    "pooling: average and max of blocks 3 to 5": f"{SMALL} --pooled_blocks 3",
    "the blog's dense layers": f"{SMALL} --hidden_layers 2 --embedding_start random",
    "loss: soft margin": f"{SMALL} --loss soft_margin",
    "loss: multi-similarity": f"{SMALL} --loss multi_similarity",
    "loss: ranking, all triplets, gap 0.2": f"{SMALL} --loss ranking --gap 0.2",
    "loss: ranking, semi-hard": f"{SMALL} --loss ranking --gap 0.2 --mining semi-hard",
    "loss: ranking, hard": f"{SMALL} --loss ranking --gap 0.2 --mining hard",
    "loss: ranking, distance-weighted": f"{SMALL} --loss ranking --gap 0.2 "
    "--mining distance-weighted",
    "cross-batch memory of 1,000": f"{SMALL} --memory 1000",
    "no warm-up, no decay": f"{SMALL} --warmup_steps 0 --decay none",
    "one view an image": f"{SMALL} --cached_views 1",
    "no dropout": f"{SMALL} --dropout 0",
    "mixed_bfloat16": f"{SMALL} --precision mixed_bfloat16",
    "block 5 too, at a tenth of the rate, after the head": f"{SMALL} --train_from block5_conv1 "
    "--head_epochs 2 --head_learning_rate 0.0003 --learning_rate 0.0003 --backbone_rate 0.1 "
    "--batch_size 96 --epochs 4",
    "block 5 too, at the head's rate, from the start": f"{SMALL} --train_from block5_conv1 "
    "--batch_size 96 --epochs 4",
    "laptop": "",
}
BLOG_HINGE = f"{SMALL} --loss ranking --embedding_start random"
HINGES = {
    "the blog's code: one hinge a batch, clipped, gap 1": f"{BLOG_HINGE} --hinge batch --clip",
    "one hinge a batch, gap 1": f"{BLOG_HINGE} --hinge batch",
    "a hinge a triplet, gap 1": BLOG_HINGE,
    "a hinge a triplet, gap 0.2": f"{BLOG_HINGE} --gap 0.2",
    "a hinge a triplet, squared distance, gap 1": f"{BLOG_HINGE} --distance squared",
    "a hinge a triplet, squared distance, gap 0.2": f"{BLOG_HINGE} --distance squared --gap 0.2",
}
TABLES = {"options": VARIANTS, "hinges": HINGES}


def train(args: argparse.Namespace, output: Path, flags: str, seed: int) -> float:
    """Run train.py with a recipe and flags; give the seconds it took."""
    command = [
        *(sys.executable, str(ROOT / "train.py"), "--recipe", args.recipe),
        *("--dataset", args.train, "--weights", args.weights, "--seed", str(seed)),
        *("--output", str(output), "--cache_dir", str(output.parent / "features")),
        *args.flags.split(),
        *flags.split(),
    ]
    start = time.monotonic()
    subprocess.run([str(each) for each in command], check=True, stdout=sys.stderr)
    return time.monotonic() - start


def choose(args: argparse.Namespace, folder: Path) -> list[str]:
    """Train each variant, and give a table of what is found on the classes held back."""
    lines = [
        f"| changed in `{args.recipe}` | {HEADER} | before training | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, flags in TABLES[args.table].items():
        if args.only and args.only not in name:
            continue
        found, before, seconds = [], [], []
        for seed in args.seeds:
            output = folder / f"{len(lines)}_{seed}.h5"
            seconds.append(
                train(
                    args,
                    output,
                    f"--validation_share {args.share} --validate_every 100 {flags}",
                    seed,
                )
            )
            with (output.with_suffix(".run") / "history.csv").open(newline="") as handle:
                rows = list(csv.DictReader(handle))
            found.append([float(rows[-1][f"val_{metric}"]) for metric in METRICS])
            before.append([float(rows[0][f"val_{metric}"]) for metric in METRICS])
            output.unlink()
        cells = " | ".join(f"{value:.3f}" for value in np.median(found, axis=0))
        first = " / ".join(f"{value:.3f}" for value in np.median(before, axis=0))
        lines.append(f"| {name} | {cells} | {first} | {statistics.median(seconds):.0f} |")
        print(lines[-1], flush=True)
    return lines


def judge(args: argparse.Namespace, folder: Path) -> list[str]:
    """Train the recipe once a seed, and give a table of models and of what they are measured by."""
    from deep_ranking.baselines import untrained_backbone
    from deep_ranking.cli.tensorflow import start_tensorflow
    from deep_ranking.embedding import embed_images
    from deep_ranking.evaluation import EmbeddedImages, compare_evaluations, evaluate
    from deep_ranking.images import find_images
    from deep_ranking.model_file import load_model

    start_tensorflow()
    outputs = {seed: folder / f"model_{seed}.h5" for seed in args.seeds}
    seconds = {seed: train(args, output, "", seed) for seed, output in outputs.items()}
    listing = find_images(args.judge)
    paths = [str(listing.root / path) for path in listing.paths]
    labels = np.array(listing.classes)[listing.labels]

    def judged(embeddings: np.ndarray):
        return evaluate(EmbeddedImages(paths, labels, embeddings))

    models = {seed: load_model(output) for seed, output in outputs.items()}
    config = models[args.seeds[0]].network_config
    size = config.image_size
    trained = {seed: judged(embed_images(model, paths)) for seed, model in models.items()}
    plain = judged(embed_images(untrained_backbone(size, args.weights), paths))
    others = {f"untouched VGG16, average-pooled, {size} pixels": plain}
    if config.enlarge > 1:
        enlarged = untrained_backbone(size, args.weights, enlarge=config.enlarge)
        name = f"untouched VGG16, images enlarged {config.enlarge} times"
        others[name] = judged(embed_images(enlarged, paths))
    for reference in args.reference:
        name, file = reference.split("=", 1)
        with np.load(file) as arrays:
            others[name] = evaluate(
                EmbeddedImages(list(arrays["paths"]), arrays["labels"], arrays["embeddings"])
            )
    median = np.median(
        [[each.intervals[metric].mean for metric in METRICS] for each in trained.values()], axis=0
    )
    lines = [f"| {listing.root.name} | {HEADER} |", "| --- | --- | --- | --- |"]
    for name, each in others.items():
        cells = (f"{each.intervals[metric].mean:.3f}" for metric in METRICS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for seed, each in trained.items():
        cells = (f"{each.intervals[metric].mean:.3f}" for metric in METRICS)
        lines.append(
            f"| `{args.recipe}`, seed {seed} ({seconds[seed]:.0f} s) | {' | '.join(cells)} |"
        )
    cells = " | ".join(f"**{value:.3f}**" for value in median)
    lines += [f"| **`{args.recipe}`, median** | {cells} |", ""]
    middle = sorted(trained, key=lambda seed: trained[seed].intervals["map_at_r"].mean)
    model = trained[middle[len(middle) // 2]]
    lines += [
        f"Of the model with the median mAP@R, against | {HEADER}".replace("Of", "| Of", 1) + " |",
        "| --- | --- | --- | --- |",
    ]
    for name, each in others.items():
        cells = []
        for metric in METRICS:
            gain = compare_evaluations(model, each, metric)
            ratio = model.intervals[metric].mean / each.intervals[metric].mean
            cells.append(f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], {ratio:.3f} times")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("choose", "judge"))
    parser.add_argument("--train", required=True, help="folder of classes to train on")
    parser.add_argument("--judge", help="folder of other classes, for judge")
    parser.add_argument("--weights", default="imagenet", help="as for train.py")
    parser.add_argument("--recipe", default="laptop")
    parser.add_argument("--flags", default="", help="more flags for train.py, in one string")
    parser.add_argument("--table", choices=TABLES, default="options", help="for choose")
    parser.add_argument("--only", default="", help="for choose: variants with this in their name")
    parser.add_argument("--share", type=float, default=0.2, help="classes held back by choose")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reference", action="append", default=[], metavar="NAME=FILE.npz")
    parser.add_argument("--work", type=Path, help="folder to keep models and features in")
    parser.add_argument("--output", type=Path, help="file for the table")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lines = {"choose": choose, "judge": judge}[args.what](args, folder)
    text = "\n".join(lines) + "\n"
    print(text)
    if args.output:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
