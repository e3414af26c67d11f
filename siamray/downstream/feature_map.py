"""The patches of test women and an encoder go in; a map on which near patches look alike to the encoder comes out."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from siamray.data.pairs import SIDES
from siamray.data.store import Store
from siamray.downstream.features import Cut, own_features
from siamray.files import write_parquet

SAMPLE_COLUMNS = ["sample_id", "woman_id", "entry_id", "side", "label", "category", "split", "density", "view"]
ORIGIN_COLUMNS = ["source", "vendor", "site"]
# What a map of neighbours is made of: 30 components as t-SNE's authors take them (van der Maaten and Hinton 2008), of
# as many samples as it places in seconds; a file of a trial stays below 100 kB.
COMPONENTS = 30
MAPPED_SAMPLES = 500


def write_feature_map(encoder: nn.Module, samples: pd.DataFrame, cut: Cut, store: Store, path: Path) -> None:
    """Writes where the patches of test women lie on the principal components of their features.

    Args:
        encoder: as for `siamray.downstream.features.extract`.
        samples: from `siamray.downstream.patches.sample_patches`.
        cut: gives the normalized pairs of samples.
        store: knows where their images come from.
        path: gets SAMPLE_COLUMNS, ORIGIN_COLUMNS, x, y (the first two components), x_share, y_share (of the variance)
            and components, the first ones of some samples, see `mapped`.
    """
    test = samples[samples.split == "test"].reset_index(drop=True)
    if test.empty:
        return
    places, shares = principal_components(own_features(encoder, test, cut))
    chosen = mapped(test)
    found = test[SAMPLE_COLUMNS].join(origins(test, store))
    listed = pd.Series([list(row) if own else None for row, own in zip(places.astype(np.float32), chosen, strict=True)])
    write_parquet(
        path,
        found.assign(
            x=places[:, 0], y=places[:, 1], x_share=float(shares[0]), y_share=float(shares[1]), components=listed
        ),
    )


def mapped(samples: pd.DataFrame) -> NDArray[np.bool_]:
    """Draws the samples whose neighbours are mapped, the same whatever the encoder and the order of the rows.

    Args:
        samples: rows with sample_id and label.

    Returns:
        [N], at most MAPPED_SAMPLES of them True: half of them lesions where there are as many, as these are rare.
    """
    shuffled = samples.sort_values("sample_id").sample(frac=1, random_state=0)
    lesion = shuffled.label == 1
    lesions = min(int(lesion.sum()), max(MAPPED_SAMPLES // 2, MAPPED_SAMPLES - int((~lesion).sum())))
    kept = [*shuffled.index[lesion][:lesions], *shuffled.index[~lesion][: MAPPED_SAMPLES - lesions]]
    return samples.index.isin(kept)


def origins(samples: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Looks up where the images of samples come from.

    Args:
        samples: rows with entry_id and side.
        store: the prepared exams they are of.

    Returns:
        ORIGIN_COLUMNS of the image of each sample's own side, in the rows' order and with their index; null where the
        source does not know.
    """
    entries = store.entries.set_index("entry_id")
    images = pd.Series(index=samples.index, dtype="object")
    for side in SIDES:
        own = samples.side == side
        images[own] = entries[f"{side}_image_id"].reindex(samples.entry_id[own]).to_numpy()
    known = store.exams.set_index("image_id").reindex(columns=ORIGIN_COLUMNS)
    return known.reindex(images).set_index(samples.index)


def principal_components(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Projects features onto the directions of greatest variance.

    Args:
        features: [N, F].

    Returns:
        [N, COMPONENTS], each direction turned so that its greatest weight is positive, 0 where there are fewer
        directions; share of the variance of each.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    _, deviations, directions = np.linalg.svd(centred, full_matrices=False)
    known = min(COMPONENTS, len(directions))
    first = np.zeros((COMPONENTS, features.shape[1]))
    first[:known] = directions[:known]
    greatest = first[np.arange(COMPONENTS), np.abs(first).argmax(axis=1)]
    first *= np.where(greatest < 0, -1.0, 1.0)[:, None]
    variances = np.zeros(COMPONENTS)
    variances[:known] = deviations[:known] ** 2
    total = float((deviations**2).sum())
    return centred @ first.T, variances / total if total > 0 else variances
