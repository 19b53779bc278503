"""How fast images reach the network: this project against the blog's pipeline, in one run.

Both read the images of one triplet file in batches of 24 at 224 px, each image with its own random
flips, rotation by up to 30 degrees, zoom 0.2 on each axis and shear of 0.2 degrees, nearest pixel
beyond the border. The triplets are drawn from `--dataset`, a folder with one folder a class, or
from pictures that this script makes up: JPEG of about 300 x 200, smooth and random.

The blog's pipeline works in one thread: Pillow opens the image and resizes it to the square by its
nearest pixels; it becomes a float array; `scipy.ndimage.affine_transform` (order 1, mode "nearest")
warps each channel in turn; then the flips and the factor 1/255. Ours is
`deep_ranking.triplet_dataset` with its defaults, on all cores; it gives values up to 255, as the
network does the scaling.

The blog's is made faster than the original where it is not the algorithm that costs: the affine
matrix is multiplied out by hand, channels are laid out for SciPy's quickest path, flips are views
that cost no copy, and the batch is scaled at once. It is measured on parts of the same file (rows in
random order, so that each part is like the whole). All files are read once beforehand, so that none
comes from the disk. Each repeat runs all rows of the table; what counts is the median.
"""

import argparse
import io
import math
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

# Before TensorFlow starts: its notes on start-up would stand in the table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import PIL
import scipy
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from deep_ranking import (
    Augmentation,
    __version__,
    find_images,
    read_triplets,
    sample_triplets,
    triplet_dataset,
    write_triplets,
)

SIZE = 224
BATCH_SIZE = 24
TARGET_RATIO = 10
TARGET_SPEED = 1200

ROTATION = math.radians(30)
SHEAR = math.radians(0.2)
ZOOM = 0.2


def read_blog(paths, rng):
    """Read and change images by the blog's pipeline, batch after batch.

    Args:
        paths: image files.
        rng: source of the random changes.

    Yields:
        float32 (rows, 224, 224, 3), 0 to 1.
    """
    for begin in range(0, len(paths), BATCH_SIZE):
        part = paths[begin : begin + BATCH_SIZE]
        batch = np.empty((len(part), SIZE, SIZE, 3), np.float32)
        for row, path in enumerate(part):
            with Image.open(path) as image:
                color = image if image.mode == "RGB" else image.convert("RGB")
                square = color.resize((SIZE, SIZE), Image.Resampling.NEAREST)
            change(np.asarray(square, np.float32), batch[row], rng)
        batch *= np.float32(1 / 255)
        yield batch


def change(image, result, rng):
    """Apply one random affine map, channel by channel, and flips.

    Args:
        image: float32 (224, 224, 3).
        result: where to write the outcome, of the same shape.
        rng: source of randomness.
    """
    angle = rng.uniform(-ROTATION, ROTATION)
    shear = rng.uniform(-SHEAR, SHEAR)
    zoom_y, zoom_x = rng.uniform(1 - ZOOM, 1 + ZOOM, 2)
    # Rotation, shear and zoom multiplied out, in (row, column); from the result to the image.
    matrix = np.array(
        [
            [zoom_y * math.cos(angle), -zoom_x * math.sin(angle + shear)],
            [zoom_y * math.sin(angle), zoom_x * math.cos(angle + shear)],
        ]
    )
    center = np.full(2, (SIZE - 1) / 2)
    offset = center - matrix @ center
    if rng.random() < 0.5:
        result = result[:, ::-1]
    if rng.random() < 0.5:
        result = result[::-1]
    for channel in range(3):
        plane = np.ascontiguousarray(image[:, :, channel])
        result[:, :, channel] = ndimage.affine_transform(
            plane, matrix, offset, order=1, mode="nearest"
        )


def measure_blog(paths, repeat):
    """Time the blog's pipeline: images a second."""
    rng = np.random.default_rng(repeat)
    start = time.perf_counter()
    count = sum(len(batch) for batch in read_blog(paths, rng))
    return count / (time.perf_counter() - start)


def measure_ours(triplet_path, folder, augmentation, epoch):
    """Time one epoch of this project's data set, from its making to its end: images a second."""
    start = time.perf_counter()
    dataset = triplet_dataset(
        triplet_path,
        image_size=SIZE,
        batch_size=BATCH_SIZE,
        dataset_dir=folder,
        augmentation=augmentation,
        epoch=epoch,
    )
    count = sum(len(images) for images, _ in dataset)
    return count / (time.perf_counter() - start)


def make_images(folder, count):
    """Make up JPEG files of about 300 x 200 in ten class folders: random colors at four scales."""
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = int(rng.integers(240, 361)), int(rng.integers(160, 241))
        pixels = np.full((height, width, 3), 128.0)
        for cells, contrast in ((3, 60), (8, 30), (24, 15), (72, 8)):
            grid = rng.normal(0, contrast, (cells, cells, 3))
            pixels += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        path = folder / f"class_{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=90)


def write_random_triplets(folder, path, count):
    """Write `count` triplets of the images below `folder`, in random order, by a fixed seed."""
    listing = find_images(folder)
    negatives = -(-count // len(listing.paths))
    blocks = sample_triplets(listing.labels, num_positives=1, num_negatives=negatives, seed=0)
    rows = np.random.default_rng(0).permutation(np.concatenate(list(blocks)))[:count]
    write_triplets(path, listing.paths, [rows])
    return listing


def describe(listing):
    """Say what is read: how many images of what size, in the middle."""
    sizes = []
    num_bytes = []
    for path in listing.paths:
        data = (listing.root / path).read_bytes()
        num_bytes.append(len(data))
        with Image.open(io.BytesIO(data)) as image:
            sizes.append(image.size)
    width, height = np.median(sizes, axis=0)
    return (
        f"{len(listing.paths):,} images, medians {width:.0f} x {height:.0f} px and "
        f"{np.median(num_bytes) / 1000:.1f} kB"
    )


def parse_arguments():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Read and augment images with this project and as the blog did, side by side.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="folder with one folder of images a class (default: images are made up)",
    )
    for flag, default, text in (
        ("--made_up_images", 400, "images to make up without --dataset"),
        ("--triplets", 800, "triplets a run of ours, three images each"),
        ("--blog_triplets", 80, "triplets a run of the blog's"),
        ("--repeats", 7, "runs of each, in turn; the median counts"),
    ):
        parser.add_argument(flag, type=int, default=default, metavar="N", help=text)
    args = parser.parse_args()
    if min(args.triplets, args.blog_triplets, args.repeats) < 1 or args.made_up_images < 20:
        parser.error("expected counts of 1 or more, and 20 images or more to make up")
    return args


def main():
    """Measure and print."""
    args = parse_arguments()
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, OpenCV {cv2.__version__}, NumPy {np.__version__}, "
        f"Pillow {PIL.__version__}, SciPy {scipy.__version__}, deep_ranking {__version__}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        if hasattr(args, "dataset"):
            folder = args.dataset
        else:
            folder = Path(temporary) / "images"
            folder.mkdir()
            make_images(folder, args.made_up_images)
        triplet_path = Path(temporary) / "triplets.txt"
        listing = write_random_triplets(folder, triplet_path, args.triplets)
        source = "given" if hasattr(args, "dataset") else "made up"
        print(f"{source}: {describe(listing)}; medians of {args.repeats}")
        print()
        speeds = measure(args, folder, triplet_path)

    middle = {name: statistics.median(values) for name, values in speeds.items()}
    blog = middle["the blog, augmented"]
    print(
        f"{SIZE} px, batches of {BATCH_SIZE:<8}{'images a second':>17}{'slowest':>9}"
        f"{'fastest':>9}{'ratio':>8}"
    )
    for name, values in speeds.items():
        print(
            f"{name:25}{middle[name]:17,.0f}{min(values):9,.0f}{max(values):9,.0f}"
            f"{middle[name] / blog:8.1f}"
        )
    print()
    ours = middle["ours, augmented"]
    met = ours / blog >= TARGET_RATIO and ours >= TARGET_SPEED
    print(
        f"Targets {'met' if met else 'MISSED'}: {ours / blog:.1f} times faster (target "
        f"{TARGET_RATIO}), {ours:,.0f} images a second (target {TARGET_SPEED:,} on Caltech-101)."
    )


def measure(args, folder, triplet_path):
    """Run everything in turn, `args.repeats` times; give images a second by name."""
    triplets = read_triplets(triplet_path)
    files = [folder / triplets.paths[row] for row in triplets.rows.ravel()]
    length = 3 * args.blog_triplets
    starts = range(0, max(1, len(files) - length + 1), length)
    speeds = {"ours, augmented": [], "ours, no augmentation": [], "the blog, augmented": []}
    measure_ours(triplet_path, folder, Augmentation(), 0)  # TensorFlow's start is no part of it
    measure_blog(files[:length], 0)
    for repeat in range(args.repeats):
        speeds["ours, augmented"].append(measure_ours(triplet_path, folder, Augmentation(), repeat))
        speeds["ours, no augmentation"].append(measure_ours(triplet_path, folder, None, repeat))
        begin = starts[repeat % len(starts)]
        speeds["the blog, augmented"].append(measure_blog(files[begin : begin + length], repeat))
    return speeds


if __name__ == "__main__":
    main()
