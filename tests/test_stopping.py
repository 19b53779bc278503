"""Ctrl-C and SIGTERM: one line, exit code 130, what is complete stays complete."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from deep_ranking.cli import library_messages, summary
from deep_ranking.cli.main import run_command
from deep_ranking.files import InputError

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {each: signal.getsignal(each) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def stopped_by(monkeypatch):
    """A function that makes the command `summary` send itself a signal, and do what follows."""

    def stop(number, then=lambda: None):
        def run(parser, argv):
            parser.parse_args(argv)
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            except KeyboardInterrupt:
                then()
                raise

        monkeypatch.setattr(summary, "run", run)

    return stop


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_by_one_line(stopped_by, capsys, number):
    stopped_by(number)
    assert run_command("summary", []) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_what_can_be_gone_on_with_is_said_on_that_line(stopped_by, capsys):
    def say():
        raise KeyboardInterrupt("go on by X")

    stopped_by(signal.SIGTERM, say)
    assert run_command("summary", []) == 130
    assert capsys.readouterr().err == "interrupted: go on by X\n"


@pytest.mark.parametrize("error", [RuntimeError, OSError, ImportError, InputError])
def test_what_a_library_made_of_the_interrupt_is_not_shown(stopped_by, capsys, error):
    def another():
        raise error("of its own")

    stopped_by(signal.SIGINT, another)
    assert run_command("summary", []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_what_libraries_print_of_the_interrupt_is_not_shown(stopped_by, capfd):
    stopped_by(signal.SIGINT, lambda: os.write(2, b"Traceback\n"))
    assert run_command("summary", []) == 130
    assert capfd.readouterr().err == "interrupted\n"
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


def test_the_line_is_shown_where_notes_were_held_back():
    code = (
        "import os, signal, time\n"
        "from deep_ranking.cli import library_messages, main, summary\n"
        "def run(parser, argv):\n"
        "    with library_messages.shown_on_failure():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(5)\n"
        "summary.run = run\n"
        "main.run_program('summary')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_verbose_shows_that_too(stopped_by, capfd):
    stopped_by(signal.SIGINT, lambda: os.write(2, b"Traceback\n"))
    assert run_command("summary", ["--verbose"]) == 130
    assert capfd.readouterr().err == "Traceback\ninterrupted\n"


def test_the_same_error_without_a_signal_is_shown(monkeypatch):
    def run(parser, argv):
        raise RuntimeError("a bug")

    monkeypatch.setattr(summary, "run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        run_command("summary", [])


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_stays_ignored(monkeypatch, number):
    def run(parser, argv):
        os.kill(os.getpid(), number)
        time.sleep(0.01)

    monkeypatch.setattr(summary, "run", run)
    signal.signal(number, signal.SIG_IGN)
    assert run_command("summary", []) == 0
    assert signal.getsignal(number) is signal.SIG_IGN


def test_handlers_are_given_back(monkeypatch):
    monkeypatch.setattr(summary, "run", lambda *_: None)
    before = [signal.getsignal(each) for each in SIGNALS]
    assert run_command("summary", []) == 0
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_thread_may_run_a_command(monkeypatch):
    monkeypatch.setattr(summary, "run", lambda *_: None)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run_command("summary", [])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_second_signal_ends_a_program_that_does_not_end_by_the_first():
    code = (
        "import time, sys\n"
        "from deep_ranking.cli import main, summary\n"
        "def run(parser, argv):\n"
        "    while True:\n"
        "        try:\n"
        "            print('working', flush=True)\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
        "summary.run = run\n"
        "sys.exit(main.run_command('summary', []))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    for number in SIGNALS:
        assert process.stdout.readline() == b"working\n"
        assert process.poll() is None
        process.send_signal(number)
    assert process.wait(timeout=10) == 130
    process.stdout.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_program_amid_its_work_ends_and_leaves_what_was_complete(tmp_path, number):
    folder = tmp_path / "images"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for image in range(40):
            Image.new("RGB", (8, 8)).save(folder / name / f"{image}.png")
    triplets = tmp_path / "triplets.txt"
    triplets.write_text("the last complete state\n")
    process = subprocess.Popen(
        [
            *(sys.executable, "triplet_sampler.py", "--input_directory", str(folder)),
            *("--output_directory", str(tmp_path), "--num_pos_images", "39"),
            *("--num_neg_images", "40", "--seed", "1", "--shards", "1000"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob(".writing-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert sorted(os.listdir(tmp_path)) == ["images", "triplets.txt"]
    assert triplets.read_text() == "the last complete state\n"


def test_notes_of_libraries_are_held_back_unless_asked_for(monkeypatch, capfd):
    def run(parser, argv):
        parser.parse_args(argv)
        with library_messages.shown_on_failure():
            os.write(2, b"a note\n")

    monkeypatch.setattr(summary, "run", run)
    assert run_command("summary", []) == 0
    assert capfd.readouterr() == ("", "")
    assert run_command("summary", ["--verbose"]) == 0
    assert capfd.readouterr() == ("", "a note\n")
    assert run_command("summary", []) == 0  # asked for that once
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("flags", "shown"), [([], ""), (["--verbose"], "a note\n")])
def test_a_program_holds_back_what_is_written_below_python(flags, shown):
    code = (
        "import os\n"
        "from deep_ranking.cli import main, summary\n"
        "from deep_ranking.files.errors import InputError\n"
        "def run(parser, argv):\n"
        "    parser.parse_args(argv)\n"
        "    os.write(2, b'a note\\n')\n"
        "    raise InputError('x.jpg: broken')\n"
        "summary.run = run\n"
        "main.run_program('summary')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(shown or "error: ")
    assert done.stderr.endswith("error: x.jpg: broken\n")


def test_notes_of_what_is_interrupted_stay_held_back(monkeypatch, capfd):
    def run(parser, argv):
        with library_messages.shown_on_failure():
            os.write(2, b"a note\n")
            raise KeyboardInterrupt

    monkeypatch.setattr(summary, "run", run)
    assert run_command("summary", []) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


def test_verbose_shows_where_an_error_arose(monkeypatch, capsys):
    def run(parser, argv):
        parser.parse_args(argv)
        raise InputError("x.jpg: broken")

    monkeypatch.setattr(summary, "run", run)
    assert run_command("summary", ["--verbose"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" in lines[0]
    assert lines[-1] == "error: x.jpg: broken"
    assert run_command("summary", []) == 1
    assert capsys.readouterr().err == "error: x.jpg: broken\n"


def test_advice_of_tensorflow_stays_out_of_the_log(monkeypatch):
    tensorflow = logging.getLogger("tensorflow")
    monkeypatch.setattr(tensorflow, "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger("absl"), "level", logging.NOTSET)
    library_messages.quieten_tensorflow()
    assert not tensorflow.isEnabledFor(logging.WARNING)
    assert tensorflow.isEnabledFor(logging.ERROR)
