r"""What pytorch-metric-learning achieves in the same time, from the same images and weights.

The reference uses that library as its examples do: VGG16's convolutions with Keras' ImageNet
weights, global average pooling and a linear layer of 512; `MPerClassSampler` with 4 images of each
class; `TripletMarginLoss` with semihard triplets of `TripletMarginMiner`, or `MultiSimilarityLoss`
with its miner; Adam, 1e-4 for the new layer and 1e-5 for the convolutions from `--train_from` on;
random horizontal flips. Images have the form that Keras' VGG16 expects: BGR, minus the means of
ImageNet. Training ends after `--minutes`, counted from the first image read. Then the script embeds
the images of `--judge`, classes that were not trained on. It writes their embeddings for other
programs, and evaluates them by the library's own `AccuracyCalculator` and by
`deep_ranking.metrics.evaluation`.

Some choices favour the reference without harm to the comparison: the time to start PyTorch and read
the weights does not count; images are decoded once and stay in memory as bytes at their final size;
the frozen layers keep nothing for gradients; convolutions run channels last, the faster order on a
CPU; no time goes into validation or checkpoints.

The script needs its own environment, without TensorFlow:

    python3 -m venv .venv-quality
    .venv-quality/bin/pip install -r benchmarks/requirements-quality.txt
    .venv-quality/bin/python benchmarks/quality_pytorch.py --train DIR --judge DIR \
        --weights vgg16_notop.h5 --loss multi_similarity --minutes 10 --output embeddings.npz

`embeddings.npz` holds `embeddings`, float32 (images, 512), rows of length 1; `labels`, class names;
and `paths`, relative to `--judge`. The last line printed is one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image, ImageOps
from pytorch_metric_learning import losses, miners, samplers
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import nn

# The project is not installed here. Only its metrics are used, which need NumPy and scikit-learn.
sys.path.append(str(Path(__file__).resolve().parents[1]))

EXTENSIONS = {".jpg", ".jpeg", ".bmp", ".png", ".ppm", ".gif", ".tif", ".tiff", ".webp"}
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each
BGR_MEANS = (103.939, 116.779, 123.68)
EMBEDDING_DIM = 512
IMAGES_PER_CLASS = 4
GAP = 0.2
NEW_LAYER_RATE = 1e-4
BACKBONE_RATE = 1e-5
EMBED_BATCH_SIZE = 96
SECONDS_BETWEEN_REPORTS = 15
STEPS_IN_LOSS = 50


@dataclass(frozen=True)
class Listing:
    """The images of a folder with one folder for each class, in sorted order.

    Attributes:
        root: the folder.
        paths: relative to it, with "/" between folders.
        labels: class name of each image.
    """

    root: Path
    paths: list[str]
    labels: np.ndarray


def list_images(root: Path) -> Listing:
    """Return the images of two or more class folders."""
    if not root.is_dir():
        sys.exit(f"{root}: no such folder; expected a folder with one folder for each class")
    paths = sorted(
        path.relative_to(root).as_posix()
        for folder in root.iterdir()
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
    )
    paths = [path for path in paths if not any(part.startswith(".") for part in path.split("/"))]
    labels = np.array([path.split("/")[0] for path in paths])
    if len(set(labels)) < 2:
        sys.exit(f"{root}: expected images in two class folders or more, got {len(set(labels))}")
    return Listing(root, paths, labels)


def read_images(listing: Listing, size: int) -> torch.Tensor:
    """Return all images, resized: uint8 (images, 3, size, size), RGB, channels last in memory."""
    pixels = np.empty((len(listing.paths), size, size, 3), np.uint8)
    for row, path in enumerate(listing.paths):
        try:
            with Image.open(listing.root / path) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
        except OSError as error:
            sys.exit(f"{listing.root / path}: cannot be read as an image: {error}")
        # Pillow's bilinear filter widens when it shrinks: it does not alias.
        pixels[row] = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class EmbeddingNetwork(nn.Module):
    """VGG16's convolutions, global average pooling and a linear layer.

    Args:
        train_from: name of the first convolution that is trained.
    """

    def __init__(self, train_from: str) -> None:
        super().__init__()
        self.convolutions = {}
        self.frozen, self.trained = nn.Sequential(), nn.Sequential()
        part, channels_in = self.frozen, 3
        for block, (channels, count) in enumerate(BLOCKS, start=1):
            for number in range(1, count + 1):
                name = f"block{block}_conv{number}"
                part = self.trained if name == train_from else part
                self.convolutions[name] = nn.Conv2d(channels_in, channels, 3, padding=1)
                part.extend([self.convolutions[name], nn.ReLU()])
                channels_in = channels
            part.append(nn.MaxPool2d(2))
        self.frozen.requires_grad_(False)
        self.embedding = nn.Linear(channels_in, EMBEDDING_DIM)
        self.register_buffer("means", torch.tensor(BGR_MEANS).view(3, 1, 1))
        self.to(memory_format=torch.channels_last)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled features of uint8 or float RGB images (images, 3, size, size)."""
        pixels = images.flip(1).float() - self.means
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            frozen = self.frozen(pixels)
        return self.trained(frozen).mean((2, 3))  # (images, 512)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (images, 512), not of length 1: losses and miners normalise them."""
        return self.embedding(self.features(images))


def read_weights(network: EmbeddingNetwork, path: Path) -> None:
    """Set the convolutions from a Keras file of VGG16's weights, whatever its arrays are called."""
    try:
        with h5py.File(path) as file:
            for name, convolution in network.convolutions.items():
                found = []
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


def make_loss(name: str) -> tuple[nn.Module, nn.Module]:
    """Return the library's loss and its miner."""
    if name == "triplet":
        miner = miners.TripletMarginMiner(margin=GAP, type_of_triplets="semihard")
        return losses.TripletMarginLoss(margin=GAP), miner
    return losses.MultiSimilarityLoss(), miners.MultiSimilarityMiner()


def draw_batches(labels: torch.Tensor, batch_size: int):
    """Yield batches of image numbers, 4 of each class, without end."""
    sampler = samplers.MPerClassSampler(
        labels, IMAGES_PER_CLASS, batch_size, max(batch_size, len(labels))
    )
    while True:
        yield from torch.utils.data.BatchSampler(sampler, batch_size, drop_last=True)


def flip_half(images: torch.Tensor) -> torch.Tensor:
    """Return the images, each flipped from left to right with a chance of one half."""
    flipped = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(flipped, images.flip(3), images)


def train(
    network: EmbeddingNetwork,
    listing: Listing,
    *,
    image_size: int,
    loss_name: str,
    batch_size: int,
    minutes: float,
    steps: int | None,
) -> dict[str, float]:
    """Read the images, and train until the time is over or for `steps`.

    Returns:
        The number of `steps`, the `seconds` of reading and training, and the mean `loss` of the
        last 50 steps.
    """
    start = time.perf_counter()
    images = read_images(listing, image_size)
    labels = torch.from_numpy(np.unique(listing.labels, return_inverse=True)[1])
    print(f"{len(images):,} images read in {time.perf_counter() - start:.1f} s", flush=True)
    loss_of, miner = make_loss(loss_name)
    optimizer = torch.optim.Adam(
        [
            {"params": network.embedding.parameters(), "lr": NEW_LAYER_RATE},
            {"params": network.trained.parameters(), "lr": BACKBONE_RATE},
        ]
    )
    recent = deque(maxlen=STEPS_IN_LOSS)
    batches = draw_batches(labels, batch_size)
    reported, step, ended = start, 0, False
    while not ended:
        rows = next(batches)
        embeddings = network(flip_half(images[rows]))
        loss = loss_of(embeddings, labels[rows], miner(embeddings, labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        recent.append(loss.item())
        now = time.perf_counter()
        ended = now - start >= 60 * minutes if steps is None else step >= steps
        if ended or now - reported >= SECONDS_BETWEEN_REPORTS:
            reported = now
            mean = statistics.fmean(recent)
            print(f"step {step:6,}  loss {mean:.4f}  {now - start:6.1f} s", flush=True)
    return {"steps": step, "seconds": round(now - start, 1), "loss": mean}


def embed(network: EmbeddingNetwork, images: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of images: float32 (images, 512), rows of length 1."""
    with torch.inference_mode():
        rows = [network(part) for part in images.split(EMBED_BATCH_SIZE)]
        return nn.functional.normalize(torch.cat(rows))


def judge_as_the_library(embeddings: torch.Tensor, labels: np.ndarray) -> dict[str, float]:
    """Return the figures of the library's accuracy calculator, each image against the others."""
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False), batch_size=1000),
    )
    numbers = np.unique(labels, return_inverse=True)[1]
    found = calculator.get_accuracy(embeddings, torch.from_numpy(numbers))
    return {
        "recall_at_1": found["precision_at_1"],
        "map_at_r": found["mean_average_precision_at_r"],
    }


def judge_as_the_project(embeddings: torch.Tensor, listing: Listing) -> dict[str, float]:
    """Return the figures of `deep_ranking.metrics.evaluation`, each image against the others."""
    from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings

    found = evaluate_embeddings(EmbeddedImages(listing.paths, listing.labels, embeddings.numpy()))
    names = ("similarity_precision", "recall_at_1", "map_at_r")
    return {name: found.intervals[name].mean for name in names}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    required = {"type": Path, "required": True, "default": argparse.SUPPRESS}
    folder = "one folder of images for each class"
    parser.add_argument("--train", **required, metavar="DIR", help=f"to train on: {folder}")
    parser.add_argument("--judge", **required, metavar="DIR", help=f"other classes: {folder}")
    parser.add_argument("--weights", **required, metavar="FILE", help="VGG16's weights, Keras .h5")
    parser.add_argument("--output", **required, metavar="FILE", help="embeddings to write, .npz")
    parser.add_argument("--image_size", type=int, default=64, help="side in pixels, 32 or more")
    parser.add_argument("--loss", choices=("triplet", "multi_similarity"), default="triplet")
    parser.add_argument(
        "--train_from",
        choices=("block5_conv1", "block4_conv1"),
        default="block5_conv1",
        help="first convolution that is trained",
    )
    parser.add_argument("--batch_size", type=int, default=96, help="a multiple of 4")
    parser.add_argument("--seed", type=int, default=0)
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--minutes", type=float, default=10.0, help="how long to read and train")
    end.add_argument(
        "--steps",
        type=int,
        default=argparse.SUPPRESS,
        help="train for so many steps instead",
    )
    args = parser.parse_args()
    args.steps = getattr(args, "steps", None)
    if args.image_size < 32:
        parser.error(f"--image_size: expected 32 or more, got {args.image_size}")
    if args.batch_size < 2 * IMAGES_PER_CLASS or args.batch_size % IMAGES_PER_CLASS:
        parser.error(f"--batch_size: expected 8, 12, 16 or so on, got {args.batch_size}")
    if not args.minutes > 0 or (args.steps is not None and args.steps < 1):
        parser.error("expected --minutes above 0, or --steps of 1 or more")
    if not 0 <= args.seed < 1 << 32:
        parser.error(f"--seed: expected 0 to {(1 << 32) - 1}, got {args.seed}")
    if not args.output.parent.is_dir():
        parser.error(f"--output: no folder {args.output.parent}")
    return args


def main() -> None:
    """Train, embed, write, evaluate and print."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # the library's sampler draws from NumPy's global generator
    listing, judged = list_images(args.train), list_images(args.judge)
    num_classes = len(set(listing.labels))
    if IMAGES_PER_CLASS * num_classes < args.batch_size:
        most = IMAGES_PER_CLASS * num_classes
        sys.exit(f"{args.train}: {num_classes} classes; give --batch_size {most} or less")
    network = EmbeddingNetwork(args.train_from)
    read_weights(network, args.weights)
    trained = train(
        network,
        listing,
        image_size=args.image_size,
        loss_name=args.loss,
        batch_size=args.batch_size,
        minutes=args.minutes,
        steps=args.steps,
    )
    embeddings = embed(network, read_images(judged, args.image_size))
    with args.output.open("wb") as file:
        np.savez(
            file, embeddings=embeddings.numpy(), labels=judged.labels, paths=np.array(judged.paths)
        )
    theirs = judge_as_the_library(embeddings, judged.labels)
    ours = judge_as_the_project(embeddings, judged)
    for judge, figures in (("the library", theirs), ("deep_ranking", ours)):
        print(f"by {judge}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    print(json.dumps(trained | ours | theirs))


if __name__ == "__main__":
    main()
