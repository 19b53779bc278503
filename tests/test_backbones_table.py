"""benchmarks/backbones.py: what fails for one backbone leaves the other figures in the table."""

import runpy
import sys
from pathlib import Path

import pytest

from deep_ranking.embedding import export
from deep_ranking.files import InputError

pytestmark = pytest.mark.usefixtures("thin_vgg16")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "backbones.py"


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, flags)])
    runpy.run_path(str(SCRIPT))["main"]()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of onnxruntime
@pytest.mark.parametrize("failing", ["vgg16", "efficientnet-lite0"])
def test_what_fails_leaves_the_other_figures(
    failing, monkeypatch, capfd, tmp_path, image_tree_of_colors
):
    def export_model(network, path, **options):
        if network.network_config.backbone == failing:
            raise InputError("no such operator")
        return real(network, path, **options)

    real = export.export_model
    monkeypatch.setattr(export, "export_model", export_model)
    flags = ["--backbones", "vgg16,efficientnet-lite0", "--image_sizes", 32, "--onnx_sizes", 32]
    flags += ["--batch_size", 1, "--rounds", 1, "--dataset", image_tree_of_colors]
    run(monkeypatch, *flags, "--label", "parent", "--weights", f"vgg16={tmp_path / 'none.h5'}")
    said = capfd.readouterr()
    assert f"{failing}: no ONNX: no such operator" in said.err
    assert "vgg16: no mAP@R: " in said.err and "none.h5" in said.err
    lines = [line.strip("| ").split(" | ") for line in said.out.splitlines() if line[:1] == "|"]
    assert lines[0][3:] == ["Keras, 32 px", "ONNX, 32 px", "mAP@R without training"]
    rows = {name: cells for name, *cells in lines[2:]}
    assert set(rows) == {"vgg16", "efficientnet-lite0"}
    assert rows["vgg16"][4] == "failed"
    assert 0 < float(rows["efficientnet-lite0"][4]) <= 1
    for name, (_, _, in_keras, in_onnx, _) in rows.items():
        assert float(in_keras.split(" (")[0]) > 0 and float(in_keras.split("(")[1][:-1]) > 0
        if name == failing:
            assert in_onnx == "no ONNX"
        else:
            speed, _, ratio = in_onnx.partition(" ")
            assert float(speed) > 0
            assert ratio == ("" if failing == "vgg16" else "(1.00)")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--image_sizes", 64, "--onnx_sizes", 32], "--onnx_sizes: expected some of --image_sizes"),
        (["--weights", "vgg16=a.h5"], "act only with --dataset"),
        (["--dataset", "photos", "--weights", "vgg16"], "--weights: expected NAME=PATH"),
        (["--dataset", "photos", "--weights", "xception=a.h5"], "one of --backbones"),
    ],
)
def test_flags_that_cannot_act_are_refused(flags, said, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, *flags)
    assert end.value.code == 2
    assert said in capsys.readouterr().err
