"""The command ``python -m siamray.evaluate``: an encoder on the downstream tasks, beside the controls."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from siamray.compose import compose, to_dict
from siamray.config import Config
from siamray.data.pairs import patch_side
from siamray.data.preparation import prepare
from siamray.downstream import detection, patches
from siamray.downstream.controls import UNLEARNT
from siamray.downstream.evaluation import check_patches, check_tasks, evaluate
from siamray.downstream.metrics import TASKS, parse_metric
from siamray.errors import UserError, run_command
from siamray.files import write_json, write_parquet
from siamray.pretraining import encoder
from siamray.provenance import environment, git_state, versions
from siamray.seeds import named_seed


def main(words: list[str]) -> None:
    """Evaluates the encoder of encoder=DIR and the untrained one of the same backbone on the same women.

    Args:
        words: the command line.

    Raises:
        UserError: whatever the user can mend.
    """
    config = compose("evaluate", words)
    if config.encoder.folder is None:
        raise UserError("encoder=DIR: name the folder of the encoder to evaluate, such as runs/pretrain/encoder")
    tested = encoder.load(config.encoder.folder)
    check_patches(config, tested)
    store = prepare(config)
    check_tasks(store, config)
    found = {
        "encoder": evaluate(tested, store, config, Path(config.out) / "examples"),
        "untrained": evaluate(_untrained(config, tested), store, config),
    }
    folder = Path(config.out)
    predictions = [result.predictions.assign(encoder=name) for name, result in found.items()]
    write_parquet(folder / "predictions.parquet", pd.concat(predictions, ignore_index=True))
    write_json(
        folder / "evaluation.json",
        {
            "metrics": {name: result.metrics for name, result in found.items()},
            "notes": {name: result.notes for name, result in found.items()},
            "config": to_dict(config),
            "data_fingerprint": store.fingerprint,
            "git": git_state(),
            "versions": versions(),
            "environment": environment(),
        },
    )
    metrics = {name: result.metrics for name, result in found.items()}
    for task in config.downstream.tasks:
        if task == patches.TASK:
            Console().print(_table(metrics, config))
        else:
            Console().print((_detection_table if task == detection.NAME else _class_table)(task, metrics, config))
    if patches.TASK in config.downstream.tasks:
        for reason, findings in patches.left_out_findings(store, config).items():
            print(f"{findings} findings gave no lesion patch: {reason}")
    for note in sorted({note for result in found.values() for note in result.notes if _matters(note)}):
        print(note)
    print(f"predictions and metrics: {folder}")


def _untrained(config: Config, tested: encoder.PairEncoder) -> encoder.PairEncoder:
    """The control: the same backbone as initialised."""
    backbone = str(tested.metadata.get("backbone", config.encoder.backbone))
    chosen = replace(config.encoder, backbone=backbone, weights="random", folder=None)
    return encoder.build(chosen, named_seed(config.seed, "network", "A"), patch_side(config))


def _table(metrics: dict[str, dict[str, Any]], config: Config) -> Table:
    counts = metrics["encoder"]
    confidence = round(100 * config.downstream.intervals.confidence)
    table = Table(
        "score", "encoder", "AUC", f"{confidence} % interval", "average precision", f"{confidence} % interval",
        title=f"abnormal-vs-normal patch: {counts['patches_lesions']:.0f} lesion and "
        f"{counts['patches_normals']:.0f} normal patches of {counts['patches_women']:.0f} test women",
        caption=f"bootstrap over women, {config.downstream.intervals.replicates} replicates; prevalence "
        f"{counts['patches_prevalence']:.2f}",
    )  # fmt: skip
    scores = [
        name[len("patches_") : -len("_auc")] for name in counts if name.startswith("patches_") and name.endswith("_auc")
    ]
    for score in scores:
        for name, found in metrics.items():
            if f"patches_{score}_auc" not in found or (score in UNLEARNT and name == "untrained"):
                continue
            auc, precision = found[f"patches_{score}_auc"], found[f"patches_{score}_ap"]
            table.add_row(
                score, "none" if score in UNLEARNT else name,
                f"{auc['value']:.3f}", f"{auc['low']:.3f} to {auc['high']:.3f}",
                f"{precision['value']:.3f}", f"{precision['low']:.3f} to {precision['high']:.3f}",
            )  # fmt: skip
    return table


def _class_table(task: str, metrics: dict[str, dict[str, Any]], config: Config) -> Table:
    """The statistics of a task on breasts, exams or women, a row per score and encoder."""
    counts = metrics["encoder"]
    confidence = round(100 * config.downstream.intervals.confidence)
    units = [name for name in ("breasts", "exams") if f"{task}_{name}" in counts]
    held = ", ".join(f"{counts[f'{task}_{name}']:.0f} {name}" for name in units)
    table = Table(
        "score", "encoder", *(kind.replace("_", " ") for kind in TASKS[task]),
        title=f"{task}: {held}{' of ' * bool(held)}{counts[f'{task}_women']:.0f} test women",
        caption=f"[..]: {confidence} % intervals, bootstrap over women, {config.downstream.intervals.replicates} "
        "replicates",
    )  # fmt: skip
    named = [
        parse_metric(name) for name, value in counts.items() if name.startswith(f"{task}_") and isinstance(value, dict)
    ]
    for score in dict.fromkeys(name.score for name in named):
        for encoder_name, found in metrics.items():
            table.add_row(score, encoder_name, *(_cell(found[f"{task}_{score}_{kind}"]) for kind in TASKS[task]))
    return table


def _cell(value: dict[str, float]) -> str:
    """A value with its interval; brackets are rich's markup where a word follows them."""
    return escape(f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")


def _matters(note: str) -> bool:
    """Whether a note tells of something missing, and not only of what validation women chose."""
    return any(word in note for word in ("left out", "not ", ": no ", "; no ", "instead of"))


def _detection_table(task: str, metrics: dict[str, dict[str, Any]], config: Config) -> Table:
    """The metrics of lesion detection, a row per metric and encoder."""
    counts = metrics["encoder"]
    confidence = round(100 * config.downstream.intervals.confidence)
    table = Table(
        "detection", "encoder", "value", f"{confidence} % interval",
        title=f"{counts['detection_lesions']:.0f} lesions; {counts['detection_images']:.0f} images of "
        f"{counts['detection_women']:.0f} test women count for false positives",
        caption="froc_R: share of lesions found at R false positives per image; bootstrap over women",
    )  # fmt: skip
    for metric, found in counts.items():
        if metric.startswith(f"{task}_") and isinstance(found, dict):
            for name, of_encoder in metrics.items():
                # Only an encoder with a head has an abnormality.
                if metric not in of_encoder:
                    continue
                value = of_encoder[metric]
                interval = f"{value['low']:.3f} to {value['high']:.3f}"
                table.add_row(metric.removeprefix(f"{task}_"), name, f"{value['value']:.3f}", interval)
    return table


if __name__ == "__main__":
    run_command(main)
