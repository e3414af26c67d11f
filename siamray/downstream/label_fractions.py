"""Labelled training samples and shares of their women go in; nested draws of these women come out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from siamray.config import Config
from siamray.seeds import named_seed


@dataclass(frozen=True)
class LabelDraw:
    """Training women whose labels are used.

    Attributes:
        suffix: what the names of scores end with: "" for all women, such as "@10" for 10 %.
        draw: number of the draw, counted from 0.
        women: the women.
        note: how many they are, and why they are more than the share asked for; "" for all women.
    """

    suffix: str
    draw: int
    women: frozenset[str]
    note: str


def draw_women(training: pd.DataFrame, config: Config) -> Iterator[LabelDraw]:
    """Draws the women of every fraction of downstream.label_fractions, and all women first.

    Each draw is one order of the women, of which a fraction takes the first: the women of 1 % are among those of 10 %.
    Women with and without a lesion patch are shuffled apart and merged so that any beginning holds them in their
    proportion, the former first. A fraction that lacks a class takes the next women until it has both. The order comes
    from data.split_seed: all trials learn from the same women.

    Args:
        training: the training samples: woman_id and label (0 or 1).
        config: downstream.label_fractions and label_draws.

    Yields:
        The draws; one only of the fraction 1, as all draws of it are alike.
    """
    fractions = sorted({1.0, *config.downstream.label_fractions}, reverse=True)
    for draw in range(config.downstream.label_draws):
        order = _order(training, named_seed(config.data.split_seed, "label fractions", draw))
        fewest = _fewest_with_both(training, order)
        for fraction in fractions:
            if fraction == 1:
                if draw == 0:
                    yield LabelDraw("", 0, frozenset(order), "")
                continue
            asked = max(1, round(fraction * len(order)))
            taken = max(asked, fewest)
            note = f"draw {draw}: {taken} of {len(order)} women"
            if taken > asked:
                note += f", the fewest with both classes, instead of {asked}"
            yield LabelDraw(f"@{100 * fraction:g}", draw, frozenset(order[:taken]), note)


def _order(training: pd.DataFrame, seed: int) -> list[str]:
    affected = training.groupby("woman_id").label.max() == 1
    generator = np.random.default_rng(seed)
    places: list[tuple[float, int, str]] = []
    for rank, stratum in enumerate((affected.index[affected], affected.index[~affected])):
        women = sorted(str(woman) for woman in stratum)
        shuffled = [women[place] for place in generator.permutation(len(women))]
        places += [((place + 0.5) / len(women), rank, woman) for place, woman in enumerate(shuffled)]
    if not places:
        return []
    ordered = [woman for _, _, woman in sorted(places)]
    # A beginning of few women holds a lesion, even where lesions are rare.
    first = next((woman for woman in ordered if affected[woman]), ordered[0])
    return [first, *(woman for woman in ordered if woman != first)]


def _fewest_with_both(training: pd.DataFrame, order: list[str]) -> int:
    """The length of the shortest beginning with both classes; 1 where there is none."""
    place = {woman: number for number, woman in enumerate(order)}
    first = training.woman_id.map(place).groupby(training.label).min()
    return int(first.max()) + 1 if len(first) == 2 else 1
