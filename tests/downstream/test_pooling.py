"""Pooling of bags: the attention against its formula in a loop, both ways on bags that can and cannot be told apart."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from siamray.config import AttentionConfig, ProbeConfig
from siamray.downstream.pooling import GatedAttention, LabelledBags, SplitBags, attention_pooling, mean_pooling

FEATURES = 6


def drawn(seed: int, bags: int = 45, classes: int = 3, needles: int = 1, shift: float = 6.0) -> LabelledBags:
    """Bags of 8 to 20 noisy patches; in a bag of class c > 0 the feature c of some patches is high."""
    generator = np.random.default_rng(seed)
    truth = generator.permutation(np.arange(bags) % classes)
    features = []
    for one in truth:
        bag = generator.normal(size=(generator.integers(8, 21), FEATURES)).astype(np.float32)
        if one:
            bag[:needles, one] += shift
        features.append(generator.permutation(bag))
    return LabelledBags(features, truth)


def split(classes: int = 3, number: int | None = None, **options) -> SplitBags:
    return SplitBags(*(drawn(seed, classes=classes, **options) for seed in range(3)), number or classes)


def test_attention_equals_its_formula_bag_by_bag_whatever_fills_up_the_shorter_ones():
    torch.manual_seed(0)
    model = GatedAttention(FEATURES, 3, AttentionConfig(width=5)).eval()
    bags = [torch.randn(n, FEATURES) for n in (4, 1, 7)]
    padded = torch.full((3, 7, FEATURES), 99.0)
    there = torch.zeros(3, 7, dtype=torch.bool)
    for place, bag in enumerate(bags):
        padded[place, : len(bag)] = bag
        there[place, : len(bag)] = True
    logits, attention = model(padded, there)
    for place, bag in enumerate(bags):
        pooled, total, weights = torch.zeros(5), 0.0, []
        for patch in bag:
            h = torch.relu(model.embed[0](patch))
            gated = torch.tanh(model.value(h)) * torch.sigmoid(model.gate(h))
            weights.append(torch.exp(model.weigh(gated)[0]))
            total += weights[-1]
            pooled += weights[-1] * h
        torch.testing.assert_close(logits[place], model.classify(pooled / total))
        torch.testing.assert_close(attention[place, : len(bag)], torch.stack(weights) / total)
        assert (attention[place, len(bag) :] == 0).all()


def test_attention_finds_the_one_patch_that_tells_and_validation_chooses_the_epoch():
    bags = split(bags=90)
    found = attention_pooling(bags, "balanced", AttentionConfig(), seed=0)
    np.testing.assert_allclose(found.test.sum(axis=1), 1, rtol=1e-6)
    assert roc_auc_score(bags.test.classes, found.test, multi_class="ovr") > 0.9
    chosen, stopped = (int(word) for word in found.note.replace("epoch ", "").split(" of "))
    assert 1 <= chosen <= stopped <= 100


def test_training_stops_when_validation_has_not_gained_for_as_long_as_patience_says():
    nothing_to_learn = split(shift=0.0)
    found = attention_pooling(nothing_to_learn, "balanced", AttentionConfig(patience=4), seed=0)
    chosen, stopped = (int(word) for word in found.note.replace("epoch ", "").split(" of "))
    assert stopped - chosen == 4 < 100


def test_same_seed_same_probabilities_and_other_bags_tested_along_change_nothing():
    bags, config = split(), AttentionConfig(epochs=5)
    first, again = (attention_pooling(bags, "balanced", config, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.test, again.test)
    assert (attention_pooling(bags, "balanced", config, seed=4).test != first.test).any()
    fewer = bags._replace(test=LabelledBags(bags.test.features[:7], bags.test.classes[:7]))
    np.testing.assert_allclose(attention_pooling(fewer, "balanced", config, seed=3).test, first.test[:7], rtol=1e-5)
    state = torch.get_rng_state()
    attention_pooling(bags, "equal", config, seed=3)
    assert torch.equal(state, torch.get_rng_state())


def test_mean_pooling_equals_the_best_of_separate_regressions_on_mean_features():
    bags, config = split(needles=4), ProbeConfig()
    found = mean_pooling(bags, "balanced", config)
    train, judge, test = (np.stack([bag.mean(axis=0) for bag in part.features]) for part in bags[:3])
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    reached, answers = {}, {}
    for strength in config.strengths:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
        model.fit((train - mean) / deviation, bags.training.classes)
        answer = model.predict_proba((judge - mean) / deviation)
        reached[strength] = roc_auc_score(bags.validation.classes, answer, multi_class="ovr", average="macro")
        answers[strength] = model.predict_proba((test - mean) / deviation)
    best = max(reached, key=lambda strength: (round(reached[strength], 9), -strength))
    assert found.note == f"C={best:g}"
    np.testing.assert_allclose(found.test, answers[best], atol=1e-3)


def both(bags: SplitBags) -> list:
    return [
        attention_pooling(bags, "balanced", AttentionConfig(epochs=4), seed=0),
        mean_pooling(bags, "balanced", ProbeConfig()),
    ]


def test_a_class_that_training_lacks_has_probability_0_and_that_validation_lacks_does_no_harm():
    bags = split(classes=3, number=5)  # of five classes nobody has the last two ...
    test = LabelledBags(bags.test.features, np.where(bags.test.classes == 2, 4, bags.test.classes))  # ... but in test
    validation = LabelledBags(bags.validation.features, np.minimum(bags.validation.classes, 1))
    for found in both(bags._replace(test=test, validation=validation)):
        assert found.test.shape == (45, 5)
        assert (found.test[:, 3:] == 0).all()
        np.testing.assert_allclose(found.test.sum(axis=1), 1, rtol=1e-6)


def test_one_class_in_training_gives_no_probabilities_and_says_so():
    bags = split()
    for found in both(bags._replace(training=LabelledBags(bags.training.features, np.ones(45, dtype=np.int64)))):
        assert found.test.shape == (45, 3)
        assert np.isnan(found.test).all()
        assert np.isnan(found.validation).all()
        assert found.note == "not trained: training has not two classes"


@pytest.mark.parametrize("classes", [[], [2, 2]], ids=["no bag", "no bag of a known class"])
def test_without_a_validation_bag_of_use_the_fallback_is_told(classes):
    bags = split(classes=2, number=3)
    validation = LabelledBags(bags.validation.features[: len(classes)], np.array(classes, dtype=np.int64))
    attention, mean = both(bags._replace(validation=validation))
    assert attention.note == "epoch 4 of 4, not chosen: validation has no bag of a class that training has"
    assert mean.note == "C=0.1 not chosen: validation has not two classes"
    for found in (attention, mean):
        assert found.validation.shape == (len(classes), 3)
        assert np.isfinite(found.test).all()


def test_balanced_weights_answer_a_rare_class_that_equal_ones_never_do():
    generator = np.random.default_rng(0)
    truth = (np.arange(120) % 12 == 0).astype(np.int64)
    features = [generator.normal(0.6 * one, 1, size=(5, FEATURES)).astype(np.float32) for one in truth]
    bags = SplitBags(*[LabelledBags(features, truth)] * 3, 2)
    balanced, equal = (
        mean_pooling(bags, weights, ProbeConfig(strengths=[0.01])).test.argmax(axis=1).sum()
        for weights in ("balanced", "equal")
    )
    assert equal < balanced
