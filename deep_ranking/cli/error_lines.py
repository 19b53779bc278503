"""The one line about an error that the user can mend."""

import argparse
from collections.abc import Iterator

from deep_ranking.files import InputError
from deep_ranking.files.installed import missing_package

# Flags that decide how much memory a command takes, the strongest first.
MEMORY_FLAGS = ("--batch_size", "--memory", "--image_size")

# What libraries say when memory is short, in lower case. TensorFlow is not imported only to ask.
OUT_OF_MEMORY = (
    "resource_exhausted",
    "out of memory",
    "out_of_memory",
    "failed to allocate memory",
    "insufficient memory",
    "bad_alloc",
    "dst tensor is not initialized",  # on a graphics processor
)


def message_of(error: Exception, parser: argparse.ArgumentParser | None = None) -> str | None:
    """Return the line about an error that the user can mend, or None for any other error.

    Args:
        error: what ended the command.
        parser: the command's parser, whose flags the line may name.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):  # of the light installation
        missing = missing_package(error.name)
        who = "this command" if parser is None else parser.prog
        return None if missing is None else f"{who} needs {missing}"
    if is_out_of_memory(error):
        return f"out of memory: {_memory_remedy(parser)}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was too short, by Python, NumPy, OpenCV, TensorFlow or XLA."""
    for each in _causes(error):
        if isinstance(each, MemoryError):
            return True
        names = {kind.__name__ for kind in type(each).__mro__}
        if "ResourceExhaustedError" in names:
            return True
        is_of_library = not type(each).__module__.startswith(("builtins", "deep_ranking"))
        text = str(each).lower()
        if is_of_library and any(words in text for words in OUT_OF_MEMORY):
            return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _memory_remedy(parser: argparse.ArgumentParser | None) -> str:
    known = set() if parser is None else set(parser._option_string_actions)
    *others, last = [flag for flag in MEMORY_FLAGS if flag in known] or [""]
    if not last:
        return "end other programs, give fewer or smaller images, or use a machine with more memory"
    return f"lower {', '.join(others)}{' or ' if others else ''}{last}"
