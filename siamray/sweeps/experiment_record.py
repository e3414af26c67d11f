"""A configuration and its prepared exams go in; what experiment.json keeps of them comes out."""

import dataclasses
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from siamray.config import Config
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.files import write_parquet
from siamray.provenance import environment, git_state, versions
from siamray.sweeps import results
from siamray.sweeps.ablation import blocks, shared_words
from siamray.sweeps.search import VARIANT
from siamray.sweeps.study import objectives


def experiment_record(config: Config, words: list[str], store: Store) -> dict[str, Any]:
    """What experiment.json keeps of an ablation from its start on; its design and trials are added later."""
    ablation = config.ablation
    assert ablation is not None
    seeds, folds = blocks(config)
    return {
        **_common_record(config, words, store),
        "name": ablation.name,
        "kind": "ablation",
        "question": ablation.question,
        "reference": ablation.reference,
        "metric": ablation.metric,
        "variants": ablation.variants,
        "controls": ablation.controls,
        "seeds": sorted(seeds),
        "folds": sorted(folds),
    }


def search_record(config: Config, words: list[str], store: Store) -> dict[str, Any]:
    """What experiment.json keeps of a search from its start on; its trials are added later."""
    search = config.search
    assert search is not None
    sought = objectives(search)
    return {
        **_common_record(config, words, store),
        "name": search.name,
        "kind": "search",
        "question": search.question,
        "metric": next(iter(sought)),
        "objectives": sought,
        "variants": {VARIANT: list(search.parameters)},
        "search": dataclasses.asdict(search),
        "planned": search.trials,
        "seeds": [config.seed],
        "folds": [config.data.fold],
    }


def _common_record(config: Config, words: list[str], store: Store) -> dict[str, Any]:
    counts = store.split(config.data).value_counts()
    return {
        "base_overrides": shared_words(config, words),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m siamray.sweep {shlex.join(words)}",
        "data": {
            "source": config.data.source,
            "store_fingerprint": store.fingerprint,
            "women": {name: int(counts.get(name, 0)) for name in ("training", "validation", "test")},
        },
        "versions": versions(),
        "git": git_state(),
        "environment": environment(),
    }


def check_kind(experiment: Path, kind: str, question: str) -> None:
    """Refuses an experiment folder in which another kind of question was asked.

    Raises:
        UserError: naming the folder.
    """
    if not (experiment / results.EXPERIMENT_FILE).exists():
        return
    stored = results.read_experiment(experiment)
    if stored["kind"] != kind or stored["question"] != question:
        raise UserError(f"{experiment} holds another question ('{stored['question']}'); name another results=DIR")


def write_images(experiment: Path, store: Store) -> None:
    """Keeps what became of every image with the results: whoever reviews them need not have the prepared exams."""
    write_parquet(experiment / results.IMAGES_FILE, store.manifest.reindex(columns=results.IMAGE_COLUMNS))
