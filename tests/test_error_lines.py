"""Out of memory is one line that names the flags to lower."""

import re

import numpy as np
import pytest
from test_cli import usage_error

from deep_ranking.cli import evaluate, train
from deep_ranking.cli.error_lines import is_out_of_memory, message_of
from deep_ranking.cli.main import make_parser, run_command
from deep_ranking.files import InputError


def too_large_array():
    np.empty(1 << 60, np.float32)


def exhausted():
    import tensorflow as tf

    tf.zeros((1 << 23, 1 << 23)) + 1.0  # 256 TiB


def in_a_batch():
    import tensorflow as tf

    batches = tf.data.Dataset.range(2).map(
        lambda number: tf.numpy_function(lambda _: too_large_array(), [number], tf.float32)
    )
    next(iter(batches))


def opencv():
    import cv2

    cv2.resize(np.zeros((4, 4, 3), np.uint8), (1 << 30, 1 << 30))


def wrapped():
    try:
        too_large_array()
    except MemoryError as error:
        raise RuntimeError("the layer failed") from error


def python():
    bytearray(1 << 62)


@pytest.mark.parametrize("fail", [
    too_large_array, pytest.param(exhausted, marks=pytest.mark.slow), in_a_batch, opencv, wrapped,
    python,
])  # fmt: skip
def test_every_library_s_lack_of_memory_is_one_line(fail, monkeypatch, capsys):
    monkeypatch.setattr(train, "run", lambda *_: fail())
    assert run_command("train", []) == 1
    line = capsys.readouterr().err
    assert line == "error: out of memory: lower --batch_size, --memory or --image_size\n"
    monkeypatch.setattr(evaluate, "run", lambda *_: fail())
    assert run_command("evaluate", []) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: out of memory: ") and line.count("\n") == 1
    assert "--batch_size" not in line


def test_a_flag_that_the_command_lacks_is_not_named():
    assert message_of(MemoryError(), make_parser("summary")) == "out of memory: lower --image_size"
    lower = "out of memory: lower --batch_size or --image_size"
    assert message_of(MemoryError(), make_parser("doctor")) == lower


def test_other_errors_are_no_lack_of_memory():
    assert not is_out_of_memory(ValueError("out of memory"))  # our own, or Python's
    assert message_of(ValueError("odd")) is None
    assert message_of(InputError("a.jpg: out of memory")) == "a.jpg: out of memory"
    assert message_of(FileNotFoundError(2, "No such file", "a.jpg")) == "a.jpg: No such file"


@pytest.mark.parametrize("name", ["", ".", "/", "é", "a.h5/"])
def test_an_odd_name_of_a_model_file_is_a_usage_error(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deep_ranking.cli.train.start_tensorflow", lambda: 1 / 0)
    if name == "a.h5/":  # pathlib drops the slash
        with pytest.raises(ZeroDivisionError):
            run_command("train", ["--output", name])
    else:
        assert "output must end in .h5" in usage_error(capsys, "train", "--output", name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "--input_directory", ".", "--max_images_per_class", "9" * 25],
        ["sample", "--input_directory", ".", "--num_pos_images", "9" * 25],
        ["sample", "--input_directory", ".", "--shards", "100000"],
        ["train", "--steps_per_epoch", "9" * 25],
        ["search", "--index", "i", "--image", "a", "--top", "9" * 25],
    ],
)
def test_a_number_that_no_library_can_hold_is_a_usage_error(arguments, capsys):
    line = usage_error(capsys, *arguments)
    assert re.search(r"must be ([\d,]+ or less|1 to 99,999)\. Received: [19]", line)


def test_no_name_of_a_model_is_one_line(write_colors, tmp_path, monkeypatch, capsys):
    write_colors(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", "", "--dataset", "photos", "--output", "r.html"]
    assert run_command("report", arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: .: ") and line.count("\n") == 1
