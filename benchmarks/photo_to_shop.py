"""Which rank the shop's picture of a product has for photographs of it, of products never seen.

    python benchmarks/photo_to_shop.py --photos grocery/photos --shop grocery/shop_pictures

Both folders name a product by the folder that holds its images. For each of --splits, half of the
products are drawn. `train.py` is run on them in each of the ways of `WAYS`; the photographs of the
other products are searched for in all of the shop's pictures, those of trained products among them.
The reference is the backbone without training, which sees images at the same size. --flags changes
the recipe of all ways, such as "--backbone vgg16".
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deep_ranking.datasets import LabelledImages, hold_back_classes, read_folder  # noqa: E402

METRICS = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_reciprocal_rank", "median_rank")
HEADER = "recall@1 | recall@5 | recall@10 | mean reciprocal rank | median rank"
UNTRAINED = "untrained backbone"
# The files that name the images of each way, beside its flags.
WAYS = {
    "photographs alone": "--classes photos.csv",
    "`--pairs`": "--pairs pairs.csv",
    "`--pairs`, ten times the rate": "--pairs pairs.csv --learning_rate 3e-4",
}


def write_files(folder: Path, root: Path, photos: LabelledImages, shop: LabelledImages) -> None:
    """Write what names the training images: photos.csv, and pairs.csv of them and the shop's."""
    pictures: dict[str, list[str]] = {}
    for path, product in zip(shop.files(), shop.classes_of_images(), strict=True):
        pictures.setdefault(product, []).append(path)
    named = list(zip(photos.files(), photos.classes_of_images(), strict=True))
    pairs = [
        (photo, picture, product, product.split("/")[0])
        for photo, product in named
        for picture in pictures.get(product, [])
    ]
    for name, rows in (("photos.csv", named), ("pairs.csv", pairs)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            for row in rows:
                num_paths = 2 if name == "pairs.csv" else 1
                paths = [os.path.relpath(path, root) for path in row[:num_paths]]
                csv.writer(file).writerow([*paths, *row[num_paths:]])


def train(args: argparse.Namespace, folder: Path, root: Path, way: str, output: Path) -> None:
    """Run train.py in a way of `WAYS`."""
    flag, file, *more = WAYS[way].split()
    command = [
        *(sys.executable, ROOT / "train.py", "--recipe", "laptop", "--dataset", root),
        *(flag, folder / file, *more, "--weights", args.weights, "--seed", args.seed),
        *("--cache_dir", args.work / "features", "--output", output, "--overwrite"),
        *args.flags.split(),
    ]
    subprocess.run([str(each) for each in command], check=True, stdout=sys.stderr)


def figures(model, photos: LabelledImages, shop: LabelledImages) -> list[float]:
    """Return the figures of `METRICS` of searching the shop's pictures for photographs."""
    from deep_ranking.reports.evaluating import evaluate
    from deep_ranking.reports.methods import MODEL

    found = evaluate(model, photos, gallery=shop).methods[MODEL]
    means = {name: interval.mean for name, interval in found.intervals.items()}
    return [(means | found.whole)[name] for name in METRICS]


def main() -> None:
    """Parse the arguments, train and evaluate in each way, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of the queries")
    parser.add_argument("--shop", type=Path, required=True, help="folder of the gallery")
    parser.add_argument("--weights", default="imagenet", help="as for train.py")
    parser.add_argument("--flags", default="", help="more flags for train.py, in one string")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    parser.add_argument("--work", type=Path, help="folder to keep models and features in")
    parser.add_argument("--output", type=Path, help="file for the table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        args.work = args.work or Path(temporary)
        lines = compare(args)
    text = "\n".join(lines) + "\n"
    print(text)
    if args.output:
        args.output.write_text(text, encoding="utf-8")


def compare(args: argparse.Namespace) -> list[str]:
    """Return a table of all ways, and one row for each split under it."""
    from deep_ranking.cli.library_messages import start_tensorflow
    from deep_ranking.model.file import load_model
    from deep_ranking.model.network import untrained_backbone

    start_tensorflow()
    root = Path(os.path.commonpath([args.photos.resolve(), args.shop.resolve()]))
    photos, shop = (
        read_folder(folder, label="parent", splits=False) for folder in (args.photos, args.shop)
    )
    found: dict[str, list[list[float]]] = {UNTRAINED: []}
    seconds: dict[str, list[float]] = {}
    for split in args.splits:
        folder = args.work / str(split)
        folder.mkdir(parents=True, exist_ok=True)
        held = hold_back_classes(photos.items.codes, 0.5, seed=split)
        write_files(folder, root, photos.select(~held), shop)
        judged = photos.select(held)
        for number, way in enumerate(args.only):
            output = folder / f"{number}.h5"
            start = time.monotonic()
            train(args, folder, root, way, output)
            seconds.setdefault(way, []).append(time.monotonic() - start)
            model = load_model(output)
            found.setdefault(way, []).append(figures(model, judged, shop))
        backbone = untrained_backbone(model.network_config, args.weights, enlarged=True)
        found[UNTRAINED].append(figures(backbone, judged, shop))
    lines = [
        f"| medians of {len(args.splits)} splits | {HEADER} | recall@1 of each split | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way, rows in found.items():
        cells = [f"{value:.3f}" for value in np.median(rows, axis=0)]
        each = ", ".join(f"{row[0]:.3f}" for row in rows)
        took = f"{statistics.median(seconds[way]):.0f}" if way in seconds else "-"
        lines.append(f"| {way} | {' | '.join(cells)} | {each} | {took} |")
    return lines


if __name__ == "__main__":
    main()
