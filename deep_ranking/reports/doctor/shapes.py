"""Images of odd size or odd colour mode, among others or for the network."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import counted
from deep_ranking.reports.doctor.findings import NOTE, WARNING, Finding, finding
from deep_ranking.reports.doctor.survey import Survey

SMALL = 0.5  # share of the network's input that the shorter side has at least
LONG = 4  # times the shorter side
MOST = 0.95  # share of the images that make the others the odd ones

MODES = {
    "1": "black and white",
    "L": "gray",
    "LA": "gray with transparency",
    "La": "gray with transparency",
    "P": "palette",
    "PA": "palette with transparency",
    "RGB": "RGB",
    "RGBA": "RGB with transparency",
    "RGBa": "RGB with transparency",
    "CMYK": "CMYK, for print",
    "YCbCr": "YCbCr",
    "LAB": "Lab",
    "HSV": "HSV",
    "I": "16-bit gray",
    "F": "float gray",
}


def check_shapes(found: Survey, image_size: int) -> Iterator[Finding]:
    """Sizes: small for the network, long, and those that few have.

    Args:
        found: the images.
        image_size: side of the network's input in pixels.
    """
    readable = np.flatnonzero(found.readable)
    if not len(readable):
        return
    width, height = found.width[readable], found.height[readable]
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    small = readable[shorter < SMALL * image_size]
    if len(small):
        median = int(np.median(shorter))
        fitting = max(32, median // 32 * 32)
        many = len(small) > len(readable) / 2
        yield finding(
            "small",
            NOTE,
            f"{len(small):,} of {counted(len(readable), 'image')} shorter on a side than half of "
            f"the network's {image_size} pixels",
            f"--image_size {fitting} shows it all that there is, in less time"
            if many and fitting < image_size
            else "they are enlarged, and look blurred; find larger ones, or leave them out",
            _sized(found, small[np.argsort(shorter[shorter < SMALL * image_size], kind="stable")]),
        )
    ratio = longer / shorter
    if len(long := readable[ratio > LONG]):
        worst = long[np.argsort(-ratio[ratio > LONG], kind="stable")]
        yield finding(
            "long",
            NOTE,
            f"{counted(len(long), 'image')} more than {LONG} times as long as wide, or as wide as "
            "long",
            "crop them: stretched to a square, as images are seen, little is left of the shape",
            _sized(found, worst),
        )
    sizes = width.astype(np.int64) << 32 | height
    each, numbers, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    usual = counts.argmax()
    if len(each) > 1 and counts[usual] >= MOST * len(readable):
        odd = readable[numbers != usual]
        size = f"{each[usual] >> 32}x{each[usual] & 0xFFFFFFFF}"
        yield finding(
            "odd_size",
            NOTE,
            f"{counted(len(odd), 'image is', 'images are')} of another size than {size}, which "
            "all others have",
            "look at them: what came by another way may be of another kind",
            _sized(found, odd),
        )


def check_modes(found: Survey) -> Iterator[Finding]:
    """Colour modes: those that are not most images'; and classes that differ by them."""
    readable = np.flatnonzero(found.readable)
    counts = np.bincount(found.mode[readable], minlength=len(found.modes))
    if (counts > 0).sum() < 2:
        return
    usual = int(counts.argmax())
    odd = readable[found.mode[readable] != usual]
    modes = Counter(_mode(found.modes[mode]) for mode in found.mode[odd].tolist())
    tally = ", ".join(f"{count:,} {name}" for name, count in modes.most_common())
    yield finding(
        "colour_modes",
        NOTE,
        f"{counted(len(odd), 'image is', 'images are')} not {_mode(found.modes[usual])} as the "
        f"others: {tally}",
        "nothing stops: all are read as RGB, transparency on white; but see that colours are right",
        ([found.item(int(n), _mode(found.modes[found.mode[n]]))] for n in odd),
    )
    yield from _told_by_mode(found, usual)


def _told_by_mode(found: Survey, usual: int) -> Iterator[Finding]:
    """Classes all of whose images are of another mode than most: a network may go by that."""
    trained = np.flatnonzero(found.where(trained=True) & found.readable)
    labels = found.label[trained]
    sizes = np.bincount(labels, minlength=len(found.classes))
    other = np.bincount(labels, found.mode[trained] != usual, minlength=len(found.classes))
    apart = np.flatnonzero((sizes > 1) & (other == sizes))
    if len(apart):
        names = ", ".join(found.classes[number] for number in apart[:5])
        more = f" and {len(apart) - 5:,} more" if len(apart) > 5 else ""
        yield finding(
            "modes_tell_classes",
            WARNING,
            f"{counted(len(apart), 'class has', 'classes have')} no image that is "
            f"{_mode(found.modes[usual])}: {names}{more}",
            "add such images, or the network learns the kind of file rather than what it shows "
            "(train.py --grayscale takes colours out at random)",
        )


def _sized(found: Survey, numbers: Int64Array) -> Iterator[list]:  # type: ignore[type-arg]
    return ([found.item(int(n), f"{found.width[n]}x{found.height[n]}")] for n in numbers)


def _mode(name: str) -> str:
    return MODES.get(name, "16-bit gray" if name.startswith("I;16") else name)
