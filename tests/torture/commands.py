"""Every command with odd but possible values of every flag, and odd inputs.

Each line of arguments is that of a command that works, with one flag changed or added. The command
must end with exit code 0, 1 or 2; with 1 or 2 it prints exactly one line of error and no traceback;
and no temporary file may stay. The lines are tried in random order until the time is over, in a
child in which TensorFlow is warm. A child that crashes is started again behind its line.
"""

import contextlib
import gc
import io
import json
import os
import queue
import random
import re
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from torture.children import ROOT, kill, start

TESTS = ROOT / "tests"
SECONDS = 240
COMMAND_SECONDS = 20
CLEARED_AFTER = 20  # lines, after which what TensorFlow keeps of models goes
NUMBERS = ("0", "-1", "1", "3", "0.5", "nan", "inf", "-inf", "1e999", "9" * 25, "1e-320", "", "x")
TEXTS = (
    "",
    " ",
    "é",
    "\u202ea",
    "a\nb",
    "\x1b[31m",
    "%s{0}",
    "-",
    "a" * 300,
    "b" * 2_000,
    ".",
    "0,0",
)
# Flags whose larger values only mean longer work, or work on the network.
LONG = {"epochs", "steps_per_epoch", "steps", "shards", "url", "cached_views", "image_size"}
NEVER = {"help", "help_all", "verbose", "weights", "url", "backbone"}  # imagenet is a download

TRAIN = ("--image_size", "32", "--weights", "none", "--epochs", "1", "--steps_per_epoch", "1",
         "--hidden_layers", "0", "--multiscale", "none", "--embedding_size", "4", "--output",
         "out/m.h5", "--overwrite")  # fmt: skip
CLASSES = ("--dataset", "photos", "--batches", "classes", "--batch_size", "6",
           "--images_per_class", "2")  # fmt: skip
COMMANDS = {
    "sample": [("--input_directory", "photos", "--output_directory", "out")],
    "train": [
        (*TRAIN, "--triplets", "triplets.txt", "--batch_size", "6"),
        (*TRAIN, *CLASSES),
        (*TRAIN, *CLASSES, "--cache_features", "--train_from", "head"),
        (*TRAIN, "--dataset", "photos", "--strategy", "out-of-class", "--batch_size", "6"),
    ],
    "doctor": [("--dataset", "photos", "--no-estimate"),
               ("--dataset", "photos", "--weights", "none", "--image_size", "32")],
    "compare": [("--model", "m.h5", "--image1", "photos/a/0.png", "--image2", "photos/b/1.png"),
                ("--model", "m.h5", "--pairs", "pairs.csv")],
    "evaluate": [("--model", "m.h5", "--dataset", "photos"),
                 ("--model", "m.h5", "--dataset", "photos", "--baselines", "--weights", "none"),
                 ("--model", "m.h5", "--triplets", "triplets.txt")],
    "index": [("--model", "m.h5", "--images", "photos", "--output", "out/index"),
              ("--output", "whole.index", "--index", "clusters")],
    "search": [("--index", "whole.index", "--image", "photos/a/0.png")],
    "merge": [("shard1", "shard2", "--output", "out/merged")],
    "duplicates": [("--index", "whole.index")],
    "calibrate": [("--model", "m.h5", "--dataset", "photos")],
    "report": [("--model", "m.h5", "--dataset", "photos", "--output", "out/r.html")],
    "explain": [("--model", "m.h5", "--image1", "photos/a/0.png", "--image2", "photos/b/1.png",
                 "--output", "out/e.png")],
    "summary": [("--model", "m.h5"), ("--weights", "none", "--image_size", "32")],
    "export": [("--model", "m.h5", "--format", "savedmodel", "--output", "out/saved")],
    "dataset": [("stats", "photos"), ("digits", "--output", "out/digits")],
}  # fmt: skip


def run(tally, folder, seed):
    """Try as many lines as there is time for."""
    deadline = time.monotonic() + SECONDS
    begin = 0
    while time.monotonic() < deadline:
        with (folder / "commands.err").open("wb") as notes:
            child = start(
                ["-m", "torture.commands", folder, seed, begin],
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}", "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            lines = queue.Queue()
            for stream, use in ((child.stdout, lines.put), (child.stderr, notes.write)):
                threading.Thread(target=_pass_on, args=(stream, use), daemon=True).start()
            code = None
            try:
                while time.monotonic() < deadline:
                    line = lines.get(timeout=COMMAND_SECONDS + 60)
                    if line is None:
                        code = child.wait()
                        break
                    result = json.loads(line)
                    begin = result["number"] + 1
                    _judge(tally, result)
            except queue.Empty:
                tally.problem("hangs", f"line {begin} of seed {seed}")
                begin += 1
                continue
            finally:
                kill(child)
        if code == 0:
            break
        if code is not None:
            tally.problem("crashes", f"line {begin} of seed {seed}: exit code {code}")
            begin += 1


def _pass_on(stream, use):
    for line in stream:
        if use.__self__.__class__ is not queue.Queue or line.startswith(b"{"):
            use(line)
    if isinstance(use.__self__, queue.Queue):
        use(None)


def _judge(tally, result):
    tally.tried += 1
    said = f"{result['argv']!a}"[:400]
    errors = [line for line in result["errors"].splitlines() if re.match(r".*\berror: ", line)]
    if result["raised"]:
        tally.problem("crashes", f"{said}: {result['raised']}")
    elif result["left"]:
        tally.problem("wrong", f"{said}: left {result['left']!a}")
    elif result["code"] in (1, 2) and len(errors) == 1 and "Traceback" not in result["errors"]:
        tally.refused += 1
    elif (result["code"] == 0 and not errors) or (result["code"] == 130 and result["long"]):
        tally.accepted += 1
    elif result["code"] == 130:
        tally.problem("hangs", said)
    else:
        tally.problem("wrong", f"{said}: code {result['code']}: {result['errors'][-500:]!a}")


def lines_of(seed):
    """Give each command's arguments with one flag changed, and its name, in random order."""
    from deep_ranking.cli.main import make_parser

    lines = []
    for command, bases in COMMANDS.items():
        for base in bases:
            parser = make_parser(command)
            if command == "dataset":
                choices = next(each for each in parser._actions if each.dest == "dataset").choices
                parser = choices[base[0]]
            for action in parser._actions:
                if action.dest in NEVER:
                    continue
                for value in _values(action):
                    lines.append((command, action.dest, _changed(base, action, value)))
    random.Random(seed).shuffle(lines)
    # Odd inputs get further than odd values, which parsers refuse at once: two for each of these.
    odd = set(ODD_PATHS) - set(USUAL_PATHS)
    inputs = [each for each in lines if odd & {part.partition("=")[2] or part for part in each[2]}]
    values = [each for each in lines if each not in inputs]
    mixed = []
    while inputs or values:
        mixed += [inputs.pop() for _ in range(min(2, len(inputs)))]
        mixed += [values.pop() for _ in range(min(1, len(values)))]
    return mixed


def _values(action):
    if action.nargs == 0:
        return [None]
    if action.type is Path or action.dest in {"image", "image1", "shards", "root", "images"}:
        return [*ODD_PATHS, *TEXTS]
    if action.choices:
        return [*map(str, action.choices), "x", ""]
    return TEXTS if action.type in (None, str) else [*NUMBERS, "é"]


def _changed(base, action, value):
    """Give the arguments with a flag's value in place of the one that it has, or behind them."""
    line = list(base)
    flags = [each for each in action.option_strings if each in line]
    if not action.option_strings:  # a positional argument
        line[1 if line[0] in ("stats", "digits") else 0] = value
    elif flags and value is not None:
        line[line.index(flags[0]) + 1] = value
    else:
        flag = next(each for each in action.option_strings if each.startswith("--"))
        line += [flag] if value is None else [f"{flag}={value}"]
    return line


ODD_PATHS = (
    *("missing", "empty", "empty.txt", "one", "one/c", "photos/a/0.png", "broken.png", "text.txt"),
    *("cut.h5", "m.h5", "flipped.h5", "cut.index", "whole.index", "photos", "fifo", "loop", "dead"),
    *(
        "nested.json",
        "wide.csv",
        "nul.csv",
        "triplets.txt",
        "pairs.csv",
        "photos/../photos",
        "Ü \n",
    ),
    *("empty.index", "undo.json", "missing/a/b", "text.txt/a", "out", "Ü \n"),
)
# Which the lines name anyway.
USUAL_PATHS = ("photos", "m.h5", "whole.index", "photos/a/0.png", "triplets.txt", "pairs.csv")


def make_inputs(folder):
    """Write what the lines name."""
    import numpy as np
    from PIL import Image

    from deep_ranking.cli.main import run_command
    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.file import save_model
    from deep_ranking.model.network import build_network

    rng = np.random.default_rng(0)
    for name in ("photos/a", "photos/b", "photos/c", "one/c"):
        Path(name).mkdir(parents=True)
        for number in range(1 if name == "one/c" else 4):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(f"{name}/{number}.png")
    network = NetworkConfig(
        image_size=32, weights=None, multiscale="none", hidden_layers=0, embedding_size=4
    )
    save_model(build_network(network, seed=0), Path("m.h5"))
    data = Path("m.h5").read_bytes()
    Path("cut.h5").write_bytes(data[: len(data) // 2])
    Path("flipped.h5").write_bytes(data[:3_000] + b"\xff" * 64 + data[3_064:])
    for each in ("empty", "empty.index", "out"):
        Path(each).mkdir()
    paths = [f"photos/{name}/{number}.png" for name in "abc" for number in range(4)]
    rows = [f"{paths[i]},{paths[i ^ 1]},{paths[(i + 5) % 12]}" for i in range(12)]
    Path("triplets.txt").write_text("\n".join(rows) + "\n")
    Path("pairs.csv").write_text(f"{paths[0]},{paths[1]}\n{paths[0]},{paths[9]}\n")
    for name, content in {
        "empty.txt": b"", "text.txt": b"some words\n" * 9, "broken.png": b"\x89PNG\r\n\x1a\n" * 4,
        "nested.json": b"[" * 100_000, "wide.csv": b"a," * 9_999, "nul.csv": b"a,\0,b\n" * 3,
        "Ü \n": b"x", "undo.json": b'{"moved": [1]}',
    }.items():  # fmt: skip
        Path(name).write_bytes(content)
    os.mkfifo("fifo")
    os.symlink("loop", "loop")
    os.symlink("missing", "dead")
    index = ["--model", "m.h5", "--images", "photos", "--output"]
    for name, more in (("whole.index", []), ("cut.index", []), ("shard1", ["--shard", "1/2"]),
                       ("shard2", ["--shard", "2/2"])):  # fmt: skip
        run_command("index", [*index, name, *more])
    for file in Path("cut.index").iterdir():
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)


def _files():
    return {str(path) for path in Path().rglob("*") if not path.is_symlink()}


def main(folder, seed, begin):
    """Run each line from a number on, in this process; a line of JSON for each."""
    import keras
    import tensorflow as tf
    from stubs import build_thin_vgg16

    from deep_ranking.cli.main import run_command

    # The network is not what is tried here: a thin one is built and run at once.
    keras.applications.VGG16 = build_thin_vgg16
    tf.config.run_functions_eagerly(True)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    os.chdir(work)
    out = sys.stdout
    if begin == 0:
        with contextlib.redirect_stdout(io.StringIO()):
            make_inputs(work)
    for number, (command, changed, argv) in enumerate(lines_of(seed)):
        if number < begin:
            continue
        before = _files()
        errors, raised, code = io.StringIO(), "", None
        sys.stdin = io.StringIO("photos/a/0.png\n")
        signal.setitimer(signal.ITIMER_REAL, COMMAND_SECONDS)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = run_command(command, argv)
            except SystemExit as end:
                code = end.code
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                own = [each for each in frames if "/deep_ranking/" in each.filename]
                last = own[-1] if own else frames[-1]
                where = f"{Path(last.filename).name}:{last.lineno}"
                raised = f"{type(error).__name__}: {str(error)[:200]!a} at {where}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        if number % CLEARED_AFTER == 0:
            keras.utils.clear_session()
            gc.collect()
        left = [each for each in _files() - before if re.search(r"\.(tmp|part)|/\.|^\.", each)]
        said = errors.getvalue()
        result = {
            "number": number, "argv": [command, *argv], "code": code, "raised": raised,
            "errors": said[:3_000] + said[3_000:][-3_000:],
            "left": [] if code == 130 else left, "long": changed in LONG,
        }  # fmt: skip
        print(json.dumps(result), file=out, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
