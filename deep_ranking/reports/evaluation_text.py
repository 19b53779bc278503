"""The figures of an evaluation in words and columns."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deep_ranking.files.words import shortened
from deep_ranking.metrics import Interval
from deep_ranking.metrics.evaluation import EmbeddingMetrics

MAX_WIDTH = 100
BETWEEN = "   "  # two columns of a table
NUM_CLASSES_SHOWN = 10
MOST_NAME = 40  # characters of a class in a table
WHOLE = ("nmi", "roc_auc", "equal_error_rate", "equal_error_threshold", "score_at_top_30")
CLASS_COLUMNS = ("similarity_precision", "recall_at_1", "map_at_r")


def format_interval(interval: Interval) -> str:
    """Return a mean and its interval: "0.634 [0.622, 0.646]"."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def method_lines(evaluations: dict[str, EmbeddingMetrics]) -> Iterator[str]:
    """Yield the lines of a table of at most `MAX_WIDTH` columns.

    Few methods have a column each. More have a row each, in several blocks of metrics.
    """
    first = next(iter(evaluations.values()))
    metrics = (*first.intervals, *WHOLE)
    by_method = [
        ["", *metrics],
        *(
            [name, *(format_metric(each, metric) for metric in metrics)]
            for name, each in evaluations.items()
        ),
    ]
    by_metric = [list(row) for row in zip(*by_method, strict=True)]
    if _width(by_metric) <= MAX_WIDTH:
        yield from _aligned(by_metric)
    else:
        for number, block in enumerate(_blocks(by_method)):
            yield from ["", *_aligned(block)] if number else _aligned(block)
    yield f"({first.whole['triplets']:,} triplets drawn; thresholds are distances)"


def figures(name: str, evaluation: EmbeddingMetrics) -> str:
    """Return all metrics of one method in a few lines of at most `MAX_WIDTH` columns."""
    metrics = (*evaluation.intervals, *WHOLE)
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


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
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
    if interval is None:
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,} [{interval.low:,.0f}, {interval.high:,.0f}]"
    return format_interval(interval)


def class_lines(by_class: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield the lines of the worst classes by mAP@R."""
    ordered = sorted(
        by_class.items(), key=lambda item: np.nan_to_num(item[1]["map_at_r"], nan=np.inf)
    )
    shown = ordered[:NUM_CLASSES_SHOWN]
    yield f"\nWorst {len(shown)} of {len(by_class)} classes"
    rows = [["", "queries", *CLASS_COLUMNS]]
    for name, values in shown:
        cells = (f"{values[column]:.3f}" for column in CLASS_COLUMNS)
        rows.append([shortened(name, MOST_NAME), f"{values['queries']:,.0f}", *cells])
    yield from _aligned(rows)


def query_lines(extremes: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Yield the lines of the worst and the best queries."""
    for kind, queries in extremes.items():
        yield f"\n{kind.capitalize()} queries (average precision)"
        for query in queries:
            yield f"  {query['average_precision']:.3f}  {query['path']}"


def describe_gain(gain: Interval, metric: str) -> str:
    """Return whether training was worth it: `gain` is the model's lead over the backbone."""
    if gain.low > 0:
        said = "Training was worth it"
    elif gain.high < 0:
        said = "Training was not worth it: the untrained backbone is better"
    else:
        said = "Whether training was worth it cannot be told from these images"
    return f"{said} ({metric} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])."
