"""An encoder and a store go in; pictures of a few test exams and their distance maps come out."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from siamray.compose import from_dict
from siamray.config import Config
from siamray.data.pairs import SIDES, PairCutter, common_tissue, patch_side, tissue_share
from siamray.data.store import Store
from siamray.downstream.features import extract
from siamray.files import write_atomically, write_parquet
from siamray.pretraining.distances import pair_distances
from siamray.pretraining.encoder import PairEncoder

# Pictures are for looking at in a report: this many rows show a lesion and keep a report small.
_PICTURE_ROWS = 400
# A map shows more of the breast than the training uses: half a patch of tissue is enough for a distance.
_MAP_TISSUE = 0.5
_BOX = ["row_min", "col_min", "row_max", "col_max"]
_MAP_COLUMNS = ["entry_id", "woman_id", "row", "col", "size", "distance"]


@dataclass(frozen=True)
class EpochMaps:
    """Keeps the maps of the example exams after some epochs of a training; see siamray.pretraining.loop.Examine.

    Every map is a file of its own, written whole: what an attempt has kept, the next one finds.

    Attributes:
        config: the configuration, as plain dictionaries: it is pickled for Ray Train workers.
        store: folder of the prepared exams.
        examples: name of their folder in that of the run.
    """

    config: dict[str, Any]
    store: str
    examples: str

    def __call__(self, epoch: int, encoder: PairEncoder, folder: Path) -> bool:
        """Writes the maps if this epoch's are wanted; always goes on."""
        config = from_dict(self.config)
        if epoch in kept_epochs(config):
            store = Store.open(self.store)
            maps = distance_maps(encoder, store, config, PairCutter(store, config.pairs))
            write_parquet(folder / self.examples / f"maps_epoch{epoch}.parquet", maps)
        return True


def kept_epochs(config: Config) -> list[int]:
    """The numbers of epochs done after which maps are kept, 0 = before the training; without the last one."""
    last, wanted = config.pretraining.epochs, config.downstream.example_epochs
    if config.downstream.examples == 0 or wanted == 1:
        return []
    return sorted({i * last // (wanted - 1) for i in range(wanted - 1)} - {last})


def chosen_entries(store: Store, config: Config) -> list[str]:
    """Picks the entries shown: test exams with a located lesion first, the same for every encoder and seed."""
    split = store.split(config.data)
    test = {str(woman) for woman in split.index[split == "test"]}
    entries = store.entries[store.entries.woman_id.isin(test)].sort_values("entry_id")
    located = store.findings.dropna(subset=["row_min"])
    lesion = entries[entries.entry_id.isin(located.entry_id)]
    # One view per woman, so that as many women as possible are seen.
    first = pd.concat([lesion, entries]).drop_duplicates("woman_id")
    return [str(entry) for entry in first.entry_id.head(config.downstream.examples)]


def write_examples(encoder: PairEncoder, store: Store, config: Config, cutter: PairCutter, folder: Path) -> None:
    """Writes pictures of both sides, the distance map and the findings of a few test exams.

    Args:
        encoder: measures the distances.
        store: the prepared exams.
        config: downstream.examples says how many.
        cutter: cuts the patches.
        folder: gets ``<entry>_left.png``, ``<entry>_right.png``, ``maps.parquet`` (see `distance_maps`) and
            ``boxes.parquet`` (entry_id, side, category, row_min, col_min, row_max, col_max in pixels of the pictures).
    """
    boxes = [store.findings.iloc[:0]]
    for entry in chosen_entries(store, config):
        for name in SIDES:
            picture = _picture(store.image(entry, name), store.mask(entry, name))
            write_atomically(folder / f"{entry}_{name}.png", partial(picture.save, format="PNG"))
        scale = _scale(store, entry)
        found = store.findings[store.findings.entry_id == entry].dropna(subset=["row_min"])
        boxes.append(found.assign(**{name: found[name] * scale for name in _BOX}))
    write_parquet(folder / "maps.parquet", distance_maps(encoder, store, config, cutter))
    write_parquet(folder / "boxes.parquet", _stacked(boxes)[["entry_id", "side", "category", *_BOX]])


def distance_maps(encoder: PairEncoder, store: Store, config: Config, cutter: PairCutter) -> pd.DataFrame:
    """Measures the distances of the pairs of a few test exams.

    Args:
        encoder: measures the distances.
        store: the prepared exams.
        config: downstream.examples says of how many exams.
        cutter: cuts the patches.

    Returns:
        A row per pair: entry_id, woman_id, row and col (centre of the patch) and size in pixels of the pictures,
        distance.
    """
    side = patch_side(config)
    women = store.entries.set_index("entry_id").woman_id
    maps = [pd.DataFrame(columns=_MAP_COLUMNS)]
    for entry in chosen_entries(store, config):
        scale, grid = _scale(store, entry), _map_grid(store, entry, side)
        if len(grid):
            maps.append(
                grid.assign(
                    row=(grid.row + side / 2) * scale,
                    col=(grid.col + side / 2) * scale,
                    woman_id=women[entry],
                    size=side * scale,
                    distance=_distances(encoder, cutter(grid, side)),
                )
            )
    return _stacked(maps)[_MAP_COLUMNS]


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows of tables of the same columns; the first table is empty and gives the columns if no other does."""
    return pd.concat(tables[1:], ignore_index=True) if len(tables) > 1 else tables[0]


def _map_grid(store: Store, entry: str, side: int) -> pd.DataFrame:
    step = max(1, side // 4)
    share = tissue_share(common_tissue(store, entry), side)[::step, ::step]
    rows, cols = np.nonzero(share >= _MAP_TISSUE)
    return pd.DataFrame({"entry_id": entry, "row": rows * step, "col": cols * step})


def _distances(encoder: PairEncoder, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    _, left = extract(encoder, windows[:, :1])
    _, right = extract(encoder, windows[:, 1:])
    kind = str(encoder.metadata.get("embedding", "unit"))
    return np.asarray(pair_distances(torch.from_numpy(left), torch.from_numpy(right), kind).numpy())


def _picture(image: NDArray[np.uint16], mask: NDArray[np.bool_]) -> Image.Image:
    """The breast in 8 bits, its tissue stretched from the first to the 99th percentile."""
    tissue = image[mask] if mask.any() else image.ravel()
    low, high = np.percentile(tissue, [1, 99.5])
    grey = np.clip((image.astype(np.float32) - low) / max(high - low, 1), 0, 1) * 255
    picture = Image.fromarray(grey.astype(np.uint8))
    scale = min(1.0, _PICTURE_ROWS / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), _picture_rows(image.shape[0]))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _picture_rows(rows: int) -> int:
    return max(1, round(rows * min(1.0, _PICTURE_ROWS / rows)))


def _scale(store: Store, entry: str) -> float:
    """Pixels of a picture per pixel of the store."""
    rows = int(store.image(entry, "left").shape[0])
    return _picture_rows(rows) / rows
