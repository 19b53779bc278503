"""Servers killed while they set duplicates aside, and while people answer: nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def told_by(program, *arguments):
    tried = subprocess.run(
        [sys.executable, TESTS / program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(tried.stdout)


@pytest.mark.slow
def test_nothing_is_lost_when_a_server_is_killed_while_it_moves(tmp_path):
    told = told_by("killed_servers.py", tmp_path)
    assert told["problems"] == []
    assert told["moved"] == 23 and told["kills"] == 20
    assert told["amid"] >= 10  # before the server had answered


@pytest.mark.slow
def test_no_confirmed_answer_is_lost_by_kills_while_people_rate(tmp_path):
    told = told_by("killed_raters.py", tmp_path, 25)  # `make torture` tries a hundred
    assert told["problems"] == []
    assert told["kills"] == 25
    assert told["confirmed"] > 25 and told["again"]  # those whose confirmation was lost
