"""The maps of earlier epochs: of the encoder as it was then, kept through a kill, and changing no other number."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from siamray.config import Config
from siamray.data.pairs import PairCutter
from siamray.data.store import Store
from siamray.downstream.examples import distance_maps, kept_epochs
from siamray.pretraining import encoder, trainer
from siamray.sweeps import results
from siamray.sweeps.ablation import make_trial
from siamray.sweeps.contract import EPOCH_MAPS, MAP_COLUMNS
from siamray.sweeps.trial import run_trial


def asking(config: Config, epochs: int, maps: int, examples: int = 1) -> Config:
    return dataclasses.replace(
        config,
        pretraining=dataclasses.replace(config.pretraining, epochs=epochs),
        downstream=dataclasses.replace(config.downstream, example_epochs=maps, examples=examples),
    )


@pytest.mark.parametrize(
    ("epochs", "maps", "expected"),
    [(6, 3, [0, 3]), (6, 2, [0]), (6, 1, []), (1, 3, [0]), (0, 3, []), (20, 5, [0, 5, 10, 15]), (2, 9, [0, 1])],
)
def test_the_epochs_lie_evenly_and_are_no_more_than_wanted(
    tiny_config: Config, epochs: int, maps: int, expected: list[int]
) -> None:
    assert kept_epochs(asking(tiny_config, epochs, maps)) == expected
    assert kept_epochs(asking(tiny_config, epochs, maps, examples=0)) == []


class Killed(Exception):
    """Stands for kill -9 at the end of an epoch."""


def test_a_killed_trial_that_goes_on_keeps_the_maps_of_both_epochs_and_all_numbers_stay(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    records = {}
    for maps in (1, 3):
        config = asking(tiny_config, 4, maps)
        trial = make_trial("soft", "variant", config, tiny_store.fingerprint)
        folder = tmp_path / str(maps) / results.TRIALS_FOLDER / trial.trial_id

        def kill(record: dict[str, Any]) -> None:
            if record["epoch"] == 3:
                raise Killed

        if maps == 3:
            with pytest.raises(Killed):
                run_trial(trial, tiny_store, folder, kill)
            before = (folder / results.EXAMPLES_FOLDER / f"{EPOCH_MAPS}2.parquet").read_bytes()
        records[maps] = run_trial(trial, tiny_store, folder), folder
    (plain, alone), (kept, both) = records[1], records[3]
    # How many maps are kept decides no number: the trial has the same name, and the same results.
    assert alone.name == both.name
    assert plain["metrics"] == kept["metrics"]
    weights = [encoder.load(folder / "encoder").state_dict() for folder in (alone, both)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for name in ("epochs", "predictions", "examples/maps"):
        tables = [pd.read_parquet(folder / f"{name}.parquet") for folder in (alone, both)]
        pd.testing.assert_frame_equal(*(table.drop(columns="seconds", errors="ignore") for table in tables))
    assert (both / results.EXAMPLES_FOLDER / f"{EPOCH_MAPS}2.parquet").read_bytes() == before
    for folder, epochs in ((alone, []), (both, [0, 2])):
        results.write_experiment(folder.parents[1], {"name": folder.parents[1].name, "variants": {"soft": []}})
        found = results.load(folder.parents[1]).examples(folder.name)
        assert list(found.earlier) == epochs
    # The same places with other distances: the encoder was another one.
    for maps in found.earlier.values():
        assert list(maps) == MAP_COLUMNS
        pd.testing.assert_frame_equal(maps.drop(columns="distance"), found.maps.drop(columns="distance"))
        assert not maps.distance.equals(found.maps.distance)


def test_the_map_of_an_epoch_is_the_one_that_an_encoder_exported_then_gives(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    config = asking(tiny_config, 2, 3)
    trial = make_trial("soft", "variant", config, tiny_store.fingerprint)
    folder = tmp_path / trial.trial_id
    exported: dict[int, Path] = {}

    def export(epoch: int, current: encoder.PairEncoder, folder: Path) -> bool:
        exported[epoch] = tmp_path / f"after-{epoch}"
        encoder.export(current, exported[epoch], {})
        return True

    run_trial(trial, tiny_store, folder, examine=export)
    untrained = trainer.pretrain(asking(tiny_config, 0, 3), tiny_store, tmp_path / "untrained")
    for epoch, place in {0: untrained, **exported}.items():
        cutter = PairCutter(tiny_store, config.pairs)
        expected = distance_maps(encoder.load(place), tiny_store, config, cutter)
        kept = pd.read_parquet(folder / results.EXAMPLES_FOLDER / f"{EPOCH_MAPS}{epoch}.parquet")
        pd.testing.assert_frame_equal(kept, expected, check_exact=True)
