"""The figures of an evaluation in words and columns."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deep_ranking.files.words import shortened
from deep_ranking.metrics import Interval
from deep_ranking.metrics.evaluation import TRIPLETS_PER_QUERY, EmbeddingMetrics

MAX_WIDTH = 100
BETWEEN = "   "  # two columns of a table
NUM_CLASSES_SHOWN = 10
MOST_NAME = 40  # characters of a class in a table
WHOLE = ("nmi", "roc_auc", "equal_error_rate", "equal_error_threshold", "score_at_top_30")
OF_TRIPLETS = ("similarity_precision", "roc_auc", "equal_error_rate", "score_at_top_30")
CLASS_COLUMNS = ("similarity_precision", "recall_at_1")  # before the metric that sorts the classes
RANK_COLUMNS = ("median_rank", "recall_at_1")
NO_VALUE = "-"  # of a class whose queries have no right image


def format_interval(interval: Interval) -> str:
    """Return a mean and its interval: "0.634 [0.622, 0.646]"."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def metrics_shown(evaluation: EmbeddingMetrics) -> tuple[str, ...]:
    """Return the names of an evaluation's metrics in the order in which they are shown."""
    whole = [name for name in WHOLE if name in evaluation.whole]
    first = ["median_rank"] if "median_rank" in evaluation.whole else []
    return (*first, *evaluation.intervals, *whole)


def left_out_in_words(left_out: dict[str, str], *, one_right_image: bool) -> str:
    """Return which figures are left out, and why, in a sentence; "" for none."""
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    parts = [f"{', '.join(those)} ({reason})" for reason, those in names.items()]
    beginning = "One right image for each query, so left out" if one_right_image else "Left out"
    return f"{beginning}: {'; '.join(parts)}." if parts else ""


def rank_in_words(rank: float, num_ranked: int) -> str:
    """Return a rank: "2 of 41", "1.5 of 41"; that of a query without a right image is "-"."""
    if np.isnan(rank):
        return NO_VALUE
    return f"{rank:,.1f}".removesuffix(".0") + f" of {num_ranked:,}"


def method_lines(evaluations: dict[str, EmbeddingMetrics]) -> Iterator[str]:
    """Yield the lines of a table of at most `MAX_WIDTH` columns.

    Few methods have a column each. More have a row each, in several blocks of metrics.
    """
    first = next(iter(evaluations.values()))
    metrics = metrics_shown(first)
    by_method = [
        ["", *metrics],
        *(
            [name, *(format_metric(each, metric) for metric in metrics)]
            for name, each in evaluations.items()
        ),
    ]
    by_metric = [list(row) for row in zip(*by_method, strict=True)]
    if _width(by_metric) <= MAX_WIDTH:
        yield from aligned(by_metric)
    else:
        for number, block in enumerate(_blocks(by_method)):
            yield from ["", *aligned(block)] if number else aligned(block)
    yield from textwrap.wrap(f"({drawn_in_words(first)})", MAX_WIDTH, break_on_hyphens=False)


def drawn_in_words(evaluation: EmbeddingMetrics) -> str:
    """Return which figures are no means over queries of a ranking, but of drawn triplets."""
    names = [name for name in OF_TRIPLETS if name in metrics_shown(evaluation)]
    drawn = f"{evaluation.whole['triplets']:,} triplets, {TRIPLETS_PER_QUERY} drawn for each query"
    return f"{', '.join(names)}: from {drawn}; thresholds are distances"


def figures(name: str, evaluation: EmbeddingMetrics) -> str:
    """Return all metrics of one method in a few lines of at most `MAX_WIDTH` columns."""
    metrics = metrics_shown(evaluation)
    lines = [f"{name}:"]
    for metric in metrics:
        item = (
            f" {metric} {format_metric(evaluation, metric)}{',' if metric != metrics[-1] else '.'}"
        )
        if len(lines[-1] + item) > MAX_WIDTH:
            lines.append(" ")
        lines[-1] += item
    return "\n".join(lines)


def _blocks(rows: list[list[str]]) -> Iterator[list[list[str]]]:
    """Yield the table in parts of as many columns as fit, each with the first column."""
    names, *columns = ([*column] for column in zip(*rows, strict=True))
    shown = [names]
    for column in columns:
        wider = [*shown, column]
        if len(shown) > 1 and _width(list(zip(*wider, strict=True))) > MAX_WIDTH:
            yield [list(row) for row in zip(*shown, strict=True)]
            wider = [names, column]
        shown = wider
    yield [list(row) for row in zip(*shown, strict=True)]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _width(rows: Sequence[Sequence[str]]) -> int:
    widths = _widths(rows)
    return sum(widths) + len(BETWEEN) * (len(widths) - 1)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: the first column to the left, the others to the right."""
    first, *others = _widths(rows)
    for name, *cells in rows:
        line = (f"{cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        yield BETWEEN.join((f"{name:{first}}", *line))


def format_metric(evaluation: EmbeddingMetrics, metric: str) -> str:
    """Return a metric with its interval, if it has one."""
    if metric in evaluation.intervals:
        return format_interval(evaluation.intervals[metric])
    value, interval = evaluation.whole[metric], evaluation.whole_intervals.get(metric)
    if metric == "median_rank" and interval is not None:
        low, high = (f"{each:,.1f}".removesuffix(".0") for each in interval[1:])
        return f"{rank_in_words(value, evaluation.retrieval.most_ranked)} [{low}, {high}]"
    if interval is None:
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,} [{interval.low:,.0f}, {interval.high:,.0f}]"
    return format_interval(interval)


def class_lines(by_class: dict[str, dict[str, float]], metric: str) -> Iterator[str]:
    """Yield the lines of the worst classes by a metric, such as mAP@R."""
    ordered = sorted(by_class.items(), key=lambda item: np.nan_to_num(item[1][metric], nan=np.inf))
    shown = ordered[:NUM_CLASSES_SHOWN]
    yield f"\nWorst {len(shown)} of {len(by_class)} classes"
    columns = (*(RANK_COLUMNS if "median_rank" in shown[0][1] else CLASS_COLUMNS), metric)
    rows = [["", "queries", *columns]]
    for _, values in shown:
        cells = (_class_cell(column, values[column]) for column in columns)
        rows.append(["", f"{values['queries']:,.0f}", *cells])
    longest = min(MOST_NAME, MAX_WIDTH - _width(rows))
    for row, (name, _) in zip(rows[1:], shown, strict=True):
        row[0] = shortened(name, longest)
    yield from aligned(rows)


def _class_cell(column: str, value: float) -> str:
    if np.isnan(value):
        return NO_VALUE
    return f"{value:,.1f}".removesuffix(".0") if column == "median_rank" else f"{value:.3f}"


def query_lines(
    extremes: dict[str, list[dict[str, Any]]], num_gallery: int | None
) -> Iterator[str]:
    """Yield the lines of the worst and the best queries."""
    for kind, queries in extremes.items():
        yield f"\n{kind.capitalize()} queries ({query_measure(num_gallery)})"
        values = [query_value(query, num_gallery) for query in queries]
        width = max(map(len, values), default=0)
        for value, query in zip(values, queries, strict=True):
            yield f"  {value:>{width}}  {query['path']}"


def query_measure(num_gallery: int | None) -> str:
    """Return by what queries are the worst and the best: with a gallery, by rank."""
    return "average precision" if num_gallery is None else "rank of the first right image"


def query_value(query: dict[str, Any], num_gallery: int | None) -> str:
    """Return that value of a query, in words."""
    if num_gallery is None:
        return f"{query['average_precision']:.3f}"
    return rank_in_words(query["rank"], query["num_ranked"])


def query_pictures(
    queries: list[dict[str, Any]], num_gallery: int | None
) -> list[list[tuple[str, str]]]:
    """Return rows of images with captions: with a gallery, each query beside what it found."""
    shown = [(query["path"], query_value(query, num_gallery)) for query in queries]
    if num_gallery is None:
        return [shown]
    return [
        [
            picture,
            *(
                (query[kind]["path"], f"{name} {query[kind]['distance']:.3f}")
                for kind, name in (("nearest", "nearest"), ("first_right", "first right"))
            ),
        ]
        for picture, query in zip(shown, queries, strict=True)
    ]


def describe_gain(gain: Interval, metric: str) -> str:
    """Return whether training was worth it: `gain` is the model's lead over the backbone."""
    if gain.low > 0:
        said = "Training was worth it"
    elif gain.high < 0:
        said = "Training was not worth it: the untrained backbone is better"
    else:
        said = "Whether training was worth it cannot be told from these images"
    return f"{said} ({metric} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])."
