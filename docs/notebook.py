"""Write tour.ipynb, a notebook without outputs, from the cells of tour.py.

Run this after a change of tour.py; a test fails when the notebook is out of date.
"""

import json
import re
from pathlib import Path

SCRIPT = Path(__file__).parent / "tour.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
MARKER = re.compile(r"^# %%(| \[markdown\])\n", re.MULTILINE)
LAST_PRINT = re.compile(r"^print\((\w+)\)\Z", re.MULTILINE)


def notebook() -> str:
    """Return the notebook as JSON; where a cell ends by printing a result, it shows the result."""
    parts = MARKER.split(SCRIPT.read_text(encoding="utf-8"))[1:]
    cells = [
        _cell(number, text.strip("\n"), is_code=not kind)
        for number, (kind, text) in enumerate(zip(parts[::2], parts[1::2], strict=True))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    page = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, text: str, *, is_code: bool) -> dict[str, object]:
    common: dict[str, object] = {"id": f"cell-{number}", "metadata": {}}
    if is_code:
        source = LAST_PRINT.sub(r"\1", text).splitlines(keepends=True)
        return {"cell_type": "code", "execution_count": None, "outputs": [], **common} | {
            "source": source
        }
    source = re.sub(r"^# ?", "", text, flags=re.MULTILINE).splitlines(keepends=True)
    return {"cell_type": "markdown", **common, "source": source}


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(), encoding="utf-8")
