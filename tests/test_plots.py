import io
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from deep_ranking.files.words import shortened
from deep_ranking.metrics import Interval
from deep_ranking.metrics.reliability import reliability
from deep_ranking.reports import plots
from deep_ranking.reports.plots import (
    Neighbours,
    missing_image,
    neighbours_figure,
    new_axes,
    plot_distances,
    plot_negatives,
    plot_recall,
    plot_reliability,
    plot_samplings,
)
from deep_ranking.reports.plots.style import ACCENT, INK, QUIET, WARN
from deep_ranking.training.history import plot_history, run_figure


def drawn(ax):
    """Draw all of it, so that what fails or warns only then does so here."""
    FigureCanvasAgg(ax.get_figure(root=True)).draw()
    return ax


def test_public_names():
    assert plots.__all__ == [
        "Neighbours",
        "missing_image",
        "neighbours_figure",
        "new_axes",
        "plot_distances",
        "plot_negatives",
        "plot_recall",
        "plot_reliability",
        "plot_samplings",
    ]


RNG = np.random.default_rng(0)
HISTORY = [{"epoch": n, "loss": 3.0 - n, "val_loss": 3.5 - n} for n in range(3)]
JUDGED = reliability(np.ones(3), np.ones(3) == 1)
CHARTS = {
    "apart": lambda: plot_distances(RNG.uniform(0, 1, 99), RNG.uniform(1, 1.3, 99), 1.0),
    "mixed": lambda: plot_distances(RNG.uniform(0, 1, 99), RNG.uniform(0, 1, 99), 0.01),
    "all": lambda: plot_recall(np.ones(5)),
    "none": lambda: plot_recall(np.full(5, 2000.0)),
    "some": lambda: plot_recall(np.array([1, 2, 11, 600.0])),
    "easy": lambda: plot_negatives([0, 1], [Interval(1, 1, 1)] * 2, in_class="hard"),
    "hard": lambda: plot_negatives([0, 1], [Interval(0, 0, 0)] * 2, in_class="hard"),
    "sure": lambda: plot_reliability({"a": JUDGED, "b": JUDGED}),
    "history": lambda: plot_history(HISTORY, ["loss"], new_axes()),
}


@pytest.mark.parametrize("name", CHARTS)
def test_axes_begin_at_0_and_no_word_lies_over_another_or_over_the_frame(name):
    ax = drawn(CHARTS[name]())
    if not name.startswith("hist"):
        assert ax.get_xlim()[0] == (0.9 if ax.get_xscale() == "log" else 0)
    assert ax.get_ylim()[0] == 0
    frame, canvas = ax.get_window_extent(), ax.get_figure(root=True).bbox
    ticks = [
        text
        for axis in (ax.xaxis, ax.yaxis)
        for place, text in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if min(axis.get_view_interval()) <= place <= max(axis.get_view_interval())
    ]
    words = [*ax.texts, ax.xaxis.label, ax.yaxis.label, *ticks]
    boxes = {text: text.get_window_extent() for text in words if text.get_text()}
    for text in ax.texts:
        box = boxes[text]
        assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1, text
        assert frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1, text
    for one, other in itertools.combinations(boxes, 2):
        if not {one, other} <= set(ticks):
            assert not boxes[one].overlaps(boxes[other]), (one, other)
    for box in boxes.values():
        assert canvas.x0 <= box.x0 and box.x1 <= canvas.x1
        assert canvas.y0 <= box.y0 and box.y1 <= canvas.y1
    assert all(axis.label.get_text() for axis in (ax.xaxis, ax.yaxis)) or name == "history"


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
    assert figure.get_figwidth() * figure.dpi > 500
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
        lambda ax: plot_negatives([0, 1], [Interval(1, 1, 1)] * 2, in_class="hard", ax=ax),
        lambda ax: plot_history([{"epoch": 1, "loss": 1.0}], ["loss"], ax),
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
    kinds = {to_hex(patch.get_facecolor()): patch.get_data() for patch in ax.patches}
    first, second = kinds[ACCENT], kinds[QUIET]
    np.testing.assert_array_equal(first.edges, second.edges)
    for kind, distances in ((first, same), (second, different)):
        width = kind.edges[1] - kind.edges[0]
        assert np.sum(width * kind.values) == pytest.approx(1)
        # The middle of the bars is the mean of the distances, but for the width of a bin.
        middles = (kind.edges[:-1] + kind.edges[1:]) / 2
        assert np.sum(middles * width * kind.values) == pytest.approx(distances.mean(), abs=width)
    (line,) = ax.collections
    assert line.get_segments()[0][:, 0].tolist() == [0.77, 0.77]
    names = {text.get_text(): text.get_color() for text in ax.texts}
    assert names == {"threshold 0.770": INK, "same class": ACCENT, "two classes": QUIET}


def test_distances_that_are_all_0_are_drawn():
    drawn(plot_distances(np.zeros(3), np.zeros(3), 0.0))


def test_reliability_is_drawn_where_there_are_answers():
    right = np.array([True, False, True, True, True])
    stated = np.array([0.1, 0.16, 0.92, 0.98, 0.95])
    curves = {
        "ours": reliability(stated, right, num_bins=5),
        "other": reliability(1 - stated, right),
    }
    ax = drawn(plot_reliability(curves))
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == ["as promised", "other", "ours"]
    np.testing.assert_allclose(lines["ours"].get_xydata(), [[0.13, 0.5], [0.95, 1]])
    assert (lines["ours"].get_color(), lines["other"].get_color()) == (ACCENT, QUIET)
    areas = ax.collections[1].get_sizes()
    assert areas[0] / areas[1] == pytest.approx(2 / 3, abs=0.05)  # two answers, and three
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "other", "as promised"]


def test_recall_is_the_share_of_ranks_up_to_k():
    # Of the four queries with a positive: one at rank 1, two at 3, one at 20.
    ax = drawn(plot_recall(np.array([3.0, np.nan, 20.0, 1.0, 3.0])))
    assert ax.get_lines()[0].get_xydata().tolist() == [[1, 0.25], [3, 0.75], [20, 1]]
    assert ax.get_xlim()[1] > 20


def test_recall_at_1_is_drawn_though_nobody_has_rank_1():
    ax = drawn(plot_recall(np.array([2.0])))
    assert ax.get_lines()[0].get_xydata().tolist() == [[1, 0], [2, 1], [10, 1]]


def test_recall_without_ranks_is_refused():
    with pytest.raises(ValueError, match="Received: only NaN"):
        plot_recall(np.array([np.nan]))


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
        assert (frame.get_linestyle() == "--") == (found[-1][2] == WARN)
    gray, green, red = QUIET, ACCENT, WARN
    assert found == [
        (1, (0.05, 0.05), gray),
        (2, (1.05, 0.05), green),
        (3, (2.05, 0.05), red),
        (4, (0.05, 1.26 + 0.05), gray),
        (5, (1.05, 1.26 + 0.05), red),
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
                [
                    ["Fruit/Apple/Golden-Delicious", "p(hit) 0.91"],
                    ["$dog", "gone: Golden-Delicious_07.jpg"],
                ],
                "Fruit/Apple/Golden-Delicious",
            )
        ]
    )
    (ax,) = figure.axes
    texts = {text.get_text(): text.get_position() for text in ax.texts}
    columns = {}
    for text in ax.texts:
        columns.setdefault(int(text.get_position()[0]), []).append(text.get_text())
    assert columns == {
        0: ["a long name of a", "file 012.jpg", "Fruit/Apple/", "Golden-Delicious"],
        1: ["✓ 0.250", "Fruit/Apple/", "Golden-Delicious", "p(hit) 0.91"],
        2: ["✗ 0.500", "$dog", "gone: Golden-", "Delicious_07.jpg"],
    }
    heights = [texts["✓ 0.250"][1], texts["p(hit) 0.91"][1]]
    assert heights[0] < heights[1] < ax.get_ylim()[0]  # downwards, and within the picture
    figure.savefig(io.BytesIO(), format="png")


def test_the_picture_of_a_missing_image_is_a_cross():
    pixels = missing_image(32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert (pixels[[0, 31, 0, 31], [0, 31, 31, 0]] == 140).all()
    assert (pixels[16, [2, 29]] == 225).all()
