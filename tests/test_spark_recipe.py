"""The recipes for Spark and Ray in the guide, run as it shows them."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deep_ranking.search.bulk_embedding import embed_table
from deep_ranking.search.table import index_table

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "guides" / "many_machines.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def mnt(tmp_path_factory, compiled_once):
    """What the recipes call /mnt: a model, photos in folders, and one that is broken."""
    mnt = tmp_path_factory.mktemp("recipes")
    for file in compiled_once.iterdir():
        shutil.copy(file, mnt)
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
        (mnt / f"photos/class {number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(mnt / f"photos/class {number % 2}/{number}.png")
    (mnt / "photos/broken.jpg").write_bytes(b"none")
    return mnt


def run_recipe(name, mnt, **environment):
    """Run the block of code that imports a module first."""
    (code,) = re.findall(rf"```python\n((?:from|import) {name}\b.*?)```", GUIDE, re.DOTALL)
    assert "/mnt" in code
    (mnt / f"{name}_recipe.py").write_text(code.replace("/mnt", str(mnt)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, mnt / f"{name}_recipe.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-5000:]


def rows_of(folder, path_of=str):
    table = pa.concat_tables([pq.read_table(part) for part in sorted(folder.glob("*.parquet"))])
    return {
        path_of(each["path"]): np.float32(each["vector"]).tobytes() for each in table.to_pylist()
    }


@pytest.fixture(scope="module")
def expected(mnt):
    return rows_of(embed_table(mnt / "photos", mnt / "embedded.parquet", model=mnt / "m.h5").path)


@pytest.mark.skipif(find_spec("pyspark") is None, reason="`make test-spark` installs Spark")
def test_the_recipe_for_spark(mnt, expected):
    options = "--master local[2] --conf spark.ui.enabled=false pyspark-shell"
    run_recipe("pyspark", mnt, PYSPARK_SUBMIT_ARGS=options, SPARK_LOCAL_IP="127.0.0.1",
               PYSPARK_PYTHON=sys.executable)  # fmt: skip
    assert rows_of(mnt / "photos.parquet") == expected
    made = index_table(
        mnt / "photos.parquet", mnt / "photos.index", model=mnt / "m.h5", images=mnt / "photos"
    )
    assert made.taken.num_taken == 24


def test_the_recipe_for_ray(mnt, expected):
    run_recipe("ray", mnt)
    begin = f"{mnt / 'photos'}/"
    found = rows_of(mnt / "rows", lambda path: path.removeprefix(begin))
    assert np.isnan(np.frombuffer(found.pop("broken.jpg"), np.float32)).all()
    assert found == expected
