"""A server that is killed (SIGKILL) while it sets duplicates aside; run as a program by a test.

Half of the kills come at a line of the move, the others at a random time after the request was
sent. The servers are forked, so that none imports anything anew.
"""

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from served import make_served, use_stub_engine

from deep_ranking.serving.running import run_server
from deep_ranking.serving.settings import ServerSettings

NUM_IMAGES, NUM_KILLS = 24, 20
MOVING = "search/set_aside.py"
CHANGING = ServerSettings(port=0, allow_changes=True)


class Lines:
    """Counts the lines of a module, and kills this process at one of them."""

    def __init__(self, fatal=None, module=MOVING):
        self.count, self.fatal, self.module = 0, fatal, module

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.endswith(self.module):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


class ForkedServer:
    """A server in a forked child.

    Args:
        folder: with the collection.
        fatal: line of the module at which it is killed; None for none.
        settings: of the server.
        module: whose lines are counted.
    """

    def __init__(self, folder, fatal=None, *, settings=CHANGING, module=MOVING):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                self._serve(folder, settings, Lines(fatal, module), writing)
            finally:
                os._exit(0)
        os.close(writing)
        self._told = os.fdopen(reading)
        self._client = httpx.Client(base_url=f"{self._told.readline().strip()}/api/v1", timeout=60)

    @staticmethod
    def _serve(folder, settings, lines, writing):
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn ends by it, and raises it again
        threading.settrace(lines)  # the work is done on threads of their own
        tell = partial(print, file=os.fdopen(writing, "w", buffering=1))
        run_server([folder / "index"], settings, lambda running: tell(running.address))
        tell(lines.count)

    def get(self, path):
        return self._client.get(path).raise_for_status().json()

    def send(self, path, data):
        return self._client.post(path, data=data)

    def post(self, path, data):
        return self.send(path, data).raise_for_status().json()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def end(self):
        """Wait for its end; return whether it was killed."""
        self._client.close()
        _, status = os.waitpid(self.pid, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    def stop(self):
        """End it in order; return how many lines of the module it passed."""
        os.kill(self.pid, signal.SIGTERM)
        count = int(self._told.readline())
        self.end()
        return count


def write_images(photos):
    """Write images of one look, of which no two are the same file."""
    photos.mkdir()
    for number in range(NUM_IMAGES):
        info = PngImagePlugin.PngInfo()
        info.add_text("number", f"{number:03}")
        path = photos / f"{number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (200, 30, 30)).save(path, pnginfo=info)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))
    }


def set_aside(server, before_sending=lambda: None):
    (group,) = server.get("duplicates?threshold=0.1")["groups"]
    images = [each["id"] for each in group["others"]]
    before_sending()
    data = {"keeper": group["keeper"]["id"], "image": images, "threshold": "0.1"}
    return server.post("duplicates/set_aside", data)["moved"]


def killed_while_it_moves(work, *, fatal=None, seconds=None):
    """Kill a server; return whether it was killed in time, and what was wrong afterwards."""
    photos = work / "photos"
    before = contents(photos)
    server = ForkedServer(work, fatal)
    timer = threading.Timer(seconds, server.kill) if seconds is not None else None
    try:
        set_aside(server, timer.start if timer else lambda: None)
        was_answered = True
    except httpx.TransportError:
        was_answered = False
    if timer:
        timer.join()
    elif was_answered:
        server.kill()
    if not server.end():
        return False, "it was not killed"
    problems = []
    if set(contents(photos).values()) != set(before.values()):
        problems.append("images are lost")
    num_moved = len(before) - sum(not path.startswith(".") for path in contents(photos))
    server = ForkedServer(work)
    sets = server.get("duplicates/set_aside")
    if bool(sets) < bool(num_moved):
        problems.append("what was moved is not told")
    for name in sets:
        if left := server.post("duplicates/undo", {"undo": name})["left"]:
            problems.append(f"not put back: {left}")
    if contents(photos) != before or server.get("duplicates/set_aside"):
        problems.append("not all is back")
    server.stop()
    return not was_answered, "; ".join(problems)


def main(work):
    """Kill servers; print what was wrong, if anything, as JSON."""
    with pytest.MonkeyPatch.context() as patch:
        use_stub_engine(patch)
        write_images(work / "photos")
        make_served(work / "index", work / "photos")
        began = []
        server = ForkedServer(work)
        moved = set_aside(server, lambda: began.append(time.monotonic()))
        seconds = time.monotonic() - began[0]
        lines = server.stop()
        server = ForkedServer(work)
        (name,) = server.get("duplicates/set_aside")
        server.post("duplicates/undo", {"undo": name})
        server.stop()
        times = np.random.default_rng(0).uniform(0, seconds, NUM_KILLS // 2)
        kills = [{"fatal": int(line)} for line in np.linspace(1, lines, NUM_KILLS // 2)]
        kills += [{"seconds": float(each)} for each in times]
        problems, num_amid = [], 0
        for kill in kills:
            amid, wrong = killed_while_it_moves(work, **kill)
            num_amid += amid
            problems += [f"{kill}: {wrong}"] if wrong else []
        told = {"moved": moved, "lines": lines, "kills": len(kills), "amid": num_amid}
        print(json.dumps(told | {"problems": problems}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
