"""An examination as text."""

from collections.abc import Iterator, Sequence

from deep_ranking.files.words import counted
from deep_ranking.reports.doctor.estimate import Estimate
from deep_ranking.reports.doctor.findings import Finding
from deep_ranking.reports.doctor.survey import Survey

MOST_GROUPS, MOST_IMAGES = 3, 4  # shown of each finding: groups, and images of a group


def survey_lines(survey: Survey) -> Iterator[str]:
    """Yield the size of each part, and how long reading it took."""
    for part in survey.summary():
        name = str(survey.root)
        if part.name:
            name += f", {part.name}{' (trained on)' if part.is_trained else ''}"
        images = counted(part.num_images, "image")
        yield (
            f"{name}: {images} in {counted(part.num_classes, 'class')}, {part.num_readable:,} can "
            "be read"
        )
    yield f"Read in {survey.seconds:.1f} seconds.\n"


def finding_lines(finding: Finding) -> Iterator[str]:
    """Yield what is wrong, some of the images, and how to mend it."""
    yield f"{finding.severity.upper():8}{finding.what}"
    for group in finding.groups[:MOST_GROUPS]:
        shown = " | ".join(
            f"{item.path} ({item.detail})" if item.detail else item.path
            for item in group[:MOST_IMAGES]
        )
        more = f" | and {len(group) - MOST_IMAGES:,} more" if len(group) > MOST_IMAGES else ""
        yield f"        {shown}{more}"
    if finding.num_groups > MOST_GROUPS:
        yield f"        and {finding.num_groups - MOST_GROUPS:,} more"
    yield f"        -> {finding.suggestion}\n"


def estimate_lines(estimates: Sequence[Estimate]) -> Iterator[str]:
    """Yield what training takes, and what makes it less."""
    yield "Training, estimated:"
    for estimate in estimates:
        yield f"  {estimate.kind:10}{estimate.what}"
        yield f"  {'':10}-> {estimate.suggestion}"
    yield ""
