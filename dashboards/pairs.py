"""A trial's example pairs in, lines of left and right patches out: what its distance tells best and worst."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from dashboards import page
from dashboards.inspection import picture
from siamray.sweeps.results import Examples

HEADINGS = {
    "missed": "Lesions missed: lesion patches of the smallest distance, the worst first",
    "false alarm": "False alarms: normal patches of the largest distance, the worst first",
    "found": "Lesions found: lesion patches of the largest distance, the best first",
}


def lines(kept: Examples) -> list[str]:
    """Shows every kind of pair, one line each.

    Args:
        kept: of one trial.

    Returns:
        HTML, a part per kind; none where the trial kept no pairs or their picture does not fit its table.
    """
    shown = halves(kept)
    parts = []
    for kind, heading in HEADINGS.items():
        own = [_pair(row, np.hstack([left, right])) for row, left, right in shown if row["kind"] == kind]
        if own:
            parts.append(f'<h3>{page.text(heading)}</h3><div class="pairs">{"".join(own)}</div>')
    return parts


def halves(kept: Examples) -> list[tuple[pd.Series, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Cuts the picture of the pairs.

    Args:
        kept: of one trial.

    Returns:
        Of every pair its row, and the grey values of its left and its right patch; none where the trial kept no pairs
        or their picture does not fit its table.
    """
    if kept.pairs_sheet is None or kept.pairs.empty:
        return []
    with Image.open(kept.pairs_sheet) as sheet:
        pixels = np.asarray(sheet.convert("L"))
    side = pixels.shape[1] // 2
    if side == 0 or pixels.shape[0] != side * len(kept.pairs):
        return []
    rows = [row for _, row in kept.pairs.iterrows()]
    cut = [pixels[place * side : (place + 1) * side] for place in range(len(rows))]
    return [(row, both[:, :side], both[:, side:]) for row, both in zip(rows, cut, strict=True)]


def _pair(row: pd.Series, pixels: npt.NDArray[np.uint8]) -> str:
    """One pair: left beside right, the side of the lesion framed, and what it is below."""
    side = pixels.shape[1] // 2
    images = "".join(
        f'<img src="{picture(half)}" width="{side}" height="{side}" alt="{name}"'
        f"{' class=marked' if row['side'] == name and row['kind'] != 'false alarm' else ''}>"
        for name, half in (("left", pixels[:, :side]), ("right", pixels[:, side:]))
    )
    words = [str(row["woman_id"]), "normal" if row["kind"] == "false alarm" else str(row["category"]).replace("_", " ")]
    return f"<figure>{images}<figcaption>{page.text(', '.join(words))}<br>{row['distance']:.2f}</figcaption></figure>"
