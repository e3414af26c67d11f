"""Means and profiles over metrics and data sets: Agarwal's definitions, and runs of one encoder drawn together."""

import numpy as np
import pytest
from scipy import stats

from siamray.config import IntervalsConfig
from siamray.errors import UserError
from siamray.sweeps.aggregate import interquartile_means, performance_profiles
from siamray.sweeps.estimates import Outcome
from tests.sweeps.simulated_differences import differences

QUICK = IntervalsConfig(replicates=200)
METRICS = ("patches_linear_auc", "birads_attention_kappa")


def measured(variants=("soft", "hard"), data=("mias", "vindr"), metrics=METRICS, seeds=5, key=0, gain=0.0, **noise):
    noise = {"of_women": 0.1, "of_seeds": 0.05, "effect": 0.6, **noise}
    found = {}
    for d, name in enumerate(data):
        found[name] = {}
        for m, metric in enumerate(metrics):
            found[name][metric] = {}
            for v, variant in enumerate(variants):
                blocks = differences(np.random.default_rng([key, d, m, v]), seeds=seeds, **noise)
                for block, outcome in blocks.items():
                    moved = Outcome(outcome.value + v * gain, outcome.replicates + v * gain, outcome.samples)
                    found[name][metric][variant, *block] = moved
    return found


def above_chance(given, variant: str) -> np.ndarray:
    """Runs x tasks, as Agarwal et al. have them."""
    columns = []
    for metrics in given.values():
        for metric, trials in metrics.items():
            chance = 0.5 if metric.endswith("auc") else 0.0
            own = [outcome.value for trial, outcome in trials.items() if trial[0] == variant]
            columns.append([(value - chance) / (1 - chance) for value in own])
    return np.array(columns).T


def test_the_value_is_the_trimmed_mean_of_all_runs_of_all_tasks() -> None:
    given = measured()
    rows = interquartile_means(given, ["soft", "hard"], QUICK).set_index("variant")
    for name in ("soft", "hard"):
        scores = above_chance(given, name)
        assert rows.value[name] == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))
        middle = np.sort(scores.ravel())[5:15]
        assert rows.value[name] == pytest.approx(middle.mean())
        assert rows.low[name] < rows.value[name] < rows.high[name]
    assert rows.effect["hard"] == pytest.approx(rows.value["hard"] - rows.value["soft"])
    assert np.isnan(rows.effect["soft"])
    assert (rows.tasks == 4).all()
    assert (rows.seeds == 5).all()


def test_a_profile_is_the_share_of_runs_above_each_threshold_and_falls() -> None:
    given = measured()
    profiles = performance_profiles(given, ["soft"], QUICK, thresholds=[-1, 0.1, 0.3, 0.6, 2])
    scores = above_chance(given, "soft")
    expected = [np.mean(scores > threshold) for threshold in (-1, 0.1, 0.3, 0.6, 2)]
    assert list(profiles.share) == pytest.approx(expected)
    assert (profiles.share.diff().dropna() <= 0).all()
    assert ((profiles.low <= profiles.share) & (profiles.share <= profiles.high)).all()
    assert len(performance_profiles(given, ["soft", "hard"], QUICK)) == 2 * 101


def test_folds_of_a_seed_are_one_run() -> None:
    given = measured(data=("mias",), metrics=METRICS[:1], seeds=4)
    trials = given["mias"][METRICS[0]]
    folded = {(name, seed // 2, seed % 2): outcome for (name, seed, _), outcome in trials.items()}
    rows = interquartile_means({"mias": {METRICS[0]: folded}}, ["soft"], QUICK)
    values = [trials["soft", seed, 0].value for seed in range(4)]
    means = [(values[0] + values[1]) / 2, (values[2] + values[3]) / 2]
    assert rows.value[0] == pytest.approx((np.mean(means) - 0.5) / 0.5)
    assert rows.seeds[0] == 2


def test_metrics_of_one_encoder_are_drawn_together_and_data_sets_apart() -> None:
    """The same scores under two names tell no more than one; in two data sets they do."""
    single = measured(data=("mias",), metrics=METRICS[:1], of_women=0, seeds=8, variants=("soft",), replicates=2000)
    trials = single["mias"][METRICS[0]]
    twice = {"mias": {METRICS[0]: trials, "patches_knn20_auc": trials}}
    apart = {"mias": {METRICS[0]: trials}, "vindr": {METRICS[0]: trials}}
    widths = [
        (rows.high - rows.low).item()
        for rows in (interquartile_means(given, ["soft"], IntervalsConfig()) for given in (single, twice, apart))
    ]
    assert widths[1] > 0.85 * widths[0]
    assert widths[2] < 0.85 * widths[0]


def test_the_seeds_variance_is_whole_in_the_replicates() -> None:
    """Of 4 seeds, whose interquartile mean is that of the middle two: all drawn alike, the plain mean is checked."""
    given = measured(data=("mias",), metrics=METRICS[1:], of_women=0, seeds=3, variants=("soft",))
    trials = given["mias"][METRICS[1]]
    many = {trial: Outcome(o.value, np.full(4000, o.value), o.samples) for trial, o in trials.items()}
    profile = performance_profiles({"mias": {METRICS[1]: many}}, ["soft"], IntervalsConfig(), [-9.0])
    assert profile.share.item() == profile.low.item() == profile.high.item() == 1
    from siamray.sweeps.aggregate import _bootknife

    drawn = _bootknife(3, 40_000, np.random.default_rng(0))
    values = np.array([outcome.value for outcome in trials.values()])
    assert values[drawn].mean(axis=1).var() == pytest.approx(values.var(ddof=1) / 3, rel=0.03)


def test_a_gain_in_every_task_is_seen_and_intervals_cover() -> None:
    covered, seen = [], []
    for key in range(60):
        given = measured(key=key, gain=0.1, seeds=5)
        row = interquartile_means(given, ["soft", "hard"], QUICK).iloc[1]
        # .1 of an AUC is .2 above chance, of a kappa .1: the middle half lies between.
        covered.append(row.effect_low <= 0.2 and row.effect_high >= 0.1)
        seen.append(row.effect > 0)
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)
    assert np.mean(seen) > 0.9


def test_what_cannot_be_averaged_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="patches_linear_ap: what ap is worth by chance depends on the data"):
        interquartile_means(measured(metrics=("patches_linear_ap",)), ["soft"], QUICK)
    with pytest.raises(UserError, match="'mias' has no seed that all of soft, gone finished"):
        interquartile_means(measured(), ["soft", "gone"], QUICK)
    uneven = measured(data=("mias",), seeds=5) | measured(data=("vindr",), seeds=3)
    with pytest.raises(UserError, match=r"'vindr' has 3 seeds of all variants and 'mias' 5.* seeds=5"):
        interquartile_means(uneven, ["soft"], QUICK)
    holed = measured()
    trial = ("soft", 0, 0)
    old = holed["mias"][METRICS[0]][trial]
    holed["mias"][METRICS[0]][trial] = Outcome(float("nan"), old.replicates, old.samples)
    with pytest.raises(UserError, match=r"patches_linear_auc of 'mias': 'soft' \(seed 0\) has no value"):
        interquartile_means(holed, ["soft"], QUICK)


def test_few_seeds_are_noted() -> None:
    assert "3 seeds: the interval is too narrow" in interquartile_means(measured(seeds=3), ["soft"], QUICK).note[0]
    assert interquartile_means(measured(seeds=1), ["soft"], QUICK).note[0].startswith("one seed:")
