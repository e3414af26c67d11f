"""A fraction is balanced, of the best resolution there is, and says truly which effects it cannot tell apart."""

from collections import Counter
from itertools import combinations, product
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamray.errors import UserError
from siamray.sweeps.fractions import Fraction, best_fraction

# Factors, halvings -> resolution: Box, Hunter and Hunter 1978, p. 410; Montgomery, Design and Analysis of Experiments,
# table of 2^(k-p) designs.
PUBLISHED = {
    (3, 1): 3, (4, 1): 4, (5, 1): 5, (5, 2): 3, (6, 1): 6, (6, 2): 4, (6, 3): 3, (7, 1): 7, (7, 2): 4, (7, 3): 4,
    (7, 4): 3, (8, 1): 8, (8, 2): 5, (8, 3): 4, (8, 4): 4, (9, 2): 6, (9, 3): 4, (9, 4): 4, (9, 5): 3, (10, 3): 5,
    (10, 4): 4, (10, 5): 4, (10, 6): 3, (11, 4): 5, (11, 5): 4, (11, 6): 4, (11, 7): 3,
}  # fmt: skip
POSSIBLE = [(k, p) for k in range(3, 9) for p in range(1, k - 1) if p <= 2 ** (k - p) - 1 - (k - p)]


def fraction(factors: int, halvings: int) -> Fraction:
    return best_fraction("ABCDEFGHIJK"[:factors], 1 << halvings)


def column(made: Fraction, effect: tuple[str, ...]) -> list[int]:
    """The contrast of an effect, +1 or -1 per run: what a user would compute by hand."""
    places = [made.factors.index(factor) for factor in effect]
    return [prod(1 - 2 * run[place] for place in places) for run in made.runs()]


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_fraction_has_the_resolution_of_the_published_table(size: tuple[int, int]) -> None:
    assert fraction(*size).resolution == PUBLISHED[size]


@given(st.sampled_from(POSSIBLE))
def test_a_fraction_has_its_share_of_the_combinations_each_once_and_begins_with_the_first_levels(
    size: tuple[int, int],
) -> None:
    runs = list(fraction(*size).runs())
    assert len(set(runs)) == len(runs) == 2 ** (size[0] - size[1])
    assert set(runs[0]) == {0}


@given(st.sampled_from(POSSIBLE))
def test_any_factors_fewer_than_the_resolution_show_all_their_combinations_equally_often(size: tuple[int, int]) -> None:
    made = fraction(*size)
    runs = list(made.runs())
    order = made.resolution - 1
    for places in combinations(range(size[0]), order):
        seen = Counter(tuple(run[place] for place in places) for run in runs)
        assert len(seen) == 2**order
        assert len(set(seen.values())) == 1


@given(st.sampled_from(POSSIBLE))
def test_effects_are_called_aliased_exactly_where_their_contrasts_are_the_same(size: tuple[int, int]) -> None:
    made = fraction(*size)
    effects = [effect for order in (1, 2) for effect in combinations(made.factors, order)]
    columns = {effect: column(made, effect) for effect in effects}
    together = {frozenset(pair) for group in made.aliases() for pair in combinations(group, 2)}
    for one, other in combinations(effects, 2):
        same = abs(sum(a * b for a, b in zip(columns[one], columns[other], strict=True))) > 0
        assert same == (frozenset((one, other)) in together)


@given(st.sampled_from(POSSIBLE))
def test_the_words_are_the_products_that_never_change(size: tuple[int, int]) -> None:
    made = fraction(*size)
    constant = [
        effect
        for order in range(1, size[0] + 1)
        for effect in combinations(made.factors, order)
        if set(column(made, effect)) == {1}
    ]
    assert sorted(made.words()) == sorted(constant)


@pytest.mark.parametrize("size", [size for size in POSSIBLE if size[0] <= 7])
def test_no_other_generators_have_fewer_short_words(size: tuple[int, int]) -> None:
    factors = "ABCDEFGH"[: size[0]]
    crossed = factors[: size[0] - size[1]]
    products = [effect for order in range(2, len(crossed) + 1) for effect in combinations(crossed, order)]

    def lengths(made: Fraction) -> list[int]:
        counts = Counter(len(word) for word in made.words())
        return [counts[length] for length in range(size[0] + 1)]

    every = (
        lengths(Fraction(tuple(factors), dict(zip(factors[len(crossed) :], chosen, strict=True))))
        for chosen in combinations(products, size[1])
    )
    assert lengths(fraction(*size)) == min(every)


def test_a_half_of_four_factors_is_the_one_of_the_textbooks() -> None:
    made = best_fraction(["loss", "masses", "head", "labels"], 2)
    assert made.generators == {"labels": ("loss", "masses", "head")}
    assert made.aliases() == [
        [("loss", "masses"), ("head", "labels")],
        [("loss", "head"), ("masses", "labels")],
        [("loss", "labels"), ("masses", "head")],
    ]
    assert set(made.runs()) == {run for run in product((0, 1), repeat=4) if sum(run) % 2 == 0}


@pytest.mark.parametrize(
    ("factors", "denominator", "expected"),
    [
        (4, 3, "2 .half., 4 .quarter."),
        (4, 4, "main effects apart; take at most 2"),
        (2, 2, "run all combinations"),
        (7, 1024, "take at most 16"),
        (12, 2, "at most 11 factors"),
    ],
)
def test_a_fraction_that_there_is_not_is_refused(factors: int, denominator: int, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        best_fraction([f"f{i}" for i in range(factors)], denominator)
