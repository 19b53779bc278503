"""Pieces of a self-contained HTML page: no script, no request, pictures as data."""

import functools
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deep_ranking.files.design import tokens_css
from deep_ranking.files.html import data_uri, escaped, paragraph
from deep_ranking.files.words import in_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120
STYLE = Path(__file__).with_name("report.css")

# The policy makes the browser refuse every request.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header class="top"><svg class="mark" viewBox="0 0 24 24" aria-hidden="true">\
<rect class="first" x="2" y="2" width="9" height="9" rx="2"/>\
<rect x="13" y="2" width="9" height="9" rx="2"/>\
<rect x="2" y="13" width="9" height="9" rx="2"/>\
<rect class="last" x="13" y="13" width="9" height="9" rx="2"/></svg>\
<span>Deep Ranking</span></header>
<div class="sheet">
{nav}
<main>
<h1>{title}</h1>
{body}
</main>
</div>
</body>
</html>
"""


class Section(NamedTuple):
    """A section of a page: its title in plain text, and all of it as HTML."""

    title: str
    html: str


def page(title: str, parts: Sequence[str | Section]) -> str:
    """Return a page.

    Args:
        title: plain text.
        parts: HTML, and sections, which get links to them if there are two or more.
    """
    titles = [each.title for each in parts if isinstance(each, Section)]
    links = [f'<a href="#{anchor(title)}">{escaped(title)}</a>' for title in titles]
    nav = '<nav aria-label="Sections">' + "\n".join(links) + "</nav>" if links[1:] else ""
    body = "\n".join(each.html if isinstance(each, Section) else each for each in parts)
    return PAGE.format(title=escaped(title), style=_style(), body=body, nav=nav)


@functools.cache
def _style() -> str:
    return f"\n{tokens_css()}{STYLE.read_text(encoding='utf-8')}"


def section(title: str, how: str, *parts: str) -> Section:
    """Return a section of a page.

    Args:
        title: plain text of its heading.
        how: plain text that says what it shows and how to read it.
        parts: HTML.
    """
    heading = f'<section id="{anchor(title)}">\n<h2>{escaped(title)}</h2>'
    how = f'<p class="how">{escaped(how)}</p>'
    return Section(title, "\n".join([heading, how, *parts, "</section>"]))


def chart(drawn: "Axes | Figure", description: str, *words: str) -> str:
    """Return a figure that follows the page's colours and type, beside the words about it.

    Args:
        drawn: a figure, or axes that fill one.
        description: text for readers who do not see it; each chart of a page has its own.
        words: paragraphs of plain text.
    """
    from deep_ranking.reports.page.svg import inline_svg  # late: it imports Matplotlib

    figure = f'<figure class="chart">{inline_svg(drawn, description)}</figure>'
    if not words:
        return figure
    told = "".join(map(paragraph, words))
    return f'<div class="told"><div>{told}</div>{figure}</div>'


def key_figures(figures: Sequence[tuple[str, str, str]]) -> str:
    """Return large numbers, each with what it means and how sure it is, all in plain text."""
    items = [
        f"<li><strong>{escaped(number)}</strong><span>{escaped(meaning)}</span>"
        f"<small>{escaped(sure)}</small></li>"
        for number, meaning, sure in figures
    ]
    return f'<ul class="key">{"".join(items)}</ul>'


def bar_table(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Return a table in which shares are bars with their percentage; its first column is text.

    Args:
        header: names of the columns.
        rows: cells: plain text, or a share of 1; NaN for one that is not defined.
    """
    shares = [isinstance(cell, float) for cell in rows[0]]
    names = "".join(
        f'<th scope="col"{" class=bar" if is_share else ""}>{escaped(name)}</th>'
        for name, is_share in zip(header, shares, strict=True)
    )
    body = "\n".join(
        f'<tr><th scope="row">{escaped(str(name))}</th>{"".join(map(_cell, cells))}</tr>'
        for name, *cells in rows
    )
    kind = " class=several" if sum(shares) > 1 else ""
    return f"<table{kind}>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _cell(cell: str | float) -> str:
    if isinstance(cell, str):
        return f"<td>{escaped(cell)}</td>"
    if math.isnan(cell):
        return '<td class="bar">–</td>'  # noqa: RUF001
    bar = f'<i style="--share: {cell:.4f}"></i>'
    return f'<td class="bar"><span>{bar}</span>{in_percent(cell)}</td>'


def picture(figure: "Figure", description: str) -> str:
    """Return a figure as an image, for a notebook.

    Args:
        figure: the figure.
        description: text for readers who do not see it.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The font draws names in scripts that it lacks as boxes; the text has them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata = {"Software": None}
        figure.savefig(
            buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", metadata=metadata
        )
    source = data_uri(buffer.getvalue(), "image/png")
    return f'<figure><img src="{source}" alt="{escaped(description)}"></figure>'


def anchor(title: str) -> str:
    """Return the name by which links reach the section of a title."""
    return "".join(character if character.isalnum() else "-" for character in title.lower())
