"""The learned distance, folded into the head of the network: one dense layer, as before.

The head's rows get unit length, so distances between them are angles. Beside the old embedding h
and the learned columns y, the new one has a constant number: rows (h, y, constant) of unit length
lie so close together that their distances are those of (h, y), up to one factor. As many axes of
the largest variance are kept as the embedding has room for.
"""

import numpy as np

from deep_ranking.files.array_types import Float32Array
from deep_ranking.training.taught.features import Head

# Of the constant number, in units of the root mean square length of the rest. Without it, images
# that are usual in what was learned would all be alike; far larger, rounding would show.
CONSTANT = 1.5
# Unseen images differ along all features, also where those at hand are alike: a share of the mean
# variance of a feature.
UNSEEN_SHARE = 0.01


def joined_head(
    head: Head, learned: Float32Array, rows: Float32Array, *, of_old: float, of_learned: float
) -> Head:
    """Return a head, larger than the old one, whose distances are the old and the learned ones.

    Args:
        head: the old head, which reads the layout.
        learned: float32 (features, columns), the kernel whose squared distances were learned.
        rows: float32 (images, features).
        of_old: weight of the old head's squared distances, 0 or more.
        of_learned: weight of the learned ones.
    """
    kernel = np.concatenate(
        [np.sqrt(of_old) * head.kernel, np.sqrt(of_learned) * learned], axis=1
    ).astype(np.float32)
    return _with_constant(kernel, rows)


def compressed_head(head: Head, rows: Float32Array, size: int) -> Head:
    """Return a head of `joined_head` with another size: its axes of largest variance, or zeros.

    Args:
        head: the head; its last number is the constant.
        rows: float32 (images, features).
        size: length of an embedding.
    """
    kernel = head.kernel[:, :-1]
    if kernel.shape[1] >= size:
        columns = (rows - rows.mean(axis=0)) @ kernel
        covariance = (columns.T @ columns / len(columns)).astype(np.float64)
        covariance += UNSEEN_SHARE * float(rows.var(axis=0).mean()) * (kernel.T @ kernel)
        _, axes = np.linalg.eigh(covariance)  # of rising variance
        kernel = kernel @ axes[:, ::-1][:, : size - 1].astype(np.float32)
    zeros = np.zeros((len(kernel), size - 1 - kernel.shape[1]), np.float32)
    return _with_constant(np.concatenate([kernel, zeros], axis=1), rows)


def _with_constant(kernel: Float32Array, rows: Float32Array) -> Head:
    """Return a head that centres the images, and has the constant last."""
    bias = -rows.mean(axis=0) @ kernel
    lengths = np.sum((rows @ kernel + bias) ** 2, axis=1)
    constant = CONSTANT * np.sqrt(lengths.mean())
    zeros = np.zeros((len(kernel), 1), np.float32)
    return Head(
        np.concatenate([kernel, zeros], axis=1),
        np.append(bias, constant).astype(np.float32),
        has_layout=True,
    )
