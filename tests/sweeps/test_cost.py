"""The estimate of a dry run follows the work that a trial does."""

import dataclasses

import pytest

from siamray.compose import compose
from siamray.sweeps.ablation import make_trial
from siamray.sweeps.cost import estimate


def seconds(*words: str, known: float = 0.01) -> float | None:
    config = compose("sweep", ["pretraining.precision=float32", *words])
    trial = make_trial("a", "variant", config, "data")
    return estimate(trial, None, {("resnet10t", 64): known, ("resnet10t", 32): known}).seconds


def test_twice_the_epochs_or_pairs_cost_about_twice_as_much() -> None:
    def published(*words: str) -> float | None:
        return seconds("pretraining=siamese", "pretraining.epochs=10", "pretraining.pairs_per_epoch=100", *words)

    base = published()
    assert base is not None
    # 100 pairs x 2 sides x 2 networks x (10 epochs, each with a forward pass more, and one pass at the start).
    assert base == pytest.approx(100 * 2 * 2 * 0.01 * (10 * 4 / 3 + 1 / 3))
    assert published("pretraining.pairs_per_epoch=200") == pytest.approx(2 * base)
    assert published("pretraining.epochs=20") == pytest.approx(2 * base, rel=0.03)
    assert published("pretraining.peer=none") == pytest.approx(base / 2)
    # One network sees a changed self of every patch beside it.
    assert published("pretraining=masses") == pytest.approx(base)


def test_all_pairs_of_a_store_that_is_not_there_cannot_be_estimated() -> None:
    assert seconds("pretraining.pairs_per_epoch=null") is None


def test_the_encoder_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose("sweep", ["pretraining.precision=float32", "pairs.patch_pixels=32"])
    known: dict[tuple[str, int], float] = {}
    first = estimate(make_trial("a", "variant", config, "data"), None, known)
    assert first.seconds is not None
    assert first.seconds > 0
    monkeypatch.setattr("siamray.sweeps.cost.seconds_per_image", lambda _: pytest.fail("timed again"))
    again = estimate(make_trial("a", "variant", dataclasses.replace(config, seed=1), "data"), None, known)
    assert again.seconds == first.seconds
