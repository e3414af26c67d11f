"""The table printed at the end of a sweep: whole in 100 columns, and clear about n, intervals and correction."""

import math

import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

from siamray.sweeps.tables import console_table, effects_table, importance_table


def comparison(variants: dict[str, str], metric: str = "patches_linear_auc") -> pd.DataFrame:
    """A comparison of variants (name -> role) with the first as reference."""
    reference = next(iter(variants))
    rows = []
    for i, (name, role) in enumerate(variants.items()):
        effect = math.nan if i == 0 else -0.02 * i
        p = math.nan if i == 0 else 0.06 / 10**i
        row = {"variant": name, "role": role, "reference": reference, "metric": metric, "value": 0.8 - 0.02 * i}
        row |= {"value_low": 0.7, "value_high": 0.9, "effect": effect, "effect_low": effect - 0.01}
        row["detectable"] = math.nan if i == 0 else 0.04 * i
        row |= {
            "effect_high": effect + 0.01,
            "p": p,
            "p_holm": p,
            "seeds": 3,
            "folds": 1,
            "women": 24,
            "note": "mind this",
        }
        rows.append(row | {"lesions": 48, "normals": 1576, "verdict": "", "cost_wall_s": 41.6})
    return pd.DataFrame(rows)


def printed(frame: pd.DataFrame, metric: str = "patches_linear_auc", width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(frame, metric))
    return console.export_text()


def test_every_row_is_on_one_line_of_100_columns_and_nothing_is_cut() -> None:
    text = printed(comparison({"soft": "variant", "shuffled_partners": "variant", "untrained": "control"}))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    line = next(line for line in text.splitlines() if "shuffled_partners" in line)
    for cell in ("0.780 [0.700, 0.900]", "\u22120.020 [\u22120.030, \u22120.010]", "0.006", " 3 ", "42"):
        assert cell in line


def test_controls_stand_below_the_variants_under_their_heading() -> None:
    text = printed(comparison({"soft": "variant", "untrained": "control", "hard": "variant"}))
    assert text.index("hard") < text.index("controls") < text.index("untrained")


def test_the_footnotes_say_n_interval_and_family() -> None:
    text = printed(comparison({"soft": "variant", "hard": "variant", "untrained": "control"}))
    words = " ".join(text.split())
    assert "24 test women, 48 lesion patches, 1,576 normal patches" in words
    assert "95 % intervals, bootstrap over women, with the variance between seeds (t)" in words
    assert "from soft, paired over the same women and seeds" in words
    assert "Holm p: corrected over 1 variant and over 1 control" in words
    assert words.count("note: mind this (all)") == 1


def test_the_footnotes_say_which_differences_could_have_been_seen() -> None:
    two = " ".join(printed(comparison({"soft": "variant", "hard": "variant"})).split())
    assert "differences of 0.040 could have been seen (power 0.8, Holm's correction included)" in two
    three = " ".join(printed(comparison({"soft": "variant", "hard": "variant", "none": "control"})).split())
    assert "differences of 0.040 to 0.080, depending on the row, could have been seen" in three
    assert "could have been seen" not in printed(comparison({"soft": "variant"}))


def test_small_p_values_are_not_shown_as_zero() -> None:
    text = printed(comparison({"a": "variant", "b": "variant", "c": "variant", "d": "variant"}))
    assert "<0.001" in text
    assert "0.000" not in text


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/]", "a" * 60])
def test_any_name_is_printed_as_it_is(name: str) -> None:
    text = printed(comparison({"soft": "variant", name: "variant"}))
    assert name in "".join(line[:24].strip() for line in text.splitlines())


def test_a_metric_that_is_not_compared_says_so() -> None:
    assert "nothing is compared yet" in printed(comparison({"soft": "variant"}), "other")


def drawn(table: Table) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_effects_are_tabulated_with_levels_intervals_and_families() -> None:
    effects = pd.DataFrame(
        {
            "kind": ["main", "interaction"], "term": ["loss", "loss x head"],
            "contrast": ["hinge - logistic", "(hinge - logistic) where no_head - head"], "effect": [-0.05, 0.01],
            "effect_low": [-0.08, -0.02], "effect_high": [-0.02, 0.04], "p": [0.002, 0.5], "p_holm": [0.004, 0.5],
            "women": [40, 40], "seeds": [3, 3],
        }
    )  # fmt: skip
    text = drawn(effects_table(effects, "patches_linear_auc"))
    assert "−0.050 [−0.080, −0.020]" in text
    assert "loss x head" in text
    assert "40 test women, 3 seeds" in text


def test_the_most_important_options_of_each_method_are_tabulated() -> None:
    importance = pd.DataFrame(
        {
            "objective": "validation_patches_linear_auc", "method": ["fANOVA"] * 3 + ["PED-ANOVA"],
            "option": ["a", "b", "c", "a"], "importance": [0.6, 0.3, float("nan"), 0.9],
            "low": [0.5, 0.2, float("nan"), 0.1], "high": [0.7, 0.4, float("nan"), 1.0],
        }
    )  # fmt: skip
    text = drawn(importance_table(importance, shown=2))
    assert "0.600 [0.500, 0.700]" in text
    assert text.count("fANOVA") >= 2
    assert "0.900 [0.100, 1.000]" in text
    assert " c " not in text
