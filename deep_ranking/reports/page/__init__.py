"""One HTML file about a model: how good it is, what it confuses, and possible label errors."""

from deep_ranking.reports.page.sections import write_report

__all__ = ["write_report"]
