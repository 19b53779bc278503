"""`serve` as a program of its own, with a stub in place of the model's engine."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import signal
import sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a job in the background has it
import pytest
from served import use_stub_engine
with pytest.MonkeyPatch.context() as patch:
    use_stub_engine(patch)
    from deep_ranking.cli.main import main
    code = main(["serve", *sys.argv[1:]])
large = {"tensorflow", "keras", "scipy", "sklearn", "matplotlib"} & set(sys.modules)
print("imported", sorted(large), flush=True)
sys.exit(code)
"""


def start_program(folder, *arguments, **options):
    """Start `serve --port 0 ARGUMENTS` in a folder; return the process."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--port", "0", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def address_of(line):
    """Return the address in the line that a server prints when it has started."""
    assert line.startswith("Serving "), line
    return line.split(" on ")[1].partition(";")[0]


@contextlib.contextmanager
def served_program(folder, *arguments, errors, **options):
    """Serve until the end of the block; gives the address and the process.

    Args:
        folder: to start in.
        arguments: of the command.
        errors: path of the file that gets its standard error.
        options: further ones of `subprocess.Popen`.
    """
    with errors.open("w") as file:
        program = start_program(folder, *arguments, stderr=file, **options)
    try:
        yield address_of(program.stdout.readline()), program
    finally:
        program.terminate()
        program.communicate(timeout=30)
