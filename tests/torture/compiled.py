"""`compile` killed (SIGKILL) at over twenty instants, and hostile compiled files: no wrong row.

What a kill leaves, and what was changed, is either not used or computes the rows of the model.
TensorFlow is taken to be missing when a compiled file is opened: so it is not made anew. Half of
the kills come at a line that decides what is on the disk, the others at a random time.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import h5py
import keras
import numpy as np
from stubs import build_thin_vgg16, save_thin_model

from torture import forked, kills
from torture.tally import Tally

NUM_KILLS = 8  # of each of three cases
WRITING = ("/compiled/places.py", "/compiled/file.py", "/files/writing.py", "/model/header.py")
FLIPS, CUTS = 200, 20
IMAGE_SIZE = 32
ATTRIBUTE = "deep_ranking_compiled"


def run(tally, folder, seed):
    """Kill compiling, and change what it made."""
    forked.in_own_process(_run, tally, folder, seed)


def _run(tally, folder, seed):
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where LiteRT says which processor it takes
    keras.applications.VGG16 = build_thin_vgg16  # it is compiled in a second
    rng = np.random.default_rng([seed, 7])
    given, work = folder / "given", folder / "work"
    for number in range(2):
        (given / str(number)).mkdir(parents=True)
        forked.call(_make_model, given / f"{number}/m.h5", number)
    wanted = forked.call(_rows_of_keras, given / "0/m.h5")
    started = {"compile": _copy_of(given / "plain")}
    shutil.copytree(given / "0", given / "plain")
    for number in range(2):
        kills._made(given, ["compile", "--model", given / f"{number}/m.h5"])
    started |= {
        "compile --anew": _copy_of(given / "0"),
        "compile, trained again": _trained_again(given),
    }
    for name, start in started.items():
        anew = ["--anew"] if "--anew" in name else []
        command = kills.Command(
            name,
            ["compile", "--model", work / "m.h5", *anew],
            NUM_KILLS,
            lambda work: _names_once_right(work, wanted),
            lambda work, *_: _check_rows(_rows_if_used(work / "m.h5"), wanted),
            start=start,
            enough_seconds=np.inf,
        )
        began, before = time.monotonic(), tally.kills
        _Torture(tally, command, folder, work, rng).run()
        took = time.monotonic() - began
        print(f"  {name}: {tally.kills - before} kills survived, {took:.0f} s", flush=True)
    tally.add(forked.call(_changed, given, work, wanted, rng))


class _Torture(kills._Torture):
    def _learn(self):
        is_learned = super()._learn()
        self.lines = [line for line in self.lines if line[0].endswith(WRITING)]
        return is_learned

    def _is_done(self, ended, when):
        # A run that finds a good file writes nothing. What a kill left goes with the next write.
        forked.call(_write_beside, self.work)
        return super()._is_done(ended, when)


def _write_beside(work):
    from deep_ranking.files import atomic_path

    with atomic_path(work / "beside") as temporary:
        temporary.touch()
    (work / "beside").unlink()


def _make_model(path, seed):
    save_thin_model(path, seed=seed)


def _rows_of_keras(path):
    from deep_ranking.embedding.compiled.file import made_up_images
    from deep_ranking.embedding.engines.keras_model import KerasEngine
    from deep_ranking.model.file import load_model

    return KerasEngine(load_model(path), 8).embed(made_up_images(IMAGE_SIZE))


def _copy_of(folder):
    return lambda work: shutil.copytree(folder, work, dirs_exist_ok=True)


def _trained_again(given):
    """The model beside the compiled file of what it was before."""

    def start(work):
        shutil.copytree(given / "1", work, dirs_exist_ok=True)
        shutil.copy(given / "plain/m.h5", work / "m.h5")

    return start


def _rows_if_used(model):
    """Give the rows by the compiled file, or why there are none."""
    from deep_ranking.embedding import embedder
    from deep_ranking.embedding.compiled.file import made_up_images
    from deep_ranking.files import InputError

    embedder.find_spec = lambda _: None  # TensorFlow is missing
    try:
        return embedder.Embedder(model).engine().embed(made_up_images(IMAGE_SIZE))
    except InputError as error:
        return error


def _check_rows(found, wanted):
    if isinstance(found, np.ndarray):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def _names_once_right(work, wanted):
    """Give the names of the files of a finished run, which must compute the right rows."""
    np.testing.assert_allclose(_rows_if_used(work / "m.h5"), wanted, atol=1e-4)
    return sorted(path.name for path in work.iterdir())


# Hostile files


def _changed(given, work, wanted, rng):
    """Change one file after the other, and count what becomes of it."""
    tally = Tally()
    for name, changes in _changes(given, rng).items():
        refused = 0
        for number, change in enumerate(changes):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(given / "0", work)
            model = work / "m.h5"
            change(model, next(work.glob("*.litert")))
            tally.tried += 1
            try:
                found = _rows_if_used(model)
                _check_rows(found, wanted)
            except AssertionError:
                tally.problem("wrong", f"{name}, {number}: other rows, and no error")
                continue
            except Exception as error:
                tally.problem("crashes", f"{name}, {number}: {error!r}")
                continue
            if isinstance(found, np.ndarray):
                tally.accepted += 1
            elif str(work) in str(found):
                tally.refused += 1
                refused += 1
            else:
                tally.problem("wrong", f"{name}, {number}: names no file: {found}")
        print(f"  {name}: {refused} of {number + 1} refused, the others give the right rows")
    return tally


def _changes(given, rng):
    """Give for each kind of change some functions of the model file and its compiled file."""
    other_model, other = given / "1/m.h5", next((given / "1").glob("*.litert"))
    size = next((given / "0").glob("*.litert")).stat().st_size
    bits = rng.choice(8 * size, FLIPS, replace=False).tolist()
    bits_of_model = rng.choice(8 * other_model.stat().st_size, FLIPS, replace=False).tolist()
    lengths = [*range(5), size - 1, *rng.choice(size, CUTS, replace=False).tolist()]
    return {
        "flipped bits": [lambda _, file, bit=bit: _flip(file, bit) for bit in bits],
        "cut off": [lambda _, file, n=n: file.write_bytes(file.read_bytes()[:n]) for n in lengths],
        "of another model": [
            lambda _, file: shutil.copy(other, file),
            lambda model, _: shutil.copy(other_model, model),
            _named(other, other_model),
        ],
        "digests": [
            lambda model, _, text=text: _write_attribute(model, text)
            for text in ("", "{}", "[" * 5000, '{"float32": 1}', '{"float32": "%s"}' % ("0" * 64))
        ],
        "flipped bits of the model": [
            lambda model, _, bit=bit: _flip(model, bit) for bit in bits_of_model
        ],
    }


def _flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def _named(other, other_model):
    """The compiled file of another model, whose digest this model names."""

    def change(model, file):
        shutil.copy(other, file)
        with h5py.File(other_model) as opened:
            text = opened.attrs[ATTRIBUTE]
        _write_attribute(model, text)

    return change


def _write_attribute(model: Path, text):
    with h5py.File(model, "r+") as file:
        file.attrs[ATTRIBUTE] = text
