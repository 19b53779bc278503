"""What each precision of a compiled model finds, against Keras on the same queries.

A table of mAP@R and recall@1 on images of known classes, all of them searched among each other; the
difference to Keras with its 95 % bootstrap interval over queries; and the cosine of the rows with
those of Keras. The rows are kept in the cache folder, as by `evaluate`.
"""

from typing import NamedTuple

import numpy as np

from deep_ranking.datasets import read_folder, take_split
from deep_ranking.datasets.splits import TO_JUDGE
from deep_ranking.metrics import bootstrap_interval

NOT_MEASURED = "-"


class Judged(NamedTuple):
    """What a precision of a model finds: rows (images, dim), mAP@R and recall@1 of each query."""

    rows: np.ndarray
    map_at_r: np.ndarray
    recall: np.ndarray


def judge(model, data):
    """Evaluate a model on images of known classes.

    Args:
        model: a network or an `Embedder`.
        data: the images, from `read_folder`.
    """
    from deep_ranking.embedding.kept_rows import kept_embeddings
    from deep_ranking.reports.evaluating import evaluate
    from deep_ranking.reports.methods import MODEL

    per_query = evaluate(model, data).methods[MODEL].per_query
    with kept_embeddings(model, data.files()) as rows:
        return Judged(np.array(rows), per_query["map_at_r"], per_query["recall_at_1"])


def table_of_quality(judged):
    """Return the table of quality, in Markdown.

    Args:
        judged: for each model, what computes it, in words -> the `Judged`, Keras first.
    """
    headings = ["method", "mAP@R", "less Keras", "recall@1", "less Keras"]
    headings += ["mean cosine with Keras", "least"]
    lines = [headings, ["---"] * len(headings)]
    for name, found in judged.items():
        keras = next(iter(found.values()))
        for words, each in found.items():
            is_keras = each is keras
            cosines = (each.rows.astype(np.float64) * keras.rows).sum(axis=1)
            lines.append(
                [
                    f"{name}: {words}",
                    f"{np.nanmean(each.map_at_r):.4f}",
                    NOT_MEASURED if is_keras else difference(each.map_at_r, keras.map_at_r),
                    f"{np.nanmean(each.recall):.4f}",
                    NOT_MEASURED if is_keras else difference(each.recall, keras.recall),
                    NOT_MEASURED if is_keras else f"{cosines.mean():.4f}",
                    NOT_MEASURED if is_keras else f"{cosines.min():.4f}",
                ]
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def difference(values, of_keras):
    """Return the mean difference on the same queries, and its bootstrap interval."""
    found = bootstrap_interval(values - of_keras)
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def quality(opened, folder):
    """Return the table of quality of models on the classes of a folder.

    Args:
        opened: name -> a network, and precision -> an `Embedder` of the same model.
        folder: one folder for each class.
    """
    data = take_split(read_folder(folder), TO_JUDGE)
    judged = {
        name: {"Keras float32": judge(network, data)}
        | {f"LiteRT {each}": judge(one, data) for each, one in embedders.items()}
        for name, (network, embedders) in opened.items()
    }
    return f"{len(data):,} images of {folder}:\n\n{table_of_quality(judged)}"
