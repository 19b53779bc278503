"""Hostile models, indices and checkpoints before all that loads them.

A warm child (this module, run as a program) tries many files and says of each what became of it;
where it crashes or does not answer, the file is known, and the next child goes on behind it.
"""

import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from torture import children, models

SECONDS = 30  # for a file
LIGHT, HEAVY = 2_500, 9_000  # megabytes of address space: without TensorFlow, and with it
FLIPS = {"header": 300, "model": 75, "clusters": 400, "hierarchy": 200, "table": 150}
SETTINGS = {"image_size": 32, "hidden_size": 16, "embedding_size": 8}


def run(tally, folder, seed):
    """Try all files before all readers."""
    sound = _sound(folder)
    for reader, cases in _cases(seed).items():
        _try(tally, folder / reader, reader, cases, sound[_sound_for(reader)])
    _commands(tally, folder / "commands", sound["model"])


def _sound_for(reader):
    if reader in ("header", "model", "weights"):
        return "model"
    return "table" if reader == "table" else reader


def _cases(seed):
    header = [*models.CASES, *models.random_cases(seed, FLIPS["header"])]
    model = [*models.CASES, *models.random_cases(seed, FLIPS["model"])]
    # Building a network takes a second: those that a file's header does not decide.
    model = [*models.CASES, *model[len(models.CASES) :: 5]]
    # Of a model to start from, layers that do not fit are passed over: the spoilt kernel may be.
    weights = [
        models.Case(each.name, each.change, models.EITHER, raw=each.raw)
        for each in (*models.CODE, *models.OUTSIDE, *models.BOMBS)
    ]

    def spoilt(name):
        return [
            models.Case(each.name, each.change, models.EITHER, raw=True)
            for each in models.random_cases(seed, FLIPS[name])
        ]

    return {
        "header": header,
        "clusters": spoilt("clusters"),
        "hierarchy": spoilt("hierarchy"),
        "table": spoilt("table"),
        "model": model,
        "weights": weights,
    }


def _sound(folder):
    """Make one sound file of each kind, in a process of its own."""
    made = children.run(["-m", "torture.loaders", "make", folder], seconds=120, env=_environment())
    if made.code:
        raise RuntimeError(made.errors)
    return {
        "model": folder / "sound.h5",
        "clusters": folder / "clusters.faiss",
        "hierarchy": folder / "hierarchy.faiss",
        "table": folder / "images.sqlite",
    }


def _environment():
    """That of children: they find this package, and the project that it lies in."""
    places = (str(children.ROOT), str(children.ROOT / "tests"))
    return os.environ | {"PYTHONPATH": os.pathsep.join(places)}


class _Child:
    """A warm child and what it says."""

    def __init__(self, reader, sound):
        heavy = reader in ("model", "weights")
        megabytes = HEAVY if heavy else LIGHT

        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20,) * 2)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "torture.loaders", "read", reader, str(sound)],
            cwd=children.ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=limit,  # noqa: PLW1509 (no thread of ours forks)
        )
        self.answers = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if self.answers.get(timeout=120) != {"said": "ready"}:
            raise RuntimeError(f"the reader {reader} does not start")

    def _listen(self):
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put(None)

    def ask(self, path):
        """Give what became of a file; None for a crash, "hung" for none in time."""
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        try:
            return self.answers.get(timeout=SECONDS)
        except queue.Empty:
            return "hung"

    def end(self):
        children.kill(self.process)
        self.process.wait()


def _try(tally, folder, reader, cases, sound):
    folder.mkdir()
    child = _Child(reader, sound)
    for case in cases:
        inner = folder / "case"
        inner.mkdir()
        path = case.make(sound, inner / f"hostile{sound.suffix}")
        tally.tried += 1
        name = f"{reader}: {case.name}"
        answer = child.ask(path)
        if answer is None or answer == "hung":
            tally.problem("hangs" if answer else "crashes", name)
            child.end()
            child = _Child(reader, sound)
        else:
            _judge(tally, name, case, answer, path)
        if (inner / models.CANARY).exists():
            tally.problem("wrong", f"{name}: ran code of the file")
        shutil.rmtree(inner)
    child.end()


def _judge(tally, name, case, answer, path):
    if "trace" in answer:
        tally.problem("crashes", f"{name}: {answer['trace']}")
        return
    said = answer["said"]
    due = case.due
    if due == models.EITHER:
        due = models.ACCEPTED if said is None else models.REFUSED
    one_line = said is None or (said.startswith(f"{path}: ") and said.isprintable())
    if (said is None) != (due == models.ACCEPTED) or not one_line or not answer["right"]:
        tally.problem("wrong", f"{name}: {said or 'accepted'}")
    elif said is None:
        tally.accepted += 1
    else:
        tally.refused += 1


COMMANDS = (
    ("summary", "--model"),
    ("index", "--images", ".", "--output", "made", "--model"),
    ("compare", "--image1", "a.png", "--image2", "a.png", "--model"),
    ("export", "--format", "savedmodel", "--output", "exported", "--model"),
)
OF_COMMANDS = ("lambda", "external link", "enormous JSON", "network of more gigabytes", "pipe")


def _commands(tally, folder, sound):
    """Some files before the commands themselves: one line, and exit code 1."""
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    by_name = {case.name: case for case in models.CASES}
    for number, name in enumerate(OF_COMMANDS):
        command = [
            str(folder / each) if each in (".", "made", "a.png", "exported") else each
            for each in COMMANDS[number % len(COMMANDS)]
        ]
        path = by_name[name].make(sound, folder / "hostile.h5")
        ended = children.run(["-m", "deep_ranking", *command, path], megabytes=HEAVY, seconds=90)
        tally.tried += 1
        said = f"{command[0]}: {name}"
        lines = ended.errors.splitlines()
        refused = ended.code == 1 and len(lines) == 1 and lines[0].startswith(f"error: {path}: ")
        if ended.hung or ended.crashed:
            tally.problem("hangs" if ended.hung else "crashes", f"{said}: {ended.errors[-300:]}")
        elif ended.code and not refused:
            tally.problem("wrong", f"{said}: {ended.code} {ended.errors[-300:]}")
        else:
            tally.accepted += not ended.code
            tally.refused += bool(ended.code)
        if (folder / models.CANARY).exists():
            tally.problem("wrong", f"{said}: ran code of the file")
        path.unlink()


# What follows runs in children.


def _make(folder):
    import numpy as np

    from deep_ranking.cli.library_messages import start_tensorflow

    start_tensorflow()
    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.file import save_model
    from deep_ranking.model.network import build_network
    from deep_ranking.search.collection import ImageTable
    from deep_ranking.search.collection.records import FoundFile
    from deep_ranking.search.index.clusters import ENDING, ClusterIndex, HierarchyIndex

    network = NetworkConfig(weights=None, backbone="mobilenet", **SETTINGS)
    save_model(build_network(network, seed=1), folder / "sound.h5")
    rows = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    for kind in (ClusterIndex, HierarchyIndex):
        index = kind(folder / f"{kind.kind}.faiss", num_clusters=9)
        index.update(rows, np.arange(400), np.empty(0, np.int64))
        # As earlier versions wrote it: without checksums, which would refuse the rest at once.
        file = folder / f"{kind.kind}.faiss"
        content = file.read_bytes()
        size = ENDING.unpack(content[-ENDING.size :])[1]
        file.write_bytes(content[:size] + content[-ENDING.size :])
    table = ImageTable(folder / "images.sqlite", writable=True)
    with table.change():
        for number in range(50):
            content = number.to_bytes(32)
            table.record(FoundFile(f"{number}.png", 1, 1), content)
            table.set_row(content, number)
    table.close()


def _reader_of(name, sound):
    """A function that reads a file; whether what it gave is right is told by what it returns."""
    import numpy as np

    if name == "header":
        from deep_ranking.model.header import read_header

        return lambda path: bool(read_header(path).fingerprint)
    if name == "model":
        from deep_ranking.cli.library_messages import start_tensorflow

        start_tensorflow()
        from deep_ranking.model.file import load_model

        def load(path):
            # No digest tells whether these weights are those that were saved.
            return all(np.isfinite(each).all() for each in load_model(path).get_weights())

        return load
    if name == "weights":
        from deep_ranking.config import NetworkConfig
        from deep_ranking.model.network import build_network

        def start_from(path):
            config = NetworkConfig(backbone="mobilenet", weights=str(path), normalisation="unit")
            return all(np.isfinite(each).all() for each in build_network(config).get_weights())

        return start_from
    if name == "table":
        from deep_ranking.search.collection import ImageTable

        def read(path):
            table = ImageTable(path)
            try:
                rows = table.rows()
                table.of_rows(rows.tolist())
                list(table.images()), table.pending(), table.broken()
            finally:
                table.close()
            return True

        return read
    from deep_ranking.search.index.clusters import ClusterIndex, HierarchyIndex

    kind = {"clusters": ClusterIndex, "hierarchy": HierarchyIndex}[name]

    def find(path):
        index = kind(path, probes=9)
        index.rows()
        found = index.search(np.ones((2, 8), np.float32), 5)
        index.within(np.ones((2, 8), np.float32), 0.5)
        return found.rows.shape == (2, 5)

    return find


def _read(name, sound):
    from deep_ranking.files import InputError

    reader = _reader_of(name, sound)
    print(json.dumps({"said": "ready"}), flush=True)
    for line in sys.stdin:
        answer = {"said": None, "right": True}
        try:
            answer["right"] = reader(Path(line.rstrip("\n")))
        except InputError as error:
            answer["said"] = str(error)
        except BaseException as error:
            answer["trace"] = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        _make(Path(sys.argv[2]))
    else:
        _read(sys.argv[2], Path(sys.argv[3]))
