"""An experiment measures its arithmetic once; a resumed sweep uses what its first part used."""

import json
from pathlib import Path

from siamray.compose import compose
from siamray.sweeps.fixed_arithmetic import ARITHMETIC_FILE, fix_arithmetic


def test_what_the_user_chose_is_kept(tmp_path: Path) -> None:
    config = compose("sweep", ["pretraining.precision=float32"])
    assert fix_arithmetic(config, tmp_path) == config
    assert not (tmp_path / ARITHMETIC_FILE).exists()


def test_auto_becomes_what_the_experiment_chose_first(tmp_path: Path) -> None:
    (tmp_path / ARITHMETIC_FILE).write_text(json.dumps({"resnet10t 32 px": "bfloat16"}))
    config = compose("sweep", ["pairs.patch_pixels=32"])
    assert fix_arithmetic(config, tmp_path).pretraining.precision == "bfloat16"


def test_a_measured_choice_is_written_down_and_none_is_when_only_asked(tmp_path: Path) -> None:
    config = compose("sweep", ["pairs.patch_pixels=16", "pretraining.batch_pairs=2"])
    asked = fix_arithmetic(config, tmp_path / "dry", keep=False)
    assert asked.pretraining.precision != "auto"
    assert not (tmp_path / "dry").exists()
    chosen = fix_arithmetic(config, tmp_path / "run").pretraining.precision
    assert json.loads((tmp_path / "run" / ARITHMETIC_FILE).read_text()) == {"resnet10t 16 px": chosen}
    assert fix_arithmetic(config, tmp_path / "run").pretraining.precision == chosen


def test_a_new_experiment_takes_the_choice_of_one_beside_it_so_that_they_can_share_trials(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / ARITHMETIC_FILE).write_text("{")
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / ARITHMETIC_FILE).write_text(json.dumps({"resnet10t 32 px": "bfloat16_channels_last"}))
    config = compose("sweep", ["pairs.patch_pixels=32"])
    assert fix_arithmetic(config, tmp_path / "second").pretraining.precision == "bfloat16_channels_last"
    assert json.loads((tmp_path / "second" / ARITHMETIC_FILE).read_text()) == {
        "resnet10t 32 px": "bfloat16_channels_last"
    }
