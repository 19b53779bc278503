"""Archives of small images, and a server on the loopback that hands one out, well or badly."""

import hashlib
import io
import tarfile
import threading
import zipfile
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def image_bytes(seed, kind="JPEG", side=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def make_zip(files):
    """A zip of {name: bytes}; names are written as they are."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return target.getvalue()


def make_tar(files, mode="w"):
    """A tar of {name: bytes or TarInfo}."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def tiny_imagenet(num_classes=3, num_images=2):
    """The original layout: names, and what is in the files."""
    root, files, lines = "tiny-imagenet-200", {}, []
    for label in range(num_classes):
        name = f"n{label:08}"
        for number in range(num_images):
            image = f"{root}/train/{name}/images/{name}_{number}.JPEG"
            files[image] = image_bytes(100 * label + number)
        files[f"{root}/train/{name}/{name}_boxes.txt"] = b"n0_0.JPEG\t0\t0\t7\t7\n"
        # Against the order of the classes, so that the annotations decide.
        validation = f"val_{num_classes - label}.JPEG"
        files[f"{root}/val/images/{validation}"] = image_bytes(5000 + label)
        lines.append(f"{validation}\t{name}\t0\t0\t7\t7\n")
        files[f"{root}/test/images/test_{label}.JPEG"] = image_bytes(9000 + label)
    files[f"{root}/val/val_annotations.txt"] = "".join(lines).encode()
    files[f"{root}/words.txt"] = b"n00000000\tentity\n"
    return files


def caltech101(classes):
    """The original: a zip with a tar.gz of the images in it, and what Macs add."""
    images = {
        f"101_ObjectCategories/{name}/image_{number:04}.jpg": image_bytes(number)
        for name, count in classes.items()
        for number in range(1, count + 1)
    }
    images["101_ObjectCategories/._airplanes"] = b"resource fork"
    return make_zip(
        {
            "caltech-101/101_ObjectCategories.tar.gz": make_tar(images, "w:gz"),
            "caltech-101/Annotations.tar": b"not looked at",
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"no archive",
        }
    )


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Server:
    """What it hands out, and how; and what it was asked for.

    Attributes:
        data: the file.
        cuts: for each request in turn, after how many bytes to hang up; None or beyond: never.
        knows_ranges: whether it answers a Range with 206.
        statuses: for each request in turn, an error to answer instead; 0 or beyond: none.
        says_length: whether it sends a Content-Length.
        asked: the Range of each request, or None.
    """

    def __init__(self, data):
        self.data, self.cuts, self.statuses, self.asked = data, [], [], []
        self.knows_ranges = self.says_length = True
        self.url = ""

    def answer(self, handler):
        number, wanted = len(self.asked), handler.headers.get("Range")
        self.asked.append(wanted)
        if status := (self.statuses[number] if number < len(self.statuses) else 0):
            handler.send_error(status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if not self.knows_ranges:
            start = 0
        if start and start >= len(self.data):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            end = f"{len(self.data) - 1}/{len(self.data)}"
            handler.send_header("Content-Range", f"bytes {start}-{end}")
        if self.says_length:
            handler.send_header("Content-Length", str(len(self.data) - start))
        handler.end_headers()
        cut = self.cuts[number] if number < len(self.cuts) else None
        handler.wfile.write(self.data[start:] if cut is None else self.data[start : start + cut])


@contextmanager
def serving(data):
    server = Server(data)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(ConnectionError):  # the client has seen enough
                server.answer(self)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/some/archive.zip"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
