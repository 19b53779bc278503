"""The atlas of errors: what it finds, the files it writes, and what became of earlier errors."""

import json
import re

import numpy as np
import pytest

from deep_ranking.cli.main import run_command
from deep_ranking.datasets.corrections import read_corrections
from deep_ranking.datasets.labelled import LabelledImages, Labels
from deep_ranking.files import InputError
from deep_ranking.reports.atlas import making
from deep_ranking.reports.atlas.atlas import Atlas
from deep_ranking.reports.atlas.changes import compare_atlases, read_atlas
from deep_ranking.reports.atlas.errors import find_errors
from deep_ranking.reports.atlas.making import WrittenAtlas
from deep_ranking.reports.page.label_errors import likely_mislabelled
from deep_ranking.sampling.triplet_file import read_triplets


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_errors_on_a_circle():
    # Class 0 about 0 degrees, class 1 about 90; row 5 is labelled 0 and lies in class 1, row 6 of
    # class 0 is nearest to row 7 of class 1, between them, and row 12 of class 1 is far away.
    degrees = [-6, -4, -1, 2, 5, 89, 38, 41, 85, 88, 92, 95, 200]
    codes = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    found = find_errors(on_circle(*degrees), codes)
    first = found.suspects[0]
    assert first.row == 5
    assert (first.proposed, first.witness, first.own_rank) == (1, 9, 6)
    assert (first.votes, first.voters) == (5, 10)
    wrong = {each.row: (each.nearest, each.own) for each in found.wrong}
    assert wrong[6] == (7, 4) and wrong[7] == (6, 8) and wrong[5] == (9, 6)
    leads = [each.lead for each in found.wrong]
    assert leads == sorted(leads, reverse=True)
    (pair,) = found.confusions
    assert {pair.first, pair.second} == {0, 1}
    assert pair.num_first + pair.num_second == len(pair.rows) == len(found.wrong)
    triplets = found.hard_triplets()
    doubted = {each.row for each in found.likely}
    assert 5 in doubted and not doubted & set(triplets.ravel().tolist())
    assert (codes[triplets[:, 0]] == codes[triplets[:, 1]]).all()
    assert (codes[triplets[:, 0]] != codes[triplets[:, 2]]).all()


def test_labels_that_people_say_are_right_are_no_suspects(tmp_path):
    degrees, codes = [-6, -4, -1, 2, 5, 89, 85, 88, 92, 95], np.repeat([0, 1], [6, 4])
    rows, confirmed = on_circle(*degrees), np.arange(10) == 5
    before, found = (find_errors(rows, codes, confirmed=each) for each in (None, confirmed))
    assert [each.row for each in before.suspects] == [5] and before.num_confirmed == 0
    assert not found.suspects and found.num_confirmed == 1
    assert 5 in found.hard_triplets()[:, 0] and 5 not in before.hard_triplets()  # the model errs
    assert 5 not in {each.row for each in found.far}
    assert len(likely_mislabelled(rows, codes)) == 1
    assert likely_mislabelled(rows, codes, confirmed=confirmed) == []

    def last_line(errors):
        data = LabelledImages(tmp_path, list("abcdefghij"), Labels(codes, ["a", "b"]))
        return str(WrittenAtlas(tmp_path, Atlas(data, errors, "m"), 3))

    assert "because --corrections says that it is right: 1 label." in last_line(found)
    assert "delete the lines" in last_line(before) and "delete the lines" not in last_line(found)


def test_far_images_are_no_suspects():
    rng = np.random.default_rng(0)
    rows = np.zeros((22, 8), np.float32)
    rows[:10, 0], rows[10:20, 1], rows[20, [0, 2, 3]], rows[21, 1] = 1, 1, (0.5, 1, 1), 1
    rows += rng.normal(scale=0.02, size=rows.shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = find_errors(rows, np.repeat([0, 1, 0], [10, 10, 2]))
    assert [each.row for each in found.far] == [20]
    assert [each.row for each in found.suspects] == [21]  # in class 1, labelled 0
    assert found.far[0].cosine < found.far[0].usual


@pytest.fixture(scope="module")
def photos(tmp_path_factory, write_colors):
    """Colours; 0.png of blue is in the folder of red."""
    root = tmp_path_factory.mktemp("atlas") / "photos"
    write_colors(root, images=6)
    (root / "blue/0.png").rename(root / "red/blue.png")
    return root


@pytest.mark.slow
def test_the_command_writes_an_atlas_that_corrections_come_of(
    photos, compiled_once, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(making, "NUM_HEATED", 1)
    command = ["--model", str(compiled_once / "m.h5"), "--dataset", str(photos), "--atlas"]
    folder = tmp_path / "first"
    assert run_command("evaluate", [*command, str(folder)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"Look at {folder / 'atlas.html'}. ")
    found = json.loads((folder / "atlas.json").read_text())
    assert found["suspects"][0]["path"] == "red/blue.png"
    assert found["suspects"][0]["proposed"] == "blue"
    suspects = read_corrections(folder / "suspects.csv").standing
    assert suspects["red/blue.png"].to_class == "blue"
    assert suspects["red/blue.png"].note.startswith("suggested: 5 of its 10 nearest are blue; ")
    triplets = read_triplets(folder / "hard_triplets.txt")
    assert all((folder / each).resolve().is_file() for each in triplets.paths)
    page = (folder / "atlas.html").read_text()
    assert page.count('class="pair"') >= 1 and "like blue?" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)

    again = [*command, str(tmp_path / "second"), "--before", str(folder)]
    assert run_command("evaluate", [*again, "--corrections", str(folder / "suspects.csv")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"likely wrong labels +[1-9]\d* ", said)
    after = json.loads((tmp_path / "second/atlas.json").read_text())
    assert "red/blue.png" in after["changes"]["suspects"]["gone"]

    assert run_command("evaluate", [*command, str(folder)]) == 1
    assert "there is an atlas already; choose another --atlas" in capsys.readouterr().err


def atlas_of(paths, suspects=(), wrong=()):
    return {
        "version": 1,
        "root": "photos",
        "paths": list(paths),
        "suspects": [{"path": each} for each in suspects],
        "wrong_nearest": [{"path": each} for each in wrong],
    }


def test_what_became_of_earlier_errors(tmp_path):
    before = atlas_of("abcd", suspects="abd", wrong="c")
    now = atlas_of("abce", suspects="bce", wrong="c")
    found = compare_atlases(before, now, tmp_path)
    kind = found.kinds["suspects"]
    assert (kind.gone, kind.stayed, kind.came) == (["a"], ["b"], ["c"])  # d is gone, e is new
    assert found.kinds["wrong_nearest"].stayed == ["c"]
    assert "Not compared: 1 new image, 1 no longer there." in str(found)
    with pytest.raises(InputError, match="is of other images than photos"):
        compare_atlases(before, atlas_of("xy"), tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"version": 2}', "no json", '{"version": 1}'])
def test_another_file_is_no_atlas(tmp_path, text):
    (tmp_path / "atlas.json").write_text(text)
    with pytest.raises(InputError, match="not what `evaluate --atlas` writes"):
        read_atlas(tmp_path)
