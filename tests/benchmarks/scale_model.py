"""Nothing goes in; the constants of docs/scale.md, measured here, and what its model makes of them come out.

Run: python -m tests.benchmarks.scale_model. Takes two minutes on one core.
"""

import dataclasses
import math
import os
import tempfile
import time
from pathlib import Path

import torch

from siamray.compose import compose
from siamray.config import Config
from siamray.data.entry import prepare_entry
from siamray.data.preparation import prepare
from siamray.data.preparation_plan import make_plan
from siamray.data.store import Store
from siamray.downstream.evaluation import evaluate
from siamray.pretraining import encoder, trainer
from siamray.pretraining.arithmetic import choose
from siamray.pretraining.checkpoint import CHECKPOINT_FILE
from siamray.pretraining.loop import training_pairs
from siamray.pretraining.threads import threads

WOMEN = 12
# A row of the table: women, encoder, epochs, pairs of an epoch at most, trials, how many at a time, USD/h of all nodes.
CASES = [
    ("two cores, budget=first_look", 96, "resnet10t", 6, 256, 18, 2, 0.0),
    ("64 cores of one's own, budget=hours", 1_000, "resnet10t", 30, 8_192, 18, 64, 0.0),
    ("4 spot nodes of 16 cores, the same", 10_000, "resnet18", 30, 8_192, 45, 64, 4 * 0.3 + 0.08),
]


@dataclasses.dataclass(frozen=True)
class Constants:
    """What the model needs to know, each of one processor.

    Attributes:
        prepare_s: seconds to prepare a pair of images: decode, register, write.
        store_mb: MB of a prepared pair.
        pairs: patch pairs of a pair of images.
        evaluate_s: seconds to evaluate an encoder per pair of images.
        checkpoint_mb: MB of a checkpoint.
    """

    prepare_s: float
    store_mb: float
    pairs: float
    evaluate_s: float
    checkpoint_mb: float


def used() -> float:
    """Seconds of processors that this process and those it has started and seen end have used; others do not count."""
    return sum(os.times()[:4])


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measured(config: Config, folder: Path) -> Constants:
    """Prepares, trains and evaluates generated women."""
    config = dataclasses.replace(config, store=str(folder / "store"))
    # The images themselves are made before the clock starts.
    prepare(dataclasses.replace(config, store=str(folder / "other")), progress=False)
    plan = make_plan(config)
    start = used()
    for job in plan.jobs:
        # In this process, whose seconds are known.
        prepare_entry(job, folder / "timed")
    prepared = (used() - start) / len(plan.jobs)
    store: Store = prepare(config, progress=False)
    run = folder / "run"
    trained = trainer.pretrain(config, store, run)
    start = used()
    with threads(1):
        evaluate(encoder.load(trained), store, config, folder / "examples")
    evaluated = (used() - start) / len(store.entries)
    training = store.split(config.data).eq("training").sum()
    pairs = len(training_pairs(config, store)) / (training * len(store.entries) / WOMEN)
    return Constants(
        prepared, size_mb(folder / "store") / len(store.entries), pairs, evaluated,
        (run / CHECKPOINT_FILE).stat().st_size / 1e6,
    )  # fmt: skip


def images_per_second(config: Config) -> float:
    """Patches that a processor takes forward and backward through an encoder, by its own seconds."""
    side, batch = config.pairs.patch_pixels, config.pretraining.batch_pairs
    model = encoder.build(config.encoder, 0, side)
    # As training does on this machine.
    arithmetic = choose("auto", model, side, batch)
    model, patches = arithmetic.arrange(model), arithmetic.arrange(torch.zeros(batch, 1, side, side))
    fastest = math.inf
    for _ in range(5):
        start = time.process_time()
        with arithmetic.autocast(patches.device):
            _, embedding = model(patches)
        embedding.float().square().mean().backward()
        fastest = min(fastest, time.process_time() - start)
    return batch / fastest


def main() -> None:
    """Measures, and prints the constants and the model's table."""
    torch.set_num_threads(1)
    words = [f"data.phantom.women={WOMEN}", "preparation.cpus=1", "budget=first_look", "pretraining.epochs=1"]
    config = compose("sweep", ["ablation=soft_labels", *words])
    with tempfile.TemporaryDirectory() as folder:
        constants = measured(config, Path(folder))
    print(f"prepare a pair of images          {constants.prepare_s:7.2f} s of a processor")
    print(f"its place in the store            {constants.store_mb:7.2f} MB")
    print(f"patch pairs of it                 {constants.pairs:7.0f}")
    print(f"evaluate an encoder, per pair     {constants.evaluate_s:7.2f} s of a processor")
    print(f"checkpoint, {config.encoder.backbone:<20}  {constants.checkpoint_mb:7.1f} MB")
    rates: dict[tuple[str, int], float] = {}
    for backbone, pixels in (("resnet10t", 64), ("resnet18", 64), ("resnet18", 128)):
        shown = compose(
            "sweep", ["ablation=soft_labels", f"encoder.backbone={backbone}", f"pairs.patch_pixels={pixels}"]
        )
        rates[backbone, pixels] = images_per_second(shown)
        name = f"{backbone}, {pixels} px"
        print(f"forward and backward, {name:<19}{rates[backbone, pixels]:7.0f} images/s of a processor")
    print("\n  case                                  women  prepare CPU h  store GB  trial CPU h  sweep h  cost USD")
    for name, women, backbone, epochs, most, trials, at_once, price in CASES:
        # Four views a woman are two pairs of images; half of the women train.
        images = 2 * women
        pairs = min(most, constants.pairs * images / 2)
        trial = pairs * 2 * 2 * (epochs * 4 / 3 + 1 / 3) / rates[backbone, 64] + constants.evaluate_s * images
        hours = math.ceil(trials / at_once) * trial / 3600
        prepared = constants.prepare_s * images / 3600
        print(
            f"  {name:<34} {women:>6,} {prepared:>14.1f} {constants.store_mb * images / 1e3:>9.1f} "
            f"{trial / 3600:>12.2f} {hours:>8.1f} {hours * price:>9.0f}"
        )


if __name__ == "__main__":
    main()
