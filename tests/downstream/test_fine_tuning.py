"""Fine-tuning: it learns what a frozen encoder does not show, chooses by validation, and repeats itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from siamray.config import AugmentationConfig, FineTuningConfig
from siamray.downstream.fine_tuning import fine_tune
from siamray.downstream.intervals import auc

SIDE = 16
QUICK = FineTuningConfig(epochs=6, learning_rate=3e-3, batch_patches=16)
STILL = AugmentationConfig(rotation_degrees=0, crop_scale=1, shift_share=0, brightness=0, contrast=0, noise=0)


class TinyEncoder(nn.Module):
    """Features that are blind to the stripes at first: its filters average."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.trunk[0].parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.trunk(x).mean(dim=(2, 3))
        return features, features


def samples(seed: int, n: int = 64) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % 2)
    table = pd.DataFrame({"label": labels, "side": generator.choice(["left", "right"], n), "row": 0, "col": 0})
    return table.assign(entry_id=[f"s{seed}_{number}" for number in range(n)])


def striped_where_abnormal(table: pd.DataFrame, context: int = 0) -> np.ndarray:
    """Pairs of noise; the abnormal sample's own side has fine stripes of mean 0."""
    edge = SIDE + 2 * context
    pairs = np.zeros((len(table), 2, edge, edge), dtype=np.float32)
    stripes = np.where((np.arange(edge) + context) % 2, 1.0, -1.0)
    for pair, row in zip(pairs, table.itertuples(), strict=True):
        pair += np.random.default_rng(list(row.entry_id.encode())).normal(size=pair.shape)
        pair[("left", "right").index(row.side)] += 0.8 * row.label * stripes[:, None]
    return pairs


def tuned(encoder=None, config=QUICK, augmentation=STILL, seed=0, train=0, **changed):
    given = {"training": samples(train), "validation": samples(1), "test": samples(2)} | changed
    return fine_tune(encoder or TinyEncoder(), *given.values(), striped_where_abnormal, config, augmentation, seed)


def test_it_learns_from_the_labels_of_the_samples_own_side_and_leaves_the_encoder_alone():
    encoder = TinyEncoder().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = tuned(encoder)
    assert auc(samples(2).label, found.test_scores) > 0.9
    assert auc(samples(1).label, found.validation_scores) == max(found.validation_auc)
    assert found.epoch == 1 + found.validation_auc.index(max(found.validation_auc))
    assert found.note == f"epoch {found.epoch} of 6"
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_same_seed_same_scores_and_other_samples_tested_along_change_nothing():
    first, again, other = (
        tuned(augmentation=AugmentationConfig()),
        tuned(augmentation=AugmentationConfig()),
        tuned(seed=1),
    )
    np.testing.assert_array_equal(first.test_scores, again.test_scores)
    assert (first.test_scores != other.test_scores).any()
    fewer = tuned(augmentation=AugmentationConfig(), test=samples(2).iloc[:9])
    np.testing.assert_allclose(fewer.test_scores, first.test_scores[:9], rtol=1e-5)
    encoder, state = TinyEncoder(), torch.get_rng_state()
    tuned(encoder)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_learning_the_scores_are_the_log_odds_of_the_training_patches():
    found = tuned(config=FineTuningConfig(epochs=2, learning_rate=0, augment=False), training=samples(0).iloc[:50])
    prevalence = samples(0).iloc[:50].label.mean()
    np.testing.assert_allclose(found.test_scores, np.log(prevalence / (1 - prevalence)), rtol=1e-5)
    assert found.epoch == 1  # of equally good ones the first


def test_absent_classes_have_a_documented_fallback():
    normal = samples(0).assign(label=0)
    nothing = tuned(training=normal)
    assert np.isnan(nothing.test_scores).all()
    assert np.isnan(nothing.validation_scores).all()
    assert nothing.note == "not fine-tuned: a class is absent from training"
    last = tuned(validation=samples(1).assign(label=0))
    assert last.epoch == 6
    assert last.note == "epoch 6 of 6, not chosen: a class is absent from validation"
    assert np.isfinite(last.test_scores).all()


def test_a_training_that_blows_up_gives_no_scores_and_says_so():
    found = tuned(config=FineTuningConfig(epochs=2, learning_rate=float("inf"), augment=False))
    assert np.isnan(found.test_scores).all()
    assert found.note == "not fine-tuned: no epoch gave finite answers"


@pytest.mark.parametrize("patches", [1, 64, 1000])
def test_any_batch_size_covers_all_samples(patches):
    assert np.isfinite(tuned(config=FineTuningConfig(epochs=1, batch_patches=max(2, patches))).test_scores).all()
