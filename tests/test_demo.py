"""The demo beats raw pixels and the untrained backbone, on digits that it never saw too."""

import contextlib
import io
import json
import re

import pytest

from deep_ranking.cli.main import run_command

RESULT = re.compile(r"  (digits [\d-]+, [a-z ]+?)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)   ([a-z ]+)")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's folder, and what the demo printed."""
    folder, said = tmp_path_factory.mktemp("demo") / "demo", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run_command("demo", ["--output_directory", str(folder)]) == 0
    return folder, said.getvalue()


def test_training_pays_on_digits_never_seen(demo):
    folder, said = demo
    results = {match[0]: match[1:] for match in RESULT.findall(said)}
    assert list(results) == ["digits 0-6, images held back", "digits 7-9, never seen"]
    for untrained, raw, trained, verdict in results.values():
        assert float(trained) > max(float(untrained), float(raw)) + 0.02
        assert verdict == "better"
    assert float(results["digits 0-6, images held back"][2]) > 0.97
    (compiled,) = folder.glob("digits.*.float32.litert")
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        *("digits", "digits.h5", "digits.run", "features", "index", compiled.name),
        *("held_back_triplets.txt", "unseen_triplets.txt"),
    }


def test_the_command_that_the_demo_prints_has_the_settings_of_its_run(demo, monkeypatch):
    folder, said = demo
    command = re.search(r"^  deep-ranking train (.*)$", said, re.MULTILINE)
    given = []
    monkeypatch.setattr("deep_ranking.training.run.train", lambda config, **_: given.append(config))
    monkeypatch.setattr("deep_ranking.cli.train.compile_trained", lambda _: None)
    assert run_command("train", [*command[1].split(), "--overwrite"]) == 0
    found = (folder / "digits.run" / "config.json").read_text()
    settings, wanted = json.loads(given[0].to_json()), json.loads(found)
    assert (
        settings | {"cache_dir": wanted["cache_dir"]} == wanted
    )  # where features are changes none
