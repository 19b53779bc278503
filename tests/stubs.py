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
