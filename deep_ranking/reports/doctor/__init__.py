"""What is wrong with a data set, before anyone trains on it."""

from deep_ranking.reports.doctor.estimate import Estimate
from deep_ranking.reports.doctor.examination import Examination, examine, verdict
from deep_ranking.reports.doctor.findings import FAILS, NOTE, SEVERITIES, WARNING, Finding, Item
from deep_ranking.reports.doctor.survey import Part, Survey, find_parts, survey_images

__all__ = [
    "FAILS",
    "NOTE",
    "SEVERITIES",
    "WARNING",
    "Estimate",
    "Examination",
    "Finding",
    "Item",
    "Part",
    "Survey",
    "examine",
    "find_parts",
    "survey_images",
    "verdict",
]
