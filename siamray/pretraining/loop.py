"""A configuration and a store go in, a trained encoder comes out: the train function that every worker runs."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from siamray.compose import to_dict
from siamray.config import Config, PretrainingConfig
from siamray.data.pairs import PairCutter, pair_batches, patch_side, place_pairs, shuffle_partners
from siamray.data.store import Store
from siamray.errors import UserError
from siamray.files import write_parquet
from siamray.pretraining import checkpoint, encoder, labels
from siamray.pretraining.arithmetic import Arithmetic, choose
from siamray.pretraining.baselines import BASELINES
from siamray.pretraining.learner import Learner
from siamray.pretraining.measurement import Measurement, measure, own_share
from siamray.pretraining.siamese import NETWORKS, Siamese
from siamray.pretraining.steps import deal
from siamray.pretraining.worker import Worker
from siamray.seeds import named_seed

Report = Callable[[dict[str, Any]], None]
Examine = Callable[[int, encoder.PairEncoder, Path], bool]
"""Given the number of epochs done, the encoder as it would be exported then, and the folder that the leading worker
writes to; says whether to go on."""


class DivergedError(RuntimeError):
    """A loss or a distance is no longer a number: going on would only cost."""


class StoppedError(RuntimeError):
    """The run was told to stop before its last epoch."""


@dataclass
class _Run:
    """What a worker holds while it trains."""

    config: Config
    worker: Worker
    folder: Path
    identity: dict[str, Any]
    pairs: pd.DataFrame
    cutter: PairCutter
    side: int
    learner: Learner
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    # [parts of all steps, workers] pairs; a step has pretraining.accumulate parts.
    dealt: NDArray[np.int64]
    epochs: list[dict[str, Any]]
    histograms: list[dict[str, Any]]

    @property
    def networks(self) -> nn.ModuleList:
        return self.learner.networks

    @property
    def steps(self) -> int:
        return len(self.dealt) // self.config.pretraining.accumulate

    @property
    def batch(self) -> int:
        """Pairs of a step over all workers."""
        return int(self.dealt.sum(axis=1).max()) * self.config.pretraining.accumulate


def train(
    config: Config, store: Store, folder: Path, worker: Worker, report: Report, examine: Examine | None = None
) -> None:
    """Trains the networks and exports the first one; resumes from the run's checkpoint where there is one.

    Leaves in the folder: ``encoder/`` (timm local-dir), ``epochs.parquet`` and ``distances.parquet``; until it ends
    also ``checkpoint.pt``. Resumed equals undisturbed: all random numbers follow from (seed, purpose, epoch, rank).

    Args:
        config: the configuration; its seed seeds everything.
        store: the prepared exams; only training women are used.
        folder: of the run; all workers find the same checkpoint in it, and the leading one writes.
        worker: this worker among all.
        report: told one record per epoch by the leading worker's numbers; called by every worker.
        examine: asked by the leading worker after every epoch but the last; it gets a copy of the encoder, and the
            training has the same numbers with it as without.

    Raises:
        UserError: no pairs, too few for the workers where the method or batch norms need some on each, a checkpoint of
            another run.
        DivergedError: a loss that is not a number.
        StoppedError: `examine` said so.
    """
    run = _set_up(config, store, folder, worker)
    first = _resume(run)
    measured = _measure(run, first) if first < config.pretraining.epochs or not run.epochs else None
    if measured is not None and not run.epochs:
        # Epoch 0 is the untrained state, which every later epoch is read against.
        _log(run, 0, {}, np.zeros_like(measured.own), measured, 0.0)
    for epoch in range(first, config.pretraining.epochs):
        started = time.perf_counter()
        weights = _labels(run, measured, epoch)
        losses = _train_epoch(run, epoch, weights)
        measured = _measure(run, epoch + 1)
        _log(run, epoch + 1, losses, weights, measured, time.perf_counter() - started)
        # Before the checkpoint: a run killed in between does the epoch again, and misses no examination.
        go_on = _examined(run, epoch + 1, examine)
        if worker.leads:
            _save(run, epoch + 1)
        report(run.epochs[-len(run.networks)])
        if not go_on:
            raise StoppedError(f"stopped after epoch {epoch + 1} of {config.pretraining.epochs}")
    if worker.leads:
        _export(run)
    worker.wait()


def training_pairs(config: Config, store: Store) -> pd.DataFrame:
    """Places the pairs of the training women: neither validation nor test women are ever seen in pretraining."""
    split = store.split(config.data)
    women = {str(woman) for woman in split.index[split == "training"]}
    return place_pairs(store, config, women)


def untrained(config: Config, name: str = NETWORKS[0]) -> encoder.PairEncoder:
    """Builds a network as its training starts with it: the same whenever it is built.

    Args:
        config: its encoder, seed, and side of a patch.
        name: which of the networks; the first one is exported.
    """
    network = encoder.build(config.encoder, named_seed(config.seed, "network", name), patch_side(config))
    network.metadata = {**network.metadata, "embedding": config.pretraining.embedding}
    return network


def epoch_pairs(pairs: pd.DataFrame, config: Config, epoch: int) -> pd.DataFrame:
    """Draws the pairs of an epoch, the same on every worker; with shuffled partners each gets another woman's patch."""
    wanted = config.pretraining.pairs_per_epoch
    drawn = pairs
    if wanted is not None and wanted < len(pairs):
        generator = np.random.default_rng(named_seed(config.seed, "draw", epoch))
        drawn = pairs.iloc[np.sort(generator.choice(len(pairs), size=wanted, replace=False))]
    drawn = drawn.reset_index(drop=True)
    if config.pretraining.partners == "shuffled":
        partner = drawn.iloc[shuffle_partners(drawn, named_seed(config.seed, "partners", epoch))]
        drawn = drawn.assign(
            partner_entry_id=partner.entry_id.to_numpy(),
            partner_row=partner.row.to_numpy(),
            partner_col=partner.col.to_numpy(),
        )
    return drawn


def _set_up(config: Config, store: Store, folder: Path, worker: Worker) -> _Run:
    method = config.pretraining
    side = patch_side(config)
    learner = _learner(config, side, worker)
    pairs = training_pairs(config, store)
    dealt = deal(len(epoch_pairs(pairs, config, 0)), method, worker.world_size, learner.uneven)
    if method.batch_norm == "sync" and worker.world_size > 1 and not dealt.all():
        raise UserError(
            f"pretraining.batch_norm=sync: {worker.world_size} workers share statistics in each step, and some have no "
            "pairs in some; take batch_norm=local, fewer workers, larger batches or more pairs"
        )
    batch = int(dealt.sum(axis=1).max()) * method.accumulate
    rate = scaled_rate(method, batch)
    steps = len(dealt) // method.accumulate
    # Fused: one pass over the weights instead of one per operation, which small batches would notice.
    optimizer = torch.optim.AdamW(learner.parameters(), lr=rate, weight_decay=method.weight_decay, fused=True)
    return _Run(
        config=config,
        worker=worker,
        folder=folder,
        identity=checkpoint.training_identity(to_dict(config), store.fingerprint),
        pairs=pairs,
        cutter=PairCutter(store, config.pairs),
        side=side,
        learner=learner,
        model=_distributed(learner, method, worker),
        optimizer=optimizer,
        scheduler=_schedule(optimizer, method, rate, max(1, method.epochs * steps)),
        dealt=dealt,
        epochs=[],
        histograms=[],
    )


def _learner(config: Config, side: int, worker: Worker) -> Learner:
    """Builds the method's networks and what it trains beside them."""
    method = config.pretraining
    names = NETWORKS if method.method == "siamese" and method.peer == "network" else NETWORKS[:1]
    networks = [untrained(config, name).to(worker.device) for name in names]
    arithmetic = worker.broadcast(choose(method.precision, networks[0], side, 2 * method.batch_pairs))
    # The CPU generator alone: heads and queues are drawn there.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(named_seed(config.seed, "heads"))
        learner: Learner
        if method.method == "siamese":
            learner = Siamese(networks, arithmetic, method)
        else:
            learner = BASELINES[method.method](networks[0], arithmetic, method, worker.world_size)
    return cast(Learner, arithmetic.arrange(learner).to(worker.device))


def _distributed(model: nn.Module, method: PretrainingConfig, worker: Worker) -> nn.Module:
    if worker.world_size == 1:
        return model
    if method.batch_norm == "sync":
        if worker.device.type == "cpu":
            raise UserError("pretraining.batch_norm=sync: only on GPUs; take batch_norm=local or cluster.gpus=1")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    devices = [worker.device.index or 0] if worker.device.type == "cuda" else None
    # Local batch norm: running statistics are the leading worker's, as only its weights are exported.
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=True)


def scaled_rate(method: PretrainingConfig, pairs: int) -> float:
    """The greatest learning rate of steps of so many pairs, over all workers and parts."""
    share = pairs / method.rate_batch_pairs
    return method.learning_rate * {"none": 1.0, "linear": share, "sqrt": math.sqrt(share)}[method.rate_scaling]


def _schedule(
    optimizer: torch.optim.Optimizer, method: PretrainingConfig, rate: float, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if method.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    if method.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1)


def _measure(run: _Run, epoch: int) -> Measurement:
    """Measures the pairs that the epoch counted from 0 will train on."""
    pairs = epoch_pairs(run.pairs, run.config, epoch)
    # All measure the network that is kept: batch norms have moved by each worker's last pairs.
    run.worker.align(run.learner.buffers())
    measured = measure(run.networks, pairs, run.cutter, run.side, run.config, run.worker, run.learner.arithmetic, epoch)
    if any(counted.dropped for counted in measured.counted):
        raise DivergedError(f"distances are no longer numbers after epoch {epoch}")
    return measured


def _labels(run: _Run, measured: Measurement | None, epoch: int) -> NDArray[np.float64]:
    """Soft labels [networks, own pairs] that train each network in this epoch: zero in the warm-up."""
    method = run.config.pretraining
    assert measured is not None
    if epoch < method.warmup_epochs or not run.learner.uses_labels:
        return np.zeros_like(measured.own)
    made = [
        labels.soft_labels(
            own, method, measured.counted[network] if method.labels == "rank" else measured.mixtures[network],
            [view[network] for view in measured.refined],
        )
        for network, own in enumerate(measured.own)
    ]  # fmt: skip
    if len(made) == 1:
        return np.stack(made)
    return np.stack([labels.exchange(made[0], made[1], method.label_exchange),
                     labels.exchange(made[1], made[0], method.label_exchange)])  # fmt: skip


def _train_epoch(run: _Run, epoch: int, weights: NDArray[np.float64]) -> dict[str, float]:
    """One pass over this worker's share of the epoch's pairs; returns the mean losses over all workers."""
    worker, config = run.worker, run.config
    pairs = epoch_pairs(run.pairs, config, epoch)
    own = own_share(len(pairs), worker)
    generator = np.random.default_rng(named_seed(config.seed, "order", epoch, worker.rank))
    parts = config.pretraining.accumulate
    counts = run.dealt[:, worker.rank]
    order = np.split(generator.permutation(len(own))[: counts.sum()], np.cumsum(counts)[:-1])
    # Who has no pairs in a part takes part with others' that weigh nothing, as all gradients are added up together.
    batches = [pairs.iloc[own[positions] if len(positions) else [0, 1]] for positions in order]
    # A worker's loss is the mean over its pairs, and DDP takes the mean over workers.
    shares = counts * worker.world_size / run.dealt.sum(axis=1)
    # Layers with randomness of their own (dropout, drop path) draw from the global generator.
    torch.manual_seed(named_seed(config.seed, "layers", epoch, worker.rank))
    drawn = torch.Generator().manual_seed(named_seed(config.seed, "masses", epoch, worker.rank))
    views = [
        pair_batches(
            run.cutter, batches, run.side, config.pairs.augmentation,
            named_seed(config.seed, "augmentation", epoch, worker.rank, *([view] if view else [])),
        )
        for view in range(run.learner.views)
    ]  # fmt: skip
    total: dict[str, torch.Tensor] = {}
    run.model.train()
    for number, (positions, share, *patches) in enumerate(zip(order, shares, *views, strict=True), start=1):
        # Pairs that weigh nothing leave no trace in the running statistics of batch norms either.
        run.learner.train(bool(share))
        inputs = [part.to(worker.device) for part in run.learner.inputs(patches, drawn)]
        if number % parts == 1 or parts == 1:
            run.optimizer.zero_grad(set_to_none=True)
        # Workers add up their gradients once a step.
        with _unshared(run.model) if number % parts else nullcontext():
            labelled = weights[:, positions] if share else np.zeros((len(weights), 2))
            losses = run.model(torch.from_numpy(labelled).float().to(worker.device), *inputs)
            if not torch.isfinite(losses["loss"]):
                raise DivergedError(f"the loss is no longer a number in epoch {epoch + 1}")
            (losses["loss"] * share / parts).backward()
        for name, value in losses.items():
            total[name] = total.get(name, torch.zeros((), device=worker.device)) + value.detach() * share
        if number % parts:
            continue
        run.optimizer.step()
        run.scheduler.step()
        run.learner.step_done(epoch * run.steps + number // parts, config.pretraining.epochs * run.steps)
    means = {name: float(value) / len(order) for name, value in total.items()}
    return {name: float(np.mean([part[name] for part in worker.gather(means)])) for name in means}


def _unshared(model: nn.Module) -> AbstractContextManager[None]:
    """For the time of a block gradients stay with their worker."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _log(
    run: _Run, epoch: int, losses: dict[str, float], weights: NDArray[np.float64], measured: Measurement, seconds: float
) -> None:
    """Adds one record per network to the tables of the run, and writes them."""
    shares = run.worker.gather((weights.sum(axis=1), weights.shape[1]))
    label_means = sum(total for total, _ in shares) / sum(count for _, count in shares)
    for name, label_mean, record, histogram in zip(
        NETWORKS, label_means, measured.log(), measured.histograms(), strict=False
    ):
        run.epochs.append(
            {
                "epoch": epoch,
                "network": name,
                "loss": losses.get("loss", float("nan")),
                "contrastive": losses.get(f"contrastive_{name}", float("nan")),
                "sure": losses.get(f"sure_{name}", float("nan")),
                "head": losses.get(f"head_{name}", float("nan")),
                "cross": losses.get("cross", float("nan")),
                "anti_collapse": losses.get(f"anti_collapse_{name}", float("nan")),
                "label_mean": float(label_mean),
                **record,
                "learning_rate": float(run.optimizer.param_groups[0]["lr"]),
                "seconds": seconds,
            }
        )
        run.histograms.append({"epoch": epoch, "network": name, **histogram})
    if run.worker.leads:
        _write_tables(run)


def _write_tables(run: _Run) -> None:
    write_parquet(run.folder / "epochs.parquet", pd.DataFrame(run.epochs))
    write_parquet(run.folder / "distances.parquet", pd.DataFrame(run.histograms))


def _save(run: _Run, epoch: int) -> None:
    checkpoint.save(
        run.folder,
        {
            "identity": run.identity,
            "epoch": epoch,
            "arithmetic": run.learner.arithmetic.name,
            "learner": run.learner.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict(),
            "epochs": run.epochs,
            "histograms": run.histograms,
        },
    )


def _resume(run: _Run) -> int:
    """Loads the checkpoint, if there is one; returns the number of epochs done."""
    state = checkpoint.load(run.folder, run.identity)
    if state is None:
        return 0
    run.learner.arithmetic = Arithmetic.named(state["arithmetic"])
    run.learner.load_state_dict(state["learner"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scheduler.load_state_dict(state["scheduler"])
    run.epochs, run.histograms = state["epochs"], state["histograms"]
    return int(state["epoch"])


def _examined(run: _Run, epoch: int, examine: Examine | None) -> bool:
    """Lets the leading worker examine a copy of the first network; all workers get its answer."""
    if examine is None or epoch == run.config.pretraining.epochs:
        return True
    go_on = True
    if run.worker.leads:
        devices = [run.worker.device] if run.worker.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            # On the CPU, where an exported encoder is evaluated, so that the last epoch would give the same numbers.
            examined = copy.deepcopy(cast(encoder.PairEncoder, run.networks[0])).cpu().eval()
            examined.metadata = {**examined.metadata, **_metadata(run)}
            go_on = examine(epoch, examined, run.folder)
    return bool(run.worker.broadcast(go_on))


def _export(run: _Run) -> None:
    encoder.export(cast(encoder.PairEncoder, run.networks[0]), run.folder / "encoder", _metadata(run))


def _metadata(run: _Run) -> dict[str, Any]:
    """What an exported encoder says of its training."""
    config = run.config
    return {
        "backbone": config.encoder.backbone,
        "patch_pixels": run.side,
        "spacing_mm": config.preparation.spacing_mm,
        "normalization": config.pairs.normalization,
        "background": config.pairs.background,
        "embedding": config.pretraining.embedding,
        "shift_share": config.pretraining.shift_share,
        "epochs": config.pretraining.epochs,
        "seed": config.seed,
        "world_size": run.worker.world_size,
        "batch_pairs": run.batch,
        "identity": checkpoint.identity_hash(run.identity),
    }
