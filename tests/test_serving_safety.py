"""Who may ask a server, how much, and what a stranger learns: each promise of SECURITY.md."""

import asyncio
import os
import tempfile
import threading
from urllib.parse import quote

import pytest
from served import Caller, caller_of, make_served, use_stub_engine, write_photos
from starlette.formparsers import FormParser

from deep_ranking.files import InputError
from deep_ranking.serving import searching
from deep_ranking.serving.file_cache import FileCache
from deep_ranking.serving.forms import SearchFields
from deep_ranking.serving.guard import Guard
from deep_ranking.serving.problems import RequestError
from deep_ranking.serving.settings import ServerSettings
from deep_ranking.serving.workers import Workers

TOKEN = "a-token-of-enough-length"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/x",
    "headers": [(b"host", b"127.0.0.1:8000")],
}


@pytest.fixture(autouse=True)
def stub_engine(monkeypatch):
    use_stub_engine(monkeypatch)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        use_stub_engine(patch)
        write_photos(folder / "photos")
        return make_served(folder / "index", folder / "photos")


@pytest.fixture
def call(collection):
    return caller_of(collection)


@pytest.fixture
def photo(collection):
    with open(f"{collection.settings.root}/red/0.png", "rb") as file:
        return file.read()


async def echo(scope, receive, send):
    """An application that answers with the body of the request."""
    body = (await receive()).get("body", b"") if scope["method"] == "POST" else b"read"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def guarded(application=echo, **settings):
    return Caller(Guard(application, ServerSettings(**settings)))


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8000", 200), ("localhost:8000", 200), ("LOCALHOST:8000", 200),
     ("[::1]:8000", 200), ("evil.example:8000", 421), ("127.0.0.1", 421), ("127.0.0.1:80", 421),
     ("127.0.0.1:8000.evil.example", 421), ("evil.example", 421), ("", 421),
     ("@127.0.0.1:8000", 421)],
)  # fmt: skip
def test_other_names_of_the_host_are_refused(host, status):
    assert guarded()("GET", "/x", headers={"host": host}).status_code == status


def test_the_given_host_is_a_name_of_its_own():
    call = guarded(host="192.168.1.5", token=TOKEN)
    assert call("GET", "/x", headers={"host": "192.168.1.5:8000"}).status_code == 200
    assert call("GET", "/x", headers={"host": "192.168.1.6:8000"}).status_code == 421
    call = guarded(host="0.0.0.0", token=TOKEN)
    assert call("GET", "/x", headers={"host": "192.168.1.6:8000"}).status_code == 200
    assert call("GET", "/x", headers={"host": "evil.example:8000"}).status_code == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 200), ({"origin": "http://127.0.0.1:8000"}, 200),
     ({"origin": "http://evil.example"}, 403),
     ({"origin": "null"}, 403), ({"origin": "http://127.0.0.1:8001"}, 403),
     ({"origin": "http://localhost:8000"}, 403), ({"sec-fetch-site": "cross-site"}, 403),
     ({"sec-fetch-site": "same-origin"}, 200)],
)  # fmt: skip
def test_pages_of_other_sites_may_not_post(headers, status):
    assert guarded()("POST", "/x", headers=headers, content=b"a").status_code == status
    assert guarded()("GET", "/x", headers=headers).status_code == 200


def test_another_host_needs_a_token():
    for host in ("0.0.0.0", "::", "192.168.1.5", "name.example"):
        with pytest.raises(InputError, match="needs a token"):
            ServerSettings(host=host)
        assert ServerSettings(host=host, token=TOKEN)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert ServerSettings(host=host)
    for token in ("short", "a token with blanks in it", "é" * 20, "x" * 201):
        with pytest.raises(InputError, match="16"):
            ServerSettings(token=token)


def test_the_token_is_compared_as_a_whole(collection, monkeypatch):
    compared = []

    def compare(given, wanted):
        compared.append((given, wanted))
        return given == wanted

    monkeypatch.setattr("deep_ranking.serving.guard.hmac.compare_digest", compare)
    call = caller_of(collection, settings=ServerSettings(token=TOKEN))
    for given in (None, "", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"bearer {TOKEN}"):
        headers = {} if given is None else {"authorization": given}
        for answer in (call.get("health", headers=headers), call.get("images/x", headers=headers)):
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text
    assert call.get("health", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert len(compared) == 13
    assert call("GET", "/api/docs").status_code == 200  # holds nothing of the collections


def test_headers_are_on_every_answer(call, photo):
    answers = [
        call.get("health"), call.get("nothing"), call.search(image=b"x"), call.search(image=photo),
        call("GET", "/api/docs"), call("GET", "/"), call("DELETE", "/api/v1/health"),
        call("GET", "/x", headers={"host": "evil.example"}),
    ]  # fmt: skip
    assert [each.status_code for each in answers] == [200, 404, 422, 200, 200, 200, 405, 421]
    for answer in answers:
        assert HEADERS.items() <= dict(answer.headers).items()
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["cache-control"]
        assert "server" not in answer.headers


def test_the_docs_load_nothing_from_elsewhere(call):
    for path in ("", ".css", ".js"):
        answer = call("GET", f"/api/docs{path}")
        assert answer.status_code == 200
        assert "http:" not in answer.text and "https:" not in answer.text
    assert "<script>" not in call("GET", "/api/docs").text
    description = call("GET", "/api/openapi.json").json()
    form = description["paths"]["/api/v1/search"]["post"]["requestBody"]["content"]
    fields = form["multipart/form-data"]["schema"]["properties"]
    assert {"image", "path", "id", "top", "cursor", "box", "class", "positive"} <= fields.keys()
    results = description["components"]["schemas"]["FoundImage"]["properties"]
    assert {"id", "rank", "path", "class", "distance", "probability", "thumbnail"} <= results.keys()


def test_a_body_that_is_too_large_is_refused_before_it_is_there():
    call = guarded(upload_bytes=100)
    assert call("POST", "/x", content=b"a" * 100).content == b"a" * 100
    answer = call("POST", "/x", content=b"a" * 101)
    assert answer.status_code == 413 and "100 bytes" in answer.json()["detail"]

    async def parts():
        for _ in range(1000):
            yield b"a" * 60

    assert call("POST", "/x", content=parts()).status_code == 413  # counted, without a length
    for length in ("-1", "x", "9" * 30):
        answer = call("POST", "/x", content=b"a", headers={"content-length": length})
        assert answer.status_code == 413


def test_all_bodies_together_are_bounded():
    guard = Guard(echo, ServerSettings(held_bytes=150))

    async def run():
        arrived = asyncio.Event()

        async def slow():
            if not arrived.is_set():
                arrived.set()
                return {"type": "http.request", "body": b"a" * 100, "more_body": True}
            await asyncio.sleep(30)

        first = asyncio.create_task(answered(guard, slow))
        await arrived.wait()
        await asyncio.sleep(0)
        status = await answered(guard, whole(b"a" * 100))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return status, await answered(guard, whole(b"a" * 100))

    assert asyncio.run(run()) == (503, 200)


def test_answers_that_nobody_takes_are_bounded():
    async def large(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(200)})

    async def run():
        guard, taken = Guard(large, ServerSettings(held_bytes=150)), asyncio.Event()

        async def send(message):
            if message["type"] == "http.response.body":
                await taken.wait()

        first = asyncio.create_task(guard(SCOPE, whole(b""), send))
        await asyncio.sleep(0.01)
        refused = await answered(guard, whole(b""))
        taken.set()
        await first
        return refused, await answered(guard, whole(b""))

    assert asyncio.run(run()) == (503, 200)


def test_a_slow_body_is_given_up():
    guard = Guard(echo, ServerSettings(body_seconds=0.01))
    assert asyncio.run(answered(guard, lambda: asyncio.sleep(30))) == 408


def whole(body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def answered(guard, receive):
    """Send a POST whose parts `receive` gives; return the status."""
    sent = []

    async def send(message):
        sent.append(message)

    await guard(SCOPE, receive, send)
    return sent[0]["status"]


def test_uploads_are_never_written_to_disk(call, photo, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("written to disk")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", fail)
    answer = call.search(image=photo + bytes(3 << 20))  # more than Starlette keeps by itself
    assert answer.status_code in (200, 422)


def test_an_error_of_the_server_tells_a_stranger_nothing(call, photo, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("a secret of /home/someone")

    monkeypatch.setattr(searching, "query_row", fail)
    answer = call.search(image=photo)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "The server made an error; its own output says which."}
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert "a secret of /home/someone" in capsys.readouterr().err
    monkeypatch.undo()
    use_stub_engine(monkeypatch)
    assert call.search(image=photo).status_code == 200


def test_a_damaged_collection_is_told_to_who_runs_the_server(call, photo, monkeypatch, capsys):
    def fail(*_):
        raise InputError("/home/someone/index: damaged")

    monkeypatch.setattr(searching, "query_row", fail)
    answer = call.search(image=photo)
    assert answer.status_code == 503 and "someone" not in answer.text
    assert "/home/someone/index: damaged" in capsys.readouterr().err


def test_nothing_is_logged_unless_asked(collection, capsys):
    caller_of(collection).get("health")
    assert capsys.readouterr() == ("", "")
    caller_of(collection, settings=ServerSettings(log=True)).get("health?secret=1")
    line = capsys.readouterr().err
    assert line.startswith("GET /api/v1/health 200") and "secret" not in line


def test_more_work_than_the_queue_takes_is_refused():
    async def run():
        workers, go = Workers(1, queue=1, seconds=5), threading.Event()
        calls = [asyncio.create_task(workers.run(go.wait, 5)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as error:
            await workers.run(int)
        go.set()
        await asyncio.gather(*calls)
        await asyncio.sleep(0)
        return error.value.status, error.value.headers["Retry-After"], await workers.run(int)

    assert asyncio.run(run()) == (503, "1", 0)


def test_work_that_takes_too_long_keeps_its_place_until_it_ends():
    async def run():
        workers, go = Workers(1, queue=0, seconds=0.01), threading.Event()
        statuses = []
        for _ in range(2):  # the second finds the thread taken
            with pytest.raises(RequestError) as error:
                await workers.run(go.wait, 5)
            statuses.append(error.value.sentence)
        go.set()
        while workers._num_running:
            await asyncio.sleep(0.001)
        return statuses, await workers.run(int)

    (first, second), done = asyncio.run(run())
    assert "too long" in first and "busy" in second and done == 0


def test_changes_need_a_flag(call):
    for path in ("duplicates/set_aside", "duplicates/undo"):
        answer = call.post(path, {"keeper": "x", "undo": "x"})
        assert answer.status_code == 403 and "--allow_changes" in answer.json()["detail"]


def test_duplicates_are_set_aside_and_put_back(tmp_path):
    write_photos(tmp_path / "photos")
    collection = make_served(tmp_path / "index", tmp_path / "photos")
    call = caller_of(collection, settings=ServerSettings(allow_changes=True))
    (group,) = call.get("duplicates?threshold=0").json()["groups"]
    fields = {"keeper": group["keeper"]["id"], "threshold": "0"}
    copy = group["others"][0]["id"]
    for bad in ({"image": "0" * 32}, {}, {"image": group["keeper"]["id"]}):
        assert call.post("duplicates/set_aside", fields | bad).status_code == 422
    done = call.post("duplicates/set_aside", fields | {"image": copy}).json()
    assert done["moved"] == 1 and done["left"] == []
    file = tmp_path / "photos" / "blue" / "copy.png"
    assert not file.exists()
    assert call.get("duplicates/set_aside").json() == [done["undo"]]
    assert call.get("duplicates?threshold=0").json()["total"] == 0
    for name in ("x", "../x", "20260101-000000-000000"):
        assert call.post("duplicates/undo", {"undo": name}).status_code == 404
    back = call.post("duplicates/undo", {"undo": done["undo"]}).json()
    assert back["moved"] == 1 and file.exists()
    assert call.get("duplicates/set_aside").json() == []
    assert call.get("duplicates?threshold=0").json()["total"] == 1
    again = call.post("duplicates/undo", {"undo": done["undo"]}).json()
    assert again == {"moved": 0, "in_place": 1, "left": []}


def test_thumbnails_on_disk_are_bounded_and_the_least_used_goes_first(tmp_path, monkeypatch):
    cache = FileCache(tmp_path, 100)
    for second, name in zip((3, 1, 6, 2, 5), "abcde", strict=True):
        cache.add(f"{name}.jpg", bytes(20))
        os.utime(tmp_path / f"{name}.jpg", (second, second))
    assert cache.find("b.jpg") == bytes(20)  # was used longest ago, and is now the last
    cache.add("f.jpg", bytes(20))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b.jpg", "c.jpg", "e.jpg", "f.jpg"]
    assert cache.find("d.jpg") is None
    cache.add("huge.jpg", bytes(101))
    assert cache.find("huge.jpg") is None
    with monkeypatch.context() as patch:
        patch.setattr(FileCache, "_listed", None)  # a large folder takes long to list
        again = FileCache(tmp_path, 100)
        assert again.find("b.jpg") == bytes(20)
    for name in ("g", "h"):
        again.add(f"{name}.jpg", bytes(20))
    assert len(list(tmp_path.iterdir())) == 4


STRANGE = (
    "", "0", "-1", "1e309", "nan", "true", "null", "é", "\0", "%00", "../..", "/", "0,0,1,1",
    "0.999999,0.999999,0.000001,0.000001", "[]", "' OR 1=1", "1" * 400, "٣", "W10=", "0.5",
)  # fmt: skip


def test_strange_values_of_fields_make_no_error_of_the_server(call, photo):
    statuses = set()
    for name in (*SearchFields.model_json_schema()["properties"], "positive", "negative", ""):
        for value in STRANGE:
            statuses.add(call.search({name: value}, image=photo).status_code)
    assert statuses <= {200, 404, 422}
    for value in (*map(quote, STRANGE), "%ff%fe", "%ed%a0%80", "a%0d%0ab"):
        for path in (
            "images/{}",
            "images/{}/thumbnail",
            "images/{}/neighbours",
            "duplicates?top={}",
        ):
            statuses.add(call.get(path.format(value)).status_code)
    assert statuses <= {200, 404, 422}


CHARSETS = ("utf-7", "unicode_escape", "idna", "punycode", "undefined", "utf-16", "none", "a" * 99)


@pytest.mark.parametrize("charset", CHARSETS)
def test_forms_in_other_codes_are_refused(call, charset):
    """Python's codecs raise errors of their own, or make lone surrogates, which no path has."""
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    for value in (b"+2AA-", rb"\ud800", b"xn--a-ecp.ru", b"a..b"):
        part = b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n%b\r\n--x--\r\n'
        answer = call("POST", "/api/v1/search", content=part % value, headers=headers)
        assert answer.status_code == 415 and "UTF-8" in answer.json()["detail"]
    headers = {"content-type": "Multipart/Form-Data; boundary=x; charset=UTF-8"}
    for value, status in ((b"red/0.png", 200), (b"\xff\xed\xa0\x80", 404), (b"\0", 404)):
        answer = call("POST", "/api/v1/search", content=part % value, headers=headers)
        assert answer.status_code == status


def test_empty_fields_are_counted_before_they_are_read(call, monkeypatch):
    """Their parser looks at each of them: four seconds for 8 MiB, in which nobody is answered."""
    monkeypatch.setattr(FormParser, "parse", lambda _: pytest.fail("parsed"))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = call("POST", "/api/v1/search", content=b"&" * 64, headers=headers)
    assert answer.status_code == 400 and "64 fields" in answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_of_two_lengths_is_refused(method):
    headers = {"transfer-encoding": "chunked", "content-length": "3"}
    answer = guarded()(method, "/x", content=b"abc", headers=headers)
    assert answer.status_code == 400 and "two lengths" in answer.json()["detail"]
    assert answer.headers["connection"] == "close"


def test_files_are_no_duplicates_to_set_aside(collection, photo):
    call = caller_of(collection, settings=ServerSettings(allow_changes=True))
    (group,) = call.get("duplicates?threshold=0").json()["groups"]
    keeper, other = group["keeper"]["id"], group["others"][0]["id"]
    fields = {"keeper": keeper, "threshold": "0", "image": other}
    answer = call.post("duplicates/set_aside", fields, image=photo)
    assert answer.status_code == 422 and "image" in answer.json()["detail"]
    assert call.get("duplicates/set_aside").json() == []


def test_all_methods_of_an_address_are_told(call):
    answer = call("DELETE", "/api/v1/duplicates/set_aside")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, POST"
    assert call("POST", "/").headers["allow"] == "GET"


def test_the_description_knows_what_forms_cannot_hold(call):
    """No form has a null, and its empty fields are none."""
    paths = call("GET", "/api/openapi.json").json()["paths"]
    assert "null" not in str(paths)
    forms = {
        path.removeprefix("/api/v1/"): each["post"]["requestBody"]["content"]["multipart/form-data"]
        for path, each in paths.items()
        if "post" in each
    }
    required = {path: form["schema"].get("required") for path, form in forms.items()}
    assert required == {
        "search": None,
        "compare": ["first", "second"],
        "explain": ["first", "second"],
        "duplicates/set_aside": ["keeper", "image"],
        "duplicates/told_apart": ["keeper", "image"],
        "duplicates/alike": ["image", "other"],
        "duplicates/undo": ["undo"],
        "errors/correct": ["id"],
        "errors/take_back": ["id"],
        "images": None,
        "teach/question": None,
        "teach/answers": ["query", "a", "b", "answer"],
        "teach/take_back": None,
        "teach/examples": ["id", "positive"],
        "teach/examples/take_back": ["answers"],
        "teach/learn": None,
        "teach/shown": ["generation"],
    }
