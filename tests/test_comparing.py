import csv
import gzip
import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from collections_of import make_model
from PIL import Image
from sklearn.metrics import roc_auc_score
from stubs import build_stub

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.images import read_image
from deep_ranking.model.calibration import fit_calibration
from deep_ranking.reports.comparing import CrossedPairs, PairComparison, read_image_pairs


def unit_rows(count, dim=5, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def some_calibration():
    rng = np.random.default_rng(0)
    return fit_calibration(rng.uniform(0.2, 1.2, 200), rng.uniform(0.8, 1.9, 200))


@pytest.fixture
def folder(tmp_path):
    """Empty files under names that people use; the pairs file lies beside them."""
    for name in ("a.jpg", "b b.JPG", "com,ma.png", 'qu"ote.png', os.fsdecode(b"\xe9.jpg")):
        (tmp_path / name).touch()
    return tmp_path


def read(folder, data, name="pairs.csv"):
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_image_pairs(path)


def names(pairs):
    return [[Path(pairs.paths[number]).name for number in row] for row in pairs.rows]


# The pairs file


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.csv.gz"])
def test_a_file_of_pairs(folder, name):
    data = b'a.jpg,b b.JPG\r\n"com,ma.png","qu""ote.png"\nb b.JPG,a.jpg\n\xe9.jpg,a.jpg'
    pairs = read(folder, b"\xef\xbb\xbf" + data, name)
    assert names(pairs) == [
        ["a.jpg", "b b.JPG"],
        ["com,ma.png", 'qu"ote.png'],
        ["b b.JPG", "a.jpg"],
        [os.fsdecode(b"\xe9.jpg"), "a.jpg"],
    ]
    assert len(pairs.paths) == 5  # each once
    assert all(map(os.path.exists, pairs.paths))
    assert pairs.same is None
    pairs.check_images_exist()


def test_labels(folder):
    lines = "".join(f"a.jpg,b b.JPG,{label}\n" for label in ("1", "0", "same", "different", "SAME"))
    assert read(folder, lines.encode()).same.tolist() == [True, False, True, False, True]


def test_paths_from_the_working_folder(folder, monkeypatch):
    (folder / "below").mkdir()
    monkeypatch.chdir(folder)
    assert read(folder / "below", b"a.jpg,b b.JPG\n").paths == ["a.jpg", "b b.JPG"]


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"a.jpg\n", 1, "expected image1,image2 or image1,image2,label, received 1 field"),
        (b"a.jpg,a.jpg\na.jpg,a.jpg,1\n", 2, "expected image1,image2, received 3 fields"),
        (b"a.jpg,a.jpg,1\na.jpg,a.jpg\n", 2, "expected image1,image2,label, received 2 fields"),
        (b"a.jpg,\n", 1, "a field is empty"),
        (b"a.jpg,com,ma.png\n", 1, "Received: ma.png; quote a path"),
        (b'a.jpg,a.jpg\n"a.jpg,b\n', 2, "quote"),
        (b"a.jpg,\0\n", 1, "not a text file"),
        (b"x.jpg,y.jpg\n", 1, "image x.jpg not found in any of"),
    ],
)
def test_a_bad_line_is_named(folder, data, line, reason):
    with pytest.raises(InputError) as caught:
        read(folder, data)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'pairs.csv'}:{line}: ") and reason in message


def test_files_that_are_none(folder):
    with pytest.raises(InputError, match="no pairs in this file"):
        read(folder, b"")
    with pytest.raises(InputError, match=r"none\.csv: no such pairs file; check --pairs"):
        read_image_pairs(folder / "none.csv")
    whole = gzip.compress(b"a.jpg,a.jpg\n" * 50)
    for name, data in (
        ("cut.csv.gz", whole[:-9]),
        ("garbled.csv.gz", whole[:12] + b"\xff" * 9 + whole[21:]),
        ("plain.csv.gz", b"a.jpg,a.jpg\n"),
    ):
        (folder / name).write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}: not a whole gzip file"):
            read_image_pairs(folder / name)


def test_a_missing_image_is_named_with_its_line(folder):
    pairs = read(folder, b"a.jpg,b b.JPG\na.jpg,gone.jpg\nb b.JPG,gone.jpg\n")
    with pytest.raises(InputError, match=r"pairs\.csv:2: .*gone\.jpg: no such image"):
        pairs.check_images_exist()


# Comparing


def test_distances_cosines_and_summary_of_listed_pairs(folder):
    rng = np.random.default_rng(1)
    files = sorted(path.name for path in folder.iterdir() if "\udce9" not in path.name)
    chosen = rng.integers(0, 4, (30, 2))
    labels = rng.integers(0, 2, 30)
    text = io.StringIO()
    writer = csv.writer(text)
    for (one, other), label in zip(chosen, labels, strict=True):
        writer.writerow([files[one], files[other], label])
    pairs = read(folder, text.getvalue().encode())
    by_name = dict(zip(files, unit_rows(4).astype(np.float64), strict=True))
    rows = np.stack([by_name[Path(path).name] for path in pairs.paths]).astype(np.float32)
    expected = np.array(
        [np.linalg.norm(by_name[files[one]] - by_name[files[other]]) for one, other in chosen]
    )
    calibration = some_calibration()
    comparison = PairComparison(pairs, rows, calibration=calibration)
    found = list(comparison.rows())
    assert [list(row) for row in found] == [comparison.columns] * 30
    assert [Path(row["image2"]).name for row in found] == [files[other] for _, other in chosen]
    np.testing.assert_allclose([row["distance"] for row in found], expected, atol=1e-7)
    for row in found:
        assert row["probability"] == calibration.probability(row["distance"])
    assert [row["same"] for row in found] == labels.tolist()
    summary = comparison.summary()
    assert (summary["pairs"], summary["images"], summary["left_out"]) == (30, 4, 0)
    assert summary["mean"] == pytest.approx(expected.mean())
    assert summary["nearest"] == pytest.approx(expected.min(), abs=1e-7)
    assert summary["roc_auc"] == pytest.approx(roc_auc_score(labels, -expected.round(9)))
    right = (expected <= calibration.threshold) == labels
    assert summary["accuracy"] == pytest.approx(right.mean())

    cosines = PairComparison(pairs, rows, metric="cosine")
    dots = [by_name[files[one]] @ by_name[files[other]] for one, other in chosen]
    found = list(cosines.rows())
    np.testing.assert_allclose([row["cosine"] for row in found], dots, atol=1e-6)
    assert {row["probability"] for row in found} == {None}
    summary = cosines.summary()
    assert summary["mean"] == pytest.approx(np.mean(dots), abs=1e-6)
    assert summary["nearest"] == pytest.approx(np.max(dots), abs=1e-6)
    assert "accuracy" not in summary and "roc_auc" in summary


def test_crossed_pairs_are_all_of_one_with_all_of_the_other(monkeypatch):
    monkeypatch.setattr("deep_ranking.reports.comparing.PAIRS_AT_ONCE", 2)
    pairs = CrossedPairs(["a", "b"], ["c", "a", "d"])
    assert sorted(pairs.paths) == ["a", "b", "c", "d"] and len(pairs) == 6
    rows = unit_rows(4)
    comparison = PairComparison(pairs, rows)
    found = [(row["image1"], row["image2"]) for row in comparison.rows()]
    assert found == list(itertools.product("ab", "cad"))
    summary = comparison.summary()
    assert (summary["nearest"], summary["nearest_pair"]) == (0, ("a", "a"))


def test_pairs_of_a_broken_image_are_left_out():
    pairs = CrossedPairs(["a", "b"], ["c", "d"])
    rows = unit_rows(4)
    rows[pairs.paths.index("d")] = np.nan
    comparison = PairComparison(pairs, rows)
    assert [(row["image1"], row["image2"]) for row in comparison.rows()] == [("a", "c"), ("b", "c")]
    assert comparison.summary()["left_out"] == 2
    nothing = PairComparison(pairs, np.full_like(rows, np.nan))
    assert list(nothing.rows()) == []
    with pytest.raises(InputError, match="no pair is left"):
        nothing.summary()


def test_rows_are_compared_as_they_are_read():
    pairs = CrossedPairs([f"a{n}" for n in range(100)], [f"b{n}" for n in range(100)])
    comparison = PairComparison(pairs, unit_rows(200))
    next(comparison.rows())
    assert comparison.summary()["pairs"] == 100  # of 10,000


# The command


CONFIG = NetworkConfig(image_size=32, weights=None, embedding_size=8)


@pytest.fixture(scope="module")
def stub():
    return build_stub(CONFIG, seed=0)


@pytest.fixture
def model_path(stub, tmp_path, monkeypatch):
    """A file that loads as a stub; `test_cli` compares with a real model."""
    monkeypatch.setattr("deep_ranking.model.file.load_model", lambda _: stub)
    return make_model(tmp_path / "model.h5", CONFIG)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two folders: three images, one of them below, and two images."""
    root = tmp_path_factory.mktemp("photos, all")
    rng = np.random.default_rng(3)
    for name in ("old/1.png", "old/2.png", "old/in it/3.JPG", "new/4.png", "new/5.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(root / name)
    return root


@pytest.fixture
def distance_by_hand(stub):
    """The distance of two files by plain Keras."""

    def distance(first, second):
        images = np.stack([read_image(path, 32) for path in (first, second)])
        one, other = stub.predict_on_batch(images.astype(np.float32)).astype(np.float64)
        return np.sqrt(((one - other) ** 2).sum())

    return distance


def compared(capsys, *arguments):
    """What the command prints on standard output and on standard error."""
    assert run_command("compare", list(map(str, arguments))) == 0
    return capsys.readouterr()


def test_two_folders(photos, model_path, distance_by_hand, capsys):
    command = ("-m", model_path, "-i1", photos / "old", "-i2", photos / "new")
    said = compared(capsys, *command)
    rows = list(csv.DictReader(io.StringIO(said.out)))
    expected = [
        (str(photos / "old" / one), str(photos / "new" / other))
        for one in ("1.png", "2.png", "in it/3.JPG")
        for other in ("4.png", "5.png")
    ]
    assert [(row["image1"], row["image2"]) for row in rows] == expected
    assert {row["probability"] for row in rows} == {""}
    distances = [float(row["distance"]) for row in rows]
    by_hand = [distance_by_hand(*pair) for pair in expected]
    np.testing.assert_allclose(distances, by_hand, atol=1e-5)
    last = said.err.splitlines()[-1]
    nearest = ", ".join(expected[int(np.argmin(by_hand))])
    assert last == (
        f"6 pairs of 5 images: mean distance {np.mean(distances):.6f}, of the nearest pair "
        f"{min(distances):.6f} ({nearest})."
    )


def test_a_file_and_a_folder_as_json_to_a_file(photos, model_path, distance_by_hand, capsys):
    output = photos / "found.json"
    image = photos / "new" / "4.png"
    command = ("-m", model_path, "-i1", image, "-i2", photos / "old", "--metric", "cosine")
    said = compared(capsys, *command, "--json", "--output", output)
    assert said.out.startswith("3 pairs of 4 images: mean cosine 0.") and said.err == ""
    found = json.loads(output.read_text())
    assert (found["metric"], found["model"]) == ("cosine", str(model_path))
    for row in found["pairs"]:
        distance = distance_by_hand(row["image1"], row["image2"])
        assert row["cosine"] == pytest.approx(1 - distance**2 / 2, abs=1e-5)
    assert found["summary"]["mean"] == pytest.approx(
        np.mean([row["cosine"] for row in found["pairs"]])
    )
    output.unlink()


def test_pairs_of_a_calibrated_model(photos, model_path, capsys):
    pairs = photos / "pairs.csv"
    pairs.write_text("old/1.png,old/2.png,same\nold/2.png,new/4.png,different\n")
    calibration = some_calibration()
    make_model(model_path, CONFIG, calibration)
    said = compared(capsys, "--model", model_path, "--pairs", pairs)
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["same"] for row in rows] == ["1", "0"]
    for row in rows:
        expected = calibration.probability(float(row["distance"]))
        assert float(row["probability"]) == pytest.approx(expected)
    assert f"at the calibrated distance {calibration.threshold:.3f}." in said.err
    assert "ROC-AUC" in said.err


def test_a_broken_image_of_a_pair(photos, model_path, capsys, tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes((photos / f"old/{number}.png").read_bytes())
    (tmp_path / "broken.png").write_bytes((photos / "old/1.png").read_bytes()[:200])
    pairs, output = tmp_path / "pairs.csv", tmp_path / "out.csv"
    pairs.write_text("1.png,2.png\n2.png,broken.png\n")
    command = ["--model", str(model_path), "--pairs", str(pairs), "--output", str(output)]
    assert run_command("compare", command) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {pairs}:2: {tmp_path / 'broken.png'}: ")
    assert "--skip_broken" in said and said.count("\n") == 1
    assert not output.exists()
    said = compared(capsys, *command, "--skip_broken")
    assert "broken.png: left out" in said.err
    assert "1 pair of 3 images" in said.out and "1 pair left out" in said.out
    assert len(output.read_text().splitlines()) == 2
    # Of a folder, what cannot be read is left out as by `search`; a file that is named is not.
    said = compared(capsys, "-m", model_path, "-i1", tmp_path / "1.png", "-i2", tmp_path)
    assert "broken.png: left out" in said.err and len(said.out.splitlines()) == 3
    command = ["-m", model_path, "-i1", tmp_path / "broken.png", "-i2", tmp_path]
    assert run_command("compare", list(map(str, command))) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'broken.png'}: broken image")


def test_cosine_of_two_images(photos, model_path, distance_by_hand, capsys):
    images = [photos / "old/1.png", photos / "new/4.png"]
    command = ("-m", model_path, "-i1", images[0], "-i2", images[1], "--metric", "cosine")
    printed = float(compared(capsys, *command).out.splitlines()[0])
    cosine = 1 - distance_by_hand(*images) ** 2 / 2
    assert printed == pytest.approx(cosine, abs=1e-5)
    settings = json.loads(compared(capsys, *command, "--json").out)
    assert settings["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert settings["metric"] == "cosine"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--pairs", "p.csv", "--image1", "a.jpg"], "--pairs and --image1 exclude each other"),
        (["--image1", "a.jpg"], "--image2"),
        ([], "--image1, --image2"),
        (["--pairs", "p.csv", "--metric", "manhattan"], "--metric"),
    ],
)
def test_a_wrong_call(arguments, named, capsys):
    with pytest.raises(SystemExit) as end:
        run_command("compare", ["--model", "m.h5", *arguments])
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert named in line and line.count("\n") == 1
