import os
import random

import pytest
from archives import digest, serving

from deep_ranking.datasets.public import download as module
from deep_ranking.datasets.public.download import download
from deep_ranking.files import InputError

DATA = random.Random(0).randbytes(700_001)  # more than two blocks, of no round size


@pytest.fixture(autouse=True)
def no_proxy_and_no_waiting(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "RETRY_DELAYS", (0.0, 0.0))


@pytest.fixture
def server():
    with serving(DATA) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archive.zip"


def fetch(server, path, **options):
    download(server.url, path, **({"sha256": digest(DATA), "num_bytes": len(DATA)} | options))


def test_whole(server, path):
    fetch(server, path)
    assert path.read_bytes() == DATA
    assert os.listdir(path.parent) == ["archive.zip"]
    assert server.asked == [None]
    fetch(server, path)  # nothing is asked for again
    assert server.asked == [None]


def test_a_cut_connection_goes_on_within_one_run(server, path):
    server.cuts = [300_000, 100_000]
    fetch(server, path)
    assert path.read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-", "bytes=400000-"]


def test_a_run_goes_on_from_the_part_of_an_earlier_one(server, path):
    server.cuts = [300_000, 0, 0, 0]
    with pytest.raises(InputError, match=r"cut after 300,000 of 700,001.*goes on from there"):
        fetch(server, path)
    assert os.listdir(path.parent) == ["archive.zip.part"]
    assert (path.parent / "archive.zip.part").read_bytes() == DATA[:300_000]
    server.asked.clear()
    server.cuts = []
    fetch(server, path)
    assert path.read_bytes() == DATA
    assert server.asked == ["bytes=300000-"]


def test_a_try_that_gets_further_starts_the_count_of_tries_anew(server, path):
    server.cuts = [100_000, 100_000, 0, 100_000, 0, 100_000, 0]
    fetch(server, path)
    assert path.read_bytes() == DATA


def test_a_server_without_ranges_sends_it_from_the_beginning(server, path):
    server.cuts, server.knows_ranges = [300_000], False
    fetch(server, path)
    assert path.read_bytes() == DATA


def test_without_a_known_size(server, path):
    fetch(server, path, num_bytes=None)
    assert path.read_bytes() == DATA


def test_a_whole_part_needs_no_server(path):
    """It was stopped between the last byte and the new name."""
    for num_bytes in (len(DATA), None):
        (path.parent / "archive.zip.part").write_bytes(DATA)
        download("http://127.0.0.1:9/", path, sha256=digest(DATA), num_bytes=num_bytes)
        assert path.read_bytes() == DATA
        path.unlink()


def test_a_part_that_is_too_long_is_dropped(server, path):
    for num_bytes in (len(DATA), None):  # with no size known, the server says so: 416
        (path.parent / "archive.zip.part").write_bytes(b"x" * (len(DATA) + 1))
        fetch(server, path, num_bytes=num_bytes)
        assert path.read_bytes() == DATA
        path.unlink()


def test_wrong_bytes_never_get_the_name(server, path):
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(InputError, match=f"SHA-256 {digest(server.data)}, expected {digest(DATA)}"):
        fetch(server, path)
    assert os.listdir(path.parent) == []


def test_a_part_of_something_else_is_found_out_and_the_next_run_mends_it(server, path):
    (path.parent / "archive.zip.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match="it was deleted"):
        fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("data", [b"<html>moved</html>", DATA + b"x"])
def test_another_size_is_refused_before_anything_is_written(server, path, data):
    server.data = data
    with pytest.raises(InputError, match=f"has {len(data):,} bytes, expected 700,001"):
        fetch(server, path)
    assert os.listdir(path.parent) == []


def test_no_more_is_written_than_expected(server, path):
    server.data, server.says_length = DATA + bytes(5_000_000), False
    with pytest.raises(InputError, match="more arrives than the 700,001 bytes"):
        fetch(server, path)
    part = path.parent / "archive.zip.part"
    assert part.stat().st_size <= len(DATA)


def test_a_file_that_is_too_short_is_not_asked_for_without_end(server, path):
    server.data, server.says_length = DATA[:500_000], False
    with pytest.raises(InputError, match=r"500,000 of 700,001|answers 416"):
        fetch(server, path)
    assert len(server.asked) < 10


def test_a_busy_server_is_asked_again_and_an_error_is_one_line(server, path):
    server.statuses = [503, 429]
    fetch(server, path)
    assert path.read_bytes() == DATA
    path.unlink()
    server.asked.clear()
    server.statuses = [404]
    with pytest.raises(InputError, match=r"answers 404.*--archive"):
        fetch(server, path)
    assert len(server.asked) == 1


def test_no_server_is_said_at_once(path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_DELAYS", (1000.0,))
    with pytest.raises(InputError, match=r"cannot be reached \(Connection refused\)"):
        download("http://127.0.0.1:9/a.zip", path, sha256=digest(DATA))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "archive.zip", "http:"])
def test_what_is_no_address(path, url):
    with pytest.raises(InputError, match=r"expected an address|not an address|cannot be reached"):
        download(url, path, sha256=digest(DATA))


def test_another_file_of_the_name_is_left_alone(server, path):
    path.write_text("thesis")
    with pytest.raises(InputError, match="is in the way"):
        fetch(server, path)
    assert path.read_text() == "thesis"


def test_a_full_disk_is_said_before_the_download(server, path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("", (), {"free": 700_000}))
    with pytest.raises(InputError, match="700,001 bytes are still to come, and 700,000 are free"):
        fetch(server, path)
