import json
import os
import re
import shutil
import tempfile

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from deep_ranking.cli.main import run_command
from deep_ranking.config import NetworkConfig
from deep_ranking.files import InputError
from deep_ranking.metrics import Interval, bootstrap_interval
from deep_ranking.metrics.evaluation import (
    OF_RANKS,
    PER_QUERY,
    EmbeddedImages,
    draw_triplets,
    evaluate_embeddings,
    means_by_class,
)
from deep_ranking.metrics.given_triplets import evaluate_triplets
from deep_ranking.metrics.meaningless import meaningless_figures
from deep_ranking.metrics.retrieval import retrieval_metrics
from deep_ranking.model.file import save_model
from deep_ranking.model.network import build_network
from deep_ranking.reports import evaluating
from deep_ranking.reports.evaluating import without_nan
from deep_ranking.reports.evaluation_text import (
    MAX_WIDTH,
    class_lines,
    describe_gain,
    figures,
    left_out_in_words,
    method_lines,
    query_lines,
    rank_in_words,
)
from deep_ranking.reports.query_ranks import QueryRanks

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


def test_excluded_rows_are_in_no_triplet_of_their_query():
    queries = np.array(["a", "b", "a", "c", "d"])
    gallery = np.array(["b", "a", "b", "a", "c", "a", "c", "d"])
    exclude = np.array([[1, 4, 7], [-1, -1, -1], [5, 1, 3], [0, 6, -1], [-1, 7, -1]])
    triplets = draw_triplets(queries, gallery, exclude=exclude, per_query=2000, seed=1)
    for query, label in enumerate(queries):
        rows = triplets[triplets[:, 0] == query]
        same = set(np.flatnonzero(gallery == label)) - set(exclude[query])
        other = set(np.flatnonzero(gallery != label)) - set(exclude[query])
        if not same:
            assert query in (2, 4) and len(rows) == 0  # all its right images are excluded
            continue
        for column, possible in ((1, same), (2, other)):
            values, counts = np.unique(rows[:, column], return_counts=True)
            assert set(values) == possible
            if len(values) > 1:
                assert chisquare(counts).pvalue > 1e-4
    only_copies = np.array([[1], [2]])
    with pytest.raises(InputError, match="two classes"):
        draw_triplets(queries[:2], np.array(["c", "a", "b"]), exclude=only_copies)


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


LEFT_OUT_OF_ONE_EACH = {
    *("r_precision", "map_at_r", "mean_average_precision", "precision_at_30", "knn_accuracy"),
    *("similarity_precision", "score_at_top_30", "nmi"),
}


def shop(num_products=45, num_queries=30, num_missing=3):
    """Photographs and a shop with one picture of each product; it lacks some products."""
    rng = np.random.default_rng(5)
    names = np.array([f"product {number:02}" for number in range(num_products + 4)])
    centres = rng.normal(size=(len(names), 6))
    sold = rng.permutation(num_products)
    photographed = rng.integers(num_products, size=num_queries)
    photographed[:num_missing] = [num_products, num_products + 1, num_products]
    photographs = centres[photographed] + 1.5 * rng.normal(size=(num_queries, 6))
    return (
        EmbeddedImages(
            [f"photo/{number}.jpg" for number in range(num_queries)],
            names[photographed],
            photographs.astype(np.float32),
        ),
        EmbeddedImages(
            [f"shop/{names[number]}.jpg" for number in sold],
            names[sold],
            centres[sold].astype(np.float32),
        ),
    )


def naive_ranks(queries, gallery):
    """Rank, nearest and first right image of each query with Python loops; ranks from 1."""
    found = []
    for row, label in zip(queries.embeddings.astype(float), queries.labels, strict=True):
        away = [
            (sum((a - b) ** 2 for a, b in zip(row, other, strict=True)) ** 0.5, number)
            for number, other in enumerate(gallery.embeddings.astype(float))
        ]
        away.sort()
        right = [place for place, (_, number) in enumerate(away) if gallery.labels[number] == label]
        found.append((right[0] + 1 if right else None, away[0], away[right[0]] if right else None))
    return found


def test_one_shop_picture_each_equals_python_loops():
    queries, gallery = shop()
    found = evaluate_embeddings(queries, gallery, seed=1)
    naive = naive_ranks(queries, gallery)
    ranks = sorted(rank for rank, *_ in naive if rank is not None)
    assert len(ranks) == 27 and ranks[-1] > 30  # three have no right image; one is far down
    assert found.whole["median_rank"] == ranks[13]
    assert found.whole_intervals["median_rank"].mean == ranks[13]
    expected = {f"recall_at_{k}": sum(r <= k for r in ranks) / 27 for k in (1, 5, 10, 20)}
    expected["mean_reciprocal_rank"] = sum(1 / rank for rank in ranks) / 27
    assert set(found.intervals) == set(OF_RANKS) == set(expected)
    for name, value in expected.items():
        interval = found.intervals[name]
        assert interval.mean == pytest.approx(value)
        assert interval == bootstrap_interval(found.per_query[name], seed=1)
        assert interval.low < value < interval.high
    assert set(found.left_out) == LEFT_OUT_OF_ONE_EACH
    assert set(found.whole) == {
        *("median_rank", "triplets", "roc_auc", "equal_error_rate", "equal_error_threshold"),
    }
    assert found.whole["triplets"] == 270
    assert not any(
        np.isnan(each) for each in (*found.whole.values(), *found.intervals["recall_at_1"])
    )

    listed = list(QueryRanks(queries.paths, queries.labels, gallery.paths, found.retrieval))
    for number, (query, (rank, nearest, right)) in enumerate(zip(listed, naive, strict=True)):
        assert query["path"] == f"photo/{number}.jpg"
        assert query["class"] == queries.labels[number]
        assert query["rank"] == rank
        for image, expected in ((query["nearest"], nearest), (query["first_right"], right)):
            if expected is None:
                assert image is None
                continue
            assert image["path"] == gallery.paths[expected[1]]
            assert image["distance"] == pytest.approx(expected[0], rel=1e-5)


def test_several_shop_pictures_each_keep_all_figures_and_add_ranks():
    queries, gallery = images(1, (5, 5, 2)), images(2, (22, 9, 4))
    found = evaluate_embeddings(queries, gallery)
    assert found.left_out == {}
    assert set(found.intervals) == {*OF_RANKS, *PER_QUERY}
    assert {"nmi", "score_at_top_30", "median_rank"} <= set(found.whole)
    ranks = [rank for rank, *_ in naive_ranks(queries, gallery)]
    assert found.whole["median_rank"] == np.median(ranks)


def test_without_a_gallery_nothing_is_left_out_or_added():
    found = evaluate_embeddings(images())
    assert found.left_out == {} and found.num_gallery is None
    assert tuple(found.intervals) == PER_QUERY
    assert "median_rank" not in found.whole


def test_what_means_nothing_is_told_by_positives_and_the_size_of_the_gallery():
    assert meaningless_figures(np.array([2, 0]), np.repeat(["a", "b"], 20)) == {}
    # Ten images: recall@10 and recall@20 are 1 for every model, and all are among the 30 nearest.
    small = meaningless_figures(np.array([5, 5]), np.repeat(["a", "b"], 5))
    assert set(small) == {"recall_at_10", "recall_at_20", "precision_at_30", "score_at_top_30"}
    assert small["recall_at_10"] == "1 in a gallery of 10"
    assert "recall_at_10" not in meaningless_figures(np.array([5]), np.array(["a", "b"] * 6)[:11])
    # The shop has several pictures of what nobody photographed: a clustering still has a meaning.
    others = np.array(["a", "b", *["c"] * 40])
    assert set(meaningless_figures(np.array([1, 1, 0]), others)) == LEFT_OUT_OF_ONE_EACH - {"nmi"}


def test_ranks_in_words():
    assert [rank_in_words(each, 1041) for each in (2, 2.0, 1.5, 1041)] == [
        *("2 of 1,041", "2 of 1,041", "1.5 of 1,041", "1,041 of 1,041"),
    ]
    assert rank_in_words(float("nan"), 41) == "-"
    assert left_out_in_words({}, one_right_image=False) == ""
    said = left_out_in_words({"a": "x", "b": "y", "c": "x"}, one_right_image=True)
    assert said == "One right image for each query, so left out: a, c (x); b (y)."


def test_the_rank_of_a_class_is_the_median_of_its_queries():
    queries, gallery = shop(num_queries=200)
    by_class = means_by_class(evaluate_embeddings(queries, gallery), queries.labels)
    ranks = {}
    for label, (rank, *_) in zip(queries.labels, naive_ranks(queries, gallery), strict=True):
        ranks.setdefault(label, []).append(np.nan if rank is None else rank)
    assert any(np.median(each) != np.mean(each) for each in ranks.values())
    assert np.isnan(by_class["product 45"]["median_rank"])
    for name, each in ranks.items():
        assert by_class[name]["median_rank"] == pytest.approx(np.median(each), nan_ok=True)


def test_lines_of_classes_and_queries_with_ranks():
    queries, gallery = shop()
    found = evaluate_embeddings(queries, gallery)
    by_class, naive = means_by_class(found, queries.labels), naive_ranks(queries, gallery)
    absent = {name: by_class[name] for name in ("product 45", "product 46")}
    lines = list(class_lines(absent, "mean_reciprocal_rank"))
    assert lines[1].split() == ["queries", "median_rank", "recall_at_1", "mean_reciprocal_rank"]
    assert [line.split()[2:] for line in lines[2:]] == [["2", *"---"], ["1", *"---"]]
    long = {"x" * 99: {**by_class[queries.labels[-1]], "queries": 1_000_000.0}}
    assert max(map(len, class_lines(long, "mean_reciprocal_rank"))) <= MAX_WIDTH
    ranks = QueryRanks(queries.paths, queries.labels, gallery.paths, found.retrieval)
    order = ranks.worst_first()
    placed = [naive[row][0] for row in order]
    assert len(order) == 27 and placed == sorted(placed, reverse=True)
    lines = list(query_lines({"worst": [ranks.of_query(row) for row in order[:2]]}, 45))
    assert lines[0] == "\nWorst queries (rank of the first right image)"
    assert lines[1] == f"  {placed[0]} of 45  {queries.paths[order[0]]}"
    assert repr(ranks) == "QueryRanks(30 queries in a gallery of 45)"


def test_queries_that_are_in_the_gallery_are_judged_as_among_the_others():
    given = images(noise=1.5)
    own = np.arange(len(given.paths))[:, np.newaxis]
    alone = evaluate_embeddings(given, seed=4)
    found = evaluate_embeddings(given, given, exclude=own, seed=4)
    for name in PER_QUERY:
        assert np.array_equal(found.per_query[name], alone.per_query[name], equal_nan=True)
        assert found.intervals[name] == alone.intervals[name]
    assert {**found.whole, **alone.whole} == found.whole
    assert alone.whole_intervals.items() <= found.whole_intervals.items()
    assert evaluate_embeddings(given, given, seed=4).intervals["recall_at_1"].mean == 1
    with pytest.raises(ValueError, match="no gallery"):
        evaluate_embeddings(given, exclude=own)


def test_the_median_rank_of_a_class_leaves_out_queries_without_a_right_image():
    # "a" has one image in the gallery, which is a copy of the first query.
    queries = EmbeddedImages(
        ["1", "2", "3"], np.array(["a", "a", "b"]), np.eye(3, dtype=np.float32)
    )
    rows = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]], np.float32)
    gallery = EmbeddedImages(list("xyz"), np.array(["a", "b", "b"]), rows)
    found = evaluate_embeddings(queries, gallery, exclude=np.array([[0], [-1], [-1]]))
    by_class = means_by_class(found, queries.labels)
    assert by_class["a"]["median_rank"] == 2  # z, then x and y in the order of the gallery
    assert by_class["a"]["recall_at_1"] == 0 and by_class["b"]["recall_at_1"] == 1


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


@pytest.fixture(scope="module")
def shop_of_colors(image_tree_of_colors, tmp_path_factory):
    """The folder of a shop with the first picture, mirrored, of two of the three classes."""
    root = tmp_path_factory.mktemp("shop")
    for folder in sorted(image_tree_of_colors.iterdir())[:2]:
        (root / folder.name).mkdir()
        with Image.open(min(folder.rglob("*.png"))) as picture:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / folder.name / "shop.png")
    return root


def test_the_command_reports_the_rank_of_the_right_item(
    model_path, image_tree_of_colors, shop_of_colors, tmp_path, capsys
):
    arguments = ["--model", model_path, "--queries", image_tree_of_colors]
    arguments += ["--gallery", shop_of_colors, "--baselines", "--weights", "none"]
    arguments += ["--json", tmp_path / "found.json"]
    assert run_command("evaluate", list(map(str, arguments))) == 0
    printed = capsys.readouterr().out
    text = " ".join(printed.split())
    absent = sorted(each.name for each in image_tree_of_colors.iterdir())[2]
    assert "12 queries of 3 classes, searched for in 2 images: median rank " in text
    assert f"4 queries of 1 class without an image in the gallery ({absent}): in no figure." in text
    assert "One right image for each query, so left out: recall_at_5, recall_at_10" in text
    assert "nan" not in printed.lower()
    table = printed.split("\n\n", 1)[1].partition("All of it is in")[0]  # a path may be long
    assert max(map(len, table.splitlines())) <= MAX_WIDTH
    assert "(mean_reciprocal_rank " in printed
    result = json.loads((tmp_path / "found.json").read_text())
    for method in result["methods"].values():
        assert set(method["metrics"]) == {"mean_reciprocal_rank", "recall_at_1"}
        assert 1 <= method["median_rank"] <= 2
        assert "median_rank" in method["intervals"]
    # One colour a class: a colour histogram finds each at once.
    assert "1 of 2 [1, 1]" in printed
    assert result["methods"]["LAB histogram"]["metrics"]["mean_reciprocal_rank"]["mean"] == 1
    assert set(result["gain_over_backbone"]) == {"mean_reciprocal_rank"}
    assert (result["num_queries"], result["num_gallery"]) == (12, 2)
    assert result["num_without_right_image"] == 4
    assert result["classes_not_in_gallery"] == [absent]
    assert len(result["ranks"]) == 12
    ranks = [each["rank"] for each in result["ranks"] if each["class"] != absent]
    assert result["methods"]["model"]["median_rank"] == np.median(ranks)
    for each in result["ranks"]:
        assert (each["rank"] is None) == (each["first_right"] is None) == (each["class"] == absent)
        if each["rank"] is not None:
            assert each["first_right"]["path"].endswith(f"{each['class']}/shop.png")
            assert (each["rank"] == 1) == (each["nearest"] == each["first_right"])
    assert len(result["queries"]["worst"]) == 5
    assert result["queries"]["worst"][0]["rank"] == max(ranks)
    assert "average_precision" not in result["queries"]["worst"][0]


@pytest.fixture
def noise(tmp_path):
    """Three classes of noise: nothing tells them apart, so that only a copy is found at once."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (tmp_path / "noise" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / name / f"{number}.png")
    return tmp_path / "noise"


def evaluated(model_path, tmp_path, capsys, **folders):
    """Run the command; return what it printed, in one line, and its JSON."""
    flags = [part for name, folder in folders.items() for part in (f"--{name}", folder)]
    arguments = ["--model", model_path, *flags, "--json", tmp_path / "found.json"]
    assert run_command("evaluate", list(map(str, arguments))) == 0
    text = " ".join(capsys.readouterr().out.split())
    return text, json.loads((tmp_path / "found.json").read_text())


def copied(noise, to, place):
    """The gallery of other noise in which `place` puts each query."""
    for number, query in enumerate(sorted(noise.rglob("*.png"))):
        folder = to / query.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        place(query, folder / f"copy {number}.png")
        pixels = np.random.default_rng([1, number]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"other {number}.png")
    return to


def test_one_folder_as_queries_and_gallery_is_judged_as_a_dataset(
    model_path, noise, tmp_path, capsys
):
    text, found = evaluated(model_path, tmp_path, capsys, queries=noise, gallery=noise)
    assert "15 queries of 3 classes, searched for in 15 images: median rank " in text
    assert "the file, copy or link of 15 queries in the gallery, from their results." in text
    # Each query ranks the other 14, in the heading, in the table and of the worst queries.
    assert all(f" of 14{end}" in text for end in ("", " [", f" {noise}"))
    assert not re.search(r"\d of 15\b", text)
    _, alone = evaluated(model_path, tmp_path, capsys, dataset=noise)
    model, as_dataset = found["methods"]["model"], alone["methods"]["model"]
    assert model["metrics"]["recall_at_1"]["mean"] < 0.9
    shared = set(as_dataset["metrics"]) & set(model["metrics"])
    assert {"recall_at_1", "map_at_r", "similarity_precision", "recall_at_10"} <= shared
    assert {name: model["metrics"][name] for name in shared} == {
        name: as_dataset["metrics"][name] for name in shared
    }
    assert model["nmi"] == as_dataset["nmi"] and model["roc_auc"] == as_dataset["roc_auc"]
    for each in found["ranks"]:
        assert each["left_out_copies"] == [each["path"]]
        assert each["num_ranked"] == 14 and each["rank"] <= 14
        assert each["path"] not in (each["nearest"]["path"], each["first_right"]["path"])


@pytest.mark.parametrize("place", [shutil.copy, lambda a, b: b.symlink_to(a), os.link])
def test_copies_and_links_of_queries_in_the_gallery_are_left_out_of_their_own_results(
    model_path, noise, tmp_path, capsys, place
):
    gallery = copied(noise, tmp_path / "gallery", place)
    text, found = evaluated(model_path, tmp_path, capsys, queries=noise, gallery=gallery)
    assert "the file, copy or link of 15 queries in the gallery, from their results." in text
    assert found["compared"]["queries_with_own_content_left_out"] == 15
    assert found["methods"]["model"]["metrics"]["recall_at_1"]["mean"] < 0.9
    numbers = set()
    for each in found["ranks"]:
        (copy,) = each["left_out_copies"]
        assert os.path.samefile(copy, each["path"]) or place is shutil.copy
        assert copy not in (each["nearest"]["path"], each["first_right"]["path"])
        assert each["num_ranked"] == 29
        numbers.add(copy)
    assert len(numbers) == 15
    # The copy of one query is a result of the others.
    assert any("copy" in each["nearest"]["path"] for each in found["ranks"])


def test_a_copy_under_another_class_is_left_out_of_the_results_of_its_query(
    model_path, noise, tmp_path, capsys
):
    gallery = copied(noise, tmp_path / "gallery", lambda query, to: None)
    shutil.copy(noise / "ant" / "0.png", gallery / "bee" / "wrong.png")
    text, found = evaluated(model_path, tmp_path, capsys, queries=noise, gallery=gallery)
    assert "the file, copy or link of 1 query in the gallery" in text
    first, *others = found["ranks"]
    assert first["left_out_copies"] == [str(gallery / "bee" / "wrong.png")]
    assert first["num_ranked"] == 15 and first["nearest"]["distance"] > 0
    assert all(each["num_ranked"] == 16 and not each["left_out_copies"] for each in others)


def test_copies_within_a_dataset_change_no_figure(model_path, noise, tmp_path, capsys):
    _, before = evaluated(model_path, tmp_path, capsys, dataset=noise)
    shutil.copy(noise / "bee" / "1.png", noise / "bee" / "9.png")
    (noise / "cat" / "link.png").symlink_to(noise / "cat" / "4.png")
    shutil.copy(noise / "ant" / "0.png", noise / "cat" / "wrong.png")
    text, after = evaluated(model_path, tmp_path, capsys, dataset=noise)
    assert (
        "Content left out: 2 images, copies of others or links to them (bee/9.png of bee/1.png); "
        "1 image, copies of images of another class (cat/wrong.png of ant/0.png), one of"
    ) in text
    assert {key: after[key] for key in ("methods", "classes", "queries")} == {
        key: before[key] for key in ("methods", "classes", "queries")
    }
    assert len(after["compared"]["copies_left_out"]["images"]) == 2


def test_the_evidence_is_in_text_page_and_json(model_path, noise, shop_of_colors):
    found = evaluating.evaluate(model_path, noise)
    said = (
        "15 queries of 3 classes, each searched for among the others; figures are means over "
        "queries, with 95 % bootstrap intervals over queries; a random order has recall@1 0.286."
    )
    few = (
        "Only 3 classes: the figures say little about other classes, and a random order already "
        "has recall@1 0.286.",
        "Only 15 queries: one moves the figures a lot, and the intervals are too narrow.",
    )
    drawn = "score_at_top_30: from 150 triplets, 10 drawn for each query; thresholds are distances"
    for page in (repr(found), found._repr_html_()):
        text = " ".join(page.split())
        assert all(line in text for line in (said, *few, drawn))
    assert found.as_json()["compared"] == found.evidence.as_json()
    assert found.evidence.as_json()["warnings"] == list(few)


def test_a_gallery_of_nothing_but_copies_is_one_line(model_path, noise, tmp_path, capsys):
    for query in noise.glob("*/0.png"):
        (tmp_path / "gallery" / query.parent.name).mkdir(parents=True)
        shutil.copy(query, tmp_path / "gallery" / query.parent.name)
    arguments = ["--model", model_path, "--queries", tmp_path / "gallery"]
    arguments += ["--gallery", tmp_path / "gallery"]
    assert run_command("evaluate", list(map(str, arguments))) == 1
    line = capsys.readouterr().err
    assert "two classes are needed, one of them with two images or more; left out: the file" in line
    assert line.count("\n") == 1
    for query in noise.glob("*/*.png"):  # of each class, all files have one content
        shutil.copy(query.with_name("0.png"), query.with_name("copy.png"))
        query.with_name("copy.png").replace(query)
    assert run_command("evaluate", ["--model", str(model_path), "--dataset", str(noise)]) == 1
    line = capsys.readouterr().err
    assert "two images or more; left out: 12 images, copies of others" in line
    assert "(ant/1.png of ant/0.png)" in line and line.count("\n") == 1


def test_a_file_that_is_no_image_is_still_one_line(model_path, noise, capsys):
    (noise / "ant" / "0.png").write_text("no image")
    (noise / "ant" / "1.png").write_text("no image")
    arguments = ["--model", str(model_path), "--dataset", str(noise)]
    assert run_command("evaluate", arguments) == 1
    assert str(noise / "ant" / "0.png") in capsys.readouterr().err.splitlines()[-1]


def test_a_notebook_shows_queries_beside_what_they_found(
    model_path, image_tree_of_colors, shop_of_colors
):
    found = evaluating.evaluate(model_path, image_tree_of_colors, gallery=shop_of_colors)
    page = found._repr_html_()
    assert "median rank " in page and "so left out: " in page
    assert page.count("first right 0.") + page.count("first right 1.") == 10  # worst and best
    assert page.count("nearest 0.") + page.count("nearest 1.") == 10
    assert len(found.ranks) == 12 and found.gain_metric == "mean_reciprocal_rank"
    alone = evaluating.evaluate(model_path, image_tree_of_colors)
    assert alone.ranks is None and alone.gain_metric == "map_at_r"
    assert "median" not in repr(alone) + alone._repr_html_()
    assert "ranks" not in alone.as_json()
    assert set(alone.queries["worst"][0]) == {"path", "average_precision"}


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
