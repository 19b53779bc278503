"""Validation images that are training images too are named before a run trains."""

import os
import shutil
from dataclasses import replace

import pytest
from PIL import Image
from stubs import training_stubs

from deep_ranking.config import NetworkConfig, SamplingConfig, TrainConfig
from deep_ranking.training import leakage
from deep_ranking.training.leakage import find_leakage
from deep_ranking.training.run import TrainingRun, train

WORDS = "also trained on"


def write(path, content):
    path.write_bytes(content)
    return str(path)


@pytest.fixture
def hashed(monkeypatch):
    """The files whose content is asked for."""
    asked = []
    digests = leakage.content_digests

    def recorded(paths):
        asked.extend(paths)
        return digests(paths)

    monkeypatch.setattr(leakage, "content_digests", recorded)
    return asked


def test_copies_links_and_the_same_path_count(tmp_path, hashed):
    trained = [write(tmp_path / f"t{number}", bytes([number]) * 9) for number in range(4)]
    os.symlink(trained[1], tmp_path / "link")
    os.link(trained[2], tmp_path / "hard_link")
    others = [
        write(tmp_path / "another", b"nine here"),
        write(tmp_path / "longer", b"0" * 10),
        str(tmp_path / "missing"),
        "zero\0",
    ]
    copy = write(tmp_path / "copy", bytes([3]) * 9)
    for validated, number, is_one_file in (
        (trained[0], 0, True),
        (str(tmp_path / "link"), 1, True),
        (str(tmp_path / "hard_link"), 2, True),
        (copy, 3, False),
    ):
        found = find_leakage(trained, [*others, validated, *others])
        assert found == leakage.Leakage(1, validated, trained[number], is_one_file)
    found = find_leakage(trained, [*others, copy, copy, *trained])
    assert found == leakage.Leakage(6, copy, trained[3], False)
    assert find_leakage(trained, others) is None
    assert str(tmp_path / "longer") not in hashed and str(tmp_path / "missing") not in hashed


def test_only_files_of_equal_size_are_hashed(tmp_path, hashed):
    trained = [write(tmp_path / f"t{size}", b"x" * size) for size in (5, 6, 7)]
    validated = [write(tmp_path / f"v{size}", b"y" * size) for size in (4, 6, 8)]
    assert find_leakage(trained, validated) is None
    assert hashed == [trained[1], validated[1]]
    hashed.clear()
    assert find_leakage(trained, trained).count == 3
    assert hashed == []  # one file needs no hash


def test_empty_and_unreadable_files_do_not_count(tmp_path, monkeypatch):
    trained, validated = (
        [write(tmp_path / f"{name}{size}", b"x" * size) for size in (0, 3)] for name in "tv"
    )
    assert find_leakage(trained[:1], validated[:1]) is None
    assert find_leakage(trained, validated).count == 1
    error = leakage.content_digests([str(tmp_path / "none")])
    errors = [*error] * 2
    monkeypatch.setattr(leakage, "content_digests", lambda _: errors)
    assert find_leakage(trained, validated) is None


@pytest.fixture
def config(tmp_path, write_colors):
    """A run on nine images of three classes that trains nothing to speak of."""
    write_colors(tmp_path / "photos", images=3)
    return TrainConfig(
        dataset=tmp_path / "photos",
        output=tmp_path / "m.h5",
        network=NetworkConfig(image_size=32, weights=None, embedding_size=4),
        batches="classes",
        batch_size=4,
        images_per_class=2,
        steps_per_epoch=1,
        epochs=1,
        augmentation=None,
    )


def lines_of(capsys, config, **options):
    with training_stubs():
        train(config, verbose=0, **options)
    return capsys.readouterr().out.splitlines()


def first_lines_of(capsys, config):
    """What a run says before its first epoch."""
    with training_stubs():
        TrainingRun(config, resume=False, overwrite=True).begin()
    return capsys.readouterr().out.splitlines()


def test_a_validation_folder_of_training_images_is_named_before_training(
    capsys, tmp_path, config, write_colors
):
    other = tmp_path / "other"
    shutil.copytree(config.dataset, other)
    for path in sorted(other.rglob("*.png"))[2:]:
        with Image.open(path) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(path)
    config = replace(config, validation_dataset=other)
    lines = lines_of(capsys, config)
    (line,) = (each for each in lines if WORDS in each)
    assert line == (
        f"2 of 9 validation images are also trained on, such as {other / 'blue' / '0.png'}, a copy "
        f"of {config.dataset / 'blue' / '0.png'}: validation results are too good, and the best "
        "epoch, early stopping and the calibration go by them; give a folder of other images to "
        "--validation_dataset."
    )
    begun = next(number for number, each in enumerate(lines) if "parameters" in each)
    assert lines.index(line) < begun
    # A run that is over has nothing to validate.
    assert not any(WORDS in each for each in lines_of(capsys, config, resume=True))
    more = replace(config, epochs=2)
    assert any(WORDS in each for each in lines_of(capsys, more, resume=True))
    # Images that are no training images have no line.
    for name in ("0.png", "1.png"):
        (other / "blue" / name).unlink()
    assert not any(WORDS in each for each in first_lines_of(capsys, config))


def test_the_training_folder_itself_may_be_validated_on(capsys, config):
    config = replace(config, validation_dataset=config.dataset)
    (line,) = (each for each in first_lines_of(capsys, config) if WORDS in each)
    first = config.dataset / "blue" / "0.png"
    assert line.startswith(f"9 of 9 validation images are also trained on, such as {first}, which ")


def test_copies_in_classes_that_are_held_back_are_named(capsys, tmp_path, config, write_colors):
    shutil.rmtree(config.dataset)
    write_colors(config.dataset, classes=("red", "green", "blue"), images=3)
    for name in ("pink", "grey", "teal"):
        shutil.copytree(config.dataset / "red", config.dataset / name)
    share = replace(config, validation_share=0.5)
    (line,) = (each for each in first_lines_of(capsys, share) if WORDS in each)
    assert " a copy of " in line
    assert "; delete one of each copy; doctor lists them" in line
    assert line.endswith(" --validation_share.")
    for part, names in (("train", ("red", "green")), ("val", ("blue", "pink"))):
        for name in names:
            (tmp_path / "split" / part).mkdir(parents=True, exist_ok=True)
            shutil.move(config.dataset / name, tmp_path / "split" / part / name)
    split = replace(config, dataset=tmp_path / "split")
    (line,) = (each for each in first_lines_of(capsys, split) if WORDS in each)
    assert line.startswith("3 of 6 validation images are also trained on")
    assert "choose another split by --validation_split" in line


def test_images_of_triplet_files_are_compared(capsys, tmp_path, config):
    def triplets(name, *rows):
        text = "".join(",".join(f"photos/{image}" for image in row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    trained = triplets("triplets.txt", ("red/0.png", "red/1.png", "green/0.png"))
    one = triplets("one.txt", ("blue/0.png", "blue/1.png", "green/0.png"))
    none = triplets("none.txt", ("blue/0.png", "blue/1.png", "green/1.png"))
    of_file = TrainConfig(
        triplets=trained, output=config.output, network=config.network, batch_size=3, epochs=1,
        validation_triplets=one,
    )  # fmt: skip
    (line,) = (each for each in first_lines_of(capsys, of_file) if WORDS in each)
    assert line.startswith("1 of 3 validation images is also trained on")
    assert "triplet_sampler.py --split" in line and "--validation_triplets" in line
    unlike = replace(of_file, validation_triplets=none)
    assert not any(WORDS in each for each in first_lines_of(capsys, unlike))
    drawn = replace(
        config, batches="triplets", batch_size=3, sampling=SamplingConfig(strategy="out-of-class"),
        validation_triplets=none,
    )  # fmt: skip
    (line,) = (each for each in first_lines_of(capsys, drawn) if WORDS in each)
    assert line.startswith("3 of 3 validation images are also trained on")
