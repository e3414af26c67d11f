"""Training does what it says: test women unseen, a killed run resumed to the same numbers, workers that agree."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from siamray.config import AntiCollapseConfig, Config, MassesConfig
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretraining import checkpoint, encoder, trainer
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.distances import embed, pair_distances
from siamray.pretraining.loop import DivergedError, epoch_pairs, training_pairs
from siamray.pretraining.measurement import BLOCK_PAIRS, own_share
from siamray.pretraining.objective import anti_collapse, contrastive_loss, cross_regularization
from siamray.pretraining.siamese import siamese_loss
from siamray.pretraining.worker import Worker


def changed(config: Config, **method: Any) -> Config:
    return dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, **method))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return encoder.load(folder / "encoder").state_dict()


class Killed(Exception):
    """Stands for kill -9 at the end of an epoch."""


def test_pretraining_sees_training_women_only(tiny_config: Config, tiny_store: Store) -> None:
    split = tiny_store.split(tiny_config.data)
    assert set(split) == {"training", "validation", "test"}
    pairs = training_pairs(tiny_config, tiny_store)
    assert {split[woman] for woman in pairs.woman_id} == {"training"}


@pytest.mark.parametrize("method", [{}, {"loss": "logistic", "masses": MassesConfig(weight=4.0)}], ids=["", "masses"])
def test_a_run_killed_after_an_epoch_ends_with_the_numbers_of_an_undisturbed_one(
    tiny_config: Config, tiny_store: Store, tmp_path: Path, method: dict[str, Any]
) -> None:
    config = changed(tiny_config, epochs=3, **method)
    trainer.pretrain(config, tiny_store, tmp_path / "whole")

    def kill(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        trainer.pretrain(config, tiny_store, tmp_path / "killed", kill)
    assert not (tmp_path / "killed" / "encoder").exists()
    trainer.pretrain(config, tiny_store, tmp_path / "killed")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    tables = [
        pd.read_parquet(tmp_path / name / "epochs.parquet").drop(columns="seconds") for name in ("whole", "killed")
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    histograms = [pd.read_parquet(tmp_path / name / "distances.parquet") for name in ("whole", "killed")]
    assert histograms[0].to_json() == histograms[1].to_json()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    config = changed(tiny_config, epochs=1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer.pretrain(dataclasses.replace(config, seed=seed), tiny_store, tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_folder_of_another_run_is_refused_by_the_option_that_differs(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    trainer.pretrain(changed(tiny_config, epochs=1), tiny_store, tmp_path)
    with pytest.raises(UserError, match=r"pretraining.margin was 1.2, is 0.8"):
        trainer.pretrain(changed(tiny_config, epochs=1, margin=0.8), tiny_store, tmp_path)


def test_a_damaged_checkpoint_is_one_line(tiny_config: Config, tiny_store: Store, tmp_path: Path) -> None:
    (tmp_path / checkpoint.CHECKPOINT_FILE).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        trainer.pretrain(tiny_config, tiny_store, tmp_path)


def test_a_run_that_diverges_ends_with_its_reason(tiny_config: Config, tiny_store: Store, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="no longer"):
        trainer.pretrain(changed(tiny_config, learning_rate=1e30, schedule="constant"), tiny_store, tmp_path)


def test_no_epochs_export_the_untrained_encoder_and_its_distances(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    trainer.pretrain(changed(tiny_config, epochs=0), tiny_store, tmp_path)
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    assert epochs.epoch.tolist() == [0, 0]
    assert epochs.d_q50.notna().all()
    assert (tmp_path / "encoder" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "method",
    [
        {"labels": "hard", "partners": "shuffled"},
        {"labels": "rank", "label_exchange": "mean", "embedding": "raw"},
        {"labels": "none", "peer": "none"},
        {"loss": "logistic", "masses": MassesConfig(weight=4.0, head_weight=1.0)},
        {"masses": MassesConfig(head_weight=1.0), "peer": "none"},
        {"peer": "teacher", "labels": "rank"},
        {"refinement_views": 1, "shift_share": 0.1, "labels": "rank"},
        {"anti_collapse": AntiCollapseConfig(kind="partners")},
        {"schedule": "cosine", "pairs_per_epoch": None, "batch_pairs": 64, "epochs": 1},
    ],
    ids=lambda method: "-".join(map(str, method.values())),
)
def test_every_kind_of_training_ends_with_finite_logs(
    tiny_config: Config, tiny_store: Store, tmp_path: Path, method: dict[str, Any]
) -> None:
    trainer.pretrain(changed(tiny_config, **method), tiny_store, tmp_path)
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    assert epochs.network.nunique() == (1 if method.get("peer") == "none" else 2)
    trained = epochs[epochs.epoch > 0]
    if method.get("peer") == "teacher":
        # A teacher follows: it has no loss of its own.
        trained = trained[trained.network == "A"]
    assert np.isfinite(trained[["loss", "contrastive", "anti_collapse", "d_q50", "effective_rank"]]).all(axis=None)


def test_an_anchored_mixture_is_told_how_far_sure_pairs_lie_apart(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    anchored = dataclasses.replace(tiny_config.pretraining.mixture, anchors="ends", components="auto", anchor_pairs=64)
    trainer.pretrain(changed(tiny_config, mixture=anchored, soft_margin="sine"), tiny_store, tmp_path)
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    assert (epochs.sure_similar > 0).all()
    # A patch a small shift away is nearer than another woman's, even to an untrained network.
    assert (epochs.sure_similar < epochs.sure_different).all()


def test_labels_are_zero_in_the_warm_up_and_used_after_it(
    tiny_config: Config, tiny_store: Store, tmp_path: Path
) -> None:
    trainer.pretrain(changed(tiny_config, labels="rank", epochs=2, warmup_epochs=1), tiny_store, tmp_path)
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    means = epochs.set_index(["epoch", "network"]).label_mean
    assert (means[1] == 0).all()
    # Ranked labels have the mean pretraining.expected_abnormal by construction.
    assert means[2].tolist() == pytest.approx([0.1, 0.1], abs=0.03)


def test_shuffled_pairs_take_the_right_patch_of_another_woman(tiny_config: Config, tiny_store: Store) -> None:
    pairs = epoch_pairs(training_pairs(tiny_config, tiny_store), changed(tiny_config, partners="shuffled"), 0)
    women = tiny_store.entries.set_index("entry_id").woman_id
    assert (women[pairs.partner_entry_id].to_numpy() != pairs.woman_id.to_numpy()).all()


def test_epochs_draw_other_pairs_but_the_same_ones_again_on_resume(tiny_config: Config, tiny_store: Store) -> None:
    pairs = training_pairs(tiny_config, tiny_store)
    first, again, second = (epoch_pairs(pairs, tiny_config, epoch) for epoch in (0, 0, 1))
    assert len(first) == tiny_config.pretraining.pairs_per_epoch
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(second)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_share_the_pairs_without_gap_or_overlap(workers: int) -> None:
    shares = [own_share(5 * BLOCK_PAIRS + 7, Worker(rank, workers)) for rank in range(workers)]
    assert sorted(np.concatenate(shares)) == list(range(5 * BLOCK_PAIRS + 7))


def test_the_loss_is_the_weighted_sum_of_its_documented_terms(tiny_config: Config) -> None:
    method = tiny_config.pretraining
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn((12, 8), generator=generator) for _ in range(2)]
    labels = torch.rand((2, 6), generator=generator)
    parts = siamese_loss(embeddings, labels, method)
    loss = parts["loss"]
    halves = [embed(z, "unit").chunk(2) for z in embeddings]
    distances = [pair_distances(left, right) for left, right in halves]
    expected = sum(
        contrastive_loss(d, w, method.margin)
        + method.anti_collapse.weight
        * anti_collapse("negatives", left, right, margin=method.margin, covariance_weight=0.0)
        for d, w, (left, right) in zip(distances, labels, halves, strict=True)
    ) + method.cross_regularization.weight * cross_regularization(
        "symmetric_kl", *distances, torch.cat(halves[0]), torch.cat(halves[1])
    )
    torch.testing.assert_close(loss, expected)
    assert set(parts) == {"contrastive_A", "contrastive_B", "anti_collapse_A", "anti_collapse_B", "cross", "loss"}


def test_sure_pairs_are_each_changed_patch_with_itself_and_with_the_other_side(tiny_config: Config) -> None:
    method = dataclasses.replace(tiny_config.pretraining, loss="logistic", masses=MassesConfig(weight=4.0))
    generator = torch.Generator().manual_seed(0)
    lefts, rights, changed_lefts, changed_rights = torch.randn((4, 5, 8), generator=generator)
    strengths = torch.rand(10, generator=generator)
    logistic = torch.tensor([[0.7, 0.9]])
    embedding = torch.cat([lefts, rights, changed_lefts, changed_rights])
    parts = siamese_loss([embedding], torch.zeros(1, 5), method, logistic, strengths)
    loss = parts["loss"]
    terms = []
    for pair in range(5):
        for changed, others, strength in (
            (changed_lefts[pair], (lefts[pair], rights[pair]), strengths[pair]),
            (changed_rights[pair], (rights[pair], lefts[pair]), strengths[5 + pair]),
        ):
            for other in others:
                d = pair_distances(other[None], changed[None])[0]
                p = torch.sigmoid(3 * torch.log1p(torch.exp(torch.tensor(0.7))) * (d - 0.9))
                terms.append(-(strength * p.log() + (1 - strength) * (1 - p).log()))
    torch.testing.assert_close(parts["sure_A"], torch.stack(terms).mean())
    expected = parts["contrastive_A"] + 4 * parts["sure_A"] + method.anti_collapse.weight * parts["anti_collapse_A"]
    torch.testing.assert_close(loss, expected)


def test_bfloat16_trains_too(tiny_config: Config, tiny_store: Store, tmp_path: Path) -> None:
    assert Arithmetic.named("bfloat16_channels_last") == Arithmetic(bfloat16=True, channels_last=True)
    trainer.pretrain(changed(tiny_config, precision="bfloat16_channels_last", epochs=1), tiny_store, tmp_path)
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    assert np.isfinite(epochs.loss[epochs.epoch > 0]).all()
