"""`embed --engine ray`: each image once, whatever becomes of the actors."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deep_ranking.files import InputError
from deep_ranking.files.addresses import UnreachableError
from deep_ranking.search.bulk_embedding import embed_table, embedding, ray_engine
from deep_ranking.search.bulk_embedding.sources import ImageFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own of Ray
]


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with two processors."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # for `Fatal`
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=128 << 20
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("ray") / "photos"
    root.mkdir()
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def model(compiled_once):
    return compiled_once / "m.h5"


@dataclass
class Fatal:
    """A folder of which an image kills who reads it, as often as it says, or has no store.

    With `for_good`, who opens it after that dies too.
    """

    folder: ImageFolder
    image: str
    marks: Path
    times: int
    for_good: bool = False
    num_readers = None

    def __setstate__(self, state):
        if state["for_good"] and any(state["marks"].iterdir()):
            os.kill(os.getpid(), signal.SIGKILL)
        self.__dict__ |= state

    @property
    def root(self):
        return self.folder.root

    def listed(self, folders):
        return self.folder.listed(folders)

    def stamp(self, path):
        return self.folder.stamp(path)

    def read(self, path, stamp):
        if path == self.image:
            if not self.times:
                raise UnreachableError("s3://bucket: no credentials")
            if len(list(self.marks.iterdir())) < self.times:
                (self.marks / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.folder.read(path, stamp)


class OtherWork:
    """Holds what it was started with until it is killed."""

    def is_running(self):
        return True


@pytest.fixture
def fatal(monkeypatch, tmp_path):
    """A function that makes reading an image fatal, in actors; it returns the folder of marks."""

    def make(image, times, **options):
        marks = tmp_path / "marks"
        marks.mkdir(exist_ok=True)
        monkeypatch.setattr(
            embedding,
            "open_source",
            lambda root: Fatal(ImageFolder(root), image, marks, times, **options),
        )
        return marks

    return make


def parts_of(table):
    return sorted(table.glob("part-*.parquet"))


def table_of(folder):
    return pa.concat_tables([pq.read_table(part) for part in parts_of(folder)])


def test_an_actor_that_is_killed_costs_no_image_and_doubles_none(
    fatal, photos, model, tmp_path, capfd
):
    expected = embed_table(photos, tmp_path / "local.parquet", model=model, part_size=6)
    marks = fatal("33.png", 1)
    done = embed_table(
        photos, tmp_path / "ray.parquet", model=model, part_size=6, engine="ray", workers=2
    )
    assert len(list(marks.iterdir())) == 1
    assert (done.num_rows, done.num_parts, done.num_made) == (60, 10, 10)
    assert table_of(done.path).equals(table_of(expected.path))
    assert capfd.readouterr().out == ""


def test_what_ends_a_run_is_one_line_and_the_run_is_resumed(fatal, photos, model, tmp_path, capfd):
    table = tmp_path / "t.parquet"
    options = {"model": model, "part_size": 6, "engine": "ray", "workers": 2}
    marks = fatal("33.png", 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "MOST_RETRIES", 1)
        with pytest.raises(InputError) as caught:
            embed_table(photos, table, **options)
    assert re.match(
        r"a part cost 2 actors of Ray, or .*; parts that are there are kept", str(caught.value)
    )
    assert len(list(marks.iterdir())) == 2
    kept = {part: part.stat().st_mtime_ns for part in parts_of(table)}
    assert len(kept) < 10
    shutil.rmtree(marks)
    fatal("33.png", 0)
    with pytest.raises(InputError, match=r"^s3://bucket: no credentials$"):
        embed_table(photos, table, **options)
    fatal("none", 0)
    assert embed_table(photos, table, **options).num_rows == 60
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert "Traceback" not in capfd.readouterr().err


def test_actors_that_die_as_they_start_end_the_run(fatal, photos, model, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "MOST_RESTARTS", 2)
    fatal("33.png", 1, for_good=True)
    options = {"model": model, "part_size": 6, "engine": "ray", "workers": 2}
    with pytest.raises(InputError, match=r"^a part cost 5 actors of Ray, or an actor died 2 times"):
        embed_table(photos, tmp_path / "t.parquet", **options)


def test_a_cluster_that_can_start_nothing_is_one_line(photos, model, tmp_path, monkeypatch):
    import ray

    table = tmp_path / "t.parquet"
    options = {"model": model, "engine": "ray", "workers": 2}
    monkeypatch.setattr(ray_engine, "START_SECONDS", 0.5)
    other = ray.remote(num_cpus=2)(OtherWork).remote()
    ray.get(other.is_running.remote(), timeout=60)  # it has both processors, and keeps them
    with pytest.raises(InputError, match=r"^the Ray cluster started no process with 1 processors"):
        embed_table(photos, table, **options)
    ray.kill(other)


def test_a_machine_without_memory_is_one_line(photos, model, tmp_path):
    command = ["embed", "-m", model, "--images", photos, "-o", tmp_path / "t.parquet"]
    done = subprocess.run(
        [sys.executable, "-m", "deep_ranking", *command, "--engine", "ray"],
        env=os.environ | {"RAY_memory_usage_threshold": "0.001"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the Ray cluster has too little memory to start an actor")
    assert done.stderr.count("\n") == 1


def test_no_cluster_at_the_address(photos, model, tmp_path):
    with pytest.raises(InputError, match=r"^127\.0\.0\.1:1: no Ray cluster could be joined"):
        embed_table(photos, tmp_path / "t.parquet", model=model, engine="ray",
                    address="127.0.0.1:1")  # fmt: skip
