"""One HTML file about a model: how good it is, what it confuses, and what is odd in the images."""

from deep_ranking.reports.page.findings import (
    Confusion,
    Duplicate,
    Suspect,
    class_confusions,
    duplicates_across_classes,
    in_class_negatives,
    likely_mislabelled,
    precision_over_shares,
)
from deep_ranking.reports.page.sections import Findings, find, write_report

__all__ = [
    "Confusion",
    "Duplicate",
    "Findings",
    "Suspect",
    "class_confusions",
    "duplicates_across_classes",
    "find",
    "in_class_negatives",
    "likely_mislabelled",
    "precision_over_shares",
    "write_report",
]
