"""benchmarks/scrolling.py measures a small collection; its figures are not judged."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from browsing import needed

pytest_plugins = ("browsing",)
pytestmark = pytest.mark.browser
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scrolling.py"


def test_it_scrolls_to_the_wanted_result(monkeypatch, capsys, tmp_path):
    needed("playwright.sync_api")
    flags = ["--images", "200", "--depth", "150", "--widths", "400", "--keep", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["scrolling.py", *flags])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    told = capsys.readouterr().out
    assert re.search(r"^server, 4 pages of 48: first \d+ ms", told, re.M)
    columns, _, cells = (
        [each.strip() for each in line.split("|")] for line in told.splitlines()[1:]
    )
    found = dict(zip(columns, cells, strict=True))
    assert found["width"] == "400" and 150 <= int(found["results passed"]) <= 199
    assert 200 < int(found["elements"].replace(",", "")) < 4000
