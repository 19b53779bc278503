"""Find a file by its path in another Unicode normal form.

macOS and some network drives store names decomposed (NFD: e and a combining accent). Lists that
people write have them composed (NFC). Both look the same, and Linux takes them for two names.
"""

import os
import unicodedata


def existing_form(path: str) -> str:
    """Return the path of what exists under this name in any normal form; else the path as it is.

    Args:
        path: a path; each of its folders may be in a form of its own.

    Example:
        >>> existing_form("photos/cat/0.png")
        'photos/cat/0.png'
    """
    if path.isascii() or os.path.lexists(path):
        return path
    for other in (unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)):
        if os.path.lexists(other):
            return other
    folder, name = os.path.split(path)
    if not name or folder == path:
        return path
    folder = existing_form(folder) if folder else ""
    wanted = unicodedata.normalize("NFC", name)
    try:
        names = sorted(os.listdir(folder or os.curdir))
    except (OSError, ValueError):
        return path
    for each in names:
        if unicodedata.normalize("NFC", each) == wanted:
            return os.path.join(folder, each)
    return path
