"""The pairs shown: the extremes of test women, one of each woman, with the patches they were scored by."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
from PIL import Image

from siamray.downstream.shown_pairs import choose, write_pairs


def scored(count: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "sample_id": [f"s{place:02d}" for place in range(count)],
            "woman_id": [f"w{place // 2:02d}" for place in range(count)],
            "label": np.arange(count) % 2,
            "distance": rng.random(count),
        }
    )


def test_the_extremes_of_each_kind_come_first_and_no_woman_twice() -> None:
    table = scored()
    chosen = choose(table)
    for kind, label, order in (("missed", 1, 1), ("found", 1, -1), ("false alarm", 0, -1)):
        of_kind = chosen[chosen.kind == kind]
        expected = sorted(table[table.label == label].distance, key=lambda value, order=order: order * value)[:6]
        assert of_kind.distance.tolist() == expected
        assert of_kind.woman_id.is_unique
    crowded = table.assign(woman_id="one")
    assert choose(crowded).groupby("kind").size().eq(1).all()


def test_the_sheet_holds_the_patches_of_its_table_left_beside_right(tmp_path: Path) -> None:
    samples = scored().drop(columns="distance").assign(entry_id="e", side="left", category="mass")
    values = scored()[["sample_id", "distance"]].rename(columns={"distance": "value"})
    test = values.assign(score="distance", split="test")
    others = [test.assign(score="linear", value=9.0), test.assign(split="validation", value=9.0).head(0)]
    seen: list[str] = []

    def cut(part: pd.DataFrame, context: int = 0) -> np.ndarray:
        seen.extend(part.sample_id)
        number = part.sample_id.str[1:].astype(int).to_numpy(dtype=np.float32) / 20
        left = np.broadcast_to(number[:, None, None], (len(part), 4, 4))
        return np.stack([left, left + 1], axis=1).astype(np.float32)

    write_pairs(samples, pd.concat([test, *others]), cut, tmp_path)
    table = pd.read_parquet(tmp_path / "pairs.parquet")
    assert table.sample_id.tolist() == seen
    assert table.distance.max() <= 1
    sheet = np.asarray(Image.open(tmp_path / "pairs.png"))
    assert sheet.shape == (4 * len(table), 8)
    numbers = table.sample_id.str[1:].astype(int).to_numpy() / 20
    assert np.abs(sheet[::4, 0] - (numbers + 2.5) / 5.5 * 255).max() < 0.51
    assert np.abs(sheet[::4, 7] - (numbers + 3.5) / 5.5 * 255).max() < 0.51


def test_without_a_scored_test_woman_the_table_is_empty_and_no_picture_is_made(tmp_path: Path) -> None:
    samples = scored().drop(columns="distance").assign(entry_id="e", side="left", category="mass")
    predictions = pd.DataFrame({"sample_id": ["s00"], "value": [1.0], "score": ["distance"], "split": ["validation"]})
    cut = Mock()
    write_pairs(samples, predictions, cut, tmp_path)
    cut.assert_not_called()
    assert pd.read_parquet(tmp_path / "pairs.parquet").empty
    assert not (tmp_path / "pairs.png").exists()
