"""Packages that the light installation lacks, and the line that says how to get them."""

from importlib.util import find_spec

from deep_ranking.files.errors import InputError

EXTRAS = {
    "train": {
        "tensorflow": "tensorflow",
        "keras": "keras",
        "sklearn": "scikit-learn",
        "skimage": "scikit-image",
        "matplotlib": "matplotlib",
    },
    "serve": {
        "fastapi": "fastapi",
        "uvicorn": "uvicorn",
        "python_multipart": "python-multipart",
        "starlette": "starlette",
        "pydantic": "pydantic",
        "sklearn": "scikit-learn",
    },
}
"""For each extra the package that brings each of its modules."""


def check_installed(
    what: str, *modules: str, otherwise: str = "", extra: str | None = None
) -> None:
    """Check that all modules that something needs can be imported, without importing them.

    Args:
        what: what needs them, such as a flag.
        modules: of `EXTRAS`.
        otherwise: what else the user can do, such as "leave out --picture".
        extra: as for `missing_package`.

    Raises:
        InputError: one of them is not installed.
    """
    for module in modules:
        if find_spec(module) is None:
            remedy = f"; or {otherwise}" if otherwise else ""
            raise InputError(f"{what} needs {missing_package(module, extra)}{remedy}")


def missing_package(module: str | None, extra: str | None = None) -> str | None:
    """Return which package is not installed and how to install it; None if it is none of ours.

    Args:
        module: what an import did not find, such as "keras.layers".
        extra: which of `EXTRAS` to install; by default the first that brings the package.

    Example:
        >>> missing_package("skimage.feature")
        'scikit-image, not installed here: pip install "deep-ranking[train]"'
    """
    wanted = (module or "").partition(".")[0]
    for name, packages in EXTRAS.items():
        if wanted in packages and extra in (None, name):
            return f'{packages[wanted]}, not installed here: pip install "deep-ranking[{name}]"'
    return None
