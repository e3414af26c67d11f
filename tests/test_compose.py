"""Command lines go in; what a user must get back is checked: a typed configuration, or one line that helps."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamray import compose as composing
from siamray.compose import compose, experiments_folder, from_dict, help_text, options, to_dict
from siamray.config import Config
from siamray.errors import UserError


def test_defaults_compose_for_every_command() -> None:
    for command in composing.COMMANDS:
        config = compose(command, [])
        assert isinstance(config, Config)
        assert config.data.source == "phantom"


def test_every_file_in_experiments_composes() -> None:
    files = sorted(experiments_folder().glob("*/*.yaml"))
    assert len(files) >= 10
    for path in files:
        extra = ["encoder.folder=."] if path.stem == "folder" else []
        config = compose("sweep", [f"{path.parent.name}={path.stem}", *extra])
        assert isinstance(config, Config), path


def test_every_file_in_experiments_says_what_it_is_and_how_to_run_it() -> None:
    for path in experiments_folder().glob("*/*.yaml"):
        comments = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
        assert len(comments) >= 2, path
        assert comments[1].startswith("# python -m siamray."), path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretraning.margin=2"], "did you mean 'pretraining.margin'?"),
        (["ablation=soft_label"], "did you mean 'soft_labels'?"),
        (["data=phantm"], "did you mean 'phantom'?"),
        (["pretraining.labels=mixtur"], "did you mean 'mixture'?"),
        (["pretraining.margin=wide"], "pretraining.margin"),
        (["pretraining.epochs=-1"], "must be at least 0"),
        (["pairs.minimum_tissue=1.5"], "must be at most 1"),
        (["data.fold=4"], "folds are counted from 0"),
        (["pairs"], "option=value"),
        (["pairs=3"], "a section, not an option"),
        (["pretraining.margin="], "no value given"),
        (["out=x"], "does not use this option"),
        (["encoder=/nowhere/encoder"], "no such folder"),
        (["experiments=/nowhere"], "no such folder"),
        (["pretraining.warmup_epochs=[1"], "pretraining.warmup_epochs"),
    ],
)
def test_a_mistake_is_one_line_that_helps(words: list[str], expected: str) -> None:
    with pytest.raises(UserError) as raised:
        compose("sweep", words)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("desing: x", "'ablation/mine', ablation.desing: Key 'desing' not in"),
        ("limit: many", "'ablation/mine', ablation.limit: Value 'many'"),
        ("variants: {a: [], a: []}", "mine.yaml, line 3: found duplicate key a"),
        ("variants: {0.6: []}", "ablation.variants.*: Key 0.6 .* put such names in quotes"),
    ],
)
def test_a_mistake_in_a_file_names_the_file_and_the_option(line: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text(f"name: mine\nquestion: mine?\n{line}\n")
    with pytest.raises(UserError, match=expected) as raised:
        compose("sweep", [f"experiments={tmp_path}", "ablation=mine"])
    assert "\n" not in str(raised.value)


def test_every_option_can_be_set_from_the_command_line_by_the_name_that_help_shows() -> None:
    text = help_text("sweep")
    for name, entry, _ in options():
        if name.split(".")[0] in composing.COMMANDS["sweep"][1]:
            assert f"  {name} (" in text
            assert len(entry.metadata["meaning"]) > 10, name


def test_help_lists_the_choices_of_every_group_with_their_meaning() -> None:
    text = help_text("sweep")
    for path in experiments_folder().glob("*/*.yaml"):
        line = next(line for line in text.splitlines() if line.split() and line.split()[0] == path.stem)
        assert len(line.split()) > 3, path


def test_later_words_win() -> None:
    assert compose("pretrain", ["seed=1", "seed=2"]).seed == 2


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).filter(lambda t: t == t.strip()))
def test_any_folder_name_reaches_the_configuration_as_it_is(name: str) -> None:
    if name in ("null", ".", "..") or "/" in name or "://" in name or name.startswith("~"):
        return
    assert Path(compose("prepare", [f"store=/tmp/{name}"]).store or "").name == Path(f"/tmp/{name}").resolve().name


def test_a_folder_given_as_encoder_is_the_encoder_to_start_from(tmp_path: Path) -> None:
    assert compose("evaluate", [f"encoder={tmp_path}"]).encoder.folder == str(tmp_path)


def test_a_folder_of_ones_own_adds_choices(tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "mine.yaml").write_text(
        "name: mine\nquestion: mine?\nreference: a\nvariants: {a: [seed=1], b: [pretraining.margin=1.0]}\n"
    )
    ablation = compose("sweep", [f"experiments={tmp_path}", "ablation=mine"]).ablation
    assert ablation is not None
    assert ablation.question == "mine?"


def test_a_configuration_survives_being_written_and_read() -> None:
    config = compose("sweep", ["ablation=soft_labels", "pretraining.margin=0.7", "downstream.probe.neighbours=[3]"])
    assert from_dict(to_dict(config)) == config


def test_a_stored_configuration_with_an_unknown_option_is_refused() -> None:
    values = to_dict(compose("pretrain", []))
    values["pretraining"]["magic"] = 1
    with pytest.raises(UserError, match="does not fit this version"):
        from_dict(values)
