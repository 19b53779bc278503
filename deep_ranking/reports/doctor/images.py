"""Checks of each image by itself: broken files, wrong extensions, odd sizes, odd colour modes."""

import errno
import os
from collections import Counter
from collections.abc import Iterator

import numpy as np

from deep_ranking.config import TrainConfig
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import counted
from deep_ranking.images.formats import EXTENSIONS
from deep_ranking.images.readers.raster import FIRST_BAND, FIRST_BANDS, ON_BLACK, STRETCHED
from deep_ranking.reports.doctor.findings import FAILS, Finding, Item, make_finding
from deep_ranking.reports.doctor.survey import Survey

NOT_ALLOWED = os.strerror(errno.EACCES)
SMALL = 0.5  # of the network's input: images with a shorter side are small
LONG = 4  # times the shorter side: images with a longer side are long
MOST = 0.95  # share of the images that must agree for the others to be odd

CONTAINERS = {"MPO": "JPEG", "DIB": "BMP"}  # formats that share the extensions of others
# What a reader decided about an image: the finding's name, and what to do.
DECISIONS = {
    STRETCHED: (
        "stretched_range",
        "look at them: the smallest of 8, 10, 12 and 14 bits that holds an image's values is its "
        "range; to fix one range for all, write it into the files (SMinSampleValue, "
        "SMaxSampleValue) or convert them to 8 bits",
    ),
    FIRST_BANDS: (
        "first_bands",
        "to choose other bands, convert the images to RGB",
    ),
    FIRST_BAND: ("first_bands", "to choose another band, convert the images to gray or RGB"),
    ON_BLACK: (
        "on_black",
        "on white, as other transparent images are shown, they would be blank; put all on one "
        "background if that tells classes",
    ),
}
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


def check_files(survey: Survey, config: TrainConfig) -> Iterator[Finding]:
    """Check for broken files, and for extensions that do not match the content."""
    yield from _broken(survey, config)
    wrong = [
        number
        for number in np.flatnonzero(survey.readable).tolist()
        if os.path.splitext(survey.path(number))[1].lower()
        not in EXTENSIONS.get(CONTAINERS.get(name := survey.format_of(number), name), ())
    ]
    if wrong:
        yield make_finding(
            "wrong_extension",
            f"{counted(len(wrong), 'file')} of another format than the name says",
            "harmless here, as the content decides the format; rename them for other programs",
            ([survey.item(number, f"is {survey.format_of(number)}")] for number in wrong),
        )


def _broken(survey: Survey, config: TrainConfig) -> Iterator[Finding]:
    read_by_training = survey.is_trained | survey.is_judged
    for in_training in (True, False):
        numbers = [n for n in survey.problems if read_by_training[n] == in_training]
        if not numbers:
            continue
        total = int((read_by_training == in_training).sum())
        what = f"{len(numbers):,} of {counted(total, 'image')} cannot be read"
        closed = sum(NOT_ALLOWED in survey.problems[number] for number in numbers)
        severity, suggestion = None, "mend them, or take them out of the folder"
        if closed:
            suggestion = f"allow reading {closed:,} of them, mend the others"
        if not in_training:
            what += ", in splits that training does not read"
        elif not config.skip_broken:
            severity = FAILS
            what += ", and training stops at the first"
            suggestion += ", or train with --skip_broken, which leaves them out"
        else:
            what += "; --skip_broken leaves them out"
        groups = ([survey.item(number, survey.problems[number])] for number in numbers)
        yield make_finding("broken", what, suggestion, groups, severity=severity)


def check_sizes(survey: Survey, image_size: int) -> Iterator[Finding]:
    """Check for images that are small for a network's input, long, or of a size that few have.

    The input is a square of `image_size` pixels a side.
    """
    readable = np.flatnonzero(survey.readable)
    if not len(readable):
        return
    width, height = survey.width[readable], survey.height[readable]
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    is_small = shorter < SMALL * image_size
    if len(small := readable[is_small]):
        fitting = max(32, int(np.median(shorter)) // 32 * 32)
        many = len(small) > len(readable) / 2
        yield make_finding(
            "small",
            f"{len(small):,} of {counted(len(readable), 'image')} shorter on a side than half of "
            f"the network's {image_size} pixels",
            f"--image_size {fitting} keeps all of their detail and takes less time"
            if many and fitting < image_size
            else "enlarged, they look blurred; find larger ones, or leave them out",
            _sized(survey, small[np.argsort(shorter[is_small], kind="stable")]),
        )
    ratio = longer / shorter
    if len(long := readable[ratio > LONG]):
        worst = long[np.argsort(-ratio[ratio > LONG], kind="stable")]
        yield make_finding(
            "long",
            f"{counted(len(long), 'image')} more than {LONG} times as long as wide, or as wide as "
            "long",
            "crop them: the network sees images stretched to a square, which distorts these",
            _sized(survey, worst),
        )
    sizes = width.astype(np.int64) << 32 | height
    each, numbers, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    usual = counts.argmax()
    if len(each) > 1 and counts[usual] >= MOST * len(readable):
        odd = readable[numbers != usual]
        size = f"{each[usual] >> 32}x{each[usual] & 0xFFFFFFFF}"
        yield make_finding(
            "odd_size",
            f"{counted(len(odd), 'image is', 'images are')} of another size than {size}, which "
            "all others have",
            "look at them: images from another source may show something else",
            _sized(survey, odd),
        )


def check_colour_modes(survey: Survey) -> Iterator[Finding]:
    """Check for images of another colour mode than most, and for classes that differ by mode."""
    readable = np.flatnonzero(survey.readable)
    counts = np.bincount(survey.mode[readable], minlength=len(survey.modes))
    if (counts > 0).sum() < 2:
        return
    names = [
        MODES.get(mode, "16-bit gray" if mode.startswith("I;16") else mode) for mode in survey.modes
    ]
    usual = int(counts.argmax())
    odd = readable[survey.mode[readable] != usual]
    tally = Counter(names[mode] for mode in survey.mode[odd].tolist())
    yield make_finding(
        "colour_modes",
        f"{counted(len(odd), 'image is', 'images are')} not {names[usual]} as the others: "
        + ", ".join(f"{count:,} {name}" for name, count in tally.most_common()),
        "training goes on: all are read as RGB, transparency on white; check that the colours are "
        "right",
        ([survey.item(int(number), names[survey.mode[number]])] for number in odd),
    )
    trained = survey.is_trained & survey.readable
    sizes = survey.class_sizes(trained)
    others = survey.class_sizes(trained & (survey.mode != usual))
    if len(apart := np.flatnonzero((sizes > 1) & (others == sizes))):
        yield make_finding(
            "modes_tell_classes",
            f"{counted(len(apart), 'class has', 'classes have')} no image that is "
            f"{names[usual]}: {survey.class_names(apart)}",
            "add such images, or the network learns the kind of file rather than what it shows "
            "(train.py --grayscale takes colours out at random)",
        )


def check_decisions(survey: Survey) -> Iterator[Finding]:
    """Report what was decided about images that do not say how they are to be shown."""
    for note, (name, suggestion) in DECISIONS.items():
        numbers = [number for number, notes in survey.notes.items() if note in notes]
        if numbers:
            yield make_finding(
                name,
                f"{counted(len(numbers), 'image')} {note}",
                suggestion,
                ([survey.item(number)] for number in numbers),
            )


def _sized(survey: Survey, numbers: Int64Array) -> Iterator[list[Item]]:
    return (survey.sized_items([number]) for number in numbers)
