"""A plausible search of the results contract without any training: options in, an experiment folder out."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamray.sweeps import results

METRIC = "validation_patches_linear_auc"
OBJECTIVES = {METRIC: "maximize", "cpu_s": "minimize"}
LOSSES = ("logistic", "hinge")
OPTIONS = ["pretraining.learning_rate", "pretraining.margin", "pretraining.loss", "pretraining.mixture.components"]


def write(folder: Path, trials: int = 24, *, ended: bool = True, further_metrics: int = 0) -> Path:
    """Writes a search whose trials are pruned, failed or finished.

    Args:
        folder: the experiment's folder.
        trials: number of searched trials.
        ended: write what a search writes at its end: selection, importance, and the winner on fresh seeds.
        further_metrics: metrics of every trial beside the objective, with their intervals.
    """
    record = {
        "name": folder.name, "kind": "search", "question": "Which loss and rate suit the validation women best?",
        "metric": METRIC, "objectives": OBJECTIVES, "variants": {"searched": OPTIONS}, "seeds": [0], "folds": [0],
        "planned": trials, "created": "2026-01-03T03:04:05+00:00", "command": "python -m siamray.sweep search=method",
        "data": {"source": "phantom", "women": {"training": 48, "validation": 24, "test": 24}},
    }  # fmt: skip
    results.write_experiment(folder, record)
    rng = np.random.default_rng(11)
    rows = [_trial(folder, number, rng, further_metrics, looks=trials <= 100) for number in range(trials)]
    if ended:
        selection = pd.DataFrame(rows)
        values = selection[METRIC].where(selection["state"] == "complete")
        selection["front"] = values.rank(ascending=False) <= 3
        selection["winner"] = values.rank(ascending=False, method="first") == 1
        results.write_parquet(folder / results.SELECTION_FILE, selection)
        results.write_parquet(folder / results.IMPORTANCE_FILE, _importance(trials))
        results.write_parquet(folder / results.COMPARISON_FILE, _confirmed())
        variants = {**record["variants"], "base": [], "winner": ["pretraining.margin=0.9"]}
        results.write_experiment(folder, record | {"reference": "base", "variants": variants})
    results.collect(folder)
    return folder


def _trial(folder: Path, number: int, rng: np.random.Generator, further: int, *, looks: bool) -> dict[str, Any]:
    rate, margin = float(10 ** rng.uniform(-4, -2)), float(rng.uniform(0.4, 1.6))
    loss, components = LOSSES[int(rng.integers(2))], int(rng.integers(2, 6))
    drawn = {"learning_rate": rate, "loss": loss, "mixture": {"components": components}}
    if loss == "hinge":
        drawn["margin"] = margin
    value = 0.8 - 0.04 * abs(math.log10(rate) + 3) - 0.05 * (loss == "hinge") + float(rng.normal(0, 0.01))
    state = "pruned" if number % 5 == 4 else ("failed" if number % 11 == 10 else "finished")
    name = f"searched-seed0-fold0-{number:08x}"
    metrics: dict[str, Any] = {METRIC: {"value": value, "low": value - 0.06, "high": value + 0.05}}
    for i in range(further):
        metrics[f"patches_score{i}_auc"] = {"value": value - 0.01 * i, "low": value - 0.1, "high": value + 0.1}
    trial = {
        "trial_id": name, "variant": "searched", "seed": 0, "state": state, "config": {"pretraining": drawn},
        "reason": {"pruned": "stopped after epoch 2", "failed": "loss is not finite", "finished": ""}[state],
        "metrics": metrics if state == "finished" else {},
        "cost": {"wall_s": 40.0 + number % 7, "cpu_s": 90.0 - number % 9},
        "started": f"2026-01-03T03:{number // 60 % 60:02d}:{number % 60:02d}+00:00",
    }  # fmt: skip
    place = folder / results.TRIALS_FOLDER / name
    if looks:
        results.write_trial(place, trial)
        seen = range(1, 4 if state == "pruned" else 7)
        frame = pd.DataFrame({"epoch": seen, "metric": METRIC, "value": [value - 0.1 / epoch for epoch in seen]})
        results.write_parquet(place / results.VALIDATION_FILE, frame)
    else:
        # Thousands of trials: their files alone, without what makes writing safe and slow.
        place.mkdir(parents=True)
        whole = {"schema": results.SCHEMA, "fold": 0, "notes": [], **trial}
        (place / results.TRIAL_FILE).write_text(json.dumps(whole))
    words = [f"pretraining.learning_rate={rate!r}", f"pretraining.loss={loss}"]
    words += [f"pretraining.margin={margin!r}"] if loss == "hinge" else []
    words.append(f"pretraining.mixture.components={components}")
    whole = state == "finished"
    return {
        "number": number, "trial_id": name, "state": "complete" if whole else state, "settings": " ".join(words),
        "front": False, "winner": False, "epoch": 6, "source": "", "reason": "", METRIC: value if whole else math.nan,
        "cpu_s": 90.0 - number % 9 if whole else math.nan,
    }  # fmt: skip


def _importance(trials: int) -> pd.DataFrame:
    rows = [
        {"objective": METRIC, "method": "fANOVA", "option": option, "importance": 0.5 / (i + 1), "low": 0.3 / (i + 1),
         "high": 0.7 / (i + 1), "trials": trials, "note": ""}
        for i, option in enumerate(OPTIONS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _confirmed() -> pd.DataFrame:
    shared = {
        "role": "variant", "reference": "base", "metric": "patches_linear_auc", "seeds": 3, "folds": 1, "women": 24,
        "lesions": 24, "normals": 120, "note": "3 seeds: the interval may be too narrow", "cost_wall_s": 42.0,
    }  # fmt: skip
    base = {"variant": "base", "value": 0.78, "value_low": 0.71, "value_high": 0.84, "effect": math.nan,
            "verdict": "base is the reference: .780"}  # fmt: skip
    winner = {"variant": "winner", "value": 0.8, "value_low": 0.73, "value_high": 0.86, "effect": 0.02,
              "effect_low": -0.01, "effect_high": 0.05, "p": 0.2, "p_holm": 0.2,
              "verdict": "no evidence that winner differs from base: effect +.020"}  # fmt: skip
    frame = pd.DataFrame([base | shared, winner | shared])
    return frame.reindex(columns=list(results.COMPARISON_COLUMNS)).astype(results.COMPARISON_COLUMNS)
