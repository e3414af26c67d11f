"""The objective: distances, soft labels and embeddings of a batch of pairs in, scalar loss terms out.

N pairs, embeddings of D dimensions, and distances d as `siamray.pretraining.distances` measures them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from siamray.pretraining.distances import SQUARED_EPSILON, distance_matrix

# Least scale distances are divided by, so that a collapsed batch gives finite and moderate gradients.
LEAST_SCALE = 1e-3
# Where slope and threshold of the logistic loss start: unit embeddings of untrained networks lie below distance 1.
LOGISTIC_GAIN = 3.0
LOGISTIC_START = (1.5, 1.0)


def soft_margin(labels: Tensor, margin: float, kind: str) -> Tensor:
    """Margin m(w) that grows with the label, from 0 at w=0 to m at w=1 (NCR: Huang, NeurIPS 2021).

    linear: m w; exponential: m (10^w - 1) / 9; sine: m (sin(pi w - pi/2) + 1) / 2; constant: m.

    Args:
        labels: [N] w in 0..1.
        margin: m.
        kind: ``constant``, ``linear``, ``exponential`` or ``sine``.

    Returns:
        [N].

    Raises:
        ValueError: the kind is none of them.
    """
    if kind == "constant":
        return torch.full_like(labels, margin)
    if kind == "linear":
        return margin * labels
    if kind == "exponential":
        return margin * (10**labels - 1) / 9
    if kind == "sine":
        return margin * (torch.sin(torch.pi * labels - torch.pi / 2) + 1) / 2
    raise ValueError(f"soft_margin must not be {kind}")


def contrastive_loss(distances: Tensor, labels: Tensor, margin: float, kind: str = "constant") -> Tensor:
    """Soft-label contrastive loss, the mean over pairs of (1-w)/2 d^2 + w/2 max(0, m(w)-d)^2.

    Hadsell, Chopra and LeCun 2006, where w is 0 or 1; 1 = different, and the hinge is squared. With w in between: ours,
    the natural reading of Van Vorst and Shen 2024.

    Args:
        distances: [N] d.
        labels: [N] w in 0..1.
        margin: m, in units of d.
        kind: how the margin depends on the label, see `soft_margin`.
    """
    similar = distances.square()
    different = functional.relu(soft_margin(labels, margin, kind) - distances).square()
    return ((1 - labels) * similar + labels * different).mean() / 2


def logistic_loss(distances: Tensor, labels: Tensor, logistic: Tensor) -> Tensor:
    """Cross-entropy of P(different | d) = sigmoid(s (d - t)) with the soft labels, the mean over pairs (ours).

    As in logistic regression on the distance, slope s = 3 softplus(a) and threshold t = |b| are trained. Unlike the
    hinge, every pair keeps pulling until its probability is its label.

    Args:
        distances: [N] d.
        labels: [N] w in 0..1, 1 = different.
        logistic: [2] a and b.
    """
    scores = LOGISTIC_GAIN * functional.softplus(logistic[0]) * (distances - logistic[1].abs())
    return functional.binary_cross_entropy_with_logits(scores, labels)


def symmetric_kl(scores_a: Tensor, scores_b: Tensor) -> Tensor:
    """KL(p_A || p_B) + KL(p_B || p_A) of Bernoulli variables p = sigmoid(score), the mean over pairs.

    Deep Mutual Learning (Zhang 2018), JoCoR (Wei 2020). Both directions together are (p_A - p_B)(s_A - s_B), as the
    scores s are the log odds; no logarithm of a probability is taken.

    Args:
        scores_a: [N] log odds of network A that a pair is different.
        scores_b: [N] of network B.
    """
    return ((scores_a.sigmoid() - scores_b.sigmoid()) * (scores_a - scores_b)).mean()


def standardized(distances: Tensor) -> Tensor:
    """Distances as scores, (d - mean) / deviation of the batch, with no gradient through mean and deviation.

    Without that gradient a pair is moved by its own score only, not by those it shares a batch with.

    Args:
        distances: [N].
    """
    values = distances.detach()
    scale = values.std(correction=0).clamp_min(LEAST_SCALE)
    return (distances - values.mean()) / scale


def distance_consistency(distances_a: Tensor, distances_b: Tensor) -> Tensor:
    """Mean over pairs of (d_A / mean d_A - d_B / mean d_B)^2, with no gradient through the means (ours, scale-free).

    Args:
        distances_a: [N] of network A.
        distances_b: [N] of network B for the same pairs.
    """
    mean_a = distances_a.detach().mean().clamp_min(LEAST_SCALE)
    mean_b = distances_b.detach().mean().clamp_min(LEAST_SCALE)
    return (distances_a / mean_a - distances_b / mean_b).square().mean()


def relational(embeddings_a: Tensor, embeddings_b: Tensor) -> Tensor:
    """Huber loss between the two networks' distance matrices of a batch, each divided by its mean.

    Relational knowledge distillation, distance-wise (Park 2019): delta 1, mean over all ordered couples of different
    patches. Networks share no axes, so distances are compared, never embeddings.

    Args:
        embeddings_a: [M, D] of network A.
        embeddings_b: [M, D] of network B for the same patches.
    """
    count = len(embeddings_a)
    if count < 2:
        return (embeddings_a.sum() + embeddings_b.sum()) * 0
    other = ~torch.eye(count, dtype=torch.bool, device=embeddings_a.device)
    a, b = distance_matrix(embeddings_a)[other], distance_matrix(embeddings_b)[other]
    return functional.huber_loss(a / a.mean().clamp_min(LEAST_SCALE), b / b.mean().clamp_min(LEAST_SCALE))


def cross_regularization(
    kind: str, distances_a: Tensor, distances_b: Tensor, embeddings_a: Tensor, embeddings_b: Tensor
) -> Tensor:
    """The term by which the two networks hold each other; its gradient reaches both.

    Args:
        kind: ``symmetric_kl``, ``distance_consistency``, ``relational`` or ``none``.
        distances_a: [N] of network A.
        distances_b: [N] of network B for the same pairs.
        embeddings_a: [M, D] of network A, as `embed` returns them: the left patches and then the right ones.
        embeddings_b: [M, D] of network B for the same patches.

    Returns:
        A scalar, before its weight; 0 for ``none``.

    Raises:
        ValueError: the kind is none of them.
    """
    if kind == "symmetric_kl":
        return symmetric_kl(standardized(distances_a), standardized(distances_b))
    if kind == "distance_consistency":
        return distance_consistency(distances_a, distances_b)
    if kind == "relational":
        return relational(embeddings_a, embeddings_b)
    if kind == "none":
        return distances_a.new_zeros(())
    raise ValueError(f"cross_regularization.kind must not be {kind}")


def variance_hinge(embeddings: Tensor) -> Tensor:
    """VICReg's variance term, the mean over dimensions of max(0, 1 - sqrt(var + 1e-4)) (Bardes 2022, eq. 1 and 2).

    Args:
        embeddings: [N, D], N >= 2.
    """
    return functional.relu(1 - (embeddings.var(dim=0) + 1e-4).sqrt()).mean()


def covariance_penalty(embeddings: Tensor) -> Tensor:
    """VICReg's covariance term, the sum of the squared off-diagonal covariances over D (Bardes 2022, eq. 3 and 4).

    Args:
        embeddings: [N, D], N >= 2.
    """
    count, dimensions = embeddings.shape
    centred = embeddings - embeddings.mean(dim=0)
    with torch.autocast(embeddings.device.type, enabled=False):
        covariance = centred.T @ centred / (count - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / dimensions


def variance_covariance(left: Tensor, right: Tensor, covariance_weight: float, embedding: str) -> Tensor:
    """VICReg without its invariance term: the variance hinge of both sides, averaged, plus the weighted covariances.

    Bardes 2022, with the halves of its published code: (v(L) + v(R)) / 2 + weight (c(L) + c(R)). Unit embeddings are
    scaled by sqrt(D) first: spread evenly over the sphere, they have variance 1/D per dimension, and the hinge at 1
    could never be met.

    Args:
        left: [N, D].
        right: [N, D].
        covariance_weight: weight of the covariances; VICReg's 1/25.
        embedding: ``unit`` or ``raw``, what the embeddings are.
    """
    if len(left) < 2:
        return (left.sum() + right.sum()) * 0
    if embedding == "unit":
        left, right = left * left.shape[1] ** 0.5, right * right.shape[1] ** 0.5
    variance = (variance_hinge(left) + variance_hinge(right)) / 2
    return variance + covariance_weight * (covariance_penalty(left) + covariance_penalty(right))


def negatives(left: Tensor, right: Tensor, margin: float) -> Tensor:
    """Patches of different pairs are pushed apart: the mean of max(0, m-d)^2 / 2 over all of them in the batch.

    The dissimilar half of Hadsell, Chopra and LeCun 2006 with every other pair of the batch as a random partner, on
    either side: 2N (2N - 2) ordered couples of patches.

    Args:
        left: [N, D].
        right: [N, D].
        margin: m, in units of the distance.
    """
    pairs = torch.arange(len(left), device=left.device).repeat(2)
    other = pairs[:, None] != pairs[None, :]
    if len(left) < 2:
        return (left.sum() + right.sum()) * 0
    distances = distance_matrix(torch.cat([left, right]))[other]
    return functional.relu(margin - distances).square().mean() / 2


def random_partners(left: Tensor, right: Tensor, margin: float) -> Tensor:
    """Left patches are pushed from the right patch of another pair: the mean of max(0, m-d)^2 / 2 over the pairs.

    One random partner each, where `negatives` takes all of the batch: pairs come in random order, so the next pair's
    right patch is a random one.

    Args:
        left: [N, D].
        right: [N, D].
        margin: m, in units of the distance.
    """
    if len(left) < 2:
        return (left.sum() + right.sum()) * 0
    apart = ((left - right.roll(1, dims=0)).square().sum(dim=1) + SQUARED_EPSILON).sqrt()
    return functional.relu(margin - apart).square().mean() / 2


def anti_collapse(
    kind: str, left: Tensor, right: Tensor, *, margin: float, covariance_weight: float, embedding: str = "unit"
) -> Tensor:
    """The term that keeps a network's embeddings from falling into one point.

    Args:
        kind: ``negatives``, ``partners``, ``variance_covariance`` or ``none``.
        left: [N, D] as `embed` returns them.
        right: [N, D] of the same pairs.
        margin: m of ``negatives`` and ``partners``.
        covariance_weight: of ``variance_covariance``.
        embedding: ``unit`` or ``raw``, what the embeddings are.

    Returns:
        A scalar, before its weight; 0 for ``none`` and for a single pair.

    Raises:
        ValueError: the kind is none of them.
    """
    if kind == "negatives":
        return negatives(left, right, margin)
    if kind == "partners":
        return random_partners(left, right, margin)
    if kind == "variance_covariance":
        return variance_covariance(left, right, covariance_weight, embedding)
    if kind == "none":
        return left.new_zeros(())
    raise ValueError(f"anti_collapse.kind must not be {kind}")
