"""The command `serve` as a program, and the client that asks it."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import make_served, use_stub_engine, write_photos

from deep_ranking import Client
from deep_ranking.cli.main import main
from deep_ranking.files import InputError, installed
from deep_ranking.serving import running
from deep_ranking.serving.running import run_server
from deep_ranking.serving.settings import ServerSettings

ROOT = Path(__file__).parents[1]
TOKEN = "a-token-of-enough-length"
PROGRAM = """
import signal
import sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a job in the background has it
import pytest
from served import use_stub_engine
with pytest.MonkeyPatch.context() as patch:
    use_stub_engine(patch)
    from deep_ranking.cli.main import main
    code = main(["serve", *sys.argv[1:]])
large = {"tensorflow", "keras", "scipy", "sklearn", "matplotlib"} & set(sys.modules)
print("imported", sorted(large), flush=True)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    with pytest.MonkeyPatch.context() as patch:
        use_stub_engine(patch)
        write_photos(folder / "photos")
        make_served(folder / "index", folder / "photos")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """A program that serves on a free port; yields the line that it prints, and the program."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--index", "index", "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "DEEP_RANKING_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = program.stdout.readline()
    try:
        yield line, program
    finally:
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=30)
    assert program.returncode == 130
    assert out == "imported []\n"
    lines = [each for each in err.splitlines() if "not compiled" not in each]
    assert lines == ["interrupted"]


@pytest.fixture
def client(server):
    line = server[0]
    assert line.startswith("Serving index on http://127.0.0.1:")
    return Client(line.split(" on ")[1].partition(";")[0], token=TOKEN)


def test_two_clients_at_once(client, folder):
    photos = [folder / "photos" / name / "0.png" for name in ("red", "green", "blue")] * 4
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda photo: client.search(photo, top=1), photos))
    assert [each[0].label for each in found] == [photo.parent.name for photo in photos]


def test_the_client_asks_for_everything(client, folder):
    assert client.collections()[0]["images"] == 13
    found = client.search(path="red/0.png", top=4, class_="red", rerank=False)
    assert len(found) == 4 and found[0].path == "red/0.png" and found[0].problem == ""
    more = client.search(path="red/0.png", top=4, cursor=client.search(
        path="red/0.png", top=4).cursor)  # fmt: skip
    assert more[0].rank == 5
    photo = folder / "photos" / "red" / "0.png"
    assert client.image(found[0].image_id) == photo.read_bytes()
    assert client.thumbnail(found[0].image_id, 64).startswith(b"\xff\xd8")
    assert client.neighbours(found[0].image_id, 1)[0].path == "red/1.png"
    compared = client.compare(photo, photo.read_bytes())
    assert compared["distance"] == 0
    assert client.duplicates(0)["total"] == 1
    liked = client.search(photo, positive=[photo], negative=[folder / "photos/blue/0.png"], top=1)
    assert liked[0].label == "red"


def test_the_client_says_what_the_server_says(client):
    with pytest.raises(InputError, match="path: no such image"):
        client.search(path="nothing.png")
    with pytest.raises(InputError, match="needs its token"):
        Client(client.address).collections()
    with pytest.raises(InputError, match=r"no answer .*is the server running"):
        Client("http://127.0.0.1:1", timeout=1).collections()


def test_a_signal_that_is_ignored_stays_ignored(server, client):
    server[1].send_signal(signal.SIGINT)
    time.sleep(0.2)  # the server looks for signals ten times a second
    assert server[1].poll() is None
    assert client.collections()


def test_idle_connections_do_not_keep_others_waiting(client):
    host, port = client.address.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(50)]
    idle[0].sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na")
    idle[1].sendall(b"\x00\xffno HTTP\r\n\r\n")
    try:
        assert client.collections()
    finally:
        for each in idle:
            each.close()


@pytest.fixture
def served_in_a_thread(folder, monkeypatch):
    """A server in this process whose patience is short; yields host and port."""
    servers, addresses = [], queue.Queue()

    class Recorded(running.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

    use_stub_engine(monkeypatch)
    monkeypatch.setattr(running, "Server", Recorded)
    monkeypatch.setattr(running, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(running, "SENDING_SECONDS", 0.05)
    settings = ServerSettings(port=0)
    run = threading.Thread(
        target=run_server, args=([folder / "index"], settings, addresses.put), daemon=True
    )
    run.start()
    yield "127.0.0.1", addresses.get(timeout=30).port
    servers[0].should_exit = True
    run.join(30)
    assert not run.is_alive()


def is_closed(connection):
    """Whether the other side closes a connection within ten seconds."""
    connection.settimeout(10)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_connections_that_send_nothing_are_closed(served_in_a_thread):
    for begin in (b"", b"GET /api/v1/health HT", b"\x00\x01"):
        with socket.create_connection(served_in_a_thread) as connection:
            connection.sendall(begin)
            assert is_closed(connection)


def test_connections_that_take_nothing_are_closed(served_in_a_thread, monkeypatch):
    sent = threading.Event()

    async def large(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(64 << 20)})
        sent.set()  # nobody waits for it any more

    monkeypatch.setattr("deep_ranking.serving.guard.Guard._answer", large)
    with socket.create_connection(served_in_a_thread) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sent.wait(10)


def refused(capsys, *argv):
    code = main(["serve", *argv])
    out, err = capsys.readouterr()
    assert code == 1 and out == ""
    lines = [each for each in err.splitlines() if "not compiled" not in each]
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_a_port_in_use_is_one_line(folder, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        line = refused(capsys, "--index", str(folder / "index"), "--port", port)
    assert port in line and "--port" in line


def test_what_cannot_be_served_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.delenv("DEEP_RANKING_TOKEN", raising=False)
    index = str(folder / "index")
    assert "no index here" in refused(capsys, "--index", str(folder / "photos"))
    assert "token" in refused(capsys, "--index", index, "--host", "0.0.0.0")
    line = refused(capsys, "--index", index, "--host", "256.1.1.1", "--token", TOKEN)
    assert "--host" in line
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    line = refused(capsys, "--index", index)
    assert 'pip install "deep-ranking[serve]"' in line
