"""Many workers train as one does: the same batch, the same gradients, the same weights but for rounding."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.distributed as distributed
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import multiprocessing

from siamray.compose import to_dict
from siamray.config import AntiCollapseConfig, AugmentationConfig, Config, CrossRegularizationConfig, PretrainingConfig
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretraining import checkpoint, encoder, loop, trainer
from siamray.pretraining.loop import StoppedError
from siamray.pretraining.measurement import own_share
from siamray.pretraining.steps import deal
from siamray.pretraining.threads import threads
from siamray.pretraining.worker import Worker

# Nothing random, and nothing that one pair of a batch has to do with another: the gradient of a batch is the mean of
# its pairs' gradients, whoever computes them.
PLAIN = AugmentationConfig(False, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
BUILD = encoder.build
# Adam divides a gradient by its size, so that rounding of small ones shows: weights are near 0.1.
CLOSE = 2e-4
BATCH_NORM, RESUMED = "with batch norm", "with batch norm, stopped and resumed"


def plain(config: Config, **method: Any) -> Config:
    """A training in which workers can be compared; its encoder has layer norms in place of batch norms."""
    changed: dict[str, Any] = {
        "epochs": 3,
        "pairs_per_epoch": 128,
        "batch_pairs": 128,
        "labels": "none",
        "anti_collapse": AntiCollapseConfig(kind="none"),
        "cross_regularization": CrossRegularizationConfig(kind="none"),
        **method,
    }
    return dataclasses.replace(
        config,
        pairs=dataclasses.replace(config.pairs, augmentation=PLAIN),
        encoder=dataclasses.replace(config.encoder, backbone="test_convnext"),
        pretraining=dataclasses.replace(config.pretraining, **changed),
    )


def with_batch_norm(config: Config, **method: Any) -> Config:
    """A training as users have it, of an encoder that takes a moment."""
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, backbone="test_resnet"),
        pretraining=dataclasses.replace(config.pretraining, **method),
    )


def build_without_batch_norm(*given: Any) -> encoder.PairEncoder:
    """An encoder whose projector sees each patch for itself too."""
    built = BUILD(*given)
    for module in list(built.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm1d):
                setattr(module, name, torch.nn.Identity())
    return built


@pytest.fixture(autouse=True)
def no_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "build", build_without_batch_norm)


def trained(folder: Path) -> tuple[dict[str, torch.Tensor], list[float], dict[str, Any]]:
    """The weights, the loss of every epoch, and what is known of the encoder."""
    weights = load_file(folder / "encoder" / "model.safetensors")
    facts = json.loads((folder / "encoder" / encoder.METADATA_FILE).read_text())
    epochs = pd.read_parquet(folder / "epochs.parquet").query("network == 'A' and epoch > 0")
    return weights, epochs.loss.tolist(), facts


def assert_close(one: Path, other: Path) -> None:
    (weights, losses, _), (other_weights, other_losses, _) = trained(one), trained(other)
    assert other_losses == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0]
    for name, tensor in weights.items():
        torch.testing.assert_close(other_weights[name], tensor, rtol=0, atol=CLOSE)


def _work(rank: int, workers: int, configs: dict[str, Config], store: Store, folder: Path) -> None:
    """One of several workers, which trains one configuration after the other."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    for name, config in configs.items():
        encoder.build = BUILD if name in (BATCH_NORM, RESUMED) else build_without_batch_norm
        with threads(1):
            if name == RESUMED:
                with pytest.raises(StoppedError):
                    loop.train(config, store, folder / name, Worker(rank, workers), lambda _: None, lambda *_: False)
            loop.train(config, store, folder / name, Worker(rank, workers), lambda _: None)
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_train_as_one_does_with_the_same_batch_and_uneven_shares_end(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    configs = {
        "together": plain(tiny_config),
        "in parts": plain(tiny_config, accumulate=2),
        # 150 pairs are shares of 86 and 64.
        "uneven": plain(tiny_config, pairs_per_epoch=150, batch_pairs=40, epochs=1),
    }
    labelled: dict[str, Any] = {"labels": "rank", "warmup_epochs": 0, "pairs_per_epoch": 100, "batch_pairs": 50}
    configs |= dict.fromkeys((BATCH_NORM, RESUMED), with_batch_norm(tiny_config, **labelled))
    trainer.pretrain(configs["together"], tiny_store, tmp_path / "alone")
    multiprocessing.spawn(_work, (2, configs, tiny_store, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    assert_close(tmp_path / "alone", tmp_path / "together")
    assert_close(tmp_path / "alone", tmp_path / "in parts")
    facts = {name: trained(tmp_path / name)[2] for name in ("alone", "together", "in parts", "uneven")}
    assert {name: fact["batch_pairs"] for name, fact in facts.items()} == {
        "alone": 128, "together": 128, "in parts": 128, "uneven": 40,
    }  # fmt: skip
    assert [facts[name]["world_size"] for name in ("alone", "together")] == [1, 2]
    # All measured the network that was kept, and had the labels after a resume that they had before.
    tables = [
        pd.read_parquet(tmp_path / name / "epochs.parquet").drop(columns="seconds") for name in (BATCH_NORM, RESUMED)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.slow
def test_more_workers_than_there_are_blocks_of_pairs_train_as_one_does(
    tiny_config: Config, tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled: dict[str, Any] = {"labels": "rank", "warmup_epochs": 0, "epochs": 2}
    configs = {
        # 70 pairs are shares of 64, 6 and none.
        "uneven": plain(tiny_config, pairs_per_epoch=70, batch_pairs=70, **labelled),
        # The first worker has them all, and the others leave no trace, in the running statistics neither.
        BATCH_NORM: with_batch_norm(tiny_config, pairs_per_epoch=40, batch_pairs=16, **labelled),
    }
    for name, config in configs.items():
        monkeypatch.setattr(encoder, "build", BUILD if name == BATCH_NORM else build_without_batch_norm)
        trainer.pretrain(config, tiny_store, tmp_path / "alone" / name)
    multiprocessing.spawn(_work, (3, configs, tiny_store, tmp_path), nprocs=3)  # type: ignore[no-untyped-call]
    for name, config in configs.items():
        (weights, losses, alone), (others, other_losses, facts) = (
            trained(folder / name) for folder in (tmp_path / "alone", tmp_path)
        )
        assert other_losses == pytest.approx(losses, rel=1e-4)
        for layer, tensor in weights.items():
            torch.testing.assert_close(others[layer], tensor, rtol=0, atol=CLOSE)
        assert facts["batch_pairs"] == alone["batch_pairs"] == config.pretraining.batch_pairs
        labels = [
            pd.read_parquet(folder / name / "epochs.parquet").query("epoch == 1").label_mean.tolist()
            for folder in (tmp_path / "alone", tmp_path)
        ]
        # Rounding of their sum alone, as it is added up over the workers.
        assert labels[0] == pytest.approx(labels[1], rel=1e-14)
        assert labels[0][0] > 0


def test_a_batch_in_parts_has_the_gradients_of_the_whole(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    for name, parts in (("whole", 1), ("parts", 4)):
        config = plain(tiny_config, accumulate=parts, pairs_per_epoch=64, batch_pairs=32, epochs=2)
        trainer.pretrain(config, tiny_store, tmp_path / name)
    assert_close(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("pairs", "workers", "parts", "expected"),
    [
        (640, 1, 1, [[64]] * 10),
        (640, 2, 1, [[32, 32]] * 10),
        # What does not fill a step waits for another epoch.
        (650, 1, 1, [[64]] * 10),
        # No batch is larger than what there is.
        (40, 1, 1, [[40]]),
        (640, 2, 4, [[8, 8]] * 40),
        # 64 pairs do not divide into three: 63 do, and workers take turns.
        (640, 1, 3, [[21]] * 30),
        (640, 2, 3, [[11, 10], [10, 11]] * 15),
        # 66 pairs are 64 and 2, and a step has them as they come.
        (66, 2, 1, [[62, 2]]),
        # A worker of one pair would have nothing to compare it with.
        (65, 2, 1, [[64, 0]]),
        (40, 3, 1, [[40, 0, 0]]),
    ],
)
def test_workers_and_parts_share_a_batch(
    pairs: int, workers: int, parts: int, expected: list[list[int]], tiny_config: Config
) -> None:
    method = dataclasses.replace(tiny_config.pretraining, batch_pairs=64, accumulate=parts)
    assert deal(pairs, method, workers, uneven=True).tolist() == expected


@given(st.integers(2, 900), st.integers(1, 20), st.integers(2, 90), st.integers(1, 5))
def test_every_step_is_as_on_one_worker_and_nobody_has_more_than_the_own_pairs(
    pairs: int, workers: int, batch: int, parts: int
) -> None:
    method = PretrainingConfig(batch_pairs=batch, accumulate=parts)
    assume(min(batch, pairs) // parts >= 2)
    dealt, alone = deal(pairs, method, workers, uneven=True), deal(pairs, method, 1, uneven=True)
    shares = [len(own_share(pairs, Worker(rank, workers))) for rank in range(workers)]
    assert (dealt.sum(axis=0) <= shares).all()
    assert len(dealt) == len(alone)
    assert set(alone[:, 0] - dealt.sum(axis=1)) <= {0, alone[0, 0] % 2}
    assert not (dealt == 1).any()


@pytest.mark.parametrize(
    ("pairs", "workers", "expected"),
    [(640, 2, [[32, 32]] * 10), (134, 2, [[32, 32]] * 2), (640, 3, [[21, 21, 21]] * 9)],
)
def test_a_method_that_gathers_embeddings_has_parts_of_one_size(
    pairs: int, workers: int, expected: list[list[int]], tiny_config: Config
) -> None:
    method = dataclasses.replace(tiny_config.pretraining, batch_pairs=64)
    assert deal(pairs, method, workers, uneven=False).tolist() == expected


def test_more_workers_than_shares_are_refused_in_one_line_where_all_need_one(tiny_config: Config) -> None:
    method = dataclasses.replace(tiny_config.pretraining, method="simclr")
    with pytest.raises(UserError, match=r"cluster\.workers=8: 64 pairs .* pretraining\.method=simclr .* fewer workers"):
        deal(64, method, 8, uneven=False)


def test_more_parts_than_pairs_are_refused_in_one_line(tiny_config: Config) -> None:
    method = dataclasses.replace(tiny_config.pretraining, batch_pairs=64, accumulate=33)
    with pytest.raises(UserError, match=r"accumulate=33: 640 pairs and pretraining.batch_pairs=64 leave a part"):
        deal(640, method, 1, uneven=True)


def test_the_learning_rate_follows_the_batch_where_it_is_asked_to(tiny_config: Config) -> None:
    method = dataclasses.replace(tiny_config.pretraining, learning_rate=0.001, rate_batch_pairs=64)
    for scaling, expected in (("none", 0.001), ("linear", 0.004), ("sqrt", 0.001 * math.sqrt(4))):
        assert loop.scaled_rate(dataclasses.replace(method, rate_scaling=scaling), 256) == pytest.approx(expected)


def test_options_that_came_later_change_no_identity_until_they_are_used(tiny_config: Config) -> None:
    def identity(config: Config) -> dict[str, Any]:
        return checkpoint.training_identity(to_dict(config), "data")

    assert not {name for name in identity(tiny_config) if name.rpartition(".")[2] in ("accumulate", "rate_scaling")}
    used = dataclasses.replace(tiny_config.pretraining, accumulate=2)
    assert identity(dataclasses.replace(tiny_config, pretraining=used))["pretraining.accumulate"] == 2
    busy = dataclasses.replace(tiny_config.cluster, trials=8, start_minutes=1.0, disk_gb=1.0)
    assert identity(dataclasses.replace(tiny_config, cluster=busy, check=True)) == identity(tiny_config)
