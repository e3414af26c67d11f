"""Ranks over data sets: Demsar's published example, scipy's and statsmodels' numbers, and when they are refused."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.anova import AnovaRM

from siamray.errors import UserError
from siamray.sweeps.ranks import RankedBlock, rank_variants

# AUC of C4.5 and its versions on 14 data sets (Demsar 2006, table 6); .9751: rounded there to .975, but ranked before
# the last version.
DEMSAR = """
.763 .768 .771 .798
.599 .591 .590 .569
.954 .971 .968 .967
.628 .661 .654 .657
.882 .888 .886 .898
.936 .931 .916 .931
.661 .668 .609 .685
.583 .583 .563 .625
.775 .838 .866 .875
1.0  1.0  1.0  1.0
.940 .962 .965 .962
.619 .666 .614 .669
.972 .981 .9751 .975
.957 .978 .946 .970
"""
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]


def blocks(values: np.ndarray, names: list[str]) -> list[RankedBlock]:
    return [
        RankedBlock(f"set{place}", frozenset({f"set{place}/w1"}), dict(zip(names, row, strict=True)))
        for place, row in enumerate(values)
    ]


def published() -> np.ndarray:
    return np.array([line.split() for line in DEMSAR.split("\n") if line], dtype=float)


def test_the_published_example_has_its_ranks_statistic_and_critical_differences() -> None:
    values = published()
    found = rank_variants(blocks(values, NAMES))
    for name, rank in zip(NAMES, (3.143, 2.000, 2.893, 1.964), strict=True):
        assert found.average_ranks[name] == pytest.approx(rank, abs=0.001)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert rank_variants(blocks(values, NAMES), level=0.10).critical_difference == pytest.approx(1.12, abs=0.005)
    # 9.28 and 3.69 are without the correction for ties, as the paper has them.
    ties = sum(int((times**3 - times).sum()) for times in (np.unique(row, return_counts=True)[1] for row in values)) / (
        14 * 4 * 15
    )
    plain = found.statistic * (1 - ties)
    assert plain == pytest.approx(9.28, abs=0.005)
    assert 13 * plain / (14 * 3 - plain) == pytest.approx(3.69, abs=0.01)
    assert found.blocks == 14


def test_the_published_example_tells_nobody_apart_at_5_percent_and_two_pairs_at_10() -> None:
    at_5, at_10 = (rank_variants(blocks(published(), NAMES), level) for level in (0.05, 0.10))
    assert len(at_5.groups) == 1
    for better in ("C4.5+m", "C4.5+m+cf"):
        assert abs(at_10.average_ranks["C4.5"] - at_10.average_ranks[better]) > at_10.critical_difference
        assert not any({"C4.5", better} <= set(group) for group in at_10.groups)
    assert any({"C4.5+cf", "C4.5"} <= set(group) for group in at_10.groups)


def test_the_statistic_is_scipys_and_f_that_of_the_analysis_of_variance_of_the_ranks() -> None:
    values = np.random.default_rng(1).normal(size=(8, 4)).round(1)
    found = rank_variants(blocks(values, NAMES))
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*values.T).statistic)
    ranks = stats.rankdata(-values, axis=1)
    long = pd.DataFrame(
        [(block, name, rank) for block, row in enumerate(ranks) for name, rank in zip(NAMES, row, strict=True)],
        columns=["block", "variant", "rank"],
    )
    table = AnovaRM(long, "rank", "block", within=["variant"]).fit().anova_table
    assert found.f_statistic == pytest.approx(table["F Value"].iloc[0])
    assert found.p == pytest.approx(table["Pr > F"].iloc[0])


def test_nemenyis_p_crosses_the_level_where_ranks_differ_by_the_critical_difference() -> None:
    values = np.random.default_rng(2).normal(size=(9, 5)) + np.arange(5) * 0.8
    found = rank_variants(blocks(values, list("abcde")))
    ranks = found.average_ranks.to_numpy()
    apart = np.abs(ranks[:, None] - ranks[None, :]) >= found.critical_difference
    assert (apart == (found.p_pairs.to_numpy() <= 0.05)).all()
    assert apart.any()
    assert found.average_ranks.idxmin() == "e"
    for group in found.groups:
        assert np.ptp(found.average_ranks[group]) < found.critical_difference


def test_full_agreement_is_not_p_0_and_full_ties_are_p_1() -> None:
    same_order = np.tile([0.9, 0.8, 0.7], (5, 1)) + np.arange(5)[:, None] / 100
    found = rank_variants(blocks(same_order, list("abc")))
    assert found.p == pytest.approx(1 / math.factorial(3) ** 4)
    assert found.f_statistic == math.inf
    tied = rank_variants(blocks(np.full((5, 3), 0.7), list("abc")))
    assert (tied.p, tied.groups) == (1.0, [["a", "b", "c"]])


def test_ranks_that_the_data_sets_do_not_justify_are_refused_with_the_reason() -> None:
    values = np.random.default_rng(3).normal(size=(6, 3))
    given = blocks(values, list("abc"))
    with pytest.raises(UserError, match="ranks need 5 data sets, not 4"):
        rank_variants(given[:4])
    fold = RankedBlock("fold 1", given[0].women, given[5].values)
    with pytest.raises(UserError, match="blocks 'set0' and 'fold 1' share women"):
        rank_variants([*given[:5], fold])
    with pytest.raises(UserError, match="ranks need 3 variants, not 2"):
        rank_variants(blocks(values[:, :2], ["a", "b"]))
    holed = [*given[:5], RankedBlock("hole", frozenset({"x"}), {"a": 0.1, "b": math.nan, "c": 0.2})]
    with pytest.raises(UserError, match="variant 'b' has no value on every data set \\('hole'\\)"):
        rank_variants(holed)
    other = [*given[:5], RankedBlock("other", frozenset({"x"}), {"a": 0.1, "b": 0.1, "c": 0.2, "d": 0.3})]
    with pytest.raises(UserError, match="variant 'd'"):
        rank_variants(other)


def test_variants_worth_the_same_are_told_apart_no_more_often_than_the_level_says() -> None:
    generator = np.random.default_rng(4)
    wrong = np.mean([rank_variants(blocks(generator.normal(size=(6, 4)), NAMES)).p < 0.05 for _ in range(150)])
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
