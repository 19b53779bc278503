"""The demo beats raw pixels and the untrained backbone, on digits that it never saw too."""

import contextlib
import io
import re

import keras
import numpy as np
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


def test_the_command_that_the_demo_prints_makes_its_model(demo):
    folder, said = demo
    command = re.search(r"^  deep-ranking train (.*)$", said, re.MULTILINE)
    models = [keras.models.load_model(folder / "digits.h5", compile=False)]
    assert run_command("train", [*command[1].split(), "--overwrite"]) == 0
    models.append(keras.models.load_model(folder / "digits.h5", compile=False))
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
