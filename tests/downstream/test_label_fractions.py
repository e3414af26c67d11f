"""Draws of labelled women: nested, repeatable, with both classes, and what the probe makes of them."""

import numpy as np
import pandas as pd

from siamray.config import Config
from siamray.downstream.label_fractions import draw_women


def training(women: int = 100, affected_every: int = 4) -> pd.DataFrame:
    rows = [(f"w{n:03d}", label) for n in range(women) for label in ([0, 1] if n % affected_every == 0 else [0])]
    return pd.DataFrame(rows, columns=["woman_id", "label"])


def config(*fractions: float, draws: int = 3) -> Config:
    chosen = Config()
    chosen.downstream.label_fractions = list(fractions)
    chosen.downstream.label_draws = draws
    return chosen


def test_all_women_are_drawn_once_whatever_else_is_asked_for():
    for fractions in ((), (1.0,), (1.0, 1.0)):
        (only,) = draw_women(training(), config(*fractions))
        assert (only.suffix, only.draw, len(only.women), only.note) == ("", 0, 100, "")


def test_smaller_fractions_lie_within_larger_ones_of_the_same_draw():
    draws = list(draw_women(training(), config(0.01, 0.1, 1.0)))
    assert [(draw.suffix, draw.draw) for draw in draws] == [
        ("", 0), ("@10", 0), ("@1", 0), ("@10", 1), ("@1", 1), ("@10", 2), ("@1", 2)
    ]  # fmt: skip
    for number in range(3):
        ten, one = (next(d.women for d in draws if (d.suffix, d.draw) == (name, number)) for name in ("@10", "@1"))
        assert one < ten
        assert (len(ten), len(one)) == (10, 1)
    assert len({draw.women for draw in draws if draw.suffix == "@10"}) == 3


def test_a_fraction_holds_women_with_and_without_a_lesion_in_their_proportion():
    for draw in draw_women(training(), config(0.2, 0.4)):
        with_lesion = {woman for woman in draw.women if int(woman[1:]) % 4 == 0}
        assert abs(len(with_lesion) - len(draw.women) / 4) <= 1


def test_the_women_depend_on_the_split_seed_and_not_on_that_of_the_run_nor_on_the_order_of_the_samples():
    given = training()
    first = list(draw_women(given, config(0.1)))
    other = config(0.1)
    other.seed = 7
    assert list(draw_women(given.sample(frac=1, random_state=0), other)) == first
    other.data.split_seed = 1
    assert list(draw_women(given, other)) != first


def test_a_fraction_that_lacks_a_class_grows_until_it_has_both_and_says_so():
    # Women have either lesion patches or normal ones, so that one woman never has both.
    given = pd.DataFrame({"woman_id": [f"w{n:02d}" for n in range(40)], "label": [int(n == 17) for n in range(40)]})
    for draw in draw_women(given, config(0.01)):
        if draw.suffix:
            assert len(draw.women) == 2
            assert "w17" in draw.women
            assert draw.note == f"draw {draw.draw}: 2 of 40 women, the fewest with both classes, instead of 1"


def test_a_class_that_is_absent_altogether_leaves_the_fraction_as_asked_for():
    given = pd.DataFrame({"woman_id": [f"w{n:02d}" for n in range(40)], "label": np.zeros(40, dtype=int)})
    assert [len(draw.women) for draw in draw_women(given, config(0.1, draws=1))] == [40, 4]
