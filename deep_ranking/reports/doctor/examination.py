"""All checks of a data set in turn, and their conclusion in one line."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.config import SamplingConfig, TrainConfig
from deep_ranking.files.words import counted
from deep_ranking.reports.doctor.classes import (
    check_classes,
    check_folders,
    check_labels,
    check_shared_classes,
)
from deep_ranking.reports.doctor.copies import check_copies
from deep_ranking.reports.doctor.estimate import (
    Estimate,
    check_resources,
    estimate_workload,
    make_estimates,
)
from deep_ranking.reports.doctor.findings import FAILS, NOTE, SEVERITIES, WARNING, Finding
from deep_ranking.reports.doctor.images import check_colour_modes, check_files, check_sizes
from deep_ranking.reports.doctor.survey import Survey


@dataclass(frozen=True)
class Examination:
    """Result of all checks of a data set.

    Attributes:
        survey: its images.
        findings: what is wrong, the worst first.
        estimates: what training would take; empty where it would have nothing to learn from.
    """

    survey: Survey
    findings: Sequence[Finding]
    estimates: Sequence[Estimate]

    @property
    def fails(self) -> bool:
        """Whether training would fail."""
        return any(each.severity == FAILS for each in self.findings)

    @property
    def conclusion(self) -> str:
        """One line: whether training would fail, and the number of findings."""
        found = Counter(each.severity for each in self.findings)
        rest = ", ".join(counted(found[each], each) for each in (WARNING, NOTE) if found[each])
        if self.fails:
            problems = counted(found[FAILS], "problem")
            return f"training would fail: {problems}" + (rest and f", {rest}")
        return f"nothing stops training; {rest}" if rest else "nothing stops training, no findings"

    def as_json(self) -> dict[str, Any]:
        """Return the examination as a JSON object."""
        return {
            "dataset": str(self.survey.root),
            "training_fails": self.fails,
            "parts": [part._asdict() for part in self.survey.summary()],
            "findings": [each.as_json() for each in self.findings],
            "estimates": [each._asdict() for each in self.estimates],
            "seconds": round(self.survey.seconds, 3),
        }


def examine(
    survey: Survey,
    config: TrainConfig,
    sampling: SamplingConfig,
    *,
    model: Path | None = None,
    measured: bool = True,
) -> Examination:
    """Run all checks.

    Args:
        survey: the images.
        config: the planned run.
        sampling: how triplets are drawn, for a file or while training.
        model: model file that finds images that are likely mislabelled; None skips this check.
        measured: whether to time a few steps of the network.

    Raises:
        InputError: the model, or a layer that the config names, is missing.
    """
    findings = [
        *check_files(survey, config),
        *check_classes(survey, config, sampling),
        *check_copies(survey),
        *check_shared_classes(survey),
        *check_folders(survey),
        *check_sizes(survey, config.network.image_size),
        *check_colour_modes(survey),
    ]
    if model is not None:
        findings += check_labels(survey, model)
    estimates: list[Estimate] = []
    if not any(each.kind in ("no_images", "no_triplets") for each in findings):
        workload, cost = estimate_workload(survey, config, sampling), None
        if measured:
            from deep_ranking.reports.doctor.timing import measure_training

            readable = np.flatnonzero(survey.is_trained & survey.readable)
            cost = measure_training(config, [survey.file(n) for n in readable.tolist()])
        findings += check_resources(workload, cost, config)
        estimates = [*make_estimates(workload, cost, config, sampling)]
    findings.sort(key=lambda each: SEVERITIES.index(each.severity))
    return Examination(survey, findings, estimates)
