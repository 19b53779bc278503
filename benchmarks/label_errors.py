"""How many wrong labels the atlas of errors finds, and what correcting them is worth.

Wrong labels are planted among the images of a folder, in two ways: `uniform` gives an image any
other class, `near` the class whose mean is nearest to it, which is harder to see. Then the images
are ranked by how likely wrong their labels are, and the planted ones among the first are counted:

    ours        the atlas: ridge regression that leaves each image out (`metrics/label_noise.py`)
    30 nearest  a vote: most of the 30 nearest, nearer ones counting more, are of one other class
    10 nearest  plain disagreement: the share of the 10 nearest of another class
    cleanlab    confident learning on five-fold predictions of a logistic regression, if installed

    python benchmarks/label_errors.py --dataset photos --label parent --model m.h5 --seeds 5 6

With --train DIR instead of --model, it trains by `--recipe laptop` on the planted labels, so that
the model has learned from what is wrong; corrects the planted labels that are among the first, as a
person who looks at them does; trains again, also on the right labels; and prints recall@1 on
classes that none of the three has seen. With --click they are corrected in the view "Errors" of the
page, one after the other, in Chromium (`make browser`) and as many as are shown there first.
"""

import argparse
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from served_program import address_of  # noqa: E402 (the path comes first)

from deep_ranking import Embedder, read_folder  # noqa: E402
from deep_ranking.datasets import LabelledImages, hold_back_classes  # noqa: E402
from deep_ranking.datasets.corrections import Correction, CorrectionLog, read_corrections  # noqa: E402
from deep_ranking.embedding.kept_rows import kept_embeddings  # noqa: E402
from deep_ranking.files.csv_lines import write_lines  # noqa: E402
from deep_ranking.metrics import retrieval_metrics  # noqa: E402
from deep_ranking.metrics.label_noise import label_fit  # noqa: E402
from deep_ranking.metrics.retrieval import RetrievalMetrics  # noqa: E402

WAYS = ("uniform", "near")
HELD_SEED = 7  # of the classes that no model sees


def main() -> None:
    """Plant, rank, print; with --train, also correct and train again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--label", default="first")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--train", type=Path, metavar="DIR")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--planted", type=int, default=40)
    parser.add_argument("--first", type=int, default=60)
    parser.add_argument("--held_share", type=float, default=0.2)
    parser.add_argument("--click", action="store_true")
    args = parser.parse_args()
    if (args.model is None) == (args.train is None):
        parser.error("give --model or --train")
    if args.click and args.train is None:
        parser.error("--click corrects what is trained on: give --train")
    data = read_folder(args.dataset, label=args.label)
    if args.model:
        rows = embedded(args.model, data)
        for way in args.ways:
            right = data.items.codes
            wrong = [planted(rows, right, way, seed, args) for seed in args.seeds]
            counts = [count_found(rows, right, codes) for codes in wrong]
            print_counts(way, counts, args)
        return
    held = hold_back_classes(data.items.codes, args.held_share, seed=HELD_SEED)
    trained, unseen = data.select(~held), data.select(held)
    args.train.mkdir(parents=True, exist_ok=True)
    clean = train(args, "clean", trained, trained.items.codes, None)
    recall = {"clean labels": recall_at_1(clean, unseen)}
    print(f"{len(trained):,} images trained on, {len(unseen):,} of classes never seen.", flush=True)
    for way in args.ways:
        for seed in args.seeds:
            name = f"{way}_{seed}"
            codes = planted(embedded(clean, trained), trained.items.codes, way, seed, args)
            model = train(args, name, trained, codes, None)
            rows = embedded(model, trained)
            counts = count_found(rows, trained.items.codes, codes)
            print_counts(f"{way}, seed {seed}", [counts], args)
            file = args.train / f"{name}.corrections.csv"
            file.unlink(missing_ok=True)
            if args.click:
                num = click(args, name, file, trained, codes)
            else:
                num = correct(file, trained, codes, ours(rows, codes)[: args.first])
            again = train(args, f"{name}_corrected", trained, codes, file)
            recall["planted"] = recall_at_1(model, unseen)
            recall[f"{num} corrected"] = recall_at_1(again, unseen)
            words = ", ".join(f"{what} {value:.4f}" for what, value in recall.items())
            print(f"  recall@1 on classes never seen: {words}", flush=True)
            recall = {"clean labels": recall["clean labels"]}


def embedded(model: Path, data: LabelledImages) -> np.ndarray:
    """Return the embeddings of images, float32 (images, dim)."""
    with kept_embeddings(Embedder(model), data.files()) as rows:
        return np.array(rows)


def planted(
    rows: np.ndarray, codes: np.ndarray, way: str, seed: int, args: argparse.Namespace
) -> np.ndarray:
    """Return the classes with some wrong ones among them."""
    rng = np.random.default_rng(seed)
    wrong = codes.copy()
    known = np.unique(codes)
    means = np.stack([rows[codes == code].mean(axis=0) for code in known])
    for row in rng.choice(len(codes), args.planted, replace=False):
        others = np.flatnonzero(known != codes[row])
        best = others[np.argmax(means[others] @ rows[row])]
        wrong[row] = known[best if way == "near" else rng.choice(others)]
    return wrong


def ours(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return all images, the likeliest wrong label first."""
    return np.argsort(-np.nan_to_num(label_fit(rows, codes).margin, nan=-9), kind="stable")


def rankings(rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images by each rule, the likeliest wrong label first."""
    near = retrieval_metrics(rows, codes)
    found = {"ours": ours(rows, codes)}
    found["30 nearest"] = np.argsort(-shares_of_another(codes, near), kind="stable")
    share = (codes[near.neighbours[:, :10]] != codes[:, None]).mean(axis=1)
    found["10 nearest"] = np.argsort(-share, kind="stable")
    if find_spec("cleanlab"):
        from cleanlab.rank import get_label_quality_scores
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_predict

        _, dense = np.unique(codes, return_inverse=True)
        model = LogisticRegression(C=10, max_iter=300)
        chances = cross_val_predict(model, rows, dense, cv=5, method="predict_proba")
        found["cleanlab"] = np.argsort(get_label_quality_scores(dense, chances), kind="stable")
    return found


def shares_of_another(codes: np.ndarray, near: RetrievalMetrics) -> np.ndarray:
    """Return the share of the votes of the 30 nearest for another class; 0 if none has most."""
    neighbours, distances = near.neighbours[:, :30], near.distances[:, :30]
    farthest = distances.max(axis=1, keepdims=True)
    weights = 1 / np.maximum(distances, np.where(farthest > 0, farthest / 10, 1))
    shares = np.zeros(len(codes))
    for row, found in enumerate(codes[neighbours]):
        votes = np.bincount(found, weights[row])
        best = votes.argmax()
        share = votes[best] / votes.sum()
        shares[row] = share if best != codes[row] and share > 0.5 else 0
    return shares


def count_found(rows: np.ndarray, right: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Return for each rule whether each image, in its order, is a planted one."""
    return {name: (codes != right)[order] for name, order in rankings(rows, codes).items()}


def print_counts(title: str, counts: list[dict[str, np.ndarray]], args: argparse.Namespace) -> None:
    """Print how many of the planted are among the first, by each rule."""
    print(f"{title}: of {args.planted} planted, among the first {args.first}:")
    for name in counts[0]:
        each = [int(count[name][: args.first].sum()) for count in counts]
        print(f"  {name:12} {np.mean(each):5.1f}  {each}", flush=True)


def train(
    args: argparse.Namespace,
    name: str,
    data: LabelledImages,
    codes: np.ndarray,
    corrections: Path | None,
) -> Path:
    """Train on classes by --recipe laptop, unless that was done; return the model."""
    model = args.train / f"{name}.h5"
    if model.exists():
        return model
    classes = args.train / f"{name}.classes.csv"
    labels = (data.items.names[code] for code in codes)
    write_lines(classes, [("path", "label"), *zip(data.paths, labels, strict=True)])
    command = ["train.py", "--recipe", "laptop", "--dataset", data.root, "--classes", classes]
    command += ["--output", model, "--cache_dir", args.train / "features"]
    command += [] if corrections is None else ["--corrections", corrections]
    with (args.train / f"{name}.log").open("w") as log:
        words = [sys.executable, *map(str, command)]
        subprocess.run(words, cwd=ROOT, check=True, stdout=log, stderr=log)
    return model


def correct(file: Path, data: LabelledImages, codes: np.ndarray, order: np.ndarray) -> int:
    """Write the right classes of the planted among some images; return how many there are."""
    names, right = data.items.names, data.items.codes
    CorrectionLog(file).add(
        *(
            Correction(data.paths[row], names[codes[row]], names[right[row]])
            for row in order
            if codes[row] != right[row]
        )
    )
    return int((codes != right)[order].sum())


def click(
    args: argparse.Namespace, name: str, file: Path, data: LabelledImages, codes: np.ndarray
) -> int:
    """Correct the planted among the first suspects of the page; return how many that were.

    A person knows which pictures are labelled wrongly, and with what class they belong: this one
    reads it in the right classes. It confirms the class that the page proposes, where that is it,
    and otherwise types it.
    """
    from playwright.sync_api import sync_playwright

    model, index = args.train / f"{name}.h5", args.train / f"{name}.index"
    command = ["-m", "deep_ranking", "index", "--output", index, "--model", model]
    command += ["--images", data.root, "--classes", args.train / f"{name}.classes.csv"]
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    names = data.items.names
    right = dict(zip(data.paths, (names[code] for code in data.items.codes), strict=True))
    given = dict(zip(data.paths, (names[code] for code in codes), strict=True))
    counts = {"proposed": 0, "typed": 0}
    chromium = runpy.run_path(str(ROOT / "tools" / "browser.py"))["find_browser"]()
    command = ["-m", "deep_ranking", "serve", "--index", index, "--port", "0"]
    command += ["--corrections", file]
    program = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    address = address_of(program.stdout.readline())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}/?view=errors")
        page.wait_for_selector(".error", timeout=120_000)
        cards = page.locator(".errors-part:has(h2:text-is('Likely wrong labels')) .error")
        for number in range(min(args.first, cards.count())):
            card = cards.nth(number)
            path = card.locator(".errors-picture .fine").first.get_attribute("title")
            if right[path] == given[path]:
                continue
            button = card.locator(".primary")
            if button.text_content().startswith(f"It is {right[path].rpartition('/')[2]}"):
                button.click()
                counts["proposed"] += 1
            else:
                card.locator("button:has-text('Another class')").click()
                card.locator("input").fill(right[path])
                card.locator("button:has-text('Correct')").click()
                counts["typed"] += 1
            card.locator(".errors-said:has-text('Corrected to')").wait_for()
        browser.close()
    program.terminate()
    program.wait()
    standing = read_corrections(file).standing
    if {path: each.to_class for path, each in standing.items()} != {
        path: right[path] for path in standing
    } or len(standing) != sum(counts.values()):
        sys.exit(f"{file}: holds not what was clicked")
    print(f"  clicked in the page: {counts['proposed']} as proposed, {counts['typed']} typed")
    return len(standing)


def recall_at_1(model: Path, data: LabelledImages) -> float:
    """Return the share of images whose nearest is of their class."""
    found = retrieval_metrics(embedded(model, data), data.items.codes, ks=[1])
    return float(np.nanmean(found.per_query["recall_at_1"]))


if __name__ == "__main__":
    main()
