"""Packages that the light installation lacks, and the line that says how to get them."""

from importlib.util import find_spec

from deep_ranking.files.errors import InputError

TRAIN_PACKAGES = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "matplotlib": "matplotlib",
}
"""Of the extra `train`: the package that brings each module."""


def check_installed(what: str, *modules: str, otherwise: str = "") -> None:
    """Check that all modules that something needs can be imported, without importing them.

    Args:
        what: what needs them, such as a flag.
        modules: of `TRAIN_PACKAGES`.
        otherwise: what else the user can do, such as "leave out --picture".

    Raises:
        InputError: one of them is not installed.
    """
    for module in modules:
        if find_spec(module) is None:
            remedy = f"; or {otherwise}" if otherwise else ""
            raise InputError(f"{what} needs {missing_package(module)}{remedy}")


def missing_package(module: str | None) -> str | None:
    """Return which package is not installed and how to install it; None if it is none of ours.

    Args:
        module: what an import did not find, such as "keras.layers".

    Example:
        >>> missing_package("skimage.feature")
        'scikit-image, not installed here: pip install "deep-ranking[train]"'
    """
    package = TRAIN_PACKAGES.get((module or "").partition(".")[0])
    if package is None:
        return None
    return f'{package}, not installed here: pip install "deep-ranking[train]"'
