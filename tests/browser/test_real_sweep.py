"""The pages of what a sweep really left: a tiny ablation of generated women, from exams to comparison."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import ROOT, keep
from tests.browser.test_pages import settled, violations, visit
from tests.conftest import TINY_DATA, TINY_TRAINING

WORDS = [
    "ablation=soft_labels", "ablation.only=[soft,hard]", *TINY_DATA, *TINY_TRAINING, "seeds=1", "progress=quiet",
    # Labels that are never used: the variants are the same, and the pages say so.
    "pretraining.warmup_epochs=2",
]  # fmt: skip


@pytest.mark.slow
def test_every_page_of_a_real_sweep_is_whole(
    tmp_path: Path, served: Callable[..., str], open_page: Callable[..., Any]
) -> None:
    command = [sys.executable, "-m", "siamray.sweep", *WORDS, f"results={tmp_path / 'results'}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    address = served(f"results={tmp_path / 'results'}")
    page = open_page(address)
    assert "2 of 2 trials finished" in page.inner_text("#page")
    page.click("h2 a")
    settled(page, 2)
    trial = next((tmp_path / "results" / "soft_labels" / "trials").glob("soft-*")).name
    for path, figures, words in (
        ("/experiment/soft_labels", 2, "gives the predictions of soft to the last digit"),
        ("/experiment/soft_labels?view=tasks", 1, "All metrics side by side"),
        ("/experiment/soft_labels?view=training", 5, "effective rank"),
        (f"/experiment/soft_labels/trial/{trial}", 5, "Effective rank at the end"),
        (f"/experiment/soft_labels/trial/{trial}?view=distances", 1, "Epoch 2."),
        (f"/experiment/soft_labels/trial/{trial}?view=curves", 2, "test samples"),
        (f"/experiment/soft_labels/trial/{trial}?view=features", 1, "principal components"),
        ("/experiment/soft_labels/exams", 3, "registered onto the left"),
        ("/experiment/soft_labels/exams?view=pairs", 0, "Lesions missed"),
        ("/experiment/soft_labels/data", 2, "images are used"),
    ):
        visit(page, path)
        page.wait_for_function("words => document.querySelector('#page').innerText.includes(words)", arg=words)
        settled(page, figures)
        assert "could not be drawn" not in page.inner_text("#page"), path
        assert not violations(page), path
        keep(page, f"real-{path.replace('/', '-').replace('?', '-')}")
