"""Hostile model files: each a change of a small sound one, with what is due.

The sound file is laid out as `save_model` lays it out. A header is read from any arrays; where the
network is to be built, the file is written by `save_model` itself (`loaders`).
"""

import functools
import json
import marshal
import os
import pickle
import random
import struct
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

CONFIG, CALIBRATION = "deep_ranking_network", "deep_ranking_calibration"
WEIGHTS = "model_weights"
KERNEL = f"{WEIGHTS}/embedding/embedding/kernel"
CANARY = "canary"
MANY = 100_000
REFUSED, ACCEPTED, EITHER = "refused", "accepted", "either"


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Attributes:
        name: of the case.
        change: takes an open `h5py.File`, or with `raw` the path of a sound file, and spoils it.
        due: what a reader is to do; `EITHER` where both are right, but nothing else is.
        said: part of the reason that is due.
        raw: see `change`.
    """

    name: str
    change: object
    due: str = REFUSED
    said: str = ""
    raw: bool = False

    def make(self, sound: Path, path: Path) -> Path:
        """Write the hostile file."""
        path.write_bytes(sound.read_bytes())
        if self.raw:
            self.change(path)
        else:
            with h5py.File(path, "r+") as file:
                self.change(file)
        return path


class Payload:
    """What, unpickled, makes the canary file."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def pickled(canary):
    """Bytes that make the canary when they are unpickled."""
    return pickle.dumps(Payload(canary))


def lambda_code(canary):
    """Code of a function, as Keras keeps that of a Lambda layer, that makes the canary."""
    source = f"lambda x: __import__('os').mkdir({str(canary)!r}) or x"
    return marshal.dumps(eval(source).__code__)


def canary_of(path):
    """The canary's place, beside a hostile file."""
    return Path(path).parent / CANARY


# Code and pickles: of no use to a reader that runs nothing, so that the file may be accepted.


def with_lambda(file):
    import base64

    code = base64.b64encode(lambda_code(canary_of(file.filename))).decode()
    layer = {
        "class_name": "Lambda",
        "config": {"name": "x", "function": {"class_name": "__lambda__", "config": {"code": code}}},
    }
    file.attrs["model_config"] = json.dumps(
        {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}
    )


def with_module(file):
    Path(file.filename).with_name("hostile_module.py").write_text(
        f"import os; os.mkdir({str(canary_of(file.filename))!r})"
    )
    layer = {"module": "hostile_module", "class_name": "Evil", "registered_name": "Evil"}
    file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": layer})


def opaque_pickle(file):
    data = pickled(canary_of(file.filename))
    file.attrs["pickle"] = np.void(data)
    file[f"{WEIGHTS}/pickle"] = np.void(data)


def ragged_pickle(file):
    data = file.create_dataset(f"{WEIGHTS}/pickle", (1,), h5py.vlen_dtype(np.uint8))
    data[0] = np.frombuffer(pickled(canary_of(file.filename)), np.uint8)


def kernel_of_type(kind):
    def change(file):
        del file[KERNEL]
        space = h5py.h5s.create_simple((3, 4))
        h5py.h5d.create(file.id, KERNEL.encode(), kind, space)

    return change


def opaque(tag, size=8):
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, size)
    kind.set_tag(tag)
    return kind


def odd_float():
    kind = h5py.h5t.IEEE_F64LE.copy()
    kind.set_fields(63, 40, 23, 0, 40)
    return kind


def description_of_type(kind, data):
    def change(file):
        del file.attrs[CONFIG]
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        attribute = h5py.h5a.create(file.id, CONFIG.encode(), kind, space)
        attribute.write(np.frombuffer(data, np.dtype(f"V{len(data)}")), mtype=kind)

    return change


# Ways out of the file.


def replace_kernel(**options):
    def change(file):
        values = file[KERNEL][()]
        del file[KERNEL]
        if options.get("scaleoffset") is not None:
            values = np.zeros_like(values)
        file.create_dataset(KERNEL, data=values, **options)

    return change


def linked(name, link, *, remove=True):
    def change(file):
        if remove and name in file:
            del file[name]
        file[name] = link(file) if callable(link) else link

    return change


def other_file(file):
    path = file.filename + ".other"
    with h5py.File(path, "w") as other, h5py.File(file.filename + ".x", "w"):
        file.copy(file[WEIGHTS], other)
    return path


def external_link(file):
    path = other_file(file)
    del file[WEIGHTS]
    file[WEIGHTS] = h5py.ExternalLink(path, WEIGHTS)


def external_storage(file):
    values = file[KERNEL][()]
    raw = file.filename + ".raw"
    values.tofile(raw)
    del file[KERNEL]
    file.create_dataset(KERNEL, values.shape, "f4", external=[(raw, 0, values.nbytes)])


def virtual(file):
    values = file[KERNEL]
    layout = h5py.VirtualLayout(values.shape, np.float32)
    layout[:] = h5py.VirtualSource(other_file(file), KERNEL, values.shape)
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def virtual_of_itself(file):
    values = file[KERNEL]
    layout = h5py.VirtualLayout(values.shape, np.float32)
    layout[:] = h5py.VirtualSource(".", KERNEL, values.shape)
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def user_link(path):
    """Turn a soft link into one of a user's own type, 200, which no h5py writes."""
    with h5py.File(path, "r+", libver="latest") as file:
        file.create_group(f"{WEIGHTS}/later", track_order=True)["zz"] = h5py.SoftLink("/abcdefgh")
    data = path.read_bytes()
    place = data.rfind(b"/abcdefgh")
    begin = data.rfind(b"zz", 0, place)
    head = data[begin - 14 : begin]
    at = begin - 14 + head.rfind(b"\x01", 0, 10)
    path.write_bytes(data[:at] + bytes([200]) + data[at + 1 :])


def soft_loop(file):
    del file[WEIGHTS]
    file[WEIGHTS] = h5py.SoftLink(f"/{WEIGHTS}")


def soft_loop_of_two(file):
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/b")
    file["b"] = h5py.SoftLink("/" + KERNEL)


def hard_loop(file):
    group = file[f"{WEIGHTS}/embedding"]
    group["again"] = group


def deep_groups(file):
    file.create_group(f"{WEIGHTS}/" + "/".join("x" * 2000))


def many_links(file):
    group = file[WEIGHTS].create_group("many")
    for number in range(MANY + 1):
        group[str(number)] = h5py.SoftLink("/")


# Bombs.


def shape_bomb(**options):
    def change(file):
        del file[KERNEL]
        file.create_dataset(KERNEL, (1 << 20, 1 << 20), np.float32, **options)

    return change


def unwritten(file):
    """The right shape, of which not a byte is in the file."""
    shape = file[KERNEL].shape
    del file[KERNEL]
    file.create_dataset(KERNEL, shape, np.float32)


def compressed_bomb(file):
    del file[KERNEL]
    file.create_dataset(
        KERNEL, (1 << 26,), np.float32, chunks=(1 << 22,), compression="gzip", fillvalue=0
    )
    for part in range(4):
        file[KERNEL][part << 22 : (part + 1) << 22] = 0


def chunk_bomb(file):
    """The right shape, in a piece that is 4 GB large once it is unpacked."""
    shape = file[KERNEL].shape
    del file[KERNEL]
    data = file.create_dataset(
        KERNEL, shape, "f4", chunks=(1 << 15, 1 << 14), maxshape=(None, None), compression="gzip"
    )
    import zlib

    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 24), 9), 0)


def foreign_filter(path):
    """A filter that HDF5 looks for among the libraries of a folder."""
    with h5py.File(path, "r+") as file:
        values = file[KERNEL][()]
        del file[KERNEL]
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk(values.shape)
        settings.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(values.shape)
        data = h5py.h5d.create(file.id, KERNEL.encode(), h5py.h5t.IEEE_F32LE, space, settings)
        data.write_direct_chunk((0, 0), values.tobytes(), 0)
    data = path.read_bytes()
    number = struct.pack("<H", h5py.h5z.FILTER_LZF)
    place = data.index(number + b"\x08\x00\x01\x00")  # id, length of the name, flags
    path.write_bytes(data[:place] + struct.pack("<H", 32_015) + data[place + 2 :])


# Descriptions that lie.


def described(**values):
    def change(file):
        known = json.loads(file.attrs[CONFIG]) | values
        file.attrs[CONFIG] = json.dumps(known)

    return change


def description(text):
    def change(file):
        file.attrs[CONFIG] = text

    return change


def without_field(name):
    def change(file):
        known = json.loads(file.attrs[CONFIG])
        del known[name]
        file.attrs[CONFIG] = json.dumps(known)

    return change


def twice(file):
    text = file.attrs[CONFIG]
    file.attrs[CONFIG] = '{"image_size": 1000000, ' + text[1:]


def enormous_text(path):
    """JSON of 60 MB in an attribute."""
    with h5py.File(path, "r+") as file:
        file.attrs[CONFIG] = '{"image_size": ' + " " * (60 << 20) + "32}"


def enormous_dense(path):
    """The same in an attribute of a fixed length, which only the latest format can hold."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs[CONFIG] = np.bytes_(b"[" * (32 << 20))


def names_of_one_heap(path):
    """A list of 60,000 names, all of them one text of a megabyte."""
    with h5py.File(path, "r+") as file:
        group = file[f"{WEIGHTS}/embedding"]
        if "weight_names" in group.attrs:
            del group.attrs["weight_names"]
        data = group.attrs
        data.create("weight_names", ["y" * (1 << 20), "z"] * 2, dtype=h5py.string_dtype())
    content = path.read_bytes()
    heap = content.rindex(b"y" * 64)
    assert heap > 0
    # Each entry: length u32, address of the heap u64, number u32.
    entry = content.rindex(struct.pack("<I", 1 << 20))
    first = content[entry : entry + 16]
    path.write_bytes(content[:entry] + first * 4 + content[entry + 64 :])


def text_in_attribute(name, value):
    def change(file):
        file.attrs[name] = value

    return change


def not_utf8(file):
    file.attrs[CONFIG] = np.bytes_(b'{"image_size": "\xff\xfe"}')


def name_not_utf8(file):
    file[WEIGHTS][b"\xff\xfe"] = h5py.SoftLink("/")


def name_for_terminals(file):
    file[f"{WEIGHTS}/\x1b]0;title\x07\u2028\x85"] = h5py.SoftLink("/")


def many_attributes(file):
    group = file[WEIGHTS].create_group("tagged", track_order=True)
    for number in range(3000):
        group.attrs[f"a{number}"] = number


def spoilt_values(value):
    def change(file):
        values = file[KERNEL][()]
        values[0, 1] = value
        file[KERNEL][...] = values

    return change


def listed(names):
    def change(file):
        names_of = file[f"{WEIGHTS}/embedding"].attrs
        if "weight_names" in names_of:
            del names_of["weight_names"]
        names_of["weight_names"] = np.array(names, "S20")

    return change


def userblock(path):
    """512 bytes of somebody else's before the file, as HDF5 allows."""
    with h5py.File(path) as before, h5py.File(f"{path}.new", "w", userblock_size=512) as after:
        for name in before:
            before.copy(name, after)
        for name, value in before.attrs.items():
            after.attrs[name] = value
    os.replace(f"{path}.new", path)
    data = path.read_bytes()
    path.write_bytes(b"#!/bin/sh\nmkdir canary\n".ljust(512, b"\0") + data[512:])


def replaced(content):
    return lambda path: path.write_bytes(content)


def folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def gone(path):
    path.unlink()


def huge_hole(path):
    """A file that says it has a terabyte."""
    os.truncate(path, 1 << 40)


def claims_a_name(file):
    data = file.create_dataset(f"{WEIGHTS}/layers", (1 << 40,), "u1", chunks=(1 << 20,))
    assert data.shape


CODE = [
    Case("lambda", with_lambda, EITHER),
    Case("module", with_module, EITHER),
    Case("opaque pickle", opaque_pickle, EITHER, "holds no numbers"),
    Case("ragged pickle", ragged_pickle, EITHER, "holds no numbers"),
    Case("kernel of pointers", kernel_of_type(opaque(b"NUMPY:O")), said="no numbers"),
    Case("kernel of a wild type", kernel_of_type(opaque(b"NUMPY:f4,(9999999,)f8,O")), said="numb"),
    Case("kernel of odd floats", kernel_of_type(odd_float()), EITHER),
    Case(
        "description of pointers",
        description_of_type(opaque(b"NUMPY:O"), struct.pack("<Q", 0x4141414141414141)),
        said="not a short text",
    ),
]
OUTSIDE = [
    Case("external link", external_link, said="leads elsewhere"),
    Case("external link to anything", linked(WEIGHTS, h5py.ExternalLink("/etc/passwd", "/"))),
    Case("external storage", external_storage, said="in another file"),
    Case("virtual", virtual, said="in another file"),
    Case("virtual of itself", virtual_of_itself, said="in another file"),
    Case("soft link", linked(WEIGHTS, h5py.SoftLink("/elsewhere")), said="leads elsewhere"),
    Case("soft loop", soft_loop, said="leads elsewhere"),
    Case("soft loop of two", soft_loop_of_two, said="leads elsewhere"),
    Case("hard loop", hard_loop, EITHER, "linked to twice"),
    Case("weights are the file", linked(WEIGHTS, lambda file: file["/"]), EITHER),
    Case("link of a user's type", user_link, EITHER, raw=True),
    Case("foreign filter", foreign_filter, said="compressed", raw=True),
]
BOMBS = [
    Case("shape bomb", shape_bomb(), said=""),
    Case("shape bomb, filled", shape_bomb(fillvalue=1.5, chunks=(1024, 1024))),
    Case("shape bomb, packed", shape_bomb(chunks=(1 << 12, 1 << 12), compression="gzip")),
    Case("packed zeros", compressed_bomb),
    Case("packed piece", chunk_bomb, said="compressed"),
    Case("unwritten", unwritten, said="more bytes than the file"),
    Case("gzip", replace_kernel(compression="gzip"), said="compressed"),
    Case("scale and offset", replace_kernel(scaleoffset=2), said="compressed"),
    Case("checksum", replace_kernel(fletcher32=True), said="compressed"),
    Case(
        "weights are an endless list", linked(WEIGHTS, lambda file: np.zeros(3)), said="not a group"
    ),
    Case("a terabyte besides", claims_a_name, EITHER),
    Case("deep groups", deep_groups, EITHER, "nested too deeply"),
    Case("many links", many_links, EITHER, "names"),
    Case("many attributes", many_attributes, EITHER),
    Case("enormous JSON", enormous_text, said="not a short text", raw=True),
    Case("enormous dense JSON", enormous_dense, said="not a short text", raw=True),
    Case("one name many times", names_of_one_heap, EITHER, raw=True),
    Case("a hole of a terabyte", huge_hole, EITHER, raw=True),
]
LIES = [
    Case("larger embedding", described(embedding_size=8192), EITHER, "embedding/kernel"),
    Case("network of gigabytes", described(image_size=1024, embedding_size=8192), EITHER),
    Case(
        "network of more gigabytes",
        described(image_size=1024, hidden_layers=4, hidden_size=8192, embedding_size=8192),
        EITHER,
    ),
    Case("image of a million", described(image_size=1_000_000), said="image_size"),
    Case("embedding of 10^9", described(embedding_size=10**9), said="embedding_size"),
    Case("negative", described(embedding_size=-1), said="embedding_size"),
    Case("true for a number", described(embedding_size=True), said="type int"),
    Case("text for a number", described(image_size="32"), said="type int"),
    Case("NaN", described(dropout=float("nan")), said="dropout"),
    Case("infinity", described(dropout=float("inf")), said="dropout"),
    Case("list", described(dropout=[0.5]), said="type float"),
    Case("4,000 digits", described(image_size=10**4000), said="image_size"),
    Case("5,000 digits", description('{"image_size": ' + "9" * 5000 + "}"), said="not JSON"),
    Case("unknown field", described(class_name="Lambda"), said="must have the fields"),
    Case("missing field", without_field("image_size"), said="must have the fields"),
    Case("code for a name", described(normalisation="__import__('os')"), said="normalisation"),
    Case("backbone of a path", described(backbone="../../x"), said="backbone"),
    Case("backbone of Keras", described(backbone="__init__"), said="backbone"),
    Case("name for a terminal", described(pooling="\x1b[2J\x1b]0;x\x07"), said="pooling"),
    Case("name of a megabyte", described(pooling="x" * (1 << 19)), said="pooling"),
    Case("nested", description("[" * 100_000), said="not JSON"),
    Case("nested objects", description('{"a":' * 100_000), said="not JSON"),
    Case("a list", description("[]"), said="must have the fields"),
    Case("null", description("null"), said="must have the fields"),
    Case("empty", description(""), said="not JSON"),
    Case("a field twice", twice, EITHER),
    Case("a number", text_in_attribute(CONFIG, 5), said="not a short text"),
    Case("numbers", text_in_attribute(CONFIG, np.zeros(1000)), said="not a short text"),
    Case("texts", text_in_attribute(CONFIG, ["{}", "{}"]), said="not a short text"),
    Case("not UTF-8", not_utf8),
    Case("name that is not UTF-8", name_not_utf8, EITHER),
    Case("name for terminals", name_for_terminals, EITHER),
    Case("names with zeros", listed([b"a\0b", b"c"]), EITHER),
    Case("names that lead around", listed([b"../../kernel", b"/"]), EITHER),
    Case("names of nothing", listed([b"", b"//"]), EITHER),
    Case("calibration of a list", text_in_attribute(CALIBRATION, "[1]"), said="calibration"),
    Case("calibration nested", text_in_attribute(CALIBRATION, "[" * 10**5), said="calibration"),
    Case("calibration of texts", text_in_attribute(CALIBRATION, '{"distances": ["a"]}')),
    Case("kernel of NaN", spoilt_values(np.nan), EITHER, "NaN"),
    Case("kernel of infinity", spoilt_values(np.inf), EITHER, "NaN"),
]
NOT_FILES = [
    Case("nothing", replaced(b""), raw=True),
    Case("zeros", replaced(bytes(4096)), raw=True),
    Case("text", replaced(b"no model\n" * 1000), raw=True),
    Case("pickle", replaced(pickle.dumps({"a": 1})), raw=True),
    Case("signature alone", replaced(b"\x89HDF\r\n\x1a\n"), raw=True),
    Case("folder", folder, said="not a regular file", raw=True),
    Case("pipe", pipe, said="not a regular file", raw=True),
    Case("endless device", endless, said="not a regular file", raw=True),
    Case("gone", gone, said="no such file", raw=True),
    Case("userblock", userblock, ACCEPTED, raw=True),
]
CASES = [*CODE, *OUTSIDE, *BOMBS, *LIES, *NOT_FILES]


def cut(share, path):
    """Leave the first share of a file."""
    os.truncate(path, int(share * path.stat().st_size))


def flipped(number, seed, path):
    """Turn over some bits of a file, most of them where HDF5 keeps its structure."""
    rng = random.Random(f"{seed} {number}")
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(min(len(data), rng.choice((200, 4096, len(data)))))
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def random_cases(seed, flips):
    """Truncations at each fiftieth, and so many files of flipped bits."""
    cuts = [
        Case(f"cut at {n}/50", functools.partial(cut, n / 50), REFUSED, raw=True) for n in range(50)
    ]
    return cuts + [
        Case(f"flipped {n}", functools.partial(flipped, n, seed), EITHER, raw=True)
        for n in range(flips)
    ]
