"""The scored patches of test women go in; pictures of the pairs that the distance tells best and worst come out."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from siamray.downstream.features import Cut
from siamray.files import write_atomically, write_parquet

# What is shown, worst or best first: label of the patches, and whether the greatest distance comes first.
KINDS = {"missed": (1, False), "false alarm": (0, True), "found": (1, True)}
COLUMNS = ["kind", "sample_id", "woman_id", "entry_id", "side", "category", "distance"]
# Six a kind fill a line of the report.
_SHOWN = 6
# Grey values, in standard deviations of the tissue around its mean, that are black and white.
_BLACK, _WHITE = -2.5, 3.0


def choose(scored: pd.DataFrame) -> pd.DataFrame:
    """Picks the lesions of least distance, the normal patches of greatest, and the lesions of greatest.

    Args:
        scored: rows of test women with sample_id, woman_id, label and distance.

    Returns:
        Some of the rows with their kind, kind by kind, at most one of a woman in each, extreme ones first.
    """
    chosen = []
    for kind, (label, greatest) in KINDS.items():
        rows = scored[scored.label == label].sort_values(["distance", "sample_id"], ascending=[not greatest, True])
        chosen.append(rows.drop_duplicates("woman_id").head(_SHOWN).assign(kind=kind))
    return pd.concat(chosen, ignore_index=True)


def write_pairs(samples: pd.DataFrame, predictions: pd.DataFrame, cut: Cut, folder: Path) -> None:
    """Writes the best and the worst pairs of test women.

    Args:
        samples: from `patches.sample_patches`.
        predictions: from `patches.score` of these samples; their score distance is shown.
        cut: gives the normalized pairs [N, 2, P, P] of some samples.
        folder: gets ``pairs.parquet`` (COLUMNS) and ``pairs.png``, in which the pair of row i lies at rows i P to
            (i + 1) P, left beside right.
    """
    test = predictions[(predictions.score == "distance") & (predictions.split == "test")]
    distances = test.set_index("sample_id").value.rename("distance")
    chosen = choose(samples.join(distances, on="sample_id", how="inner"))
    write_parquet(folder / "pairs.parquet", chosen[COLUMNS])
    if len(chosen):
        sheet = Image.fromarray(_grey(cut(chosen)))
        write_atomically(folder / "pairs.png", partial(sheet.save, format="PNG"))


def _grey(pairs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """All pairs [N, 2, P, P] under one another, left beside right: [N P, 2 P]."""
    count, _, side, _ = pairs.shape
    scaled = np.rint(np.clip((pairs - _BLACK) / (_WHITE - _BLACK), 0, 1) * 255)
    return np.asarray(scaled.transpose(0, 2, 1, 3).reshape(count * side, 2 * side), dtype=np.uint8)
