"""First weights of the embedding layer, computed from training images: PCA or whitening."""

import keras
import numpy as np

from deep_ranking.config import TrainConfig
from deep_ranking.embedding.embed import embed_images, embedded_features
from deep_ranking.model.whitening import principal_axes, whitening_axes
from deep_ranking.training.batches import ClassSource, FeatureSource

# The first weights are computed from at most so many images.
MAX_START_IMAGES = 20_000


def start_embedding(
    config: TrainConfig,
    model: keras.Model,
    source: ClassSource | FeatureSource,
    frozen: keras.Model | None = None,
) -> None:
    """Set the first weights of the embedding layer, in the way that the config names.

    Args:
        config: the run's settings.
        model: the whole network.
        source: the batches to train on.
        frozen: with cached features, the layers that gave them.

    Raises:
        InputError: there are too few images or features for the length of the embedding.
    """
    rng = np.random.default_rng([config.seed, 5])
    usable = np.setdiff1d(np.arange(len(source.labels)), sorted(source.broken))
    chosen = np.sort(rng.permutation(usable)[:MAX_START_IMAGES])
    layer = model.get_layer("embedding")
    print(f"The embedding layer starts {config.embedding_start}, from {len(chosen):,} images.")
    if isinstance(source, FeatureSource) and frozen is not None:
        if any(each is layer.input for each in frozen.outputs):  # its input was cached
            features = source.features.read(chosen, 0 * chosen)[0].astype(np.float32)
        else:
            before = keras.Model(frozen.outputs, layer.input)
            with embedded_features(before, source.features) as rows:
                features = rows[chosen]
    elif isinstance(source, ClassSource):
        before = keras.Model(model.input, layer.input)
        paths = [source.paths[number] for number in chosen]
        features = embed_images(before, paths, skip_broken=config.skip_broken, progress=True)
        chosen, features = chosen[~np.isnan(features[:, 0])], features[~np.isnan(features[:, 0])]
    if config.embedding_start == "pca":
        kernel, bias = principal_axes(features, config.network.embedding_size)
    else:
        kernel, bias = whitening_axes(
            features, source.labels[chosen], config.network.embedding_size
        )
    layer.set_weights([kernel, bias])
