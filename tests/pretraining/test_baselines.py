"""Every rival trains, resumes to the same numbers, exports, and does what its paper says."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from siamray.compose import compose
from siamray.config import Config, EncoderConfig, PretrainingConfig, RivalConfig
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.pretraining import encoder, trainer
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.baselines import BASELINES, Baseline
from tests.conftest import TINY_DATA, TINY_TRAINING

SMALL = EncoderConfig(projector_hidden=8, projector_features=8)
TRANSFORMER = EncoderConfig(backbone="vit_tiny_patch16_224", projector_hidden=8, projector_features=8)


def made(name: str, workers: int = 1, **rival: Any) -> Baseline:
    method = PretrainingConfig(method=name, rival=RivalConfig(queue=32, prototypes=16, predictor_hidden=8, **rival))
    network = encoder.build(TRANSFORMER if name == "mae" else SMALL, 0, 32)
    return BASELINES[name](network, Arithmetic(), method, workers)


def views(count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((count, 2, 32, 32), generator=generator) for _ in range(2)]


def tiny(name: str, *more: str) -> Config:
    backbone = ["encoder.backbone=vit_tiny_patch16_224"] if name == "mae" else []
    rival = ["pretraining.rival.queue=64", "pretraining.rival.prototypes=16", "pretraining.rival.predictor_hidden=16"]
    return compose("sweep", [*TINY_DATA, *TINY_TRAINING, f"pretraining={name}", *rival, *backbone, *more])


class Killed(Exception):
    """Stands for kill -9 at the end of an epoch."""


@pytest.mark.parametrize("name", BASELINES)
def test_a_rival_trains_resumes_exactly_and_exports(name: str, tiny_store: Store, tmp_path: Path) -> None:
    config = tiny(
        name, "pretraining.rival.bilateral=true" if name in ("simclr", "mae") else "pretraining.warmup_epochs=0"
    )

    def kill(record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            raise Killed

    trainer.pretrain(config, tiny_store, tmp_path / "whole")
    with pytest.raises(Killed):
        trainer.pretrain(config, tiny_store, tmp_path / "killed", kill)
    trainer.pretrain(config, tiny_store, tmp_path / "killed")
    whole, killed = (encoder.load(tmp_path / run / "encoder") for run in ("whole", "killed"))
    states = whole.state_dict(), killed.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    epochs = pd.read_parquet(tmp_path / "whole" / "epochs.parquet")
    assert epochs.network.unique().tolist() == ["A"]
    assert np.isfinite(epochs.loss[epochs.epoch > 0]).all()
    # No label of the method enters a rival's loss.
    assert (epochs.label_mean == 0).all()
    untrained = encoder.build(config.encoder, 0, 32).trunk.state_dict()
    trained = whole.trunk.state_dict()
    assert any(
        not torch.equal(trained[key], value) for key, value in untrained.items() if value.dtype.is_floating_point
    )
    if name == "mae":
        assert whole.projector is None


@pytest.mark.parametrize("name", BASELINES)
def test_every_trained_weight_gets_a_gradient(name: str) -> None:
    """Ray's workers reduce all gradients together, and would wait for one that never comes."""
    learner = made(name)
    learner(torch.zeros(1, 4), *learner.inputs(views(), torch.Generator()))["loss"].backward()
    missing = [key for key, value in learner.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []


@pytest.mark.parametrize("name", BASELINES)
def test_the_bilateral_form_takes_the_other_side_as_positive(name: str) -> None:
    first, second = views()
    alone, both = (made(name, bilateral=bilateral) for bilateral in (False, True))
    assert torch.equal(*(learner.inputs([first, second], torch.Generator())[0] for learner in (alone, both)))
    own, other = (learner.inputs([first, second], torch.Generator())[1] for learner in (alone, both))
    pairs = 4
    assert torch.equal(own[:pairs], other[pairs : 2 * pairs])
    assert torch.equal(own[pairs : 2 * pairs], other[:pairs])
    if name == "mae":
        # Both sides of one view, which geometry joins.
        assert torch.equal(own[:pairs, 0], first[:, 0])
    else:
        assert torch.equal(own[:pairs, 0], second[:, 0])


def test_simclr_is_the_cross_entropy_over_all_other_patches() -> None:
    learner = made("simclr", temperature=0.3)
    first, second = learner.inputs(views(), torch.Generator())
    embedded = functional.normalize(torch.cat([learner.embed(first), learner.embed(second)]), dim=1)
    count = len(embedded)
    losses = []
    for place in range(count):
        similar = embedded @ embedded[place] / 0.3
        others = [other for other in range(count) if other != place]
        losses.append(torch.logsumexp(similar[others], 0) - similar[(place + count // 2) % count])
    torch.testing.assert_close(learner.loss(first, second), torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["moco", "byol", "dino"])
def test_a_teacher_starts_as_the_student_and_follows_without_gradient(name: str) -> None:
    learner = made(name, momentum=0.5)
    assert all(
        torch.equal(teacher, student)
        for follower, leader in learner.followers()
        for teacher, student in zip(follower.parameters(), leader.parameters(), strict=True)
    )
    assert not any(
        parameter.requires_grad for follower, _ in learner.followers() for parameter in follower.parameters()
    )
    with torch.no_grad():
        for _, leader in learner.followers():
            for parameter in leader.parameters():
                parameter.add_(1.0)
    before = next(learner.teacher.parameters()).clone()
    learner.step_done(1, 100)
    torch.testing.assert_close(next(learner.teacher.parameters()), before + 0.5)


def test_a_masked_autoencoder_of_a_convolutional_network_is_refused() -> None:
    method = PretrainingConfig(method="mae")
    with pytest.raises(UserError, match=r"pretraining\.method=mae .* encoder\.backbone=vit_tiny"):
        BASELINES["mae"](encoder.build(SMALL, 0, 32), Arithmetic(), method, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
@pytest.mark.parametrize("name", ["moco", "swav"])
def test_a_rival_trains_on_two_workers(name: str, tiny_store: Store, tmp_path: Path) -> None:
    # Two blocks of pairs, one for each worker.
    config = tiny(name, "pretraining.epochs=1", "pretraining.pairs_per_epoch=128")
    workers = dataclasses.replace(config.cluster, workers=2)
    trainer.pretrain(dataclasses.replace(config, cluster=workers), tiny_store, tmp_path)
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    assert np.isfinite(epochs.loss[epochs.epoch == 1]).all()
    assert (tmp_path / "encoder" / "model.safetensors").exists()
