import numpy as np
import pytest
import scipy.linalg
from sklearn.decomposition import PCA

from deep_ranking.files import InputError
from deep_ranking.model import whitening
from deep_ranking.model.whitening import principal_axes, whitening_axes

LABELS = np.repeat([7, 2, 9, 4, 30], [12, 30, 9, 25, 16])


def features_of(labels=LABELS, dim=6, seed=0):
    """Correlated features far from 0, of classes with means of their own, in mixed order."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 2, (labels.max() + 1, dim))
    noise = rng.normal(0, 1, (len(labels), dim)) @ rng.normal(0, 1, (dim, dim))
    order = rng.permutation(len(labels))
    return (5 + means[labels] + noise)[order], labels[order]


def covariances(features, labels):
    """Covariance of all rows and within classes, row by row."""
    total, within = np.zeros((2, features.shape[1], features.shape[1]))
    for row, label in zip(features, labels, strict=True):
        from_all = row - features.mean(axis=0)
        from_class = row - features[labels == label].mean(axis=0)
        total += np.outer(from_all, from_all) / len(features)
        within += np.outer(from_class, from_class) / len(features)
    return total, within


def assert_same_axes(kernel, expected, tolerance=1e-8):
    """Each column is the other's up to its sign, and all up to one scale."""
    kernel, expected = (each / np.linalg.norm(each) for each in (kernel, expected))
    np.testing.assert_allclose(np.abs((kernel * expected).sum(axis=0)), (expected**2).sum(axis=0))
    signs = np.sign((kernel * expected).sum(axis=0))
    np.testing.assert_allclose(kernel * signs, expected, atol=tolerance)


def make(name, features, labels, num_axes):
    if name == "pca":
        return principal_axes(features, num_axes)
    return whitening_axes(features, labels, num_axes)


BOTH = pytest.mark.parametrize("name", ["pca", "whitened"])


@pytest.mark.parametrize("num_axes", [1, 4, 6])
def test_principal_axes_as_scikit_learn(num_axes):
    features, _ = features_of()
    kernel, bias = principal_axes(features, num_axes)
    pca = PCA(num_axes).fit(features)
    assert_same_axes(kernel, pca.components_.T)
    expected = pca.transform(features)
    expected /= np.linalg.norm(expected, axis=1).mean()
    np.testing.assert_allclose(np.abs(features @ kernel + bias), np.abs(expected), atol=1e-9)


# Of 5 classes, 4 axes differ; without shrinkage, all others are alike.
@pytest.mark.parametrize(("shrinkage", "num_axes"), [(1e-9, 1), (1e-9, 4), (0.01, 6), (0.3, 6)])
def test_whitening_axes_solve_the_generalised_eigenproblem(monkeypatch, shrinkage, num_axes):
    monkeypatch.setattr(whitening, "SHRINKAGE", shrinkage)
    features, labels = features_of()
    kernel, _ = whitening_axes(features, labels, num_axes)
    total, within = covariances(features, labels)
    within += shrinkage * np.diag(within).mean() * np.eye(6)
    _, vectors = scipy.linalg.eigh(total, within)  # ascending; v' within v = 1
    assert_same_axes(kernel, vectors[:, ::-1][:, :num_axes])


def test_classes_are_round_after_whitening_and_axes_in_order(monkeypatch):
    monkeypatch.setattr(whitening, "SHRINKAGE", 1e-9)
    features, labels = features_of()
    _, before = covariances(features, labels)
    assert np.ptp(np.linalg.eigvalsh(before)) > 1
    kernel, bias = whitening_axes(features, labels, 5)
    total, within = covariances(features @ kernel + bias, labels)
    np.testing.assert_allclose(within / within[0, 0], np.eye(5), atol=1e-6)
    np.testing.assert_allclose(total, np.diag(np.diag(total)), atol=1e-9)
    variances = np.diag(total)
    assert (np.diff(variances) < 0).all()
    # Beyond one axis less than classes, nothing is left between them.
    assert variances[3] > 1.01 * within[0, 0]
    np.testing.assert_allclose(variances[4], within[0, 0], rtol=1e-6)


def test_shrinkage_keeps_axes_without_variance_from_being_blown_up():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 5)
    features = rng.normal(0, 1, (3, 4))[labels] + rng.normal(0, 1, (15, 4)) * [1, 1, 1, 1e-6]
    features[:, 3] = rng.normal(0, 1e-6, 15)
    kernel, _ = whitening_axes(features, labels, 4)
    # 1 over the root of the shrinkage times the mean variance is the most that it may gain.
    assert np.linalg.norm(kernel[3]) < 20 * np.linalg.norm(kernel[:3], axis=1).max()


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_mean_0_and_mean_length_1(name, dtype):
    features, labels = features_of()
    kernel, bias = make(name, features.astype(dtype), labels, 4)
    assert (kernel.shape, bias.shape) == ((6, 4), (4,))
    assert np.issubdtype(kernel.dtype, np.floating)
    results = features @ kernel + bias
    np.testing.assert_allclose(results.mean(axis=0), 0, atol=1e-5)
    lengths = [np.sqrt((row**2).sum()) for row in results]
    assert np.ptp(lengths) > 0.1
    assert np.mean(lengths) == pytest.approx(1, abs=1e-5)


@BOTH
def test_arguments_are_left_as_they_were(name):
    features, labels = features_of()
    before = features.copy(), labels.copy()
    make(name, features, labels, 3)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])


@BOTH
def test_more_axes_than_features(name):
    features, labels = features_of()
    with pytest.raises(InputError, match="images with 6 features have at most as many") as caught:
        make(name, features, labels, 7)
    assert "--embedding_size (now 7)" in str(caught.value)


@BOTH
def test_axes_beyond_what_few_images_span_are_orthogonal_ones(monkeypatch, name):
    monkeypatch.setattr(whitening, "SHRINKAGE", 1e6)  # whitening turns into a scale
    features, labels = (each[:4] for each in features_of())
    kernel, bias = make(name, features, labels, 6)
    np.testing.assert_allclose((features @ kernel + bias)[:, 3:], 0, atol=1e-6)
    gram = kernel.T @ kernel
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(6), atol=1e-5 * gram[0, 0])


def test_classes_of_one_image_whiten_nothing():
    features, _ = features_of()
    kernel, bias = whitening_axes(features, np.arange(len(features)), 3)
    expected, expected_bias = principal_axes(features, 3)
    np.testing.assert_allclose(kernel, expected, atol=1e-6)
    np.testing.assert_allclose(bias, expected_bias, atol=1e-5)


def test_a_class_of_one_image_among_others():
    features, labels = features_of(np.repeat([0, 1, 2], [10, 1, 12]))
    kernel, bias = whitening_axes(features, labels, 4)
    assert np.isfinite(kernel).all()
    assert np.isfinite(bias).all()


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_that_never_vary_are_left_out(name, dtype):
    features, labels = features_of()
    features[:, 2], features[:, 5] = 0, 3
    kernel, bias = make(name, features.astype(dtype), labels, 4)
    assert np.isfinite(kernel).all()
    assert np.isfinite(bias).all()
    without = make(name, np.delete(features, [2, 5], axis=1), labels, 4)[0]
    if name == "pca":  # the shrinkage goes by the mean variance, which they lower
        np.testing.assert_allclose(np.delete(kernel, [2, 5], axis=0), without, atol=1e-4)
    np.testing.assert_allclose(kernel[[2, 5]], 0, atol=1e-4)


@BOTH
@pytest.mark.parametrize("value", [0, 0.1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_all_alike_give_numbers(name, value, dtype):
    features = np.full((len(LABELS), 6), value, dtype)
    kernel, bias = make(name, features, LABELS, 3)
    assert np.isfinite(kernel).all()
    assert np.isfinite(bias).all()


@BOTH
def test_sign_does_not_depend_on_that_of_eigenvectors(name, monkeypatch):
    features, labels = features_of()
    expected = make(name, features, labels, 6)
    assert (expected[0][np.abs(expected[0]).argmax(axis=0), np.arange(6)] > 0).all()
    eigh = np.linalg.eigh
    for seed in range(5):
        rng = np.random.default_rng(seed)

        def turned(matrix, rng=rng):
            values, vectors = eigh(matrix)
            return values, vectors * rng.choice([-1, 1], len(values))

        monkeypatch.setattr(np.linalg, "eigh", turned)
        for one, other in zip(make(name, features, labels, 6), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)


def test_order_and_names_of_the_classes_do_not_matter():
    features, labels = features_of()
    kernel, bias = whitening_axes(features, labels, 4)
    order = np.random.default_rng(1).permutation(len(labels))
    again = whitening_axes(features[order], 100 - labels[order], 4)
    np.testing.assert_allclose(again[0], kernel, atol=1e-9)
    np.testing.assert_allclose(again[1], bias, atol=1e-8)
