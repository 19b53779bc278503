"""Extension of Griffe, which reads the docstrings for the site: sections Example are code.

The house style calls the section "Example". Griffe knows only "Examples" as doctests; it would read
their lists as links.
"""

import re
from typing import Any

import griffe

TITLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """Renames the section."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = TITLE.sub(r"\1Examples:", obj.docstring.value)
