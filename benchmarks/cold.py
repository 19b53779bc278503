"""Cold start of the commands: whole processes, with Keras and with the compiled model.

    python benchmarks/cold.py --model m.h5 --index photos.index --new n.jpg --indexed photos/a.jpg \
        --image1 a.jpg --image2 b.jpg
    python benchmarks/cold.py --model m.h5 --index made_up.index --make_collection 20000 \
        --new n.jpg --image1 a.jpg --image2 b.jpg

Each command is started anew in each round, one after the other, in turn from the first and from
the last; figures are medians over the rounds. One start of each before is not timed, so files come
from the page cache, and Python's byte code from its cache, as for users. Processor seconds are
those of all threads of the process. Whether a command imports TensorFlow or Keras is watched by a
hook in one more start, which is not timed either.

"Keras" is the command without a compiled model, as it was before models were compiled: copies of
model and index that name no compiled file, and an empty cache folder. An index of int8 rows is then
searched in float32. All searches run on copies of the index, as `index` writes to it. A model that
is not compiled in float32 is compiled first.

--make_collection makes the index: so many small JPEG files in classes of 50, in a folder beside it,
and a collection of them in which all is real but the rows. These are random, of unit length and as
long as the model's, so a search compares the query with all of them. Embedding the files would only
take longer.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deep_ranking import InputError  # noqa: E402 (the path of the package comes first)
from deep_ranking.cli.arguments import positive_int  # noqa: E402

WATCHED = ("tensorflow", "keras")
RECORD = "DEEP_RANKING_IMPORTS"
# Python runs it at the start of each process that finds it on its path.
HOOK = f"""
import os, sys
def record(event, values, names={WATCHED}):
    if event == "import" and values[0].partition(".")[0] in names:
        with open(os.environ["{RECORD}"], "a") as file:
            file.write(values[0].partition(".")[0] + "\\n")
sys.addaudithook(record)
"""
CLASS_SIZE, SMALL = 50, 16  # images of a class, and pixels of a side, of a made-up collection


class Start(NamedTuple):
    """Wall and processor seconds of a process."""

    wall: float
    processor: float


@dataclass
class Command:
    """A command that is started.

    Attributes:
        what: what it does, in words.
        model: what computes its embeddings, in words; "-" for nothing.
        arguments: of the Python interpreter.
        changes: of its environment.
        starts: one of each round.
        imports: those of `WATCHED` that it imports.
    """

    what: str
    model: str
    arguments: list[str]
    changes: dict[str, str] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)

    def start(self, **changes):
        """Run it to its end; return its `Start`.

        Raises:
            InputError: it fails.
        """
        environment = os.environ | self.changes | changes
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, *self.arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            check=False,
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise InputError(f"{' '.join(self.arguments)}: {said[-1]}")
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Start(wall, processor)

    def watch(self):
        """Run it once with a hook, and note what it imports."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
            record = Path(folder) / "imported"
            record.touch()
            path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
            self.start(PYTHONPATH=path, **{RECORD: str(record)})
            self.imports = set(record.read_text(encoding="utf-8").split())


def measure(commands, rounds):
    """Start each command in each round, after one start that is not timed and one with the hook."""
    for each in commands:
        each.start()
        each.watch()
    for number in range(rounds):
        for each in commands if number % 2 == 0 else reversed(commands):
            each.starts.append(each.start())


def table(commands):
    """Return the table, in Markdown."""
    headings = ["start of", "model", "seconds", "processor seconds", "imports TensorFlow or Keras"]
    lines = [headings, ["---"] * len(headings)]
    for each in commands:
        medians = [f"{statistics.median(values):.2f}" for values in zip(*each.starts, strict=True)]
        imported = ", ".join(sorted(each.imports)) or "no"
        lines.append([each.what, each.model, *medians, imported])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def forget_compiled(model):
    """Let a model file name no compiled file."""
    import h5py

    from deep_ranking.model.header import COMPILED_ATTRIBUTE

    with h5py.File(model, "r+") as file:
        if COMPILED_ATTRIBUTE in file.attrs:
            del file.attrs[COMPILED_ATTRIBUTE]


def copy_uncompiled(index, copy):
    """Copy the folder of an index, its model not compiled and its precision float32."""
    from deep_ranking.search.collection.folder import MODEL, SETTINGS

    shutil.copytree(index, copy, ignore=shutil.ignore_patterns("*.litert"))
    forget_compiled(copy / MODEL)
    settings = json.loads((copy / SETTINGS).read_text(encoding="utf-8"))
    if "precision" in settings:
        settings["precision"] = "float32"
    (copy / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def commands_of(args, folder):
    """Return the commands, on copies in a temporary folder.

    Args:
        args: the flags, with absolute paths.
        folder: the temporary folder.
    """
    plain_model, plain_index, index = folder / "m.h5", folder / "plain.index", folder / "a.index"
    shutil.copyfile(args.model, plain_model)
    forget_compiled(plain_model)
    copy_uncompiled(args.index, plain_index)
    shutil.copytree(args.index, index)
    (folder / "cache").mkdir()
    no_cache = {"DEEP_RANKING_CACHE": str(folder / "cache")}

    def compare(model, words, changes):
        images = ["--image1", str(args.image1), "--image2", str(args.image2)]
        arguments = ["compare.py", "--model", str(model), *images]
        return Command("compare.py, two images", words, arguments, changes)

    def search(which, where, image, words, changes):
        arguments = ["-m", "deep_ranking", "search", "--index", str(where), "--image", str(image)]
        return Command(f"search, {which}", words, arguments, changes)

    update = ["-m", "deep_ranking", "index", "--output", str(index)]
    return [
        Command("python -c pass", "-", ["-c", "pass"]),
        Command('python -c "import numpy"', "-", ["-c", "import numpy"]),
        compare(plain_model, "Keras", no_cache),
        compare(args.model, "compiled", {}),
        search("a new image", plain_index, args.new, "Keras", no_cache),
        search("a new image", index, args.new, "compiled", {}),
        search("an indexed image", index, args.indexed, "not opened", {}),
        Command("index, an unchanged folder", "not opened", update),
    ]


class RandomRows:
    """An `Engine` that returns random rows of unit length, whatever the images."""

    image_size, batch_size, num_threads = SMALL, 1024, 0
    key = name = "random rows"

    def __init__(self, dimension):
        self.dimension = dimension
        self._rng = np.random.default_rng(0)

    def embed(self, images):
        """Draw a row for each image."""
        rows = self._rng.standard_normal((len(images), self.dimension), np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_collection(folder, model, count):
    """Make a collection of so many small images with random rows; its images lie beside it.

    Raises:
        InputError: one of the folders exists.
    """
    import cv2

    from deep_ranking.search.collection import sync
    from deep_ranking.search.indexing import update_index, writable_collection

    images = folder.with_name(f"{folder.name}.images")
    for each in (folder, images):
        if each.exists():
            raise InputError(f"{each}: exists; choose another --index to make a collection")
    rng = np.random.default_rng(0)
    for number in range(count):
        path = images / f"{number // CLASS_SIZE:05}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (SMALL, SMALL, 3), np.uint8)
        path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    with writable_collection(folder, model=model, images=images) as collection:
        dimension = collection.settings.dimension
        sync(collection, lambda _: RandomRows(dimension))
        update_index(collection)


def first_image(index):
    """Return an image of a collection."""
    from deep_ranking.search.collection import Collection

    collection = Collection.open(index)
    with closing(collection.images()) as images:
        return Path(collection.settings.root) / next(images.images()).path


def check_compiled(index):
    """Raise an error if the model of a collection is not compiled in the precision of its rows."""
    from deep_ranking.embedding.compiled.places import open_compiled
    from deep_ranking.model.header import read_header
    from deep_ranking.search.collection import Collection

    collection = Collection.open(index)
    precision = collection.settings.precision
    if open_compiled(collection.model, read_header(collection.model), precision) is None:
        raise InputError(
            f"{index}: its model is not compiled in {precision}; run: python -m deep_ranking "
            f"compile --model {collection.model} --precision {precision}"
        )


def main():
    """Read the flags, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FILE.h5")
    parser.add_argument("--index", type=Path, required=True, metavar="INDEX")
    parser.add_argument("--new", type=Path, required=True, metavar="IMAGE")
    parser.add_argument(
        "--indexed", type=Path, metavar="IMAGE", help="default: the first image of the index"
    )
    parser.add_argument("--image1", type=Path, required=True, metavar="IMAGE")
    parser.add_argument("--image2", type=Path, required=True, metavar="IMAGE")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--make_collection", type=positive_int, metavar="N", help="make INDEX")
    args = parser.parse_args()
    for name, value in vars(args).items():
        if isinstance(value, Path):
            setattr(args, name, value.absolute())  # the commands run elsewhere
    from deep_ranking.embedding.compiled.compiling import compile_model

    print(compile_model(args.model), file=sys.stderr, flush=True)
    if args.make_collection:
        make_collection(args.index, args.model, args.make_collection)
    check_compiled(args.index)
    args.indexed = args.indexed or first_image(args.index)
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_of(args, Path(folder))
        measure(commands, args.rounds)
    print(table(commands))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
