"""In a log, long work writes a line every 30 seconds, and short work none."""

import io
import sys

import pytest

from deep_ranking.files import progress_bar as module
from deep_ranking.files.progress_bar import progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless the test moves it."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_30_seconds_and_none_before(clock, capsys):
    with progress_bar(total=12_000, title="embedding", unit="images") as bar:
        for _ in range(12):
            clock[0] += 10
            bar.update(1000)
    # Each 3,000 images take 30 seconds, so 9,000 are 90 seconds.
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 3,000 of 12,000 images, 1.5 minutes left",
        "embedding: 6,000 of 12,000 images, 1 minute left",
        "embedding: 9,000 of 12,000 images, 30 seconds left",
        "embedding: 12,000 of 12,000 images",
    ]


def test_what_was_done_earlier_does_not_count_as_fast(clock, capsys):
    with progress_bar(total=100, initial=50, title="hashing", unit="images") as bar:
        clock[0] += 30
        bar.update(10)
    # 10 in 30 seconds: the 40 that are left take 120.
    assert capsys.readouterr().err == "hashing: 60 of 100 images, 2 minutes left\n"


def test_items_bytes_and_an_unknown_total(clock, capsys):
    for item in progress_bar(range(3), title="copies", unit="images"):
        clock[0] += 20 * (item == 1) + 25 * (item == 2)
    with progress_bar(title="a.zip", unit="B") as bar:
        clock[0] += 60
        bar.update(3 << 20)
    assert capsys.readouterr().err.splitlines() == [
        "copies: 3 of 3 images",
        "a.zip: 3.0 MiB, after 1 minute",
    ]


@pytest.mark.parametrize("shown", [True, False])
def test_quiet_can_be_had(clock, capsys, monkeypatch, shown):
    monkeypatch.setattr(module, "quiet", shown)
    with progress_bar(total=2, title="embedding", unit="images", shown=shown) as bar:
        clock[0] += 100
        bar.update()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(range(4), title="embedding", unit="images") as bar:
        assert list(bar) == [0, 1, 2, 3]
    assert "embedding: 100%" in sys.stderr.getvalue()
