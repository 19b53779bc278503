"""What a run says about settings that are legal and seldom meant."""

import json
from dataclasses import replace

import pytest
from stubs import training_stubs

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, TrainConfig
from deep_ranking.files import progress_bar
from deep_ranking.training.notes import schedule_notes
from deep_ranking.training.run import train

STUB = NetworkConfig(image_size=32, weights=None, embedding_size=4)


@pytest.fixture
def config(tmp_path, write_colors):
    """A run of 3 epochs of one batch, on 12 images of which 9 are used."""
    write_colors(tmp_path / "photos")
    return TrainConfig(
        dataset=tmp_path / "photos",
        output=tmp_path / "m.h5",
        network=STUB,
        batches="classes",
        batch_size=9,
        images_per_class=3,
        max_images_per_class=3,
        epochs=3,
        decay="cosine",
    )


def printed(capsys, config, **options):
    with training_stubs():
        train(config, verbose=0, **options)
    return capsys.readouterr().out.splitlines()


def test_a_run_that_has_more_epochs_already_says_so(capsys, config):
    assert not any("Going on" in line for line in printed(capsys, config))
    lines = printed(capsys, replace(config, epochs=2), resume=True)
    wanted = "The run has 3 epochs already: nothing is trained; to go on, give --epochs above 3."
    assert [line for line in lines if "epochs" in line][:1] == [wanted]
    assert not any("Going on" in line or "cosine" in line for line in lines)


@pytest.mark.slow
def test_epochs_that_change_a_cosine_schedule_are_told(capsys, config):
    printed(capsys, config)
    assert not any("cosine" in line for line in printed(capsys, config, resume=True))
    lines = printed(capsys, replace(config, epochs=5), resume=True)
    assert "Going on after epoch 3 of 5." in lines
    (line,) = (line for line in lines if "cosine" in line)
    assert "planned for 3 epochs and now has 5" in line and "jumps up" in line
    assert not any("cosine" in line for line in printed(capsys, replace(config, epochs=5),
                                                        resume=True))  # fmt: skip


@pytest.mark.slow
def test_a_warm_up_longer_than_the_run_is_told(capsys, config):
    assert not any("warm-up" in line for line in printed(capsys, replace(config, warmup_steps=3)))
    lines = printed(capsys, replace(config, warmup_steps=12), overwrite=True)
    (line,) = (line for line in lines if "warm-up" in line)
    assert "12 batches is longer than the run, 3 batches" in line and "25%" in line


def test_the_warm_up_of_each_part_of_a_run_counts():
    config = TrainConfig(epochs=5, head_epochs=1, train_from="block5_conv1", warmup_steps=20)
    head, rest = schedule_notes(config, 4, num_epochs=0)
    assert "the 1 epoch of --head_epochs, 4 batches" in head and "20%" in head
    assert "the rest, 16 batches" in rest
    assert list(schedule_notes(config, 4, num_epochs=1)) == [rest]
    assert list(schedule_notes(config, 40, num_epochs=0)) == []
    assert list(schedule_notes(config, 4, num_epochs=5)) == []


@pytest.mark.slow
def test_train_and_doctor_say_how_many_images_are_used(capsys, config):
    said = "9 of 12 images used: at most 3 of each class (--max_images_per_class)"
    assert f"{said}." in printed(capsys, config)
    everything = replace(config, max_images_per_class=4)
    assert not any("images used" in each for each in printed(capsys, everything, overwrite=True))
    doctor = ["--dataset", str(config.dataset), "--batches", "classes", "--batch_size", "6",
              "--images_per_class", "3", "--no-estimate"]  # fmt: skip
    run_command("doctor", [*doctor, "--max_images_per_class", "3"])
    assert said in capsys.readouterr().out
    run_command("doctor", [*doctor, "--max_images_per_class", "3", "--json"])
    estimates = json.loads(capsys.readouterr().out)["estimates"]
    assert next(each["value"] for each in estimates if each["kind"] == "images") == 9
    run_command("doctor", doctor)
    assert "images used" not in capsys.readouterr().out


@pytest.mark.parametrize("verbose", [0, 2])
def test_a_long_epoch_says_in_a_log_how_far_it_is(capsys, config, monkeypatch, verbose):
    monkeypatch.setattr(progress_bar, "SECONDS_BETWEEN_LINES", 0.0)
    with training_stubs():
        train(replace(config, epochs=2, steps_per_epoch=2), verbose=verbose)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    said = [line.partition(",")[0] for line in lines]
    wanted = [f"epoch {epoch} of 2: {batch} of 2 batches" for epoch in (1, 2) for batch in (1, 2)]
    assert said == (wanted if verbose else [])
