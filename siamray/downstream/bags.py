"""An encoder and the store go in; bags come out: features of patches of a breast, an exam or a woman, and a class.

The features of all images are computed once, whatever bags are made of them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from siamray.config import Config
from siamray.data.exams import BIRADS, DENSITIES, OUTCOMES
from siamray.data.pairs import SIDES, patch_side, tissue_share
from siamray.data.store import Store
from siamray.downstream.features import Cut, Patches, own_features
from siamray.errors import UserError
from siamray.seeds import named_seed

Unit = Literal["breast", "exam", "woman"]
Label = Literal["birads", "density", "outcome"]

# Classes in their order: a unit has the last of its images' classes, as the exam table's words go from mild to severe.
VOCABULARIES: dict[Label, tuple[Any, ...]] = {"birads": BIRADS, "density": DENSITIES, "outcome": OUTCOMES}
PLURALS: dict[Unit, str] = {"breast": "breasts", "exam": "exams", "woman": "women"}
_LATERALITY = dict(zip(SIDES, ("L", "R"), strict=True))
_UNIT_COLUMNS: dict[Unit, list[str]] = {"breast": ["exam_id", "laterality"], "exam": ["exam_id"], "woman": ["woman_id"]}


@dataclass(frozen=True)
class ImageFeatures:
    """Features of patches of all images.

    Attributes:
        patches: a row per patch: entry_id, woman_id, exam_id, laterality, side, row, col.
        features: float32 [patches, F].
    """

    patches: pd.DataFrame
    features: Patches


@dataclass(frozen=True)
class Bags:
    """Units whose class is known and that have patches.

    Attributes:
        table: a row per bag: sample_id, woman_id, split, category (the class in words), density, side.
        members: rows [n] of the features, of each bag.
        features: float32 [patches, F], of all images.
        classes: all classes that the bags have, in words, in their order.
        notes: what a reader must know: how many units were left out, and why.
    """

    table: pd.DataFrame
    members: list[NDArray[np.int64]]
    features: Patches
    classes: list[str]
    notes: list[str]


def place_patches(store: Store, config: Config) -> pd.DataFrame:
    """Places patches on a grid over the tissue of every image.

    Patches have pairs.minimum_tissue of tissue of their own side, or are the one with the most tissue where none has as
    much. Of more than downstream.bags.patches_per_image a seeded choice is taken, the same for every encoder.

    Args:
        store: the prepared exams.
        config: pairs gives patch side and tissue share, downstream.bags the stride and the most patches.

    Returns:
        A row per patch, in a fixed order: entry_id, woman_id, exam_id, laterality, side, row, col (top-left pixel); no
        row of an image that is smaller than a patch.
    """
    pixels, rules = patch_side(config), config.downstream.bags
    stride = max(1, round(pixels * rules.stride_share))
    found = []
    for entry in store.entries.sort_values("entry_id").itertuples():
        for side in SIDES:
            share = tissue_share(store.mask(str(entry.entry_id), side), pixels)[::stride, ::stride]
            if share.size == 0:
                continue
            enough = np.flatnonzero(share >= config.pairs.minimum_tissue)
            if not len(enough):
                enough = np.array([share.argmax()])
            seed = named_seed(config.data.split_seed, "bags", str(entry.entry_id), side)
            chosen = np.random.default_rng(seed).permutation(enough)[: rules.patches_per_image]
            rows, cols = np.unravel_index(np.sort(chosen), share.shape)
            found.append(
                pd.DataFrame(
                    {
                        "entry_id": entry.entry_id,
                        "woman_id": entry.woman_id,
                        "exam_id": entry.exam_id,
                        "laterality": _LATERALITY[side],
                        "side": side,
                        "row": rows * stride,
                        "col": cols * stride,
                    }
                )
            )
    if not found:
        raise UserError(
            f"pairs.patch_pixels={pixels}: all images of the store are smaller than a patch; take smaller patches"
        )
    return pd.concat(found, ignore_index=True)


def encode_images(encoder: nn.Module, store: Store, cut: Cut, config: Config) -> ImageFeatures:
    """Encodes the patches of all images with an encoder whose weights stay as they are.

    Args:
        encoder: turns [B, 1, P, P] into features and embeddings.
        store: the prepared exams.
        cut: gives the normalized pairs of patches.
        config: see `place_patches`.

    Raises:
        UserError: all images are smaller than a patch.
        ValueError: the encoder gives features that are not finite.
    """
    placed = place_patches(store, config)
    together = own_features(encoder, placed, cut)
    if not np.isfinite(together).all():
        raise ValueError(f"features are not finite: {int((~np.isfinite(together)).sum())} of {together.size} values")
    return ImageFeatures(placed, together)


def known_classes(store: Store, label: Label, unit: Unit) -> pd.DataFrame:
    """Finds the class of every unit: the last, in the vocabulary's order, of its images' known classes.

    Args:
        store: the prepared exams.
        label: which column of the exam table.
        unit: what has the class.

    Returns:
        A row per unit of an entry: the unit's columns, woman_id, category (in words; null where unknown).
    """
    exams = store.exams[store.exams.exam_id.isin(store.entries.exam_id)]
    words = [str(word) for word in VOCABULARIES[label]]
    rank = {word: place for place, word in enumerate(words)}
    ranked = exams.assign(rank=exams[label].map(lambda word: rank.get(str(word)) if pd.notna(word) else None))
    ranked["rank"] = ranked["rank"].astype("float64")
    columns = _UNIT_COLUMNS[unit]
    units = ranked.groupby(columns, sort=True).agg(woman_id=("woman_id", "first"), rank=("rank", "max"))
    units["category"] = units["rank"].map(lambda place: words[int(place)], na_action="ignore").astype("object")
    # The woman is the unit's name too where women are the units.
    return units.drop(columns="rank").reset_index(drop=unit == "woman")


def check_label(store: Store, label: Label, unit: Unit, config: Config) -> None:
    """Makes sure, before anything is trained, that there are classes to tell apart, and women to train and test with.

    Args:
        store: the prepared exams.
        label: which column of the exam table.
        unit: what has the class.
        config: its data section deals the women.

    Raises:
        UserError: the data set does not know the label, or knows one class only, or not of any training or test woman.
    """
    units = known_classes(store, label, unit).dropna(subset="category")
    present = sorted(units.category.unique())
    if len(present) < 2:
        what = f"{label} {present[0]} only" if present else f"no {label} of any {unit}"
        raise UserError(f"downstream.tasks={label}: the data set knows {what}; leave {label} out of downstream.tasks")
    splits = set(units.woman_id.map(store.split(config.data)))
    for split in ("training", "test"):
        if split not in splits:
            raise UserError(
                f"downstream.tasks={label}: of no {split} woman the {label} is known; take another data.fold or "
                f"data.split_seed, or leave {label} out of downstream.tasks"
            )


def make_bags(images: ImageFeatures, store: Store, label: Label, unit: Unit, config: Config) -> Bags:
    """Puts the patches of every breast, exam or woman into a bag, with its class.

    Patches of a woman are those of all her exams in which a class is known for an image.

    Args:
        images: from `encode_images`.
        store: the prepared exams.
        label: which column of the exam table.
        unit: what a bag is.
        config: its data section deals the women.

    Returns:
        The bags, in the order of sample_id; units of unknown class, or without a patch, are left out and counted.
    """
    units = known_classes(store, label, unit)
    columns = _UNIT_COLUMNS[unit]
    patches = images.patches
    if unit == "woman":
        known = store.exams.loc[store.exams[label].notna(), "exam_id"]
        patches = patches[patches.exam_id.isin(known)]
    members = {
        key if isinstance(key, tuple) else (key,): rows.index.to_numpy() for key, rows in patches.groupby(columns)
    }
    keys = list(units[columns].itertuples(index=False, name=None))
    labelled = units.category.notna().to_numpy()
    used = labelled & np.array([key in members for key in keys], dtype=bool)
    kept = units[used]
    density = known_classes(store, "density", unit).set_index(columns).category.reindex(kept.set_index(columns).index)
    table = pd.DataFrame(
        {
            "sample_id": ["_".join(key) for key, take in zip(keys, used, strict=True) if take],
            "woman_id": kept.woman_id.to_numpy(),
            "split": kept.woman_id.map(store.split(config.data)).to_numpy(),
            "category": kept.category.to_numpy(),
            "density": density.to_numpy(),
            "side": kept.laterality.map({"L": SIDES[0], "R": SIDES[1]}).to_numpy() if unit == "breast" else None,
        }
    )
    present = set(table.category)
    notes = _left_out(f"of unknown {label}", units[~labelled], unit)
    notes += _left_out("whose images are smaller than a patch", units[labelled & ~used], unit)
    return Bags(
        table,
        [members[key] for key, take in zip(keys, used, strict=True) if take],
        images.features,
        [str(word) for word in VOCABULARIES[label] if str(word) in present],
        notes,
    )


def _left_out(why: str, units: pd.DataFrame, unit: Unit) -> list[str]:
    return [f"{len(units)} {unit if len(units) == 1 else PLURALS[unit]} {why} left out"] if len(units) else []
