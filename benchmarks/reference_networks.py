"""Networks that others search images with, in ONNX Runtime and with random weights: speed alone.

- MobileNetV3-small, average-pooled: the CNN of imagededup (`keras.applications`, exported as ours).
- The image tower of CLIP ViT-B/32 (Radford et al. 2021, "Learning Transferable Visual Models From
  Natural Language Supervision"): 87.8 million weights, written as an ONNX graph. GELU is the exact
  one; OpenAI's weights use an approximation, x * sigmoid(1.702 x).

Rows of random weights mean nothing; the time that they take is that of trained ones. Both networks
take images as ours do, RGB in [0, 255], and scale the pixels themselves.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deep_ranking.embedding.export import FORMATS

OPSET = 20  # the first with Gelu
IR_VERSION = 10
WEIGHT_SCALE = 0.02
PIXEL_MEANS, PIXEL_SCALES = (122.77, 116.75, 104.09), (68.50, 66.63, 70.32)  # CLIP's


class OnnxEngine:
    """A network in ONNX Runtime as an `Engine`: each processor computes batches of its own.

    That is twice as fast as all processors at one batch, with two of them: the threads of ONNX
    Runtime that wait for the next batch would take time from those that read images.

    Args:
        path: network from images, float32 (batch, size, size, 3), to rows, float32 (batch, dim).
        name: what to call it.
    """

    batch_size = 8
    num_threads = os.cpu_count() or 1
    key = "random weights"

    def __init__(self, path, name):
        import onnxruntime

        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        (image,), (rows,) = self._session.get_inputs(), self._session.get_outputs()
        self._input = image.name
        self.image_size, self.dimension = int(image.shape[1]), int(rows.shape[1])

    def embed(self, images):
        """Embed images, as `Engine` says."""
        return self._session.run(None, {self._input: images.astype(np.float32)})[0]


@dataclass(frozen=True)
class VisionTransformer:
    """The sizes of an image tower; by default those of CLIP ViT-B/32.

    Attributes:
        size: side in pixels of the images.
        patch: side in pixels of a patch.
        width: numbers of a token.
        num_blocks: blocks of attention and of two dense layers, the first four times as wide.
        num_heads: heads of the attention.
        dimension: numbers of a row.
    """

    size: int = 224
    patch: int = 32
    width: int = 768
    num_blocks: int = 12
    num_heads: int = 12
    dimension: int = 512

    @property
    def num_patches(self):
        """Patches of an image."""
        return (self.size // self.patch) ** 2

    def shapes(self):
        """Return the name and the shape of each array of weights."""
        width = self.width
        shapes = {
            "patches.kernel": (width, 3, self.patch, self.patch),
            "class_token": (1, 1, width),
            "positions": (self.num_patches + 1, width),
        }
        norms = ["first_norm", "last_norm"]
        for block in range(self.num_blocks):
            norms += [f"{block}.norm_1", f"{block}.norm_2"]
            for name, inputs, outputs in (
                ("attention", width, 3 * width),
                ("attended", width, width),
                ("hidden", width, 4 * width),
                ("output", 4 * width, width),
            ):
                shapes[f"{block}.{name}.kernel"] = (inputs, outputs)
                shapes[f"{block}.{name}.bias"] = (outputs,)
        for norm in norms:
            shapes |= {f"{norm}.scale": (width,), f"{norm}.bias": (width,)}
        return shapes | {"projection": (width, self.dimension)}


@dataclass
class Graph:
    """The nodes and the weights of an ONNX graph that is being written."""

    nodes: list = field(default_factory=list)
    weights: list = field(default_factory=list)

    def add(self, operation, *inputs, **attributes):
        """Append a node; return the name of its result, or the names of `num_results`."""
        from onnx import helper

        count = attributes.pop("num_results", 1)
        names = [f"{operation}_{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operation, inputs, names, **attributes))
        return names[0] if count == 1 else names

    def constant(self, name, values):
        """Store an array; return its name."""
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name


CLIP_B32 = VisionTransformer()


def write_vision_transformer(path, sizes=CLIP_B32, *, seed=0):
    """Write an image tower with random weights as an ONNX file."""
    import onnx
    from onnx import TensorProto, helper

    graph, rng = Graph(), np.random.default_rng(seed)
    for name, shape in sizes.shapes().items():
        values = WEIGHT_SCALE * rng.standard_normal(shape, np.float32)
        graph.constant(name, values + np.float32(name.endswith(".scale")))
    tokens = _tokens(graph, sizes)
    for block in range(sizes.num_blocks):
        normed = _norm(graph, tokens, f"{block}.norm_1")
        tokens = graph.add("Add", tokens, _attention(graph, normed, block, sizes))
        hidden = _dense(graph, _norm(graph, tokens, f"{block}.norm_2"), f"{block}.hidden")
        output = _dense(graph, graph.add("Gelu", hidden), f"{block}.output")
        tokens = graph.add("Add", tokens, output)
    first = graph.add("Gather", tokens, graph.constant("zero", np.array(0, np.int64)), axis=1)
    graph.add("MatMul", _norm(graph, first, "last_norm"), "projection")
    graph.nodes[-1].output[0] = "embedding"
    side = sizes.size
    network = helper.make_graph(
        graph.nodes,
        "vision_transformer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", side, side, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", sizes.dimension])],
        graph.weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(network, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _tokens(graph, sizes):
    """Add what turns images into tokens: (batch, 1 + patches, width), the class token first."""
    means = graph.constant("pixel_means", np.array(PIXEL_MEANS, np.float32))
    scales = graph.constant("pixel_scales", np.array(PIXEL_SCALES, np.float32))
    pixels = graph.add("Div", graph.add("Sub", "image", means), scales)
    pixels = graph.add("Transpose", pixels, perm=[0, 3, 1, 2])
    patches = graph.add("Conv", pixels, "patches.kernel", strides=[sizes.patch, sizes.patch])
    in_row = graph.constant("in_row", np.array([0, sizes.width, sizes.num_patches], np.int64))
    patches = graph.add("Transpose", graph.add("Reshape", patches, in_row), perm=[0, 2, 1])
    batch = graph.add("Shape", patches, start=0, end=1)
    ones = graph.constant("ones", np.array([1, 1], np.int64))
    expanded = graph.add("Expand", "class_token", graph.add("Concat", batch, ones, axis=0))
    tokens = graph.add("Concat", expanded, patches, axis=1)
    return _norm(graph, graph.add("Add", tokens, "positions"), "first_norm")


def _attention(graph, tokens, block, sizes):
    """Add the attention of a block; tokens (batch, tokens, width)."""
    width = sizes.width // sizes.num_heads
    split = graph.constant(
        f"{block}.heads", np.array([0, sizes.num_patches + 1, sizes.num_heads, width], np.int64)
    )
    joined = graph.constant(
        f"{block}.joined", np.array([0, sizes.num_patches + 1, sizes.width], np.int64)
    )
    scale = graph.constant(f"{block}.scale", np.array(width**-0.5, np.float32))
    parts = graph.add(
        "Split", _dense(graph, tokens, f"{block}.attention"), axis=2, num_outputs=3, num_results=3
    )
    query, key, value = (
        graph.add("Transpose", graph.add("Reshape", each, split), perm=perm)
        for each, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scores = graph.add("MatMul", graph.add("Mul", query, scale), key)
    found = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    found = graph.add("Reshape", graph.add("Transpose", found, perm=[0, 2, 1, 3]), joined)
    return _dense(graph, found, f"{block}.attended")


def _norm(graph, tokens, name):
    return graph.add("LayerNormalization", tokens, f"{name}.scale", f"{name}.bias", axis=-1)


def _dense(graph, tokens, name):
    return graph.add("Add", graph.add("MatMul", tokens, f"{name}.kernel"), f"{name}.bias")


def write_mobilenet(path, *, size=224):
    """Write MobileNetV3-small, average-pooled, with random weights as an ONNX file."""
    import keras

    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV3Small(
        input_shape=(size, size, 3), include_top=False, pooling="avg", weights=None
    )
    FORMATS["onnx"].write(network, Path(path), "{}")


def reference_engines(folder):
    """Return the engines of both networks, whose files are written to a folder."""
    mobilenet, transformer = folder / "mobilenet.onnx", folder / "transformer.onnx"
    write_mobilenet(mobilenet)
    write_vision_transformer(transformer)
    return [
        OnnxEngine(mobilenet, "MobileNetV3-small (imagededup's CNN), ONNX Runtime, random weights"),
        OnnxEngine(transformer, "CLIP ViT-B/32, ONNX Runtime, random weights"),
    ]
