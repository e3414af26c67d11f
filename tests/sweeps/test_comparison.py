"""Variants compared with a reference: numbers against slow references, and how often the test errs."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from siamray.config import IntervalsConfig
from siamray.downstream.intervals import auc, women_weights
from siamray.errors import UserError
from siamray.sweeps.comparison import BRIGHTNESS, COLUMNS, compare
from siamray.sweeps.contract import COMPARISON_COLUMNS

QUICK = IntervalsConfig(replicates=200)


def drawn(seed: int, women: int = 20, per_woman: int = 6) -> pd.DataFrame:
    """The samples of a test set: half of the women have lesions in half of their patches."""
    number = np.repeat(np.arange(women), per_woman)
    label = ((number % 2 == 0) & (np.tile(np.arange(per_woman), women) < per_woman // 2)).astype(int)
    samples = pd.DataFrame({"woman_id": [f"w{n:03d}" for n in number], "label": label})
    samples["sample_id"] = [f"s{seed}_{n:04d}" for n in range(len(samples))]
    return samples.assign(task="patches", split="test", note="")


def predictions(samples: pd.DataFrame, values: np.ndarray, **scores: np.ndarray) -> pd.DataFrame:
    """What a trial leaves, with the linear score and further ones."""
    return pd.concat([samples.assign(score=name, value=value) for name, value in {"linear": values, **scores}.items()])


def trials(generator, names=("soft", "hard", "none"), seeds=3, folds=(0,), shift=None, women=20):
    """Predictions of variants that share each woman's difficulty and differ by noise of the seed and of the sample."""
    found = {}
    for fold in folds:
        samples = drawn(fold, women).assign(woman_id=lambda table, fold=fold: f"f{fold}" + table.woman_id)
        difficulty = generator.normal(size=women)[np.repeat(np.arange(women), 6)]
        common = 1.2 * samples.label + 0.7 * difficulty + generator.normal(size=len(samples))
        for name in names:
            for seed in range(seeds):
                skill = 1 + 0.2 * generator.normal() + (shift or {}).get(name, 0)
                noise = 0.5 * generator.normal(size=len(samples))
                found[name, seed, fold] = predictions(samples, common + (skill - 1) * samples.label + noise)
    return found


def linear(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.score == "linear"]


def test_effect_is_the_difference_of_the_means_over_seeds_and_folds():
    given = trials(np.random.default_rng(0), folds=(0, 1))
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK).set_index("variant")
    means = {
        name: np.mean([auc(table.label, table.value) for trial, table in given.items() if trial[0] == name])
        for name in ("soft", "hard", "none")
    }
    for name, mean in means.items():
        assert rows.value[name] == pytest.approx(mean)
        assert rows.value_low[name] < mean < rows.value_high[name]
    for name in ("hard", "none"):
        assert rows.effect[name] == pytest.approx(means[name] - means["soft"])
        assert rows.effect_low[name] <= rows.effect[name] <= rows.effect_high[name]
    assert rows.role.to_dict() == {"soft": "variant", "hard": "variant", "none": "control"}
    assert rows.loc["soft", ["effect", "effect_low", "p", "p_holm"]].isna().all()
    assert (rows.women == 40).all()
    assert (rows.folds == 2).all()
    assert (rows.seeds == 3).all()
    assert (rows.lesions == 60).all()
    assert (rows.normals == 180).all()


def test_columns_are_those_of_the_results_contract_and_of_its_types():
    rows = compare(trials(np.random.default_rng(0)), "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK)
    assert list(rows.columns) == COLUMNS
    assert set(COMPARISON_COLUMNS) <= set(rows.columns)
    rows.astype(COMPARISON_COLUMNS)


def test_replicates_are_those_of_a_slow_loop_over_women_and_seeds():
    given = trials(np.random.default_rng(1), names=("soft", "hard"), women=12)
    config = IntervalsConfig(replicates=150)
    row = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], [], config).set_index("variant").loc["hard"]
    women = sorted(set(given["soft", 0, 0].woman_id))
    counts = women_weights(12, 150, config.seed)
    seeds = np.random.default_rng([config.seed, 1]).multinomial(2, [1 / 3] * 3, size=150)
    effects = []
    for replicate in range(150):
        drawn_seeds = [seed for seed in range(3) for _ in range(seeds[replicate, seed])]
        means = {}
        for name in ("soft", "hard"):
            values = []
            for seed in drawn_seeds:
                table = given[name, seed, 0]
                weights = table.woman_id.map(dict(zip(women, counts[replicate], strict=True)))
                values.append(auc(table.label, table.value, weights))
            means[name] = np.mean(values)
        effects.append(means["hard"] - means["soft"])
    effects = np.array(effects)
    assert (row.effect_low, row.effect_high) == pytest.approx(tuple(np.quantile(effects, [0.025, 0.975])))
    expected = min(1, 2 * (1 + min((effects <= 0).sum(), (effects >= 0).sum())) / 151)
    assert row.p == pytest.approx(expected)


def test_variants_that_predict_the_same_have_no_effect_at_all():
    given = trials(np.random.default_rng(2), names=("soft",))
    given |= {("same", seed, fold): table for (_, seed, fold), table in list(given.items())}
    row = compare(given, "soft", "patches_linear_auc", ["soft", "same"], [], QUICK).set_index("variant").loc["same"]
    assert (row.effect, row.effect_low, row.effect_high, row.p, row.p_holm) == (0, 0, 0, 1, 1)
    assert row.verdict.startswith(
        "no evidence that same differs from soft: effect +.000 [+.000, +.000], corrected p 1.000"
    )


def test_the_order_of_rows_and_trials_changes_nothing():
    given = trials(np.random.default_rng(3))
    shuffled = {trial: table.sample(frac=1, random_state=1) for trial, table in reversed(list(given.items()))}
    arguments = ("soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK)
    pd.testing.assert_frame_equal(compare(given, *arguments), compare(shuffled, *arguments))


def test_a_clear_difference_is_stated_and_its_sign_is_right():
    given = trials(np.random.default_rng(4), shift={"hard": -3, "none": 3})
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard", "none"], [], QUICK).set_index("variant")
    assert rows.verdict["hard"].startswith("hard is below soft: effect -.")
    assert rows.verdict["none"].startswith("none is above soft: effect +.")
    assert rows.verdict["soft"].startswith("soft is the reference: .")
    assert rows.verdict["none"].endswith("20 women, 3 seeds")
    assert not rows.verdict.str.contains("prove|signific").any()


def test_holm_corrects_variants_and_controls_as_families_of_their_own():
    names = ("soft", "a", "b", "c", "d", "e")
    given = trials(np.random.default_rng(5), names=names, shift={"b": -0.5, "e": 0.3})
    rows = compare(given, "soft", "patches_linear_auc", names[:4], names[4:], QUICK).set_index("variant")
    for family in (["a", "b", "c"], ["d", "e"]):
        np.testing.assert_allclose(rows.p_holm[family], multipletests(rows.p[family], method="holm")[1])
    assert (rows.p_holm.dropna() >= rows.p.dropna()).all()


def test_too_few_replicates_to_reject_are_said_to_be_so():
    given = trials(np.random.default_rng(6), names=("soft", *"abcde"))
    few = compare(given, "soft", "patches_linear_auc", ["soft", *"abcde"], [], IntervalsConfig(replicates=100))
    assert few.note[1:].str.contains("too few replicates").all()
    assert not few.note[:1].str.contains("few").any()
    assert (
        not compare(given, "soft", "patches_linear_auc", ["soft", *"abcde"], [], QUICK).note.str.contains("few").any()
    )


def test_one_seed_is_compared_over_women_only_and_says_so():
    given = trials(np.random.default_rng(7), seeds=1)
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK)
    assert rows.note.str.contains("one seed: the interval covers other women, not other seeds").all()
    assert (rows.seeds == 1).all()
    assert (rows.effect_low[1:] < rows.effect_high[1:]).all()
    assert rows.verdict.str.endswith("1 seed").all()


def test_missing_trials_are_left_out_on_both_sides_and_noted():
    given = trials(np.random.default_rng(8))
    del given["hard", 1, 0]
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard", "gone"], ["none"], QUICK).set_index("variant")
    common = [
        auc(given["hard", seed, 0].label, given["hard", seed, 0].value)
        - auc(given["soft", seed, 0].label, given["soft", seed, 0].value)
        for seed in (0, 2)
    ]
    assert rows.effect["hard"] == pytest.approx(np.mean(common))
    assert rows.seeds["hard"] == 2
    assert rows.note["hard"].startswith("compared on 2 of the 3 trials (seed, fold) of 'soft'; 2 seeds: the interval")
    assert rows.note["none"].startswith("3 seeds: the interval is too narrow if seeds move the metric more")
    assert np.isnan(rows.value["gone"])
    assert np.isnan(rows.p_holm["gone"])
    assert rows.women["gone"] == 0
    assert (
        rows.verdict["gone"]
        == "gone cannot be compared with soft: no finished trial of a seed and fold that 'soft' has"
    )


def test_other_samples_or_labels_are_refused_by_name():
    given = trials(np.random.default_rng(9))
    given["hard", 1, 0] = given["hard", 1, 0].iloc[1:]
    with pytest.raises(
        UserError, match=r"'hard' \(seed 1, fold 0\) and 'soft' \(seed 0, fold 0\).*1 differ, such as s0_0000"
    ):
        compare(given, "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK)
    given = trials(np.random.default_rng(9))
    given["none", 2, 0] = given["none", 2, 0].assign(label=lambda table: 1 - table.label)
    with pytest.raises(UserError, match=r"'none' \(seed 2, fold 0\) and"):
        compare(given, "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK)


def test_a_missing_reference_and_a_missing_score_are_refused():
    given = trials(np.random.default_rng(10), names=("hard",))
    with pytest.raises(UserError, match="reference 'soft' has no finished trial"):
        compare(given, "soft", "patches_linear_auc", ["soft", "hard"], [], QUICK)
    with pytest.raises(
        UserError, match=r"'hard' \(seed 0, fold 0\) has no score 'linaer' of test women; did you mean 'linear'"
    ):
        compare(given, "hard", "patches_linaer_auc", ["hard"], [], QUICK)
    with pytest.raises(UserError, match="metric 'auc' is unknown"):
        compare(given, "hard", "auc", ["hard"], [], QUICK)


def test_a_score_that_failed_is_reported_with_its_reason():
    given = trials(np.random.default_rng(11), seeds=2)
    why = "no probe: training has normal samples only"
    given["hard", 0, 0] = given["hard", 0, 0].assign(value=np.nan, note=why)
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard", "none"], [], QUICK).set_index("variant")
    assert np.isnan(rows.effect["hard"])
    assert np.isnan(rows.p["hard"])
    assert rows.verdict["hard"] == f"hard cannot be compared with soft: {rows.note['hard']}"
    assert rows.note["hard"].endswith(why)
    assert rows.p_holm["none"] == rows.p["none"]  # a family of one is left


def test_replicates_without_a_class_are_left_out_and_counted():
    given = trials(np.random.default_rng(12), women=4)
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK)
    absent = int((women_weights(4, 200, 0)[:, [0, 2]].sum(axis=1) == 0).sum())
    assert absent > 0
    assert rows.note.str.contains(f"{absent} of 200 replicates lack a class and are left out").all()
    assert rows.effect_low[1:].notna().all()


def test_the_brightness_difference_stands_beside_the_distance_as_a_control():
    generator = np.random.default_rng(13)
    given = trials(generator)
    label = given["soft", 0, 0].label.to_numpy()
    brightness = label + generator.normal(size=len(label))
    given = {
        trial: predictions(
            table, table.value.to_numpy(), distance=label + generator.normal(size=len(label)), brightness=brightness
        )
        for trial, table in given.items()
    }
    arguments = (["soft", "hard"], ["none"], QUICK)
    rows = compare(given, "soft", "patches_distance_auc", *arguments, costs={("soft", 0, 0): 4.0, ("soft", 1, 0): 6.0})
    row = rows.set_index("variant").loc[BRIGHTNESS]
    assert row.role == "control"
    assert row.value == pytest.approx(auc(label, brightness))
    assert row.effect == pytest.approx(row.value - rows.value[0])
    assert np.isnan(row.cost_wall_s)
    assert row.seeds == 3
    assert row.effect_low < row.effect_high
    assert rows.cost_wall_s[0] == 5
    assert BRIGHTNESS not in compare(given, "soft", "patches_linear_auc", *arguments).variant.tolist()


def delong_error(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Standard error of the difference of two AUCs of the same independent cases (DeLong et al. 1988)."""
    kernels = []
    for scores in (first, second):
        positive, negative = scores[label == 1][:, None], scores[label == 0][None, :]
        kernels.append((positive > negative) + 0.5 * (positive == negative))
    difference = kernels[0] - kernels[1]
    of_positives, of_negatives = difference.mean(axis=1), difference.mean(axis=0)
    return float(np.sqrt(of_positives.var(ddof=1) / of_positives.size + of_negatives.var(ddof=1) / of_negatives.size))


def test_with_one_patch_per_woman_the_standard_error_is_delongs():
    generator = np.random.default_rng(14)
    n = 300
    label = np.arange(n) % 2
    samples = pd.DataFrame(
        {"woman_id": [f"w{i:03d}" for i in range(n)], "label": label, "sample_id": np.arange(n).astype(str)}
    )
    samples = samples.assign(task="patches", split="test", note="")
    common = label + generator.normal(size=n)
    first, second = common + generator.normal(size=n), 1.3 * common + generator.normal(size=n)
    given = {("a", 0, 0): predictions(samples, first), ("b", 0, 0): predictions(samples, second)}
    row = compare(given, "a", "patches_linear_auc", ["a", "b"], [], IntervalsConfig(replicates=2000)).iloc[1]
    from_interval = (row.effect_high - row.effect_low) / (2 * 1.95996)
    assert from_interval == pytest.approx(delong_error(label, first, second), rel=0.08)


def test_independent_seeds_widen_the_interval_as_their_variance_says():
    # Women do not matter here: every seed has its own constant skill, so the spread of the seeds is all there is.
    generator = np.random.default_rng(15)
    samples = drawn(0, women=400)
    skills = {name: generator.normal(1, 0.5, size=8) for name in ("a", "b")}
    given = {
        (name, seed, 0): predictions(samples, skill * samples.label + generator.normal(size=len(samples)))
        for name, row in skills.items()
        for seed, skill in enumerate(row)
    }
    values = {trial: auc(table.label, table.value) for trial, table in given.items()}
    differences = np.array([values["b", seed, 0] - values["a", seed, 0] for seed in range(8)])
    row = compare(given, "a", "patches_linear_auc", ["a", "b"], [], IntervalsConfig(replicates=2000)).iloc[1]
    from_interval = (row.effect_high - row.effect_low) / (2 * 1.95996)
    assert from_interval == pytest.approx(differences.std(ddof=1) / np.sqrt(8), rel=0.12)


def test_under_the_null_the_test_seldom_errs_and_the_interval_covers_the_truth(monkeypatch):
    """Calibration: variants differ by the noise of seeds and samples only, so every true effect is 0.

    The seeds move the metric less than the women do; for the cases where they move it more see compare's docstring.
    """
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects garbage in every correction, 0.2 s each
    simulations, config = 200, QUICK
    rejected = covered = any_rejected = 0
    for number in range(simulations):
        given = trials(np.random.default_rng([99, number]), women=24)
        rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard", "none"], [], config).iloc[1:]
        rejected += int((rows.p <= 0.05).sum())
        covered += int(((rows.effect_low <= 0) & (rows.effect_high >= 0)).sum())
        any_rejected += int((rows.p_holm <= 0.05).any())
    assert rejected / (2 * simulations) <= 0.10
    assert any_rejected / simulations <= 0.10
    assert covered / (2 * simulations) >= 0.88
