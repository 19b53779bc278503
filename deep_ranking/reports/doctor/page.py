"""One HTML page about a data set: what is wrong, with thumbnails of the images it is about."""

from collections.abc import Sequence

from deep_ranking.reports.doctor.examination import Examination, verdict
from deep_ranking.reports.doctor.findings import FAILS, Finding, Item
from deep_ranking.reports.page.duplicate_groups import FIGURE, proportional_pixels
from deep_ranking.reports.page.html import (
    contents,
    escaped,
    page,
    paragraph,
    section,
    table,
    thumbnail,
)

MOST_GROUPS, MOST_IMAGES = 24, 6  # groups of a finding, and images of each, that a page shows
MOST_NAMES = 100  # rows of images that cannot be shown
TITLES = {
    "broken": "Broken images",
    "wrong_extension": "Names of another format",
    "no_images": "No image can be read",
    "no_triplets": "Nothing to learn from",
    "unreadable_classes": "Classes without a readable image",
    "classes_of_one": "Classes of one image",
    "imbalance": "Imbalance",
    "outside_classes": "Images in no class",
    "unlistable": "Files that cannot be listed",
    "links_seen_again": "Links to what is listed already",
    "empty_folders": "Folders without images",
    "validation_share": "Too few classes to hold back",
    "copies_across_splits": "Copies across splits",
    "near_copies_across_splits": "Near-copies across splits",
    "copies_across_classes": "Copies across classes",
    "near_copies_across_classes": "Near-copies across classes",
    "copies_inside_classes": "Copies inside classes",
    "near_copies_inside_classes": "Near-copies inside classes",
    "shared_classes": "Classes that are not unseen",
    "small": "Small images",
    "long": "Long images",
    "odd_size": "Images of another size",
    "colour_modes": "Colour modes",
    "modes_tell_classes": "Classes told by colour mode",
    "mislabelled": "Likely mislabelled",
    "disk": "Disk",
    "memory": "Memory",
    "long_training": "Time",
}


def doctor_page(examination: Examination) -> str:
    """Make the page: nothing to load, pictures included."""
    found = examination.found
    rows = [
        (
            part.name or "all",
            f"{len(part.listing.paths):,}",
            f"{int(found.readable[found.part == number].sum()):,}",
            f"{len(part.listing.classes):,}",
        )
        for number, part in enumerate(found.parts)
    ]
    result = verdict(examination)
    parts = [
        paragraph(f"{result[0].upper()}{result[1:]}."),
        table(("part", "images", "that can be read", "classes"), rows),
    ]
    if examination.findings:
        parts.append(
            table(
                ("what", "how bad", "found", "how to mend it"),
                [
                    (TITLES[each.kind], each.severity, each.what, each.suggestion)
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
            paragraph("Estimates: time and memory by a few small steps on this machine."),
            table(("", "about", "what makes it less"), lines, text=[1, 2]),
        )
    for each in examination.findings:
        if each.groups:
            sections[TITLES[each.kind]] = section(TITLES[each.kind], *_finding(each))
    body = "\n".join([contents(list(sections)), *sections.values()])
    return page(f"Doctor: {found.root}", body)


def _finding(found: Finding) -> list[str]:
    bad = "Training would fail: " if found.severity == FAILS else ""
    parts = [paragraph(f"{bad}{found.what}."), paragraph(f"To mend it: {found.suggestion}.")]
    if found.kind == "broken":
        names = [(item.path, item.detail) for (item,) in found.groups[:MOST_NAMES]]
        parts.append(table(("image", "problem"), names, text=[1]))
        return [*parts, *_more(found.num_groups - len(names))]
    shown = found.groups[:MOST_GROUPS]
    if all(len(group) == 1 for group in found.groups):
        figures = [_figure(item, index=1) for (item,) in shown]
        parts.append(f'<div class="row">{"".join(figures)}</div>')
    else:
        boxes = [_box(found, group) for group in shown]
        parts.append(f'<div class="pairs">{"".join(boxes)}</div>')
    return [*parts, *_more(found.num_groups - len(shown))]


def _box(found: Finding, group: Sequence[Item]) -> str:
    is_suspect = found.kind == "mislabelled"
    figures = [
        _figure(item, index=number, is_suspect=is_suspect)
        for number, item in enumerate(group[:MOST_IMAGES])
    ]
    more = len(group) - MOST_IMAGES
    text = paragraph(f"and {more:,} more") if more > 0 else ""
    row = '<div class="row" style="flex-wrap: wrap">'
    return f'<div class="pair">{row}{"".join(figures)}</div>{text}</div>'


def _figure(item: Item, *, index: int, is_suspect: bool = False) -> str:
    kind = ("miss" if index == 0 else "hit") if is_suspect else ""
    pixels = proportional_pixels(item.file)
    caption = f"{item.detail}, {item.path}" if item.detail else item.path
    made = thumbnail(pixels, caption, kind=kind, description=str(item.file))
    return made.replace("<figure>", FIGURE.replace("11rem", "7.5rem"), 1)


def _more(number: int) -> list[str]:
    return [f"<p>{escaped(f'and {number:,} more.')}</p>"] if number > 0 else []
