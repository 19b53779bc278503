"""Pieces of a self-contained HTML page: no script, no request, pictures as data."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deep_ranking.files.html import data_uri, escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120

# The policy makes the browser refuse every request.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #222; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p { max-width: 45rem; }
nav a { display: inline-block; margin-right: 1rem; padding: .2rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
td:first-child, td.text { white-space: normal; overflow-wrap: break-word; max-width: 30rem; }
td:first-child, th:first-child, td.text, th.text { text-align: left; }
td:first-child { min-width: 6rem; }
td.text { min-width: 9rem; color: #555; }
figure { margin: 1rem 0; }
figure.picture img { max-width: 100%; height: auto; }
figure.wide { overflow-x: auto; }
figure.wide img { max-width: none; width: 100%; min-width: 44rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr));
  gap: 1rem; }
.pictures figure { margin: 0; }
figcaption { font-size: .8rem; color: #444; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: 1rem; }
.row figure { margin: 0; width: 5.5rem; }
.row img { display: block; width: 100%; box-sizing: border-box; border: 4px solid #999; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.pair { border: 1px solid #ddd; border-radius: .3rem; padding: .5rem; }
.pair .row { margin: 0; flex-wrap: nowrap; }
.pair .row figure { width: 50%; }
.pair p { margin: .3rem 0 0; font-size: .9rem; overflow-wrap: anywhere; }
.row .hit { border-color: #2e7d32; }
.row .miss { border-color: #c62828; border-style: dashed; }
@media print {
  main { max-width: none; padding: 0; }
  nav { display: none; }
  p, figure, tr, .pair, .row { break-inside: avoid; }
  h2, h3, h2 + p { break-after: avoid; }
  figure.picture img { max-height: 16cm; }
  .pictures { grid-template-columns: 1fr 1fr; }
  figure.wide img { min-width: 0; }
}
"""


def page(title: str, body: str) -> str:
    """Return a page; its title is plain text, its body HTML."""
    return PAGE.format(title=escaped(title), style=STYLE, body=body)


def section(title: str, *parts: str) -> str:
    """Return a section of HTML parts, below a heading in plain text that `contents` links to."""
    heading = f'<section id="{_anchor(title)}">\n<h2>{escaped(title)}</h2>'
    return "\n".join([heading, *parts, "</section>"])


def contents(titles: Sequence[str]) -> str:
    """Return a list of links to sections."""
    links = [f'<a href="#{_anchor(title)}">{escaped(title)}</a>' for title in titles]
    return "<nav>" + "\n".join(links) + "</nav>"


def picture(drawn: "Axes | Figure", description: str, *, wide: bool = False) -> str:
    """Return a figure as an image for the page.

    Args:
        drawn: a figure, or axes that fill one.
        description: text for readers who do not see it.
        wide: whether it scrolls on a narrow screen, instead of shrinking until illegible.

    Raises:
        ValueError: the axes were removed from their figure.
    """
    from matplotlib.figure import Figure  # late: the light installation has none

    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    if figure is None:
        raise ValueError("A picture needs a figure. Received: axes that were removed from theirs.")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The font draws names in scripts that it lacks as boxes; the tables have them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # A busy machine takes over a second to place a legend where it hides least.
        warnings.filterwarnings("ignore", message="Creating legend with loc=.best. can be slow")
        figure.savefig(
            buffer,
            format="png",
            dpi=DOTS_PER_INCH,
            bbox_inches="tight",
            metadata={"Software": None},
        )
    source = data_uri(buffer.getvalue(), "image/png")
    kind = "picture wide" if wide else "picture"
    return f'<figure class="{kind}"><img src="{source}" alt="{escaped(description)}"></figure>'


def _anchor(title: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in title.lower())
