"""One HTML page about a data set: what is wrong, with thumbnails of the images concerned."""

from collections.abc import Sequence

from deep_ranking.files.html import escaped, paragraph
from deep_ranking.images.thumbnails import proportional_pixels, thumbnail
from deep_ranking.reports.doctor.estimate import Estimate
from deep_ranking.reports.doctor.examination import Examination
from deep_ranking.reports.doctor.findings import FAILS, NOTE, WARNING, Finding, Item
from deep_ranking.reports.page.html import Section, anchor, bar_table, page, section

MOST_GROUPS, MOST_IMAGES = 24, 6  # groups of a finding, and images of each, that a page shows
MOST_ROWS = 100  # of the list of broken images, which cannot be shown
SEVERITY_WORDS = {
    FAILS: "training would fail",
    WARNING: "the model would learn worse, or be judged wrongly",
    NOTE: "worth knowing",
}


def doctor_page(examination: Examination) -> str:
    """Return the page as HTML that loads nothing: the pictures are in it."""
    sections = [_summary(examination)]
    if examination.estimates:
        how = (
            "What the planned training takes, estimated from a few small steps on this machine, "
            "and what makes it less."
        )
        cards = "".join(map(_estimate_html, examination.estimates))
        sections.append(section("Training", how, f'<ul class="findings">{cards}</ul>'))
    sections += [
        section(each.title, f"{each.what}. To mend it: {each.suggestion}.", *_images_html(each))
        for each in examination.findings
        if each.groups
    ]
    return page(f"Doctor: {examination.survey.root}", sections)


def _summary(examination: Examination) -> Section:
    header = ("part", "images", "that can be read", "classes")
    rows = [
        (part.name or "all", *(f"{number:,}" for number in part[1:4]))
        for part in examination.survey.summary()
    ]
    conclusion = examination.conclusion
    how = (
        f"{conclusion[0].upper()}{conclusion[1:]}. Each card is one thing found: how bad it is, "
        "what it is, and how to mend it. The worst come first; the pictures are below."
    )
    cards = "".join(map(_finding_html, examination.findings))
    parts = [f'<ul class="findings">{cards}</ul>'] if cards else []
    return section("Summary", how, bar_table(header, rows), *parts)


def _finding_html(finding: Finding) -> str:
    title = escaped(finding.title)
    if finding.groups:
        title = f'<a href="#{anchor(finding.title)}">{title}</a>'
    return (
        f'<li><span class="{finding.severity}">{SEVERITY_WORDS[finding.severity]}</span>'
        f"<h3>{title}</h3>{paragraph(f'{finding.what}.')}"
        f"<small>To mend it: {escaped(finding.suggestion)}.</small></li>"
    )


def _estimate_html(estimate: Estimate) -> str:
    less = f"<small>{escaped(estimate.suggestion)}</small>" if estimate.suggestion else ""
    return f"<li><h3>{escaped(estimate.kind)}</h3>{paragraph(estimate.what)}{less}</li>"


def _images_html(finding: Finding) -> list[str]:
    if finding.kind == "broken":
        names = [(item.path, item.detail) for (item,) in finding.groups[:MOST_ROWS]]
        lines = "".join(
            f"<li><strong>{escaped(path)}</strong> <span>{escaped(problem)}</span></li>"
            for path, problem in names
        )
        return [f'<ul class="lines">{lines}</ul>', *_more_html(finding.num_groups - len(names))]
    shown = finding.groups[:MOST_GROUPS]
    if all(len(group) == 1 for group in finding.groups):
        figures = [_figure_html(item) for (item,) in shown]
        gallery = f'<div class="row large">{"".join(figures)}</div>'
    else:
        boxes = [_group_html(finding, group) for group in shown]
        gallery = f'<div class="pairs">{"".join(boxes)}</div>'
    return [gallery, *_more_html(finding.num_groups - len(shown))]


def _group_html(finding: Finding, group: Sequence[Item]) -> str:
    kinds = ["miss", *["hit"] * len(group)] if finding.kind == "mislabelled" else [""] * len(group)
    figures = [
        _figure_html(item, kind) for item, kind in zip(group[:MOST_IMAGES], kinds, strict=False)
    ]
    more = len(group) - MOST_IMAGES
    text = paragraph(f"and {more:,} more") if more > 0 else ""
    return f'<div class="pair"><div class="row">{"".join(figures)}</div>{text}</div>'


def _figure_html(item: Item, kind: str = "") -> str:
    pixels = proportional_pixels(item.file)
    return thumbnail(pixels, item.path, mark=item.detail, kind=kind, description=str(item.file))


def _more_html(number: int) -> list[str]:
    return [paragraph(f"and {number:,} more.")] if number > 0 else []
