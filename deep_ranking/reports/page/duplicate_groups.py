"""One HTML page that shows groups of duplicates, with a frame around the image to keep of each."""

from collections.abc import Sequence
from pathlib import Path

from deep_ranking.files.html import escaped, paragraph
from deep_ranking.files.words import byte_size
from deep_ranking.images.thumbnails import proportional_pixels, thumbnail
from deep_ranking.reports.page.html import Section, page, section
from deep_ranking.search.duplicates import group_title, remarks_about
from deep_ranking.search.keeper import DuplicateImage
from deep_ranking.search.kept_groups import DuplicateGroup
from deep_ranking.search.links import freed_bytes

MOST_GROUPS, MOST_IMAGES = 200, 24  # groups, and images of each, that a page shows


def duplicates_page(
    groups: Sequence[DuplicateGroup], root: Path, *, threshold: float, summary: str
) -> str:
    """Return the page as HTML.

    Args:
        groups: the groups; the page shows the first 200, and the first 24 images of each.
        root: folder of the images.
        threshold: distance below which images are duplicates.
        summary: plain text with the numbers of groups and images.
    """
    how = (
        "Each group is one picture, several times. A green frame marks the image to keep: the one "
        "with the most detail, which is not that of a blurred or enlarged image, whatever its "
        "pixels; then more pixels, a format without loss, and the larger file count. The others "
        f"follow: they are nearer than {threshold:g} to it, or equal files. Of a chain of near "
        "images, the best takes those near it, and the rest makes groups of its own."
    )
    parts: list[str | Section] = [section("Summary", f"{summary}. {how}")]
    if len(groups) > MOST_GROUPS:
        parts.append(
            paragraph(
                f"The {MOST_GROUPS} largest of {len(groups):,} groups are shown; --json FILE "
                "writes all."
            )
        )
    for number, group in enumerate(groups[:MOST_GROUPS], start=1):
        size = byte_size(freed_bytes(group.movable))
        title = f"Group {number}: {group_title(group)}, {size} could go"
        figures = "".join(_figure(image, root) for image in group.images[:MOST_IMAGES])
        more = len(group.images) - MOST_IMAGES
        text = paragraph(f"and {more:,} more in this group.") if more > 0 else ""
        parts.append(
            f'<section><h2>{escaped(title)}</h2>\n<div class="row large">{figures}</div>{text}'
            "</section>"
        )
    return page(f"Duplicates in {root}", parts)


def _figure(image: DuplicateImage, root: Path) -> str:
    mark = "✓ keep" if image.is_keeper else f"{image.distance:.3f}"
    sides, size = f"{image.width}x{image.height}", byte_size(image.num_bytes)
    caption = ", ".join([sides, size, *remarks_about(image), image.path])
    kind = "hit" if image.is_keeper else ""
    path = root / image.path
    pixels = proportional_pixels(path)
    return thumbnail(pixels, caption, mark=mark, kind=kind, description=str(path))
