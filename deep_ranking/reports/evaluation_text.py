"""The figures of an evaluation in words and columns."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from deep_ranking.metrics import Interval
from deep_ranking.metrics.evaluation import EmbeddingMetrics

NUM_CLASSES_SHOWN = 10
WHOLE = ("nmi", "roc_auc", "equal_error_rate", "equal_error_threshold", "score_at_top_30")
CLASS_COLUMNS = ("similarity_precision", "recall_at_1", "map_at_r")


def format_interval(interval: Interval) -> str:
    """Return a mean and its interval: "0.634 [0.622, 0.646]"."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def method_lines(evaluations: dict[str, EmbeddingMetrics]) -> Iterator[str]:
    """Yield the lines of a table: one column for each method and one row for each metric."""
    yield " " * 24 + "".join(f"{name:>24s}" for name in evaluations)
    first = next(iter(evaluations.values()))
    for metric in (*first.intervals, *WHOLE):
        cells = (format_metric(each, metric) for each in evaluations.values())
        yield f"{metric:24s}" + "".join(f"{cell:>24s}" for cell in cells)
    yield f"({first.whole['triplets']:,} triplets drawn; thresholds are distances)"


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
    width = max(len(name) for name, _ in shown)
    yield " " * width + "".join(f"{column:>22s}" for column in ("queries", *CLASS_COLUMNS))
    for name, values in shown:
        cells = "".join(f"{values[column]:22.3f}" for column in CLASS_COLUMNS)
        yield f"{name:{width}s}{values['queries']:22,.0f}{cells}"


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
