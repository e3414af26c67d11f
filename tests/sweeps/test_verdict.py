"""The sentence on a row claims what its tests say, and no more."""

import pytest

from siamray.sweeps.verdict import SAME_PREDICTIONS, remarks, verdict

ROW = {
    "variant": "hard", "reference": "soft", "seeds": 3, "women": 24, "note": "",
    "value": 0.7, "value_low": 0.6, "value_high": 0.8, "effect": -0.002, "effect_low": -0.043, "effect_high": 0.039,
    "p": 0.9, "p_holm": 0.988, "detectable": 0.0614, "equivalence_margin": 0.02, "p_equivalence_holm": 0.4,
}  # fmt: skip
NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "no evidence that hard differs from soft: effect -.002 [-.043, +.039], corrected p .988, 24 women, "
            "3 seeds; a difference of .061 would have been found with a chance of .8; equivalence within .02 is not "
            "shown either",
        ),
        (
            {"equivalence_margin": NAN, "p_equivalence_holm": NAN},
            "no evidence that hard differs from soft: effect -.002 [-.043, +.039], corrected p .988, 24 women, "
            "3 seeds; a difference of .061 would have been found with a chance of .8",
        ),
        (
            {"p_equivalence_holm": 0.012, "equivalence_margin": 0.015},
            "hard and soft are equivalent within .015: effect -.002 [-.043, +.039], corrected p of equivalence .012, "
            "24 women, 3 seeds",
        ),
        (
            {
                "effect": 0.0,
                "effect_low": 0.0,
                "effect_high": 0.0,
                "seeds": 1,
                "note": f"one seed; {SAME_PREDICTIONS}",
            },
            "hard gives the predictions of soft to the last digit: what it changes had no effect, 24 women, 1 seed",
        ),
        (
            {"p_holm": 0.01, "p_equivalence_holm": 0.0001},
            "hard is below soft, yet equivalent within .02: effect -.002 [-.043, +.039], corrected p .010, "
            "corrected p of equivalence below .001, 24 women, 3 seeds",
        ),
        (
            {"p_holm": 0.01, "effect": 0.05},
            "hard is above soft: effect +.050 [-.043, +.039], corrected p .010, 24 women, 3 seeds",
        ),
        (
            {"detectable": NAN, "p_equivalence_holm": NAN, "effect": 0.0, "p_holm": 1.0},
            "no evidence that hard differs from soft: effect +.000 [-.043, +.039], corrected p 1.000, 24 women, "
            "3 seeds",
        ),
        (
            {"seeds": 1, "p_holm": NAN, "detectable": NAN, "p_equivalence_holm": NAN},
            "one seed: cannot tell hard from the luck of its seed: effect -.002 [-.043, +.039], 24 women",
        ),
        (
            {"p_holm": NAN, "effect": NAN, "note": "a class is absent"},
            "hard cannot be compared with soft: a class is absent",
        ),
        ({"variant": "soft"}, "soft is the reference: .700 [.600, .800], 24 women, 3 seeds"),
    ],
)
def test_the_sentence_is_that_of_the_numbers(changes: dict[str, object], expected: str) -> None:
    assert verdict({**ROW, **changes}, 0.05) == expected


def test_equivalence_that_holm_does_not_leave_is_not_claimed() -> None:
    row = {**ROW, "p_equivalence": 0.03, "p_equivalence_holm": 0.06}
    assert verdict(row, 0.05).startswith("no evidence that hard differs from soft")
    assert "not shown" in verdict(row, 0.05)


def test_remarks_are_told_once_with_the_variants_they_are_of() -> None:
    rows = [ROW | {"variant": name, "note": note} for name, note in {"a": "x; y", "b": "y", "c": NAN}.items()]
    assert remarks(rows) == ["x (a)", "y (a, b)"]
    assert remarks(rows[:2]) == ["x (a)", "y (all)"]
