"""What training achieves on classes that it never saw, compared with features without training.

Two uses:

    python benchmarks/quality.py choose --train DIR --weights PATH --output choose.md
    python benchmarks/quality.py judge --train DIR --judge DIR --weights PATH --output judge.md

`choose` compares settings: it trains every variant on four fifths of the classes of --train, and
evaluates it on the rest, which it never saw. All choices are made there. `judge` trains the
unchanged recipe on all of --train, once for each seed, and evaluates it on the other classes of
--judge, beside the untouched backbone (average-pooled, at the same image size; and with images
enlarged as the recipe does). Without --judge, it judges on a --share of the classes of --train,
drawn by --split_seed, and trains on the others; it writes both lists to --work, trained.csv and
judged.csv. Differences have 95 % bootstrap intervals over queries.

--reference NAME=FILE.npz adds embeddings that another library made (benchmarks/quality_pytorch.py),
or those that `judge` wrote to the --work folder of another run, such as the recipe with another
backbone; several files with one name are its seeds.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from deep_ranking.config.recipes import RECIPES
from deep_ranking.datasets import LabelledImages

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("recall_at_1", "map_at_r", "similarity_precision")
HEADER = "recall@1 | mAP@R | similarity precision"

# Each variant changes one setting of `laptop` on VGG16, without enlargement, to save time.
VGG16 = "--backbone vgg16"
SMALL = f"{VGG16} --backbone_size 64"
# One pooled block has 512 features, so there are at most 512 axes.
ONE = f"{SMALL} --pooled_blocks 1 --embedding_size 512"
VARIANTS = {
    "laptop without enlargement": SMALL,
    "start: random": f"{SMALL} --embedding_start random",
    "start: PCA": f"{SMALL} --embedding_start pca",
    "pooling: average of block 5": f"{ONE} --pooling average",
    "pooling: max of block 5": f"{ONE} --pooling max",
    "pooling: GeM of block 5": f"{ONE} --pooling gem",
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
    "two views an image": f"{SMALL} --cached_views 2",
    "dropout 0.3": f"{SMALL} --dropout 0.3",
    "float32 features": f"{SMALL} --precision float32",
    "block 5 too, at a tenth of the rate, after the head": f"{SMALL} --train_from block5_conv1 "
    "--head_epochs 2 --backbone_rate 0.1 --batch_size 96 --epochs 4",
    "block 5 too, at the head's rate, from the start": f"{SMALL} --train_from block5_conv1 "
    "--batch_size 96 --epochs 4",
    "laptop on VGG16": VGG16,
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
# Frozen branches, so that their features are cached beside the backbone's; then trained ones.
FROZEN = "--no-train_branches"
BRANCHES = {
    "none": "--multiscale none",
    "blog": f"--multiscale blog {FROZEN} --branch_start random",
    "blog, k-means start": f"--multiscale blog {FROZEN} --branch_start kmeans",
    "blog, k-means start, trained": "--multiscale blog --train_branches --branch_start kmeans",
    "paper": f"--multiscale paper {FROZEN} --branch_start random",
    "paper, k-means start": f"--multiscale paper {FROZEN} --branch_start kmeans",
    "colour": f"--multiscale colour {FROZEN}",
    "colour, trained": "--multiscale colour --train_branches",
    "texture": f"--multiscale texture {FROZEN}",
}
TABLES = {"options": VARIANTS, "hinges": HINGES, "branches": BRANCHES}


def train(args: argparse.Namespace, output: Path, flags: str, seed: int) -> float:
    """Run train.py with a recipe and flags; return the seconds it took."""
    command = [
        *(sys.executable, str(ROOT / "train.py"), "--recipe", args.recipe),
        *("--dataset", args.train, "--weights", args.weights, "--seed", str(seed)),
        *("--output", str(output)),
        *(("--classes", args.classes) if args.classes else ()),
        *(("--label", args.label) if args.label and not args.classes else ()),
        *args.flags.split(),
        *flags.split(),
    ]
    if RECIPES[args.recipe].settings.get("cache_features"):
        command += ["--cache_dir", str(output.parent / "features")]
    start = time.monotonic()
    subprocess.run([str(each) for each in command], check=True, stdout=sys.stderr)
    return time.monotonic() - start


def choose(args: argparse.Namespace, folder: Path) -> list[str]:
    """Train each variant, and return a table of results on the classes held back."""
    lines = [
        f"| changed in `{args.recipe}` | {HEADER} | before training | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, flags in TABLES[args.table].items():
        if args.only and not any(part in name for part in args.only):
            continue
        found, before, seconds = [], [], []
        for seed in args.seeds:
            output = folder / f"{len(lines)}_{seed}.h5"
            seconds.append(
                train(
                    args,
                    output,
                    f"--overwrite --validation_share {args.share} --validate_every 100 {flags}",
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
    """Train the recipe once for each seed, and return tables of it beside the references."""
    from deep_ranking.cli.library_messages import start_tensorflow
    from deep_ranking.datasets import read_folder
    from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings

    start_tensorflow()
    if args.judge is None:
        data = held_back(args, folder)
    else:
        data = read_folder(args.judge, label=args.label)
    seconds = {seed: train_once(args, folder, seed) for seed in args.seeds}
    paths = data.files()
    labels = data.classes_of_images()
    rows = embeddings_of(args, folder, paths)
    for name, each in rows.items():
        names = [os.path.relpath(path, data.root) for path in paths]
        np.savez(folder / f"{name.replace(' ', '_')}.npz", paths=names, embeddings=each[0])
    found = {
        name: [evaluate_embeddings(EmbeddedImages(paths, labels, one)) for one in each]
        for name, each in (rows | references(args, data.root, paths)).items()
    }
    trained = {seed: found.pop(f"seed {seed}")[0] for seed in args.seeds}
    return tables(args, data.root.name, trained, found, seconds) + inside(args, labels, rows)


def inside(args: argparse.Namespace, labels: np.ndarray, rows: dict) -> list[str]:
    """Return a table of the similarity precision of triplets inside a category, by --inside."""
    from deep_ranking.metrics import similarity_precision, triplet_distances
    from deep_ranking.metrics.evaluation import draw_triplets

    if args.inside is None:
        return []
    categories = np.array(["/".join(each.split("/")[: args.inside]) for each in labels])
    parts = [np.flatnonzero(categories == each) for each in np.unique(categories)]
    parts = [part for part in parts if len(np.unique(labels[part])) > 1]
    names = [f"{categories[part[0]]} ({len(np.unique(labels[part]))} classes)" for part in parts]
    triplets = np.concatenate([part[draw_triplets(labels[part])] for part in parts])
    lines = ["", f"Inside {', '.join(names)}:", "", "| | similarity precision |", "| --- | --- |"]
    for name, each in rows.items():
        precision = similarity_precision(*triplet_distances(each[0], triplets))
        lines.append(f"| {name} | {precision:.3f} |")
    return lines


def held_back(args: argparse.Namespace, folder: Path) -> LabelledImages:
    """Return the images of the classes to judge on; the flags then train on the others alone."""
    from deep_ranking.datasets import hold_back_classes, read_folder

    data = read_folder(args.train, label=args.label)
    held = hold_back_classes(data.items.codes, args.share, seed=args.split_seed)
    for name, part in (("trained", data.select(~held)), ("judged", data.select(held))):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as handle:
            rows = zip(part.paths, part.classes_of_images(), strict=True)
            csv.writer(handle).writerows(rows)
    args.classes = folder / "trained.csv"
    return data.select(held)


def train_once(args: argparse.Namespace, folder: Path, seed: int) -> float:
    """Train the recipe with a seed, unless --work has it already; return the seconds it took."""
    output, clock = folder / f"model_{seed}.h5", folder / f"seconds_{seed}.txt"
    if not clock.exists():
        seconds = train(args, output, "--overwrite", seed)
        clock.write_text(f"{seconds}\n", encoding="utf-8")
    return float(clock.read_text(encoding="utf-8"))


def embeddings_of(
    args: argparse.Namespace, folder: Path, paths: list[str]
) -> dict[str, list[np.ndarray]]:
    """Return embeddings of the model of each seed, and of the untouched backbone."""
    from deep_ranking.embedding.cached_features import cache_features
    from deep_ranking.embedding.embed import embed_images
    from deep_ranking.embedding.embedded_features import embedded_features
    from deep_ranking.model.file import load_model
    from deep_ranking.model.network import set_trainable_from, split_at_frozen, untrained_backbone

    rows = {}
    for seed in args.seeds:
        model = load_model(folder / f"model_{seed}.h5")
        settings = json.loads((folder / f"model_{seed}.run" / "config.json").read_text())
        set_trainable_from(model, settings["train_from"], with_branches=False)
        frozen, head = split_at_frozen(model)
        features = cache_features(frozen, paths, folder / "features")  # shared by all seeds
        with embedded_features(head, features) as embedded:
            rows[f"seed {seed}"] = [np.array(embedded)]
    config = model.network_config
    for size in sorted({config.image_size, config.seen_size}):
        file = folder / f"untouched_{size}.npy"
        if not file.exists():
            backbone = untrained_backbone(config, args.weights, enlarged=size != config.image_size)
            np.save(file, embed_images(backbone, paths))
        how = "average-pooled" if size == config.image_size else "images enlarged to"
        name = f"untouched {config.backbone}, {how}, {size} pixels".replace("to,", "to")
        rows[name] = [np.load(file)]
    return rows


def references(
    args: argparse.Namespace, root: Path, paths: list[str]
) -> dict[str, list[np.ndarray]]:
    """Return the embeddings that other libraries made, in the order of `paths`, seed by seed."""
    rows: dict[str, list[np.ndarray]] = {}
    for reference in args.reference:
        name, file = reference.split("=", 1)
        with np.load(file) as arrays:
            files = [Path(root, path).resolve() for path in arrays["paths"]]
            order = {file: row for row, file in enumerate(files)}
            numbers = [order[Path(path).resolve()] for path in paths]
            rows.setdefault(name, []).append(arrays["embeddings"][numbers])
    return rows


def tables(args: argparse.Namespace, data: str, trained: dict, others: dict, seconds: dict) -> list:
    """Return a table of all figures, and one of the median model's lead over each reference."""
    from deep_ranking.metrics import bootstrap_interval

    def row(name: str, cells: list[str]) -> str:
        return f"| {name} | {' | '.join(cells)} |"

    def figures(each) -> list[str]:
        return [f"{each.intervals[metric].mean:.3f}" for metric in METRICS]

    def medians(seeds) -> list[float]:
        return np.median([[each.intervals[m].mean for m in METRICS] for each in seeds], axis=0)

    def middle(seeds):
        by_map = sorted(seeds, key=lambda each: each.intervals["map_at_r"].mean)
        return by_map[len(by_map) // 2]

    lines = [f"| {data} | {HEADER} |", "| --- | --- | --- | --- |"]
    for name, seeds in others.items():
        several = f", median of {len(seeds)} seeds" if len(seeds) > 1 else ""
        lines.append(row(f"{name}{several}", [f"{value:.3f}" for value in medians(seeds)]))
    lines += [
        row(f"`{args.recipe}`, seed {seed} ({seconds[seed]:.0f} s)", figures(each))
        for seed, each in trained.items()
    ]
    median = [f"**{value:.3f}**" for value in medians(trained.values())]
    lines += [row(f"**`{args.recipe}`, median**", median), ""]
    model = middle(trained.values())
    lines += [f"| the model of median mAP@R against | {HEADER} |", "| --- | --- | --- | --- |"]
    for name, seeds in others.items():
        each, cells = middle(seeds), []
        for metric in METRICS:
            gain = bootstrap_interval(model.per_query[metric] - each.per_query[metric])
            ratio = model.intervals[metric].mean / each.intervals[metric].mean
            cells.append(f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], {ratio:.3f} times")
        lines.append(row(name, cells))
    return lines


def main() -> None:
    """Parse the arguments, run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("choose", "judge"))
    parser.add_argument("--train", required=True, help="folder of classes to train on")
    parser.add_argument("--judge", help="for judge: folder of other classes")
    parser.add_argument("--label", help="as for train.py: which folder is the class")
    parser.add_argument(
        "--inside",
        type=int,
        metavar="N",
        help="for judge: also judge by triplets inside a category, the first N folders of a class",
    )
    parser.add_argument("--weights", default="imagenet", help="as for train.py")
    parser.add_argument("--recipe", default="laptop")
    parser.add_argument("--flags", default="", help="more flags for train.py, in one string")
    parser.add_argument("--table", choices=TABLES, default="options", help="for choose")
    parser.add_argument(
        "--only", nargs="+", default=[], help="for choose: variants with one of these in the name"
    )
    parser.add_argument("--share", type=float, default=0.2, help="share of classes held back")
    parser.add_argument(
        "--split_seed", type=int, default=0, help="for judge without --judge: which are held back"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reference", action="append", default=[], metavar="NAME=FILE.npz")
    parser.add_argument("--work", type=Path, help="folder to keep models and features in")
    parser.add_argument("--output", type=Path, help="file for the table")
    args = parser.parse_args()
    args.classes = None
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
