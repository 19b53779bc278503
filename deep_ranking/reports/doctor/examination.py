"""All checks of a data set in turn, and their conclusion in one line."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.config import SamplingConfig, TrainConfig
from deep_ranking.datasets import LabelledImages
from deep_ranking.files.html import paragraph, table
from deep_ranking.files.words import counted
from deep_ranking.images.thumbnails import image_rows
from deep_ranking.reports.doctor.classes import (
    check_classes,
    check_folders,
    check_labels,
    check_names,
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
from deep_ranking.reports.doctor.images import (
    check_colour_modes,
    check_decisions,
    check_files,
    check_sizes,
)
from deep_ranking.reports.doctor.survey import Survey, find_parts, survey_images
from deep_ranking.reports.doctor.text import estimate_lines, finding_lines, survey_lines

MOST_GROUPS_SHOWN = 3  # groups of images of a finding, in a notebook


@dataclass(frozen=True)
class Examination:
    """Result of all checks of a data set.

    Attributes:
        survey: its images.
        findings: what is wrong, the worst first.
        estimates: what training would take; empty where it would have nothing to learn from.

    Example:
        >>> diagnose("photos", estimate=False).conclusion
        'nothing stops training; ...'
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

    def text(self) -> str:
        """Return the parts, the findings and the estimates as text."""
        lines = list(survey_lines(self.survey))
        for finding in self.findings:
            lines += finding_lines(finding)
        if self.estimates:
            lines += estimate_lines(self.estimates)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"{self.text()}\n{self.conclusion[0].upper()}{self.conclusion[1:]}."

    def _repr_html_(self) -> str:
        parts = [paragraph(f"{self.conclusion[0].upper()}{self.conclusion[1:]}.")]
        for each in self.findings:
            parts.append(paragraph(f"{each.severity.upper()} {each.what} → {each.suggestion}"))
            groups = each.groups[:MOST_GROUPS_SHOWN]
            rows = [[(item.file, item.detail or item.path) for item in group] for group in groups]
            parts.append(image_rows(rows))
        if self.estimates:
            estimates = [(each.kind, each.what, each.suggestion) for each in self.estimates]
            parts.append(table(("training", "about", "what makes it less"), estimates, text=[1, 2]))
        return "\n".join(parts)

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
        *check_names(survey),
        *check_sizes(survey, config.network.image_size),
        *check_decisions(survey),
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


def diagnose(
    dataset: str | os.PathLike[str] | LabelledImages,
    config: TrainConfig | None = None,
    *,
    sampling: SamplingConfig | None = None,
    model: str | os.PathLike[str] | None = None,
    estimate: bool = True,
    progress: bool = False,
) -> Examination:
    """Find what is wrong with a data set, and estimate what training on it takes.

    Args:
        dataset: folder with one folder for each class; or with train, val, unseen ... of such
            folders, which are compared with each other; or the images of `read_folder`.
        config: the planned run; None for the usual settings.
        sampling: how triplets are drawn; None for the usual settings.
        model: model file that finds images that are likely mislabelled; None skips this check,
            which is the slowest.
        estimate: build the network and time a few steps, to estimate what training takes.
        progress: whether to show a progress bar on standard error, if that is a terminal.

    Example:
        >>> found = diagnose("photos", estimate=False)
        >>> found.fails
        False

    Raises:
        InputError: the data set, the model, or a layer that the config names, is missing.
    """
    config, sampling = config or TrainConfig(), sampling or SamplingConfig()
    if isinstance(dataset, LabelledImages):
        data = dataset
    else:
        data = config.read(dataset, level=sampling.category_level(config.level))
    survey = survey_images(data.root, find_parts(data, config), progress=progress)
    return examine(
        survey,
        config,
        sampling,
        model=None if model is None else Path(model),
        measured=estimate,
    )
