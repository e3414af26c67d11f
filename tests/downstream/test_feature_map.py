"""The map of the features: principal components as scikit-learn finds them, of the patches of test women alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from siamray.config import Config
from siamray.data.pairs import PairCutter
from siamray.data.store import Store
from siamray.downstream.feature_map import (
    COMPONENTS,
    ORIGIN_COLUMNS,
    SAMPLE_COLUMNS,
    mapped,
    origins,
    principal_components,
    write_feature_map,
)
from siamray.downstream.patches import sample_patches
from siamray.pretraining.encoder import build
from siamray.sweeps.contract import FEATURE_COLUMNS


def test_the_components_are_those_of_scikit_learn() -> None:
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    places, shares = principal_components(features)
    reference = PCA(8).fit(features.astype(np.float64))
    expected = reference.transform(features.astype(np.float64))
    assert np.abs(places[:, :8]) == pytest.approx(np.abs(expected), abs=1e-6)
    assert not places[:, 8:].any()
    assert shares[:8] == pytest.approx(reference.explained_variance_ratio_)


@pytest.mark.parametrize("features", [np.ones((5, 4)), np.ones((1, 4)), np.array([[1.0], [2.0], [4.0]])])
def test_features_without_two_directions_have_places_too(features: np.ndarray) -> None:
    places, shares = principal_components(features.astype(np.float32))
    assert places.shape == (len(features), COMPONENTS)
    assert np.isfinite(places).all()
    assert np.isfinite(shares).all()


def test_the_columns_are_those_of_the_contract() -> None:
    assert [*SAMPLE_COLUMNS, *ORIGIN_COLUMNS, "x", "y", "x_share", "y_share", "components"] == FEATURE_COLUMNS
    assert pd.Index(FEATURE_COLUMNS).is_unique


@pytest.mark.parametrize(("lesions", "normals", "expected"), [(20, 50, (20, 50)), (600, 700, (250, 250)),
                                                              (30, 900, (30, 470)), (900, 10, (490, 10))])  # fmt: skip
def test_the_samples_of_the_map_are_bounded_half_lesions_and_the_same_in_any_order(
    lesions: int, normals: int, expected: tuple[int, int]
) -> None:
    label = [1] * lesions + [0] * normals
    samples = pd.DataFrame({"sample_id": [f"s{i:04d}" for i in range(len(label))], "label": label})
    chosen = samples[mapped(samples)]
    assert (int(chosen.label.sum()), int((chosen.label == 0).sum())) == expected
    turned = samples[::-1].reset_index(drop=True)
    assert set(turned.sample_id[mapped(turned)]) == set(chosen.sample_id)


def test_every_patch_knows_data_set_vendor_and_site_of_its_own_image(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    samples = sample_patches(tiny_store, tiny_config)
    exams = tiny_store.exams.copy()
    vendors = {image: ("ge", None)[i % 2] for i, image in enumerate(exams.image_id)}
    exams["vendor"] = exams.image_id.map(vendors)
    exams["site"] = exams.image_id
    store = Store(tiny_store.path)
    store.exams = exams
    found = origins(samples, store)
    entries = store.entries.set_index("entry_id")
    for (_, sample), (_, origin) in zip(samples.iterrows(), found.iterrows(), strict=True):
        vendor = vendors[entries.loc[sample.entry_id, f"{sample.side}_image_id"]]
        assert (origin.vendor == vendor) if vendor else pd.isna(origin.vendor)
        assert origin.site == entries.loc[sample.entry_id, f"{sample.side}_image_id"]
    assert set(found.source) == {"phantom"}
    store.exams = exams.drop(columns="site")
    assert origins(samples, store).site.isna().all(), "stores of an older siamray have no sites"
    path = tmp_path / "features.parquet"
    cutter = PairCutter(store, tiny_config.pairs)

    def cut(rows: pd.DataFrame, context: int = 0) -> np.ndarray:
        return cutter(rows, 32, context)

    write_feature_map(build(tiny_config.encoder, 0, 32), samples, cut, store, path)
    table = pd.read_parquet(path)
    assert list(table) == FEATURE_COLUMNS
    assert table.components.map(len).eq(COMPONENTS).all()
    assert np.stack(table.components)[:, :2] == pytest.approx(table[["x", "y"]].to_numpy(), rel=1e-5, abs=1e-5)
