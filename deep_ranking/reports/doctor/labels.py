"""Images that a model takes for another class than their folder says: likely mislabels."""

from pathlib import Path

import numpy as np

from deep_ranking.files.words import counted
from deep_ranking.metrics import rank_gallery
from deep_ranking.reports.doctor.findings import WARNING, Finding, finding
from deep_ranking.reports.doctor.survey import Survey
from deep_ranking.reports.page import likely_mislabelled
from deep_ranking.reports.page.findings import NUM_NEIGHBOURS


def check_labels(found: Survey, model_path: Path) -> list[Finding]:
    """Embed the images that are trained on, and find those whose nearest are of another class.

    As many of the nearest are asked as a class of usual size has others, 30 at most; images of
    classes that are too small to win such a vote are no suspects.

    Args:
        found: the images.
        model_path: model file of train.py, best of one that did not learn these labels by heart.

    Raises:
        InputError: the model cannot be loaded, or an image went away.
    """
    from deep_ranking.embedding.embed import embedded_images
    from deep_ranking.model.file import load_model

    numbers = np.flatnonzero(found.where(trained=True) & found.readable)
    if len(numbers) < 2:
        return []
    model = load_model(model_path)
    with embedded_images(model, [str(found.file(n)) for n in numbers.tolist()]) as embeddings:
        near = [
            (ranking.order[:, : ranking.distances.shape[1]].astype(np.int64), ranking.distances)
            for ranking in rank_gallery(
                embeddings, embeddings, exclude=np.arange(len(numbers)), nearest=NUM_NEIGHBOURS
            )
        ]
    neighbours = np.concatenate([order for order, _ in near])
    distances = np.concatenate([each for _, each in near])
    labels = np.array(found.classes)[found.label[numbers]]
    sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    own = sizes[1][sizes[0]]  # images of each one's class
    most = max(1, min(NUM_NEIGHBOURS, int(np.median(sizes[1])) - 1))
    suspects = [
        each
        for each in likely_mislabelled(
            labels, neighbours[:, :most], distances[:, :most], limit=len(numbers)
        )
        if own[each.row] - 1 > most / 2
    ]
    if not suspects:
        return []
    return [
        finding(
            "mislabelled",
            WARNING,
            f"{counted(len(suspects), 'image')} likely mislabelled, as {model_path.name} sees it",
            "look at each beside its witness, and move it to the class proposed if that is right",
            (
                [
                    found.item(
                        int(numbers[each.row]), f"{each.label}: {each.share:.0%} {each.proposed}"
                    ),
                    found.item(int(numbers[each.witness]), f"{each.proposed}: nearest of it"),
                ]
                for each in suspects
            ),
        )
    ]
