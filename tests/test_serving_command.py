"""The command `serve` as a program, and the client that asks it."""

import contextlib
import json
import queue
import resource
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import make_served, use_stub_engine, write_photos
from served_program import address_of, start_program

from deep_ranking import Client
from deep_ranking.cli.main import main
from deep_ranking.files import InputError, installed
from deep_ranking.serving import running
from deep_ranking.serving.running import run_server
from deep_ranking.serving.settings import ServerSettings

TOKEN = "a-token-of-enough-length"
NUM_IDLE = 1_000


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEP_RANKING_TOKEN", TOKEN)
        program = start_program(folder, "--index", "index", stderr=subprocess.PIPE)
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
    return Client(address_of(line), token=TOKEN)


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
    assert client.token == TOKEN and TOKEN not in repr(client)
    with pytest.raises(InputError, match=r"no answer .*is the server running"):
        Client("http://127.0.0.1:1", timeout=1).collections()


def test_a_signal_that_is_ignored_stays_ignored(server, client):
    server[1].send_signal(signal.SIGINT)
    time.sleep(0.2)  # the server looks for signals ten times a second
    assert server[1].poll() is None
    assert client.collections()


@pytest.fixture
def many_sockets():
    """Allow this process as many open files as the test below needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * NUM_IDLE), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_do_not_keep_others_waiting(client, many_sockets):
    host, port = client.address.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(NUM_IDLE)]
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


HEAD = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n"


def received(connection, end=None):
    """Return what the other side sends until some bytes, or until it closes the connection."""
    connection.settimeout(10)
    found = b""
    with contextlib.suppress(ConnectionError):
        while (end is None or end not in found) and (part := connection.recv(1 << 16)):
            found += part
    return found


def test_connections_that_send_nothing_are_closed(served_in_a_thread):
    for begin in (b"", b"GET /api/v1/health HT", b"\x00\x01"):
        with socket.create_connection(served_in_a_thread) as connection:
            connection.sendall(begin)
            received(connection)


@pytest.mark.parametrize(
    "more", [b"\r\n" + HEAD, b"Content-Length: 9\r\n\r\n"], ids=["next", "rest"]
)
def test_connections_that_go_on_slowly_after_an_answer_are_closed(served_in_a_thread, more):
    """With the next request, or with the rest of a body that was refused."""
    with socket.create_connection(served_in_a_thread) as connection:
        connection.sendall(HEAD + more)
        assert received(connection, b"}").startswith(b"HTTP/1.1 421 ")
        connection.sendall(b"a")  # ends the wait of uvicorn's own timer
        received(connection)


CHUNKED = HEAD.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n"
NO_REQUESTS = (
    b"\x00\x01 no HTTP\r\n\r\n",
    HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
    HEAD + b"Transfer-Encoding : chunked\r\n\r\n",
    HEAD + b"Host: y\r\n\r\n",
    HEAD + b"X: a\0b\r\n\r\n",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"-1\r\n",
    CHUNKED + b"3\r\nabcXX0\r\n\r\n",
    b"GET /" + b"a" * 70_000,
    HEAD + b"X: a\r\n" * 14_000,
)


@pytest.mark.parametrize("request_", NO_REQUESTS, ids=range(len(NO_REQUESTS)))
def test_what_is_no_http_gets_an_answer_like_others(served_in_a_thread, request_):
    with socket.create_connection(served_in_a_thread) as connection:
        connection.sendall(request_)
        answer = received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    for name in (b"content-security-policy: default-src 'none'", b"nosniff", b"no-store"):
        assert name in head
    assert b"HTTP" in json.loads(body)["detail"].encode()


def test_what_is_no_http_after_an_answer_only_ends_the_connection(served_in_a_thread, caplog):
    with socket.create_connection(served_in_a_thread) as connection:
        connection.sendall(CHUNKED + b"3\r\nabc\r\n")
        assert received(connection, b"}").startswith(b"HTTP/1.1 421 ")
        connection.sendall(b"zz\r\n")
        assert received(connection) == b""
    assert not caplog.records  # as of an exception in the loop


def test_requests_one_behind_the_other(served_in_a_thread):
    with socket.create_connection(served_in_a_thread) as connection:
        connection.sendall((HEAD + b"\r\n") * 200)
        assert received(connection).count(b"HTTP/1.1 421 ") == 200


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
