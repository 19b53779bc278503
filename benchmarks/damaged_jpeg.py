"""How many damaged JPEG files are noticed, and how many good ones are refused, by ours and others.

Photographs are saved again, as sequential and as progressive JPEG, and their scan data are damaged
in several ways, with the end marker in place: bytes replaced by noise or zeros, lost, swapped, one
bit flipped. A damaged file is refused, or it passes: harmlessly, if its pixels differ from the good
ones by less than a level on average, or in silence. The same files go through Pillow, OpenCV and,
if pyvips is installed, libvips with fail_on=warning. The good files are the photographs themselves.

    python benchmarks/damaged_jpeg.py photos --images 50
"""

import argparse
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from deep_ranking import find_images
from deep_ranking.images import decode_bytes

Pixels = npt.NDArray[Any]
Decoder = Callable[[bytes], Pixels]
KINDS = ("noise of 64 bytes", "noise of 256", "zeros of 64", "zeros of 1,024", "bytes lost",
         "bytes swapped", "one bit flipped")  # fmt: skip
WHOLE = 1 << 16  # a size at which no image is shrunk
HARMLESS = 1.0  # mean difference of the pixels, of 255
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def damaged(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Return a JPEG with one kind of damage at a random place of its scan data."""
    first = data.index(START_OF_SCAN) + 14
    place = first + int(rng.uniform(0.2, 0.8) * (len(data) - first))
    content = bytearray(data)
    if kind.startswith("noise"):
        count = 64 if "64" in kind else 256
        content[place : place + count] = rng.bytes(count)
    elif kind.startswith("zeros"):
        count = 64 if "64" in kind else 1024
        content[place : place + count] = bytes(count)
    elif kind == "bytes lost":
        del content[place : place + (len(data) - place) // 2]
    elif kind == "bytes swapped":
        one, other = content[place : place + 400], content[place + 400 : place + 800]
        content[place : place + 800] = other + one
    else:
        content[place] ^= 1 << int(rng.integers(8))
    content = content[: len(data)]
    return bytes(content) if content.endswith(END_OF_IMAGE) else bytes(content) + END_OF_IMAGE


def decoders() -> dict[str, Decoder]:
    """Return the decoders to compare; each raises an error for a file that it refuses."""

    def pillow(data: bytes) -> Pixels:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    def opencv(data: bytes) -> Pixels:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise ValueError("refused")
        return pixels

    found: dict[str, Decoder] = {
        "ours": lambda data: decode_bytes(data, WHOLE, "photo"),
        "Pillow": pillow,
        "OpenCV": opencv,
    }
    try:
        import pyvips
    except (ImportError, OSError):
        print("pyvips is not installed: libvips is left out.")
        return found
    found["libvips, fail_on=warning"] = lambda data: pyvips.Image.new_from_buffer(
        data, "", fail_on="warning", access="sequential"
    ).numpy()
    return found


def verdict(decode: Decoder, data: bytes, good: Pixels) -> str:
    """Return whether a file is "refused", or passes "harmless" or in "silence"."""
    try:
        pixels = decode(data)
    except Exception:  # each library has errors of its own
        return "refused"
    same = pixels.shape == good.shape
    difference = np.abs(pixels.astype(np.int16) - good).mean() if same else np.inf
    return "harmless" if difference < HARMLESS else "silence"


def main() -> None:
    """Damage photographs, and print what each decoder does about them."""
    parser = argparse.ArgumentParser(description="Damaged JPEG files that decoders notice.")
    parser.add_argument("photos", type=Path, help="folder of JPEG photographs")
    parser.add_argument("--images", type=int, default=50, help="how many of them to damage")
    args = parser.parse_args()
    files = [each for each in find_images(args.photos).files() if each.lower().endswith(".jpg")]
    files = files[:: max(1, len(files) // args.images)][: args.images]
    compared = decoders()
    counts: Counter[tuple[str, str, str]] = Counter()  # what was done, decoder, verdict
    for number, file in enumerate(files):
        content = Path(file).read_bytes()
        with Image.open(file) as image:
            color = image.convert("RGB")
        for name, decode in compared.items():
            counts["good photographs", name, verdict(decode, content, np.asarray(color))] += 1
        for coding in ("sequential", "progressive"):
            stream = io.BytesIO()
            color.save(stream, "JPEG", quality=88, progressive=coding == "progressive")
            whole = stream.getvalue()
            goods = {name: decode(whole) for name, decode in compared.items()}
            for kind in KINDS:
                data = damaged(whole, kind, np.random.default_rng(number))
                for name, decode in compared.items():
                    found = verdict(decode, data, goods[name])
                    for row in (f"{coding}: {kind}", f"{coding}: all"):
                        counts[row, name, found] += 1
    print(f"{len(files)} photographs. Refused / passed harmlessly / passed in silence:")
    rows = dict.fromkeys(row for row, _, _ in counts)
    width = max(map(len, rows))
    print(" " * width, *(f"{name:>25}" for name in compared))
    for row in sorted(rows):
        cells = (
            "/".join(str(counts[row, name, each]) for each in ("refused", "harmless", "silence"))
            for name in compared
        )
        print(f"{row:{width}}", *(f"{cell:>25}" for cell in cells))


if __name__ == "__main__":
    main()
