"""Memory of the server's process, as glibc counts it."""

import ctypes
import json
import subprocess
import sys

import pytest

from deep_ranking.files import InputError
from deep_ranking.serving import running
from deep_ranking.serving.settings import ServerSettings

PROGRAM = """
import ctypes, json, sys
import numpy as np
from deep_ranking.serving.heap import return_large_blocks

class Counts(ctypes.Structure):  # mallinfo2(3)
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Counts
if sys.argv[1] == "returned":
    return_large_blocks()
np.ones(16 << 20, np.uint8)  # freed at once
before = library.mallinfo2().hblkhd
large, small = np.ones(3 << 20, np.uint8), np.ones(1 << 18, np.uint8)
print(json.dumps(library.mallinfo2().hblkhd - before))
"""


def bytes_outside_heaps(how):
    """Return the bytes that are mapped for two blocks, of 3 MiB and of .25 MiB."""
    command = [sys.executable, "-c", PROGRAM, how]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="a C library other than glibc 2.33"
)
def test_large_blocks_lie_outside_the_heaps_whatever_was_freed_before():
    assert bytes_outside_heaps("as it comes") == 0  # which is why it is needed
    assert 3 << 20 <= bytes_outside_heaps("returned") < (3 << 20) + (1 << 16)


def test_a_server_begins_with_it(tmp_path, monkeypatch):
    called = []

    def open_served(folders, **_):
        called.append("opened")
        raise InputError("enough")

    monkeypatch.setattr(running, "return_large_blocks", lambda: called.append("heap"))
    monkeypatch.setattr(running, "open_served", open_served)
    with pytest.raises(InputError, match=r"^enough$"):
        running.run_server([tmp_path], ServerSettings(port=0), print)
    assert called == ["heap", "opened"]
