"""Figure -> SVG inside a page: text stays text, and the page's style sheet sets the colours."""

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deep_ranking.reports.plots.style import ACCENT, INK, LINE, QUIET, WARN

THEMED = {INK: "ink", QUIET: "quiet", LINE: "line", ACCENT: "accent", WARN: "warn"}
COLOR = re.compile("|".join(THEMED))
FAMILY = re.compile(r"font-family: [^;]*;? ?")  # the page has its own


def inline_svg(drawn: Axes | Figure, description: str) -> str:
    """Return a figure as an SVG element.

    Args:
        drawn: a figure, or axes that fill one.
        description: text for readers who do not see it. The figures of one page differ in it,
            because the names of their parts are made from it.

    Raises:
        ValueError: the axes were removed from their figure.
    """
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    if figure is None:
        raise ValueError("A picture needs a figure. Received: axes that were removed from theirs.")
    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": description}
    with rc_context(settings), warnings.catch_warnings():
        # The browser has more scripts than the font that the words are measured with.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    used = set(re.findall(r"#([\w-]+)", buffer.getvalue()))
    _simplify(root, used)
    view = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"viewBox": view, "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def _simplify(element: ElementTree.Element, used: set[str]) -> None:
    """Remove namespaces, names that nothing refers to, and Matplotlib's colours and fonts."""
    element.tag = _local(element.tag)
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        if name == "style":
            element.set(name, COLOR.sub(_themed, FAMILY.sub("", value)))
        elif name != "id" or value in used:
            element.set(_local(name), value)
    for child in list(element):
        # What it would say of the program; and a style for all elements, of the whole page too.
        if _local(child.tag) in ("metadata", "style"):
            element.remove(child)
        else:
            _simplify(child, used)


def _themed(found: re.Match[str]) -> str:
    """Return a colour of the page, and Matplotlib's for a place without its style sheet."""
    return f"var(--{THEMED[found[0]]}, {found[0]})"


def _local(name: str) -> str:
    return name.rpartition("}")[2]
