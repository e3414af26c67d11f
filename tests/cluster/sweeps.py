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


def command(shared: Path, name: str, *more: str) -> str:
    """The command line of a sweep whose results lie in a folder of a given name."""
    (shared / "experiments" / "ablation").mkdir(parents=True, exist_ok=True)
    (shared / "experiments" / "ablation" / "survivors.yaml").write_text(ABLATION)
    (shared / "experiments" / "ablation" / "alone.yaml").write_text(ALONE)
    words = [
        f"experiments={shared}/experiments", "ablation=survivors", "cluster=onpremise", *TINY_DATA, *TINY_TRAINING,
        # Pairs are dealt to workers in blocks of 64.
        "pretraining.pairs_per_epoch=256",
        # A cache of 64 images is enough, and hosts of one machine share its memory.
        "pairs.cache_mb=64", "seeds=1", "downstream.examples=0", "progress=lines",
        f"store={shared}/store", f"results={shared}/{name}", *more,
    ]  # fmt: skip
    return " ".join(["python -m siamray.sweep", *words])
