"""A plausible experiment of the results contract without any training: options in, an experiment folder out."""

import math
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from siamray.sweeps import results

VARIANTS: dict[str, list[str]] = {
    "soft": ["pretraining.labels=mixture"],
    "hard": ["pretraining.labels=hard"],
    "rank": ["pretraining.labels=rank"],
    "none": ["pretraining.labels=none"],
    "shuffled_partners": ["pretraining.partners=shuffled"],
}
CONTROLS: dict[str, list[str]] = {"untrained": ["pretraining.epochs=0"], "brightness": ["pretraining.epochs=0"]}
TRUTH = dict(zip([*VARIANTS, *CONTROLS], (0.82, 0.80, 0.79, 0.80, 0.74, 0.76, 0.63), strict=True))
SCORES = ("linear", "knn20", "knn200", "distance", "brightness")
WOMEN = {"training": 48, "validation": 24, "test": 24}


def write(
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 8,
    variants: Mapping[str, list[str]] = VARIANTS,
    controls: Mapping[str, list[str]] = CONTROLS,
    compared: bool = True,
    examples: bool = True,
    failed: Sequence[tuple[str, int, str]] = (),
    **experiment: Any,
) -> Path:
    """Writes an experiment.

    Args:
        folder: the experiment's folder.
        seeds: the seeds of every variant.
        epochs: the epochs of every trial.
        variants: name -> overrides; the first is the reference.
        controls: name -> overrides.
        compared: write comparison.parquet.
        examples: write example exams.
        failed: (variant, seed, reason) of the trials that failed.
        experiment: other keys of experiment.json.
    """
    reference = next(iter(variants))
    record = {
        "name": folder.name, "kind": "ablation",
        "question": "Do soft labels from a mixture beat hard, ranked and no labels?",
        "reference": reference, "metric": "patches_linear_auc", "variants": dict(variants), "controls": dict(controls),
        "seeds": list(seeds), "folds": [0], "base_overrides": ["data=phantom", f"pretraining.epochs={epochs}"],
        "created": "2026-01-02T03:04:05+00:00", "command": "python -m siamray.sweep ablation=soft_labels",
        "data": {"source": "phantom", "store_fingerprint": "a1b2c3d4e5f6", "women": WOMEN},
        "versions": {"siamray": "0.1.0", "torch": "2.9.0", "ray": "2.52.0"},
        "git": {"commit": "0123456789abcdef", "dirty": True},
    }  # fmt: skip
    results.write_experiment(folder, record | experiment)
    reasons = {(variant, seed): reason for variant, seed, reason in failed}
    for rank, name in enumerate([*variants, *controls]):
        for seed in seeds:
            rng = np.random.default_rng([rank, seed])
            trained = name not in controls
            _trial(folder, name, seed, rng, epochs if trained else 0, reasons.get((name, seed), ""), examples)
    trials = results.collect(folder)
    results.write_parquet(folder / results.IMAGES_FILE, images())
    if compared:
        results.write_parquet(folder / results.COMPARISON_FILE, _comparison(trials, reference, len(seeds)))
    return folder


def _trial(
    folder: Path, name: str, seed: int, rng: np.random.Generator, epochs: int, reason: str, examples: bool
) -> None:
    path = folder / results.TRIALS_FOLDER / f"{_slug(name)}-s{seed}"
    wall = float(rng.normal(42 if epochs else 6, 2))
    record = {
        "trial_id": path.name, "variant": name, "seed": seed, "fold": 0, "state": "failed" if reason else "finished",
        "reason": reason, "metrics": {} if reason else _metrics(name, rng),
        "config": {"downstream": {"intervals": {"confidence": 0.95, "replicates": 2000}}, "seed": seed},
        "cost": {"wall_s": wall, "cpu_s": 1.8 * wall, "gpu_s": 0.0, "pretrain_s": 0.8 * wall, "evaluate_s": 0.2 * wall},
        "data_fingerprint": "a1b2c3d4e5f6",
        "started": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:05:05+00:00",
    }  # fmt: skip
    if examples and not reason and seed == 0:
        _examples(path / "examples", rng, epochs)
    predictions = None if reason else _predictions(name, rng)
    if examples and predictions is not None and seed == 0:
        _features(path / "examples", predictions, rng)
    if epochs and not reason:
        epoch, distance = _epochs(epochs, rng), _distances(epochs, rng)
        results.write_trial(path, record, epochs=epoch, distances=distance, predictions=predictions)
    else:
        results.write_trial(path, record, predictions=predictions)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "_" else "-" for letter in name)


def _metrics(name: str, rng: np.random.Generator) -> dict[str, Any]:
    metrics: dict[str, Any] = {"patches_prevalence": 0.077}
    for prefix in ("", "validation_"):
        for score in SCORES:
            drop = 0.0 if score == "linear" else 0.05
            auc = float(np.clip(TRUTH.get(name, 0.78) - drop + rng.normal(0, 0.012), 0.3, 0.98))
            metrics[f"{prefix}patches_{score}_auc"] = {"value": auc, "low": auc - 0.05, "high": auc + 0.04}
            metrics[f"{prefix}patches_{score}_ap"] = {"value": auc - 0.4, "low": auc - 0.48, "high": auc - 0.31}
    metrics["patches_distance_ap"] = {"value": math.nan, "low": None, "high": None}
    return metrics


def _predictions(name: str, rng: np.random.Generator) -> pd.DataFrame:
    """Scores of patches of test women: six of each, two of them lesions in half of the women."""
    rows = []
    for score in ("linear", "distance", "brightness"):
        for woman in range(WOMEN["test"]):
            for place in range(6):
                label = int(woman % 2 == 0 and place < 2)
                shift = 1.2 * label * (TRUTH.get(name, 0.78) if score != "brightness" else 0.3)
                value = 0.55 + 0.45 * shift + rng.normal(0, 0.2)
                rows.append(
                    {
                        "task": "patches", "score": score, "split": "test", "woman_id": f"w{woman:03d}",
                        "sample_id": f"w{woman:03d}_{place}", "entry_id": f"w{woman:03d}_MLO", "side": "left",
                        "label": label, "value": max(0.01, value), "density": "ABCD"[woman % 4], "draw": 0, "note": "",
                        "category": ("mass", "calcification")[woman // 2 % 2] if label else "normal",
                        "view": ("MLO", "CC")[place % 2],
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _features(folder: Path, predictions: pd.DataFrame, rng: np.random.Generator) -> None:
    first = predictions[predictions["score"] == "linear"]
    columns = ["sample_id", "woman_id", "entry_id", "side", "label", "category", "split", "density", "view"]
    x = first["label"] + rng.normal(0, 0.5, len(first))
    y = rng.normal(0, 1, len(x))
    further = np.random.default_rng(7).normal(0, 0.3, (len(x), 28))
    components = np.column_stack([x, y, further]).astype(np.float32)
    vendors = first["woman_id"].map(lambda name: ("hologic", "ge", None)[int(name[1:]) % 3])
    sites = first["woman_id"].map(lambda name: ("north", "south", "2", None)[int(name[1:]) % 4])
    found = first[columns].assign(source="phantom", vendor=vendors, site=sites, x=x, y=y, x_share=0.42, y_share=0.17)
    results.write_parquet(folder / "features.parquet", found.assign(components=list(components)))


def images() -> pd.DataFrame:
    """What became of every image: two views of both sides of 30 women, some left out."""
    rng = np.random.default_rng(5)
    rows = []
    for woman in range(30):
        for view in ("CC", "MLO"):
            quality = float(np.clip(rng.normal(0.85, 0.08), 0, 1))
            out = "registration quality 0.52 is below 0.6" if woman == 3 else ""
            for side in ("left", "right"):
                rows.append(
                    {
                        "image_id": f"w{woman:03d}_{view}_{side}", "woman_id": f"w{woman:03d}",
                        "exam_id": f"e{woman:03d}",
                        "laterality": side, "view": view, "used": not out, "reason": out, "note": "",
                        "density": "ABCD"[woman % 4], "vendor": ("Hologic", "GE")[woman % 2],
                        "site": ("north", "south", None)[woman % 3],
                        "registration_quality": 0.52 if out else quality, "registration_dice": 0.9,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=results.IMAGE_COLUMNS)


def _epochs(epochs: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for epoch in range(epochs):
        for network in "AB":
            done = (epoch + 1) / epochs
            median = 0.9 - 0.3 * done + rng.normal(0, 0.01)
            rows.append(
                {
                    "epoch": epoch, "network": network, "loss": 0.5 - 0.25 * done + rng.normal(0, 0.01),
                    "contrastive": 0.3 - 0.15 * done + rng.normal(0, 0.008), "cross": 0.02 * done,
                    "anti_collapse": 0.2 - 0.1 * done + rng.normal(0, 0.008),
                    "label_mean": 0.0 if epoch < 2 else 0.4 - 0.2 * done,
                    "usable": epoch >= 2, "separation": 0.6 + 1.2 * done, "bic_gain": 300 * done,
                    **{f"d_q{q:02d}": median * (0.4 + 1.2 * q / 100) for q in (1, 5, 25, 50, 75, 95, 99)},
                    "embedding_deviation": 0.1, "effective_rank": 8 + 14 * done + rng.normal(0, 0.5),
                    "agreement": 0.2 + 0.5 * done, "learning_rate": 2e-3 * (1 - done), "seconds": 4.2,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _distances(epochs: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for epoch in range(epochs):
        for network in "AB":
            means = [0.8 - 0.3 * epoch / epochs, 1.1]
            drawn = np.concatenate([rng.normal(means[0], 0.16, 2600), rng.normal(means[1], 0.16, 400)])
            counts, edges = np.histogram(np.clip(drawn, 0, 2), bins=64, range=(0, 2))
            usable = epoch >= 2
            rows.append(
                {
                    "epoch": epoch, "network": network, "edges": edges, "counts": counts, "usable": usable,
                    "weights": [0.87, 0.13] if usable else [], "means": means if usable else [],
                    "deviations": [0.16, 0.16] if usable else [],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _examples(folder: Path, rng: np.random.Generator, epochs: int) -> None:
    maps, boxes = [], []
    for entry in ("w007_MLO", "w021_CC"):
        height, width = 420, 300
        lesion = (230, 120)
        for side in ("left", "right"):
            picture = Image.new("L", (width, height))
            pen = ImageDraw.Draw(picture)
            pen.pieslice((-width * 0.9, 20, width * 0.9, height - 20), -90, 90, fill=90)
            for _ in range(60):
                x, y, r = rng.integers(0, 200), rng.integers(90, 330), rng.integers(4, 22)
                pen.ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(95, 150)))
            if side == "left":
                pen.ellipse((lesion[1] - 16, lesion[0] - 16, lesion[1] + 16, lesion[0] + 16), fill=230)
            buffer = BytesIO()
            picture.filter(ImageFilter.GaussianBlur(4)).save(buffer, "PNG")
            results.write_bytes(folder / f"{entry}_{side}.png", buffer.getvalue())
        for row in range(80, 360, 32):
            for col in range(32, 230, 32):
                near = math.exp(-((row - lesion[0]) ** 2 + (col - lesion[1]) ** 2) / 3000)
                distance = 0.5 + 0.6 * near + rng.normal(0, 0.06)
                if col < 255 * math.sqrt(max(0.0, 1 - ((row - 210) / 190) ** 2)):
                    place = {"entry_id": entry, "woman_id": entry[:4], "row": float(row), "col": float(col)}
                    maps.append(place | {"size": 64, "distance": distance})
        low, high = (lesion[0] - 20, lesion[1] - 20), (lesion[0] + 20, lesion[1] + 20)
        found = {"entry_id": entry, "side": "left", "category": "mass"}
        boxes.append(found | {"row_min": low[0], "col_min": low[1], "row_max": high[0], "col_max": high[1]})
    last = pd.DataFrame(maps)
    results.write_parquet(folder / "maps.parquet", last)
    for epoch in sorted({0, epochs // 2} - {epochs}):
        # The nearer to the end, the more of the lesion is seen.
        blurred = 0.5 + (last["distance"] - 0.5) * epoch / epochs
        results.write_parquet(folder / f"maps_epoch{epoch}.parquet", last.assign(distance=blurred))
    results.write_parquet(folder / "boxes.parquet", pd.DataFrame(boxes))
    kinds = ["missed", "missed", "false alarm", "found"]
    pairs = {"kind": kinds, "sample_id": [f"p{i}" for i in range(4)], "woman_id": [f"w{i:03d}" for i in range(4)]}
    more = {"entry_id": "w007_MLO", "side": "right", "category": ["mass", "mass", "", "mass"]}
    results.write_parquet(folder / "pairs.parquet", pd.DataFrame({**pairs, **more, "distance": [0.1, 0.2, 1.4, 1.7]}))
    # A pair is as grey as its place: 40, 80, 120, 160, its right half 20 brighter.
    sheet = np.repeat(np.arange(40, 200, 40, dtype=np.uint8), 32)[:, None] + np.repeat([0, 20], 32).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    results.write_bytes(folder / "pairs.png", buffer.getvalue())


def _comparison(trials: pd.DataFrame, reference: str, seeds: int) -> pd.DataFrame:
    finished = trials[trials["state"] == "finished"]
    metrics = [column for column in trials if column.endswith(("_auc", "_ap"))]
    rows = []
    for metric in metrics:
        base = finished.loc[finished["variant"] == reference, metric].mean()
        for i, (name, group) in enumerate(finished.groupby("variant", sort=False)):
            value = group[metric].mean()
            effect = math.nan if name == reference else value - base
            p = math.nan if name == reference else max(0.0004, math.exp(-abs(effect) * 90))
            numbers = f"effect {effect:+.3f}, corrected p {min(1.0, p * 4):.3f}, {WOMEN['test']} women, {seeds} seeds"
            if name == reference:
                verdict = f"{name} is the reference: {value:.3f}, {WOMEN['test']} women, {seeds} seeds"
            elif p * 4 < 0.05:
                verdict = f"{name} is below {reference}: {numbers}"
            else:
                verdict = f"no evidence that {name} differs from {reference}: {numbers}"
            rows.append(
                {
                    "variant": name, "role": group["role"].iloc[0], "reference": reference, "metric": metric,
                    "value": value, "value_low": value - 0.045, "value_high": value + 0.04,
                    "effect": effect, "effect_low": effect - 0.021 - 0.002 * i,
                    "effect_high": effect + 0.022, "p": p, "p_holm": math.nan if name == reference else min(1.0, p * 4),
                    "seeds": seeds, "folds": 1,
                    "women": WOMEN["test"], "lesions": 48, "normals": 576, "verdict": verdict,
                    "note": "" if seeds > 5 else f"{seeds} seeds: the interval may be too narrow",
                    "cost_wall_s": group["wall_s"].mean(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), failed=[("rank", 2, "loss is not finite in epoch 3 (batch 17)")]))
