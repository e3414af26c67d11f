"""Variants of several experiments are averaged over tasks and data sets, and refused where that would mislead."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from scipy import stats

from siamray.errors import UserError
from siamray.sweep import main as siamray_sweep
from siamray.sweeps import results
from siamray.sweeps.averaging import average_over
from tests.dashboards.test_report import Page

VARIANTS = {"soft": 1.2, "hard": 0.8, "none": 0.4}
METRICS = ["patches_linear_auc", "patches_distance_auc"]


def write(
    folder: Path,
    data: int = 0,
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    controls: Sequence[str] = ("untrained",),
    seeds: Sequence[int] = (0, 1, 2),
    folds: Sequence[int] = (0,),
    lost: Sequence[tuple[str, int, int]] = (),
    metrics: Sequence[str] = METRICS,
    confidence: float = 0.95,
) -> Path:
    """Writes an experiment on generated women of the seed ``data``; a better variant tells lesions further apart."""
    names = {name: [f"o={name}"] for name in variants}
    results.write_experiment(
        folder,
        {
            "name": folder.name, "kind": "ablation", "question": "Which?", "reference": variants[0],
            "metric": metrics[0], "variants": names, "controls": {name: [] for name in controls},
            "seeds": list(seeds), "folds": list(folds),
            "data": {"source": "phantom", "store_fingerprint": f"store{data}"},
        },
    )  # fmt: skip
    config = {
        "data": {"source": "phantom", "phantom": {"seed": data}},
        "downstream": {"intervals": {"replicates": 200, "confidence": confidence, "seed": 0}},
    }
    for name in [*variants, *controls]:
        for seed in seeds:
            for fold in folds:
                state = "failed" if (name, seed, fold) in lost else "finished"
                record = {"trial_id": f"{name}-{seed}-{fold}", "variant": name, "seed": seed, "fold": fold}
                path = folder / "trials" / record["trial_id"]
                results.write_trial(path, record | {"state": state, "config": config})
                if state == "finished":
                    rows = predictions(VARIANTS.get(name, 0.1), [data, fold, seed, len(name)], data, fold)
                    results.write_parquet(path / "predictions.parquet", rows)
    comparison = pd.DataFrame({"metric": list(metrics), "variant": variants[0]})
    results.write_parquet(folder / results.COMPARISON_FILE, comparison)
    return folder


def predictions(shift: float, key: list[int], data: int, fold: int) -> pd.DataFrame:
    generator = np.random.default_rng(key)
    parts = []
    for score in ("linear", "distance"):
        women = np.repeat(np.arange(12), 4)
        label = np.tile([1, 0, 0, 1], 12) * (women % 2)
        parts.append(
            pd.DataFrame(
                {
                    "task": "patches", "score": score, "split": "test", "draw": 0, "label": label,
                    "woman_id": [f"w{fold}_{woman}" for woman in women],
                    "sample_id": [f"w{fold}_{woman}_{i}" for i, woman in enumerate(women)],
                    "value": label * shift + generator.normal(size=len(women)), "note": "", "category": "",
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def auc(loaded: results.Results, trial_id: str, score: str) -> float:
    rows = loaded.predictions(trial_id).query("score == @score")
    lesions, normals = (rows.value[rows.label == label] for label in (1, 0))
    return float(stats.mannwhitneyu(lesions, normals).statistic / len(lesions) / len(normals))


def test_two_data_sets_are_averaged_over_all_runs_of_all_their_metrics(tmp_path: Path) -> None:
    found = average_over([write(tmp_path / "a", 0), write(tmp_path / "b", 1)])
    assert found.experiments == ["a", "b"]
    assert found.means.variant.tolist() == ["soft", "hard", "none", "untrained"]
    assert found.controls == ["untrained"]
    assert found.means.tasks.tolist() == [4] * 4
    runs = [
        2 * auc(results.load(tmp_path / name), f"soft-{seed}-0", score) - 1
        for name in ("a", "b")
        for seed in range(3)
        for score in ("linear", "distance")
    ]
    value = found.means.set_index("variant").value["soft"]
    assert value == pytest.approx(stats.trim_mean(runs, 0.25))
    assert found.tasks.women.tolist() == [12] * 4
    assert found.ranking is None
    assert "ranks need 5 data sets, not 2" in found.unranked


def test_folders_of_one_name_are_told_apart_by_those_above(tmp_path: Path) -> None:
    folders = [write(tmp_path / f"r{data}" / "same", data) for data in (0, 1)]
    assert average_over(folders).experiments == ["r0/same", "r1/same"]


def test_five_data_sets_are_ranked_without_the_controls(tmp_path: Path) -> None:
    found = average_over([write(tmp_path / f"e{data}", data, seeds=(0,)) for data in range(5)])
    assert found.ranking is not None
    assert found.ranking.blocks == 5
    assert set(found.ranking.average_ranks.index) == set(VARIANTS)
    values = {
        (place, name): auc(results.load(tmp_path / f"e{place}"), f"{name}-0-0", "linear")
        for place in range(5)
        for name in VARIANTS
    }
    table = pd.Series(values).unstack()
    ranks = table.rank(axis=1, ascending=False).mean()
    assert found.ranking.average_ranks.to_dict() == pytest.approx(ranks.to_dict())


def test_one_data_set_in_two_experiments_is_refused(tmp_path: Path) -> None:
    folders = [write(tmp_path / "a", 3), write(tmp_path / "b", 3, folds=(1,))]
    with pytest.raises(UserError, match=r"a and b are both of the prepared exams store3, .* count twice"):
        average_over(folders)
    # Prepared in another way they are the same women still.
    record = json.loads((folders[1] / "experiment.json").read_text())
    record["data"]["store_fingerprint"] = "other"
    (folders[1] / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="both of the data set 'phantom'"):
        average_over(folders)


def test_experiments_without_common_variants_are_refused(tmp_path: Path) -> None:
    folders = [write(tmp_path / "a", 0, controls=()), write(tmp_path / "b", 1, variants=("one", "two"), controls=())]
    with pytest.raises(UserError, match=r"no variants .*a has soft, hard, none; b has one, two"):
        average_over(folders)


def test_only_seeds_that_all_finished_on_all_folds_count(tmp_path: Path) -> None:
    found = average_over([write(tmp_path / "a", folds=(0, 1), lost=[("hard", 1, 0)])])
    assert found.tasks.seeds.tolist() == [2, 2]
    assert found.tasks.folds.tolist() == [2, 2]
    assert any("a: seed 1 is left out" in note for note in found.notes)
    lost = [("hard", seed, seed % 2) for seed in range(3)]
    with pytest.raises(UserError, match="has no seed that all of soft, hard, none, untrained finished on all folds"):
        average_over([write(tmp_path / "b", folds=(0, 1), lost=lost)])


def test_variants_that_only_some_experiments_have_are_left_out_and_named(tmp_path: Path) -> None:
    found = average_over([write(tmp_path / "a", 0), write(tmp_path / "b", 1, variants=("hard", "none", "more"))])
    assert found.means.variant.tolist() == ["hard", "none", "untrained"]
    assert any("left out: soft, more" in note for note in found.notes)
    assert any("the reference of a is not in common; hard takes its place" in note for note in found.notes)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["patches_liner_auc"], "has no score 'liner' .* did you mean 'linear'"),
        (["nothing"], "metric 'nothing' is unknown"),
        (["patches_linear_ap"], "average auc, macro_auc, kappa"),
        (["validation_patches_linear_auc"], "say patches_linear_auc"),
    ],
)
def test_metrics_that_cannot_be_averaged_are_refused(tmp_path: Path, metrics: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        average_over([write(tmp_path / "a", seeds=(0,))], metrics)


def test_unequal_numbers_of_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run 'b' again with seeds=3"):
        average_over([write(tmp_path / "a", 0), write(tmp_path / "b", 1, seeds=(0, 1))])


def test_metrics_without_a_level_of_chance_or_that_a_trial_lacks_are_not_averaged_unasked(tmp_path: Path) -> None:
    metrics = ["patches_linear_auc", "patches_linear_ap", "patches_abnormality_auc", "validation_patches_linear_auc"]
    found = average_over([write(tmp_path / "a", metrics=metrics)])
    assert found.tasks.metric.tolist() == ["patches_linear_auc"]
    assert any("patches_abnormality_auc is left out" in note for note in found.notes)


def test_the_command_prints_and_writes_a_page_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write(tmp_path / f"e{data}", data, seeds=(0,), confidence=0.9) for data in range(5)]
    named = f"results=[{','.join(map(str, folders))}]"
    siamray_sweep(["across", named, f"out={tmp_path / 'across.html'}"])
    printed = capsys.readouterr().out
    for words in (
        "over 10 tasks of e0, e1, e2, e3, e4",
        "90 % intervals",
        "mean ranks by patches_linear_auc",
        "Friedman p",
    ):
        assert words in printed, words
    page = Page(tmp_path / "across.html")
    figures = {attributes["id"]: json.loads(script) for attributes, script in page.scripts if attributes.get("id")}
    assert {"means", "profiles", "ranks"} < set(figures)
    # A band and a line of each, and the critical difference beside the points and the groups.
    assert len(figures["profiles"]["data"]) == 8
    assert "over 10 tasks" in page.text
    siamray_sweep(["across", named, f"out={tmp_path / 'across.csv'}", "metrics=[patches_distance_auc]"])
    written = capsys.readouterr().out.split()[-3:]
    assert written == [str(tmp_path / f"across{end}.csv") for end in ("", "_profiles", "_ranks")]
    assert pd.read_csv(written[0]).tasks.tolist() == [5] * 4
    with pytest.raises(UserError, match=r"name a file that ends in \.html, \.csv or \.parquet"):
        siamray_sweep(["across", named, "out=across.txt"])


def test_experiments_at_a_url_are_averaged_as_those_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIAMRAY_CACHE", str(tmp_path / "cache"))
    folders = [write(tmp_path / name, data) for data, name in enumerate("ab")]
    MemoryFileSystem().put(str(folders[1]), "/averaged/b", recursive=True)
    siamray_sweep(["across", f"results=[{folders[0]},{folders[1]}]"])
    here = capsys.readouterr().out
    siamray_sweep(["across", f"results=[{folders[0]},memory://averaged/b]"])
    assert capsys.readouterr().out == here
    MemoryFileSystem.store.clear()


def test_few_data_sets_get_the_reason_in_place_of_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "across.html"
    siamray_sweep(["across", f"results={write(tmp_path / 'a')}", f"out={out}"])
    assert "no ranks: ranks need 5 data sets, not 1" in capsys.readouterr().out
    assert "None are given: ranks need 5 data sets, not 1" in Page(out).text
