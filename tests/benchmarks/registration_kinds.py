"""What each kind of registration is worth: overlap, error on phantoms, lesion survival and time, as a table.

Run: python -m tests.benchmarks.registration_kinds DATA_ROOT [--women N]; DATA_ROOT is the folder of mini-MIAS.
docs/registration.md holds what it prints. About three minutes on one processor.
"""

import argparse
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from siamray.config import PhantomConfig, RegistrationConfig
from siamray.data.breast import crop_box, find_breast, orientation
from siamray.data.geometry import Geometry, Transform, resample, resample_mask
from siamray.data.registration import KINDS, Registration, judge, register
from siamray.data.sources.mias import SPACING_MM, parse_info
from siamray.data.sources.phantom_anatomy import View, _frame, imagine, render

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STORE_MM = 0.4
WINDOW_MM = 15.0
# A pair whose images are laid this far off its registration is a wrong one.
OFF_MM = 40.0
PHANTOM_WOMEN = 12
PHANTOMS = PhantomConfig(height_pixels=448, width_pixels=352, spacing_mm=0.5, lesion_share=1.0)


@dataclass(frozen=True)
class Crop:
    """One breast, chest wall left, in the store's spacing; lesions as (row, col, radius) in mm of the crop."""

    pixels: Floats
    mask: Bools
    spacing_mm: float
    lesions: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two breasts; truth maps places of the left crop in mm, [N, 2], to their places in the right one, if known."""

    name: str
    left: Crop
    right: Crop
    places: Doubles | None = None
    truth: Doubles | None = None


@dataclass(frozen=True)
class Outcome:
    """What one registration of one pair gave."""

    found: Registration
    seconds: float
    local: float
    areas: list[float]
    contrasts: list[float]
    error: float


def cropped(pixels: Floats, spacing_mm: float, circles: list[tuple[float, float, float]]) -> tuple[Crop, Geometry]:
    """Crops an image as preparation does; circles are row, column and radius in its pixels."""
    mask = find_breast(pixels).mask
    mirrored = orientation(mask, pixels).side == "right"
    top, left, bottom, right = crop_box(mask[:, ::-1] if mirrored else mask, round(4 / spacing_mm))
    geometry = Geometry(mirrored, mask.shape[1], (top, left), spacing_mm, STORE_MM)
    shape = (round((bottom - top) * spacing_mm / STORE_MM), round((right - left) * spacing_mm / STORE_MM))
    lesions = []
    for row, col, radius in circles:
        place = (geometry.to_store(np.asarray([[row, col]]))[0] + 0.5) * STORE_MM
        lesions.append((float(place[0]), float(place[1]), radius * spacing_mm))
    crop = Crop(resample(pixels, geometry, shape), resample_mask(mask, geometry, shape), STORE_MM, tuple(lesions))
    return crop, geometry


def film_pairs(root: Path, women: int) -> Iterator[Pair]:
    """Yields the pairs of mini-MIAS; even images are called left."""
    rows, _, _ = parse_info((root / "Info.txt").read_text(encoding="latin-1"))
    numbers = sorted(int(path.stem[3:]) for path in root.glob("mdb*.png") if int(path.stem[3:]) % 2 == 0)
    for number in numbers[:women]:
        crops = []
        for name in (f"mdb{number:03d}", f"mdb{number - 1:03d}"):
            pixels = np.asarray(Image.open(root / f"{name}.png"), dtype=np.float32) / np.float32(255)
            circles = [(1024 - row.circle[1], row.circle[0], row.circle[2]) for row in rows[name] if row.circle]
            crops.append(cropped(pixels, SPACING_MM, circles)[0])
        yield Pair(f"mdb{number:03d}", crops[0], crops[1])


def phantom_pairs(women: int, asymmetry: float = 1.0) -> Iterator[Pair]:
    """Yields pairs of phantoms with the place that every place of the left breast has in the right one."""
    options = PhantomConfig(**{**vars(PHANTOMS), "asymmetry": asymmetry})
    for number in range(women):
        for name in ("CC", "MLO"):
            view = View(imagine(options, number), name)
            crops, ways, frames = [], [], []
            for side in ("L", "R"):
                pixels, findings = render(view, side)
                circles = [
                    (
                        (box["row_min"] + box["row_max"]) / 2,
                        (box["col_min"] + box["col_max"]) / 2,
                        0.25 * (box["row_max"] - box["row_min"] + box["col_max"] - box["col_min"]),
                    )
                    for box in findings
                ]
                crop, geometry = cropped(pixels, options.spacing_mm, circles)
                crops.append(crop)
                ways.append(geometry)
                frames.append(_frame(view, view.woman.generator("side", name, side)))
            places, truth = _same_places(view, frames, ways, options.spacing_mm)
            yield Pair(f"phantom {number} {name}", crops[0], crops[1], places, truth)


def _same_places(
    view: View, frames: list[tuple[Floats, Floats]], ways: list[Geometry], spacing_mm: float
) -> tuple[Doubles, Doubles]:
    """Places in the left breast and where the same anatomy lies in the right one, both in mm of the crops.

    A pixel's anatomy is its place in the frame that both sides share; the right pixel is sought by fixed point steps.
    """
    y, x = frames[0]
    rows, cols = (part[::12].astype(np.float64) for part in np.nonzero(view.inside(y, x) > 5))
    wanted = np.stack([ndimage.map_coordinates(part, [rows, cols], order=1) for part in (y, x)])
    at = np.stack([rows, cols])
    for _ in range(30):
        there = np.stack([ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in frames[1]])
        at = at + (wanted - there) / spacing_mm
    inside = np.all((at >= 0) & (at < np.asarray(view.shape)[:, None]), axis=0)
    left = np.stack([rows, cols], axis=1)[inside]
    right = at.T[inside]
    # The right breast is drawn mirrored.
    right[:, 1] = view.shape[1] - 1 - right[:, 1]
    return (ways[0].to_store(left) + 0.5) * STORE_MM, (ways[1].to_store(right) + 0.5) * STORE_MM


def measure(pair: Pair, config: RegistrationConfig) -> Outcome:
    """Registers a pair and measures what came of it."""
    start = time.process_time()
    found = register(pair.left.pixels, pair.right.pixels, pair.left.mask, pair.right.mask, pair.left.spacing_mm, config)
    seconds = time.process_time() - start
    areas, contrasts = [], []
    for lesion in pair.right.lesions:
        area, contrast = survival(pair.right, lesion, found.transform)
        areas.append(area)
        contrasts.append(contrast)
    error = np.nan
    if pair.places is not None and pair.truth is not None:
        error = float(np.linalg.norm(found.transform.forward(pair.places) - pair.truth, axis=1).mean())
    return Outcome(found, seconds, local_correlation(pair, found.transform), areas, contrasts, error)


def local_correlation(pair: Pair, transform: Transform) -> float:
    """Mean over the overlap of the correlation within windows of WINDOW_MM, both images smoothed by 1 mm."""
    left, right = pair.left, pair.right
    geometry = Geometry(False, right.pixels.shape[1], (0, 0), STORE_MM, STORE_MM, (0.0, 0.0), transform)
    shape = (left.pixels.shape[0], left.pixels.shape[1])
    both = left.mask & resample_mask(right.mask, geometry, shape)
    if not both.any():
        return 0.0
    step = 3
    one, two = (
        ndimage.gaussian_filter(pixels, 1 / STORE_MM)[::step, ::step]
        for pixels in (left.pixels, resample(right.pixels, geometry, shape))
    )
    inside = both[::step, ::step].astype(np.float32)
    window = round(WINDOW_MM / STORE_MM / step)

    def mean(values: Floats) -> Floats:
        return np.asarray(ndimage.uniform_filter(values * inside, window) / np.maximum(weight, 1e-3))

    weight = ndimage.uniform_filter(inside, window)
    one_mean, two_mean = mean(one), mean(two)
    together = mean(one * two) - one_mean * two_mean
    spread = np.maximum(mean(one**2) - one_mean**2, 1e-8) * np.maximum(mean(two**2) - two_mean**2, 1e-8)
    return float((together / np.sqrt(spread))[(inside > 0) & (weight > 0.5)].mean())


def survival(crop: Crop, lesion: tuple[float, float, float], transform: Transform) -> tuple[float, float]:
    """Area and contrast of a lesion after registration, as ratios of what they were before."""
    row, col, radius = lesion
    edge = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    ring = np.stack([row + radius * np.sin(edge), col + radius * np.cos(edge)], axis=1)
    area = polygon_area(transform.inverse(ring)) / polygon_area(ring)
    # The lesion and a ring of as much again around it, before in the crop and after in the registered image.
    share = np.linspace(0, 1, 12, endpoint=False) + 1 / 24
    places = np.concatenate([ring * scale + (1 - scale) * np.asarray([row, col]) for scale in np.sqrt(2 * share)])
    inner = np.repeat(share < 0.5, len(edge))
    geometry = Geometry(False, crop.pixels.shape[1], (0, 0), STORE_MM, STORE_MM, (-40.0, -40.0), transform)
    shape = (crop.pixels.shape[0] + 200, crop.pixels.shape[1] + 200)
    registered = resample(crop.pixels, geometry, shape)
    before = _sampled(crop.pixels, places / STORE_MM - 0.5)
    after = _sampled(registered, (transform.inverse(places) + 40) / STORE_MM - 0.5)
    contrast = [float(values[inner].mean() - values[~inner].mean()) for values in (before, after)]
    return area, contrast[1] / contrast[0] if abs(contrast[0]) > 0.02 else np.nan


def _sampled(pixels: Floats, places: Doubles) -> Floats:
    return np.asarray(ndimage.map_coordinates(pixels, places.T, order=1), dtype=np.float32)


def polygon_area(polygon: Doubles) -> float:
    following = np.roll(polygon, -1, axis=0)
    return abs(float(np.sum(polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]))) / 2


def kinds_table(title: str, pairs: Sequence[Pair]) -> list[str]:
    """Returns a row of figures for each kind of registration."""
    configs = {kind: RegistrationConfig(kind=kind) for kind in KINDS}
    configs["bspline, areas free"] = RegistrationConfig(kind="bspline", bspline_area_factor=100)
    outcomes = {kind: [measure(pair, config) for pair in pairs] for kind, config in configs.items()}
    base = np.mean([outcome.seconds for outcome in outcomes["centroid"]])
    lines = [
        title,
        "",
        "| kind | Dice | correlation | local correlation | error mm | quality, lowest | fell back | ms a pair | "
        "times centroid | lesion area | lesion contrast |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, results in outcomes.items():
        found = [outcome.found for outcome in results]
        milliseconds = 1000 * np.mean([outcome.seconds for outcome in results])
        errors = np.asarray([outcome.error for outcome in results])
        contrasts = np.concatenate([outcome.contrasts for outcome in results])
        figures = [
            kind,
            f"{np.mean([one.dice for one in found]):.3f}",
            f"{np.mean([one.correlation for one in found]):.3f}",
            f"{np.mean([outcome.local for outcome in results]):.3f}",
            "" if np.isnan(errors).all() else f"{errors.mean():.2f}",
            f"{min(one.quality for one in found):.2f}",
            f"{sum(one.fell_back for one in found)}",
            f"{milliseconds:.0f}",
            f"{milliseconds / 1000 / base:.1f}",
            _range(np.concatenate([outcome.areas for outcome in results])),
            _range(contrasts[np.isfinite(contrasts)]),
        ]
        lines.append("| " + " | ".join(figures) + " |")
    lesions = sum(len(pair.right.lesions) for pair in pairs)
    seen = int(np.isfinite(contrasts).sum())
    return [*lines, "", f"{len(pairs)} pairs, {lesions} lesions on the right side, {seen} with contrast.", ""]


def _range(ratios: Doubles) -> str:
    return f"{ratios.min():.2f} to {ratios.max():.2f}" if ratios.size else ""


def quality_table(pairs: Sequence[Pair], kind: str = "affine") -> list[str]:
    """Returns how well quality tells right pairs from wrong ones of each sort."""
    qualities = wrong_qualities(pairs, RegistrationConfig(kind=kind))
    right = qualities.pop("right")
    limit = RegistrationConfig().minimum_quality
    lines = [
        f"Quality of wrong pairs ({kind}); right pairs: lowest {min(right):.2f}, median {np.median(right):.2f}",
        "",
        f"| wrong pair | AUC | median quality | below minimum_quality={limit} |",
        "|---|---|---|---|",
    ]
    for name, wrong in qualities.items():
        auc = roc_auc_score([1] * len(right) + [0] * len(wrong), [*right, *wrong])
        lines.append(f"| {name} | {auc:.3f} | {np.median(wrong):.2f} | {np.mean(np.asarray(wrong) < limit):.0%} |")
    return [*lines, ""]


def wrong_qualities(pairs: Sequence[Pair], config: RegistrationConfig) -> dict[str, list[float]]:
    """Returns the qualities of right pairs, and of pairs made wrong in five ways."""
    random = np.random.default_rng(0)
    found: dict[str, list[float]] = {}

    def note(name: str, left: Crop, right: Crop, off: tuple[float, float] = (0.0, 0.0)) -> None:
        one = register(left.pixels, right.pixels, left.mask, right.mask, STORE_MM, config)
        if off != (0.0, 0.0):
            moved = replace(one.transform, offset=(one.transform.offset[0] + off[0], one.transform.offset[1] + off[1]))
            one = judge(moved, left.pixels, right.pixels, left.mask, right.mask, STORE_MM, config)
        found.setdefault(name, []).append(one.quality)

    for index, pair in enumerate(pairs):
        left, right = pair.left, pair.right
        note("right", left, right)
        other = pairs[(index + 1 + int(random.integers(len(pairs) - 1))) % len(pairs)]
        note("two women", left, other.right)
        note("one image upside down", left, Crop(right.pixels[::-1], right.mask[::-1], STORE_MM))
        angle = random.uniform(0, 2 * np.pi)
        note(f"shifted by {OFF_MM:.0f} mm", left, right, (OFF_MM * np.sin(angle), OFF_MM * np.cos(angle)))
        half = right.mask & (np.arange(len(right.mask))[:, None] < len(right.mask) // 2)
        note("mask of half the breast", left, replace(right, mask=half))
        note("mask of the whole crop", left, replace(right, mask=np.ones_like(right.mask)))
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="the kinds of registration compared, as a table")
    parser.add_argument("data_root", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--women", type=int, default=10**6, help="take the first so many")
    words = parser.parse_args()
    films = list(film_pairs(words.data_root, words.women))
    phantoms = list(phantom_pairs(min(words.women, PHANTOM_WOMEN)))
    lines = kinds_table("mini-MIAS", films) + kinds_table("phantoms", phantoms) + quality_table(films)
    print("\n".join(lines))
    print(f"{platform.machine()}, one processor, processor time; contrast where it was above .02 before.")


if __name__ == "__main__":
    main()
