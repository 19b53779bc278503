"""A real Milvus server for tests: the program of the PyPI package `milvus`, on ports of its own."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAM_VARIABLE = "DEEP_RANKING_MILVUS_SERVER"
DEFAULT_PROGRAM = Path(__file__).parents[1] / ".venv-milvus" / "bin" / "milvus-server"
START_SECONDS, STOP_SECONDS = 120, 5


def find_program():
    """Path of `milvus-server`, or None."""
    program = Path(os.environ.get(PROGRAM_VARIABLE, DEFAULT_PROGRAM))
    return program if program.is_file() else None


def free_port():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


class MilvusServer:
    """A server with a data folder of its own, that can be killed and started again."""

    def __init__(self, program, data_dir, *options):
        self.data_dir = Path(data_dir)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._metrics_port = free_port()
        self._first = [program, "--data", data_dir, "--proxy-port", str(self.port), *options]
        self._process = None

    def start(self):
        """Start, and come back before it is ready."""
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        command = self._first
        binary = self.data_dir / "bin" / "milvus"
        if self._process is not None:
            # The first start unpacked this program and wrote its settings. Started again by the
            # wrapper, it might take another port, for the wrapper passes over those just closed.
            command = [binary, "run", "standalone"]
            environment |= {
                "DEPLOY_MODE": "STANDALONE",
                "METRICS_PORT": str(self._metrics_port),
                "MILVUS_RUN_DIR": str(self.data_dir / "run"),
                "LD_LIBRARY_PATH": str(binary.parent),
            }
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "test.log").open("ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.data_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self):
        """Wait until the first start is complete, which the wrapper says."""
        end = time.monotonic() + START_SECONDS
        log = self.data_dir / "test.log"
        while "Welcome to use Milvus" not in log.read_text(errors="replace"):
            if time.monotonic() > end or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(
                    f"Milvus did not start: {log.read_text(errors='replace')[-500:]}"
                )
            time.sleep(0.2)
        settings = (self.data_dir / "configs" / "milvus.yaml").read_text()
        assert re.search(rf"\bport: {self.port}\b", settings)

    def kill(self):
        """End it at once, as a power cut would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def interrupt(self):
        """End it in order, if it does so in time."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            self.kill()

    def stop(self):
        """End it, and its data with it."""
        self.interrupt()
        shutil.rmtree(self.data_dir, ignore_errors=True)


@contextlib.contextmanager
def running(folder):
    """Run a server until the end of the block; skips the test where there is none.

    Args:
        folder: gets a folder for its data.
    """
    program = find_program()
    if program is None:
        reason = f"no milvus-server; make milvus-server, or set {PROGRAM_VARIABLE}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # After a kill the server waits until its former self is taken for dead, by default 30 s.
    server = MilvusServer(program, folder / "data", "--extra-config", "common.session.ttl=5")
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.stop()
