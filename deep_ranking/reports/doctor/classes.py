"""Checks of the classes: too few, too small, imbalanced, not unseen, likely mislabelled images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deep_ranking.config import SamplingConfig, TrainConfig
from deep_ranking.datasets import hold_back_classes
from deep_ranking.datasets.labels import near_equal_labels
from deep_ranking.files import InputError
from deep_ranking.files.array_types import Int64Array
from deep_ranking.files.words import counted, listed
from deep_ranking.metrics.evaluation import EmbeddedImages, check_finite_images
from deep_ranking.reports.doctor.estimate import make_sampler, planned_images
from deep_ranking.reports.doctor.findings import Finding, make_finding
from deep_ranking.reports.doctor.survey import Part, Survey
from deep_ranking.reports.page.label_errors import likely_mislabelled

IMBALANCE = 10  # times the images of the smallest class
MOST_OTHERS = 30  # images of a class, besides a suspect, that are always enough to judge it


def check_classes(
    survey: Survey, config: TrainConfig, sampling: SamplingConfig
) -> Iterator[Finding]:
    """Check for too few classes, too few images in a class, and classes of very different size."""
    readable = survey.is_trained & survey.readable
    if not readable.any():
        yield make_finding(
            "no_images",
            f"none of {counted(int(survey.is_trained.sum()), 'image')} can be read",
            "mend them; the finding about broken images gives the reasons",
        )
        return
    yield from _few_classes(survey, config, sampling)
    sizes = survey.class_sizes(readable)
    if len(lost := np.flatnonzero((survey.class_sizes(survey.is_trained) > 0) & (sizes == 0))):
        yield make_finding(
            "unreadable_classes",
            f"{counted(len(lost), 'class')} without an image that can be read: "
            f"{survey.class_names(lost)}",
            "mend the images, or delete the folders",
        )
    if len(single := np.flatnonzero(sizes == 1)):
        numbers = np.flatnonzero(readable & np.isin(survey.label, single))
        yield make_finding(
            "classes_of_one",
            f"{counted(len(single), 'class has', 'classes have')} only one image, which therefore "
            f"has no positive: {survey.class_names(single)}",
            "add images; as it is, they serve as negatives alone (triplet_sampler.py "
            "--min_images_per_class 2 leaves them out)",
            ([survey.item(number)] for number in numbers.tolist()),
        )
    yield from _imbalance(survey, sizes, config)


def _few_classes(
    survey: Survey, config: TrainConfig, sampling: SamplingConfig
) -> Iterator[Finding]:
    images = planned_images(survey)
    try:
        make_sampler(images.select(survey.readable[survey.is_trained]), config, sampling)
    except InputError as error:
        yield make_finding(
            "no_triplets",
            f"there is nothing to learn from: {error}",
            "give two classes or more, each a folder of its own, with two images or more each",
        )
        return
    if config.validation_share is None:
        return
    try:  # with too few classes, `find_parts` has held none back
        if not any(part.is_judged for part in survey.parts):
            readable = survey.label[survey.is_trained & survey.readable]
            hold_back_classes(readable, config.validation_share, 0)
    except InputError as error:
        yield make_finding(
            "validation_share",
            f"no classes can be held back: {error}",
            "add classes, or train without --validation_share",
        )


def _imbalance(survey: Survey, sizes: Int64Array, config: TrainConfig) -> Iterator[Finding]:
    classes = np.flatnonzero(sizes > 1)  # `classes_of_one` reports the others
    if not len(classes):
        return
    least, most = classes[sizes[classes].argmin()], classes[sizes[classes].argmax()]
    ratio = sizes[most] / sizes[least]
    if ratio < IMBALANCE:
        return
    median = int(np.median(sizes[classes]))
    if config.batches == "classes":
        suggestion = "batches draw each class as often; add images to the small ones all the same"
    else:
        limit = max(2, min(3 * median, int(sizes[most]) // 2))
        suggestion = (
            "--balance draws equally many queries of each class; --max_images_per_class "
            f"{limit} takes that many at most; or add images to the small ones"
        )
    yield make_finding(
        "imbalance",
        f"the largest class, {survey.classes[most]}, has {ratio:.0f} times the images of the "
        f"smallest, {survey.classes[least]}: {sizes[most]:,} and {sizes[least]:,}, median "
        f"{median:,}",
        suggestion,
    )


def check_shared_classes(survey: Survey) -> Iterator[Finding]:
    """Check that no class that should be unseen is trained on."""
    trained = {name for part in survey.parts if part.is_trained for name in part.classes}
    for part in survey.parts:
        shared = sorted(trained & set(part.classes)) if part.must_be_unseen else []
        if shared:
            yield make_finding(
                "shared_classes",
                f"{counted(len(shared), 'class')} of {part.name} also trained on: {listed(shared)}",
                "judge on classes that training never sees, or the figures say nothing of new ones",
            )


def check_names(survey: Survey) -> Iterator[Finding]:
    """Check for classes whose names are nearly equal, such as Cup and cup."""
    if groups := near_equal_labels(survey.classes):
        named = [" and ".join(map(repr, group)) for group in groups]
        yield make_finding(
            "near_equal_names",
            f"{counted(len(groups), 'group')} of classes with nearly equal names: {listed(named)}",
            "rename the folders if they are one class: as it is, their images are negatives of "
            "each other",
        )


def check_folders(survey: Survey) -> Iterator[Finding]:
    """Check for files that listing left out, and for folders without images."""
    first: dict[Path, Part] = {}  # of each folder; splits and held back classes share one
    for part in survey.parts:
        first.setdefault(part.images.root, part)
    for root, part in first.items():
        left_out, within = part.images.left_out, "" if root == survey.root else f" in {root}"
        for kind in left_out.kinds():
            remedy = kind.remedy or "nothing need be done"
            yield make_finding(kind.name, kind.what + within, remedy)


def check_labels(survey: Survey, model_path: Path) -> Iterator[Finding]:
    """Embed the images that are trained on, and check which fit another class better than theirs.

    The rule is that of the atlas of errors, in `metrics.label_noise`. Images of classes that are
    much smaller than the median one are no suspects: too little is known of these. The model file
    is one of train.py, best of a model that did not memorise these labels.

    Raises:
        InputError: the model cannot be loaded, an image is gone, or an embedding is not finite.
    """
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.embedding.embedder import Embedder

    numbers = np.flatnonzero(survey.is_trained & survey.readable).tolist()
    labels = survey.label[numbers]
    sizes = np.bincount(labels)
    if np.count_nonzero(sizes) < 2:
        return
    files, names = [str(survey.file(number)) for number in numbers], np.array(survey.classes)
    with embedded_images(Embedder(model_path), files) as embeddings:
        images = EmbeddedImages(files, names[labels], embeddings)
        check_finite_images(images)
        suspects = likely_mislabelled(
            embeddings, images.labels, limit=None, confirmed=survey.confirmed[numbers]
        )
    most = max(1, min(MOST_OTHERS, int(np.median(sizes[sizes > 0])) - 1))
    groups = [
        [
            survey.item(numbers[each.row], f"{each.label}: {each.evidence}"),
            survey.item(numbers[each.witness], f"{each.proposed}: the nearest such image"),
        ]
        for each in suspects
        if sizes[labels[each.row]] - 1 > most / 2
    ]
    if groups:
        yield make_finding(
            "mislabelled",
            f"{counted(len(groups), 'image')} likely mislabelled, as {model_path.name} sees it",
            "look at each beside its witness; correct it by --corrections, or move it to the class "
            "proposed, if that is right",
            groups,
        )
