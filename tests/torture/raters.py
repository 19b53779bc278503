"""A server killed while people answer its questions: see `killed_raters`."""

import json
import os

from torture.children import ROOT
from torture.children import run as run_program

SECONDS = 600
NUM_KILLS = 100


def run(tally, folder, seed):
    """Kill a hundred servers, and count what was confirmed and is not there."""
    tests = ROOT / "tests"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tests}"}
    ended = run_program([tests / "killed_raters.py", folder, NUM_KILLS], seconds=SECONDS, env=env)
    if ended.hung or ended.code:
        tally.problem("hangs" if ended.hung else "crashes", ended.errors[-600:])
        return
    told = json.loads(ended.output)
    tally.kills += told["kills"] - len(told["problems"])
    for problem in told["problems"]:
        tally.problem("lost", problem)
    print(f"  {told['confirmed']} answers confirmed, {told['again']} of them when sent again")
