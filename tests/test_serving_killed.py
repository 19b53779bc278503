"""A server killed while it sets duplicates aside: nothing is lost, and undo brings all back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_nothing_is_lost_when_a_server_is_killed_while_it_moves(tmp_path):
    tried = subprocess.run(
        [sys.executable, TESTS / "killed_servers.py", tmp_path],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(tried.stdout)
    assert told["problems"] == []
    assert told["moved"] == 23 and told["kills"] == 20
    assert told["amid"] >= 10  # before the server had answered
