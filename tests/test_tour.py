"""The tour in docs/: the script with public names alone, and the notebook made from it."""

import ast
import base64
import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deep_ranking

DOCS = Path(__file__).parents[1] / "docs"
STEPS = (
    "sample",
    "train",
    "evaluate",
    "calibrate",
    "compare",
    "index_images",
    "find_duplicates",
    "explain",
)


def test_the_script_uses_public_names_alone():
    tree = ast.parse((DOCS / "tour.py").read_text(encoding="utf-8"))
    modules = {
        each.module if isinstance(node, ast.ImportFrom) else each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in ([node] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert modules - sys.stdlib_module_names == {"deep_ranking"}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "dr"
    }
    assert used <= set(deep_ranking.__all__)
    assert set(STEPS) <= used


def test_the_notebook_is_that_of_the_script():
    made = runpy.run_path(str(DOCS / "notebook.py"))["notebook"]()
    assert (DOCS / "tour.ipynb").read_text(encoding="utf-8") == made, "run docs/notebook.py"
    code = [each for each in json.loads(made)["cells"] if each["cell_type"] == "code"]
    assert all(each["outputs"] == [] for each in code)
    assert not any("print(" in "".join(each["source"]) for each in code)


@pytest.mark.slow
def test_the_script_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, DOCS / "tour.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(DOCS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    recall = re.search(r"^recall_at_1 +(0\.\d+)", done.stdout, re.MULTILINE)
    assert float(recall[1]) > 0.7
    for words in (
        "3,876 triplets in ",
        "Calibration stored in ",
        "295 images in index exact.",
        "1 group, 2 images, 1 could go",
        "cosine ",
    ):
        assert words in done.stdout, words
    nearest = re.findall(r"^1  .*/held_back/(\d)/", done.stdout, re.MULTILINE)
    assert len(nearest) == 3
    assert nearest[0] == "0"


@pytest.mark.slow
def test_the_notebook_shows_tables_and_pictures(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DOCS.parent), *filter(None, sys.path)]))
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    shown = {
        cell.source.splitlines()[-1]: output.data["text/html"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result" and "text/html" in output.data
    }
    expected = {
        "triplets": 6 * 3,
        "evaluation": 10,
        "calibration": 0,
        "comparison": 2,
        "indexed": 0,
        "results": 3 * (1 + 6),
        "duplicates": 2,
        "explanation": 1,
    }
    assert {name: html.count("<img") for name, html in shown.items()} == expected
    for name in ("evaluation", "calibration"):
        assert "<table>" in shown[name]
    for html in shown.values():
        assert len(html) < 2_000_000
        for picture in pictures(html):
            assert min(picture.shape[:2]) > 30
            assert picture.std() > 5  # not of one colour
    if folder := os.environ.get("TOUR_OUTPUT"):  # to look at it
        nbformat.write(notebook, Path(folder) / "tour.ipynb")
        for name, html in shown.items():
            (Path(folder) / f"{name}.html").write_text(html, encoding="utf-8")


def pictures(html):
    """Decode the pictures of HTML, which must all be in it."""
    found = []
    for source in re.findall(r'src="([^"]*)"', html):
        head, data = source.split(",", 1)
        assert head in ("data:image/jpeg;base64", "data:image/png;base64")
        found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")))
    return found
