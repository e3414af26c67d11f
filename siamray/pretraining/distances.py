"""Pair distances: two batches of embeddings in, distances and measures of the embedding's health out."""

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from siamray.pretraining.histogram import Histogram

# Inside the square root: the gradient of a distance stays finite at 0, and the distance itself moves by at most 1e-6.
SQUARED_EPSILON = 1e-12
QUANTILES = (0.01, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99)


def embed(embedding: Tensor, kind: str) -> Tensor:
    """Brings embeddings into the space in which distances are measured, in full precision.

    Args:
        embedding: [N, D], as it leaves the projector; bfloat16 is widened to float32.
        kind: ``unit`` (l2-normalised: distances lie in 0..2) or ``raw``.

    Returns:
        [N, D], float32 or float64.

    Raises:
        ValueError: the kind is neither.
    """
    if embedding.dtype in (torch.bfloat16, torch.float16):
        embedding = embedding.float()
    if kind == "unit":
        return functional.normalize(embedding, dim=1)
    if kind == "raw":
        return embedding
    raise ValueError(f"embedding must be unit or raw, not {kind}")


def pair_distances(left: Tensor, right: Tensor, embedding: str = "unit") -> Tensor:
    """Euclidean distance between the two embeddings of each pair, d_i = ||z_i^L - z_i^R||.

    Args:
        left: [N, D] embeddings of the left patches.
        right: [N, D] embeddings of the right patches.
        embedding: ``unit`` or ``raw``, see `embed`.

    Returns:
        [N], with a gradient that is 0, not NaN, where both embeddings are equal.
    """
    difference = embed(left, embedding) - embed(right, embedding)
    return (difference.square().sum(dim=1) + SQUARED_EPSILON).sqrt()


def distance_matrix(embeddings: Tensor) -> Tensor:
    """All Euclidean distances within a batch.

    Args:
        embeddings: [M, D] as `embed` returns them.

    Returns:
        [M, M], symmetric; 0 to within rounding on the diagonal, where the gradient is 0.
    """
    # Autocast would multiply in bfloat16, whose rounding is as large as small distances.
    with torch.autocast(embeddings.device.type, enabled=False):
        squares = embeddings.square().sum(dim=1)
        squared = squares[:, None] + squares[None, :] - 2 * embeddings @ embeddings.T
    own = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    squared = squared.clamp_min(0).masked_fill(own, 0)
    return (squared + SQUARED_EPSILON).sqrt()


@torch.no_grad()
def effective_rank(embeddings: Tensor) -> float:
    """Number of dimensions the embeddings effectively fill: exp of the entropy of their normalised singular values.

    Roy and Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007; here centred.

    Args:
        embeddings: [N, D].

    Returns:
        1..D; 0 where the embeddings do not vary at all, NaN where they are not finite.
    """
    values = embeddings.double()
    if not torch.isfinite(values).all():
        return float("nan")
    centred = values - values.mean(dim=0)
    # The D x D product instead of the N x D matrix: as exact as a log needs, and cheap for many pairs.
    squared = torch.linalg.eigvalsh(centred.T @ centred).clamp_min(0)
    # What is left of equal rows after centring is rounding, not spread.
    if squared.sum() <= 1e-24 * max(float(values.square().sum()), 1e-300):
        return 0.0
    singular = squared.sqrt()
    share = singular / singular.sum()
    return float(torch.exp(torch.special.entr(share).sum()))


@torch.no_grad()
def dimension_deviation(embeddings: Tensor) -> float:
    """Mean over the dimensions of the standard deviation over the batch; near 0 the embeddings have collapsed.

    For unit embeddings that fill all D dimensions evenly it is 1/sqrt(D) (SimSiam, Chen and He 2021, uses it so).

    Args:
        embeddings: [N, D] as `embed` returns them.
    """
    return float(embeddings.double().std(dim=0, correction=0).mean())


def agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """How alike two networks rank the same pairs: Spearman's correlation of their distances.

    Args:
        first: [N] distances of network A.
        second: [N] distances of network B for the same pairs.

    Returns:
        -1..1, or NaN where it is undefined: fewer than 3 finite pairs, or constant distances.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)


def distance_quantiles(counted: Histogram) -> dict[str, float]:
    """Quantiles of the raw distances; a refitted mixture is scale-free and hides a collapse, these do not.

    Args:
        counted: the distances of all workers.

    Returns:
        ``d_q01`` ... ``d_q99``; NaN for each where no distance is finite.
    """
    found = counted.quantiles(QUANTILES)
    return {f"d_q{round(100 * q):02d}": float(value) for q, value in zip(QUANTILES, found, strict=True)}
