"""Values of variants on several data sets go in; the Friedman test of their ranks, and who ranks alike, come out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from siamray.errors import UserError

LEAST_BLOCKS = 5
"""Blocks below which ranks are refused: with 4 blocks of 3 variants the critical difference is 1.66 of 2 ranks at most,
so that hardly anything could be told apart, and the test's approximation does not hold."""


@dataclass(frozen=True)
class RankedBlock:
    """One data set on which all variants were run.

    Attributes:
        name: of the data set.
        women: all of its women, of training, validation and test, each named so that no other data set has her name.
        values: variant -> its metric, the mean over seeds and folds; higher is better.
    """

    name: str
    women: frozenset[str]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Ranking:
    """What ranks say of variants.

    Attributes:
        average_ranks: variant -> mean rank over the blocks, 1 = best; the best first.
        statistic: Friedman's chi square, corrected for ties.
        f_statistic: Iman and Davenport's F.
        p: of F: the chance of ranks that differ as much if no variant is better than another.
        critical_difference: difference of average ranks beyond which two variants are told apart.
        p_pairs: Nemenyi's p of each pair, variants by variants.
        groups: variants that are not told apart, the best group first; all in one group where p is not below the level.
        blocks: number of blocks.
    """

    average_ranks: "pd.Series[float]"
    statistic: float
    f_statistic: float
    p: float
    critical_difference: float
    p_pairs: pd.DataFrame
    groups: list[list[str]]
    blocks: int


def rank_variants(blocks: Sequence[RankedBlock], level: float = 0.05) -> Ranking:
    """Ranks variants over independent data sets: Friedman's test, then Nemenyi's critical difference (Demsar 2006).

    The statistic is Friedman's (1937) chi square C with the correction for ties; its p is that of F = (N - 1) C /
    (N (k - 1) - C) with k - 1 and (k - 1)(N - 1) degrees of freedom (Iman and Davenport 1980), as chi square itself is
    too careful; it is never below (1 / k!)^(N - 1), the chance that N blocks of k variants agree on some order. Two
    variants are told apart where their average ranks differ by q sqrt(k (k + 1) / (6 N)) or more, q being the upper
    quantile of the studentized range over sqrt(2) (Nemenyi 1963), and only where the Friedman test rejects.

    Blocks are data sets, never seeds or folds: seeds are tested on the same women, and a test woman of one fold is
    trained on in another, so that the same luck counts many times and p is far too small. Within a data set `compare`
    is the test, which draws women and seeds.

    Args:
        blocks: data sets on which every variant has a value.
        level: of the test and the critical difference.

    Returns:
        The ranking.

    Raises:
        UserError: less than 3 variants or LEAST_BLOCKS blocks, blocks that share women, a variant without a value.
    """
    variants = _checked(blocks)
    values = np.array([[block.values[variant] for variant in variants] for block in blocks])
    n, k = values.shape
    ranks = pd.Series(stats.rankdata(-values, axis=1).mean(axis=0), variants).sort_values(kind="stable")
    if (values == values[:, :1]).all():
        # No block prefers anything: the correction for ties would divide by 0.
        statistic, f_statistic, p = 0.0, 0.0, 1.0
    else:
        statistic = float(stats.friedmanchisquare(*values.T).statistic)
        rest = n * (k - 1) - statistic
        f_statistic = (n - 1) * statistic / rest if rest > 1e-9 else math.inf
        p = max(float(stats.f.sf(f_statistic, k - 1, (k - 1) * (n - 1))), math.factorial(k) ** -(n - 1.0))
    unit = math.sqrt(k * (k + 1) / (6 * n))
    critical = float(stats.studentized_range.isf(level, k, math.inf)) / math.sqrt(2) * unit
    apart = np.abs(ranks.to_numpy()[:, None] - ranks.to_numpy()[None, :])
    pairs = stats.studentized_range.sf(apart / unit * math.sqrt(2), k, math.inf)
    return Ranking(
        average_ranks=ranks,
        statistic=statistic,
        f_statistic=f_statistic,
        p=p,
        critical_difference=critical,
        p_pairs=pd.DataFrame(pairs, ranks.index, ranks.index),
        groups=_groups(ranks, critical) if p < level else [list(ranks.index)],
        blocks=n,
    )


def _checked(blocks: Sequence[RankedBlock]) -> list[str]:
    """The variants, in the order of the first block.

    Raises:
        UserError: the blocks do not justify ranks.
    """
    if len(blocks) < LEAST_BLOCKS:
        raise UserError(
            f"ranks need {LEAST_BLOCKS} data sets, not {len(blocks)}: with fewer hardly any order could be told from "
            "luck; compare the variants within each data set (comparison.parquet)"
        )
    whose: dict[str, str] = {}
    for block in blocks:
        shared = next((woman for woman in block.women if woman in whose), None)
        if shared is not None:
            raise UserError(
                f"blocks '{whose[shared]}' and '{block.name}' share women, so that they are not independent and ranks "
                "would count the same luck twice; take one block per data set, the mean over its seeds and folds"
            )
        whose |= dict.fromkeys(block.women, block.name)
    variants = list(blocks[0].values)
    if len(variants) < 3:
        raise UserError(f"ranks need 3 variants, not {len(variants)}; two are compared by comparison.parquet")
    for block in blocks:
        lacking = [name for name in variants if not math.isfinite(block.values.get(name, math.nan))]
        if lacking or set(block.values) != set(variants):
            other = lacking or sorted(set(block.values) ^ set(variants))
            raise UserError(f"variant '{other[0]}' has no value on every data set ('{block.name}'); leave it out")
    return variants


def _groups(ranks: "pd.Series[float]", critical: float) -> list[list[str]]:
    """The longest runs of variants, in the order of their ranks, whose ends are nearer than the critical difference."""
    groups: list[list[str]] = []
    reached = 0
    for first in range(len(ranks)):
        near = int((ranks.to_numpy() - ranks.to_numpy()[first] < critical).sum())
        if near > reached:
            groups.append(list(ranks.index[first:near]))
            reached = near
    return groups
