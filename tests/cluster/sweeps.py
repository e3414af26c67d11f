"""A tiny sweep on a cluster: its command, and what it found."""

from pathlib import Path

from tests.conftest import TINY_DATA, TINY_TRAINING

ABLATION = """# does a sweep run on a cluster?
# python -m siamray.sweep ablation=survivors
name: survivors
question: Does a sweep run on a cluster?
reference: soft
metric: patches_linear_auc
base: [pretraining=siamese]
variants:
  soft: [pretraining.labels=mixture]
  hard: [pretraining.labels=hard]
"""


# A single trial.
ALONE = """# does one trial run on a cluster?
# python -m siamray.sweep ablation=alone
name: alone
question: Does one trial run on a cluster?
reference: soft
metric: patches_linear_auc
base: [pretraining=siamese]
variants:
  soft: []
"""


# Of two trials at a time, the worse one ends after its first epoch.
SEARCH = """# does a search run on a cluster?
# python -m siamray.sweep search=rates
name: rates
question: Does a search run on a cluster?
pruner: asha
reduction: 2
trials: 4
confirm: 0
parameters:
  pretraining.learning_rate: {kind: float, low: 0.00001, high: 0.1, log: true}
"""


def command(shared: Path, name: str, *more: str, asked: str = "ablation=survivors") -> str:
    """The command line of a sweep whose results lie in a folder of a given name."""
    for kind in ("ablation", "search"):
        (shared / "experiments" / kind).mkdir(parents=True, exist_ok=True)
    (shared / "experiments" / "search" / "rates.yaml").write_text(SEARCH)
    (shared / "experiments" / "ablation" / "survivors.yaml").write_text(ABLATION)
    (shared / "experiments" / "ablation" / "alone.yaml").write_text(ALONE)
    words = [
        f"experiments={shared}/experiments", asked, "cluster=onpremise", *TINY_DATA, *TINY_TRAINING,
        # Pairs are dealt to workers in blocks of 64.
        "pretraining.pairs_per_epoch=256",
        # A cache of 64 images is enough, and hosts of one machine share its memory.
        "pairs.cache_mb=64", "seeds=1", "downstream.examples=0", "progress=lines",
        f"store={shared}/store", f"results={shared}/{name}", *more,
    ]  # fmt: skip
    return " ".join(["python -m siamray.sweep", *words])
