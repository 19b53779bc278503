"""Hostile images before every command that reads images: right pixels, or one error with the name.

The reader itself gets every case, in a child whose memory is limited. The commands get all cases at
once where they take many, and those worth it one by one, in a child in which TensorFlow is warm. A
child that crashes or hangs is started again behind the case that it was at.
"""

import contextlib
import gc
import io
import json
import os
import queue
import resource
import sys
import threading
from pathlib import Path

from torture.children import ROOT, kill, start
from torture.children import run as run_script
from torture.images import PIXELS, REFUSED, cases, shows

TESTS = ROOT / "tests"
ADDRESS_SPACE = 4_000  # megabytes that the reader may map; much of it is never touched
RESIDENT = {"reader": 1_900, "commands": 2_900}  # decoding takes 1 GiB, TensorFlow 700 MB
JOBS_A_PROCESS = 60  # TensorFlow keeps something of each model that was loaded: 10 MB and more
READER_SECONDS, COMMAND_SECONDS = 60, 180
SEARCHED = 6  # of so many images, one is searched for: what reads it is what compares it
NUM_PROCESSES = 4  # cases that a whole process is started for


def run(tally, folder, seed):
    """Try all cases on the reader, the commands, and some on the scripts."""
    images = folder / "images"
    corpus = list(cases(seed))
    for number, case in enumerate(corpus):
        path = path_of(images, number, case)
        path.parent.mkdir(parents=True, exist_ok=True)
        case.make(path)
    (images / "class 0" / "loop").symlink_to(images, target_is_directory=True)
    print(f"  {len(corpus):,} images, {sum(case.special for case in corpus)} of them special")
    read = {}
    for number, result in _results("reader", folder, seed, len(corpus), tally):
        read[number] = result.get("problem")
        _judge(tally, corpus[number], path_of(images, number, corpus[number]), result)
        _judge_memory(tally, "reader", corpus[number].name, result)
    print(f"  read: {tally.accepted:,} accepted, {tally.refused:,} refused", flush=True)
    (folder / "read.json").write_text(json.dumps(read))
    jobs = jobs_of(folder, seed)
    for number, result in _results("commands", folder, seed, len(jobs), tally):
        label, _, code, named = jobs[number]
        _judge_command(tally, label, code, named, (result["code"], result["errors"]))
        if (number + 1) % 50 == 0 or not label.startswith(("compare", "search")):
            print(f"  {number + 1} of {len(jobs)} commands: {label}", flush=True)
        _judge_memory(tally, "commands", label, result)
    _try_scripts(tally, folder, jobs)


def path_of(images, number, case):
    """Give where a case lies: in one of two classes, or with the huge ones beside them."""
    if case.is_huge:
        return images.with_name("huge") / case.name
    return images / f"class {number % 2}" / case.name


def _judge(tally, case, path, result):
    tally.tried += 1
    problem = result["problem"]
    if problem is None:
        tally.accepted += 1
        if case.due == REFUSED or not result["right"]:
            tally.problem("wrong", f"{case.name!a}: accepted, or shown wrongly")
    elif not problem.startswith(f"{shown(path)}: ") or len(problem.splitlines()) != 1:
        tally.problem("wrong", f"{case.name!a}: not one line that names it: {problem!a}")
    else:
        tally.refused += 1
        if case.due == PIXELS:
            tally.problem("wrong", f"{case.name!a}: refused: {problem!a}")


def _judge_memory(tally, kind, label, result):
    if result["megabytes"] > RESIDENT[kind]:
        tally.problem("wrong", f"{label!a}: {result['megabytes']:,} MB of memory by then")
        RESIDENT[kind] = result["megabytes"]  # said once: a process never takes less again


def _judge_command(tally, label, code, named, ended):
    received, errors = ended
    tally.tried += 1
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if "Traceback (most recent call" in errors:
        tally.problem("crashes", f"{label}: {errors[-600:]!a}")
    elif code is None and received not in (0, 1):
        tally.problem("wrong", f"{label}: exit code {received}: {errors[-300:]!a}")
    elif code is not None and received != code:
        tally.problem("wrong", f"{label}: exit code {received}, not {code}: {errors[-300:]!a}")
    elif received == 0:
        tally.accepted += 1
    elif len(lines) != 1 or named not in lines[0]:
        tally.problem("wrong", f"{label}: not one line that names {named!a}: {errors[-300:]!a}")
    else:
        tally.refused += 1


def shown(path):
    """Give a path as errors show it."""
    from deep_ranking.files.errors import printable

    return printable(str(path))


def _results(kind, folder, seed, count, tally):
    """Number and result of each case or job, from as many children as it takes."""
    begin = 0
    seconds = READER_SECONDS if kind == "reader" else COMMAND_SECONDS
    while begin < count:
        end = count if kind == "reader" else min(count, begin + JOBS_A_PROCESS)
        with (folder / f"{kind}.err").open("wb") as notes:
            child = start(
                ["-m", "torture.readers", kind, folder, seed, begin],
                megabytes=ADDRESS_SPACE if kind == "reader" else None,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}", "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            lines = queue.Queue()
            threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
            threading.Thread(
                target=lambda source=child.stderr, notes=notes: [notes.write(x) for x in source],
                daemon=True,
            ).start()
            try:
                while begin < end:
                    line = lines.get(timeout=seconds + (60 if kind == "commands" else 0))
                    if line is None:
                        break
                    yield begin, json.loads(line)
                    begin += 1
            except queue.Empty:
                tally.problem("hangs", f"{kind} at number {begin}")
                begin += 1
                continue
            finally:
                kill(child)
                code = child.wait()
        if begin < end:
            notes = (folder / f"{kind}.err").read_text(errors="backslashreplace")[-600:]
            tally.problem("crashes", f"{kind} at number {begin}: exit code {code}: {notes!a}")
            begin += 1


def _pass_on(source, lines):
    for line in source:
        if line.startswith(b"{"):
            lines.put(line)
    lines.put(None)


def jobs_of(folder, seed):
    """Give label, arguments, the exit code due and what the error must name, of each command."""
    images, model, index = folder / "images", folder / "model.h5", folder / "index"
    read = {int(number): problem for number, problem in json.loads(
        (folder / "read.json").read_text()).items()}  # fmt: skip
    corpus = list(cases(seed))
    paths = [path_of(images, number, case) for number, case in enumerate(corpus)]
    good = next(path for number, path in enumerate(paths) if read.get(number, "") is None)
    train = ["train", "--weights", "none", "--image_size", 32, "--multiscale", "none",
             "--hidden_layers", 0, "--epochs", 1, "--no-tensorboard", "--overwrite"]  # fmt: skip
    classes = [*train, "--batches", "classes", "--batch_size", 8, "--images_per_class", 4,
               "--steps_per_epoch", 4]  # fmt: skip
    base = str(images)
    jobs = [
        ("sampler: all", ["sample", "--input_directory", images, "--num_pos_images", 1,
         "--num_neg_images", 1, "--output_directory", folder], 0, ""),
        ("stats: all", ["dataset", "stats", images], 0, ""),
        ("doctor: all", ["doctor", "--dataset", images, "--skip_broken", "--no-estimate"], 0, ""),
        ("index: all", ["index", "--model", model, "--images", images, "--output", index], 0, ""),
        ("index: all, again", ["index", "--output", index, "--checksum"], 0, ""),
        ("index: huge", ["index", "--model", model, "--images", folder / "huge", "--output",
         folder / "index of huge"], 0, ""),
        ("duplicates: all", ["duplicates", "--index", index], 0, ""),
        ("train: all of a folder, skipping", [*classes, "--dataset", images, "--skip_broken",
         "--output", folder / "run" / "model.h5"], 0, ""),
        ("train: all of a folder", [*classes, "--dataset", images, "--steps_per_epoch", 200,
         "--output", folder / "run2" / "model.h5"], 1, base),
        ("train: all triplets, skipping", [*train, "--triplets", folder / "small.txt",
         "--batch_size", 48, "--skip_broken", "--output", folder / "run3" / "model.h5"], 0, ""),
        ("train: all triplets", [*train, "--triplets", folder / "small.txt", "--batch_size", 48,
         "--output", folder / "run4" / "model.h5"], 1, base),
        ("evaluate: all", ["evaluate", "--model", model, "--dataset", images], None, base),
    ]  # fmt: skip
    for number, case in enumerate(corpus):
        if not case.special or number not in read:
            continue
        code, named = (0, "") if read[number] is None else (1, shown(paths[number]))
        compare = ["compare", "--model", model, f"--image1={paths[number]}", f"--image2={good}"]
        search = ["search", "--index", index, f"--image={paths[number]}", "--top", 3]
        jobs.append((f"compare: {case.name!a}", compare, code, named))
        if case.name == "folder.png":  # all images of a folder are queries
            named = shown(paths[number])
        if not case.is_huge and number % SEARCHED == 0:
            jobs.append((f"search: {case.name!a}", search, code, named))
    return jobs


def _try_scripts(tally, folder, jobs):
    scripts = {"sample": "triplet_sampler.py", "train": "train.py", "compare": "compare.py"}
    left = {"sample": 1, "train": 2, "compare": NUM_PROCESSES}
    for label, (command, *arguments), code, named in jobs:
        if left.get(command, 0) and (command != "compare" or code):
            left[command] -= 1
            ended = run_script([ROOT / scripts[command], *arguments], seconds=COMMAND_SECONDS)
            if ended.hung:
                tally.problem("hangs", f"{scripts[command]}, {label}")
            else:
                name = f"{scripts[command]}, {label}"
                _judge_command(tally, name, code, named, (ended.code, ended.errors))


def reader(folder, seed, begin):
    """Read every case from a number on; a line of JSON for each."""
    from deep_ranking.files import InputError
    from deep_ranking.files.content_digest import content_digests
    from deep_ranking.images import fitting_size, open_header, open_image, read_image

    for number, case in enumerate(cases(seed)):
        if number < begin:
            continue
        path = path_of(folder / "images", number, case)
        fitting_size([path], 224)
        list(content_digests([path], open_file=open_image))
        with contextlib.suppress(InputError), open_header(path):
            pass
        result = {"problem": None, "right": True, "megabytes": 0}
        try:
            pixels = read_image(path, 32)
        except InputError as error:
            result["problem"] = str(error)
        else:
            result["right"] = case.colors is None or shows(pixels, case.colors)
        result["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps(result), flush=True)


def commands(folder, seed, begin):
    """Run every job from a number on, in this process; a line of JSON for each."""
    import keras

    from deep_ranking.cli.main import run_command
    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.file import save_model
    from deep_ranking.model.network import build_network

    if begin == 0:
        network = NetworkConfig(image_size=32, weights=None, multiscale="none", hidden_layers=0)
        save_model(build_network(network, seed=seed), folder / "model.h5")
    out = sys.stdout
    for number, (label, arguments, code, _) in enumerate(jobs_of(folder, seed)):
        if number < begin:
            continue
        errors, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(said):
            try:
                ended = run_command(arguments[0], list(map(str, arguments[1:])))
            except SystemExit as error:
                ended = error.code
        keras.utils.clear_session()
        gc.collect()
        if label == "sampler: all":
            lines = (folder / "triplets.txt").read_bytes().splitlines(keepends=True)
            (folder / "small.txt").write_bytes(b"".join(lines[::4]))
        if code is None:  # the command may leave images out or stop
            print(f"  {label}: exit code {ended}", file=sys.stderr)
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        result = {"code": ended, "errors": errors.getvalue()[-3_000:], "megabytes": megabytes}
        print(json.dumps(result), file=out, flush=True)


if __name__ == "__main__":
    {"reader": reader, "commands": commands}[sys.argv[1]](
        Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    )
