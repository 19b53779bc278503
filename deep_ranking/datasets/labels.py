"""What an image's class is: by its folders, in one normal form, told apart from near-equal names.

The words are the same in every command:

    first    the first folder of the path, the blog's; the default
    parent   the folder that holds the image, with the folders before it: Fruit/Apple/Golden
    N        the first N folders, or all if there are fewer: 2 for Fruit/Apple
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from deep_ranking.files import InputError

FIRST, PARENT = "first", "parent"


def checked_label(label: str | int) -> str:
    """Return what makes the class, in words: "first", "parent" or a number from 1.

    Raises:
        InputError: it is something else.
    """
    text = str(label).strip().lower()
    if text in (FIRST, PARENT):
        return text
    if text.isascii() and text.isdecimal() and 0 < int(text) < 1000 and not isinstance(label, bool):
        return FIRST if int(text) == 1 else str(int(text))
    raise InputError(f"label must be first, parent or a number from 1. Received: {label}")


def label_in_words(label: str) -> str:
    """Return what makes the class, for people."""
    if label == PARENT:
        return "the folder that holds the image"
    return "the first folder" if label == FIRST else f"the first {label} folders"


def folder_label(label: str) -> Callable[[str], str]:
    """Return the function from a folder to the class of its images.

    Args:
        label: "first", "parent" or a number.

    Returns:
        It takes the folders of an image's path with "/" between them, "" for none.

    Example:
        >>> folder_label("2")("Fruit/Apple/Golden")
        'Fruit/Apple'
    """
    if label == PARENT:
        return normal_label
    level = 1 if label == FIRST else int(label)
    return lambda folder: normal_label(leading_folders(folder, level))


def leading_folders(folder: str, level: int) -> str:
    """Return the first `level` folders of a path of folders, or all if there are fewer."""
    return "/".join(folder.split("/")[:level])


def normal_label(label: str) -> str:
    """Return a label without blanks around it or its folders, in Unicode's normal form C."""
    if label.isascii() and " " not in label:
        return label.strip()
    return "/".join(unicodedata.normalize("NFC", part).strip() for part in label.split("/"))


def join_numbers(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Join labels that are one whole number, such as 1 and 1.0: spreadsheets write both.

    Returns:
        The labels, with 1 for 1.0 if both are there; and those that were replaced.
    """
    names = set(labels)
    whole = {}
    for name in names:
        digits, dot, zeros = name.partition(".")
        if dot and digits.isdecimal() and zeros and not zeros.strip("0") and digits in names:
            whole[name] = digits
    return [whole.get(label, label) for label in labels], sorted(whole)


def near_equal_labels(names: Iterable[str]) -> list[list[str]]:
    """Return groups of labels that differ only in case, blanks, hyphens and underscores."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        plain = unicodedata.normalize("NFKC", name).casefold()
        key = "".join(each for each in plain if each not in " -_\t")
        groups.setdefault(key, []).append(name)
    return [each for each in groups.values() if len(each) > 1]
