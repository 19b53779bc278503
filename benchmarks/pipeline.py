"""How fast images reach the network: this project against the blog's pipeline, in one run.

Both read the images of one triplet file in batches of 24 at 224 px. Each image gets its own random
flips, rotation by up to 30 degrees, zoom 0.2 on each axis and shear of 0.2 degrees; the nearest
pixel fills what lies beyond the border. The triplets are drawn from `--dataset`, a folder with one
folder for each class, or from smooth random pictures that this script makes: JPEG of about
300 x 200.

The blog's pipeline works in one thread. Pillow opens the image and resizes it to the square by its
nearest pixels; it becomes a float array; `scipy.ndimage.affine_transform` (order 1, mode "nearest")
warps each channel in turn; then come the flips and the factor 1/255. Ours is
`deep_ranking.triplet_dataset` with its defaults, on all cores; it returns values up to 255, because
the network scales them.

The blog's pipeline is faster here than the original wherever its algorithm is not the cost: the
affine matrix is multiplied out by hand, channels are laid out for SciPy's fastest path, flips are
views without a copy, and the batch is scaled at once. It is measured on parts of the same file,
whose triplets are in random order, so each part is like the whole. All files are read once before,
so none comes from the disk. Each repeat runs all rows of the table, and medians count. Processor
time is printed beside the speed, because other work on the machine affects it less.
"""

import argparse
import io
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

from deep_ranking import (
    Augmentation,
    InputError,
    __version__,
    read_folder,
    read_triplets,
    sample_triplets,
    write_triplets,
)
from deep_ranking.cli.library_messages import start_tensorflow

SIZE = 224
BATCH_SIZE = 24
TARGET_RATIO = 10
TARGET_SPEED = 1200

ROTATION = math.radians(30)
SHEAR = math.radians(0.2)
ZOOM = 0.2


def read_blog(paths, rng):
    """Yield batches of images, read and augmented by the blog's pipeline.

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
    """Apply one random affine map, channel by channel, and random flips.

    Args:
        image: float32 (224, 224, 3).
        result: where to write the result, of the same shape.
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


@dataclass(frozen=True)
class Speed:
    """How fast one run was.

    Attributes:
        images: images a second.
        milliseconds: processor time for each image, of all threads together.
    """

    images: float
    milliseconds: float


def measure(batches, repeat):
    """Return the `Speed` of making and reading the batches of `batches(repeat)`."""
    start, processor = time.perf_counter(), time.process_time()
    count = sum(len(images) for images in batches(repeat))
    processor = time.process_time() - processor
    return Speed(count / (time.perf_counter() - start), 1000 * processor / count)


def make_images(folder, count):
    """Write random JPEG files of about 300 x 200 in ten class folders: colors at four scales."""
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = int(rng.integers(240, 361)), int(rng.integers(160, 241))
        pixels = np.full((height, width, 3), 128.0)
        for cells, contrast in ((3, 60), (8, 30), (24, 15), (72, 8)):
            grid = rng.normal(0, contrast, (cells, cells, 3))
            pixels += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        path = folder / f"class_{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)


def write_random_triplets(folder, path, count):
    """Write `count` triplets of the images below `folder`, in random order, with a fixed seed."""
    listing = read_folder(folder)
    negatives = -(-count // len(listing.paths))
    blocks = sample_triplets(listing.items.codes, num_positives=1, num_negatives=negatives, seed=0)
    rows = np.random.default_rng(0).permutation(np.concatenate(list(blocks)))[:count]
    write_triplets(path, listing.paths, [rows])
    return listing


def describe(listing):
    """Return the number of images and their median sizes, in words."""
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
        description="Read and augment images with this project and with the blog's pipeline.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="folder with one folder of images for each class (default: random images)",
    )
    for flag, default, text in (
        ("--made_up_images", 400, "random images to make without --dataset"),
        ("--triplets", 2400, "triplets in a run of ours, three images each"),
        ("--blog_triplets", 80, "triplets in a run of the blog's"),
        ("--repeats", 5, "runs of each, in turn; the median counts"),
    ):
        parser.add_argument(flag, type=int, default=default, metavar="N", help=text)
    args = parser.parse_args()
    if min(args.triplets, args.blog_triplets, args.repeats) < 1 or args.made_up_images < 20:
        parser.error("expected counts of 1 or more, and 20 or more --made_up_images")
    return args


def compare(folder, triplet_path, blog_triplets, repeats):
    """Run all rows of the table in turn.

    Args:
        folder: the folder that the paths of the triplet file start from.
        triplet_path: triplet file.
        blog_triplets: number of its triplets that a run of the blog's pipeline reads.
        repeats: runs of each.

    Returns:
        A dictionary from names to the `Speed` of each run; the blog's is the last.
    """
    start_tensorflow()
    from deep_ranking import triplet_dataset

    triplets = read_triplets(triplet_path)
    files = [folder / triplets.paths[row] for row in triplets.rows.ravel()]
    length = 3 * blog_triplets
    parts = [files[begin : begin + length] for begin in range(0, len(files) - length + 1, length)]
    parts = parts or [files]

    def ours(augmentation, repeat):
        dataset = triplet_dataset(
            triplet_path,
            image_size=SIZE,
            batch_size=BATCH_SIZE,
            dataset_dir=folder,
            augmentation=augmentation,
            epoch=repeat,
        )
        return (images for images, _ in dataset)

    rows = {
        "ours, augmented": lambda repeat: ours(Augmentation(), repeat),
        "ours, not augmented": lambda repeat: ours(None, repeat),
        "the blog, augmented": lambda repeat: read_blog(
            parts[repeat % len(parts)], np.random.default_rng(repeat)
        ),
    }
    speeds = {name: [] for name in rows}
    for repeat in range(-1, repeats):
        for name, batches in rows.items():
            speed = measure(batches, max(repeat, 0))
            if repeat >= 0:  # before that, TensorFlow and caches warm up
                speeds[name].append(speed)
    return speeds


def main():
    """Measure and print."""
    args = parse_arguments()
    libraries = ("TensorFlow", "opencv-python-headless", "simplejpeg", "NumPy", "Pillow", "SciPy")
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{library} {version(library)}" for library in libraries)
        + f", deep_ranking {__version__}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        if hasattr(args, "dataset"):
            folder, origin = args.dataset, args.dataset.resolve().name
        else:
            folder, origin = Path(temporary) / "images", "Made up"
            make_images(folder, args.made_up_images)
        triplet_path = Path(temporary) / "triplets.txt"
        listing = write_random_triplets(folder, triplet_path, args.triplets)
        print(f"{origin}: {describe(listing)}; medians of {args.repeats} runs")
        print()
        speeds = compare(folder, triplet_path, args.blog_triplets, args.repeats)

    medians = {name: statistics.median(run.images for run in runs) for name, runs in speeds.items()}
    *_, blog = medians.values()
    print(f"{'':22}{'images/s':>10}{'slowest':>10}{'fastest':>10}{'CPU ms/image':>15}{'ratio':>8}")
    for name, runs in speeds.items():
        images = [run.images for run in runs]
        processor = statistics.median(run.milliseconds for run in runs)
        print(
            f"{name:22}{medians[name]:10,.0f}{min(images):10,.0f}{max(images):10,.0f}"
            f"{processor:15.2f}{medians[name] / blog:8.1f}"
        )
    print()
    ours = medians["ours, augmented"]
    met = ours / blog >= TARGET_RATIO and ours >= TARGET_SPEED
    print(
        f"Targets {'met' if met else 'MISSED'}: {ours / blog:.1f} times faster (target "
        f"{TARGET_RATIO}), {ours:,.0f} images a second (target {TARGET_SPEED:,}, on Caltech-101 "
        "with two cores)."
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
