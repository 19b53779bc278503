"""The file of a compiled model: a network for LiteRT, and how far it was checked.

It is a zip archive, not compressed:

model.tflite  the network: float32 (1, size, size, 3), RGB in [0, 255] -> float32 (1, dim)
header.json   the `CompiledHeader`
check.npy     the rows of `made_up_images`, as the machine that compiled it computed them

Nothing of a file is read before its digest is known to be the one that the model file names.
"""

import io
import json
import os
import platform
import zipfile
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

import numpy as np

from deep_ranking.files import InputError, atomic_path, open_regular
from deep_ranking.files.array_types import Float32Array, UInt8Array
from deep_ranking.files.content_digest import data_digest

FORMAT = 1
PACKAGE = "ai-edge-litert"
NETWORK, HEADER, CHECK = "model.tflite", "header.json", "check.npy"
MAX_BYTES = 2 << 30
SEED, NUM_MADE_UP = 0, 4
# By these, LiteRT chooses how it computes.
PROCESSOR_FLAGS = {
    "avx2", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8",
    "asimddp", "asimdhp", "i8mm", "sve",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompiledHeader:
    """What a compiled model says of itself.

    Attributes:
        fingerprint: of the model that was compiled.
        precision: "float32" or "int8".
        scheme: how it computes, in words.
        image_size: side in pixels of the images that it takes.
        dimension: floats an embedding.
        num_images: images on which it was compared with Keras, besides made-up ones.
        difference: largest distance of one of its rows from that of Keras, 0 to 2.
        cosine: mean cosine of its rows with those of Keras.
        recall: share of the nearest images by Keras that are nearest by it too; None if there were
            too few images to measure it.
        engine: version of LiteRT that it was checked with.
        processor: machine that it was checked on.
        format: version of the file's format.
    """

    fingerprint: str
    precision: str
    scheme: str
    image_size: int
    dimension: int
    num_images: int
    difference: float
    cosine: float
    recall: float | None
    engine: str
    processor: str
    format: int = FORMAT


@dataclass(frozen=True)
class CompiledModel:
    """A compiled model in memory.

    Attributes:
        header: what it says of itself.
        network: the network, for LiteRT.
        check: float32 (images, dim), its rows of `made_up_images`.
    """

    header: CompiledHeader
    network: bytes
    check: Float32Array


def made_up_images(size: int) -> UInt8Array:
    """Draw images of coarse to fine patches, the same ones every time.

    Noise of single pixels is no test: all of it looks grey to a network. The first image is black,
    where an embedding may be 0 before it is scaled to unit length.

    Returns:
        uint8 (4, size, size, 3), RGB.
    """
    rng = np.random.default_rng(SEED)
    images = np.zeros((NUM_MADE_UP, size, size, 3), np.uint8)
    for number, image in enumerate(images[1:], start=1):
        cells = min(4**number, size)  # along a side: 4, 16, 64
        places = np.arange(size) * cells // size
        image[:] = rng.integers(0, 256, (cells, cells, 3))[places][:, places]
    return images


def engine_version() -> str:
    """Return the version of LiteRT that is installed.

    Raises:
        PackageNotFoundError: it is not.
    """
    return version(PACKAGE)


def this_processor() -> str:
    """Return kind and relevant abilities of this machine's processor."""
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                flags = PROCESSOR_FLAGS & set(line.split(":")[1].split())
                break
    except (OSError, UnicodeDecodeError):  # not on Linux
        pass
    return " ".join([platform.system(), platform.machine(), *sorted(flags)])


def write_compiled(path: Path, compiled: CompiledModel) -> str:
    """Write a compiled model atomically; return the SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        InputError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, compiled.check)
    parts = {
        NETWORK: compiled.network,
        HEADER: json.dumps(asdict(compiled.header), indent=2).encode(),
        CHECK: buffer.getvalue(),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), part)  # without the time: same model, same file
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return data_digest(content.getvalue()).hex()


def read_compiled(path: str | os.PathLike[str], digest: str) -> CompiledModel:
    """Read a compiled model, if it is the file with this digest.

    Args:
        path: file of `write_compiled`.
        digest: the SHA-256 that the model file names, 64 hexadecimal digits.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is another file, or cannot be read; with the reason.
    """
    try:
        with open_regular(path, max_bytes=MAX_BYTES) as file:
            content = file.read(MAX_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if data_digest(content).hex() != digest:
        raise InputError(f"{path}: damaged, or not the file that its model names")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            values = json.loads(archive.read(HEADER))
            if values["format"] != FORMAT:
                raise InputError(f"{path}: of another version of deep ranking")
            header = CompiledHeader(
                **{each.name: values[each.name] for each in fields(CompiledHeader)}
            )
            check = np.load(io.BytesIO(archive.read(CHECK)), allow_pickle=False)
            return CompiledModel(header, archive.read(NETWORK), check)
    except InputError:
        raise
    except Exception as error:  # zipfile, json and NumPy raise errors of many types
        raise InputError(f"{path}: not a compiled model ({error})") from None
