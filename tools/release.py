"""Cut a version from the changelog: `make release VERSION=1.2.3`.

What CHANGELOG.md lists as unreleased becomes the section of the version, and `__version__` in
`deep_ranking/__init__.py`, the only place of the version, is set to it.
"""

import argparse
import re
import sys
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNRELEASED = "## [Unreleased]\n"
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


def cut(root: Path, version: str, day: date) -> None:
    """Move what is unreleased below a heading with version and date, and set the version.

    Args:
        root: folder of CHANGELOG.md and of the package.
        version: three numbers with dots between, higher than the last version.
        day: date of the release.

    Raises:
        ValueError: the version is no such version, or nothing is unreleased; no file has changed.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"VERSION must be three numbers, such as 1.2.3. Received: {version}")
    changelog, package = root / "CHANGELOG.md", root / "deep_ranking" / "__init__.py"
    code = package.read_text(encoding="utf-8")
    (last,) = VERSION.findall(code)
    if _numbers(version) <= _numbers(last):
        raise ValueError(f"VERSION must be higher than {last}. Received: {version}")
    before, found, after = changelog.read_text(encoding="utf-8").partition(UNRELEASED)
    if not found or not after.split("\n## ", 1)[0].strip():
        raise ValueError(f"{changelog.name} lists no change below {UNRELEASED.strip()}")
    heading = f"{UNRELEASED}\n## [{version}] - {day.isoformat()}\n"
    changelog.write_text(before + heading + after, encoding="utf-8")
    package.write_text(VERSION.sub(f'__version__ = "{version}"', code), encoding="utf-8")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("version")
    wanted = parser.parse_args().version
    try:
        cut(ROOT, wanted, datetime.now(UTC).date())
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"CHANGELOG.md and deep_ranking/__init__.py are at {wanted}.")
