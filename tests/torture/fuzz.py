"""Coverage-guided fuzzing (atheris) of the readers of text and model files.

Each input is written to a file, which the reader either reads or refuses by one `InputError` that
is one line and names the file; anything else is a crash, and the input is kept. Longer runs of one
target, with any flag of libFuzzer:

    cd tests
    python -m torture.fuzz triplets -max_total_time=3600
"""

import gzip
import importlib.util
import io
import json
import mmap
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from torture.children import ROOT, kill, start, wait

TESTS = ROOT / "tests"
SECONDS = 20  # a target
MEGABYTES = 2_048
SUFFIXES = {"triplets": ".txt", "gzip": ".txt.gz", "partition": ".txt", "header": ".h5"}
PACKAGES = {
    "triplets": ("deep_ranking.files.csv_lines", "deep_ranking.sampling.triplet_file"),
    "gzip": (
        "deep_ranking.files.csv_lines",
        "deep_ranking.sampling.triplet_file",
        "gzip",
        "_compression",
    ),
    "partition": ("deep_ranking.datasets", "deep_ranking.files.csv_lines"),
    "header": ("deep_ranking.files.hdf5", "deep_ranking.model.header", "deep_ranking.config"),
}
LONGEST = {"triplets": 4_096, "gzip": 4_096, "partition": 4_096, "header": 1 << 14}


def run(tally, folder, seed):
    """Fuzz each target for `SECONDS`, two at a time."""
    if importlib.util.find_spec("atheris") is None:
        tally.problem(
            "wrong", "not done: atheris is not installed (wheels are for Linux on x86-64)"
        )
        return
    names = list(SUFFIXES)
    for pair in (names[:2], names[2:]):
        processes = {name: _start(name, folder, seed) for name in pair}
        for name, process in processes.items():
            try:
                ended = wait(process, SECONDS + 120)
            finally:
                kill(process)
            _count(tally, name, ended)


def _start(name, folder, seed):
    work = folder / name
    work.mkdir()
    options = [f"-max_total_time={SECONDS}", f"-seed={seed + 1}", f"-artifact_prefix={work}/"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}"}
    arguments = ["-m", "torture.fuzz", name, *options, "-print_final_stats=1"]
    return start(arguments, env=environment)


def _count(tally, name, ended):
    done = re.search(r"stat::number_of_executed_units: (\d+)", ended.errors)
    count = int(done[1]) if done else 0
    outcomes = re.search(r"accepted (\d+), refused (\d+)", ended.output)
    accepted, refused = (int(number) for number in outcomes.groups()) if outcomes else (0, 0)
    print(f"  {name}: {count:,} executions, accepted {accepted:,}, refused {refused:,}", flush=True)
    tally.tried += count
    tally.accepted += accepted
    tally.refused += refused
    last = " | ".join(ended.errors.splitlines()[-12:])
    if ended.hung or "ALARM: working on the last Unit" in ended.errors:
        tally.problem("hangs", f"fuzzing {name}: {last}")
    elif ended.code != 0 or not count:
        tally.problem("crashes", f"fuzzing {name}: exit code {ended.code}: {last}")


def write_seeds(name, folder):
    """Write valid files, and some that were broken once, for the fuzzer to begin with."""
    folder.mkdir()
    files = {"triplets": _triplets, "gzip": _gzips, "partition": _partitions, "header": _models}
    for number, data in enumerate(files[name]()):
        (folder / f"{number:03}").write_bytes(data)


def _triplets():
    return [
        b"a/1.jpg,a/2.jpg,b/1.jpg\n" * 3,
        b'"a,1.jpg","a ""2"".jpg",b.jpg\r\n',
        b"\xef\xbb\xbfa,b,c\n",
        b"\xff\xfe,b,c\n",
        b'"a\nb",b,c\n',
        b"a,b,c\r",
        b"a,,c\n",
        b"\0,b,c\n",
    ]


def _gzips():
    whole = [gzip.compress(data, mtime=0) for data in _triplets()]
    return [*whole, whole[0] + whole[1], whole[0][:-5], gzip.compress(bytes(100_000), mtime=0)]


def _partitions():
    return [
        b"2\nimage_name item_id evaluation_status\na/1.png x train\na/2.png y query\n",
        b"1\nimage_pair_name_1 image_pair_name_2 item_id evaluation_status\na/1.png a/2.png x v\n",
        b"path,label,split\na/1.png,x,train\na/2.png,y,val\n",
        b"path,label,category,split\na/1.png,x,c,train\n",
        b"\xef\xbb\xbf1\r\nimage_name item_id evaluation_status\r\na/1.png x train\r\n",
        b"\xc2\xb2\nimage_name item_id evaluation_status\n",
        b"9" * 4_400 + b"\n",
    ]


def _models():
    import h5py

    from deep_ranking.config import NetworkConfig
    from deep_ranking.model.header import CALIBRATION_ATTRIBUTE, CONFIG_ATTRIBUTE

    calibration = {"distances": [0.0, 1.0], "probabilities": [1.0, 0.0]}
    for libver in ("earliest", "latest"):
        for text in (NetworkConfig(weights=None).to_json(), "{}", '{"image_size": -1}', "[" * 99):
            stream = io.BytesIO()
            with h5py.File(stream, "w", libver=libver) as file:
                file.attrs[CONFIG_ATTRIBUTE] = text
                if text == "{}":
                    file.attrs[CALIBRATION_ATTRIBUTE] = json.dumps(calibration)
                group = file.create_group("model_weights/dense")
                group["kernel"] = np.ones((3, 2), np.float32)
                group["bias"] = np.zeros(2, np.float16)
            yield stream.getvalue()


def main():
    """Fuzz one target; the arguments that follow its name go to libFuzzer."""
    name, *options = sys.argv[1:]
    # In memory where the system has such a place: a file is written for each input.
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    counts = np.frombuffer(mmap.mmap(-1, 16), np.int64)  # accepted, refused
    child = os.fork()  # libFuzzer ends the process in which it runs
    if child == 0:
        fuzz(name, options, place, counts)
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        shutil.rmtree(place)
    print(f"accepted {counts[0]}, refused {counts[1]}")
    return abs(code)


def fuzz(name, options, place, counts):
    """Fuzz until libFuzzer's options, or a crash, end the process."""
    import atheris

    with atheris.instrument_imports(include=[*PACKAGES[name]]):
        from deep_ranking.datasets import read_partition
        from deep_ranking.files import InputError
        from deep_ranking.model.header import read_header
        from deep_ranking.sampling.triplet_file import read_triplets
    reader = {"partition": read_partition, "header": read_header}.get(name, read_triplets)
    file = place / f"input{SUFFIXES[name]}"
    (place / "a").mkdir()
    for number in (1, 2):
        (place / f"a/{number}.png").touch()

    def try_one(data):
        file.write_bytes(data)
        try:
            reader(file)
        except InputError as error:
            message = str(error)
            if len(message.splitlines()) != 1 or not message.startswith(str(file)):
                raise AssertionError(f"not one line that names the file: {message!r}") from None
            counts[1] += 1
        else:
            counts[0] += 1

    write_seeds(name, place / "seeds")
    limits = [f"-max_len={LONGEST[name]}", "-timeout=10", f"-rss_limit_mb={MEGABYTES}"]
    atheris.Setup([sys.argv[0], *limits, *options, str(place / "seeds")], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
