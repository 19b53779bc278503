"""Images of an S3 server on the loopback: `embed s3://...`, its errors, and what was left out."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deep_ranking.cli.main import run_command
from deep_ranking.files import InputError
from deep_ranking.search.bulk_embedding import embed_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of botocore and moto
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("s3") / "photos"
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
        (root / f"class {number % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"class {number % 3}" / f"Ünï {number}.png")
    return root


@pytest.fixture(scope="module")
def server():
    """An S3 server; the environment names it, and has credentials."""
    from moto.server import ThreadedMotoServer

    serving = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "something",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        yield serving
    serving.stop()


@pytest.fixture
def bucket(server, photos):
    """The images in a bucket; a file system of fsspec."""
    import s3fs

    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("bucket")
    store.put(f"{photos}/", "bucket/photos/", recursive=True)
    yield store
    store.rm("bucket", recursive=True)


def table_of(folder):
    parts = sorted(Path(folder).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts])


def test_a_bucket_gives_the_table_of_a_folder(bucket, photos, compiled_once, tmp_path, capsys):
    model = compiled_once / "m.h5"
    expected = embed_table(photos, tmp_path / "local.parquet", model=model, part_size=15)
    argv = f"-m {model} --images s3://bucket/photos -o {tmp_path}/s3.parquet --part_size 15"
    assert run_command("embed", argv.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "40 images, 3 classes (the first folder)."
    assert f"{tmp_path}/s3.parquet: 40 images in 3 parts." in printed[-1]
    found = table_of(tmp_path / "s3.parquet").replace_schema_metadata()
    assert found.equals(table_of(expected.path).replace_schema_metadata())

    def meanwhile(_):
        if bucket.exists("bucket/photos/class 0/Ünï 3.png"):
            bucket.rm("bucket/photos/class 0/Ünï 3.png")
        bucket.copy("bucket/photos/class 0/Ünï 9.png", "bucket/photos/class 1/Ünï 4.png")

    done = embed_table(
        "s3://bucket/photos", tmp_path / "x.parquet", model=model, when_listed=meanwhile
    )
    assert [each[:2] for each in done.left_out] == [
        ("class 0/Ünï 3.png", "gone"),
        ("class 1/Ünï 4.png", "changed"),
    ]
    assert done.num_rows == 38


def test_what_is_missing_is_one_line(bucket, server, compiled_once, tmp_path, monkeypatch):
    options = {"output": tmp_path / "t.parquet", "model": compiled_once / "m.h5"}
    for address, said in (
        ("s3://no-such-bucket", "no such bucket, folder or object"),
        ("s3://bucket/no such folder", "no such bucket, folder or object"),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(address)}: {said}$"):
            embed_table(address, **options)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"^s3://bucket/photos: no credentials \(.*\); for S3 set"):
        embed_table("s3://bucket/photos", **options)
    assert not list((tmp_path / "t.parquet").glob("[!.]*"))
