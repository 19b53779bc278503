import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tables_of_options_are_those_of_the_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    options = runpy.run_path(str(ROOT / "docs" / "options.py"))
    assert options["written"](readme) == readme, "run `make options`"
    assert "| `--train_from` `LAYER` |" in options["tables"]()
