"""PCA and whitening: first weights of the embedding layer from features of the training images.

Random first weights lose a part of what the backbone knows. The layer can start from the axes of
largest variance instead (`--embedding_start pca`), or from the axes along which the classes differ
(`--embedding_start whitened`).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import BoolArray, FloatArray
from deep_ranking.model.part_scales import branch_scales

# Add this share of the mean variance to every axis. Otherwise whitening blows up the axes that
# hardly vary within the training classes, which helps the nearest neighbours and ruins the order of
# the rest. Of 0.1 to 30, 3 to 5 did best on held-out classes of two data sets (35 and 100 classes).
SHRINKAGE = 4.0


def principal_axes(features: FloatArray, num_axes: int) -> tuple[FloatArray, FloatArray]:
    """Return kernel and bias that project features on the axes of largest variance (PCA).

    Args:
        features: float (images, dim).
        num_axes: number of axes.

    Returns:
        Float kernel (dim, num_axes) and bias (num_axes,). The projected features have mean 0 and a
        mean length of 1. Where the images span fewer axes, the last axes are arbitrary ones
        orthogonal to them: unseen images may still differ there.

    Raises:
        InputError: `num_axes` is larger than dim.
    """
    centred = features - features.mean(axis=0)
    return _scaled(_top_axes(centred, num_axes), features)


def whitening_axes(
    features: FloatArray, labels: npt.NDArray[np.integer], num_axes: int
) -> tuple[FloatArray, FloatArray]:
    """Return kernel and bias that project features on the axes along which classes differ most.

    Whitening makes all directions within a class vary alike. The axes of largest variance of the
    whitened features are then those that separate the classes best. These are the two steps of
    linear discriminant analysis (Fukunaga 1990, section 10.2), without its limit to one axis fewer
    than there are classes.

    Args:
        features: float (images, dim).
        labels: integers (images,).
        num_axes: number of axes.

    Returns:
        Kernel and bias as `principal_axes` returns them, the axis of largest variance first.

    Raises:
        InputError: `num_axes` is larger than dim.
    """
    classes, members = np.unique(labels, return_inverse=True)
    means = np.zeros((len(classes), features.shape[1]), features.dtype)
    np.add.at(means, members, features)
    means /= np.bincount(members)[:, None]
    within = features - means[members]
    covariance = within.T @ within / len(within)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, axes = np.linalg.eigh(covariance)
    # Variances are 0 where each class has one image, or all its images are alike.
    whitening = axes / np.sqrt(np.maximum(variances, 1e-8 * max(variances.max(), 1e-12)))
    centred = (features - features.mean(axis=0)) @ whitening
    return _scaled(whitening @ _top_axes(centred, num_axes), features)


def scaled_whitening_axes(
    parts: Sequence[FloatArray],
    labels: npt.NDArray[np.integer],
    num_axes: int,
    *,
    gallery: BoolArray | None = None,
) -> tuple[FloatArray, FloatArray, list[float]]:
    """Return kernel and bias of `whitening_axes` for branches scaled as suits the classes.

    Args:
        parts: the features of each branch, and those of the backbone last: float (images, dim).
        labels: integers (images,).
        num_axes: number of axes.
        gallery: bool (images,), images of another domain. They help to choose the scales, and are
            left out of the axes: fitted to their classes, these take queries of other classes to
            them. None for one domain.

    Returns:
        Kernel and bias for the joined parts, unscaled, and the scale of each branch
        (`branch_scales`). The kernel's rows of a branch with scale 0 are 0.

    Raises:
        InputError: `num_axes` is larger than the number of features with a scale above 0.
    """
    scales = [*branch_scales(parts, labels, shrinkage=SHRINKAGE, gallery=gallery), 1.0]
    if gallery is not None:
        parts, labels = [part[~gallery] for part in parts], labels[~gallery]
    used = [scale * part for scale, part in zip(scales, parts, strict=True) if scale]
    found, bias = whitening_axes(np.concatenate(used, axis=1), labels, num_axes)
    scale_of_row = np.repeat(scales, [part.shape[1] for part in parts])
    kernel = np.zeros((len(scale_of_row), num_axes), found.dtype)
    kernel[scale_of_row > 0] = found * scale_of_row[scale_of_row > 0, None]
    return kernel, bias, scales[:-1]


def _top_axes(centred: FloatArray, num_axes: int) -> FloatArray:
    """Return the axes of largest variance as columns (dim, num_axes)."""
    if num_axes > centred.shape[1]:
        raise InputError(
            f"images with {centred.shape[1]:,} features have at most as many axes; lower "
            f"--embedding_size (now {num_axes:,}) or choose --embedding_start random"
        )
    _, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    result: FloatArray = axes[:, ::-1][:, :num_axes]
    return result


def _scaled(kernel: FloatArray, features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return kernel and bias scaled so that projected features have mean 0 and mean length 1.

    An axis has no sign of its own: the largest entry of each column is made positive.
    """
    largest = np.abs(kernel).argmax(axis=0)
    kernel = kernel * np.sign(kernel[largest, np.arange(kernel.shape[1])])
    bias = -features.mean(axis=0) @ kernel
    length = np.linalg.norm(features @ kernel + bias, axis=1).mean()
    length = length if length > 0 else 1.0  # all images alike
    return kernel / length, bias / length
