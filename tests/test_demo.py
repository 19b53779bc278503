"""The demo beats raw pixels and the untrained backbone, on digits that it never saw too."""

import re

import keras
import numpy as np
import pytest

from deep_ranking.cli.main import run_command

RESULT = re.compile(r"  (digits [\d-]+, [a-z ]+?)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)   ([a-z ]+)")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's folder."""
    return tmp_path_factory.mktemp("demo") / "demo"


def test_training_pays_on_digits_never_seen(capsys, demo):
    assert run_command("demo", ["--output_directory", str(demo)]) == 0
    said = capsys.readouterr().out
    (demo.parent / "said.txt").write_text(said)
    results = {match[0]: match[1:] for match in RESULT.findall(said)}
    assert list(results) == ["digits 0-6, images held back", "digits 7-9, never seen"]
    for untrained, raw, trained, verdict in results.values():
        assert float(trained) > max(float(untrained), float(raw)) + 0.02
        assert verdict == "better"
    assert float(results["digits 0-6, images held back"][2]) > 0.97
    assert {path.name for path in demo.iterdir() if not path.name.startswith(".")} == {
        *("digits", "digits.h5", "digits.run", "features"),
        *("held_back_triplets.txt", "unseen_triplets.txt"),
    }


def test_the_command_that_the_demo_prints_makes_its_model(demo, tmp_path):
    said = (demo.parent / "said.txt").read_text()
    command = re.search(r"^  deep-ranking train (.*)$", said, re.MULTILINE)
    models = [keras.models.load_model(demo / "digits.h5", compile=False)]
    assert run_command("train", [*command[1].split(), "--overwrite"]) == 0
    models.append(keras.models.load_model(demo / "digits.h5", compile=False))
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
