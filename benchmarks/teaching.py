"""How well a model learns what people answer, from simulated raters with a hidden rule.

    python benchmarks/teaching.py --dataset photos --label parent --model m.h5 --rule colour \
        --plot teaching.png

A rater says which of two images is more like a third by a rule that the model is not told, and
errs in a share --noise of the answers:

    colour    the mean colour (CIE L*a*b*) of an ellipse in the middle
    shape     histograms of oriented gradients, 4 x 4 cells
    category  the folder above the class, such as Fruit, whatever the class is; a rater to whom both
              are alike cannot say, and is asked something else

Questions are chosen in two ways: by `next_question` as the page asks, from what was learned so far,
which is learned anew every --every answers; or at random, of a query and two of its nearest images.
The page also mixes in random questions and repeats; they are left out here.

Agreement is with the same rater without noise, on random questions that were not asked. Beside it
stands the share of what the noise allows: nobody agrees with more than 95 % of answers of which 5 %
are wrong.
Last, the model learns again from all answers with class folders: with all classes, and recall@1 is
that of all images; and with half of the classes, and recall@1 is that of the other half.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deep_ranking.datasets import read_folder  # noqa: E402
from deep_ranking.images import read_image  # noqa: E402
from deep_ranking.metrics.agreement import Agreement  # noqa: E402
from deep_ranking.metrics.intervals import wilson_interval  # noqa: E402
from deep_ranking.sampling.questions import (  # noqa: E402
    Asked,
    QuestionSettings,
    next_question,
)
from deep_ranking.training.taught.answers import Answers  # noqa: E402
from deep_ranking.training.taught.features import (  # noqa: E402
    Head,
    embed_from_features,
    read_parts,
    sizes_of,
    taught_features,
)
from deep_ranking.training.taught.forgetting import halves_of, recall_at_1  # noqa: E402
from deep_ranking.training.taught.lesson import Lesson  # noqa: E402
from deep_ranking.training.taught.space import LearnedSpace  # noqa: E402

SIZE = 128  # pixels, in which raters see images
HELD_BACK = 2000
CHOSEN = QuestionSettings(random_share=0, repeat_share=0)
AT_RANDOM = QuestionSettings(random_share=1, repeat_share=0)
WAYS = {"chosen": CHOSEN, "random": AT_RANDOM}
UNKNOWN = Agreement(wilson_interval(0, 0), 0)


def colour(files):
    """Return the mean colour of an ellipse in the middle of each image."""
    import cv2

    y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1) - 0.5
    middle = (x / 0.32) ** 2 + (y / 0.4) ** 2 < 1
    images = (read_image(file, SIZE) for file in files)
    return np.stack([cv2.cvtColor(each, cv2.COLOR_RGB2LAB)[middle].mean(axis=0) for each in images])


def shape(files):
    """Return histograms of oriented gradients of each image."""
    from skimage.feature import hog

    options = {"pixels_per_cell": (16, 16), "cells_per_block": (1, 1), "channel_axis": 2}
    return np.stack([hog(read_image(file, 64), orientations=8, **options) for file in files])


def category(files):
    """Return one number for each category, so that those of different ones are equally far."""
    names = [Path(file).parents[1].name for file in files]
    _, numbers = np.unique(names, return_inverse=True)
    return np.eye(numbers.max() + 1)[numbers]


RULES: dict[str, Callable] = {"colour": colour, "shape": shape, "category": category}


class World(NamedTuple):
    """A collection, a model of it, and what the raters go by."""

    features: object
    head: Head
    embeddings: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    noise: float
    held_back: np.ndarray

    def lead(self, questions):
        """Return by how much the second of two images is farther from the query, by the rule."""
        query, one, other = (self.values[column] for column in np.asarray(questions).T)
        return np.sum((query - other) ** 2, axis=1) - np.sum((query - one) ** 2, axis=1)

    def agreement(self, head, parts, asked):
        """Return how often a head agrees with the rule on the questions held back."""
        known = {(query, *sorted(pair)) for query, *pair in asked.tolist()}
        kept = [(q, *sorted(pair)) not in known for q, *pair in self.held_back.tolist()]
        questions = self.held_back[kept]
        query, chosen, other = (head.embed(parts)[column] for column in questions.T)
        near = np.sum((query - chosen) ** 2, axis=1) < np.sum((query - other) ** 2, axis=1)
        return float(near.mean())

    def allowed(self, agreement):
        """Return the share of what the noise allows that a model reaches on noisy answers."""
        return (agreement * (1 - self.noise) + (1 - agreement) * self.noise) / (1 - self.noise)


def make_world(args):
    """Read the images, compute features, and draw the questions held back."""
    data = read_folder(args.dataset, label=args.label)
    files = data.files()
    features = taught_features(args.model, files, args.cache_dir)
    embeddings = embed_from_features(args.model, features)
    sizes = sizes_of(features)
    head = Head.of(args.model, sizes).with_layout(sizes)
    values = RULES[args.rule](files)
    world = World(features, head, embeddings, values, data.items.codes, args.noise, np.empty(0))
    rng, drawn = np.random.default_rng(args.first_seed + 1000), []
    while len(drawn) < HELD_BACK:
        question = next_question(
            embeddings, Asked(), settings=AT_RANDOM, seed=int(rng.integers(2**31))
        )
        row = np.array([question.query, question.a, question.b])
        lead = world.lead(row[None])[0]
        if lead != 0:
            drawn.append(row if lead > 0 else row[[0, 2, 1]])
    return world._replace(held_back=np.stack(drawn))


def lesson_of(world, asked, classes=None):
    """Return the lesson of some answers: integer (answers, 3)."""
    answers = Answers(
        files=[],
        questions=asked,
        votes=np.tile([1.0, 0.0], (len(asked), 1)),
        at_random=np.zeros(len(asked), bool),
        steadiness=UNKNOWN,
        num_answers=len(asked),
        left_out=[],
        notes=[],
    )
    halves, labels = None, world.labels
    if classes is not None:
        labels = np.where(np.isin(labels, classes), labels, -1)
        known = np.flatnonzero(labels >= 0)
        halves = halves_of(labels[known], seed=0)
        halves = halves._replace(choosing=known[halves.choosing], judging=known[halves.judging])
    return Lesson.of(answers, world.head, world.features, halves=halves, labels=labels)


def session(world, way, seed, args, parts):
    """Ask a rater; return the answers, and the agreement after every so many."""
    rng = np.random.default_rng([seed, 5])
    asked, on_side_a, decided = np.empty((0, 3), np.int64), [], []
    space, curve = None, [world.agreement(world.head, parts, asked)]
    while sum(decided) < args.answers:
        if way == "chosen" and sum(decided) % args.every == 0 and (not decided or decided[-1]):
            known = asked[np.array(decided, bool)] if decided else asked
            space = LearnedSpace.of(args.model, world.features, known, seed=seed)
        before = Asked(asked, np.array(on_side_a, bool), np.ones(len(asked), bool),
                       np.array(decided, bool))  # fmt: skip
        question = next_question(
            world.embeddings, before, space=space, settings=WAYS[way], seed=seed
        )
        row = np.array([question.query, question.a, question.b])
        lead = world.lead(row[None])[0]
        is_a = (lead > 0) != (rng.random() < world.noise)
        asked = np.vstack([asked, row if is_a else row[[0, 2, 1]]])
        on_side_a.append(is_a)
        decided.append(lead != 0)
        if decided[-1] and sum(decided) % args.every == 0:
            known = asked[np.array(decided, bool)]
            learned = lesson_of(world, known).learn(seed)
            curve.append(world.agreement(learned.head, parts, asked))
    return asked[np.array(decided, bool)], curve


def with_classes(world, asked, seed, parts):
    """Learn with all classes, and with half of them.

    Returns:
        For each (2, 3): agreement, and recall@1 before and after, of all images or of the others.
    """
    classes = np.random.default_rng([seed, 6]).permutation(np.unique(world.labels))
    half, others = np.split(classes, [len(classes) // 2])
    figures = []
    for given, judged in ((classes, classes), (half, others)):
        learned = lesson_of(world, asked, given).learn(seed)
        images = np.flatnonzero(np.isin(world.labels, judged))
        recalls = [
            recall_at_1(head.embed([part[images] for part in parts]), world.labels[images])
            for head in (world.head, learned.head)
        ]
        figures.append((world.agreement(learned.head, parts, asked), *recalls))
    return figures


def answers_needed(counts, curve, wanted):
    """Return after how many answers a curve first reaches an agreement, between its points."""
    for place in range(1, len(curve)):
        if curve[place] >= wanted:
            share = (wanted - curve[place - 1]) / (curve[place] - curve[place - 1])
            step = counts[place] - counts[place - 1]
            return counts[place - 1] + step * float(np.clip(share, 0, 1))
    return float("nan")


def draw(path, counts, curves, title, ceiling):
    """Draw the curves, and what the noise allows at 0.85 of it, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for way, rows in curves.items():
        line = axes.plot(counts, rows.mean(axis=0), label=f"{way}, mean of {len(rows)} seeds")[0]
        axes.fill_between(
            counts, rows.min(axis=0), rows.max(axis=0), alpha=0.15, color=line.get_color()
        )
    axes.axhline(ceiling, linestyle=":", color="0.4", label="0.85 of what the noise allows")
    axes.set(xlabel="answers", ylabel="agreement with the rule, questions held back", title=title)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Print the table, and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder of the images")
    parser.add_argument("--label", default="first", help="what makes an image's class")
    parser.add_argument("--model", type=Path, required=True, help="model to go on from")
    parser.add_argument("--rule", choices=RULES, default="colour")
    parser.add_argument("--noise", type=float, default=0.05, help="share of wrong answers")
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--every", type=int, default=25, help="answers between two lessons")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--cache_dir", type=Path, default=Path("deep_ranking_features"))
    parser.add_argument("--plot", type=Path, help="PNG to draw the curves to")
    args = parser.parse_args(argv)
    begin = time.monotonic()
    world = make_world(args)
    parts = read_parts(world.features, np.arange(len(world.labels)))
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    curves, bounded = {}, {}
    for way in WAYS:
        found = [session(world, way, seed, args, parts) for seed in seeds]
        curves[way] = np.array([curve for _, curve in found])
        bounded[way] = np.array(
            [
                with_classes(world, asked, seed, parts)
                for seed, (asked, _) in zip(seeds, found, strict=True)
            ]
        )
    counts = [args.every * number for number in range(len(curves["random"][0]))]
    what = f"{args.rule}, {args.noise:.0%} noise, {os.path.basename(args.dataset)}"
    print(f"{what}: agreement, mean of {args.seeds} seeds (of what the noise allows)")
    print("| answers |" + "".join(f" {count} |" for count in counts))
    print("| --- |" + " --- |" * len(counts))
    for way, rows in curves.items():
        cells = (f" {mean:.3f} ({world.allowed(mean):.3f}) |" for mean in rows.mean(axis=0))
        print(f"| {way} |" + "".join(cells))
    wanted = curves["random"].mean(axis=0)[-1]
    needed = answers_needed(counts, curves["chosen"].mean(axis=0), wanted)
    after = f"after {needed:.0f} answers, {needed / counts[-1]:.2f} of them"
    if np.isnan(needed):
        after = "not within as many"
    print(f"Chosen questions reach the {wanted:.3f} of {counts[-1]} random ones {after}.")
    for way, of_seeds in bounded.items():
        for place, title in enumerate(("all classes, judged on all", "half, on the others")):
            rows = of_seeds[:, place]
            agreement, before, after = rows.mean(axis=0)
            print(
                f"With class folders ({title}), {way}: agreement {agreement:.3f} "
                f"({world.allowed(agreement):.3f}), recall@1 {before:.4f} before, {after:.4f} "
                f"after; the largest fall {(rows[:, 1] - rows[:, 2]).max():.4f}"
            )
    if args.plot:
        # 0.85 (1 - noise) of noisy answers, as agreement with the rule itself
        ceiling = (0.85 * (1 - world.noise) - world.noise) / (1 - 2 * world.noise)
        draw(args.plot, counts, curves, what, ceiling)
    print(f"{time.monotonic() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
