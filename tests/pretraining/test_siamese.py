"""The learner of the method: a head that tells drawn masses, and a teacher that follows its network."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional

from siamray.config import Config, EncoderConfig, MassesConfig, PretrainingConfig
from siamray.data.store import Store
from siamray.pretraining import encoder, trainer
from siamray.pretraining.arithmetic import Arithmetic
from siamray.pretraining.siamese import Siamese


def learner(**method: object) -> Siamese:
    small = EncoderConfig(projector_hidden=8, projector_features=4)
    options = PretrainingConfig(**method)
    networks = [encoder.build(small, seed, 32) for seed in range(2 if options.peer == "network" else 1)]
    return Siamese(networks, Arithmetic(), options)


def batch(pairs: int = 4) -> torch.Tensor:
    return torch.randn((pairs, 2, 32, 32), generator=torch.Generator().manual_seed(0))


def test_the_head_learns_by_cross_entropy_that_unchanged_patches_have_no_mass() -> None:
    made = learner(peer="none", masses=MassesConfig(head_weight=3.0))
    patches, strengths = made.inputs([batch()], torch.Generator().manual_seed(1))
    torch.nn.init.normal_(made.networks[0].head.weight, std=0.01)
    losses = made(torch.zeros(1, 4), patches, strengths)
    features, _ = made.networks[0](patches)
    probability = torch.sigmoid(features @ made.networks[0].head.weight[0] + made.networks[0].head.bias)
    wanted = torch.cat([torch.zeros(8), strengths])
    expected = -(wanted * probability.log() + (1 - wanted) * (1 - probability).log()).mean()
    torch.testing.assert_close(losses["head_A"], expected, rtol=1e-4, atol=1e-4)
    others = losses["contrastive_A"] + made.method.anti_collapse.weight * losses["anti_collapse_A"]
    torch.testing.assert_close(losses["loss"], others + 3 * losses["head_A"])


def test_drawn_masses_follow_the_unchanged_patches_in_the_same_order() -> None:
    made = learner(peer="none", masses=MassesConfig(weight=1.0, contrast=2.0))
    patches, strengths = made.inputs([batch()], torch.Generator().manual_seed(1))
    assert patches.shape == (16, 1, 32, 32)
    added = patches[8:] - patches[:8]
    assert (added > -1e-6).all()
    torch.testing.assert_close(added.amax(dim=(1, 2, 3)) <= 2 * strengths + 1e-5, torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(patches[:4, 0], batch()[:, 0])


def test_a_teacher_gets_no_gradient_and_follows_by_its_momentum() -> None:
    made = learner(peer="teacher", teacher_momentum=0.75)
    network, teacher = made.networks
    before = {name: value.clone() for name, value in teacher.named_parameters()}
    made(torch.zeros(2, 4), *made.inputs([batch()], torch.Generator()))["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    made.step_done(1, 10)
    for name, value in teacher.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.25)


def test_both_networks_hold_each_other_but_the_teacher_is_not_moved_by_the_term() -> None:
    made = learner(peer="teacher")
    losses = made(torch.zeros(2, 4), *made.inputs([batch()], torch.Generator()))
    # Equal weights, equal distances: nothing to hold.
    assert losses["cross"].item() == pytest.approx(0, abs=1e-6)
    assert "contrastive_B" not in losses


def test_the_head_is_exported_with_the_encoder(tiny_config: Config, tiny_store: Store, tmp_path: Path) -> None:
    method = dataclasses.replace(tiny_config.pretraining, masses=MassesConfig(head_weight=4.0), epochs=1)
    trainer.pretrain(dataclasses.replace(tiny_config, pretraining=method), tiny_store, tmp_path)
    loaded = encoder.load(tmp_path / "encoder")
    assert loaded.head is not None
    features = torch.randn(3, loaded.features)
    expected = functional.linear(features, loaded.head.weight, loaded.head.bias)[:, 0]
    torch.testing.assert_close(loaded.abnormality(features), expected)
    assert loaded.head.weight.abs().sum() > 0
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    assert epochs["head"].notna().sum() == 2


def test_an_encoder_without_head_says_so() -> None:
    with pytest.raises(ValueError, match="head_weight"):
        encoder.build(EncoderConfig(), 0, 32).abnormality(torch.zeros(1, 512))
