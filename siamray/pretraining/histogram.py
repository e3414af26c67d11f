"""Pair distances go in, each worker its own; their counts in common bins, which all workers add up, come out."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Fine enough that labels from the counts are those from the distances to 1e-3, few enough to send after every epoch.
BINS = 1 << 14
# Distances handled at once: their temporary arrays stay in the processor's cache, and memory stays flat.
CHUNK = 1 << 18


@dataclass(frozen=True)
class Range:
    """What a worker tells of its distances before all of them are counted in the same bins.

    Attributes:
        low: least finite distance; infinite where there is none.
        high: greatest finite distance; minus infinity where there is none.
    """

    low: float
    high: float

    @staticmethod
    def of(distances: npt.ArrayLike) -> "Range":
        """The range of the finite ones among some distances [n]."""
        values = np.asarray(distances).reshape(-1)
        low, high = np.inf, -np.inf
        for start in range(0, values.size, CHUNK):
            part = values[start : start + CHUNK]
            part = part[np.isfinite(part)]
            if part.size:
                low, high = min(low, float(part.min())), max(high, float(part.max()))
        return Range(low, high)

    @staticmethod
    def union(ranges: Iterable["Range"]) -> "Range":
        """The range of all workers' distances."""
        known = list(ranges)
        return Range(
            min((part.low for part in known), default=np.inf), max((part.high for part in known), default=-np.inf)
        )


@dataclass(frozen=True, eq=False)
class Histogram:
    """Distances counted in evenly spaced bins: whoever counted which of them, the sum of the counts is the same.

    Attributes:
        range: of the distances of all workers.
        counts: [BINS] finite distances per bin, the last one closed at its upper end.
        dropped: distances that were NaN or infinite.
    """

    range: Range
    counts: npt.NDArray[np.int64]
    dropped: int

    @staticmethod
    def of(distances: npt.ArrayLike, within: Range | None = None) -> "Histogram":
        """Counts distances.

        Args:
            distances: [n].
            within: the range of all workers' distances; their own one where nobody else has any.
        """
        values = np.asarray(distances).reshape(-1)
        span = within or Range.of(values)
        counts = np.zeros(BINS, dtype=np.int64)
        dropped = 0
        for start in range(0, values.size, CHUNK):
            part = values[start : start + CHUNK].astype(np.float64, copy=False)
            finite = np.isfinite(part)
            if not finite.all():
                dropped += int((~finite).sum())
                part = part[finite]
            if part.size:
                counts += np.bincount(_bins(part, span), minlength=BINS)
        return Histogram(span, counts, dropped)

    def __add__(self, other: "Histogram") -> "Histogram":
        """Adds another worker's counts.

        Raises:
            ValueError: it was counted in other bins.
        """
        if other.range != self.range:
            raise ValueError("histograms of different ranges cannot be added")
        return Histogram(self.range, self.counts + other.counts, self.dropped + other.dropped)

    @cached_property
    def count(self) -> int:
        """Number of finite distances."""
        return int(self.counts.sum())

    @cached_property
    def constant(self) -> bool:
        """Whether all distances are equal, or there are none."""
        return self.count == 0 or not self.range.low < self.range.high

    @cached_property
    def centres(self) -> Floats:
        """Middles of the bins [BINS], in units of the distance."""
        width = (self.range.high - self.range.low) / BINS
        return np.asarray(self.range.low + width * (np.arange(BINS) + 0.5))

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation; NaN where no distance is finite, exact where all are equal."""
        if self.count == 0:
            return float("nan"), float("nan")
        if self.constant:
            return self.range.low, 0.0
        mean = float(self.counts @ self.centres) / self.count
        return mean, float(np.sqrt(self.counts @ (self.centres - mean) ** 2 / self.count))

    def quantiles(self, shares: npt.ArrayLike) -> Floats:
        """Distances below which given shares of all lie, to the width of a bin; NaN where no distance is finite."""
        wanted = np.asarray(shares, dtype=np.float64)
        if self.count == 0:
            return np.full(wanted.shape, np.nan)
        if self.constant:
            return np.full(wanted.shape, self.range.low)
        edges = np.linspace(self.range.low, self.range.high, BINS + 1)
        filled = np.concatenate([[0], np.cumsum(self.counts)]) / self.count
        # Of empty bins, over which the share does not grow, the first edge counts.
        rising = np.concatenate([[True], np.diff(filled) > 0])
        return np.asarray(np.interp(wanted, filled[rising], edges[rising]))

    def rank(self, distances: npt.ArrayLike) -> Floats:
        """Share of all distances in lower bins: 0..1, NaN for NaN.

        Args:
            distances: [n].
        """
        values = np.asarray(distances, dtype=np.float64)
        if self.constant:
            return np.where(np.isnan(values), np.nan, 0.0)
        below = np.concatenate([[0], np.cumsum(self.counts)]) / self.count
        known = np.nan_to_num(np.clip(values, self.range.low, self.range.high), nan=self.range.low)
        place = _bins(known, self.range)
        rank = np.where(values > self.range.high, 1.0, np.where(values < self.range.low, 0.0, below[place]))
        return np.asarray(np.where(np.isnan(values), np.nan, rank))

    def rebinned(self, bins: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Counts in fewer, equally wide bins, empty ones left out.

        Args:
            bins: their number; a divisor of BINS.

        Returns:
            Middles of the bins and their counts, each [at most bins].
        """
        counts = self.counts.reshape(bins, -1).sum(axis=1)
        centres = self.centres.reshape(bins, -1).mean(axis=1)
        return centres[counts > 0], counts[counts > 0]


def _bins(values: Floats, span: Range) -> npt.NDArray[np.int32]:
    """The bin of each finite value within the range."""
    width = span.high - span.low
    if not width > 0:
        return np.zeros(values.shape, dtype=np.int32)
    # Divided first: the factor itself could overflow where the range is tiny.
    place = ((values - span.low) / width * BINS).astype(np.int32)
    return np.minimum(place, BINS - 1, out=place)
