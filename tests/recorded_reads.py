"""Records which settings and flags a command reads to act on them, not to check or to copy them."""

import argparse
import dataclasses
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import deep_ranking
from deep_ranking.config.base import Config
from deep_ranking.images.augmentation import Augmentation

PACKAGE = Path(deep_ranking.__file__).parent
# Code of settings: a read in it belongs to whoever calls it.
SETTINGS = (
    *(str(path) for path in (PACKAGE / "config").glob("*.py")),
    str(PACKAGE / "images" / "augmentation.py"),
    str(PACKAGE / "files" / "typed_fields.py"),
    dataclasses.__file__,
)
# Functions in which a read is no use: checks, copies, and comparison with an earlier run.
NO_USE = {
    *("__post_init__", "__eq__", "__repr__", "__hash__", "to_json", "replace", "asdict"),
    *("_asdict_inner", "from_flags", "convert_fields", "_as_flags", "_fingerprints"),
    *("_check_settings", "config_from", "train_config", "_settings", "set_recipe_as_defaults"),
    *("_check", "check_files_exist", "check_output_file"),
}
NO_USE_FILES = tuple(f"/{name}.py" for name in ("flag_table", "conflicts", "argparse"))


def _is_use(frame):
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if function in NO_USE or file.endswith(NO_USE_FILES):
            return False
        if file not in SETTINGS:
            return True
        frame = frame.f_back
    return False


@contextmanager
def recorded_reads():
    """Yield two sets that fill while the block runs: settings, and flags, that were read."""
    settings, flags = set(), set()

    def recording(kind, into, names):
        usual = kind.__getattribute__

        def read(self, name):
            if names(self, name) and _is_use(sys._getframe(1)):
                into.add(name)
            return usual(self, name)

        return read

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Config, Augmentation):
            is_field = lambda self, name: name in type(self).__dataclass_fields__  # noqa: E731
            patch.setattr(
                kind, "__getattribute__", recording(kind, settings, is_field), raising=False
            )
        is_flag = lambda self, name: not name.startswith("_")  # noqa: E731
        patch.setattr(
            argparse.Namespace,
            "__getattribute__",
            recording(argparse.Namespace, flags, is_flag),
            raising=False,
        )
        yield settings, flags
