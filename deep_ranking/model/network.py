"""NetworkConfig -> Keras model: the multi-scale network of deep ranking (Wang et al. 2014, fig. 3).

An image takes several paths: the backbone (VGG16, pooled, two dense layers), and shallow branches
that see it at a coarse scale (`branches`). Their outputs are normalised, concatenated, and mapped
to one embedding of unit length. Sizes and strides are the blog's by default. The config can choose
another backbone, other branches or none, no dense layers, and pooling of several blocks.
"""

from deep_ranking.model.keras_settings import default_settings

# isort: split

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
from keras import layers

from deep_ranking.config import HEAD, RANGES, NetworkConfig, find_backbone
from deep_ranking.files import InputError
from deep_ranking.files.hdf5 import child, open_hdf5, read_layer, read_text, weights_of
from deep_ranking.model.backbone import (
    build_backbone,
    last_feature_maps,
    layers_by_block,
    prepare_backbone,
    pretrained_arrays,
)
from deep_ranking.model.branches import branch_convolutions, branch_vectors
from deep_ranking.model.header import CONFIG_ATTRIBUTE
from deep_ranking.model.layout import layout_vector, set_layout_filters
from deep_ranking.model.pooling import generalised_mean


@default_settings()
def build_network(config: NetworkConfig, *, seed: int | None = None) -> keras.Model:
    """Build the network with its first weights.

    Args:
        config: sizes, and the source of the weights.
        seed: seed of the random weights; None for different ones each time. It sets Keras' global
            seed, the only one that the backbone's own initialisers use.

    Returns:
        Model from images, float32 (batch, size, size, 3), RGB in [0, 255], to embeddings, float32
        (batch, embedding_size) of unit length. Its attribute `network_config` is `config`,
        `backbone_layers` names the layers of the backbone, in the order of the data, and
        `copied_layers` those whose weights a model file gave.

    Example:
        >>> network = build_network(NetworkConfig(image_size=32, weights=None), seed=0)
        >>> network.output_shape
        (None, 4096)

    Raises:
        InputError: the pre-trained weights cannot be downloaded or read, or the backbone has fewer
            than `pooled_blocks` blocks.
    """
    spec = find_backbone(config.backbone)
    arrays = {}
    from_model = config.weights is not None and _is_model_file(config.weights)
    if config.weights is not None and not from_model:
        arrays = pretrained_arrays(spec, config.weights, config.seen_size)
        if config.normalisation == "backbone" and spec.pixels == "caffe":
            # Trained on B, G, R: flip the first kernel so that it reads R, G, B.
            kernel = next(iter(arrays.values()))[0]
            kernel[:] = kernel[:, :, ::-1].copy()
    if seed is not None:
        keras.utils.set_random_seed(seed)
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    unit = layers.Rescaling(1 / 255, name="unit_range")(image)
    pixels = _backbone_input(image, unit, config)
    backbone = build_backbone(spec, input_tensor=pixels)
    parts = [_convnet(backbone, config)]
    if config.layout:
        parts.insert(0, layout_vector(unit))
    if vectors := branch_vectors(unit, config.multiscale):
        parts.insert(0, _concatenate(vectors, name="shallow"))
    merged = _concatenate(parts, name="merged")
    linear = layers.Dense(config.embedding_size, name="embedding")(merged)
    unit_length = layers.UnitNormalization(name="unit_embedding")(linear)
    model = keras.Model(image, unit_length, name="deep_ranking")
    before = {layer.name for layer in keras.Model(image, pixels).layers}
    names = [layer.name for layer in backbone.layers if layer.name not in before]
    model, model.backbone_layers = prepare_backbone(model, names)
    model.network_config = config
    set_layout_filters(model)
    for name, values in arrays.items():
        model.get_layer(name).set_weights(values)
    model.copied_layers = _copy_weights(model, Path(str(config.weights))) if from_model else []
    return model


def _is_model_file(weights: str) -> bool:
    """Return whether `weights` is a model file of ours, instead of a weight file of a backbone."""
    if weights == "imagenet":
        return False
    with open_hdf5(Path(weights)) as file:
        return read_text(file, CONFIG_ATTRIBUTE) is not None


def _copy_weights(model: keras.Model, path: Path) -> list[str]:
    """Copy the weights of a model file to all layers that it has in the same shape; name them."""
    copied = []
    config = model.network_config
    with open_hdf5(path) as file:
        found = NetworkConfig.from_json(read_text(file, CONFIG_ATTRIBUTE) or "")
        for name in ("backbone", "normalisation"):
            if getattr(found, name) != getattr(config, name):
                raise InputError(
                    f"this model has {name} {getattr(found, name)}, but the one to train has "
                    f"{getattr(config, name)}; give --{name} {getattr(found, name)}"
                )
        groups = weights_of(file)
        for layer in model.layers:
            group = child(groups, layer.name)
            shapes = [weight.shape for weight in layer.weights]
            required = layer.name in model.backbone_layers
            if not shapes:
                continue
            try:
                if not isinstance(group, h5py.Group):
                    raise InputError(f"it has no layer {layer.name}; the file is incomplete")
                layer.set_weights(read_layer(group, shapes))
                copied.append(layer.name)
            except InputError:
                if required:
                    raise
    return copied


def _backbone_input(image: Any, unit: Any, config: NetworkConfig) -> Any:
    x = unit
    if config.normalisation == "backbone":
        scale, offset = RANGES[find_backbone(config.backbone).pixels]
        x = layers.Rescaling(list(scale), list(offset), name="backbone_range")(image)
    side = config.seen_size
    if side != config.image_size:
        x = layers.Resizing(side, side, interpolation="bilinear", name="enlarged")(x)
    return x


def _convnet(backbone: keras.Model, config: NetworkConfig) -> Any:
    maps = last_feature_maps(find_backbone(config.backbone), backbone, config.pooled_blocks)
    pooled = [
        vector
        for number, (block, features) in enumerate(maps)
        for vector in _pool(features, config.pooling, f"_{block}" if number else "")
    ]
    if len(pooled) > 1:  # one at a time, or the vector with the largest values would dominate
        pooled = [
            layers.UnitNormalization(name=f"unit_part_{number}")(vector)
            for number, vector in enumerate(pooled, start=1)
        ]
    x = _concatenate(pooled, name="all_pooled")
    for number in range(1, config.hidden_layers + 1):
        x = layers.Dense(config.hidden_size, activation="relu", name=f"hidden_{number}")(x)
        x = layers.Dropout(config.dropout, name=f"dropout_{number}")(x)
    x = layers.UnitNormalization(name="unit_convnet")(x)
    if config.hidden_layers == 0:
        x = layers.Dropout(config.dropout, name="dropout")(x)
    return x


def _pool(features: Any, pooling: str, suffix: str) -> list[Any]:
    """Pool a feature map (batch, height, width, channels) to one vector, or two."""
    if pooling == "gem":
        return [generalised_mean(features, suffix=suffix)]
    average = layers.GlobalAveragePooling2D(name=f"pooled{suffix}")
    maximum = layers.GlobalMaxPooling2D(name=f"max_pooled{suffix}")
    pools = {"average": [average], "max": [maximum], "average+max": [average, maximum]}
    return [pool(features) for pool in pools[pooling]]


def _concatenate(parts: list[Any], *, name: str) -> Any:
    return parts[0] if len(parts) == 1 else layers.Concatenate(name=name)(parts)


def set_trainable_from(
    model: keras.Model, first: str | None, *, with_branches: bool = True
) -> None:
    """Freeze the layers of the backbone before `first`; train all others.

    Where layers are frozen, so are all batch norms of the backbone: they keep their statistics.
    Those of small batches of a few classes differ, and spoil what pre-training learned.

    Args:
        model: a network of `build_network`.
        first: a layer of the backbone, or a block such as block4 or conv5; "head" to freeze the
            whole backbone, None to freeze nothing.
        with_branches: whether to train the shallow branches too.

    Raises:
        InputError: the backbone has no such layer or block.
    """
    names = model.backbone_layers
    blocks = backbone_blocks(model)
    starts = {block: names_of_block[0] for block, names_of_block in blocks.items()}
    starting = None if first is None else starts.get(first, first)
    if starting not in (None, *names, HEAD):
        raise InputError(
            f"the backbone {model.network_config.backbone} has no layer {first} to train from; "
            f"give one of its blocks ({', '.join(blocks)}), a layer of them, or {HEAD} for what "
            "follows them"
        )
    trains = first is None
    for name in names:
        trains = trains or name == starting
        layer = model.get_layer(name)
        is_norm = isinstance(layer, layers.BatchNormalization)
        layer.trainable = trains and not (is_norm and first is not None)
    for layer in branch_convolutions(model):
        layer.trainable = with_branches


def backbone_blocks(model: keras.Model) -> dict[str, list[str]]:
    """Return block -> names of its layers, in the order of the data.

    Args:
        model: a network of `build_network`.
    """
    spec = find_backbone(model.network_config.backbone)
    return layers_by_block(spec, model.backbone_layers)


@default_settings()
def split_at_frozen(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Split a network behind its frozen layers.

    Args:
        model: a network of `build_network`, after `set_trainable_from`.

    Returns:
        Two models that share its layers. The first maps images to a list of the outputs of frozen
        layers that trained ones read, each float (batch, ...). The second maps these to embeddings.
        An output that only joins others, of layers without common weights, is replaced by them.
    """
    trained: set[str] = set()  # trained layers, and all layers after one
    frontier: dict[int, Any] = {}
    for layer in model.layers[1:]:  # in topological order; the first is the image
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        frozen = [each for each in inputs if each._keras_history.operation.name not in trained]
        random = isinstance(layer, keras.layers.Dropout) and layer.rate > 0
        if layer.trainable_weights or random or len(frozen) < len(inputs):
            trained.add(layer.name)
            frontier |= {id(each): each for each in frozen}
    parts = [part for each in frontier.values() for part in _joined(model.input, each)]
    tensors = list({id(part): part for part in parts}.values())
    return keras.Model(model.input, tensors), keras.Model(tensors, model.output)


def _joined(image: Any, tensor: Any) -> list[Any]:
    """Return the tensors that `tensor` joins if they share no weights; otherwise itself."""
    layer = tensor._keras_history.operation
    if not isinstance(layer, layers.Concatenate) or len(weight_groups(image, layer.input)) == 1:
        return [tensor]
    return [part for each in layer.input for part in _joined(image, each)]


def merged_parts(model: keras.Model) -> list[Any]:
    """Return what the embedding layer reads: the vectors of the branches, and of the ConvNet last.

    Args:
        model: a network of `build_network`.

    Returns:
        Keras tensors (batch, features); for the paper's branches a single one.
    """

    def parts_of(tensor: Any, joins: Sequence[str]) -> list[Any]:
        layer = tensor._keras_history.operation
        if layer.name not in joins or not isinstance(layer, layers.Concatenate):
            return [tensor]
        return [part for each in layer.input for part in parts_of(each, joins)]

    return parts_of(model.get_layer("embedding").input, ("merged", "shallow"))


def weight_groups(image: Any, tensors: Sequence[Any]) -> list[list[int]]:
    """Group tensors of a network by the weights that they come from.

    Args:
        image: the network's input, a Keras tensor.
        tensors: Keras tensors that are computed from it.

    Returns:
        Groups of positions in `tensors`, in order. Tensors of different groups come from layers
        that share no weights.
    """
    groups: list[tuple[set[str], list[int]]] = []
    for position, tensor in enumerate(tensors):
        names = {layer.name for layer in keras.Model(image, tensor).layers if layer.weights}
        positions = [position]
        apart = []
        for group in groups:
            if names.isdisjoint(group[0]):
                apart.append(group)
            else:
                names, positions = names | group[0], positions + group[1]
        groups = [*apart, (names, positions)]
    return sorted(sorted(positions) for _, positions in groups)


@default_settings()
def untrained_backbone(
    config: NetworkConfig, weights: str | None, *, enlarged: bool = False
) -> keras.Model:
    """Return average-pooled features of a backbone without training: the baseline of a model.

    Args:
        config: the network of the model to compare with.
        weights: as in `NetworkConfig`.
        enlarged: whether the backbone sees images enlarged, as that network does.

    Returns:
        Model from images, float32 (batch, size, size, 3), RGB in [0, 255], to unit rows.

    Raises:
        InputError: the weights cannot be downloaded or read.
    """
    untrained = NetworkConfig(
        image_size=config.image_size,
        backbone=config.backbone,
        weights=weights,
        backbone_size=config.backbone_size if enlarged else None,
        hidden_layers=0,
        multiscale="none",
        embedding_size=1,
    )
    network = build_network(untrained, seed=0)
    pooled = network.get_layer("pooled").output
    return keras.Model(network.input, keras.layers.UnitNormalization(name="unit")(pooled))
