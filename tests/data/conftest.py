"""What tests of stores elsewhere share: an S3 server of their own, and an empty place in it."""

import logging
import uuid
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from upath import UPath

from siamray.files import location

SECRET = "a-secret-key"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server of this process."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line per request
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> UPath:
    """An empty prefix in a bucket; the environment says how to reach it, as a user's would."""
    settings = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in (settings | {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    S3FileSystem.clear_instance_cache()  # they remember the environment they were made in
    boto3.client("s3", endpoint_url=server, region_name="us-east-1").create_bucket(Bucket="bucket")
    place = location(f"s3://bucket/stores of/[{uuid.uuid4().hex}]")
    assert isinstance(place, UPath)
    return place
