import json
import os
import tempfile

import numpy as np
import pytest
from scipy.stats import chisquare

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.metrics import Interval, bootstrap_interval
from deep_ranking.metrics.evaluation import (
    PER_QUERY,
    EmbeddedImages,
    draw_triplets,
    evaluate_embeddings,
    evaluate_triplets,
    means_by_class,
)
from deep_ranking.metrics.retrieval import retrieval_metrics
from deep_ranking.model.file import save_model
from deep_ranking.model.network import build_network
from deep_ranking.reports import evaluating
from deep_ranking.reports.evaluating import without_nan
from deep_ranking.reports.evaluation_text import MAX_WIDTH, describe_gain, figures, method_lines

pytestmark = pytest.mark.usefixtures("thin_vgg16", "eager", "models_loaded_once")


def images(seed=0, sizes=(30, 20, 1), noise=1.0, dim=8):
    """Embeddings around one centre a class, in mixed order."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"class {number}" for number in range(len(sizes))], sizes)
    labels = rng.permutation(labels)
    centres = np.random.default_rng(99).normal(size=(len(sizes), dim))
    rows = centres[np.unique(labels, return_inverse=True)[1]]
    rows = rows + noise * rng.normal(size=rows.shape)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return EmbeddedImages([f"{number}.png" for number in range(len(rows))], labels, rows)


@pytest.mark.parametrize("own", [True, False])
def test_drawn_triplets_are_uniform_over_what_is_right(own):
    queries = np.array(["a", "b", "a", "c", "a", "b"])
    gallery = None if own else np.array(["b", "a", "b", "a", "b", "a", "c"])
    searched = queries if own else gallery
    triplets = draw_triplets(queries, gallery, per_query=2000, seed=1)
    for query in range(len(queries)):
        rows = triplets[triplets[:, 0] == query]
        same = {
            row for row in np.flatnonzero(searched == queries[query]) if not (own and row == query)
        }
        other = set(np.flatnonzero(searched != queries[query]))
        if not same:
            assert len(rows) == 0  # a class of one
            continue
        assert len(rows) == 2000
        for column, possible in ((1, same), (2, other)):
            values, counts = np.unique(rows[:, column], return_counts=True)
            assert set(values) == possible
            if len(values) > 1:
                assert chisquare(counts).pvalue > 1e-4


def test_no_triplet_is_one_clear_error():
    with pytest.raises(InputError, match="two classes"):
        draw_triplets(np.array(["a", "a", "a"]))
    with pytest.raises(InputError, match="two classes"):
        draw_triplets(np.array(["a", "b", "c"]))


def test_figures_equal_loops_over_the_same_triplets():
    given = images()
    found = evaluate_embeddings(given, seed=3)
    triplets = draw_triplets(given.labels, seed=3)
    rows = given.embeddings.astype(np.float64)
    right = {}
    for query, positive, negative in triplets:
        nearer = np.linalg.norm(rows[query] - rows[positive])
        right.setdefault(query, []).append(nearer < np.linalg.norm(rows[query] - rows[negative]))
    precision = found.per_query["similarity_precision"]
    for query in range(len(rows)):
        if query in right:
            assert precision[query] == pytest.approx(np.mean(right[query]))
        else:
            assert np.isnan(precision[query])
    assert found.whole["triplets"] == len(triplets)
    score = 0
    for query, positive, negative in triplets:
        distances = np.linalg.norm(rows - rows[query], axis=1)
        others = np.delete(distances, query)
        ranks = [(others < distances[row]).sum() + 1 for row in (positive, negative)]
        if min(ranks) <= 30:
            score += 1 if ranks[0] < ranks[1] else -1
    assert found.whole["score_at_top_30"] == score
    expected = retrieval_metrics(given.embeddings, given.labels, ks=(1, 5, 10, 30)).per_query
    assert set(PER_QUERY) == set(found.intervals)
    for name, interval in found.intervals.items():
        assert interval.low <= interval.mean <= interval.high
        if name in expected:
            assert interval.mean == pytest.approx(np.nanmean(expected[name]))


def test_a_gallery_of_its_own():
    found = evaluate_embeddings(images(1, (5, 5, 2)), images(2, (12, 9, 4)), seed=0)
    assert len(found.per_query["recall_at_1"]) == 12
    assert found.retrieval.neighbours.max() > 12


def test_separable_and_collapsed_embeddings():
    apart = evaluate_embeddings(images(noise=0.01))
    assert apart.intervals["similarity_precision"].mean == 1
    assert apart.whole["roc_auc"] == 1
    given = images()
    collapsed = EmbeddedImages(given.paths, given.labels, np.ones_like(given.embeddings))
    assert evaluate_embeddings(collapsed).intervals["similarity_precision"].mean == 0


def test_what_cannot_be_judged_is_named():
    given = images()
    rows = given.embeddings.copy()
    rows[7, 2] = np.nan
    with pytest.raises(InputError, match=r"7\.png: its embedding is not finite"):
        evaluate_embeddings(EmbeddedImages(given.paths, given.labels, rows))
    with pytest.raises(InputError, match=r"8 dimensions.*5"):
        evaluate_embeddings(given, images(dim=5))
    with pytest.raises(InputError, match=r"7\.png"):
        evaluate_triplets(
            EmbeddedImages(given.paths, given.labels, rows), np.array([[0, 1, 2], [3, 7, 2]])
        )
    with pytest.raises(InputError, match="triplet 2: the query is its own"):
        evaluate_triplets(given, np.array([[0, 1, 2], [3, 3, 2]]))


def test_given_triplets_by_hand():
    # On a line: the query at 0, the others at 1, 2 and 4.
    rows = np.array([[0.0], [1.0], [2.0], [4.0]], np.float32)
    line = EmbeddedImages(list("qabc"), np.full(4, ""), rows)
    triplets = np.array([[0, 1, 2], [0, 1, 3], [0, 3, 2], [2, 3, 0]])
    precision, score = evaluate_triplets(line, triplets)
    # In order: yes, yes, no; around 2 both 4 and 0 are 2 away, and a tie is wrong.
    assert precision.mean == 0.5
    assert score == 0  # 2 correct, 2 incorrect, all within the top 30


def test_gain_is_paired_by_query():
    better, worse = evaluate_embeddings(images(noise=0.5)), evaluate_embeddings(images(noise=1.5))
    lead = better.per_query["map_at_r"] - worse.per_query["map_at_r"]
    gain = bootstrap_interval(lead)
    means = [each.intervals["map_at_r"].mean for each in (better, worse)]
    assert gain.mean == pytest.approx(means[0] - means[1])
    assert gain.low > 0
    assert "was worth it" in describe_gain(gain, "map_at_r")
    assert "was not worth it" in describe_gain(bootstrap_interval(-lead), "map_at_r")
    assert "cannot be told" in describe_gain(Interval(0.01, -0.1, 0.1), "map_at_r")


def test_means_by_class_are_those_of_its_queries():
    given = images()
    found = evaluate_embeddings(given)
    table = means_by_class(found, given.labels)
    chosen = given.labels == "class 1"
    assert table["class 1"]["queries"] == 20
    expected = found.per_query["map_at_r"][chosen].mean()
    assert table["class 1"]["map_at_r"] == pytest.approx(expected)
    assert np.isnan(table["class 2"]["map_at_r"])


def test_json_has_no_nan():
    assert without_nan({"a": [float("nan"), 1.5], "b": {"c": float("nan")}}) == {
        "a": [None, 1.5],
        "b": {"c": None},
    }


METHODS = (
    *("model", "untrained backbone", "untrained backbone, 1,024 px"),
    *("LAB histogram", "perceptual hash", "HOG"),
)


@pytest.mark.parametrize("count", range(1, 7))
def test_a_table_of_methods_is_100_columns_wide_at_most_and_nothing_is_cut(count):
    found = evaluate_embeddings(images(sizes=(300, 20)))
    lines = list(method_lines(dict.fromkeys(METHODS[:count], found)))
    assert max(map(len, lines)) <= MAX_WIDTH == 100
    text = "\n".join(lines)
    words = text.replace("\n", " ").split()
    for metric in (*found.intervals, *found.whole.keys() - {"triplets"}):
        assert words.count(metric) == 1
    mean, low, high = found.intervals["map_at_r"]
    assert text.count(f"{mean:.3f} [{low:.3f}, {high:.3f}]") >= count
    assert all(name in text for name in METHODS[:count])


def test_figures_of_a_method_are_all_there():
    found = evaluate_embeddings(images())
    lines = figures(METHODS[2], found).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line.endswith(("],", "].", ",")) for line in lines)  # no figure is broken
    assert not any(line.strip().startswith("0.") for line in lines)
    text = " ".join(" ".join(lines).split())
    assert text.startswith("untrained backbone, 1,024 px: similarity_precision 0.")
    assert all(f" {metric} " in text for metric in (*found.intervals, "nmi", "score_at_top_30"))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("judged") / "model.h5"
    config = NetworkConfig(image_size=32, weights=None, hidden_size=8, embedding_size=8)
    save_model(build_network(config, seed=0), path)
    return path


def test_the_command_prints_a_table_and_writes_json(
    model_path, image_tree_of_colors, tmp_path, capsys
):
    arguments = ["--model", model_path, "--dataset", image_tree_of_colors, "--baselines"]
    arguments += ["--weights", "none", "--json", tmp_path / "found.json"]
    assert run_command("evaluate", list(map(str, arguments))) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "found.json").read_text())
    methods = ["model", "untrained backbone", "LAB histogram", "perceptual hash", "HOG"]
    assert list(result["methods"]) == methods
    # One colour a class: a colour histogram is perfect, and shape says nothing.
    precision = result["methods"]["LAB histogram"]["metrics"]["similarity_precision"]
    assert precision["mean"] == 1
    assert "Whether training was worth it" in printed or "Training was" in printed
    assert len(result["classes"]) == 3
    assert all(name in printed for name in (*methods, "map_at_r", "Worst queries"))


@pytest.mark.slow
def test_figures_come_when_they_are_known_and_the_rest_follows_in_a_second_run(
    model_path, image_tree_of_colors, monkeypatch, capsys
):
    arguments = ["--model", model_path, "--dataset", image_tree_of_colors, "--baselines"]
    arguments = list(map(str, [*arguments, "--weights", "none"]))
    whole, seen = evaluating.evaluate_embeddings, []

    def cut(*given, **options):
        seen.append(capsys.readouterr().out)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return whole(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "evaluate_embeddings", cut)
        assert run_command("evaluate", arguments) == 130
    assert [each.partition(":")[0] for each in seen[1:]] == [
        *("model", "untrained backbone", "LAB histogram")
    ]
    monkeypatch.setattr("deep_ranking.embedding.kept_rows.embed_batches", lambda *_: 1 / 0)
    assert run_command("evaluate", arguments) == 0
    assert "HOG: similarity_precision" in capsys.readouterr().out


def test_the_command_takes_queries_and_gallery_or_triplets(
    model_path, image_tree_of_colors, tmp_path, capsys
):
    folders = ["--queries", image_tree_of_colors, "--gallery", image_tree_of_colors]
    assert run_command("evaluate", list(map(str, ["--model", model_path, *folders]))) == 0
    assert "12 queries of 3 classes, searched for in 12 images" in capsys.readouterr().out
    names = sorted(str(path) for path in image_tree_of_colors.rglob("*.png"))
    (tmp_path / "triplets.txt").write_text(f"{names[0]},{names[1]},{names[-1]}\n")
    triplets = ["--model", model_path, "--triplets", tmp_path / "triplets.txt"]
    assert run_command("evaluate", list(map(str, triplets))) == 0
    assert "1 triplet of 3 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dataset", "a", "--triplets", "b"],
        ["--queries", "a"],
        ["--triplets", "a", "--baselines"],
        ["--dataset", "a", "--seed", "-1"],
    ],
)
def test_a_wrong_call_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run_command("evaluate", ["--model", "m.h5", *arguments])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith("see --help\n")


def test_a_full_temporary_folder_is_one_line_that_names_it(
    model_path, image_tree_of_colors, monkeypatch, capsys
):
    def full(*_):
        raise OSError(27, "File too large")

    monkeypatch.setattr(os, "posix_fallocate", full)
    arguments = ["--model", str(model_path), "--dataset", str(image_tree_of_colors)]
    assert run_command("evaluate", arguments) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"error: {tempfile.gettempdir()}: no room")
    assert "(File too large)" in last


def test_bad_data_is_one_line(model_path, tmp_path, capsys):
    (tmp_path / "only" / "class").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "only" / "class" / f"{number}.png").touch()
    (tmp_path / "triplets.txt").write_text("a.png,b.png,c.png\n")
    for arguments, said in (
        (["--model", tmp_path / "none.h5", "--dataset", tmp_path], "none.h5"),
        (["--model", model_path, "--dataset", tmp_path / "only"], "two classes"),
        (["--model", model_path, "--triplets", tmp_path / "triplets.txt"], "not found"),
    ):
        assert run_command("evaluate", list(map(str, arguments))) == 1
        line = capsys.readouterr().err
        assert said in line and line.count("\n") == 1
