"""tools/browser.py: which Chromium is taken, and how one is installed."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "browser.py"
# A Playwright whose browser is not installed.
PLAYWRIGHT = """
from contextlib import nullcontext
from types import SimpleNamespace
chromium = SimpleNamespace(executable_path="/nowhere")
sync_playwright = lambda: nullcontext(SimpleNamespace(chromium=chromium))
"""
tool = runpy.run_path(str(SCRIPT))


def write_program(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return str(folder / name)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The only folder where programs are looked for; Playwright has no browser of its own."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(tool["find_browser"].__globals__, "_of_playwright", lambda: None)
    return tmp_path


def test_a_browser_that_starts_is_taken(path):
    assert tool["find_browser"]() is None
    write_program(path, "chromium", "exit 1")  # as the stub of a package that is not there
    assert tool["find_browser"]() is None
    chrome = write_program(path, "google-chrome", "echo Google Chrome 1")
    assert tool["find_browser"]() == chrome
    other = write_program(path, "chromium-browser", "echo Chromium 1")
    assert tool["find_browser"]() == other


@pytest.mark.parametrize("user", [0, 1000])
def test_it_is_installed_by_apt_get_or_else_by_playwright(path, monkeypatch, user):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    called = []
    write_program(path, "apt-get", "exit 1")

    def run(command, **options):
        called.append(command[1:])
        if "playwright" in command:
            write_program(path, "chromium", "echo Chromium 1")
        return subprocess.CompletedProcess(command, int("apt-get" in command), b"Chromium 1")

    monkeypatch.setattr(subprocess, "run", run)
    assert tool["install_browser"]() == str(path / "chromium")
    by_playwright = ("-m", "playwright", "install", "chromium")
    assert [each for each in called if each != ["--version"]] == (
        [("update", "--quiet"), by_playwright] if user == 0 else [by_playwright]
    )


def test_no_browser_is_one_line(path):
    write_program(path, "apt-get", "exit 1")
    (path / "playwright").mkdir()
    (path / "playwright/__init__.py").write_text("")
    (path / "playwright/__main__.py").write_text("raise SystemExit(1)")
    (path / "playwright/sync_api.py").write_text(PLAYWRIGHT)
    done = subprocess.run(
        [sys.executable, SCRIPT],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": str(path), "PYTHONPATH": str(path)},
    )
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.count("\n") == 1 and "put chromium or google-chrome on the PATH" in done.stderr
    )
