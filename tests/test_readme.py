import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tables_of_options_are_those_of_the_commands():
    options = runpy.run_path(str(ROOT / "docs" / "options.py"))
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert options["page"]() == page, "run `make options`"
    assert "| `--train_from` `LAYER` |" in page
