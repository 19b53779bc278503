"""Find the images of a folder tree, and read one: the only image reader of the project.

Training, comparing, embedding and searching all get their pixels from `read_image`, so that the
same file gives the same pixels everywhere. The decoder is chosen by the file's content: OpenCV for
plain 8-bit JPEG and PNG, Pillow for every other kind.
"""

import errno
import io
import os
import stat
import statistics
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deep_ranking.errors import InputError

UInt8Array = npt.NDArray[np.uint8]
Int32Array = npt.NDArray[np.int32]
Float64Array = npt.NDArray[np.float64]

# The blog's five, and what people's folders hold besides. Compared in lower case.
IMAGE_EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".bmp", ".png", ".ppm", ".gif", ".tif", ".tiff", ".webp")
)
# What Pillow may take a file for, whatever its name: no format that another program would run.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
# Pixels of the image between two points that are sampled: bilinear sampling averages 2, so up to
# here it leaves out little, and beyond it the image is shrunk first.
MAX_SAMPLING_STEP = 2.5
NUM_MEASURED = 200  # images that `fitting_size` looks at
MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 178_956_970  # Pillow's own limit, twice its `MAX_IMAGE_PIXELS`
ORIENTATION_TAG = 0x0112

# Output point -> source point, both in (x, y) with the image spanning [-1/2, 1/2] on each axis.
IDENTITY: Float64Array = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

# A broken file is reported once, by an `InputError`, and not by the decoder as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, eq=False)
class View:
    """A way to see an image.

    Attributes:
        affine: float (2, 3), where it is sampled; see `resample`.
        grayscale: whether its colours are taken out.
    """

    affine: Float64Array = field(default_factory=lambda: IDENTITY)
    grayscale: bool = False


PLAIN = View()


@dataclass(frozen=True)
class ImageListing:
    """The images of a folder tree, class by class, in sorted order.

    Attributes:
        root: the folder that was listed.
        paths: image paths relative to `root`, with "/" between folders; those of one class follow
            each other.
        labels: int32 (images,), not decreasing, an index into `classes`.
        classes: names of the folders directly below `root` that hold images, sorted.
        num_unlistable: files left out because a line break in their path would break a text file.
        num_outside: images directly in `root`, which belong to no class and are left out.
        num_seen_again: links to a folder of the same class, or to `root`, that was listed already.
    """

    root: Path
    paths: list[str]
    labels: Int32Array
    classes: list[str]
    num_unlistable: int = 0
    num_outside: int = 0
    num_seen_again: int = 0


def find_images(root: str | os.PathLike[str]) -> ImageListing:
    """List the images below each folder of `root`, by name alone: no image is opened.

    A class is a folder directly below `root`; its images may lie in folders of its own. Hidden
    files and folders are passed over, links are followed, and a folder already seen is not entered
    again, so that a cycle of links ends.

    Args:
        root: folder with one folder a class.

    Returns:
        An `ImageListing`; the same tree gives the same listing on every machine.

    Raises:
        InputError: `root` is no folder, or none of its folders holds an image.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a folder with one folder a class")
    paths: list[str] = []
    labels: list[int] = []
    classes: list[str] = []
    num_unlistable = num_seen_again = 0
    files, folders = _scan(root)
    num_outside = sum(map(is_image_name, files))
    for name in folders:
        visits = Counter([_identity(root)])  # a class that links to the root has not all classes
        found = [f"{name}/{path}" for path in _walk(root / name, visits) if is_image_name(path)]
        num_seen_again += visits.total() - len(visits)
        listable = sorted(path for path in found if _is_listable(path))
        num_unlistable += len(found) - len(listable)
        if listable:
            labels.extend([len(classes)] * len(listable))
            paths.extend(listable)
            classes.append(name)
    if not classes:
        where = "only directly in it" if num_outside else "none below it"
        raise InputError(
            f"{root}: no classes: expected one folder of images a class, found images {where}"
        )
    return ImageListing(
        root,
        paths,
        np.array(labels, np.int32),
        classes,
        num_unlistable,
        num_outside,
        num_seen_again,
    )


def list_images(root: str | os.PathLike[str]) -> tuple[list[str], int]:
    """List all images of a folder tree, those directly in it too; no image is opened.

    Hidden files and folders and links are taken as by `find_images`.

    Args:
        root: the folder.

    Returns:
        Sorted paths relative to `root`, and how many were left out for a line break in their name.

    Raises:
        InputError: `root` is no folder, or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a folder of images")
    found = [path for path in _walk(root, Counter()) if is_image_name(path)]
    paths = sorted(path for path in found if _is_listable(path))
    if not paths:
        endings = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise InputError(f"{root}: no image in it; looked for files that end in {endings}")
    return paths, len(found) - len(paths)


def class_of(path: str) -> str:
    """Give the class of an image by its path relative to the root: its first folder, or ""."""
    return path.split("/", 1)[0] if "/" in path else ""


def _is_listable(path: str) -> bool:
    return "\n" not in path and "\r" not in path


def is_image_name(path: str) -> bool:
    """Whether a file's extension, in any letter case, is one of `IMAGE_EXTENSIONS`."""
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders directly in `folder`, sorted, hidden ones left out."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if _is_folder(entry) else files).append(entry.name)
    return sorted(files), sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False  # a link that leads to itself leads nowhere, as a broken one


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _walk(folder: Path, visits: Counter[tuple[int, int]]) -> Iterator[str]:
    """Paths of all files below `folder`, relative to it; `visits` counts how often each is met."""
    identity = _identity(folder)
    visits[identity] += 1
    if visits[identity] > 1:
        return
    files, folders = _scan(folder)
    yield from files
    for name in folders:
        for path in _walk(folder / name, visits):
            yield f"{name}/{path}"


def fitting_size(paths: Sequence[str | os.PathLike[str]], largest: int) -> int:
    """Choose the size at which to look at images: no larger than most of them are.

    Args:
        paths: image files; broken ones do not count.
        largest: the result is no larger.

    Returns:
        A multiple of 32, 32 at least: the median of the shorter sides of some of the images,
        spread over all, rounded down.
    """
    sides = []
    for path in paths[:: max(1, len(paths) // NUM_MEASURED)]:
        try:
            with Image.open(path, formats=FORMATS) as header:
                sides.append(min(header.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    side = statistics.median(sides) if sides else largest
    return max(32, int(min(side, largest)) // 32 * 32)


def read_image(path: str | os.PathLike[str], size: int, view: View = PLAIN) -> UInt8Array:
    """Read an image file as a square of RGB pixels, the way every part of the project does.

    Orientation is applied, transparency laid on white, 16-bit, CMYK and palette images converted,
    and the first frame taken of an animation. The image is stretched to a square, antialiased.

    Args:
        path: an image file, of any format that OpenCV or Pillow reads, whatever its extension.
        size: side of the square in pixels, 1 or more.
        view: another way to see it than as it is, as augmentation draws them.

    Returns:
        uint8 (size, size, 3), RGB, 0 to 255.

    Raises:
        InputError: there is no such file, or it holds no whole image of a reasonable size.
    """
    pixels = resample(decode_image(path, size), size, view.affine)
    return _without_color(pixels) if view.grayscale else pixels


def _without_color(image: UInt8Array) -> UInt8Array:
    """Give all channels the brightness by ITU-R 601: 0.299 red, 0.587 green, 0.114 blue."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)


def decode_image(path: str | os.PathLike[str], size: int) -> UInt8Array:
    """Decode an image file to no more pixels than sampling it at `size` needs.

    Args:
        path: an image file.
        size: side in pixels at which `resample` is going to sample it.

    Returns:
        uint8 (height, width, 3), RGB; each side is the image's own or, if that is above 2.5 * size,
        2 * size: antialiased by then, and bilinear sampling does the rest.

    Raises:
        InputError: as `read_image`.
    """
    data = _read_file(Path(path))
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            pixels = _decode_opencv(data, header, size)
            if pixels is None:
                pixels = _decode_pillow(header)
            # Pillow decodes a whole PNG in search of EXIF data: ask only if there is any.
            has_exif = header.format != "PNG" or b"eXIf" in data
            orientation = header.getexif().get(ORIENTATION_TAG, 1) if has_exif else 1
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: image has more than {MAX_PIXELS:,} pixels; make it smaller first"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise InputError(f"{path}: not enough memory to decode this image") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that can be read") from None
    except Exception as error:  # Pillow's format plug-ins raise whatever a broken file led them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: broken image ({reason})") from None
    height, width = (
        2 * size if side > MAX_SAMPLING_STEP * size else side for side in pixels.shape[:2]
    )
    if (height, width) != pixels.shape[:2]:
        shape = (width, height)
        pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return _orient(pixels, orientation)


def resample(image: UInt8Array, size: int, transform: Float64Array = IDENTITY) -> UInt8Array:
    """Sample an image at a square of points: one bilinear affine, nearest pixel beyond the border.

    Args:
        image: uint8 (height, width, 3).
        size: side of the result in pixels.
        transform: float (2, 3), affine map from points of the result to points of the image, both
            (x, y) with the image spanning [-1/2, 1/2] on each axis. The identity is a plain resize.

    Returns:
        uint8 (size, size, 3).
    """
    # Pixel i of the result lies at (i + 1/2) / size - 1/2; point v of the image at pixel
    # (v + 1/2) * side - 1/2. Written out, as NumPy takes its time over 2 x 2 matrices.
    matrix = np.array(
        [
            [x * step, y * step, (move + 0.5) * side - 0.5 + (x + y) * step * (1 - size) / 2]
            for (x, y, move), side in zip(transform.tolist(), image.shape[1::-1], strict=True)
            for step in (side / size,)
        ]
    )
    # OpenCV samples four channels twice as fast as three, to the same values.
    sampled = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.cvtColor(sampled, cv2.COLOR_RGBA2RGB).astype(np.uint8, copy=False)


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            raise InputError(f"{path}: not a regular file; expected an image")
        if status.st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {status.st_size:,} bytes are more than an image should have")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None


def _decode_opencv(data: bytes, header: Image.Image, size: int) -> UInt8Array | None:
    """Decode plain 8-bit JPEG and PNG; None for what Pillow reads better, or explains better."""
    if header.mode not in ("RGB", "L"):
        return None
    flags = cv2.IMREAD_COLOR
    if header.format in ("JPEG", "MPO"):  # MPO: a phone's JPEG with further pictures behind it
        reduction = min(header.size) // (2 * size)
        for factor, reduced in (
            (8, cv2.IMREAD_REDUCED_COLOR_8),
            (4, cv2.IMREAD_REDUCED_COLOR_4),
            (2, cv2.IMREAD_REDUCED_COLOR_2),
        ):
            if reduction >= factor:
                flags = reduced
                break
    elif header.format == "PNG":
        bit_depth = data[24]
        plain = "transparency" not in header.info and not _is_animated(header)
        if bit_depth != 8 or not plain or not _is_whole_png(data):
            return None
    else:
        return None
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), int(flags) | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    if pixels is None:
        return None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _is_whole_png(data: bytes) -> bool:
    """Whether all checksums are right; OpenCV's PNG library would complain on standard error."""
    view, begin = memoryview(data), 8
    while begin + 12 <= len(data):
        end = begin + 12 + int.from_bytes(view[begin : begin + 4])
        if zlib.crc32(view[begin + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            return False
        if bytes(view[begin + 4 : begin + 8]) == b"IEND":
            return True
        begin = end
    return False


def _is_animated(header: Image.Image) -> bool:
    return bool(getattr(header, "is_animated", False))


def _decode_pillow(image: Image.Image) -> UInt8Array:
    image.load()
    if image.mode.startswith("I"):
        # Pillow scales a 16-bit PPM to 0 ... 65,535 in 32 bits; others of mode I are as they are.
        if image.mode == "I" and image.format != "PPM":
            raise InputError("32-bit pixels have no fixed range; convert the image to 8 or 16 bits")
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise InputError("float pixels have no fixed range; convert the image to 8 or 16 bits")
    if image.has_transparency_data:
        color = image.convert("RGBA")
        white = Image.new("RGBA", color.size, "white")
        white.alpha_composite(color)
        return np.array(white.convert("RGB"))
    return np.array(image.convert("RGB"))


def _orient(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Turn and mirror pixels upright; `orientation` is the EXIF value, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
