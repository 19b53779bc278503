"""Whether training gets to its end, and what of the files and classes would make it learn worse."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deep_ranking.config import SamplingConfig, TrainConfig
from deep_ranking.datasets import hold_back_classes
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import counted
from deep_ranking.reports.doctor.drawing import make_drawing
from deep_ranking.reports.doctor.findings import FAILS, NOTE, WARNING, Finding, finding
from deep_ranking.reports.doctor.survey import Survey

IMBALANCE = 10  # times the images of the smallest class
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".bmp",),
    "PPM": (".ppm",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}


def check_files(found: Survey, config: TrainConfig) -> Iterator[Finding]:
    """Broken files, and files that are not what they seem."""
    yield from _broken(found, config)
    wrong = [
        number
        for number in np.flatnonzero(found.readable).tolist()
        if os.path.splitext(found.path(number))[1].lower()
        not in EXTENSIONS.get(found.formats[found.format[number]], ())
    ]
    if wrong:
        yield finding(
            "wrong_extension",
            NOTE,
            f"{counted(len(wrong), 'file')} of another format than the name says",
            "nothing here minds, as formats are told by content; rename them for other programs",
            ([found.item(n, f"is {found.formats[found.format[n]]}")] for n in wrong),
        )


def check_classes(
    found: Survey, config: TrainConfig, sampling: SamplingConfig
) -> Iterator[Finding]:
    """Too few classes or images of them, and classes of very different size."""
    trained = np.flatnonzero(found.where(trained=True))
    readable = trained[found.readable[trained]]
    if not len(readable):
        yield finding(
            "no_images",
            FAILS,
            f"none of {counted(len(trained), 'image')} can be read",
            "mend them; see what is said of the first ones",
        )
        return
    yield from _few_classes(found, readable, config, sampling)
    sizes = np.bincount(found.label[trained], minlength=len(found.classes))
    whole = np.bincount(found.label[readable], minlength=len(found.classes))
    names = np.array(found.classes, object)
    if len(lost := names[(sizes > 0) & (whole == 0)]):
        yield finding(
            "unreadable_classes",
            WARNING,
            f"{counted(len(lost), 'class', 'classes')} without an image that can be read: "
            f"{_names(lost)}",
            "mend the images, or delete the folders",
        )
    if len(single := np.flatnonzero(whole == 1)):
        yield finding(
            "classes_of_one",
            WARNING,
            f"{counted(len(single), 'class has', 'classes have')} one image only, which no other "
            f"is a positive of: {_names(names[single])}",
            "add images; as it is, they serve as negatives alone (triplet_sampler.py "
            "--min_images_per_class 2 leaves them out)",
            found.items(readable[np.isin(found.label[readable], single)]),
        )
    yield from _imbalance(found, whole, config)


def check_folders(found: Survey) -> Iterator[Finding]:
    """What listing the folders passed over."""
    for part in found.parts:
        listing, within = part.listing, f" in {part.name}" if part.name else ""
        if listing.num_outside:
            yield finding(
                "outside_classes",
                NOTE,
                f"{counted(listing.num_outside, 'image')} in no folder of a class{within}, left "
                "out",
                "move them into the folders of their classes",
            )
        if listing.num_unlistable:
            yield finding(
                "unlistable",
                NOTE,
                f"{counted(listing.num_unlistable, 'file')} left out{within}: a line break in the "
                "path",
                "rename them; a triplet file has a line for each triplet",
            )
        if listing.num_seen_again:
            yield finding(
                "links_seen_again",
                NOTE,
                f"{counted(listing.num_seen_again, 'link')} left out{within}: they lead to a "
                "folder that is listed already",
                "delete them, or link to another folder",
            )
    for root in dict.fromkeys(part.listing.root for part in found.parts):
        parts = [part for part in found.parts if part.listing.root == root]
        classes = {name for part in parts for name in part.listing.classes}
        if empty := [name for name in _folders(root) if name not in classes]:
            within = f" in {parts[0].name}" if parts[0].name else ""
            yield finding(
                "empty_folders",
                NOTE,
                f"{counted(len(empty), 'folder')} without images{within}: {_names(empty)}",
                "add images, or delete them; they are no classes",
            )


def _broken(found: Survey, config: TrainConfig) -> Iterator[Finding]:
    read_by_training = found.where(trained=True) | found.where(judged=True)
    for in_training in (True, False):
        numbers = [n for n in found.problems if read_by_training[n] == in_training]
        if not numbers:
            continue
        total = int((read_by_training == in_training).sum())
        what = f"{len(numbers):,} of {counted(total, 'image')} cannot be read"
        severity, suggestion = WARNING, "mend or delete them"
        if not in_training:
            what += ", in splits that training does not read"
        elif not config.skip_broken:
            severity = FAILS
            what += ", and training stops at the first"
            suggestion += ", or train with --skip_broken, which leaves them out"
        else:
            what += "; --skip_broken leaves them out"
        groups = ([found.item(number, found.problems[number])] for number in numbers)
        yield finding("broken", severity, what, suggestion, groups)


def _few_classes(
    found: Survey, readable: Int64Array, config: TrainConfig, sampling: SamplingConfig
) -> Iterator[Finding]:
    try:
        make_drawing(found, readable, config, sampling)
    except InputError as error:
        yield finding(
            "no_triplets",
            FAILS,
            f"there is nothing to learn from: {error}",
            "give two classes or more, each a folder of its own, with two images or more each",
        )
        return
    if config.validation_share is None:
        return
    try:  # where they are too few, none was held back by `find_parts`
        if not any(part.is_judged for part in found.parts):
            hold_back_classes(found.label[readable], config.validation_share, 0)
    except InputError as error:
        yield finding(
            "validation_share",
            FAILS,
            f"no classes can be held back: {error}",
            "add classes, or train without --validation_share",
        )


def _imbalance(found: Survey, sizes: Int64Array, config: TrainConfig) -> Iterator[Finding]:
    there = np.flatnonzero(sizes > 1)  # those of one image are said already
    if not len(there):
        return
    least, most = there[sizes[there].argmin()], there[sizes[there].argmax()]
    ratio = sizes[most] / sizes[least]
    if ratio < IMBALANCE:
        return
    median = int(np.median(sizes[there]))
    if config.batches == "classes":
        suggestion = "batches draw each class as often; add images to the small ones all the same"
    else:
        limit = max(2, min(3 * median, int(sizes[most]) // 2))
        suggestion = (
            "--balance draws equally many queries of each class; --max_images_per_class "
            f"{limit} takes that many at most; or add images to the small ones"
        )
    yield finding(
        "imbalance",
        WARNING,
        f"the largest class, {found.classes[most]}, has {ratio:.0f} times the images of the "
        f"smallest, {found.classes[least]}: {sizes[most]:,} and {sizes[least]:,}, median "
        f"{median:,}",
        suggestion,
    )


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:  # os.path.isdir, unlike is_dir, bears links in a circle
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and os.path.isdir(entry.path)
        )


def _names(names: "list[str] | np.ndarray[tuple[int], np.dtype[np.object_]]") -> str:
    """Write some names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:5])
    return shown + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
