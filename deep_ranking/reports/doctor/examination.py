"""All checks in turn, and what they come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_ranking.config import SamplingConfig, TrainConfig
from deep_ranking.reports.doctor.checks import check_classes, check_files, check_folders
from deep_ranking.reports.doctor.copies import check_copies, check_shared_classes
from deep_ranking.reports.doctor.estimate import Estimate, check_estimate, count, describe
from deep_ranking.reports.doctor.findings import FAILS, SEVERITIES, WARNING, Finding
from deep_ranking.reports.doctor.labels import check_labels
from deep_ranking.reports.doctor.shapes import check_modes, check_shapes
from deep_ranking.reports.doctor.survey import Survey


@dataclass(frozen=True)
class Examination:
    """What was found of a data set.

    Attributes:
        found: its images.
        findings: what is wrong, the worst first.
        estimates: what training would take; none where it would have nothing to learn from.
    """

    found: Survey
    findings: Sequence[Finding]
    estimates: Sequence[Estimate]

    def number_of(self, severity: str) -> int:
        """Give how many findings are so bad."""
        return sum(each.severity == severity for each in self.findings)

    @property
    def fails(self) -> bool:
        """Whether training would fail."""
        return self.number_of(FAILS) > 0

    def as_json(self) -> dict[str, Any]:
        """Give all of it as what JSON can hold."""
        found = self.found
        return {
            "dataset": str(found.root),
            "training_fails": self.fails,
            "parts": [
                {
                    "name": part.name,
                    "num_images": len(part.listing.paths),
                    "num_readable": int(found.readable[found.part == number].sum()),
                    "num_classes": len(part.listing.classes),
                    "is_trained": part.is_trained,
                }
                for number, part in enumerate(found.parts)
            ],
            "findings": [each.as_json() for each in self.findings],
            "estimates": [each.as_json() for each in self.estimates],
            "seconds": round(found.seconds, 3),
        }


def examine(
    found: Survey,
    config: TrainConfig,
    sampling: SamplingConfig,
    *,
    model: Path | None = None,
    measured: bool = True,
) -> Examination:
    """Run all checks.

    Args:
        found: the images.
        config: the run that is planned.
        sampling: how triplets are drawn, for a file or while training.
        model: model file that says which images are likely mislabelled; None looks for none.
        measured: whether to time a few steps of the network.

    Raises:
        InputError: the model, or a layer that the config names, is not there.
    """
    findings = [
        *check_files(found, config),
        *check_classes(found, config, sampling),
        *check_copies(found),
        *check_shared_classes(found),
        *check_folders(found),
        *check_shapes(found, config.network.image_size),
        *check_modes(found),
    ]
    if model is not None:
        findings += check_labels(found, model)
    estimates: list[Estimate] = []
    if not any(each.kind in ("no_images", "no_triplets") for each in findings):
        amount, cost = count(found, config, sampling), None
        if measured:
            from deep_ranking.reports.doctor.timing import measure

            readable = np.flatnonzero(found.where(trained=True) & found.readable)
            cost = measure(config, [found.file(number) for number in readable.tolist()])
        findings += check_estimate(amount, cost, config)
        estimates = [*describe(amount, cost, config, sampling)]
    findings.sort(key=lambda each: SEVERITIES.index(each.severity))
    return Examination(found, findings, estimates)


def verdict(examination: Examination) -> str:
    """Say in one line what it comes to."""
    problems = examination.number_of(FAILS)
    warnings = examination.number_of(WARNING)
    notes = len(examination.findings) - problems - warnings
    rest = ", ".join(
        f"{number} {noun}{'s' * (number != 1)}"
        for number, noun in ((warnings, "warning"), (notes, "note"))
        if number
    )
    if problems:
        return f"training would fail: {problems} problem{'s' * (problems != 1)}" + (
            f", {rest}" if rest else ""
        )
    return f"nothing stops training; {rest}" if rest else "nothing stops training, nothing is odd"
