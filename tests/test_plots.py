import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from deep_ranking.metrics import Interval
from deep_ranking.metrics.reliability import reliability
from deep_ranking.reports import plots
from deep_ranking.reports.plots import (
    Neighbours,
    embedding_map,
    missing_image,
    neighbours_figure,
    new_axes,
    plot_confusions,
    plot_distances,
    plot_negatives,
    plot_recall,
    plot_reliability,
    plot_samplings,
)
from deep_ranking.reports.plots.metrics import shortened
from deep_ranking.training.history import plot_history, run_figure


def drawn(ax):
    """Draw all of it, so that what fails or warns only then does so here."""
    ax.get_figure(root=True).canvas.draw()
    return ax


def test_public_names():
    assert plots.__all__ == [
        "Neighbours",
        "embedding_map",
        "missing_image",
        "neighbours_figure",
        "new_axes",
        "plot_confusions",
        "plot_distances",
        "plot_negatives",
        "plot_recall",
        "plot_reliability",
        "plot_samplings",
    ]


def test_history_draws_what_was_measured_where_it_was():
    history = [
        {"epoch": 0, "val_loss": 3.0},
        {"epoch": 1, "loss": 2.0, "val_loss": 2.5},
        {"epoch": 2, "loss": 1.0},
    ]
    ax = drawn(plot_history(history, ["loss"]))
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines == {
        "loss (training)": [[1, 2], [2, 1]],
        "loss (validation)": [[0, 3], [1, 2.5]],
    }


def test_run_figure_has_three_axes():
    names = ("loss", "positive_distance", "negative_distance", "similarity_precision")
    history = [{"epoch": 1, "active_triplets": 1.0} | dict.fromkeys(names, 0.5)]
    figure = run_figure(history)
    figure.canvas.draw()
    lines = [[line.get_label() for line in ax.get_lines()] for ax in figure.axes]
    assert lines == [
        ["loss (training)"],
        ["positive distance (training)", "negative distance (training)"],
        ["similarity precision (training)", "active triplets (training)"],
    ]


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plot_distances(np.array([0.1]), np.array([0.9]), 0.5, ax),
        lambda ax: plot_recall(np.array([1.0]), ax),
        lambda ax: plot_reliability({"a": reliability(np.ones(2), np.array([True, False]))}, ax),
        lambda ax: plot_confusions([("a", "b")], [0.5], ax),
        lambda ax: plot_negatives([0, 1], [Interval(1, 1, 1)] * 2, in_class="hard", ax=ax),
        lambda ax: plot_history([{"epoch": 1, "loss": 1.0}], ["loss"], ax),
        lambda ax: embedding_map(np.eye(2), np.zeros((2, 2, 2, 3), np.uint8), ["a", "b"], ax=ax),
    ],
)
def test_given_axes_are_drawn_on_and_returned(draw):
    ax = new_axes()
    assert draw(ax) is ax
    assert ax.has_data()
    assert draw(None) is not ax


def test_distances_of_both_kinds_share_bins_and_have_area_1():
    rng = np.random.default_rng(0)
    same, different = rng.uniform(0.2, 1, 500), rng.uniform(0.5, 1.5, 2000)
    ax = drawn(plot_distances(same, different, 0.77))
    bars = np.array([[bar.get_x(), bar.get_width(), bar.get_height()] for bar in ax.patches])
    first, second = np.split(bars, 2)
    np.testing.assert_array_equal(first[:, :2], second[:, :2])
    for kind, distances in ((first, same), (second, different)):
        left, width, height = kind.T
        assert np.sum(width * height) == pytest.approx(1)
        # The middle of the bars is the mean of the distances, but for the width of a bin.
        assert np.sum((left + width / 2) * width * height) == pytest.approx(
            distances.mean(), abs=width[0]
        )
    assert ax.get_lines()[0].get_xdata() == [0.77, 0.77]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "same class",
        "different",
        "equal error at 0.770",
    ]


def test_distances_that_are_all_0_are_drawn():
    drawn(plot_distances(np.zeros(3), np.zeros(3), 0.0))


def test_reliability_is_drawn_where_there_are_answers():
    right = np.array([True, False, True, True])
    stated = np.array([0.1, 0.16, 0.92, 0.98])
    curves = {
        "ours": reliability(stated, right, num_bins=5),
        "other": reliability(1 - stated, right),
    }
    ax = drawn(plot_reliability(curves))
    lines = {line.get_label(): line for line in ax.get_lines()}
    # |0.13 - 0.5| / 2 + |0.95 - 1| / 2; (0.1 + 0.84 + 0.92 + 0.98) / 4
    assert list(lines) == ["as stated", "other, error 0.710", "ours, error 0.210"]
    np.testing.assert_allclose(lines["ours, error 0.210"].get_xydata(), [[0.13, 0.5], [0.95, 1]])
    assert lines["other, error 0.710"].get_color() == "0.6"
    (above,) = ax.child_axes
    counts = [patch.get_data().values.tolist() for patch in above.patches]
    assert counts[1] == [2, 0, 0, 0, 2]
    assert sum(counts[0]) == 4 and len(counts[0]) == 15


def test_recall_is_the_share_of_ranks_up_to_k():
    # Of the four queries with a positive: one at rank 1, two at 3, one at 20.
    ax = drawn(plot_recall(np.array([3.0, np.nan, 20.0, 1.0, 3.0])))
    assert ax.get_lines()[0].get_xydata().tolist() == [[1, 0.25], [3, 0.75], [20, 1]]
    assert ax.get_xlim()[1] > 20


def test_recall_at_1_is_drawn_though_nobody_has_rank_1():
    ax = drawn(plot_recall(np.array([2.0])))
    assert ax.get_lines()[0].get_xydata().tolist() == [[1, 0], [2, 1]]


def test_recall_without_ranks_is_refused():
    with pytest.raises(ValueError, match="Received: only NaN"):
        plot_recall(np.array([np.nan]))


def test_confusions_stand_in_order_from_top_to_bottom():
    pairs = [("cat", "dog"), ("a$x_$", "b$")]
    ax = drawn(plot_confusions(pairs, [0.5, 0.125]))
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.125]
    labels = ax.get_yticklabels()
    assert [label.get_text() for label in labels] == ["cat → dog", "a$x_$ → b$"]
    assert not any(label.get_parse_math() for label in labels)
    top, bottom = (label.get_window_extent().y0 for label in labels)
    assert top > bottom
    assert [text.get_text() for text in ax.texts] == ["50%", "12%"]


def test_negatives_name_what_is_in_class():
    precisions = [Interval(0.9, 0.85, 0.95), Interval(0.5, 0.4, 0.6)]
    ax = drawn(plot_negatives([0, 1], precisions, in_class="of the query's category"))
    assert ax.get_lines()[0].get_xydata().tolist() == [[0, 0.9], [1, 0.5]]
    assert "of the query's category" in ax.get_xlabel()
    band = ax.collections[0].get_paths()[0].vertices
    at_0, at_1 = band[band[:, 0] == 0, 1], band[band[:, 0] == 1, 1]
    assert (at_0.min(), at_0.max(), at_1.min(), at_1.max()) == (0.85, 0.95, 0.4, 0.6)


def test_samplings_are_means_with_their_standard_errors():
    # Runs 0.5 and 0.7: mean 0.6; deviation 0.1 sqrt(2), over sqrt(2) runs an error of 0.1.
    curves = {"weighted": np.array([[0.5, 0.8], [0.7, 0.8]]), "uniform": np.array([[0.4, 0.3]])}
    ax = drawn(plot_samplings([0, 1], curves, "score at top 30", before=0.25))
    weighted, uniform = ax.containers
    np.testing.assert_allclose(weighted.lines[0].get_xydata(), [[0, 0.6], [1, 0.8]])
    (bars,) = weighted.lines[2]
    np.testing.assert_allclose(bars.get_segments()[0], [[0, 0.5], [0, 0.7]])
    np.testing.assert_allclose(uniform.lines[0].get_xydata(), [[0, 0.4], [1, 0.3]])
    assert not uniform.has_yerr  # one run tells nothing of its error
    assert ax.get_lines()[-1].get_ydata() == [0.25, 0.25]
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(words) == ["before training", "uniform", "weighted"]
    assert ax.get_ylabel() == "score at top 30"


def test_neighbours_are_framed_by_what_they_are():
    def image(value):
        return np.full((4, 4, 3), value, np.uint8)

    figure = neighbours_figure(
        [
            Neighbours("cat $1", image(1), [image(2), image(3)], [True, False], [0.25, 0.5]),
            Neighbours("dog", image(4), [image(5)], [False], [0.75]),
        ]
    )
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    (ax,) = figure.axes
    found = []
    for drawn_image, frame in zip(ax.get_images(), ax.patches, strict=True):
        left, right, bottom, top = drawn_image.get_extent()
        corner = left, top
        assert frame.get_xy() == corner
        assert frame.get_width() == pytest.approx(right - left)
        assert bottom > top  # the axis points downwards
        value = int(drawn_image.get_array()[0, 0, 0])
        found.append((value, corner, to_hex(frame.get_edgecolor())))
    gray, green, red = "#888888", "#2e7d32", "#c62828"
    assert found == [
        (1, (0.05, 0.05), gray),
        (2, (1.05, 0.05), green),
        (3, (2.05, 0.05), red),
        (4, (0.05, 1.4 + 0.05), gray),
        (5, (1.05, 1.4 + 0.05), red),
    ]
    words = [(text.get_text(), *text.get_position()) for text in ax.texts]
    assert [(text, int(x)) for text, x, _ in words] == [
        ("cat $1", 0),
        ("✓ 0.250", 1),
        ("✗ 0.500", 2),
        ("dog", 0),
        ("✗ 0.750", 1),
    ]
    assert [y > 1.2 for _, _, y in words] == [False, False, False, True, True]


def clusters(seed=0):
    """Three groups of eight in eight dimensions, far from each other."""
    rng = np.random.default_rng(seed)
    centers = 10 * np.eye(3, 8)
    return np.repeat(centers, 8, axis=0) + rng.normal(scale=0.1, size=(24, 8))


def test_the_map_shows_every_image_and_the_thumbnails_that_have_room():
    embeddings = clusters()
    embeddings[1] = embeddings[0]  # these two lie on each other
    classes = np.repeat(["a$_$", "_b", "c"], 8).tolist()
    thumbnails = [np.full((2, 2, 3), number, np.uint8) for number in range(24)]
    ax = drawn(embedding_map(embeddings, thumbnails, classes, seed=0))
    dots = ax.collections[0].get_offsets()
    assert len(dots) == 24
    shown = {int(image.get_array()[0, 0, 0]): image.get_extent() for image in ax.get_images()}
    assert 0 in shown
    assert 1 not in shown
    for number, (left, right, bottom, top) in shown.items():
        np.testing.assert_allclose(dots[number], ((left + right) / 2, (bottom + top) / 2))
    boxes = list(shown.values())
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            beside = one[0] >= other[1] or other[0] >= one[1]
            assert beside or one[2] >= other[3] or other[2] >= one[3]
    assert [text.get_text() for text in ax.texts] == ["_b", "a$_$", "c"]


def test_names_of_classes_in_one_place_do_not_hide_each_other():
    embeddings = np.random.default_rng(0).normal(size=(40, 3))
    classes = [f"class {number % 4}" for number in range(40)]
    ax = drawn(embedding_map(embeddings, np.zeros((40, 2, 2, 3), np.uint8), classes))
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 4
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_the_middle_of_a_long_name_is_cut():
    assert shortened("short") == "short"
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcde…hijk"


def test_details_of_neighbours_are_written_below_them():
    def image(value):
        return np.full((4, 4, 3), value, np.uint8)

    figure = neighbours_figure(
        [
            Neighbours(
                "a long name of a file 012.jpg",
                image(1),
                [image(2), image(3)],
                [True, False],
                [0.25, 0.5],
                [["Fruit/Apple/Golden-Delicious", "p(hit) 0.91"], ["$dog", "gone: 7.jpg"]],
                "Fruit/Apple/Golden-Delicious",
            )
        ]
    )
    (ax,) = figure.axes
    texts = {text.get_text(): text.get_position() for text in ax.texts}
    cut = "Fruit/Ap…licious"
    assert len(texts) == 7 and all(len(text) <= 18 for text in texts)
    columns = [(text.get_text(), round(text.get_position()[0], 1)) for text in ax.texts]
    assert (cut, 0.5) in columns and (cut, 1.5) in columns  # of the query, and of the first
    assert ("p(hit) 0.91", 1.5) in columns and ("gone: 7.jpg", 2.5) in columns
    heights = [texts["✓ 0.250"][1], texts["p(hit) 0.91"][1]]
    assert heights[0] < heights[1] < ax.get_ylim()[0]  # downwards, and within the picture
    figure.savefig(io.BytesIO(), format="png")


def test_the_picture_of_a_missing_image_is_a_cross():
    pixels = missing_image(32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert (pixels[[0, 31, 0, 31], [0, 31, 31, 0]] == 140).all()
    assert (pixels[16, [2, 29]] == 225).all()
