"""benchmarks/hit_probability.py: its figures against loops, and the command."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from test_hit_calibration import DIM, NUM_CLASSES, clustered, name_of, unit

from deep_ranking.metrics.reliability import reliability
from deep_ranking.model.calibration import Calibration, fit_calibration
from deep_ranking.reports.probabilities import judge_hits

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "hit_probability.py"
benchmark = runpy.run_path(str(SCRIPT))


def images(seed, per_class=30):
    labels = np.repeat(np.arange(NUM_CLASSES), per_class)
    rows = clustered(np.random.default_rng(seed), labels)
    return benchmark["Images"](rows, np.array([name_of(label) for label in labels]))


def test_differences_from_shares_against_loops():
    same, different, _ = benchmark["groups"]("overlapping", 0, 3000)
    calibration = Calibration((0.0, 2.0), (0.9, 0.1), (0.0,), (2.0,), 1.0, 20)
    pairs = sorted([(each, True) for each in same] + [(each, False) for each in different])
    low, width = pairs[0][0], (pairs[-1][0] - pairs[0][0]) / 20
    bins = [[] for _ in range(20)]
    for distance, is_same in pairs:
        bins[min(int((distance - low) / width), 19)].append(
            calibration.probability(distance) - is_same
        )
    kept = [abs(sum(each) / len(each)) for each in bins if len(each) >= 200]
    assert 5 < len(kept) < 20
    assert benchmark["from_shares"](calibration, same, different) == (
        pytest.approx(max(kept)),
        len(kept),
    )


def test_a_good_fit_is_near_isotonic_regression_and_a_bad_one_is_not():
    same, different, _ = benchmark["groups"]("separated", 0, 1000)
    assert benchmark["from_isotonic"](fit_calibration(same, different), same, different) < 0.002
    line = Calibration((0.0, 2.0), (0.9, 0.1), (0.0,), (2.0,), 1.0, 20)
    assert benchmark["from_isotonic"](line, same, different) > 0.3


def test_hits_in_a_range():
    chances = np.array([0.9, 0.95, 0.97, 0.99, 1.0])
    right = np.array([False, True, False, True, True])
    found = [benchmark["in_range"](chances, right, *each) for each in benchmark["RANGES"]]
    assert found == ["2, 100.0%", "2, 50.0%", "5, 60.0%"]
    assert benchmark["in_range"](chances[:1], right[:1], 0.95, 1.0) == "0"


def test_each_probability_is_in_the_table():
    searched, known = images(0), images(1)
    words, table = benchmark["of_hits"](searched, known, None, 0)
    rows = {name: cells for name, *cells in table}
    assert list(rows) == ["as for two images", "p(hit)"]
    assert "180 queries in a collection of 180 images of 12 classes: 3,600 hits" in words
    calibration = benchmark["calibrated"](known, 0)
    judged = judge_hits(searched.rows, searched.labels, calibration)
    for name, stated in (
        ("as for two images", judged.pairwise),
        ("p(hit)", judged.chances),
    ):
        assert rows[name][0] == f"{reliability(stated, judged.right).calibration_error:.3f}"
        sure = stated >= 0.9
        expected = f"{sure.sum():,}, {judged.right[sure].mean():.1%}" if sure.any() else "0"
        assert rows[name][3] == expected
    assert rows == {
        name: cells for name, *cells in benchmark["of_hits"](searched, None, calibration, 0)[1]
    }
    assert float(rows["p(hit)"][0]) < 0.12 < float(rows["as for two images"][0])
    assert [name for name, *_ in benchmark["of_hits"](searched, None, None, 0)[1]] == ["p(hit)"]


def test_figures_of_a_split_against_loops():
    rng = np.random.default_rng(5)
    known, other = (-np.sort(-rng.uniform(size=(40, 20)), axis=1) for _ in range(2))
    right = rng.uniform(size=known.shape) < known
    error, sure, correct, with_one, mean, perhaps, surely = benchmark["figures_of"](
        known, right, [other]
    )
    assert error == pytest.approx(reliability(known.ravel(), right.ravel()).calibration_error)
    pairs = [
        (p, r) for ps, rs in zip(known, right, strict=True) for p, r in zip(ps, rs, strict=True)
    ]
    assert sure == sum(p >= 0.9 for p, _ in pairs)
    assert correct == sum(p >= 0.9 and r for p, r in pairs)
    assert with_one == sum(any(p >= 0.9 for p in ps) for ps in known) / 40
    assert mean == pytest.approx(sum(map(sum, other)) / 800)
    for share, least in ((perhaps, 0.4), (surely, 0.9)):
        assert share == sum(any(p >= least for p in ps) for ps in other) / 40


def test_more_foreign_searches_make_lower_chances(monkeypatch):
    monkeypatch.setitem(benchmark["of_foreign"].__globals__, "SPLITS", 1)
    monkeypatch.setitem(benchmark["of_foreign"].__globals__, "SHARES", (0.05, 0.4))
    rng = np.random.default_rng(2)
    other = benchmark["Images"](unit(rng.normal(size=(50, DIM))), np.repeat("far", 50))
    (low, *few), (high, *many) = benchmark["of_foreign"](images(0), other, 0)
    assert (low, high) == ("5%", "40%")
    near, far = 3, 6  # the places of mean p(hit)
    assert float(few[near]) > float(many[near]) and float(few[far]) > float(many[far])
    assert float(many[far]) < float(many[near])
    alone = next(iter(benchmark["of_foreign"](images(0), None, 0)))
    assert alone == (low, *few[:far])


@pytest.mark.slow
def test_the_command_prints_three_tables(monkeypatch, tmp_path, capsys):
    def embed_images(_, files, **options):
        labels = [int(Path(file).parent.name[1:]) for file in files]
        return clustered(np.random.default_rng(len(files)), np.array(labels))

    monkeypatch.setattr("deep_ranking.embedding.embed.embed_images", embed_images)
    monkeypatch.setattr("deep_ranking.model.file.load_model", lambda path: None)
    monkeypatch.setattr("deep_ranking.cli.library_messages.start_tensorflow", lambda: None)
    for root, labels in (("a", range(8)), ("b", range(8)), ("other", range(4, 12))):
        for label in labels:
            (tmp_path / root / name_of(label)).mkdir(parents=True)
            for number in range(22):
                (tmp_path / root / name_of(label) / f"{number}.jpg").touch()
    flags = ["--model", "m.h5", "--dataset", tmp_path / "a", tmp_path / "b"]
    flags += ["--calibrate_on", tmp_path / "other", "--max_images_per_class", 20]
    flags += ["--foreign", tmp_path / "other"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, flags)])
    benchmark["main"]()
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("|")]
    assert names.count("---") == 3
    assert names.count("probability") == names.count("foreign searches") == 1
    assert {f"{share:.0%}" for share in benchmark["SHARES"]} < set(names)
    assert {f"made up: {kind}" for kind in benchmark["KINDS"]} < set(names)
    said = [line for line in lines if line.endswith(":")]
    # Classes 4 to 7 are in the data set too, so 4 classes are left to calibrate with.
    assert said[0].endswith("calibrated with 80 images of 4 classes of --calibrate_on:")
    assert said[0].startswith("160 queries in a collection of 160 images of 8 classes")
    assert said[1].startswith("Half of the classes are searched")
