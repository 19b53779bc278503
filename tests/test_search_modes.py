from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deep_ranking.datasets import read_folder
from deep_ranking.metrics import Interval
from deep_ranking.metrics.retrieval import average_precision_at_r
from deep_ranking.reports.compared_images import ComparedImages
from deep_ranking.reports.search_modes import measure_modes
from deep_ranking.search.reranking import expanded, reciprocal_distances

DIM, CLASSES, PER_CLASS = 8, 6, 34  # a few more images than are ranked again


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for label in range(CLASSES):
        for number in range(PER_CLASS):
            file = folder / f"c{label}" / f"{number:02}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(f"{label} {number}".encode())
    return read_folder(folder)


@pytest.fixture(scope="module")
def plain_again(images):
    """Searches among the images by their plain rows, and ranked again."""
    rows = drawn(len(images), images.items.codes)
    return measure_modes(ComparedImages(images), [rows], rerank=True)


@pytest.fixture(scope="module")
def smoothed_again(images):
    """Searches among the images by plain rows, by smoothed ones, and those ranked again."""
    rows = drawn(len(images), images.items.codes)
    return measure_modes(ComparedImages(images), [rows], 5, 3, rerank=True)


def drawn(count, labels, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(CLASSES, DIM))
    return unit(centres[labels] + 1.1 * rng.normal(size=(count, DIM)))


def smoothed_by_loops(rows, count, power, num_rows=None):
    found = []
    for number, row in enumerate(rows[:num_rows].astype(np.float64)):
        cosines = rows.astype(np.float64) @ row
        cosines[number] = 1 + 1e-9
        nearest = np.argsort(-cosines, kind="stable")[:count]
        weights = np.clip(cosines[nearest], 0, 1) ** power
        found.append(weights @ rows[nearest])
    return unit(np.array(found))


def figures_by_loops(rows, queries, labels, row_labels, *, inside, rerank):
    """Mean mAP@R and recall@1 of searches, query by query."""
    precisions, first = [], []
    for number, query in enumerate(queries):
        allowed = np.array([row for row in range(len(rows)) if not (inside and row == number)])
        asked = query
        if rerank:
            order = np.argsort(-(rows[allowed] @ query), kind="stable")
            asked = expanded(query, rows[allowed[order[:10]]])
        order = allowed[np.argsort(-(rows[allowed] @ asked), kind="stable")]
        if rerank == "by neighbours":
            again = reciprocal_distances(asked, rows[order[:200]])
            order = np.concatenate([order[:200][np.argsort(again, kind="stable")], order[200:]])
        hits = row_labels[order] == labels[number]
        precisions.append(average_precision_at_r(hits[None])[0])
        first.append(hits[0])
    return np.mean(precisions), np.mean(first)


@pytest.mark.parametrize("inside", [True, False])
def test_modes_against_loops(images, smoothed_again, inside):
    labels = images.classes_of_images()
    rows = drawn(len(labels), images.items.codes)
    found, queries, asked = smoothed_again, rows, labels
    if not inside:
        queries, asked = drawn(len(labels), images.items.codes, seed=1), labels
        compared = ComparedImages(images, replace(images))
        found = measure_modes(compared, [queries, rows], 5, 3, rerank=True)
    assert found.has_queries_inside == inside
    smoothed = smoothed_by_loops(rows, 5, 3)
    asked_smoothed = smoothed
    if not inside:
        asked_smoothed = np.concatenate(
            [smoothed_by_loops(np.concatenate([each[None], rows]), 5, 3, 1) for each in queries]
        )
    for mode, searched, rerank in (
        ("plain", rows, False),
        ("smoothed", smoothed, False),
        ("smoothed, re-ranked", smoothed, True),
    ):
        precision, recall = figures_by_loops(
            searched,
            queries if mode == "plain" else asked_smoothed,
            asked,
            labels,
            inside=inside,
            rerank=rerank,
        )
        assert found.figures[mode]["map_at_r"].mean == pytest.approx(precision, abs=2e-3), mode
        assert found.figures[mode]["recall_at_1"].mean == pytest.approx(recall, abs=5e-3), mode
    gained = found.figures["smoothed"]["map_at_r"].mean - found.figures["plain"]["map_at_r"].mean
    assert found.leads["smoothed"]["map_at_r"].mean == pytest.approx(gained)
    assert gained > 0.02
    head, *table = found.rows()
    assert head[-1] == "map_at_r over plain"
    lead = found.leads["smoothed"]["map_at_r"]
    times = found.figures["smoothed"]["map_at_r"].mean / found.figures["plain"]["map_at_r"].mean
    shown = f"{lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}], {times:.3f} times"
    assert table[1][-1] == shown
    assert [row[0] for row in table] == ["plain", "smoothed", "smoothed, re-ranked"]
    assert ("Each query is one of the searched images" in found.heading()) == inside
    assert set(found.as_json()["modes"]) == set(found.figures)


def test_nothing_found_by_plain_rows(plain_again):
    """A gain over 0 has no factor."""
    nothing = Interval(0.0, 0.0, 0.0)
    figures = {mode: dict.fromkeys(each, nothing) for mode, each in plain_again.figures.items()}
    none = replace(plain_again, figures=figures)
    assert "times" not in none.rows()[-1][-1]


def test_plain_rows_can_be_ranked_again(images, plain_again):
    rows, found = drawn(len(images), images.items.codes), plain_again
    assert list(found.figures) == ["plain", "re-ranked"]
    assert "smoothed" not in found.heading()
    labels = images.classes_of_images()
    again = figures_by_loops(rows, rows, labels, labels, inside=True, rerank="by neighbours")
    assert found.figures["re-ranked"]["map_at_r"].mean == pytest.approx(again[0], abs=2e-3)


def test_own_content_is_left_out_of_every_mode(images, smoothed_again):
    """A query's copy in the gallery is right and near in any mode; it must not count."""
    labels, codes = images.classes_of_images(), images.items.codes
    rows = drawn(len(labels), codes)
    own = np.arange(len(labels))[:, None]
    compared = ComparedImages(images, replace(images), own)
    found = measure_modes(compared, [rows, rows], 5, 3, rerank=True)
    for mode, values in found.figures.items():
        for name, value in values.items():
            assert value.mean == pytest.approx(smoothed_again.figures[mode][name].mean), (
                mode,
                name,
            )
    assert Path(images.files()[0]).exists()
