"""Variants compared with a reference: numbers against slow references, and how often the test errs."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from siamray.config import IntervalsConfig
from siamray.downstream.froc import CANDIDATE, IMAGE, LESION
from siamray.downstream.intervals import auc, bootstrap, women_weights
from siamray.errors import UserError
from siamray.sweeps.bca import bca_interval, expanded
from siamray.sweeps.comparison import BLOB, BRIGHTNESS, COLUMNS, compare, measured
from siamray.sweeps.contract import COMPARISON_COLUMNS
from siamray.sweeps.estimates import Outcome, differences, estimate, holm
from siamray.sweeps.verdict import SAME_PREDICTIONS

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


def test_error_is_that_of_a_slow_loop_over_women_and_of_the_seeds():
    given = trials(np.random.default_rng(1), names=("soft", "hard"), women=12)
    config = IntervalsConfig(replicates=150)
    row = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], [], config).set_index("variant").loc["hard"]
    women = sorted(set(given["soft", 0, 0].woman_id))
    counts = women_weights(12, 150, config.seed)

    def effects(weights: np.ndarray) -> list[float]:
        by_woman = dict(zip(women, weights, strict=True))
        values = {trial: auc(table.label, table.value, table.woman_id.map(by_woman)) for trial, table in given.items()}
        return [values["hard", seed, 0] - values["soft", seed, 0] for seed in range(3)]

    of_women = np.var([np.mean(effects(weights)) for weights in counts], ddof=1)
    of_seeds = np.var(effects(np.ones(12)), ddof=1) / 3
    error = np.sqrt(of_women + of_seeds)
    freedom = error**4 / (of_women**2 / 11 + of_seeds**2 / 2)
    assert (row.effect_low, row.effect_high) == pytest.approx(stats.t.interval(0.95, freedom, row.effect, error))
    assert row.p == pytest.approx(2 * stats.t.sf(abs(row.effect) / error, freedom))
    assert (row.p < 0.05) == (row.effect_low > 0 or row.effect_high < 0)


def test_where_women_are_all_alike_p_is_that_of_the_paired_t_test_over_seeds():
    generator = np.random.default_rng(16)
    samples = drawn(0, women=40).assign(label=np.tile([1, 1, 1, 0, 0, 0], 40))
    given = {
        (name, seed, 0): predictions(samples, np.tile(generator.normal([1, 1, 1, 0, 0, 0], 1), 40))
        for name in ("a", "b")
        for seed in range(6)
    }
    values = {name: [auc(given[name, s, 0].label, given[name, s, 0].value) for s in range(6)] for name in ("a", "b")}
    expected = stats.ttest_rel(values["b"], values["a"])
    row = compare(given, "a", "patches_linear_auc", ["a", "b"], [], QUICK).set_index("variant").loc["b"]
    assert row.p == pytest.approx(expected.pvalue)
    assert (row.effect_low, row.effect_high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert 0.01 < row.p < 0.99


def test_where_seeds_are_all_alike_p_is_that_of_the_bootstrap_over_women():
    given = trials(np.random.default_rng(17), names=("a", "b"), seeds=1, women=200)
    given = {(name, seed, 0): given[name, 0, 0] for name in ("a", "b") for seed in range(4)}
    row = compare(given, "a", "patches_linear_auc", ["a", "b"], [], QUICK).set_index("variant").loc["b"]
    weights = women_weights(200, 200, QUICK.seed)
    codes = np.repeat(np.arange(200), 6)
    first, second = (
        bootstrap("auc", given[name, 0, 0].label, given[name, 0, 0].value, codes, weights) for name in ("a", "b")
    )
    z = row.effect / (second - first).std(ddof=1)
    assert row.p == pytest.approx(2 * stats.t.sf(abs(z), 199))
    assert row.p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.005)
    assert row.note == ""


def test_variants_that_predict_the_same_have_no_effect_at_all():
    given = trials(np.random.default_rng(2), names=("soft",))
    given |= {("same", seed, fold): table for (_, seed, fold), table in list(given.items())}
    row = compare(given, "soft", "patches_linear_auc", ["soft", "same"], [], QUICK).set_index("variant").loc["same"]
    assert (row.effect, row.effect_low, row.effect_high, row.p, row.p_holm) == (0, 0, 0, 1, 1)
    # It has not been tested, which is something else than making no difference.
    assert SAME_PREDICTIONS in row.note
    assert row.verdict.startswith("same gives the predictions of soft to the last digit: what it changes had no effect")
    # One sample of one seed is enough.
    other = given["same", 1, 0].copy()
    other.loc[other.index[0], "value"] += 1e-6
    given["same", 1, 0] = other
    row = compare(given, "soft", "patches_linear_auc", ["soft", "same"], [], QUICK).set_index("variant").loc["same"]
    assert SAME_PREDICTIONS not in row.note


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
    assert rows.verdict["none"].endswith("corrected p below .001, 20 women, 3 seeds")
    assert not rows.verdict.str.contains("prove|signific").any()


def test_holm_corrects_variants_and_controls_as_families_of_their_own():
    names = ("soft", "a", "b", "c", "d", "e")
    given = trials(np.random.default_rng(5), names=names, shift={"b": -0.5, "e": 0.3})
    rows = compare(given, "soft", "patches_linear_auc", names[:4], names[4:], QUICK).set_index("variant")
    for family in (["a", "b", "c"], ["d", "e"]):
        np.testing.assert_allclose(rows.p_holm[family], multipletests(rows.p[family], method="holm")[1])
    assert (rows.p_holm.dropna() >= rows.p.dropna()).all()


@pytest.mark.parametrize("shift", [0, 3])
def test_one_seed_is_shown_with_its_interval_over_women_but_never_judged(shift):
    given = trials(np.random.default_rng(7), seeds=1, shift={"hard": shift})
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK).set_index("variant")
    assert rows.note.str.contains("one seed: the interval covers other women, not other seeds").all()
    assert (rows.seeds == 1).all()
    assert (rows.value_low < rows.value_high).all()
    others = rows.loc[["hard", "none"]]
    assert (others.effect_low < others.effect_high).all()
    assert others[["p", "p_holm"]].isna().all(axis=None)
    for name in ("hard", "none"):
        assert rows.verdict[name].startswith(f"one seed: cannot tell {name} from the luck of its seed: effect ")
        assert rows.verdict[name].endswith("], 20 women")


def test_a_variant_of_one_common_seed_leaves_the_family_of_the_others():
    given = trials(np.random.default_rng(18))
    del given["hard", 1, 0], given["hard", 2, 0]
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard", "none"], [], QUICK).set_index("variant")
    assert rows.verdict["hard"].startswith("one seed: cannot tell hard from the luck of its seed")
    assert rows.note["hard"].startswith("compared on 1 of the 3 trials")
    assert rows.p_holm["none"] == rows.p["none"]


def test_an_effect_that_neither_women_nor_seeds_move_is_not_judged():
    samples = drawn(0)
    given = {(name, seed, 0): predictions(samples, np.zeros(120)) for name in ("flat", "flatter") for seed in range(3)}
    given |= {("sure", seed, 0): predictions(samples, samples.label.to_numpy(float)) for seed in range(3)}
    rows = compare(given, "flat", "patches_linear_auc", ["flat", "flatter", "sure"], [], QUICK).set_index("variant")
    assert tuple(rows.loc["flatter", ["effect", "effect_low", "effect_high", "p"]]) == (0, 0, 0, 1)
    assert rows.effect["sure"] == 0.5
    assert rows.loc["sure", ["effect_low", "effect_high", "p"]].isna().all()
    assert "its error cannot be estimated" in rows.verdict["sure"]


def test_one_woman_gives_no_interval():
    samples = drawn(0, women=1)
    generator = np.random.default_rng(19)
    given = {(name, seed, 0): predictions(samples, generator.normal(size=6)) for name in "ab" for seed in range(3)}
    row = compare(given, "a", "patches_linear_auc", ["a", "b"], [], QUICK).iloc[1]
    assert np.isfinite(row.effect)
    assert np.isnan([row.value_low, row.effect_low, row.p]).all()
    assert row.verdict == "b cannot be compared with a: one woman: no interval"


def test_the_interval_of_a_value_stays_within_its_range():
    given = trials(np.random.default_rng(20), shift={"soft": 3}, seeds=2)
    rows = compare(given, "soft", "patches_linear_auc", ["soft"], [], QUICK)
    assert rows.value_high[0] == 1
    assert 0 <= rows.value_low[0] < rows.value[0] < 1


def test_seeds_without_all_folds_count_by_their_shares():
    samples = drawn(0)
    blocks = {
        block: Outcome(value, np.full(10, value), samples)
        for block, value in {(0, 0): 0.5, (0, 1): 0.7, (1, 0): 0.8, (1, 1): 0.9, (2, 0): 0.6}.items()
    }
    found = estimate(blocks)
    assert found.mean == pytest.approx(0.7)
    assert found.error == pytest.approx(np.sqrt(np.var([0.6, 0.85, 0.6], ddof=1) * (0.4**2 + 0.4**2 + 0.2**2)))
    assert found.freedom == pytest.approx(2)


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
    assert rows.note["none"] == ""
    assert np.isnan(rows.value["gone"])
    assert np.isnan(rows.p_holm["gone"])
    assert rows.women["gone"] == 0
    assert (
        rows.verdict["gone"]
        == "gone cannot be compared with soft: no finished trial of a seed and fold that 'soft' has"
    )


def test_other_samples_are_compared_by_the_same_women_and_it_is_said():
    given = trials(np.random.default_rng(9))
    for seed in range(3):
        given["hard", seed, 0] = given["hard", seed, 0].iloc[2:]
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], ["none"], QUICK).set_index("variant")
    samples = len(given["soft", 0, 0])
    assert f"scored on other samples than 'soft': {3 * (samples - 2)} of {3 * samples} in common" in rows.note["hard"]
    assert "other samples" not in rows.note["none"]
    table = given["hard", 0, 0]
    values = [auc(given["hard", seed, 0].label, given["hard", seed, 0].value) for seed in range(3)]
    assert rows.value["hard"] == pytest.approx(np.mean(values))
    assert rows.lesions["hard"] + rows.normals["hard"] == len(table)


def test_trials_that_disagree_on_a_label_or_a_woman_are_refused_by_name():
    given = trials(np.random.default_rng(9))
    given["none", 2, 0] = given["none", 2, 0].assign(label=lambda table: 1 - table.label)
    with pytest.raises(UserError, match=r"'none' \(seed 2, fold 0\) and 'soft' .* disagree on s0_0000"):
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
    assert row.effect_low < row.effect < row.effect_high
    assert 0 < row.p < 1
    assert row.verdict.startswith(f"no evidence that {BRIGHTNESS} differs from soft")
    assert rows.cost_wall_s[0] == 5
    assert BRIGHTNESS not in compare(given, "soft", "patches_linear_auc", *arguments).variant.tolist()


def test_a_head_is_compared_with_the_blob_filter_and_only_where_there_is_one():
    generator = np.random.default_rng(14)
    given = trials(generator)
    for trial, table in given.items():
        label = table.label.to_numpy()
        noisy = {name: label + generator.normal(size=len(label)) for name in ("abnormality", "brightness", "blob")}
        if trial[0] == "none":
            del noisy["abnormality"]
        given[trial] = predictions(table, table.value.to_numpy(), **noisy)
    rows = compare(given, "soft", "patches_abnormality_auc", ["soft", "hard"], ["none"], QUICK).set_index("variant")
    assert rows.value[["soft", "hard", BRIGHTNESS, BLOB]].notna().all()
    assert np.isnan(rows.value["none"])
    assert rows.note["none"] != ""


def test_what_stands_beside_p_is_that_of_the_effects_error_and_family():
    names = ("soft", "a", "b", "none")
    given = trials(np.random.default_rng(22), names=names, shift={"b": 2})
    config = IntervalsConfig(replicates=200, equivalence_margin=0.05)
    rows = compare(given, "soft", "patches_linear_auc", names[:3], names[3:], config).set_index("variant")
    tests = ["p", "detectable", "p_equivalence", "p_equivalence_holm", "effect_size", "improvement", "improvement_low"]
    assert rows.loc["soft", tests].isna().all()
    assert (rows.equivalence_margin == 0.05).all()
    outcomes = measured(given, ["patches_linear_auc"], config)["patches_linear_auc"]
    for name, family in (("a", 2), ("b", 2), ("none", 1)):
        own, of_reference = ({trial[1:]: o for trial, o in outcomes.items() if trial[0] == n} for n in (name, "soft"))
        effect = estimate(differences(own, of_reference))
        assert effect.mean == pytest.approx(rows.effect[name])
        assert rows.detectable[name] == pytest.approx(effect.detectable(0.05 / family))
        assert rows.p_equivalence[name] == pytest.approx(effect.p_equivalence(0.05))
        assert rows.effect_size[name] == pytest.approx(effect.effect_size(), nan_ok=True)
        wins = [outcomes[name, seed, 0].value > outcomes["soft", seed, 0].value for seed in range(3)]
        assert rows.improvement[name] == np.mean(wins)
        assert rows.improvement_low[name] <= rows.improvement[name] <= rows.improvement_high[name]
    np.testing.assert_allclose(rows.p_equivalence_holm[["a", "b"]], holm(rows.p_equivalence[["a", "b"]]))
    assert rows.p_equivalence_holm["none"] == rows.p_equivalence["none"]


def test_a_variant_that_hardly_moves_is_equivalent_and_without_a_margin_nobody_says_so():
    generator = np.random.default_rng(23)
    given = trials(generator, names=("soft",), women=60)
    for (_, seed, fold), table in list(given.items()):
        given["same", seed, fold] = table.assign(value=table.value + 0.02 * generator.normal(size=len(table)))
    arguments = (given, "soft", "patches_linear_auc", ["soft", "same"], [])
    row = compare(*arguments, QUICK).set_index("variant").loc["same"]
    assert row.verdict.startswith("same and soft are equivalent within .02: effect ")
    silent = compare(*arguments, IntervalsConfig(replicates=200, equivalence_margin=None)).set_index("variant")
    assert silent.loc["same", ["equivalence_margin", "p_equivalence", "p_equivalence_holm"]].isna().all()
    assert "equivalen" not in silent.verdict["same"]
    assert silent.p["same"] == row.p


def test_one_seed_of_enough_women_has_bca_intervals_and_few_women_have_t_and_a_note():
    given = trials(np.random.default_rng(24), seeds=1, women=40, folds=(0, 1))
    rows = compare(given, "soft", "patches_linear_auc", ["soft", "hard"], [], QUICK).set_index("variant")
    women = sorted({woman for table in given.values() for woman in table.woman_id})

    def mean(name: str, left_out: str | None) -> float:
        parts = [given[name, 0, fold] for fold in (0, 1)]
        return np.mean([auc(part.label, part.value, part.woman_id != left_out) for part in parts])

    weights = women_weights(80, 200, 0)
    replicates = {
        name: np.mean(
            [
                bootstrap("auc", part.label, part.value, [women.index(woman) for woman in part.woman_id], weights)
                for part in (given[name, 0, fold] for fold in (0, 1))
            ],
            axis=0,
        )
        for name in ("soft", "hard")
    }
    without = {name: np.array([mean(name, woman) for woman in women]) for name in ("soft", "hard")}
    confidence = expanded(0.95, 80)
    value = bca_interval(mean("hard", None), replicates["hard"], without["hard"], 80, confidence)
    assert (rows.value_low["hard"], rows.value_high["hard"]) == pytest.approx(value[:2])
    effect = bca_interval(
        mean("hard", None) - mean("soft", None),
        replicates["hard"] - replicates["soft"],
        without["hard"] - without["soft"],
        80,
        confidence,
    )
    assert (rows.effect_low["hard"], rows.effect_high["hard"]) == pytest.approx(effect[:2])
    assert not rows.note.str.contains("BCa").any()
    assert rows.loc["hard", ["improvement", "detectable", "p_equivalence"]].isna().all()
    few = compare(
        trials(np.random.default_rng(7), seeds=1, women=12), "soft", "patches_linear_auc", ["hard"], [], QUICK
    )
    assert few.note[1].endswith("t interval of value and effect, as BCa is undefined: less than 20 women")


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


REGIMES = {
    "women dominate": {"seed": 0.03, "patch": 0.7, "trial": 0.1, "shift": 0.9},
    "seeds dominate": {"seed": 0.5, "trial": 0.1, "shift": 2},
    "variant x woman": {"seed": 0.1, "woman": 1, "trial": 0.2, "shift": 1.5},
    "five seeds": {"seeds": 5, "seed": 0.3, "patch": 0.7, "trial": 0.1, "shift": 1.2},
}


def simulated(
    generator: np.random.Generator, *, shift, seed=0.0, patch=0.0, woman=0.0, trial=0.0, seeds=3
) -> Iterator[dict[tuple[int, int], Outcome]]:
    """Outcomes of a reference, of two variants that are worth the same, and of one whose lesions stand out by shift.

    They share the difficulty of women and patches; ``seed``, ``patch``, ``woman`` and ``trial`` are the deviations of
    what a seed does to all lesions, a variant to a patch and to the lesions of a woman, and a trial to a patch.
    """
    samples = drawn(0, 24)
    label, codes = samples.label.to_numpy(), np.repeat(np.arange(24), 6)
    weights = women_weights(24, 100, 0)
    common = 1.2 * label + 0.7 * generator.normal(size=24)[codes] + generator.normal(size=144)
    for gain in (0, 0, 0, shift):
        of_variant = patch * generator.normal(size=144) + woman * label * generator.normal(size=24)[codes]
        blocks = {}
        for number in range(seeds):
            of_trial = label * seed * generator.normal() + trial * generator.normal(size=144)
            scores = common + gain * label + of_variant + of_trial
            blocks[number, 0] = Outcome(auc(label, scores), bootstrap("auc", label, scores, codes, weights), samples)
        yield blocks


@pytest.mark.parametrize(("number", "name"), list(enumerate(REGIMES)))
def test_errors_are_as_rare_as_said_whether_women_or_seeds_make_them(number, name):
    """Calibration at .95; the shifted variant's truth is its mean over the simulations. Larger runs: compare."""
    simulations = 250
    nulls, shifted, values = [], [], []
    for simulation in range(simulations):
        reference, *others = simulated(np.random.default_rng([99, number, simulation]), **REGIMES[name])
        effects = [estimate(differences(blocks, reference)) for blocks in others]
        nulls += effects[:2]
        shifted.append(effects[2])
        values.append(estimate(reference))
    assert np.mean([found.p_value() <= 0.05 for found in nulls]) <= 0.09
    for estimates, truth in ((nulls, 0.0), (shifted, None), (values, None)):
        true = np.mean([found.mean for found in estimates]) if truth is None else truth
        covered = [low <= true <= high for low, high in (found.interval(0.95) for found in estimates)]
        assert np.mean(covered) >= 0.90
    assert np.mean([found.p_value() <= 0.05 and found.mean > 0 for found in shifted]) > 0.5


def test_no_family_errs_more_often_than_one_comparison_may():
    wrong = 0
    for number in range(25):
        given = trials(np.random.default_rng([99, number]), names=("soft", "a", "b", "c"), women=24)
        rows = compare(
            given, "soft", "patches_linear_auc", ["soft", "a", "b", "c"], [], IntervalsConfig(replicates=100)
        )
        wrong += int((rows.p_holm <= 0.05).any())
    assert wrong / 25 <= 0.09


def birads_trials(seeds: int = 3, women: int = 14) -> dict:
    """Predictions of two variants about breasts of three classes, the second variant less sure."""
    generator = np.random.default_rng(21)
    names = ["1", "3", "4"]
    truth = np.arange(2 * women) % 3
    samples = pd.DataFrame({"sample_id": [f"b{n:02d}" for n in range(2 * women)], "label": truth, "split": "test"})
    samples = samples.assign(
        task="birads", score="attention", note="", draw=0, woman_id=[f"w{n // 2:02d}" for n in range(2 * women)]
    )
    samples["category"] = [names[one] for one in truth]
    found = {}
    for name, skill in (("soft", 1.5), ("hard", 0.8)):
        for seed in range(seeds):
            logits = generator.normal(size=(2 * women, 3)) + skill * np.eye(3)[truth]
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            table = samples.assign(value=probabilities @ [0, 1, 2], classes=[names] * len(samples))
            found[name, seed, 0] = table.assign(probabilities=list(probabilities))
    return found


@pytest.mark.parametrize("kind", ["macro_auc", "kappa", "macro_f1"])
def test_several_classes_are_compared_as_in_a_slow_loop_over_women(kind):
    given = birads_trials()
    config = IntervalsConfig(replicates=120)
    metric = f"birads_attention_{kind}"
    row = compare(given, "soft", metric, ["soft", "hard"], [], config).set_index("variant").loc["hard"]

    def statistic(table: pd.DataFrame, counts: np.ndarray) -> float:
        by_woman = dict(zip(sorted(set(table.woman_id)), counts, strict=True))
        rows = np.repeat(np.arange(len(table)), table.woman_id.map(by_woman).to_numpy())
        truth, scores = table.label.to_numpy()[rows], np.stack(table.probabilities.tolist())[rows]
        if len(set(truth)) < 3:
            return float("nan")
        if kind == "macro_auc":
            return roc_auc_score(truth, scores, multi_class="ovr", average="macro")
        if kind == "kappa":
            return cohen_kappa_score(truth, scores.argmax(axis=1), weights="quadratic")
        return f1_score(truth, scores.argmax(axis=1), average="macro")

    def effects(counts: np.ndarray) -> list[float]:
        return [statistic(given["hard", s, 0], counts) - statistic(given["soft", s, 0], counts) for s in range(3)]

    whole = effects(np.ones(14, dtype=int))
    of_women = np.nanvar([np.mean(effects(counts)) for counts in women_weights(14, 120, config.seed)], ddof=1)
    of_seeds = np.var(whole, ddof=1) / 3
    error = np.sqrt(of_women + of_seeds)
    freedom = error**4 / (of_women**2 / 13 + of_seeds**2 / 2)
    assert row.effect == pytest.approx(np.mean(whole))
    assert (row.effect_low, row.effect_high) == pytest.approx(stats.t.interval(0.95, freedom, row.effect, error))
    assert pd.isna(row.lesions)
    assert pd.isna(row.normals)
    assert row.women == 14


def test_a_kappa_below_0_keeps_its_interval_below_0():
    given = {trial: table for trial, table in birads_trials().items() if trial[0] == "soft"}
    for trial, table in given.items():
        given[trial] = table.assign(probabilities=[row[::-1] for row in table.probabilities])
    row = compare(given, "soft", "birads_attention_kappa", ["soft"], [], QUICK).iloc[0]
    assert -1 <= row.value_low < row.value < 0


def test_draws_of_a_label_fraction_are_averaged_and_their_samples_counted_once():
    generator = np.random.default_rng(5)
    samples = drawn(0)
    given = {
        (name, seed, 0): pd.concat(
            [samples.assign(score="linear@10", value=generator.normal(samples.label), draw=draw) for draw in range(3)]
        )
        for name in ("soft", "hard")
        for seed in range(2)
    }
    rows = compare(given, "soft", "patches_linear@10_auc", ["soft", "hard"], [], QUICK).set_index("variant")
    for name in ("soft", "hard"):
        parts = [part for trial, table in given.items() if trial[0] == name for _, part in table.groupby("draw")]
        assert rows.value[name] == pytest.approx(np.mean([auc(part.label, part.value) for part in parts]))
    assert (rows.lesions == samples.label.sum()).all()
    with pytest.raises(UserError, match=r"no score 'attention' of test women; the task is off: add outcome to down"):
        compare(given, "soft", "outcome_attention_auc", ["soft", "hard"], [], QUICK)


def detector(generator: np.random.Generator, skill: float, women: int = 16) -> pd.DataFrame:
    """What a detector leaves of one lesion in every other woman: candidates of its own, the same lesions and images."""
    rows = []
    for number in range(women):
        known = {
            "woman_id": f"w{number:02d}",
            "entry_id": f"e{number:02d}",
            "side": "left",
            "split": "test",
            "note": "",
        }
        false = generator.normal(size=int(generator.integers(1, 4)))
        lesion = generator.normal() + skill if number % 2 else None
        for count, value in enumerate([*false, *([] if lesion is None else [lesion])]):
            rows.append({**known, "task": CANDIDATE, "sample_id": f"e{number:02d}_candidate{count}", "value": value,
                         "label": int(count == len(false))})  # fmt: skip
        if lesion is not None:
            rows.append({**known, "task": LESION, "sample_id": f"e{number:02d}_lesion0", "value": lesion, "label": 1})
        rows.append({**known, "task": IMAGE, "sample_id": f"e{number:02d}_left", "value": false.max(),
                     "label": int(lesion is not None)})  # fmt: skip
    return pd.DataFrame(rows).assign(score="distance")


def test_detectors_are_compared_by_their_froc_though_their_candidates_differ():
    generator = np.random.default_rng(5)
    skills = {"soft": 4.0, "hard": 0.0}
    given = {(name, seed, 0): detector(generator, skill) for name, skill in skills.items() for seed in range(3)}
    rows = compare(given, "soft", "detection_distance_froc_mean", ["soft", "hard"], [], QUICK).set_index("variant")
    for name in skills:
        means = []
        for seed in range(3):
            table = given[name, seed, 0]
            lesions = table.value[table.task == LESION].to_numpy()
            false = np.sort(table.value[(table.task == CANDIDATE) & (table.label == 0)].to_numpy())[::-1]
            # The threshold just above the first false positive that would be one too many.
            beyond = [false[int(rate * 16)] if int(rate * 16) < len(false) else -np.inf for rate in (0.25, 0.5, 1, 2)]
            means.append(np.mean([(lesions > threshold).mean() for threshold in beyond]))
        assert rows.value[name] == pytest.approx(np.mean(means))
    assert rows.effect["hard"] < 0
    assert (rows.women == 16).all()
    assert not rows.note["hard"].startswith("scored on other samples")
