"""A server of generated results and a browser that looks at it; Debian's Chromium, driven by playwright."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards import generated_results, generated_search

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("SIAMRAY_SCREENSHOTS")
"""Folder in which the tests keep what they saw, as artefacts of a run."""

try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:  # told as the reason of the skip
    sync_playwright = None  # type: ignore[assignment]

REASON = (
    "needs Debian's browser (apt install chromium)"
    if CHROMIUM is None
    else "needs playwright (pip install -e '.[dev]')"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None or sync_playwright is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation with a failed trial, a search, and a folder that is none of the two."""
    folder = tmp_path_factory.mktemp("results")
    generated_results.write(
        folder / "soft_labels", epochs=5, failed=[("rank", 2, "loss is not finite in epoch 3")],
        design={"kind": "leave_one_out", "factors": {}},
    )  # fmt: skip
    generated_search.write(folder / "method")
    (folder / "notes").mkdir()
    return folder


def serve(*words: str) -> tuple[subprocess.Popen[str], str]:
    """Starts the dashboards as a user does; returns the process and the address that it prints."""
    command = [sys.executable, "-m", "dashboards", *words, "port=0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http://" in line, line
    return process, line[line.index("http://") :].strip()


def stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


@pytest.fixture(scope="session")
def address(results_folder: Path) -> Iterator[str]:
    process, address = serve(f"results={results_folder}")
    yield address.rstrip("/")
    stop(process)


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """Starts servers of a test's own and returns their addresses; they stop when its pages are closed."""
    processes = []

    def started(*words: str) -> str:
        process, address = serve(*words)
        processes.append(process)
        return address

    yield started
    for process in processes:
        stop(process)


# Of a module, as the driver's event loop would run in all tests behind it, and those have loops of their own.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    # GPU stalls are warnings of the machine's own driver; what a page itself says is all errors.
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: "Browser", served: Callable[..., str]) -> "Iterator[Callable[..., Page]]":
    """Opens pages; at the end none may have written an error to its console, or asked another server for anything.

    Comes after ``served``, so that its pages close first: one that asks on when its server is gone says so.
    """
    contexts = []
    complaints: list[str] = []

    def opened(url: str, *, width: int = 1280, dark: bool = False, ready: str = "#page h1") -> "Page":
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(f"asked {asked.url}") if foreign(asked.url) else None)
        page.goto(url)
        page.wait_for_selector(ready, timeout=30_000)
        return page

    def foreign(url: str) -> bool:
        return not url.startswith(("http://127.0.0.1", "data:", "blob:", "file:"))

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def keep(page: Any, name: str) -> None:
    """Keeps what a test saw, where SIAMRAY_SCREENSHOTS names a folder."""
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True)
