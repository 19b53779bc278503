"""First weights of the embedding layer, made from what it sees of the training images.

At random, this layer forgets a part of what the backbone knows. It can begin as the axes of largest
variance instead, or as those by which the classes of the training images differ.
"""

import numpy as np
import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.files.array_types import FloatArray

# Share of the mean variance that is added to every axis. Without it, axes that hardly vary within
# the training classes are blown up, which helps the nearest neighbours and ruins the order of the
# rest. Of 0.1 to 30, 3 to 5 did best on classes held back of two data sets (35 and 100 classes).
SHRINKAGE = 4.0


def principal_axes(features: FloatArray, num_axes: int) -> tuple[FloatArray, FloatArray]:
    """Kernel and bias that map features to their coordinates on the axes of largest variance.

    Args:
        features: float (images, dim).
        num_axes: number of axes.

    Returns:
        Float kernel (dim, num_axes) and bias (num_axes,); the results have mean 0 and a mean length
        of 1. Where the images span fewer axes than that, the last ones are any that are orthogonal
        to them: nothing is known of those, but images to come may differ there.

    Raises:
        InputError: there are fewer features than that.
    """
    centred = features - features.mean(axis=0)
    return _scaled(_top_axes(centred, num_axes), features)


def whitening_axes(
    features: FloatArray, labels: npt.NDArray[np.integer], num_axes: int
) -> tuple[FloatArray, FloatArray]:
    """Kernel and bias after which classes have variance 1 on every axis, ordered by the whole's.

    The whitening makes all directions within a class alike; of the result, the axes of largest
    variance are those on which classes differ most (the two steps of linear discriminant analysis,
    Fukunaga 1990, section 10.2, without its limit to one axis less than classes).

    Args:
        features: float (images, dim).
        labels: integers (images,).
        num_axes: number of axes.

    Returns:
        As `principal_axes`.

    Raises:
        InputError: there are fewer features than that.
    """
    classes, members = np.unique(labels, return_inverse=True)
    means = np.zeros((len(classes), features.shape[1]), features.dtype)
    np.add.at(means, members, features)
    means /= np.bincount(members)[:, None]
    within = features - means[members]
    covariance = within.T @ within / len(within)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, axes = np.linalg.eigh(covariance)
    # Nothing varies within classes where each has one image, or all its images are alike.
    whitening = axes / np.sqrt(np.maximum(variances, 1e-8 * max(variances.max(), 1e-12)))
    centred = (features - features.mean(axis=0)) @ whitening
    return _scaled(whitening @ _top_axes(centred, num_axes), features)


def _top_axes(centred: FloatArray, num_axes: int) -> FloatArray:
    """Axes of largest variance as columns (dim, num_axes)."""
    if num_axes > centred.shape[1]:
        raise InputError(
            f"images with {centred.shape[1]:,} features have at most as many axes; lower "
            f"--embedding_size (now {num_axes:,}) or choose --embedding_start random"
        )
    _, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    result: FloatArray = axes[:, ::-1][:, :num_axes]
    return result


def _scaled(kernel: FloatArray, features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Add the bias that centres, and scale so that results have a mean length of 1.

    Each column's largest entry is made positive, as an axis has no sign of its own.
    """
    largest = np.abs(kernel).argmax(axis=0)
    kernel = kernel * np.sign(kernel[largest, np.arange(kernel.shape[1])])
    bias = -features.mean(axis=0) @ kernel
    length = np.linalg.norm(features @ kernel + bias, axis=1).mean()
    length = length if length > 0 else 1.0  # all images alike
    return kernel / length, bias / length
