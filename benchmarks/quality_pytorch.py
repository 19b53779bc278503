r"""What pytorch-metric-learning achieves in the same time, from the same images and weights.

The reference uses that library as its examples do: the convolutions of VGG16 with Keras' ImageNet
weights, or of EfficientNet-Lite0 with this project's (`efficientnet_lite_torch.py`), global average
pooling and a linear layer of 512; `MPerClassSampler` with 4 images of each
class; `TripletMarginLoss` with semihard triplets of `TripletMarginMiner`, or `MultiSimilarityLoss`
with its miner; Adam, 1e-4 for the new layer and 1e-5 for the convolutions from `--train_from` on;
random horizontal flips. Images are read at `--image_size` and enlarged to `--backbone_size`, as
the recipe `laptop` does. Training ends after `--minutes`, counted from the first image read. Then
the script embeds the images of `--judge`, classes that were not trained on. It writes their
embeddings for other programs, and evaluates them by the library's own `AccuracyCalculator` and by
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

`--train` and `--judge` take a folder of classes, or a CSV file of path and class whose paths start
from `--root`, such as the `trained.csv` and `judged.csv` that `quality.py judge --share` writes:

    .venv-quality/bin/python benchmarks/quality_pytorch.py --backbone efficientnet-lite0 \
        --train WORK/trained.csv --judge WORK/judged.csv --root DIR \
        --image_size 128 --backbone_size 224 --output embeddings.npz

`embeddings.npz` holds `embeddings`, float32 (images, 512), rows of length 1; `labels`, class names;
and `paths`, relative to the folder `--judge`, or to `--root`. The last line printed
is one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning import losses, miners, samplers
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import nn

# The project is not installed here. What is used of it needs NumPy, Pillow, scikit-learn and faiss.
sys.path.append(str(Path(__file__).resolve().parents[1]))
import efficientnet_lite_torch
import vgg16_torch
from listed_images import Listing, list_images, read_images

from deep_ranking.metrics.evaluation import EmbeddedImages, evaluate_embeddings

EMBEDDING_DIM = 512
IMAGES_PER_CLASS = 4
GAP = 0.2
NEW_LAYER_RATE = 1e-4
BACKBONE_RATE = 1e-5
EMBED_BATCH_SIZE = 96
SECONDS_BETWEEN_REPORTS = 15
STEPS_IN_LOSS = 50


@dataclass(frozen=True)
class Backbone:
    """A convolutional network with pre-trained weights.

    Attributes:
        parts: builds its parts, by name and in order.
        read_weights: sets the weights of the parts from a file; None for the default file.
        normalised: pixels in [0, 255] -> as the weights expect them.
        num_features: channels of its last feature map.
        train_from: names that `--train_from` takes, the default first.
    """

    parts: Callable[[], dict[str, nn.Module]]
    read_weights: Callable[[dict[str, nn.Module], Path | None], None]
    normalised: Callable[[torch.Tensor], torch.Tensor]
    num_features: int
    train_from: tuple[str, ...]


def backbone_of(module, train_from: tuple[str, ...]) -> Backbone:
    """Return the backbone that a module of this folder defines."""
    return Backbone(
        module.parts, module.read_weights, module.normalised, module.NUM_FEATURES, train_from
    )


BACKBONES = {
    "vgg16": backbone_of(vgg16_torch, ("block5_conv1", "block4_conv1")),
    "efficientnet-lite0": backbone_of(efficientnet_lite_torch, ("block6", "block5", "block7")),
}


class EmbeddingNetwork(nn.Module):
    """A backbone with its weights, global average pooling and a linear layer.

    Args:
        backbone: the backbone.
        weights: file of its weights; None for the default file.
        train_from: name of the first part that is trained.
        size: side in pixels that images are enlarged to; None for no enlargement.
    """

    def __init__(
        self, backbone: Backbone, weights: Path | None, train_from: str, size: int | None
    ) -> None:
        super().__init__()
        self.normalised, self.size = backbone.normalised, size
        parts = backbone.parts()
        backbone.read_weights(parts, weights)
        first = list(parts).index(train_from)
        self.frozen = nn.Sequential(*list(parts.values())[:first]).requires_grad_(False)
        self.trained = nn.Sequential(*list(parts.values())[first:])
        self.embedding = nn.Linear(backbone.num_features, EMBEDDING_DIM)
        self.to(memory_format=torch.channels_last)
        self.eval()  # batch normalisation keeps its pre-trained mean and variance

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled features of uint8 or float RGB images (images, 3, size, size)."""
        pixels = images.float()
        if self.size is not None:
            pixels = nn.functional.interpolate(pixels, (self.size, self.size), mode="bilinear")
        pixels = self.normalised(pixels).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            frozen = self.frozen(pixels)
        return self.trained(frozen).mean((2, 3))  # (images, features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (images, 512), not of length 1: losses and miners normalise them."""
        return self.embedding(self.features(images))


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
    found = evaluate_embeddings(EmbeddedImages(listing.paths, listing.labels, embeddings.numpy()))
    names = ("similarity_precision", "recall_at_1", "map_at_r")
    return {name: found.intervals[name].mean for name in names}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    required = {"type": Path, "required": True, "default": argparse.SUPPRESS}
    folder = "one folder of images for each class, or a CSV file of path and class"
    parser.add_argument("--train", **required, metavar="PATH", help=f"to train on: {folder}")
    parser.add_argument("--judge", **required, metavar="PATH", help=f"other classes: {folder}")
    optional = {"type": Path, "default": argparse.SUPPRESS}
    parser.add_argument("--root", **optional, metavar="DIR", help="where paths of CSV files start")
    parser.add_argument("--backbone", choices=BACKBONES, default="vgg16")
    files = "vgg16: Keras .h5; efficientnet-lite0: the package's .pth, found without this flag"
    parser.add_argument("--weights", **optional, metavar="FILE", help=files)
    parser.add_argument("--output", **required, metavar="FILE", help="embeddings to write, .npz")
    parser.add_argument("--image_size", type=int, default=64, help="side in pixels, 32 or more")
    parser.add_argument("--loss", choices=("triplet", "multi_similarity"), default="triplet")
    parser.add_argument(
        "--backbone_size",
        type=int,
        default=argparse.SUPPRESS,
        help="side in pixels to enlarge images to; without it, they keep --image_size",
    )
    firsts = "; ".join(f"{name}: {', '.join(each.train_from)}" for name, each in BACKBONES.items())
    parser.add_argument(
        "--train_from",
        default=argparse.SUPPRESS,
        help=f"first layers that are trained ({firsts}; the first is the default)",
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
    for name in ("steps", "root", "weights", "backbone_size", "train_from"):
        setattr(args, name, getattr(args, name, None))
    names = BACKBONES[args.backbone].train_from
    args.train_from = args.train_from or names[0]
    if args.train_from not in names:
        parser.error(f"--train_from: expected {' or '.join(names)}, got {args.train_from}")
    if args.backbone_size is not None and args.backbone_size <= args.image_size:
        parser.error(f"--backbone_size: expected more than --image_size, got {args.backbone_size}")
    if args.root and not (args.train.is_file() or args.judge.is_file()):
        parser.error("--root: acts only where --train or --judge is a CSV file")
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
    listing, judged = (list_images(path, args.root) for path in (args.train, args.judge))
    num_classes = len(set(listing.labels))
    if IMAGES_PER_CLASS * num_classes < args.batch_size:
        most = IMAGES_PER_CLASS * num_classes
        sys.exit(f"{args.train}: {num_classes} classes; give --batch_size {most} or less")
    network = EmbeddingNetwork(
        BACKBONES[args.backbone], args.weights, args.train_from, args.backbone_size
    )
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
