"""The server of the pages: who is admitted, what it reads, that it writes nothing, and how a command's mistakes end."""

import hashlib
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flask import Flask
from plotly.utils import PlotlyJSONEncoder
from upath import UPath

from dashboards import __main__ as command
from dashboards.address import read_address
from dashboards.blocks import Block, blocks, changes
from dashboards.guard import COOKIE, guard, is_loopback
from dashboards.options import AppOptions, ExportOptions, parse
from dashboards.pages import frame, overview
from dashboards.server import create_app
from dashboards.source import Source, stamp_of
from siamray.errors import UserError
from siamray.sweeps import results
from tests.dashboards import generated_results, generated_search

ROOT = Path(__file__).parents[2]
EVERY_VIEW = {
    "/experiment/soft_labels": ("answer", "tasks", "subgroups", "cost", "differences", "training", "trials", "setup"),
    "/experiment/soft_labels/trial/soft-s0": (
        *("training", "distances", "curves", "labels", "features", "options", "machine"),
    ),
    "/experiment/soft_labels/exams": ("exams", "pairs"),
    "/experiment/soft_labels/data": ("",),
    "/experiment/method": ("history", "parallel", "importance", "slices", "front", "confirmation", "failures"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    generated_results.write(folder / "soft_labels", epochs=3, failed=[("rank", 2, "loss is not finite in epoch 3")])
    generated_search.write(folder / "method")
    return folder


def shown(source: Source, url: str) -> str:
    """What a page holds, as one text."""
    path, _, query = url.partition("?")
    made, _ = frame.page(source, read_address(path, query), dark=False)
    return json.dumps([block.part for block in made], cls=PlotlyJSONEncoder, ensure_ascii=False)


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_view_is_made_and_nothing_is_written(folder: Path) -> None:
    before = fingerprint(folder)
    source = Source(str(folder))
    for path, views in EVERY_VIEW.items():
        for view in views:
            text = shown(source, f"{path}?view={view}")
            assert "could not be drawn" not in text, (path, view)
            assert "cannot be shown" not in text, (path, view)
    shown(source, "/")
    assert fingerprint(folder) == before


def test_every_figure_says_n_and_what_its_interval_is(folder: Path) -> None:
    source = Source(str(folder))
    captions = 0
    for path, views in EVERY_VIEW.items():
        for view in views:
            made, _ = frame.page(source, read_address(path, f"view={view}"), dark=True)
            for block in made:
                for inner in block.part._traverse():
                    if type(inner).__name__ == "Graph" and (caption := inner.figure["layout"]["meta"]["caption"]):
                        captions += 1
                        assert " n = " in f" {caption}" or " trials" in caption, caption
    assert captions > 50


def test_two_epochs_of_an_exam_stand_side_by_side(folder: Path) -> None:
    source = Source(str(folder))
    page = "/experiment/soft_labels/exams"
    alone = shown(source, page)
    assert ", epoch 2 (the last)" in alone
    assert "The trial kept the maps of epoch 0 (before), epoch 1 and epoch 2 (the last)" in alone
    assert '"figure-exam-soft-s0-0-' not in alone
    both = shown(source, f"{page}?beside=epoch:0&epoch=1")
    assert '"figure-exam-soft-s0-1-w007-mlo-2"' in both
    assert '"figure-exam-soft-s0-0-w007-mlo-2"' in both
    assert "common to all exams of the trials and epochs shown" in both
    assert "common to all exams of the same trial and epoch" in shown(source, f"{page}?beside=epoch:0&scale=own")
    # Another trial is shown at the same epoch; an epoch that is none is none.
    assert '"figure-exam-hard-s0-1-w007-mlo-2"' in shown(source, f"{page}?beside=hard-s0&epoch=1")
    for wrong in ("beside=epoch:last", "beside=epoch:7", "beside=epoch:-1", "epoch=7", "beside=epoch:"):
        figures = re.findall('"figure-exam-[^"]*"', shown(source, f"{page}?{wrong}"))
        assert figures == re.findall('"figure-exam-[^"]*"', alone), wrong
    # Soft labels are those of the mixture that was fitted then.
    soft = shown(source, f"{page}?overlay=soft&beside=epoch:0")
    assert "soft-s0 has no fitted mixture after epoch 0 (before)" in soft
    assert "soft label of 57 pairs" in soft


def test_results_that_kept_the_last_maps_and_two_components_alone_are_shown(tmp_path: Path) -> None:
    path = generated_results.write(tmp_path / "e", epochs=3, seeds=(0,))
    examples = path / "trials" / "soft-s0" / "examples"
    for file in examples.glob("maps_epoch*.parquet"):
        file.unlink()
    features = pd.read_parquet(examples / "features.parquet")
    kept = features.drop(columns=["components", "vendor", "site", "source"])
    results.write_parquet(examples / "features.parquet", kept)
    source = Source(str(tmp_path))
    text = shown(source, "/experiment/e/exams?beside=epoch:0&epoch=1")
    assert "The trial kept the maps of epoch 2 (the last) alone" in text
    assert "this trial, epoch" not in text
    text = shown(source, "/experiment/e/trial/soft-s0?view=features&map=neighbours&by=vendor")
    assert "principal components of the encoder" in text
    assert "t-SNE" not in text
    assert "kind of lesion" in text
    assert '"vendor"' not in text
    assert '"site"' not in text


def test_what_a_browser_alone_shows_draws_no_page_anew(folder: Path) -> None:
    source = Source(str(folder))
    pages = [
        frame.page(source, read_address("/experiment/soft_labels/exams", f"overlay=none{words}"), dark=False)[0]
        for words in ("", "&zoom=10,20,30,40&window=50&level=20")
    ]
    assert pages[0] is pages[1]


def test_the_overview_tells_states_failures_and_time_left(folder: Path) -> None:
    text = shown(Source(str(folder)), "/")
    for words in ("20 of 21 trials finished, 1 failed", "loss is not finite in epoch 3", "Variants against soft:",
                  "Which loss and rate suit", "pruned"):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/experiment/soft_lables", "no experiment 'soft_lables'"),
        ("/nowhere", "There is no such page"),
        ("/experiment/soft_labels/trial/..%2F..%2F..%2Fetc", "There is no trial '../../../etc'"),
        ("/experiment/%2e%2e", "no experiment '..'"),
        ("/experiment/soft_labels/trial/rank-s2", "loss is not finite in epoch 3"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, url: str, words: str) -> None:
    assert words in shown(Source(str(folder)), url)


def test_results_that_are_empty_damaged_or_newer_hurt_no_other_experiment(tmp_path: Path) -> None:
    assert "No experiment here yet" in shown(Source(str(tmp_path)), "/")
    generated_results.write(tmp_path / "whole", epochs=2, seeds=(0,))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "experiment.json").write_text('{"schema": 1, "na')
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "experiment.json").write_text('{"schema": 99}')
    (tmp_path / "whole" / "trials" / "hard-s0" / "trial.json").write_text("{")
    source = Source(str(tmp_path))
    text = shown(source, "/")
    assert "experiment.json is not JSON" in text
    assert "written by a newer siamray" in text
    assert "6 of 7 trials finished, 1 failed" in text
    assert "written by a newer siamray" in shown(source, "/experiment/newer")
    assert "trial.json is not JSON" in shown(source, "/experiment/whole?view=trials")
    assert "cannot be read: trial.json is not JSON" in shown(source, "/experiment/whole/trial/hard-s0")
    # A table that is damaged is told in its place.
    (tmp_path / "whole" / "comparison.parquet").write_bytes(b"PAR1")
    assert "not readable as Parquet" in shown(Source(str(tmp_path)), "/")


def test_a_folder_of_one_experiment_is_shown_alone(folder: Path) -> None:
    source = Source(str(folder / "method"))
    assert source.names() == ["method"]
    assert "soft_labels" not in shown(source, "/").replace("ablation=soft_labels", "")
    assert source.read("method").status is not None


def test_an_experiment_is_read_again_when_its_files_change_and_only_then(tmp_path: Path) -> None:
    path = generated_results.write(tmp_path / "e", epochs=2, seeds=(0,))
    source = Source(str(tmp_path))
    first = source.read("e")
    assert source.read("e") is first
    assert first.status is not None
    record = {key: value for key, value in first.status.loaded.trial("soft-s0").items() if key != "schema"}
    before = stamp_of(path)
    results.write_trial(path / "trials" / "soft-s9", {**record, "trial_id": "soft-s9", "seed": 9})
    assert stamp_of(path) != before
    deadline = time.monotonic() + 5
    while source.read("e") is first and time.monotonic() < deadline:
        time.sleep(0.05)
    second = source.read("e").status
    assert second is not None
    assert "soft-s9" in set(second.loaded.trials["trial_id"])


def test_a_place_that_drops_shows_what_was_read_with_its_age(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dashboards import source as module

    generated_results.write(tmp_path / "e", epochs=2, seeds=(0,))
    monkeypatch.setattr(module, "REMOTE_SECONDS", 0.0)
    source = Source(str(tmp_path))
    source.remote = True
    assert source.read("e").problem == ""

    def gone(_: object) -> Path:
        raise UserError("s3://bucket/e: the server does not answer")

    monkeypatch.setattr(module, "fetched", gone)
    read = source.read("e")
    assert read.status is not None
    text = shown(source, "/experiment/e")
    assert re.search("What is shown is old, read at [0-9:]{8}: s3://bucket/e: the server does not answer", text)
    assert "The answer" in text


def test_results_at_a_url_are_shown_and_looked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dashboards import source as module

    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "REMOTE_SECONDS", 0.0)
    place = f"memory://results-{time.time_ns()}"
    source = Source(place)
    assert "No experiment here yet" in shown(source, "/")
    files = UPath(place)
    folder = generated_results.write(tmp_path / "e", epochs=2, seeds=(0,))
    files.fs.put(str(folder), f"{files.path}/e", recursive=True)
    assert "7 of 7 trials finished" in shown(source, "/")
    assert "The answer" in shown(source, "/experiment/e")
    first = source.read("e")
    assert source.read("e").made is first.made
    record = json.loads((folder / "trials" / "soft-s0" / "trial.json").read_text())
    record |= {"trial_id": "soft-s7", "seed": 7}
    (tmp_path / "trial.json").write_text(json.dumps(record))
    files.fs.put(str(tmp_path / "trial.json"), f"{files.path}/e/trials/soft-s7/trial.json")
    assert "8 of 8 trials finished" in shown(source, "/experiment/e")


def guarded(token: str | None) -> Any:
    server = Flask("test")
    server.get("/")(lambda: "pages")
    guard(server, token)
    return server.test_client()


def test_elsewhere_the_token_is_asked_for_once_and_then_a_cookie_does() -> None:
    client = guarded("secret")
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    answer = client.get("/?token=secret")
    assert answer.status_code == 302
    assert answer.location == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert client.get("/").text == "pages"
    client.set_cookie(COOKIE, "wrong")
    assert client.get("/").status_code == 403


def test_on_this_machine_another_site_whose_name_leads_here_reads_nothing() -> None:
    client = guarded(None)
    for name in ("127.0.0.1:8050", "localhost:8050", "localhost", "[::1]:8050"):
        assert client.get("/", headers={"Host": name}).status_code == 200, name
    assert client.get("/", headers={"Host": "evil.example:8050"}).status_code == 403
    policy = client.get("/", headers={"Host": "localhost"}).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "connect-src 'self'" in policy


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.4", False)]
)
def test_only_addresses_of_this_machine_need_no_token(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_pictures_are_looked_up_and_paths_are_not_followed(folder: Path) -> None:
    client = create_app(Source(str(folder))).server.test_client()
    local = {"Host": "localhost"}
    found = client.get("/picture/soft_labels/soft-s0/w007_MLO/left.png", headers=local)
    assert found.status_code == 200
    assert found.data.startswith(b"\x89PNG")
    for path in (
        "soft_labels/soft-s0/w007_MLO/../../trial.json", "soft_labels/..%2F..%2F/w007_MLO/left.png",
        "..%2Fx/soft-s0/w007_MLO/left.png", "soft_labels/soft-s0/..%2F..%2Fw007_MLO/left.png",
        "soft_labels/soft-s0/w007_MLO/middle.png", "soft_labels/hard-s1/w007_MLO/left.png",
    ):  # fmt: skip
        answer = client.get(f"/picture/{path}", headers=local)
        # Whatever is no picture's address is the frame of the pages, as every address is.
        assert answer.status_code == 404 or answer.mimetype == "text/html", path
        assert b"trial_id" not in answer.data


def test_unchanged_blocks_are_kept_and_other_pages_are_drawn_whole(folder: Path) -> None:
    source = Source(str(folder))
    made, _ = frame.page(source, read_address("/experiment/method", "view=parallel"), dark=False)
    ids = [block.component.id for block in made]  # type: ignore[attr-defined]
    known = {block.key: block.digest for block in made}
    chosen = {"objective": "validation_patches_linear_auc"}
    assert changes(ids, known, chosen, made) == [None] * len(made)
    changed = [Block(made[0].key, made[0].part, "other"), *made[1:]]
    assert changes(ids, known, chosen, changed)[0] is made[0].part  # type: ignore[index]
    assert changes(ids, known, chosen, made[1:]) is None
    # After going back a control shows what is not chosen any more.
    redrawn = changes(ids, known, {"objective": "cpu_s"}, made)
    assert sum(part is not None for part in redrawn or []) == 1
    # How the table is sorted does not draw it anew.
    again, _ = frame.page(source, read_address("/experiment/method", "view=parallel&sort=number:desc"), dark=False)
    assert [block.digest for block in blocks([block.part for block in again])][-1] == made[-1].digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["result=x"], "result: no such option of python -m dashboards; did you mean 'results'"),
        (["port=http"], "port=http: not a whole number"),
        (["port=70000"], "port=70000: must be from 0 to 65535"),
        (["results"], "'results': options are written option=value"),
        (["results="], "results=: no value given"),
        (["results=/nowhere/x"], "results=/nowhere/x: no such folder; run a sweep first"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        command.main(words)


def test_options_are_typed_and_refused_where_they_are_not_allowed() -> None:
    assert parse(AppOptions, ["port=9000", "host=localhost"], "x") == AppOptions(port=9000, host="localhost")
    with pytest.raises(UserError, match="format=svgg: not an allowed value; did you mean 'svg'"):
        parse(ExportOptions, ["format=svgg"], "x")


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("results [results]", "port [8050]", "host [127.0.0.1]"))


def test_a_port_that_is_taken_and_a_newer_schema_end_in_one_line_with_code_2(tmp_path: Path) -> None:
    generated_results.write(tmp_path / "e", epochs=0, seeds=(0,), examples=False)
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "experiment.json").write_text('{"schema": 99}')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, message in (
            ([f"results={tmp_path}", f"port={port}"], f"port={port}: 127.0.0.1 cannot be listened on (address already"),
            ([f"results={newer}"], "written by a newer siamray"),
        ):
            ran = subprocess.run(
                [sys.executable, "-m", "dashboards", *words], capture_output=True, text=True, cwd=ROOT, check=False
            )
            assert ran.returncode == 2, ran.stderr
            assert message in ran.stderr
            assert len(ran.stderr.strip().splitlines()) == 1


def as_a_user_without_rights(look: Callable[[], str]) -> str:
    """What a function says in a process of its own, that of nobody where this one is root's, who may read all."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # Whatever happens, the child must not go on with the tests, nor hang in a lock that a thread held.
        signal.alarm(300)
        try:
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.setgroups([])
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
            os.write(writing, look().encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        words = said.read()
    os.waitpid(child, 0)
    return words


def test_a_folder_without_permission_is_told_and_hurts_no_other(tmp_path: Path) -> None:
    # pytest's own folders are their owner's alone.
    with tempfile.TemporaryDirectory() as open_to_all:
        root = Path(open_to_all)
        root.chmod(0o755)
        generated_results.write(root / "open", epochs=0, seeds=(0,), examples=False)
        closed = root / "closed"
        closed.mkdir(mode=0o000)
        told = as_a_user_without_rights(lambda: str(Source(str(closed)).place))
        assert told == f"UserError: results={closed}: permission denied; see that you may read the folder"
        closed.chmod(0o755)
        generated_results.write(closed, epochs=0, seeds=(0,), examples=False)
        (closed / "experiment.json").chmod(0o000)
        text = as_a_user_without_rights(lambda: shown(Source(str(root)), "/"))
        assert "ermission denied" in text
        assert "7 of 7 trials finished" in text
        (root / "open" / "trials" / "soft-s0").chmod(0o000)
        text = as_a_user_without_rights(lambda: shown(Source(str(root)), "/experiment/open"))
        assert "7 of 7" not in text
        assert "trials finished" in text


def test_verdicts_are_counted_by_what_they_say() -> None:
    words = {
        "a": "a is below soft: effect",
        "b": "no evidence that b differs from soft: effect",
        "c": "one seed: cannot tell c from the luck of its seed",
        "d": "d and soft are equivalent within .02: effect",
        "e": "e gives the predictions of soft to the last digit: what it changes had no effect",
        "soft": "soft is the reference: .8",
    }
    rows = pd.DataFrame(
        {"variant": list(words), "verdict": list(words.values()), "reference": "soft", "role": "variant"}
    )
    assert overview.tally_words(rows) == (
        "Variants against soft: 1 below (a); 1 equivalent (d); 1 with no evidence of a difference; "
        "1 with the very predictions of the reference; 1 with one seed: not told apart from its luck."
    )
