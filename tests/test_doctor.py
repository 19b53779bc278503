import io
import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from collections_of import make_model
from image_bytes import tiff
from PIL import Image
from stubs import build_stub

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig, SamplingConfig, TrainConfig
from deep_ranking.files import InputError
from deep_ranking.images import decoding
from deep_ranking.reports.doctor import estimate, findings, survey, timing

SIDE = 64
CLASSES = ("ant", "bee", "cat")
EACH = 8
CACHED = ("--cache_features", "--train_from", "head")


def picture(seed, size=(SIDE, SIDE)):
    """A picture that is like no other: coarse coloured cells, blurred."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return cells.resize(size, Image.Resampling.BICUBIC)


def fill(root, names=CLASSES, each=EACH, seed=0):
    """Folders of classes with nothing wrong."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for image in range(each):
            picture((seed, number, image)).save(root / name / f"{image}.png")
    return root


@pytest.fixture
def data(tmp_path):
    return fill(tmp_path / "data")


@pytest.fixture
def examined(capsys):
    """Runs the command, and gives its exit code and what it prints as JSON."""

    def run(root, *flags):
        given = ["--dataset", str(root), "--no-estimate", "--image_size", str(SIDE), "--json"]
        code = run_command("doctor", [*given, *flags])
        return code, json.loads(capsys.readouterr().out)

    return run


def kinds(report):
    return {each["kind"]: each for each in report["findings"]}


def paths(finding):
    return [{item["path"] for item in group} for group in finding["images"]]


def test_nothing_is_found_where_nothing_is_wrong(data, examined, capsys):
    code, report = examined(data)
    assert code == 0 and report["findings"] == [] and report["training_fails"] is False
    assert report["parts"] == [
        {"name": "", "num_images": 24, "num_readable": 24, "num_classes": 3, "is_trained": True}
    ]
    arguments = ["--dataset", str(data), "--no-estimate", "--image_size", "64"]
    assert run_command("doctor", arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == ("Nothing stops training, no findings.")


def break_one(root):
    whole = (root / "ant" / "0.png").read_bytes()
    (root / "ant" / "0.png").write_bytes(whole[: len(whole) // 2])
    return {"ant/0.png"}


def make_fifo(root):
    os.mkfifo(root / "ant" / "fifo.png")  # opening it would wait for ever
    return {"ant/fifo.png"}


def leave_one(root):
    for number in range(1, EACH):
        (root / "bee" / f"{number}.png").unlink()
    return {"bee/0.png"}


def copy_inside(root):
    shutil.copy(root / "ant" / "0.png", root / "ant" / "again.png")
    return {"ant/0.png", "ant/again.png"}


def copy_across(root):
    shutil.copy(root / "ant" / "0.png", root / "cat" / "again.png")
    return {"ant/0.png", "cat/again.png"}


def near_copy(root, to):
    # Of the same size and with the right name, so that nothing else is odd.
    image = Image.open(root / "ant" / "1.png")
    image.save(root / to / "near.jpg", quality=70)
    return {"ant/1.png", f"{to}/near.jpg"}


def long_image(root):
    picture(99, (5 * SIDE, SIDE)).save(root / "ant" / "long.png")
    return {"ant/long.png"}


def small_image(root):
    picture(99, (31, SIDE)).save(root / "ant" / "small.png")
    return {"ant/small.png"}


def other_size(root):
    picture(99, (SIDE, SIDE + 6)).save(root / "ant" / "other.png")
    return {"ant/other.png"}


def gray_image(root):
    picture(99).convert("L").save(root / "ant" / "gray.png")
    return {"ant/gray.png"}


def deep_gray(root):
    pixels = np.asarray(picture(99).convert("L"), np.uint16) << 4  # 12 of 16 bits
    Image.fromarray(pixels).save(root / "ant" / "deep.png")
    return {"ant/deep.png"}


def many_bands(root):
    bands = np.asarray(picture(99))[..., [0, 1, 2, 0, 1]]
    (root / "ant" / "bands.tif").write_bytes(tiff(bands, 1))
    return {"ant/bands.tif"}


def white_drawing(root):
    pixels = np.asarray(picture(99).convert("L")) // 128 * 255
    white = np.full_like(pixels, 255)
    Image.fromarray(np.dstack([white] * 3 + [pixels])).save(root / "ant" / "drawing.png")
    return {"ant/drawing.png"}


def wrong_name(root):
    (root / "ant" / "0.png").rename(root / "ant" / "0.jpg")
    return {"ant/0.jpg"}


@pytest.mark.parametrize(
    ("plant", "expected", "others"),
    [
        (break_one, ("broken", "fails"), set()),
        (make_fifo, ("broken", "fails"), set()),
        (leave_one, ("classes_of_one", "warning"), set()),
        (copy_inside, ("copies_inside_classes", "note"), set()),
        (copy_across, ("copies_across_classes", "warning"), set()),
        (lambda root: near_copy(root, "ant"), ("near_copies_inside_classes", "note"), set()),
        (lambda root: near_copy(root, "cat"), ("near_copies_across_classes", "warning"), set()),
        (long_image, ("long", "note"), {"odd_size"}),
        (small_image, ("small", "note"), {"odd_size"}),
        (other_size, ("odd_size", "note"), set()),
        (gray_image, ("colour_modes", "note"), set()),
        (deep_gray, ("stretched_range", "note"), {"colour_modes"}),
        (many_bands, ("first_bands", "note"), set()),
        (white_drawing, ("on_black", "note"), {"colour_modes"}),
        (wrong_name, ("wrong_extension", "note"), set()),
    ],
)
def test_what_was_planted_is_found_and_nothing_else(data, examined, plant, expected, others):
    kind, severity = expected
    planted = plant(data)
    code, report = examined(data)
    found = kinds(report)
    assert found.keys() == {kind} | others
    assert found[kind]["severity"] == severity and found[kind]["suggestion"]
    assert set().union(*paths(found[kind])) == planted
    assert found[kind]["count"] == len(found[kind]["images"]) == 1
    assert code == (severity == "fails") and report["training_fails"] is (severity == "fails")


def test_broken_images_that_are_skipped_stop_nothing(data, examined):
    break_one(data)
    code, report = examined(data, "--skip_broken")
    assert code == 0 and [each["severity"] for each in report["findings"]] == ["warning"]


def test_a_class_of_broken_images_is_none(data, examined):
    for file in (data / "bee").iterdir():
        file.write_bytes(b"")
    code, report = examined(data)
    found = kinds(report)
    assert code == 1 and found.keys() == {"broken", "unreadable_classes"}
    assert "bee" in found["unreadable_classes"]["what"]
    for file in (data / "ant").iterdir():
        file.write_bytes(b"")
    code, report = examined(data, "--skip_broken")  # one class is left
    assert code == 1 and "no_triplets" in kinds(report)
    assert kinds(report)["no_triplets"]["severity"] == "fails"
    for file in (data / "cat").iterdir():
        file.write_bytes(b"")
    code, report = examined(data, "--skip_broken")
    assert code == 1 and "no_images" in kinds(report) and report["estimates"] == []


@pytest.mark.parametrize("flags", [[], ["--batches", "classes"]])
def test_training_needs_two_classes_and_two_images_of_one(tmp_path, examined, flags):
    code, report = examined(fill(tmp_path / "one", names=("ant",)), *flags)
    assert code == 1 and kinds(report)["no_triplets"]["severity"] == "fails"
    code, report = examined(fill(tmp_path / "single", each=1), *flags)
    assert code == 1 and kinds(report).keys() == {"no_triplets", "classes_of_one"}
    code, report = examined(fill(tmp_path / "fewest", names=("a", "b"), each=2), *flags)
    assert code == 0 and report["findings"] == []


def test_imbalance(tmp_path, examined):
    root = fill(tmp_path / "data", each=2)
    for number in range(2, 20):  # ten times the smallest
        picture((7, number)).save(root / "bee" / f"{number}.png")
    found = kinds(examined(root)[1])
    assert found.keys() == {"imbalance"} and "bee" in found["imbalance"]["what"]
    assert "20 and 2" in found["imbalance"]["what"]
    (root / "bee" / "19.png").unlink()
    assert examined(root)[1]["findings"] == []


def test_what_listing_leaves_out_is_said(data, examined):
    picture(50).save(data / "outside.png")
    picture(51).save(data / "ant" / "line\nbreak.png")
    (data / "ant" / "back").symlink_to(data, target_is_directory=True)
    (data / "nothing").mkdir()
    code, report = examined(data)
    found = kinds(report)
    expected = {"outside_classes", "unlistable", "links_seen_again", "empty_folders"}
    assert code == 0 and found.keys() == expected
    assert {each["severity"] for each in report["findings"]} == {"note"}
    assert "nothing" in found["empty_folders"]["what"]


def test_a_class_that_its_colour_mode_gives_away(data, examined):
    for number in range(EACH):
        picture((0, 0, number)).convert("L").save(data / "ant" / f"{number}.png")
    found = kinds(examined(data)[1])
    assert found.keys() == {"colour_modes", "modes_tell_classes"}
    assert "ant" in found["modes_tell_classes"]["what"]
    assert found["colour_modes"]["count"] == EACH


def test_leaks_between_splits(tmp_path, examined):
    fill(tmp_path / "train")
    fill(tmp_path / "val", seed=1)
    fill(tmp_path / "unseen", names=("dog", "cat"), seed=2)
    shutil.copy(tmp_path / "train" / "ant" / "0.png", tmp_path / "val" / "ant" / "copy.png")
    near_copy(tmp_path / "train", "../unseen/dog")
    code, report = examined(tmp_path)
    found = kinds(report)
    assert code == 0
    assert found.keys() == {"copies_across_splits", "near_copies_across_splits", "shared_classes"}
    assert paths(found["copies_across_splits"]) == [{"train/ant/0.png", "val/ant/copy.png"}]
    assert "train and val" in found["copies_across_splits"]["what"]
    assert paths(found["near_copies_across_splits"]) == [{"train/ant/1.png", "unseen/dog/near.jpg"}]
    assert found["shared_classes"]["what"].endswith(": cat")
    assert [part["is_trained"] for part in report["parts"]] == [True, False, False]


def test_broken_images_of_other_splits_stop_nothing(tmp_path, examined):
    fill(tmp_path / "train")
    fill(tmp_path / "val", seed=1)
    break_one(tmp_path / "val")
    code, report = examined(tmp_path)
    assert code == 0 and kinds(report)["broken"]["severity"] == "warning"


def test_leaks_into_a_validation_folder(tmp_path, data, examined):
    other = fill(tmp_path / "judged", names=("dog", "eel"), seed=3)
    shutil.copy(data / "ant" / "0.png", other / "dog" / "copy.png")
    break_one(data)
    shutil.copy(data / "ant" / "1.png", other / "eel" / "copy.png")
    code, report = examined(data, "--validation_dataset", str(other))
    found = kinds(report)
    assert code == 1 and found.keys() == {"broken", "copies_across_splits"}
    assert paths(found["copies_across_splits"]) == [{"ant/1.png", f"{other}/eel/copy.png"}]
    (other / "eel" / "copy.png").write_bytes(b"no image")  # judging would stop at it as well
    found = kinds(examined(data, "--validation_dataset", str(other))[1])
    assert found["broken"]["count"] == 2


def test_leaks_into_the_classes_that_are_held_back(tmp_path, examined):
    root = fill(tmp_path / "data", names=("a", "b", "c", "d"))
    for name in "bcd":
        shutil.copy(root / "a" / "0.png", root / name / "copy.png")
    flags = ("--validation_share", "0.5", "--batches", "classes")
    code, report = examined(root, *flags)
    found = kinds(report)
    assert code == 0 and found.keys() == {"copies_across_splits", "copies_across_classes"}
    assert len(paths(found["copies_across_splits"])[0]) == 4
    assert [part["num_classes"] for part in report["parts"]] == [2, 2]
    shutil.rmtree(root / "d")
    code, report = examined(root, *flags)
    assert code == 1 and kinds(report)["validation_share"]["severity"] == "fails"


def check_bytes(file):
    assert isinstance(file, io.BytesIO)  # and no name, which would be read again
    return file


def test_each_file_is_read_once(data, examined, monkeypatch):
    break_one(data)
    read, whole = [], decoding.open_regular
    monkeypatch.setattr(
        decoding, "open_regular", lambda file, **more: read.append(file) or whole(file, **more)
    )
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **more: opened(check_bytes(file), **more))
    examined(data)
    assert sorted(read) == sorted(data.rglob("*.png"))


def test_a_model_finds_a_wrong_label(tmp_path, write_colors, examined, monkeypatch):
    root = tmp_path / "data"
    write_colors(root, classes=("red", "green"), images=20)
    (root / "red" / "0.png").rename(root / "green" / "red after all.png")
    network = NetworkConfig(image_size=32, weights=None, embedding_size=8, dropout=0.0)
    monkeypatch.setattr("deep_ranking.model.file.load_model", lambda _: build_stub(network, seed=0))
    make_model(tmp_path / "m.h5", network)
    flags = ("--model", str(tmp_path / "m.h5"), "--image_size", "32")
    found = kinds(examined(root, *flags)[1])
    suspect = found["mislabelled"]
    assert suspect["count"] == 1 and suspect["severity"] == "warning"
    first, witness = suspect["images"][0]
    assert first["path"] == "green/red after all.png" and first["detail"].startswith(
        "green: 10 of its 10 nearest are red; the nearest green is at rank "
    )
    assert witness["path"].startswith("red/")
    right = tmp_path / "right.csv"
    right.write_text(f"path,from_class,to_class\n{first['path']},green,green\n")
    assert "mislabelled" not in kinds(examined(root, *flags, "--corrections", str(right))[1])


def test_small_classes_are_not_suspects(tmp_path, write_colors, examined, monkeypatch):
    root = tmp_path / "data"
    write_colors(root, classes=("red", "green"), images=6)
    (root / "other").mkdir()
    for number, color in enumerate([(210, 90, 30), (210, 30, 90), (150, 30, 30)]):  # all reddish
        Image.new("RGB", (16, 16), color).save(root / "other" / f"{number}.png")
    network = NetworkConfig(image_size=32, weights=None, embedding_size=8, dropout=0.0)
    monkeypatch.setattr("deep_ranking.model.file.load_model", lambda _: build_stub(network, seed=0))
    make_model(tmp_path / "m.h5", network)
    flags = ("--model", str(tmp_path / "m.h5"), "--image_size", "32")
    assert "mislabelled" not in kinds(examined(root, *flags)[1])


def test_triplets_and_bytes_are_those_of_the_file(tmp_path, examined, monkeypatch, capsys):
    root = fill(tmp_path / "data", names=("a", 4 * "a much longer name"), each=3)
    for number in range(20):
        picture((9, number)).save(root / "a" / f"with, comma {number}.png")
    fill(root / "empty", names=())
    monkeypatch.chdir(tmp_path)
    flags = ["--num_pos_images", "4", "--num_neg_images", "2"]
    values = {each["kind"]: each["value"] for each in examined(root, *flags)[1]["estimates"]}
    assert run_command("sample", ["--input_directory", "data", *flags]) == 0
    written = (tmp_path / "triplets.txt").read_bytes()
    assert values["triplets"] == written.count(b"\n")
    assert values["file"] == pytest.approx(len(written), rel=0.02)


@pytest.mark.parametrize(
    "flags",
    [
        ["--balance"],
        ["--strategy", "in-class"],
        ["--strategy", "in-class", "--max_images_per_class", "2"],  # of each item, not category
    ],
)
def test_triplets_of_other_ways_to_draw_are_those_of_the_sampler(
    tmp_path, examined, monkeypatch, flags
):
    for number, category in enumerate(("fruit", "tool")):
        fill(tmp_path / "data" / category, names=("one", "two"), each=2 + number, seed=number)
    picture(77).save(tmp_path / "data" / "tool" / "two" / "more.png")
    monkeypatch.chdir(tmp_path)
    flags = [*flags, "--num_pos_images", "2", "--num_neg_images", "3"]
    code, report = examined("data", *flags)
    assert run_command("sample", ["--input_directory", "data", *flags]) == 0
    written = (tmp_path / "triplets.txt").read_bytes().count(b"\n")
    assert report["estimates"][0]["value"] == pytest.approx(written, rel=0.1)
    assert code == 0


def test_hard_triplets_are_counted_by_their_neighbours(data, examined):
    flags = ["--strategy", "hard", "--num_pos_images", "2", "--num_neighbours", "3"]
    values = {each["kind"]: each["value"] for each in examined(data, *flags)[1]["estimates"]}
    assert values == {"triplets": 24 * 2 * 3}  # and no file


def test_a_file_that_the_disk_does_not_hold_stops_training(data, examined, monkeypatch):
    usage = shutil.disk_usage(data)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    code, report = examined(data)
    assert code == 1 and kinds(report).keys() == {"disk"}
    code, report = examined(data, "--strategy", "out-of-class")  # which needs no file
    assert code == 0 and [each["kind"] for each in report["estimates"]] == ["triplets"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--epochs", "3"),
        pytest.param(("--batches", "classes", "--batch_size", "12"), marks=pytest.mark.slow),
        pytest.param(
            ("--batches", "classes", "--batch_size", "12", *CACHED),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_time_and_memory_are_measured_on_the_network(data, examined, monkeypatch, flags):
    monkeypatch.setattr(timing, "build_network", build_stub)
    monkeypatch.setattr(timing, "set_trainable_from", lambda *_, **__: None)
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.01)
    small = ("--embedding_size", "8", "--estimate")
    code, report = examined(data, *small, *flags)
    values = {each["kind"]: each["value"] for each in report["estimates"]}
    assert code == 0 and {"triplets", "time", "memory"} <= values.keys()
    assert 0 < values["time"] < 600
    assert 2**27 < values["memory"] < 2**34  # TensorFlow alone is more than the first


def test_what_grows_with_the_batch_is_a_line_through_two_sizes():
    steps = timing._StepTimer((3, 6))
    measured = {3: 2.0, 6: 3.5}  # half a second for an image, half for a step
    assert [steps.at_size(size, measured) for size in (3, 6, 24)] == [2.0, 3.5, 12.5]
    assert steps.at_size(24, {3: 2.0, 6: 1.9}) == 1.9  # noise gives no time back


def test_large_images_are_timed_as_several_small_ones():
    small, growth = timing._reduced(NetworkConfig(image_size=1024))
    assert (small.image_size, growth) == (256, 16.0)
    small, growth = timing._reduced(NetworkConfig(image_size=256, backbone_size=512))
    assert (small.image_size, small.backbone_size, growth) == (128, 256, 4.0)
    assert small.normalisation == "backbone"  # which random weights would change
    assert timing._reduced(NetworkConfig(weights=None)) == (NetworkConfig(weights=None), 1.0)


def test_seconds_and_memory_of_a_run():
    config = TrainConfig(epochs=2, batch_size=6)
    workload = estimate.Workload(num_images=100, num_triplets=1000, num_steps=500, file_bytes=None)
    cost = estimate.TrainingCost(
        read_seconds=0.2 * os.cpu_count(), step_seconds=1.0, frozen_seconds=0.0, memory=10_000
    )
    # 6 images of 0.2 s, and 1 s for each of 500 steps.
    assert estimate.training_seconds(workload, cost, config) == (pytest.approx(1100), 0)
    assert estimate.training_memory(workload, cost, config) == 10_000 + 16 * 1000
    lines = {
        each.kind: each
        for each in estimate.make_estimates(workload, cost, config, SamplingConfig())
    }
    assert lines["time"].value == pytest.approx(2200) and "37 minutes" in lines["time"].what
    machine = estimate.machine_memory()
    too_much = estimate.TrainingCost(0.0, 1000.0, 0.0, machine)
    found = [each.kind for each in estimate.check_resources(workload, too_much, config)]
    assert found == ["memory", "long_training"]


class Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.described = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.sources.append(value)
            if tag == "img" and name == "alt":
                self.described.append(value)


def test_the_page_shows_what_was_planted_and_loads_nothing(data, tmp_path, capsys):
    copy_across(data)
    break_one(data)
    shutil.copy(data / "bee" / "0.png", data / "cat" / "bee <b>.png")
    page = tmp_path / "page.html"
    arguments = ["--dataset", str(data), "--no-estimate", "--image_size", "64"]
    assert run_command("doctor", [*arguments, "--html", str(page)]) == 1
    printed = capsys.readouterr()
    assert f"Pictures are in {page}." in printed.out
    assert printed.err.splitlines()[-1].endswith("training would fail: 1 problem, 1 warning")
    html = page.read_text(encoding="utf-8")
    parsed = Sources()
    parsed.feed(html)
    assert all(re.match(r"data:|#", source) for source in parsed.sources)
    assert "script" not in parsed.tags and "<b>" not in html
    assert {os.path.relpath(path, data) for path in parsed.described} == {
        "bee/0.png",
        "cat/bee <b>.png",
    }
    assert "ant/0.png" in html  # broken: its name


def test_every_kind_has_a_title():
    root = os.path.dirname(findings.__file__)
    for name in ("classes", "copies", "estimate", "images"):
        with open(os.path.join(root, f"{name}.py"), encoding="utf-8") as file:
            called = re.findall(r'finding\(\s*f?"([a-z_{}]+)"', file.read())
        assert called
        for kind in called:
            for each in ("copies", "near_copies"):
                assert kind.replace("{kind}", each) in findings.KINDS


def test_long_lists_are_cut_and_counted(data, capsys, examined, monkeypatch):
    for number in range(5):
        (data / "ant" / f"broken {number}.png").write_bytes(b"")
    arguments = ["--dataset", str(data), "--no-estimate", "--image_size", "64"]
    assert run_command("doctor", arguments) == 1
    printed = capsys.readouterr().out
    assert "and 2 more" in printed and "5 of 29 images cannot be read" in printed
    monkeypatch.setattr(findings, "MOST_KEPT", 4)
    broken = kinds(examined(data)[1])["broken"]
    assert broken["count"] == 5 and len(broken["images"]) == 4


def test_bad_input_is_one_line(tmp_path, data, capsys):
    (tmp_path / "flat").mkdir()
    for arguments in (
        ["--dataset", str(tmp_path / "gone")],
        ["--dataset", str(tmp_path / "flat")],
        ["--dataset", str(data), "--html", str(tmp_path / "gone" / "page.html")],
        ["--dataset", str(data), "--model", str(tmp_path / "gone.h5")],
        ["--dataset", str(data), "--validation_dataset", str(tmp_path / "gone")],
    ):
        assert run_command("doctor", arguments) == 1
        printed = capsys.readouterr()
        assert printed.out == "" and len(printed.err.splitlines()) == 1
    for flags in (["--strategy", "relevance"], ["--batch_size", "4"], ["--num_pos_images", "0"]):
        with pytest.raises(SystemExit) as end:
            run_command("doctor", ["--dataset", str(data), *flags])
        assert end.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_recipe_is_taken_as_train_takes_it(data, examined):
    code, report = examined(data, "--recipe", "laptop")
    assert code == 0
    [triplets] = [each for each in report["estimates"] if each["kind"] == "triplets"]
    # 192 images a batch are 48 classes of 4: of 3 classes, 12 queries x 3 positives x 8 negatives.
    assert triplets["value"] == 12 * 3 * 8


def test_the_doctor_takes_the_splits_that_training_takes(tmp_path, examined):
    for name in ("train", "val"):
        fill(tmp_path / "data" / name)
    (tmp_path / "data/val" / CLASSES[0] / "0.png").write_bytes(b"no image")
    code, report = examined(tmp_path / "data", "--batches", "classes", "--batch_size", "4",
                            "--images_per_class", "2")  # fmt: skip
    assert code == 1 and kinds(report)["broken"]["severity"] == "fails"
    (tmp_path / "data/train").rename(tmp_path / "data/test")
    arguments = ["--dataset", str(tmp_path / "data"), "--no-estimate", "--batches", "classes"]
    assert run_command("doctor", arguments) == 1  # as training does


def test_images_that_may_not_be_read_are_not_to_be_mended(data, examined, monkeypatch):
    path = data / CLASSES[0] / "0.png"
    plain = survey.read_file

    def refusing(file):
        if file == path:
            raise InputError(f"{file}: cannot be read (Permission denied)")
        return plain(file)

    monkeypatch.setattr(survey, "read_file", refusing)
    _, report = examined(data)
    suggestion = kinds(report)["broken"]["suggestion"]
    assert suggestion.startswith("allow reading 1 of them, mend the others")
