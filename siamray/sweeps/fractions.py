"""Two-level factors go in; a regular fraction of their combinations comes out, with all that it cannot tell apart.

A fraction 1/2^p of k factors crosses the first k - p of them and lets each of the others follow from a product of some
of those (its generator). Whatever products equal the mean, the words of the defining relation, say which effects are
aliased: estimated as one. The resolution is the length of the shortest word (Box and Hunter 1961).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

from siamray.errors import UserError

MOST_FACTORS = 11
"""Up to so many the best fraction is found in seconds, and they are those of the published tables."""

Effect = tuple[str, ...]
"""Names of the factors whose product it is: one for a main effect, two for a two-way interaction."""


@dataclass(frozen=True)
class Fraction:
    """A regular fraction 2^(k-p) of two-level factors.

    Attributes:
        factors: their names; the last ones are generated.
        generators: generated factor -> the factors whose product it follows.
    """

    factors: tuple[str, ...]
    generators: dict[str, Effect]

    def runs(self) -> Iterator[tuple[int, ...]]:
        """Yields the levels, 0 or 1, of all factors of each combination; the first has level 0 throughout."""
        crossed = self.factors[: len(self.factors) - len(self.generators)]
        for levels in product((0, 1), repeat=len(crossed)):
            level = dict(zip(crossed, levels, strict=True))
            generated = (sum(level[factor] for factor in effect) % 2 for effect in self.generators.values())
            yield (*levels, *generated)

    def words(self) -> list[Effect]:
        """The defining relation: all products of factors that are the same in every combination, shortest first."""
        own = [frozenset((factor, *effect)) for factor, effect in self.generators.items()]
        found: list[frozenset[str]] = [frozenset()]
        for word in own:
            found += [known ^ word for known in found]
        named = [tuple(factor for factor in self.factors if factor in word) for word in found if word]
        return sorted(named, key=lambda word: (len(word), [self.factors.index(factor) for factor in word]))

    @property
    def resolution(self) -> int:
        """Length of the shortest word; no p-way effect is aliased with one of fewer than resolution - p factors."""
        return len(self.words()[0])

    def aliases(self) -> list[list[Effect]]:
        """The main effects and two-way interactions that cannot be told apart.

        Returns:
            Groups of two effects and more, each estimated as one; none from resolution V on.
        """
        alike: dict[frozenset[str], list[Effect]] = {}
        for order in (1, 2):
            for effect in combinations(self.factors, order):
                alike.setdefault(self._in_crossed_factors(effect), []).append(effect)
        return [group for group in alike.values() if len(group) > 1]

    def _in_crossed_factors(self, effect: Effect) -> frozenset[str]:
        """The product of crossed factors that an effect equals in this fraction."""
        equal: frozenset[str] = frozenset()
        for factor in effect:
            equal ^= frozenset(self.generators.get(factor, (factor,)))
        return equal


def best_fraction(factors: Sequence[str], denominator: int) -> Fraction:
    """Finds the fraction of minimum aberration: of greatest resolution, with the fewest shortest words.

    Args:
        factors: names of the two-level factors; the last ones are generated.
        denominator: 2 for a half, 4 for a quarter, and so on.

    Raises:
        UserError: no power of two, too many factors, or so small a fraction that main effects are aliased.

    Minimum aberration: Fries and Hunter 1980.
    """
    halvings = denominator.bit_length() - 1
    if denominator < 2 or denominator != 1 << halvings:
        raise UserError(f"ablation.fraction={denominator}: a fraction is 2 (half), 4 (quarter), 8 and so on")
    if len(factors) > MOST_FACTORS:
        raise UserError(
            f"ablation.fraction={denominator}: fractions have at most {MOST_FACTORS} factors, and there are "
            f"{len(factors)}; leave out factors"
        )
    crossed = len(factors) - halvings
    if not _tells_main_effects_apart(crossed, halvings):
        smaller = [1 << p for p in range(1, len(factors)) if _tells_main_effects_apart(len(factors) - p, p)]
        remedy = f"take at most {max(smaller)}" if smaller else "run all combinations (1)"
        raise UserError(
            f"ablation.fraction={denominator}: of {len(factors)} factors it could not tell main effects apart; {remedy}"
        )
    masks = _minimum_aberration(crossed, halvings)
    # Short generators last or first is all the same to the design; in this order they read best.
    generators = {
        factor: tuple(factors[place] for place in range(crossed) if mask >> place & 1)
        for factor, mask in zip(factors[crossed:], sorted(masks), strict=True)
    }
    return Fraction(tuple(factors), generators)


def _tells_main_effects_apart(crossed: int, generated: int) -> bool:
    """Whether there is a product of two factors and more for every generated factor."""
    return crossed >= 2 and generated <= 2**crossed - 1 - crossed


@cache
def _minimum_aberration(crossed: int, generated: int) -> tuple[int, ...]:
    """Searches all sets of generators for the one with the fewest words of length 3, then 4, and so on.

    Args:
        crossed: number of factors that are crossed.
        generated: number of factors that follow from them.

    Returns:
        One mask per generated factor: bit i is set where the crossed factor i is in its product.
    """
    # Two factors at least, as a word of length two would alias main effects. A set of generators is looked at in this
    # order, the longest first.
    masks = sorted(
        (mask for mask in range(1, 1 << crossed) if mask.bit_count() >= 2), key=lambda mask: (-mask.bit_count(), mask)
    )
    best: list[int] = []
    chosen: tuple[int, ...] = ()

    def extend(taken: tuple[int, ...], start: int, words: list[tuple[int, int]], lengths: list[int]) -> None:
        """Adds generators to those taken.

        Args:
            taken: masks of the generators so far.
            start: place in masks from which further ones are taken.
            words: the products so far: mask of crossed factors, number of generated ones.
            lengths: number of words of each length.
        """
        nonlocal best, chosen
        if len(taken) == generated:
            best, chosen = lengths, taken
            return
        for place in range(start, len(masks) - (generated - len(taken) - 1)):
            mask = masks[place]
            # The crossed factors may change places, so that the first generator may be a product of the first of them.
            if not taken and mask != (1 << mask.bit_count()) - 1:
                continue
            longer = [(word ^ mask, number + 1) for word, number in words]
            counts = list(lengths)
            for word, number in longer:
                counts[word.bit_count() + number] += 1
            # Further generators only add words.
            if not best or counts < best:
                extend((*taken, mask), place + 1, words + longer, counts)

    extend((), 0, [(0, 0)], [0] * (crossed + generated + 1))
    return chosen
