"""The methods that an evaluation compares: the model, and features that need no training."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from deep_ranking.files.array_types import Float32Array
from deep_ranking.images.hand_made_features import BASELINES

if TYPE_CHECKING:
    import keras

    from deep_ranking.embedding.embedder import Embedder

MODEL = "model"
BACKBONE = "untrained backbone"

Method = Callable[[list[str]], AbstractContextManager[Float32Array]]


def embedders_of(
    model: "keras.Model | Embedder", weights: str | None, *, baselines: bool
) -> dict[str, Method]:
    """Return for each method a function from image paths to embeddings, open for a `with` block."""
    from deep_ranking.embedding.kept_rows import kept_baseline_features, kept_embeddings

    embedders: dict[str, Method] = {MODEL: partial(kept_embeddings, model)}
    if baselines:
        from deep_ranking.model.network import untrained_backbone

        config = model.network_config
        network = untrained_backbone(config, weights)
        embedders[BACKBONE] = partial(kept_embeddings, network)
        if config.seen_size != config.image_size:
            network = untrained_backbone(config, weights, enlarged=True)
            embedders[f"{BACKBONE}, {config.seen_size} px"] = partial(kept_embeddings, network)
        embedders |= {name: partial(kept_baseline_features, name) for name in BASELINES}
    return embedders
