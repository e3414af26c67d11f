"""The same training runs on Ray Train workers, and they agree with one process about the labels."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from siamray.cluster import connected
from siamray.config import Config
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretraining import encoder, trainer
from siamray.pretraining.loop import DivergedError


def asking(config: Config, workers: int) -> Config:
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, workers=workers))


@pytest.mark.slow
def test_one_process_and_two_workers_fit_the_same_mixture_to_the_same_distances(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    # Without training the weights are equal by construction, so that distances, mixtures and labels must be too.
    method = dataclasses.replace(tiny_config.pretraining, epochs=1, learning_rate=0.0, pairs_per_epoch=192)
    free = dataclasses.replace(method.mixture, minimum_separation=0.0, anchors="ends", anchor_pairs=48)
    method = dataclasses.replace(method, labels="mixture", mixture=free, warmup_epochs=0, weight_decay=0.0)
    config = dataclasses.replace(tiny_config, pretraining=method)
    trainer.pretrain(config, tiny_store, tmp_path / "alone")
    with connected(config.cluster, cpus=2):
        trainer.pretrain(asking(config, 2), tiny_store, tmp_path / "together")
    alone, together = (pd.read_parquet(tmp_path / name / "epochs.parquet") for name in ("alone", "together"))
    # The labels that trained epoch 1 come from the initial weights: their mean over all pairs must be the same.
    assert (alone.label_mean > 0).any()
    assert together.label_mean.tolist() == pytest.approx(alone.label_mean.tolist(), abs=1e-12)
    for name in ("sure_similar", "sure_different"):
        assert together[name].iloc[:2].tolist() == pytest.approx(alone[name].iloc[:2].tolist(), abs=1e-12)
    histograms = [pd.read_parquet(tmp_path / name / "distances.parquet") for name in ("alone", "together")]
    first, second = (table[table.epoch == 0] for table in histograms)
    # The counts are exact; the fit to them is, but for the order in which a processor adds.
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-12)
    assert encoder.load(tmp_path / "together" / "encoder").metadata["world_size"] == 2


def test_workers_that_can_never_be_placed_are_refused_before_anything_starts(tiny_config: Config) -> None:
    with pytest.raises(UserError, match=r"cluster\.workers=8 with cluster\.cpus=1 needs 8 CPUs, and there are 2"):
        trainer.check_placement(asking(tiny_config, 8).cluster, {"CPU": 2.0})
    with pytest.raises(UserError, match="GPU"):
        trainer.check_placement(dataclasses.replace(tiny_config.cluster, gpus=1.0), {"CPU": 2.0})


@pytest.mark.slow
def test_a_run_that_diverges_on_a_worker_ends_with_its_reason(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    method = dataclasses.replace(tiny_config.pretraining, learning_rate=1e30, schedule="constant")
    config = asking(dataclasses.replace(tiny_config, pretraining=method), 1)
    config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, failures=0))
    with connected(config.cluster, cpus=2), pytest.raises(DivergedError, match="no longer"):
        trainer.pretrain(config, tiny_store, tmp_path)
