"""Probes on frozen features, against scikit-learn and a slow loop."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from siamray.config import ProbeConfig
from siamray.downstream.features import extract
from siamray.downstream.probes import knn_scores, linear_probe


def drawn(seed: int, n: int, features: int = 6):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    labels[:2] = 0, 1
    x = generator.normal(size=(n, features)) * [1, 10, 0.1, 1, 1, 1] + 3
    x[:, 1] += 8 * labels
    return x, labels


def test_linear_probe_equals_the_best_of_separate_regressions():
    train, validation, test = drawn(0, 80), drawn(1, 60), drawn(2, 50)
    config = ProbeConfig()
    probe = linear_probe(*train, *validation, test[0], config)
    mean, deviation = train[0].mean(axis=0), train[0].std(axis=0)
    reached, scores = {}, {}
    for strength in config.strengths:
        model = LogisticRegression(C=strength, max_iter=5000).fit((train[0] - mean) / deviation, train[1])
        reached[strength] = roc_auc_score(validation[1], model.decision_function((validation[0] - mean) / deviation))
        scores[strength] = model.decision_function((test[0] - mean) / deviation)
    best = min(strength for strength in reached if reached[strength] == max(reached.values()))
    assert probe.strength == best
    assert probe.validation_auc == pytest.approx(reached, abs=1e-9)
    np.testing.assert_allclose(probe.test_scores, scores[best], atol=1e-3)
    assert probe.note == ""


def test_the_smaller_strength_wins_a_tie_in_whatever_order_they_are_given():
    x = np.linspace(-1, 1, 40)[:, None]
    y = (x[:, 0] > 0).astype(int)
    probe = linear_probe(x, y, x, y, x, ProbeConfig(strengths=[10.0, 0.1, 1.0]))
    assert set(probe.validation_auc.values()) == {1.0}
    assert probe.strength == 0.1


def test_the_probe_does_not_look_at_test_samples():
    train, validation, test = drawn(0, 80), drawn(1, 60), drawn(2, 50)
    alone = linear_probe(*train, *validation, test[0][:10], ProbeConfig())
    together = linear_probe(*train, *validation, test[0], ProbeConfig())
    assert alone.strength == together.strength
    np.testing.assert_allclose(alone.test_scores, together.test_scores[:10], rtol=1e-12)


def test_a_class_absent_from_training_gives_nan_scores_with_the_reason():
    x, _ = drawn(0, 20)
    probe = linear_probe(x, np.zeros(20), *drawn(1, 10), x, ProbeConfig())
    assert np.isnan(probe.test_scores).all()
    assert len(probe.test_scores) == 20
    assert np.isnan(probe.validation_scores).all()
    assert np.isnan(probe.strength)
    assert probe.note == "no probe: training has normal samples only"


def test_a_class_absent_from_validation_takes_the_middle_strength_and_says_so():
    probe = linear_probe(*drawn(0, 40), drawn(1, 10)[0], np.ones(10), drawn(2, 10)[0], ProbeConfig())
    assert probe.strength == 0.1
    assert probe.note == "C=0.1 not chosen: validation has abnormal samples only"
    assert np.isfinite(probe.test_scores).all()


def test_features_that_do_not_vary_are_harmless():
    x, y = drawn(0, 40)
    x[:, 2] = 7
    assert np.isfinite(linear_probe(x, y, x, y, x, ProbeConfig()).test_scores).all()
    flat = linear_probe(np.ones((40, 3)), y, x[:, :3], y, x[:, :3], ProbeConfig())
    assert np.isfinite(flat.test_scores).all()


@pytest.mark.parametrize(("place", "name"), [(0, "training"), (2, "validation"), (4, "test")])
def test_a_feature_that_is_not_finite_is_named(place, name):
    given = [*drawn(0, 40), *drawn(1, 10), drawn(2, 10)[0]]
    given[place][3, 5] = np.inf
    with pytest.raises(ValueError, match=f"{name} features are not finite: 1 of .* first sample 3, feature 5: inf"):
        linear_probe(*given, ProbeConfig())


@pytest.mark.parametrize("k", [1, 5, 200])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_neighbours_vote_as_in_a_slow_loop(k, temperature):
    train_x, train_y = drawn(0, 70)
    x, _ = drawn(1, 30)
    votes = knn_scores(train_x, train_y, x, k, temperature)
    for query, score in zip(x, votes.scores, strict=True):
        cosines = [float(query @ other / np.linalg.norm(query) / np.linalg.norm(other)) for other in train_x]
        nearest = sorted(range(70), key=lambda i: -cosines[i])[:k]
        weights = [np.exp(cosines[i] / temperature) for i in nearest]
        expected = sum(w * train_y[i] for w, i in zip(weights, nearest, strict=True)) / sum(weights)
        assert score == pytest.approx(expected, abs=1e-9)


def test_k_is_capped_to_the_training_samples_and_the_cap_is_told():
    x, y = drawn(0, 12)
    assert knn_scores(x, y, x, 200, 0.07).neighbours == 12
    assert knn_scores(x, y, x, 5, 0.07).neighbours == 5


def test_small_temperatures_do_not_overflow_and_zero_features_are_harmless():
    x, y = drawn(0, 12)
    x[3] = 0
    scores = knn_scores(x, y, x, 5, 1e-3).scores
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(np.delete(scores, 3), np.delete(y, 3), atol=1e-3)  # its own neighbour wins


def test_without_training_samples_votes_are_nan_and_bad_values_are_refused():
    x, y = drawn(0, 12)
    empty = knn_scores(x[:0], y[:0], x, 5, 0.07)
    assert np.isnan(empty.scores).all()
    assert empty.neighbours == 0
    with pytest.raises(ValueError, match="must be positive"):
        knn_scores(x, y, x, 0, 0.07)
    with pytest.raises(ValueError, match="12 samples but labels of shape"):
        knn_scores(x, y[:5], x, 5, 0.07)


class SmallEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(8 * 7 * 7, 12), nn.Dropout(0.5), nn.Linear(12, 4))
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.batches.append(len(x))
        features = self.trunk(x)
        return features, self.projector(features)


def test_features_do_not_depend_on_which_patches_are_encoded_together():
    torch.manual_seed(0)
    encoder = SmallEncoder()
    patches = np.random.default_rng(0).normal(size=(21, 1, 16, 16)).astype(np.float32)
    features, embeddings = extract(encoder, patches, batch=8)
    assert set(encoder.batches) == {8}
    assert features.shape == (21, 392)
    assert embeddings.shape == (21, 4)
    for part in (slice(0, 8), slice(8, 21), slice(20, 21)):
        again = extract(encoder, patches[part], batch=8)
        np.testing.assert_allclose(again[0], features[part], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(again[1], embeddings[part], rtol=1e-5, atol=1e-6)


def test_encoding_leaves_the_encoder_as_it_was():
    encoder = SmallEncoder()
    encoder.train()
    encoder.projector.eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    extract(encoder, np.ones((3, 1, 16, 16), dtype=np.float32), batch=2)
    assert encoder.training
    assert encoder.trunk.training
    assert not encoder.projector[1].training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_no_patches_give_empty_arrays_and_another_shape_is_refused():
    features, embeddings = extract(SmallEncoder(), np.zeros((0, 1, 16, 16), dtype=np.float32), batch=4)
    assert features.shape == (0, 392)
    assert embeddings.shape == (0, 4)
    with pytest.raises(ValueError, match=r"\[N, 1, P, P\]"):
        extract(SmallEncoder(), np.zeros((3, 2, 16, 16), dtype=np.float32))
