"""Pooling of feature maps to vectors."""

from deep_ranking.model import keras_settings  # noqa: F401 (checks the backend)

# isort: split

from typing import Any

from keras import layers

GEM_OFFSET = 1e-9


def generalised_mean(features: Any, *, prefix: str = "", suffix: str = "") -> Any:
    """Pool by the root of the mean square (GeM, Radenovic et al. 2018, eq. 3, with power 2).

    The power is 2 because stock Keras layers can express it: the sum over places of x times x / |x|
    is |x|. The factor between sum and mean is the same for all channels. Where a channel is 0
    everywhere, x / |x| is undefined and its gradient, compiled for a GPU, is NaN; hence the offset.

    Args:
        features: feature map (batch, height, width, channels).
        prefix: start of the names of the layers.
        suffix: end of these names.

    Returns:
        Vectors (batch, channels).
    """
    channels = features.shape[-1]
    places = layers.Reshape((-1, channels), name=f"{prefix}places{suffix}")(features)
    lifted = layers.Rescaling(1.0, GEM_OFFSET, name=f"{prefix}lifted_places{suffix}")(places)
    unit = layers.UnitNormalization(axis=1, name=f"{prefix}unit_places{suffix}")(lifted)
    product = layers.Multiply(name=f"{prefix}places_times_unit{suffix}")([places, unit])
    return layers.GlobalAveragePooling1D(name=f"{prefix}gem_pooled{suffix}")(product)
