"""The formats of an export: how to write each, and how to open it in its own runtime.

In all formats the input has the name of the model's input, the output is `embedding`, and a batch
has any number of images. Each format carries notes, a JSON text on the network's input, the recipe
of its pixels (`pixel_recipe`) and the meaning of its distances: a SavedModel in
`assets.extra/deep_ranking.json`; an ONNX file in its metadata, under `deep_ranking`; a TensorFlow
Lite file in a zip after the model, the place for associated files there (`unzip m.tflite`).
"""

import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deep_ranking.files.array_types import Float32Array

if TYPE_CHECKING:
    import keras

OUTPUT = "embedding"
NOTES_KEY = "deep_ranking"
NOTES_FILE = "deep_ranking.json"
DEFAULT_TOLERANCE = 1e-4
INT8_TOLERANCE = 0.1  # of one number; their mean cosine is held to that of compiled models

Runtime = Callable[[Float32Array], Float32Array]
Images = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Format:
    """A format of an export.

    Attributes:
        suffix: end of the file's name; empty for a folder.
        modules: modules that the format needs and Deep Ranking itself does not.
        write: writes a model to a path, with the notes; image files calibrate int8.
        tolerance: largest difference that is allowed if nobody says another: between two numbers of
            the embeddings.
        load: opens a path in the format's runtime, given the name of the input.
        usage: Python code from `pixels` to `embeddings`, with {path} and {name} (of the input) to
            fill in.
    """

    suffix: str
    modules: tuple[str, ...]
    write: Callable[["keras.Model", Path, str, Images], None]
    load: Callable[[Path, str], Runtime]
    usage: str
    tolerance: float = DEFAULT_TOLERANCE


def write_savedmodel(model: "keras.Model", path: Path, notes: str, *_: object) -> None:
    """Write a model as a SavedModel, with notes on it in JSON."""
    # Not model.export: in Keras 3.15 it writes each weight twice.
    import tensorflow as tf

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    module.serve = tf.function(
        lambda image: {OUTPUT: model(image, training=False)}, input_signature=[_image_spec(model)]
    )
    tf.saved_model.save(module, path, signatures={"serving_default": module.serve})
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / NOTES_FILE).write_text(notes + "\n", encoding="utf-8")


def _load_savedmodel(path: Path, name: str) -> Runtime:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def run(images: Float32Array) -> Float32Array:
        # `loaded` must stay referenced, or its weights are freed.
        serve = loaded.signatures["serving_default"]
        return np.asarray(serve(**{name: tf.constant(images)})[OUTPUT])

    return run


def _write_onnx(model: "keras.Model", path: Path, notes: str, *_: object) -> None:
    """Convert the network with its weights as inputs, then store the values of these inputs.

    With the weights inside, each of some fifty steps of the conversion copies all of them: that
    took 106 s and 12.7 GB for the blog's network, and this takes 6 s and 2.3 GB. ONNX Runtime then
    does once what it would do with the weights at each start, such as transposing kernels, and
    writes the result.
    """
    import onnx
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    variables = model.trainable_variables + model.non_trainable_variables
    values = {f"weight_{number}": each.numpy() for number, each in enumerate(variables)}
    signature = [
        _image_spec(model),
        *(tf.TensorSpec(value.shape, value.dtype, name) for name, value in values.items()),
    ]
    count = len(model.trainable_variables)

    @tf.function(input_signature=signature)
    def embed(image: Any, *weights: Any) -> dict[str, Any]:
        output, _ = model.stateless_call(weights[:count], weights[count:], image, training=False)
        return {OUTPUT: output}

    for value, inside in embed.get_concrete_function().graph.captures:  # constants of layers
        values[inside.name] = value.numpy()
    converted, _ = tf2onnx.convert.from_function(
        embed, input_signature=signature, custom_op_handlers={"Erfc": (_convert_erfc, [])}
    )
    graph = converted.graph
    read = {name for node in graph.node for name in node.input}
    inputs = [each for each in graph.input if each.name not in values]
    graph.initializer.extend(
        onnx.numpy_helper.from_array(values[each.name], each.name)
        for each in graph.input
        if each.name in values and each.name in read
    )
    del graph.input[:]
    graph.input.extend(inputs)
    for each in (*graph.input, *graph.output):
        each.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(converted, {NOTES_KEY: notes})
    options = onnxruntime.SessionOptions()
    # Above the basic level, the result runs on machines like this one only.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(
        converted.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    folded = onnx.load(path)
    domains = {node.domain for node in folded.graph.node}
    used = [each for each in folded.opset_import if each.domain in domains]
    del folded.opset_import[:]
    folded.opset_import.extend(used)
    onnx.save(folded, path)


def _convert_erfc(context: Any, node: Any, name: str, _: list[str]) -> None:
    """Replace TensorFlow's Erfc, a part of GELU, by 1 - Erf: ONNX and tf2onnx do not have it.

    Where erfc is small, the difference rounds to multiples of 6e-8; GELU is then off by 1e-7.
    """
    from tf2onnx import utils

    dtype = utils.map_onnx_to_numpy_type(context.get_dtype(node.input[0]))
    context.remove_node(name)
    one = context.make_const(utils.make_name(name), np.ones((), dtype))
    erf = context.make_node("Erf", node.input, name=utils.make_name(name))
    context.make_node("Sub", [*one.output, *erf.output], outputs=node.output, name=name)


def _load_onnx(path: Path, name: str) -> Runtime:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {name: images})[0])


def _write_tflite(model: "keras.Model", path: Path, notes: str, *_: object) -> None:
    import tensorflow as tf

    from deep_ranking.embedding.export.litert_layers import with_litert_layers

    with tempfile.TemporaryDirectory() as folder:
        write_savedmodel(with_litert_layers(model), Path(folder), notes)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
    _append_notes(path, notes)


def _write_litert_int8(model: "keras.Model", path: Path, notes: str, images: Images) -> None:
    """Convert the network as `compile --precision int8` does: only if the mean cosine is .995."""
    from deep_ranking.embedding.compiled.compiling import checked_conversion, read_for_calibration

    pixels = read_for_calibration(images, int(model.input_shape[1]))
    _, content, _ = checked_conversion(path, model, "int8", pixels, lambda _: None, flag="--images")
    path.write_bytes(content)
    _append_notes(path, notes)


def _append_notes(path: Path, notes: str) -> None:
    with zipfile.ZipFile(path, "a") as behind:
        behind.writestr(NOTES_FILE, notes + "\n")


def _load_tflite(path: Path, name: str) -> Runtime:
    # Not tf.lite.Interpreter: TensorFlow deprecates it in favour of this one.
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    return lambda images: np.asarray(runner(**{name: images})[OUTPUT])


def _image_spec(model: "keras.Model") -> Any:
    import tensorflow as tf

    image = model.inputs[0]
    return tf.TensorSpec(image.shape, tf.float32, name=image.name)


LITERT_USAGE = (
    "from ai_edge_litert.interpreter import Interpreter; model = Interpreter({path}); "
    'embeddings = model.get_signature_runner()({name}=pixels)["embedding"]'
)
FORMATS = {
    "savedmodel": Format(
        "",
        (),
        write_savedmodel,
        _load_savedmodel,
        "import tensorflow as tf; model = tf.saved_model.load({path}); "
        'embeddings = model.signatures["serving_default"]({name}=tf.constant(pixels))["embedding"]',
    ),
    "onnx": Format(
        ".onnx",
        ("tf2onnx", "onnx", "onnxruntime"),
        _write_onnx,
        _load_onnx,
        "import onnxruntime; model = onnxruntime.InferenceSession({path}); "
        'embeddings = model.run(["embedding"], {{"{name}": pixels}})[0]',
    ),
    "tflite": Format(
        ".tflite",
        ("ai_edge_litert",),
        _write_tflite,
        _load_tflite,
        LITERT_USAGE,
    ),
    "litert-int8": Format(
        ".tflite",
        ("ai_edge_litert",),
        _write_litert_int8,
        _load_tflite,
        LITERT_USAGE,
        INT8_TOLERANCE,
    ),
}
