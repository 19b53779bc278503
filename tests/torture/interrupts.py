"""Every command stopped at a random moment, by Ctrl-C or SIGTERM: one line, exit code 130."""

import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from torture.children import run as run_child
from torture.children import start, wait

REPEATS = 1  # of each command with each signal
FIRST_SECOND = 0.4  # before it, Python itself is starting
SECONDS_TO_END = 30  # after the signal
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Case:
    """A command to stop.

    Attributes:
        name: of the command.
        arguments: what follows `python`.
        outputs: files that it would write, in a folder of its own.
        number: the signal.
        moment: seconds after the start.
    """

    name: str
    arguments: list
    outputs: list
    number: signal.Signals
    moment: float


def run(tally, folder, seed):
    """Stop every command, and see what it says and leaves behind."""
    commands = prepare(folder)
    rng = random.Random(seed)
    with ThreadPoolExecutor(2) as two:  # as many as there are cores
        lengths = two.map(lambda name: undisturbed(name, *commands[name](folder / name)), commands)
        cases = []
        for name, (seconds, problem) in zip(commands, lengths, strict=True):
            if problem:
                tally.problem("wrong", problem)
            for number in SIGNALS * REPEATS:
                moment = rng.uniform(FIRST_SECOND, max(FIRST_SECOND, 0.85 * seconds))
                arguments, outputs = commands[name](folder / f"{name}-{len(cases)}")
                cases.append(Case(name, arguments, outputs, number, moment))
        for case, ended in zip(cases, two.map(stop, cases), strict=True):
            judge(tally, case, ended)


def undisturbed(name, arguments, outputs):
    """Run a command to its end: its seconds, and what was wrong with it."""
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    ended = run_child(arguments, seconds=300)
    problem = f"{name}, undisturbed: code {ended.code}: {ended.errors[-300:]!r}"
    return time.monotonic() - began, problem if ended.code or ended.errors else None


def stop(case):
    """Start a command, send it the signal, and say how it `Ended`."""
    for path in case.outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    process = start(case.arguments)
    time.sleep(case.moment)
    while process.poll() is None and not catches(process.pid, case.number):
        time.sleep(0.01)  # on a busy machine Python itself is still starting
    process.send_signal(case.number)
    return wait(process, SECONDS_TO_END)


def catches(pid, number):
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
    return bool(caught >> (number - 1) & 1)


def judge(tally, case, ended):
    """Count how a stopped command ended."""
    left = [path for output in case.outputs for path in output.parent.rglob(".writing-*")]
    what = f"{case.name}, {case.number.name} after {case.moment:.1f} s: code {ended.code}"
    if ended.hung:
        tally.problem("hangs", what)
    elif ended.crashed:
        tally.problem("crashes", f"{what}: {ended.errors[-300:]!r}")
    elif left:
        tally.problem("lost", f"{what}: left {left[0]}")
    elif ended.code == 0 and not ended.errors:
        pass  # it was done before
    elif is_one_line(ended):
        tally.interrupts += 1
    else:
        tally.problem("wrong", f"{what}: {ended.errors[-300:]!r}")


def is_one_line(ended):
    """Whether a command said that it was interrupted, by one line and its exit code."""
    lines = ended.errors.splitlines()
    return ended.code == 130 and len(lines) == 1 and lines[0].startswith("interrupted")


def prepare(folder):
    """Make images, triplets, a model and an index.

    Returns:
        Of each command a function: folder to write to -> its arguments, and the files it writes.
    """
    images = folder / "images"
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (images / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 60, (16, 16, 3), dtype=np.uint8)
            pixels[:, :, channel] += 180
            Image.fromarray(pixels).save(images / name / f"{number}.png")
    model, index = folder / "model.h5", folder / "index"
    triplets = folder / "triplets.txt"
    one, other = images / "red/0.png", images / "blue/1.png"
    small = ("--weights", "none", "--image_size", 32, "--hidden_size", 8, "--batch_size", 6)
    package = ("-m", "deep_ranking")

    def sample(out):
        few = ("--num_pos_images", 4, "--num_neg_images", 12)
        return (
            ["triplet_sampler.py", "--input_directory", images, "--output_directory", out, *few],
            [out / "triplets.txt"],
        )

    def train(out):
        flags = ("--triplets", triplets, "--epochs", 2, "--steps_per_epoch", 6)
        return ["train.py", *small, *flags, "--output", out / "m.h5"], [out / "m.h5"]

    def embed(out):
        flags = ("--model", model, "--images", images, "--output", out / "index")
        return [*package, "index", *flags], [out / "index"]

    for name, (arguments, written) in {
        "sample": sample(folder),
        "train": train(folder / "trained"),
    }.items():
        written[0].parent.mkdir(parents=True, exist_ok=True)
        ended = run_child(arguments, seconds=300)
        assert ended.code == 0, (name, ended.errors)
    (folder / "trained/m.h5").rename(model)
    ended = run_child(embed(folder)[0], seconds=300)
    assert ended.code == 0, ended.errors

    def reads(*arguments):
        return lambda out: ([*package, *arguments], [])

    def writes(flag, file, *arguments):
        return lambda out: ([*package, *arguments, flag, out / file], [out / file])

    on_images = ("--model", model, "--dataset", images)
    on_two = ("--model", model, "--image1", one, "--image2", other)
    return {
        "sample": sample,
        "train": train,
        "index": embed,
        "compare": lambda out: (["compare.py", *on_two], []),
        "evaluate": writes(
            "--json", "e.json", "evaluate", *on_images, "--baselines", "--weights", "none"
        ),
        "search": writes("--picture", "s.png", "search", "--index", index, "--image", one),
        "duplicates": writes("--html", "d.html", "duplicates", "--index", index),
        "report": writes("--output", "r.html", "report", *on_images),
        "explain": writes("--output", "x.png", "explain", *on_two),
        "summary": reads("summary", "--model", model),
        "export": writes("--output", "m", "export", "--model", model, "--format", "savedmodel"),
        "dataset": writes("--output", "digits", "dataset", "digits"),
        "stats": reads("dataset", "stats", images),
        "demo": writes("--output_directory", "demo", "demo", "--epochs", 20),
    }
