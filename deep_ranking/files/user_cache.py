"""The folder for what the project keeps for a user between commands, and can do without."""

import os
from pathlib import Path

import platformdirs

VARIABLE = "DEEP_RANKING_CACHE"


def user_cache_dir() -> Path:
    """Return the folder; it need not exist.

    It is the one that the environment variable DEEP_RANKING_CACHE names, or else the usual one of
    the operating system: ~/.cache/deep_ranking on Linux.
    """
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("deep_ranking", appauthor=False)
