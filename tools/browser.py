"""Make sure that a Chromium is here, for the tests of the page: `make browser` prints its path.

It is looked for on the PATH, then where Playwright keeps its own. If there is none, apt-get
installs it where that exists and the user is root, and otherwise Playwright downloads one.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 30  # that a browser may take to tell its version
APT = (
    ("apt-get", "update", "--quiet"),
    ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "chromium"),
)
PLAYWRIGHT = (sys.executable, "-m", "playwright", "install", "chromium")
NONE = (
    "There is no Chromium, and none could be installed: put chromium or google-chrome on the PATH, "
    "or run `python -m playwright install --with-deps chromium` where a download is possible."
)


def find_browser() -> str | None:
    """Return the path of a Chromium that starts, or None."""
    on_path = (path for name in NAMES if (path := shutil.which(name)) and _starts(path))
    return next(on_path, None) or _of_playwright()


def _of_playwright() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() and _starts(path) else None


def _starts(path: str) -> bool:
    """Return whether a browser tells its version; a stub, as Ubuntu's package is, does not."""
    try:
        told = subprocess.run(
            [path, "--version"], check=False, capture_output=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return told.returncode == 0 and bool(told.stdout)


def install_browser() -> str | None:
    """Install a Chromium; return its path, or None if that failed."""
    ways = [[PLAYWRIGHT]]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        ways.insert(0, list(APT))
    for commands in ways:
        if all(map(_succeeds, commands)) and (found := find_browser()):
            return found
    return None


def _succeeds(command: Sequence[str]) -> bool:
    """Run a command; what it says goes to standard error, so that only the path is printed."""
    return subprocess.run(command, check=False, stdout=sys.stderr).returncode == 0


if __name__ == "__main__":
    path = find_browser() or install_browser()
    if path is None:
        sys.exit(NONE)
    print(path)
