"""The flags --smooth and --smooth_power, of `index` and `evaluate`."""

import argparse
from contextlib import suppress
from functools import partial
from typing import Literal

from deep_ranking.cli.arguments import checked_number
from deep_ranking.search.collection.settings import MOST_NEIGHBOURS, MOST_POWER


def add_smoothing(
    group: "argparse._ArgumentGroup", *, const: int | Literal["choose"], help_text: str
) -> None:
    """Add --smooth and --smooth_power.

    Args:
        group: of the flags.
        const: K where --smooth has no value; "choose" to choose it.
        help_text: of --smooth.
    """
    group.add_argument(
        "--smooth",
        type=partial(_smooth, may_choose=const == "choose"),
        nargs="?",
        const=const,
        metavar="K",
        help=help_text,
    )
    group.add_argument(
        "--smooth_power",
        type=checked_number(
            float, lambda value: 0 < value <= MOST_POWER, f"be above 0 and at most {MOST_POWER:g}"
        ),
        metavar="P",
        help="weight of a neighbour in --smooth: its cosine to the power of P (default: 2"
        f"{', or chosen with K' if const == 'choose' else ''})",
    )


def _smooth(text: str, *, may_choose: bool) -> int | Literal["choose"]:
    """Parse the K of --smooth; "choose" stands for none, and 0 for the plain rows."""
    if may_choose and text == "choose":
        return "choose"
    with suppress(ValueError):
        if (may_choose and int(text) == 0) or 2 <= int(text) <= MOST_NEIGHBOURS:
            return int(text)
    raise argparse.ArgumentTypeError(
        f"must be {'0 for the plain rows, or ' if may_choose else ''}2 to {MOST_NEIGHBOURS:,} "
        f"nearest, the row itself among them. Received: {text}"
    )
