"""A design becomes the variants a user would have written by hand; one that cannot answer is refused in one line."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from siamray.compose import compose
from siamray.config import AblationConfig, Config
from siamray.errors import UserError
from siamray.sweeps.contract import DESIGN_KEYS
from siamray.sweeps.designs import Design, make_design

LOSS = {"logistic": ["pretraining.loss=logistic"], "hinge": ["pretraining.loss=hinge"]}
HEAD = {"on": [], "off": ["pretraining.masses.head_weight=0"]}
MARGIN = {"0.6": ["pretraining.margin=0.6"], "1.2": ["pretraining.margin=1.2"]}


def designed(seeds: int = 1, **fields: Any) -> Design:
    return make_design(Config(ablation=AblationConfig(name="mine", question="mine?", **fields), seeds=seeds))


def test_a_factor_makes_a_variant_of_every_level_and_its_first_is_the_reference() -> None:
    made = designed(design="one_factor", factors={"margin": MARGIN})
    assert made.ablation.variants == {
        "margin_0.6": ["pretraining.margin=0.6"],
        "margin_1.2": ["pretraining.margin=1.2"],
    }
    assert made.settings == {"margin_0.6": {"margin": "0.6"}, "margin_1.2": {"margin": "1.2"}}
    assert made.ablation.reference == "margin_0.6"
    assert designed(design="one_factor", factors={"margin": MARGIN}, reference="margin_1.2").ablation.reference == (
        "margin_1.2"
    )


def test_a_factor_may_be_written_as_an_option_and_its_values() -> None:
    made = designed(design="one_factor", options={"pretraining.margin": [0.6, 1.2]})
    assert made.ablation.variants == designed(design="one_factor", factors={"margin": MARGIN}).ablation.variants
    made = designed(
        design="factorial", options={"pairs.augmentation.flip": [True, False], "pretraining": ["simclr", "byol"]}
    )
    assert list(made.ablation.variants) == [
        "flip_true-simclr",
        "flip_true-byol",
        "flip_false-simclr",
        "flip_false-byol",
    ]
    assert made.ablation.variants["flip_false-byol"] == ["pairs.augmentation.flip=false", "pretraining=byol"]


def test_options_of_one_name_are_told_apart_by_their_section() -> None:
    options = {"pretraining.masses.weight": [0, 4], "pretraining.anti_collapse.weight": [0, 1]}
    assert list(designed(design="factorial", options=options).factors) == ["masses_weight", "anti_collapse_weight"]


def test_each_component_is_left_out_once_and_the_whole_is_the_reference() -> None:
    parts = {"labels": ["pretraining.labels=none"], "warmup": ["pretraining.warmup_epochs=0"]}
    made = designed(design="leave_one_out", components=parts)
    assert made.ablation.variants == {"whole": [], "no_labels": parts["labels"], "no_warmup": parts["warmup"]}
    assert made.ablation.reference == "whole"
    assert made.settings["whole"] == {"labels": "on", "warmup": "on"}
    assert made.settings["no_labels"] == {"labels": "off", "warmup": "on"}


def test_each_component_is_added_once_and_the_bare_is_the_reference() -> None:
    parts = {"labels": ["pretraining.labels=mixture"], "head": ["pretraining.masses.head_weight=4"]}
    made = designed(design="add_one_in", components=parts)
    assert made.ablation.variants == {"bare": [], "with_labels": parts["labels"], "with_head": parts["head"]}
    assert made.ablation.reference == "bare"
    assert made.settings["with_head"] == {"labels": "off", "head": "on"}
    assert made.factors == {"labels": ["off", "on"], "head": ["off", "on"]}


def test_a_factorial_crosses_all_levels_and_the_first_levels_are_the_reference() -> None:
    made = designed(design="factorial", factors={"loss": LOSS, "head": HEAD})
    assert made.ablation.variants == {
        "logistic-head_on": ["pretraining.loss=logistic"],
        "logistic-head_off": ["pretraining.loss=logistic", "pretraining.masses.head_weight=0"],
        "hinge-head_on": ["pretraining.loss=hinge"],
        "hinge-head_off": ["pretraining.loss=hinge", "pretraining.masses.head_weight=0"],
    }
    assert made.ablation.reference == "logistic-head_on"
    assert made.settings["hinge-head_off"] == {"loss": "hinge", "head": "off"}


def test_a_factor_that_only_matters_beside_a_level_is_not_crossed_elsewhere() -> None:
    made = designed(
        design="factorial",
        factors={"loss": LOSS, "margin": MARGIN, "head": HEAD},
        only_if={"margin": {"loss": "hinge"}},
    )
    assert list(made.settings.values()) == [
        {"loss": "logistic", "head": "on"},
        {"loss": "logistic", "head": "off"},
        {"loss": "hinge", "margin": "0.6", "head": "on"},
        {"loss": "hinge", "margin": "0.6", "head": "off"},
        {"loss": "hinge", "margin": "1.2", "head": "on"},
        {"loss": "hinge", "margin": "1.2", "head": "off"},
    ]
    assert "hinge-margin_0.6-head_off" in made.ablation.variants
    assert "margin only if loss=hinge" in made.lines()


def test_combinations_that_make_no_sense_are_left_out_and_named() -> None:
    made = designed(
        design="factorial", factors={"loss": LOSS, "margin": MARGIN}, skip=[{"loss": "logistic", "margin": 0.6}]
    )
    assert list(made.ablation.variants) == ["logistic-margin_1.2", "hinge-margin_0.6", "hinge-margin_1.2"]
    assert made.skipped == [{"loss": "logistic", "margin": "0.6"}]
    assert "left out (1): loss=logistic, margin=0.6" in made.lines()
    either = designed(design="factorial", factors={"loss": LOSS, "margin": MARGIN}, skip=[{"margin": ["0.6"]}])
    assert len(either.ablation.variants) == len(either.skipped) == 2


def test_a_fraction_says_its_resolution_and_what_it_cannot_tell_apart() -> None:
    names = ("loss", "masses", "head", "labels")
    factors = {name: {name: [], f"no_{name}": [f"pretraining.{name}=x"]} for name in names}
    made = designed(design="factorial", factors=factors, fraction=2)
    assert len(made.ablation.variants) == 8
    assert made.ablation.reference == "loss-masses-head-labels"
    (_, first, second) = made.lines()
    assert first == "fraction: 1/2, resolution IV: labels = loss x masses x head"
    assert "loss x masses = head x labels; loss x head = masses x labels; loss x labels = masses x head" in second
    assert made.record()["resolution"] == 4
    assert [["loss", "masses"], ["head", "labels"]] in made.record()["aliases"]


def test_variants_written_beside_a_design_are_added_without_settings() -> None:
    made = designed(
        design="factorial", factors={"loss": LOSS, "head": HEAD}, variants={"simclr": ["pretraining=simclr"]}
    )
    assert list(made.ablation.variants)[-1] == "simclr"
    assert "simclr" not in made.settings
    assert made.lines()[0].endswith(": 4 variants, and 1 written beside")


def test_a_list_stays_as_it_is_written() -> None:
    written = {"a": ["pretraining.margin=1"], "b": []}
    made = designed(variants=written, reference="b")
    assert (made.ablation.variants, made.ablation.reference, made.settings) == (written, "b", {})


def test_a_design_written_out_is_a_list_that_makes_itself_again() -> None:
    made = designed(design="factorial", factors={"loss": LOSS, "head": HEAD}, fraction=1)
    config = Config(ablation=made.ablation)
    assert make_design(config).ablation == made.ablation


def test_what_is_stored_of_a_design_has_the_keys_of_the_contract() -> None:
    records = [
        designed(variants={"a": []}, reference="a").record(),
        designed(design="factorial", factors={"loss": LOSS, "margin": MARGIN}, skip=[{"loss": "hinge"}]).record(),
    ]
    for record in records:
        assert list(record) == list(DESIGN_KEYS)
        assert json.loads(json.dumps(record)) == record


@given(st.data())
def test_the_limit_counts_exactly_the_trials_that_would_be_made(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(2, 4), min_size=2, max_size=4))
    names = "abcd"[: len(sizes)]
    levels = {name: [f"{name}{i}" for i in range(size)] for name, size in zip(names, sizes, strict=True)}
    part = st.fixed_dictionaries({}, optional={name: st.sampled_from(of) for name, of in levels.items()})
    skip = data.draw(st.lists(part.filter(bool), max_size=2))
    only_if = {
        name: {names[0]: data.draw(st.sampled_from(levels[names[0]]))} for name in names[1:] if data.draw(st.booleans())
    }
    fields = {
        "design": "factorial",
        "factors": {name: {level: [f"{name}={level}"] for level in of} for name, of in levels.items()},
        "skip": skip,
        "only_if": only_if,
        "controls": {"untrained": []},
    }
    try:
        made = designed(seeds=3, **fields)
    except UserError:
        # Rules that skip everything or nothing are refused.
        assume(False)
    trials = (len(made.ablation.variants) + 1) * 3
    assert designed(seeds=3, limit=trials, **fields).ablation.variants == made.ablation.variants
    with pytest.raises(UserError, match=f": {trials} trials"):
        designed(seeds=3, limit=trials - 1, **fields)


@pytest.mark.parametrize("rules", [{}, {"skip": [{"f0": "f0_0"}]}, {"skip": [{f"f{i}": f"f{i}_0" for i in range(20)}]}])
def test_a_million_trials_are_refused_at_once_with_their_number(rules: dict[str, Any]) -> None:
    factors = {f"f{i}": {f"f{i}_{j}": [f"a{i}=b{j}"] for j in range(2)} for i in range(20)}
    started = time.process_time()
    with pytest.raises(UserError, match=r"(up to )?(1,048,576|524,288) trials .* ablation\.limit=1000") as raised:
        designed(design="factorial", factors=factors, **rules)
    assert time.process_time() - started < 1
    assert "\n" not in str(raised.value)


def test_too_many_seeds_are_too_many_trials() -> None:
    with pytest.raises(UserError, match="2,000,000 trials"):
        designed(seeds=1_000_000, variants={"a": [], "b": []}, reference="a")


TWO = {"loss": LOSS, "margin": MARGIN}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"design": "factorial"}, "two factors at least, and there are 0"),
        ({"design": "factorial", "factors": {"loss": LOSS}}, "say design: one_factor"),
        ({"design": "one_factor"}, "one factor, not 0"),
        ({"design": "one_factor", "factors": TWO}, "one factor, not 2"),
        ({"design": "one_factor", "factors": {"loss": {"hinge": []}}}, "'loss' has 1 levels"),
        ({"design": "leave_one_out"}, "no components"),
        ({"design": "add_one_in"}, "no components"),
        ({"factors": TWO, "variants": {"a": []}}, "design=list does not use factors; say design: one_factor or"),
        ({"design": "one_factor", "factors": {"loss": LOSS}, "skip": [{"loss": "hinge"}]}, "does not use skip"),
        ({"design": "factorial", "factors": TWO, "reference": "hinge"}, "no such variant; .*hinge-margin_0.6"),
        ({"variants": {"a": []}}, "has no reference"),
        ({"design": "factorial", "factors": TWO, "skip": [{"los": "hinge"}]}, r"skip\[0\]: no .*did you mean 'loss'"),
        ({"design": "factorial", "factors": TWO, "skip": [{"loss": "hing"}]}, "no level 'hing'; did you mean 'hinge'"),
        ({"design": "factorial", "factors": TWO, "skip": [{}]}, r"skip\[0\]: names no factor"),
        ({"design": "factorial", "factors": TWO, "skip": [{"loss": ["logistic", "hinge"]}]}, "leaves no combination"),
        (
            {
                "design": "factorial",
                "factors": TWO,
                "only_if": {"margin": {"loss": "hinge"}},
                "skip": [{"loss": "logistic", "margin": "0.6"}],
            },
            "there is no combination loss=logistic, margin=0.6 to skip",
        ),
        ({"design": "factorial", "factors": TWO, "only_if": {"margn": {"loss": "hinge"}}}, "did you mean 'margin'"),
        ({"design": "factorial", "factors": TWO, "only_if": {"loss": {"margin": 0.6}}}, "must be listed before it"),
        ({"design": "factorial", "factors": TWO, "fraction": 2, "skip": [{"loss": "hinge"}]}, "needs all of its comb"),
        ({"design": "factorial", "factors": TWO, "fraction": 3}, "a fraction is 2"),
        (
            {"design": "factorial", "factors": TWO, "options": {"pretraining.epochs": [1, 2, 3]}, "fraction": 2},
            "'epochs' has 3 levels",
        ),
        ({"design": "one_factor", "options": {"pretraining.margin": [0.6, 0.6]}}, "0.6 is there twice"),
        ({"design": "one_factor", "options": {"data.normal.birads": [[1], [1, 2]]}}, "write it under factors"),
        ({"design": "factorial", "factors": TWO, "options": {"x.loss": [1, 2]}}, "there is a factor 'loss' already"),
        ({"design": "factorial", "factors": {"loss": LOSS, "same": LOSS}}, "both set pretraining.loss"),
        ({"design": "one_factor", "options": {"encoder.folder": ["a/b", "c/d"]}}, "'a/b' names folders"),
        ({"design": "one_factor", "factors": {"loss": {"a b": [], "c": ["x=1"]}}}, "'a b' names folders"),
        ({"design": "one_factor", "factors": {"f": {"a" * 201: [], "c": ["x=1"]}}}, "shorter names of levels"),
        (
            {"design": "factorial", "factors": {"f": {"a": [], "a-b": ["x=1"]}, "g": {"b-c": [], "c": ["y=1"]}}},
            "two combinations are called 'a-b-c'",
        ),
        ({"design": "one_factor", "factors": {"loss": LOSS}, "variants": {"hinge": []}}, "makes a variant 'hinge'"),
        ({"design": "one_factor", "factors": {"loss": LOSS}, "controls": {"hinge": []}}, "a variant and a control"),
    ],
)
def test_a_design_that_cannot_answer_is_refused_in_one_line(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as raised:
        designed(**fields)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ("{0.6: [a=1], 0.9: []}", "factors.margin: .*put such names in quotes"),
        ("{on: [a=1], off: []}", "factors.margin: .*put such names in quotes"),
        ("{a: [a=1], a: []}", "duplicate key a"),
        ("[a, b]", "factors.margin: "),
    ],
)
def test_a_mistyped_level_is_told_in_one_line(levels: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text(
        f"name: mine\nquestion: mine?\ndesign: one_factor\nfactors: {{margin: {levels}}}\n"
    )
    with pytest.raises(UserError, match=expected) as raised:
        compose("sweep", [f"experiments={tmp_path}", "ablation=mine"])
    assert "\n" not in str(raised.value)


def test_a_design_in_a_file_reaches_the_variants_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text(
        "name: mine\nquestion: mine?\ndesign: factorial\n"
        "factors:\n  loss: {logistic: [pretraining.loss=logistic], hinge: [pretraining.loss=hinge]}\n"
        "options: {pretraining.margin: [0.6, 1.2]}\nonly_if: {margin: {loss: hinge}}\n"
        "skip: [{loss: hinge, margin: 1.2}]\n"
    )
    config = compose("sweep", [f"experiments={tmp_path}", "ablation=mine"])
    assert make_design(config).ablation.variants == {
        "logistic": ["pretraining.loss=logistic"],
        "hinge-margin_0.6": ["pretraining.loss=hinge", "pretraining.margin=0.6"],
    }


def test_only_the_named_variants_and_controls_are_taken() -> None:
    variants = {name: [f"pretraining.margin={margin}"] for name, margin in (("a", 0.6), ("b", 1.0), ("c", 1.4))}
    controls = {"untrained": ["pretraining.epochs=0"], "shuffled": ["pretraining.partners=shuffled"]}
    fields: dict[str, Any] = {"variants": variants, "controls": controls, "reference": "b"}
    taken = designed(**fields, only=["c", "b", "shuffled"]).ablation
    assert list(taken.variants) == ["b", "c"]
    assert list(taken.controls) == ["shuffled"]
    with pytest.raises(UserError, match=r"ablation.only: 'd' is neither a variant nor a control"):
        designed(**fields, only=["b", "d"])
    with pytest.raises(UserError, match=r"ablation.only: it lacks the reference 'b'; add it"):
        designed(**fields, only=["a", "c"])


def test_a_factorial_of_which_some_are_taken_keeps_their_settings_alone() -> None:
    made = designed(
        design="factorial",
        factors={
            "loss": {"logistic": ["pretraining.loss=logistic"], "hinge": ["pretraining.loss=hinge"]},
            "labels": {"soft": ["pretraining.labels=mixture"], "bare": ["pretraining.labels=none"]},
        },
        only=["logistic-soft", "hinge-bare"],
    )
    assert set(made.settings) == set(made.ablation.variants) == {"logistic-soft", "hinge-bare"}
