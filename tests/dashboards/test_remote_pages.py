"""The server's pages of results on an S3 server: whole, in step with it, and readable while it does not answer."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from upath import UPath

from dashboards import source as sources
from dashboards.server import create_app
from dashboards.source import Source
from siamray.errors import UserError
from siamray.files import location
from tests.dashboards import generated_results
from tests.data.conftest import SECRET, s3, server

__all__ = ["s3", "server"]

PAGES = ("/", "/experiment/e", "/experiment/e?view=trials", "/experiment/e/trial/soft-s0?view=features",
         "/experiment/e/exams?beside=epoch:0", "/experiment/e/data")  # fmt: skip


@pytest.fixture(autouse=True)
def _on_a_machine_that_asks_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "REMOTE_SECONDS", 0.0)


def put(folder: Path, place: UPath) -> None:
    """Copies an experiment as it is to a server."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            place.fs.pipe_file((place / folder.name / path.relative_to(folder).as_posix()).path, path.read_bytes())


def asked(client: Any, url: str) -> str:
    """What the server answers to a browser that opens a page: the callback that makes it, as the browser asks it."""
    path, _, query = url.partition("?")
    show = next(one for one in client.get("/_dash-dependencies", headers={"Host": "localhost"}).json
                if "page.children" in one["output"])  # fmt: skip
    values = {"url.pathname": path, "url.search": f"?{query}" if query else "", "dark.data": False}

    def told(one: dict[str, str]) -> Any:
        known = {"id": one["id"], "property": one["property"], "value": values.get(f"{one['id']}.{one['property']}")}
        return [] if one["id"].startswith("{") else known

    body = {
        "output": show["output"], "changedPropIds": ["url.pathname"], "inputs": [told(one) for one in show["inputs"]],
        "state": [told(one) for one in show["state"]],
        "outputs": [{"id": "page", "property": "children"}, [], {"id": "drawn", "property": "data"},
                    {"id": "title", "property": "data"}],
    }  # fmt: skip
    answer = client.post("/_dash-update-component", json=body, headers={"Host": "localhost"})
    assert answer.status_code == 200, answer.text
    return json.dumps(answer.json["response"]["page"]["children"], ensure_ascii=False)


def test_every_kind_of_page_opens_on_a_server_and_follows_it(s3: UPath, tmp_path: Path) -> None:
    folder = generated_results.write(tmp_path / "e", epochs=2, seeds=(0,))
    put(folder, s3)
    client = create_app(Source(str(s3))).server.test_client()
    for url in PAGES:
        text = asked(client, url)
        assert "cannot be shown" not in text, url
        assert "could not be drawn" not in text, url
        assert "What is shown is old" not in text, url
    assert "7 of 7 trials finished" in asked(client, "/experiment/e")
    picture = client.get("/picture/e/soft-s0/w007_MLO/left.png", headers={"Host": "localhost"})
    assert picture.data == (folder / "trials" / "soft-s0" / "examples" / "w007_MLO_left.png").read_bytes()
    record = json.loads((folder / "trials" / "soft-s0" / "trial.json").read_text()) | {"trial_id": "more", "seed": 7}
    s3.fs.pipe_file((s3 / "e" / "trials" / "more" / "trial.json").path, json.dumps(record).encode())
    assert "8 of 8 trials finished" in asked(client, "/experiment/e")
    assert SECRET not in asked(client, "/")


def test_a_server_that_drops_leaves_what_was_read_and_says_so_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_MAX_ATTEMPTS": "1",
                        "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="bucket")
    place = location("s3://bucket/dropping")
    assert isinstance(place, UPath)
    put(generated_results.write(tmp_path / "e", epochs=2, seeds=(0,)), place)
    source = Source(str(place))
    client = create_app(source).server.test_client()
    before = {url: asked(client, url) for url in PAGES}
    moto.stop()
    for url in PAGES:
        text = asked(client, url)
        assert "What is shown is old" in text, url
        assert "cannot be reached" in text, url
        assert "Traceback" not in text, url
        # The page is there as it was, with a line more.
        assert len(text) > len(before[url]), url
    assert "There is no trial" in asked(client, "/experiment/e/trial/never")
    assert source.stamp() == source.stamp()
    with pytest.raises(UserError, match="cannot be reached"):
        Source(str(place))
    back = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    back.start()
    try:
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="bucket")
        put(tmp_path / "e", place)
        assert asked(client, "/experiment/e").count("What is shown is old") == 0
        assert "What is shown is old" not in asked(client, "/")
    finally:
        back.stop()
