"""An encoder and labelled patches go in; scores of other patches by the encoder trained on those labels come out."""

import copy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from siamray.config import AugmentationConfig, FineTuningConfig
from siamray.data.pairs import SIDES, augment, augmentation_context
from siamray.downstream.features import Cut, extract, own_features
from siamray.downstream.intervals import auc
from siamray.seeds import named_seed

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FineTuned:
    """Log-odds of "abnormal" [n] of validation and test samples, and how they came about.

    ``epoch`` is the chosen one, counted from 1 (0 where nothing was trained), ``validation_auc`` what each epoch
    reached, and ``note`` says what was chosen, or why a fallback was taken.
    """

    validation_scores: Floats
    test_scores: Floats
    epoch: int
    validation_auc: list[float]
    note: str


def fine_tune(
    encoder: nn.Module,
    training: pd.DataFrame,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    cut: Cut,
    config: FineTuningConfig,
    augmentation: AugmentationConfig,
    seed: int,
) -> FineTuned:
    """Trains a copy of an encoder with a linear layer on labelled patches; the AUC on validation chooses the epoch.

    Cross-entropy, AdamW, a cosine schedule; the layer starts at zero, with the log-odds of the training patches as
    bias, so that the first steps do not shake the encoder. Of equally good epochs the first is taken.

    Args:
        encoder: turns [B, 1, P, P] into features and embeddings; it is left as it is.
        training: samples with entry_id, side, row, col, label.
        validation: the same.
        test: the same; nothing is chosen by them.
        cut: gives pairs of samples.
        config: the training.
        augmentation: used if config.augment.
        seed: of the order of the samples and their augmentation.

    Returns:
        The scores. A class that is absent from training leaves nothing to learn: all are NaN. One that is absent from
        validation leaves nothing to choose by: the last epoch is taken.
    """
    labels = training.label.to_numpy(dtype=np.float32)
    none = np.full(len(validation), np.nan), np.full(len(test), np.nan)
    if len(np.unique(labels)) < 2:
        return FineTuned(*none, 0, [], "not fine-tuned: a class is absent from training")
    first = cut(training.iloc[:1])
    tuned = copy.deepcopy(encoder)
    head = _head(tuned, first, float(labels.mean()))
    order = np.random.default_rng(named_seed(seed, "order"))
    steps = max(1, len(labels) // config.batch_patches)
    optimiser, schedule = _optimiser(tuned, head, config, config.epochs * steps)
    batches = _Batches(training, cut, first.shape[-1], augmentation if config.augment else None, seed)
    can_choose = validation.label.nunique() == 2
    reached: list[float] = []
    best, epoch, chosen = -1.0, 0, none
    # What an encoder drops out in training, it draws from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(named_seed(seed, "dropout"))
        for _ in range(config.epochs):
            tuned.train()
            # As many batches as fill up: one patch alone has no batch statistics.
            for batch in np.array_split(order.permutation(len(labels)), steps):
                features, _ = tuned(batches(batch).to(head.weight.device))
                target = torch.from_numpy(labels[batch]).to(features)
                loss = functional.binary_cross_entropy_with_logits(head(features)[:, 0], target)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
            answers = _answers(tuned, head, validation, cut)
            reached.append(auc(validation.label, answers))
            if not can_choose or reached[-1] > best:
                best, epoch, chosen = reached[-1], len(reached), (answers, _answers(tuned, head, test, cut))
    note = f"epoch {epoch} of {config.epochs}" if epoch else "not fine-tuned: no epoch gave finite answers"
    if epoch and not can_choose:
        note += ", not chosen: a class is absent from validation"
    return FineTuned(*chosen, epoch, reached, note)


class _Batches:
    """Cuts the patches [B, 1, P, P] of training samples' own sides, augmented or as they are."""

    def __init__(
        self, samples: pd.DataFrame, cut: Cut, side: int, augmentation: AugmentationConfig | None, seed: int
    ) -> None:
        self._samples, self._cut, self._side, self._augmentation = samples, cut, side, augmentation
        self._generator = torch.Generator().manual_seed(named_seed(seed, "augmentation"))

    def __call__(self, batch: NDArray[np.int64]) -> torch.Tensor:
        samples = self._samples.iloc[batch]
        if self._augmentation is None:
            pairs = torch.from_numpy(self._cut(samples))
        else:
            context = augmentation_context(self._side, self._augmentation)
            windows = torch.from_numpy(self._cut(samples, context))
            pairs = augment(windows, self._side, self._augmentation, self._generator)
        own = torch.from_numpy(samples.side.eq(SIDES[1]).to_numpy(dtype=np.int64))
        return pairs[torch.arange(len(pairs)), own][:, None]


def _optimiser(
    encoder: nn.Module, head: nn.Linear, config: FineTuningConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups = [
        {"params": list(encoder.parameters()), "lr": config.learning_rate},
        {"params": list(head.parameters()), "lr": config.learning_rate * config.head_factor},
    ]
    # The encoders of tests may have no parameter.
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=config.weight_decay)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)


def _head(encoder: nn.Module, pair: NDArray[np.float32], prevalence: float) -> nn.Linear:
    features, _ = extract(encoder, pair[:, :1])
    # A layer is drawn from the global generator before it is set to zero.
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(features.shape[1], 1)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, float(np.log(prevalence / (1 - prevalence))))
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    return head.to(device)


def _answers(encoder: nn.Module, head: nn.Linear, samples: pd.DataFrame, cut: Cut) -> Floats:
    """Log-odds [n] of samples, in evaluation mode."""
    weight, bias = (values.detach().cpu().numpy().astype(np.float64) for values in (head.weight, head.bias))
    return np.asarray(own_features(encoder, samples, cut).astype(np.float64) @ weight[0] + bias[0])
