"""Paired differences whose truth is known: every woman and every seed adds a normal number of its own to a mean."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from siamray.downstream.intervals import women_weights
from siamray.sweeps.estimates import Outcome


def differences(
    generator: np.random.Generator,
    *,
    effect: float = 0.0,
    of_women: float,
    of_seeds: float,
    women: int = 30,
    seeds: int = 3,
    replicates: int = 200,
) -> dict[tuple[int, int], Outcome]:
    """The blocks of one comparison; of_women and of_seeds are the deviations of one woman and of one seed."""
    weights = women_weights(women, replicates, 0)
    names = [f"w{number:03d}" for number in range(women)]
    samples = pd.DataFrame({"woman_id": names, "sample_id": names, "label": 0, "task": "patches"})
    by_woman = effect + of_women * generator.normal(size=women)
    blocks = {}
    for seed in range(seeds):
        values = by_woman + of_seeds * generator.normal()
        left_out = (values.sum() - values) / (women - 1)
        blocks[seed, 0] = Outcome(float(values.mean()), weights @ values / women, samples, left_out)
    return blocks


def many(simulations: int, key: int, **what: float) -> Iterator[dict[tuple[int, int], Outcome]]:
    """Simulations of `differences`, each from a seed of its own."""
    for simulation in range(simulations):
        yield differences(np.random.default_rng([key, simulation]), **what)  # type: ignore[arg-type]
