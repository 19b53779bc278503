"""The design values that the served page, the HTML reports and the pictures share.

They are in `tokens.css` beside this module: colours for a light and a dark screen, type, radii.
"""

import functools
import re
from pathlib import Path

TOKENS = Path(__file__).with_name("tokens.css")


@functools.cache
def tokens_css() -> str:
    """Return the design values as a style sheet."""
    return TOKENS.read_text(encoding="utf-8")


def light_color(name: str) -> str:
    """Return a colour of the light design, for pictures that are drawn before anybody sees them.

    Args:
        name: as in `tokens.css`, without the dashes.

    Returns:
        "#rrggbb".

    Example:
        >>> light_color("accent")
        '#0b7061'

    Raises:
        KeyError: there is no such colour, or it is partly transparent.
    """
    digits = _light_colors()[name]
    return f"#{digits}" if len(digits) == 6 else "#" + "".join(2 * digit for digit in digits)


@functools.cache
def _light_colors() -> dict[str, str]:
    light = tokens_css().split("@media")[0]
    return dict(re.findall(r"--([\w-]+): #([0-9a-f]{3}|[0-9a-f]{6});", light))
