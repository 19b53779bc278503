"""The folder that keeps results between runs: DEEP_RANKING_CACHE, or the user's cache folder."""

import os
from contextlib import suppress
from pathlib import Path

import platformdirs


def cache_folder() -> Path | None:
    """Return the folder, made if missing: ~/.cache/deep_ranking on Linux; None if it cannot be."""
    named = os.environ.get("DEEP_RANKING_CACHE")
    # Without a home, platformdirs raises an error, or leaves a ~, at which `expanduser` does.
    with suppress(OSError, RuntimeError):
        folder = Path(named or platformdirs.user_cache_dir("deep_ranking", appauthor=False))
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    return None
