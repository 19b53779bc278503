"""A collection in Milvus that is served while Milvus goes, and comes back."""

import time

import milvus_server
import pytest
from served import caller_of, make_served, use_stub_engine, write_photos

BACK_SECONDS = 180  # on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with milvus_server.running(tmp_path_factory.mktemp("milvus")) as server:
        yield server


def paths_of(answer):
    return [each["path"] for each in answer.json()["results"]]


@pytest.mark.milvus
@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_milvus_goes_and_comes_back(server, tmp_path, monkeypatch, capsys, end):
    use_stub_engine(monkeypatch)
    write_photos(tmp_path / "photos")
    index = {"kind": "milvus", "uri": server.uri}
    call = caller_of(make_served(tmp_path / "index", tmp_path / "photos", index=index))
    found = call.search({"path": "red/1.png", "top": "13"})
    assert len(paths_of(found)) == 13
    name = found.json()["results"][0]["id"]
    getattr(server, end)()
    # What was searched before is known still, and needs no Milvus.
    assert paths_of(call.search({"path": "red/1.png", "top": "13"})) == paths_of(found)
    for path in ("red/0.png", "green/0.png", "blue/0.png"):
        answer = call.search({"path": path, "top": "13"})
        assert answer.status_code == 503 and answer.headers["retry-after"]
        # Not that it took too long, which is said after a minute.
        assert "cannot be used at the moment" in answer.json()["detail"]
        assert call.get(f"images/{name}/neighbours").status_code == 503
        for other in ("health", "collections", f"images/{name}", f"images/{name}/thumbnail"):
            assert call.get(other).status_code == 200
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "Milvus does not answer" in lines[0]
    server.start()
    deadline = time.monotonic() + BACK_SECONDS
    while (answer := call.search({"path": "red/2.png", "top": "13"})).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)
    assert sorted(paths_of(answer)) == sorted(paths_of(found))
    assert paths_of(answer)[0] == "red/2.png"
