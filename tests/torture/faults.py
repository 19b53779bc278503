"""Full disks, closed folders, damaged checkpoints: one line that says so, and nothing lost.

A full disk is a small file system in memory where one can be mounted, and a limit on the size of
files anywhere; a closed folder is one of another user.
"""

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from torture import forked, kills

MEGABYTE = 1 << 20
ROOM = 1024 * MEGABYTE
NOBODY = 65534
SHARES = (0.02, 0.5, 0.9)  # of what a command needs
SECONDS = 180  # on a busy machine
FULL = ("No space left on device", "File too large", "is full", "disk I/O error", "are free")
CLOSED = ("ermission denied", "no permission", "Read-only file system", "not permitted", "readonly")


def run(tally, folder, seed, only=None):
    """Try all faults, or only those of the commands of some names."""
    forked.in_own_process(_run, tally, folder, seed, only)


def _run(tally, folder, seed, only):
    for part in [folder, *folder.parents]:
        if part.name.startswith("torture-"):
            part.chmod(0o755)  # another user is to read in it
    given, work = folder / "given", folder / "work"
    given.mkdir()
    work.mkdir()
    kills._make_given(given)
    commands = list(kills._commands(given, work))
    for command in kills.chosen(commands, only):
        began, before = time.monotonic(), tally.faults
        _Faults(tally, command, folder, work).run()
        took = time.monotonic() - began
        print(
            f"  {command.name}: {tally.faults - before} faults survived, {took:.0f} s", flush=True
        )
    if only is None or "train" in only:
        _damage(tally, commands, folder, work, np.random.default_rng([seed, 6]))


class _Faults:
    """The faults of one command."""

    def __init__(self, tally, command, folder, work):
        self.tally, self.command, self.folder, self.work = tally, command, folder, work
        self.mounted = False

    def run(self):
        self._begin()
        before = _bytes_in(self.work)
        ended = self._command()
        if ended.code:
            self._problem("wrong", "undisturbed", _last(ended))
            return
        self.wanted = forked.call(self.command.result, self.work)
        needed = _bytes_in(self.work) - before
        largest = max(path.stat().st_size for path in self.work.rglob("*") if path.is_file())
        shares = SHARES if self.command.is_quick else SHARES[1:2]
        for share in shares:
            limit = max(1, int(share * largest))
            self._try(
                f"files of up to {limit:,} bytes", FULL, hook=lambda limit=limit: _limit(limit)
            )
        for share in shares if _can_mount(self.folder) else ():
            free = max(4096, int(share * needed))
            self._try(f"a disk with room for {free:,} bytes", FULL, free=free)
        if os.geteuid() == 0:
            self._try("a folder of another user", CLOSED, hook=lambda: os.setuid(NOBODY))
            if _can_mount(self.folder):
                self._try("a read-only disk", CLOSED, free=0)

    def _try(self, when, said, *, hook=None, free=None):  # noqa: PLR0911
        """Run the command with a fault, and again without."""
        self._begin(free)
        before = forked.tree(self.work)
        try:
            ended = self._command(hook)
            last = _last(ended)
            if ended.hung:
                return self._problem("hangs", when, last)
            if ended.crashed:
                return self._problem("crashes", when, ended.errors[-1500:])
            if free is not None:
                _mount(self.work, "remount,rw", ROOM)
            if not _is_due(ended, said):
                return self._problem("wrong", when, last)
            try:
                forked.call(self.command.check, self.work, {}, self.wanted)
            except Exception as error:
                return self._problem("lost", when, str(error))
            if left := list(self.work.rglob(".writing-*")):
                return self._problem("wrong", when, f"left behind: {left[0].name}")
            if ended.code and forked.tree(self.work) == before:
                self.tally.faults += 1
                return None  # it would be run again on what it was run on before
            again = self._command()
            if again.code:
                return self._problem("wrong", f"after {when}", _last(again))
            if odd := kills._difference(forked.call(self.command.result, self.work), self.wanted):
                return self._problem("wrong", f"after {when}", f"another result: {odd}")
            self.tally.faults += bool(ended.code)
        finally:
            self._unmount()

    def _command(self, hook=None):
        return forked.run(self.command.argv, before=hook, seconds=SECONDS)

    def _begin(self, free=None):
        """Empty the folder to work in, and put into it what is there before."""
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if free is not None:
            _mount(self.work, "rw", ROOM)
            self.mounted = True
        self.command.start(self.work)
        if free == 0:
            _mount(self.work, "remount,ro", ROOM)
        elif free is not None:
            used = os.statvfs(self.work)
            taken = (used.f_blocks - used.f_bfree) * used.f_frsize
            _mount(self.work, "remount,rw", taken + free)

    def _unmount(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.work], check=True)
            self.mounted = False

    def _problem(self, kind, when, text):
        self.tally.problem(kind, f"{self.command.name}, {when}: {text}")


def _is_due(ended, said):
    """Whether it said in one line which file and what fault, or could do without the room."""
    if ended.code == 0:
        return said is not CLOSED
    last = _last(ended)
    return last.startswith("error: /") and any(each in last for each in said)


def _last(ended):
    lines = (ended.errors.strip() or "nothing said").splitlines()
    return next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])


def _limit(num_bytes):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def _bytes_in(folder: Path):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _can_mount(folder):
    if os.geteuid() or shutil.which("mount") is None:
        return False
    place = folder / "mount"
    place.mkdir(exist_ok=True)
    if _mount(place, "rw", MEGABYTE, check=False).returncode:
        return False
    subprocess.run(["umount", place], check=True)
    return True


def _mount(place, options, num_bytes, *, check=True):
    command = ["mount", "-t", "tmpfs", "-o", f"{options},size={num_bytes}", "tmpfs", place]
    return subprocess.run(command, check=check, capture_output=True)


def _damage(tally, commands, folder, work, rng):
    """Damage the checkpoint of a run that is to go on, and the files that other commands keep."""
    by_name = {command.name: command for command in commands}
    command = by_name["train"]
    faults = _Faults(tally, command, folder, work)
    faults._begin()
    argv = list(command.argv)
    argv[-1] = 2  # of 3 epochs
    if (ended := forked.run(argv)).code:
        return faults._problem("wrong", "two of three epochs", _last(ended))
    (work / "model.h5").unlink()
    stopped = folder / "stopped"
    shutil.copytree(work, stopped)
    faults._command()
    faults.wanted = forked.call(command.result, work)
    whole = (stopped / "model.run/checkpoint.h5").read_bytes()
    for when, damaged in _damages(whole, rng):
        shutil.rmtree(work)
        shutil.copytree(stopped, work)
        (work / "model.run/checkpoint.h5").write_bytes(damaged)
        ended = faults._command()
        last = _last(ended)
        if ended.hung or ended.crashed:
            faults._problem("hangs" if ended.hung else "crashes", when, ended.errors[-1500:])
        elif ended.code == 0:
            if odd := kills._difference(forked.call(command.result, work), faults.wanted):
                faults._problem("wrong", when, f"trained on garbage: {odd}")
            else:
                tally.faults += 1
        elif "checkpoint.h5: " in last and "--overwrite" in last:
            tally.faults += 1
        else:
            faults._problem("wrong", when, last)
    faults._begin()


def _damages(whole, rng):
    """Give a checkpoint damaged in several ways."""
    size = len(whole)
    yield "empty checkpoint", b""
    for share in rng.uniform(0, 1, 2):
        yield f"checkpoint cut off at {share:.0%}", whole[: int(share * size)]
    for place in (*rng.integers(0, size, 5), *rng.integers(0, 4096, 4)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        yield f"checkpoint with a bit flipped in byte {place:,}", bytes(flipped)
    for place in rng.integers(0, size - 4096, 2):
        zeroed = whole[:place] + bytes(4096) + whole[place + 4096 :]
        yield f"checkpoint with zeros from byte {place:,}", zeroed
