"""What is wrong with a data set, before anyone trains on it."""

from deep_ranking.reports.doctor.estimate import Estimate
from deep_ranking.reports.doctor.examination import Examination, diagnose, examine
from deep_ranking.reports.doctor.findings import Finding
from deep_ranking.reports.doctor.survey import Survey, find_parts, survey_images

__all__ = [
    "Estimate",
    "Examination",
    "Finding",
    "Survey",
    "diagnose",
    "examine",
    "find_parts",
    "survey_images",
]
