"""VGG16's convolutions in PyTorch, with Keras' ImageNet weights.

Images have the form that Keras' VGG16 expects: BGR, minus the means of ImageNet.
"""

import sys
from pathlib import Path

import h5py
import torch
from torch import nn

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each
BGR_MEANS = (103.939, 116.779, 123.68)
NUM_FEATURES = 512


def parts() -> dict[str, nn.Module]:
    """Return the convolutions by their Keras names, with what follows each, in their order."""
    found, channels_in = {}, 3
    for block, (channels, count) in enumerate(BLOCKS, start=1):
        for number in range(1, count + 1):
            part = nn.Sequential(nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU())
            if number == count:
                part.append(nn.MaxPool2d(2))
            found[f"block{block}_conv{number}"] = part
            channels_in = channels
    return found


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Return RGB pixels in [0, 255] as the weights expect them: BGR, minus the means."""
    return pixels.flip(1) - torch.tensor(BGR_MEANS).view(3, 1, 1)


def read_weights(network: dict[str, nn.Module], path: Path | None) -> None:
    """Set the convolutions from a Keras file of VGG16's weights, whatever its arrays are called."""
    if path is None:
        sys.exit("--weights: vgg16 needs a Keras .h5 file of its weights")
    try:
        with h5py.File(path) as file:
            for name, part in network.items():
                convolution, found = part[0], []
                file[name].visititems(lambda _, item, found=found: found.append(item))
                arrays = {item.ndim: item[()] for item in found if isinstance(item, h5py.Dataset)}
                kernel = torch.from_numpy(arrays[4]).permute(3, 2, 0, 1)  # HWIO -> OIHW
                bias = torch.from_numpy(arrays[1])
                if kernel.shape != convolution.weight.shape or bias.shape != convolution.bias.shape:
                    sys.exit(f"{path}: {name} has arrays of other shapes than VGG16's")
                with torch.no_grad():
                    convolution.weight.copy_(kernel)
                    convolution.bias.copy_(bias)
    except (OSError, KeyError) as error:
        sys.exit(f"{path}: expected a Keras .h5 file of VGG16's weights: {error}")
