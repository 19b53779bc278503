"""Requests that schemathesis generates from the server's own description."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest
from served import make_served, use_stub_engine, write_photos
from served_program import served_program

from deep_ranking.datasets.ratings import read_ratings

FEWEST = 1_000  # requests of each run
SETTINGS = """
request-timeout = 30
continue-on-failure = true
generation = {{ deterministic = true, max-examples = 45 }}
cache = {{ enabled = false }}
warnings = false
# The map is being made (202), nothing may be changed (403), what was set aside is gone (410).
[checks.positive_data_acceptance]
expected-statuses = ["200", "202", "403", "404", "410"]

[dictionaries]
ids = {{ values = {ids} }}
keepers = {{ values = {keepers} }}
copies = {{ values = {copies} }}
undo = {{ values = {undo} }}
queries = {{ values = {queries} }}
raters = {{ values = ["Ann", "Bob"] }}
paths = {{ values = ["red/0.png", "blue/copy.png"] }}

names = {{ values = ["index"] }}

[parameters]
"body.collection" = {{ dictionary = "names", probability = 0.9 }}
"query.collection" = {{ dictionary = "names", probability = 0.9 }}
"path.id" = {{ dictionary = "ids", probability = 0.7 }}
"body.id" = {{ dictionary = "ids", probability = 0.5 }}
"body.path" = {{ dictionary = "paths", probability = 0.5 }}
"body.ids" = {{ dictionary = "ids", probability = 0.7 }}
"body.first" = {{ dictionary = "ids", probability = 0.5 }}
"body.second" = {{ dictionary = "ids", probability = 0.5 }}
"body.query" = {{ dictionary = "queries", probability = 0.9 }}
"body.a" = {{ dictionary = "ids", probability = 0.9 }}
"body.b" = {{ dictionary = "copies", probability = 0.9 }}
"body.rater" = {{ dictionary = "raters", probability = 0.5 }}
"body.positive[*]" = {{ dictionary = "copies", probability = 0.9 }}
"body.keeper" = {{ dictionary = "keepers", probability = 0.9 }}
"body.image[*]" = {{ dictionary = "copies", probability = 0.9 }}
"body.undo" = {{ dictionary = "undo", probability = 0.7 }}

# No schema says whether fields fit together, an image can be read or a cursor is of this search.
[[operations]]
include-path = [
    "/api/v1/search",
    "/api/v1/compare",
    "/api/v1/explain",
    "/api/v1/images",
    "/api/v1/images/{{id}}/neighbours",
    "/api/v1/duplicates/set_aside",
    "/api/v1/teach/answers",
    "/api/v1/teach/examples",
    "/api/v1/teach/examples/take_back",
    "/api/v1/teach/shown",
    "/api/v1/duplicates/told_apart",
    "/api/v1/duplicates/alike",
    "/api/v1/errors/correct",
    "/api/v1/errors/take_back",
]
checks = {{ positive_data_acceptance = {{ enabled = false }} }}

# Their fields may all be missing, and an empty list of a form sends nothing.
[[operations]]
include-path = ["/api/v1/teach/question", "/api/v1/teach/take_back", "/api/v1/teach/learn"]
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false
"""
READING = {
    "GET /api/v1/health",
    "GET /api/v1/collections",
    "GET /api/v1/images/ID",
    "GET /api/v1/images/ID/thumbnail",
    "GET /api/v1/images/ID/neighbours",
    "GET /api/v1/duplicates",
    "GET /api/v1/duplicates/set_aside",
    "GET /api/v1/duplicates/told_apart",
    "POST /api/v1/search",
    "GET /api/v1/map",
    "GET /api/v1/errors",
    "POST /api/v1/images",
    "POST /api/v1/compare",
    "POST /api/v1/explain",
}
CHANGING = {
    "--allow_changes": {
        "POST /api/v1/duplicates/set_aside",
        "POST /api/v1/duplicates/undo",
    },
    "--teach": {
        "GET /api/v1/teach/learning",
        "GET /api/v1/teach",
        "POST /api/v1/teach/question",
        "POST /api/v1/teach/answers",
        "POST /api/v1/teach/take_back",
    },
    "--corrections": {
        "GET /api/v1/errors/corrections",
        "POST /api/v1/errors/correct",
        "POST /api/v1/errors/take_back",
    },
}

# Whether one of these is right depends on what was answered or learned before, or on both ids.
AFTER_OTHERS = {
    "POST /api/v1/duplicates/told_apart",
    "POST /api/v1/duplicates/alike",
    "POST /api/v1/teach/examples",
    "POST /api/v1/teach/examples/take_back",
    "POST /api/v1/teach/learn",
    "POST /api/v1/teach/shown",
}


@pytest.fixture
def folder(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        use_stub_engine(patch)
        write_photos(tmp_path / "photos")
        make_served(tmp_path / "index", tmp_path / "photos")
    return tmp_path


def known_ids(address):
    results = httpx.post(f"{address}/search", data={"path": "blue/0.png"}).json()["results"]
    return {each["path"]: each["id"] for each in results}


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [(), ("--allow_changes", "--teach", "--rater", "Ann", "--corrections")],
    ids=["reading", "changing"],
)
def test_generated_requests_get_the_answers_that_are_described(folder, flags):
    errors, photos = folder / "errors.txt", folder / "photos"
    before = Counter(each.read_bytes() for each in photos.rglob("*.png"))
    with served_program(folder, "--index", "index", "--log", *flags, errors=errors) as (address, _):
        ids, undo = known_ids(f"{address}/api/v1"), ["20260101-000000-000000"]
        if "--allow_changes" in flags:
            data = {"keeper": ids["blue/0.png"], "image": ids["blue/copy.png"], "threshold": "0"}
            done = httpx.post(f"{address}/api/v1/duplicates/set_aside", data=data)
            undo = [done.json()["undo"]]
        settings = SETTINGS.format(
            ids=json.dumps(list(ids.values())),
            queries=json.dumps([ids["red/0.png"], ids["green/0.png"]]),
            keepers=json.dumps([ids["blue/0.png"]]),
            copies=json.dumps([ids["blue/copy.png"], ids["blue/1.png"]]),
            undo=json.dumps(undo),
        )
        (folder / "schemathesis.toml").write_text(settings)
        tried = subprocess.run(
            [
                Path(sys.executable).with_name("st"),
                "run",
                f"{address}/api/openapi.json",
                "--no-color",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert httpx.get(f"{address}/api/v1/health").status_code == 200
    lines = errors.read_text().splitlines()
    answers = Counter(re.findall(r"^(\S+ /api/v1/\S+) (\d+) [0-9.]+ s$", "\n".join(lines), re.M))
    told = f"{tried.stdout[-6000:]}\n{answers.most_common(40)}"
    assert tried.returncode == 0, told
    assert answers.total() >= FEWEST, told
    assert not any(status.startswith("5") for _, status in answers), told
    assert "Traceback" not in "".join(lines)
    answered = {
        re.sub("[0-9a-f]{32}", "ID", what) for what, status in answers if status in ("200", "202")
    }
    changing = set().union(*(CHANGING.get(flag, set()) for flag in flags))
    assert answered - AFTER_OTHERS == READING | changing, told
    if "--teach" in flags:
        assert len(read_ratings(folder / "index.ratings.csv"))
    assert Counter(each.read_bytes() for each in photos.rglob("*.png")) == before
