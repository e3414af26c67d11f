"""Looking at a training encoder changes no number of the training, survives a kill, and says what the end says."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from siamray.compose import to_dict
from siamray.config import Config
from siamray.data.store import Store
from siamray.downstream.evaluation import evaluate, validation_value
from siamray.errors import UserError
from siamray.pretraining import encoder, trainer
from siamray.pretraining.loop import StoppedError
from siamray.sweeps import results
from siamray.sweeps.ablation import make_trial
from siamray.sweeps.early_stopping import Examination, answer, read_measured
from siamray.sweeps.trial import run_trial

AUC = "validation_patches_linear_auc"


def trained_for(config: Config, epochs: int) -> Config:
    return dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, epochs=epochs))


def examination(config: Config, store: Store, metric: str = AUC, every: int = 1) -> Examination:
    return Examination(to_dict(config), str(store.path), metric, every, wait_seconds=0.0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return encoder.load(folder / "encoder").state_dict()


class Killed(Exception):
    """Stands for kill -9 at the end of an epoch."""


def test_a_looked_at_training_has_the_numbers_of_an_unseen_one_even_if_killed_between(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    config = trained_for(tiny_config, 3)
    trainer.pretrain(config, tiny_store, tmp_path / "unseen")
    look = examination(config, tiny_store)

    def noisy(epoch: int, current: encoder.PairEncoder, folder: Path) -> bool:
        # Whatever a look draws at random or does to its copy stays its own.
        answered = look(epoch, current, folder)
        torch.rand(7)
        with torch.no_grad():
            next(current.parameters()).zero_()
        current.train()
        return answered

    def kill(record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            raise Killed

    with pytest.raises(Killed):
        trainer.pretrain(config, tiny_store, tmp_path / "seen", kill, noisy)
    assert list(read_measured(tmp_path / "seen", AUC)) == [1]
    trainer.pretrain(config, tiny_store, tmp_path / "seen", examine=noisy)
    assert list(read_measured(tmp_path / "seen", AUC)) == [1, 2]
    unseen, seen = weights(tmp_path / "unseen"), weights(tmp_path / "seen")
    assert all(torch.equal(unseen[name], seen[name]) for name in unseen)
    tables = [
        pd.read_parquet(tmp_path / name / "epochs.parquet").drop(columns="seconds") for name in ("unseen", "seen")
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


ABNORMALITY = "validation_patches_abnormality_auc"


@pytest.mark.parametrize("metric", [AUC, "validation_patches_distance_auc", "validation_patches_knn20_ap", ABNORMALITY])
def test_a_look_says_what_the_evaluation_of_the_exported_encoder_says(
    tiny_config: Config, tiny_store: Store, tmp_path: Path, metric: str
) -> None:
    if metric == ABNORMALITY:
        masses = dataclasses.replace(tiny_config.pretraining.masses, head_weight=1.0)
        method = dataclasses.replace(tiny_config.pretraining, masses=masses)
        tiny_config = dataclasses.replace(tiny_config, pretraining=method)
    config = trained_for(tiny_config, 1)
    looked: dict[str, float] = {}
    copies: list[encoder.PairEncoder] = []

    def keep(epoch: int, current: encoder.PairEncoder, folder: Path) -> bool:
        copies.append(current)
        looked["now"] = validation_value(current, tiny_store, config, metric)
        raise Killed

    with pytest.raises(Killed):
        trainer.pretrain(trained_for(tiny_config, 2), tiny_store, tmp_path, examine=keep)
    encoder.export(copies[0], tmp_path / "encoder", {})
    whole = evaluate(encoder.load(tmp_path / "encoder"), tiny_store, config).metrics[metric]["value"]
    assert looked["now"] == whole


def test_a_look_at_test_women_is_refused(tiny_config: Config, tiny_store: Store) -> None:
    untrained = encoder.build(tiny_config.encoder, 0, 32)
    with pytest.raises(UserError, match="say validation_patches_linear_auc"):
        validation_value(untrained, tiny_store, tiny_config, "patches_linear_auc")
    with pytest.raises(UserError, match="no score 'abnormality'"):
        validation_value(untrained, tiny_store, tiny_config, "validation_patches_abnormality_auc")


def test_a_look_at_another_task_is_its_metric_too(tiny_config: Config, tiny_store: Store) -> None:
    tasks = dataclasses.replace(tiny_config.downstream, tasks=["outcome"])
    config = dataclasses.replace(tiny_config, downstream=tasks)
    untrained = encoder.build(config.encoder, 0, 32)
    value = validation_value(untrained, tiny_store, config, "validation_outcome_mean_auc")
    whole = evaluate(untrained, tiny_store, config).metrics["validation_outcome_mean_auc"]["value"]
    assert value == whole or (np.isnan(value) and np.isnan(whole))


def test_a_trial_told_to_stop_is_pruned_without_metrics_and_an_untold_one_finishes(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    trial = make_trial("searched", "variant", trained_for(tiny_config, 4), tiny_store.fingerprint)
    folder = tmp_path / trial.trial_id
    look = examination(trial.config, tiny_store, every=2)
    folder.mkdir()
    answer(folder, 2, stop=True)
    record = run_trial(trial, tiny_store, folder, examine=dataclasses.replace(look, wait_seconds=30.0))
    assert record["state"] == "pruned"
    assert record["reason"] == "stopped after epoch 2 of 4"
    assert results.read_trial(folder)["metrics"] == {}
    assert record["cost"]["cpu_s"] > 0
    assert pd.read_parquet(folder / "epochs.parquet").epoch.max() == 2
    assert not (folder / "checkpoint.pt").exists()
    assert results.finished_trials(tmp_path) == {}
    answer(folder, 4, stop=False)
    assert run_trial(trial, tiny_store, folder, examine=look)["state"] == "finished"


def test_a_stop_at_once_ends_the_training(tiny_config: Config, tiny_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="stopped after epoch 1 of 3"):
        trainer.pretrain(trained_for(tiny_config, 3), tiny_store, tmp_path, examine=lambda *_: False)
    assert not (tmp_path / "encoder").exists()
