"""A network that is built and trained at once, for what does not depend on the real one."""

import keras


def build_stub(config, *, seed=None):
    keras.utils.set_random_seed(seed)
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    x = keras.layers.AveragePooling2D(16, name="pooled")(image)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    x = keras.layers.Dense(config.embedding_size, name="embedding")(x)
    model = keras.Model(image, keras.layers.UnitNormalization(name="unit_embedding")(x))
    model.network_config = config
    model.backbone_layers = ["pooled"]
    return model


def build_thin_vgg16(*, include_top, weights, input_tensor):
    """Build VGG16 with a sixteenth of its filters. The layers keep their names."""
    assert not include_top and weights is None
    x = input_tensor
    for block, (filters, count) in enumerate([(4, 2), (8, 2), (16, 3), (32, 3), (32, 3)], start=1):
        for number in range(1, count + 1):
            name = f"block{block}_conv{number}"
            x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x, name="vgg16")
