"""The best and the worst pairs in the report: each shows its own patches, and what is not there is left out."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dashboards.pairs import HEADINGS, lines
from siamray.downstream.shown_pairs import COLUMNS, KINDS
from siamray.sweeps import contract, results
from tests.dashboards import generated_results


@pytest.fixture
def kept(tmp_path: Path) -> results.Examples:
    return results.load(generated_results.write(tmp_path / "e", epochs=1)).examples("soft-s0")


def test_what_the_evaluation_writes_is_what_the_contract_and_the_report_know() -> None:
    assert COLUMNS == contract.PAIR_COLUMNS
    assert set(KINDS) == set(HEADINGS)


def test_every_pair_shows_its_own_patches_with_the_lesions_side_framed(kept: results.Examples) -> None:
    parts = lines(kept)
    assert [part.count("<figure>") for part in parts] == [2, 1, 1]
    greys = []
    for words in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', "".join(parts)):
        greys.append(round(float(np.asarray(Image.open(BytesIO(base64.b64decode(words)))).mean())))
    assert greys == pytest.approx([40, 60, 80, 100, 120, 140, 160, 180], abs=2)
    # Right is the side of all; a normal patch has no lesion to frame.
    assert [part.count('alt="right" class=marked') for part in parts] == [2, 0, 1]
    assert "w000, mass<br>0.10" in parts[0]
    assert "w002, normal<br>1.40" in parts[1]


def test_names_are_shown_as_text(kept: results.Examples) -> None:
    hostile = "<script>alert(1)</script>"
    kept.pairs["woman_id"] = hostile
    assert hostile not in "".join(lines(kept))


def test_a_picture_that_does_not_fit_its_table_or_is_missing_shows_nothing(kept: results.Examples) -> None:
    assert lines(results.Examples()) == []
    assert lines(results.Examples(pairs=kept.pairs.head(3), pairs_sheet=kept.pairs_sheet)) == []
