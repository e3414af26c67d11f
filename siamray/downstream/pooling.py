"""Bags of patch features and their classes go in; class probabilities of other bags by two ways of pooling come out."""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from siamray.config import AttentionConfig, ProbeConfig
from siamray.downstream.features import Patches
from siamray.downstream.multiclass import bootstrap_classes
from siamray.seeds import named_seed

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]
ITERATIONS = 2000
BAGS_AT_ONCE = 64


@dataclass(frozen=True)
class LabelledBags:
    """Bags of one split: the patches' features [n, F] of each, and its class's number [bags]."""

    features: list[Patches]
    classes: Classes


class SplitBags(NamedTuple):
    """Bags that are learnt from, that choose, and that are tested (nothing is chosen by them), of K classes in all."""

    training: LabelledBags
    validation: LabelledBags
    test: LabelledBags
    classes: int


@dataclass(frozen=True)
class Pooled:
    """Probabilities [bags, K] of validation and of test bags, and what a reader must know of how they came about.

    A class that training lacks has probability 0; all are NaN where training has one class only.
    """

    validation: Floats
    test: Floats
    note: str


class GatedAttention(nn.Module):
    """Attention-based pooling of a bag with a gate (Ilse, Tomczak, Welling 2018, equation 9), and a linear classifier.

    h_k = dropout(relu(W x_k)); a_k = softmax_k(w (tanh(V h_k) * sigmoid(U h_k))); logits = C sum_k a_k h_k.
    """

    def __init__(self, features: int, classes: int, config: AttentionConfig) -> None:
        """Draws the weights from torch's generator.

        Args:
            features: length F of a patch's features.
            classes: number K of classes.
            config: width and dropout.
        """
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(features, config.width), nn.ReLU(), nn.Dropout(config.dropout))
        self.value, self.gate = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self.weigh = nn.Linear(config.width, 1)
        self.classify = nn.Linear(config.width, classes)

    def forward(self, patches: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Pools bags.

        Args:
            patches: [B, N, F]; shorter bags are filled up.
            there: [B, N], false where a bag was filled up.

        Returns:
            Logits [B, K] and attention [B, N], which sums to 1 over what is there.
        """
        embedded = self.embed(patches)
        scores = self.weigh(torch.tanh(self.value(embedded)) * torch.sigmoid(self.gate(embedded)))[..., 0]
        attention = torch.softmax(scores.masked_fill(~there, float("-inf")), dim=1)
        return self.classify(torch.einsum("bn,bnf->bf", attention, embedded)), attention


def attention_pooling(bags: SplitBags, class_weights: str, config: AttentionConfig, seed: int) -> Pooled:
    """Trains gated attention on bags; the least loss on validation bags chooses the epoch.

    Features are standardized by mean and deviation of the training patches. Without a validation bag of a class that
    training has, nothing can be chosen: the last epoch is taken.

    Args:
        bags: of all splits; validation bags choose the epoch.
        class_weights: balanced or equal, see downstream.bags.
        config: the network and its training.
        seed: of the weights, the order and the dropout.
    """
    training, validation, test, number = bags
    present = np.unique(training.classes)
    if len(present) < 2:
        return _nothing(bags)
    scaler = _Standardized(training.features)
    train, judge, tested = (scaler(part.features) for part in (training, validation, test))
    # Numbers of the classes that training has; -1 for others.
    place = np.full(number, -1)
    place[present] = np.arange(len(present))
    target = torch.from_numpy(place[training.classes])
    judged = (
        torch.from_numpy(place[validation.classes]) if len(validation.classes) else torch.empty(0, dtype=torch.long)
    )
    weights = torch.from_numpy(_class_weights(place[training.classes], class_weights)).float()
    order = np.random.default_rng(named_seed(seed, "order"))
    can_choose = bool((judged >= 0).any())
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(named_seed(seed, "weights"))
        model = GatedAttention(training.features[0].shape[1], len(present), config)
        optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        best = {name: value.clone() for name, value in model.state_dict().items()}
        for _ in range(config.epochs):
            model.train()
            steps = -(-len(train) // config.batch_bags)
            for batch in np.array_split(order.permutation(len(train)), steps):
                logits, _ = model(*_padded([train[bag] for bag in batch]))
                loss = functional.cross_entropy(logits, target[batch], weight=weights)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            losses.append(_loss(model, judge, judged, weights) if can_choose else -float(len(losses)))
            if losses[-1] == min(losses):
                best = {name: value.clone() for name, value in model.state_dict().items()}
            elif len(losses) - int(np.argmin(losses)) > config.patience:
                break
    model.load_state_dict(best)
    note = f"epoch {int(np.argmin(losses)) + 1} of {len(losses)}"
    if not can_choose:
        note += ", not chosen: validation has no bag of a class that training has"
    answers = [np.zeros((len(part), number)) for part in (judge, tested)]
    for answer, part in zip(answers, (judge, tested), strict=True):
        answer[:, present] = torch.softmax(_logits(model, part, len(present)), dim=1).double().numpy()
    return Pooled(answers[0], answers[1], note)


def mean_pooling(bags: SplitBags, class_weights: str, config: ProbeConfig) -> Pooled:
    """Logistic regression on the mean of a bag's features, standardized: the control of the attention.

    The macro AUC on validation bags chooses C, the smaller one on a tie; where validation has not two classes, the
    middle one is taken.

    Args:
        bags: of all splits; validation bags choose C.
        class_weights: balanced or equal, see downstream.bags.
        config: the strengths C that are tried.
    """
    training, validation, test, number = bags
    present = np.unique(training.classes)
    if len(present) < 2:
        return _nothing(bags)
    means = [_means(part.features, training.features[0].shape[1]) for part in (training, validation, test)]
    scaler = StandardScaler().fit(means[0])
    train, judge, tested = (scaler.transform(part) if len(part) else part for part in means)
    strengths = sorted(config.strengths)
    weight = "balanced" if class_weights == "balanced" else None
    reached, answers, notes = [], [], []
    for strength in strengths:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", ConvergenceWarning)
            model = LogisticRegression(C=strength, class_weight=weight, max_iter=ITERATIONS).fit(
                train, training.classes
            )
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in seen)
        notes.append("" if converged else f"; logistic regression not converged in {ITERATIONS} iterations")
        probabilities = [np.zeros((len(part), number)) for part in (judge, tested)]
        for part, given in zip(probabilities, (judge, tested), strict=True):
            if len(given):
                part[:, present] = model.predict_proba(given)
        answers.append(probabilities)
        ones, women = np.ones((1, max(1, len(judge)))), np.arange(len(judge))
        reached.append(float(bootstrap_classes("macro_auc", validation.classes, probabilities[0], women, ones)[0]))
    if np.isnan(reached).any():
        best = (len(strengths) - 1) // 2
        note = f"C={strengths[best]:g} not chosen: validation has not two classes"
    else:
        best = int(np.argmax(reached))
        note = f"C={strengths[best]:g}"
    return Pooled(answers[best][0], answers[best][1], note + notes[best])


class _Standardized:
    """Bags as tensors [n, F], standardized by the mean and deviation of the training patches."""

    def __init__(self, training: list[Patches]) -> None:
        together = np.concatenate(training).astype(np.float64)
        deviation = together.std(axis=0)
        self._mean = together.mean(axis=0).astype(np.float32)
        self._scale = (1 / np.where(deviation > 0, deviation, 1)).astype(np.float32)

    def __call__(self, bags: list[Patches]) -> list[Tensor]:
        return [torch.from_numpy((bag - self._mean) * self._scale) for bag in bags]


def _nothing(bags: SplitBags) -> Pooled:
    validation, test = (np.full((len(part.classes), bags.classes), np.nan) for part in (bags.validation, bags.test))
    return Pooled(validation, test, "not trained: training has not two classes")


def _means(bags: list[Patches], features: int) -> Floats:
    if not bags:
        return np.empty((0, features))
    return np.stack([bag.mean(axis=0, dtype=np.float64) for bag in bags])


def _class_weights(classes: Classes, how: str) -> Floats:
    """Weight of every class; balanced as scikit-learn's: bags / (classes x bags of the class)."""
    counts = np.bincount(classes)
    return np.ones(len(counts)) if how == "equal" else len(classes) / (len(counts) * counts)


def _padded(bags: list[Tensor]) -> tuple[Tensor, Tensor]:
    padded = nn.utils.rnn.pad_sequence(bags, batch_first=True)
    lengths = torch.tensor([len(bag) for bag in bags])
    return padded, torch.arange(padded.shape[1])[None, :] < lengths[:, None]


@torch.no_grad()
def _logits(model: GatedAttention, bags: list[Tensor], classes: int) -> Tensor:
    model.eval()
    parts = [torch.empty(0, classes)]
    for start in range(0, len(bags), BAGS_AT_ONCE):
        parts.append(model(*_padded(bags[start : start + BAGS_AT_ONCE]))[0])
    return torch.cat(parts)


def _loss(model: GatedAttention, bags: list[Tensor], classes: Tensor, weights: Tensor) -> float:
    """Loss on the bags whose class training has; infinite where training blew up."""
    known = classes >= 0
    loss = functional.cross_entropy(_logits(model, bags, len(weights))[known], classes[known], weight=weights)
    return float(loss) if torch.isfinite(loss) else float("inf")
