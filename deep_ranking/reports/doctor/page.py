"""One HTML page about a data set: what is wrong, with thumbnails of the images concerned."""

from collections.abc import Sequence

from deep_ranking.files.html import paragraph, table
from deep_ranking.images.thumbnails import thumbnail
from deep_ranking.reports.doctor.examination import Examination
from deep_ranking.reports.doctor.findings import FAILS, Finding, Item
from deep_ranking.reports.page.duplicate_groups import proportional_pixels
from deep_ranking.reports.page.html import contents, page, section

WIDTH = "7.5rem"  # of a thumbnail
MOST_GROUPS, MOST_IMAGES = 24, 6  # groups of a finding, and images of each, that a page shows
MOST_ROWS = 100  # of the table of broken images, which cannot be shown


def doctor_page(examination: Examination) -> str:
    """Return the page as HTML that loads nothing: the pictures are in it."""
    rows = [
        (part.name or "all", *(f"{number:,}" for number in part[1:4]))
        for part in examination.survey.summary()
    ]
    conclusion = examination.conclusion
    parts = [
        paragraph(f"{conclusion[0].upper()}{conclusion[1:]}."),
        table(("part", "images", "that can be read", "classes"), rows),
    ]
    if examination.findings:
        parts.append(
            table(
                ("what", "how bad", "found", "how to mend it"),
                [
                    (each.title, each.severity, each.what, each.suggestion)
                    for each in examination.findings
                ],
                text=[1, 2, 3],
            )
        )
    sections = {"Summary": section("Summary", *parts)}
    if examination.estimates:
        lines = [(each.kind, each.what, each.suggestion) for each in examination.estimates]
        sections["Training"] = section(
            "Training",
            paragraph("Time and memory are estimated from a few small steps on this machine."),
            table(("", "about", "what makes it less"), lines, text=[1, 2]),
        )
    for each in examination.findings:
        if each.groups:
            sections[each.title] = section(each.title, *_finding_html(each))
    body = "\n".join([contents(list(sections)), *sections.values()])
    return page(f"Doctor: {examination.survey.root}", body)


def _finding_html(finding: Finding) -> list[str]:
    bad = "Training would fail: " if finding.severity == FAILS else ""
    parts = [paragraph(f"{bad}{finding.what}."), paragraph(f"To mend it: {finding.suggestion}.")]
    if finding.kind == "broken":
        names = [(item.path, item.detail) for (item,) in finding.groups[:MOST_ROWS]]
        parts.append(table(("image", "problem"), names, text=[1]))
        return [*parts, *_more_html(finding.num_groups - len(names))]
    shown = finding.groups[:MOST_GROUPS]
    if all(len(group) == 1 for group in finding.groups):
        figures = [_figure_html(item) for (item,) in shown]
        parts.append(f'<div class="row">{"".join(figures)}</div>')
    else:
        boxes = [_group_html(finding, group) for group in shown]
        parts.append(f'<div class="pairs">{"".join(boxes)}</div>')
    return [*parts, *_more_html(finding.num_groups - len(shown))]


def _group_html(finding: Finding, group: Sequence[Item]) -> str:
    kinds = ["miss", *["hit"] * len(group)] if finding.kind == "mislabelled" else [""] * len(group)
    figures = [
        _figure_html(item, kind) for item, kind in zip(group[:MOST_IMAGES], kinds, strict=False)
    ]
    more = len(group) - MOST_IMAGES
    text = paragraph(f"and {more:,} more") if more > 0 else ""
    row = '<div class="row" style="flex-wrap: wrap">'
    return f'<div class="pair">{row}{"".join(figures)}</div>{text}</div>'


def _figure_html(item: Item, kind: str = "") -> str:
    pixels = proportional_pixels(item.file)
    caption = f"{item.detail}, {item.path}" if item.detail else item.path
    return thumbnail(pixels, caption, kind=kind, description=str(item.file), width=WIDTH)


def _more_html(number: int) -> list[str]:
    return [paragraph(f"and {number:,} more.")] if number > 0 else []
