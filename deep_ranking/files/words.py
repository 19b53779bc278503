"""Words for numbers: a count with its noun, a size in bytes, a duration."""

import math
from collections.abc import Iterator, Sequence

from deep_ranking.files.errors import printable

NUM_BROKEN_SHOWN = 10
MOST_NAMES = 5  # in a line
LONGEST_NAME = 28
UNITS_OF_TIME = ((86_400 * 365.25, "year"), (86_400, "day"), (3600, "hour"), (60, "minute"))
UNITS_OF_SIZE = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 class", "2,000 images", "3 queries".

    Args:
        number: how many.
        noun: the noun in the singular.
        plural: the noun in the plural, if it is irregular.
    """
    if plural is None:
        if noun.endswith("y") and noun[-2:-1] not in "aeiou":
            plural = noun[:-1] + "ies"
        else:
            plural = noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def byte_size(number: float) -> str:
    """Return a size in bytes for people: "5 bytes", "4.2 MiB", "1.3 TiB"."""
    value = float(number)
    for unit in UNITS_OF_SIZE:
        if value < 1024 or unit == UNITS_OF_SIZE[-1]:
            break
        value /= 1024
    return f"{number:,.0f} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"


def in_percent(share: float) -> str:
    """Return a share of 1 in percent: "38 %"; with a decimal where 0 % or 100 % would be wrong."""
    whole = round(share)
    if f"{share:z.0%}" != f"{whole:.0%}" or math.isclose(share, whole, abs_tol=1e-9):
        return f"{share:z.0%}".replace("%", " %")
    least = max(abs(share - whole), 0.001)  # as much as one decimal can show
    return f"{whole + math.copysign(least, share - whole):.1%}".replace("%", " %")


def duration(seconds: float) -> str:
    """Return a duration for people: "20 seconds", "3.5 hours"."""
    for size, unit in UNITS_OF_TIME:
        if seconds >= size:
            number = seconds / size
            text = f"{number:.1f}".removesuffix(".0") if number < 10 else f"{number:,.0f}"
            return f"{text} {unit}" + ("s" if text != "1" else "")
    return counted(max(1, round(seconds)), "second")


def broken_lines(
    broken: Sequence[tuple[str, str]], *, indent: str, more: str = ""
) -> Iterator[str]:
    """Yield a line for each of the first broken images, and how many more there are.

    Args:
        broken: path and problem of each.
        indent: begins each line.
        more: follows the number of the others, such as ", which --json lists".
    """
    for path, problem in broken[:NUM_BROKEN_SHOWN]:
        yield f"{indent}{printable(path)}: {printable(problem)}"
    if len(broken) > NUM_BROKEN_SHOWN:
        yield f"{indent}and {len(broken) - NUM_BROKEN_SHOWN:,} more{more}"


def listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others: "a, b, c, d, e and 2 more"."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return printable(", ".join(names[:MOST_NAMES])) + more


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name, with the middle cut out if it is long: both ends tell more than one."""
    if len(name) <= longest:
        return name
    kept = longest - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"
