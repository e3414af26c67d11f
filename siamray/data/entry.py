"""Left and right image of one view of one exam go in; an entry of the store, or the reason why not, comes out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siamray.config import PreparationConfig
from siamray.data.breast import CERTAIN, Breast, crop_box, find_breast, orientation
from siamray.data.dicom import ImageError, read_image
from siamray.data.geometry import Geometry, Transform, clip_box, polygon_box, resample, resample_mask
from siamray.data.image import Blocks, Lazy
from siamray.data.registration import register
from siamray.data.store import SIDES, WHITE, write_entry, write_exclusion
from siamray.data.time_limit import TimeUp, time_limit
from siamray.files import Location

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]
# The arrays and the record of an entry, as siamray.data.store.write_entry takes them.
Pair = tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]

# What the store keeps of a registration beside its transform.
REGISTRATION = ("kind", "dice", "correlation", "fell_back", "outline_mm", "quality")
# The right breast may reach beyond the left crop by this share of the crop's side: only a failed registration
# brings it further out.
REACH = 0.5


@dataclass(frozen=True)
class ImageRow:
    """One image of an entry.

    Attributes:
        image_id: the source's name of it.
        path: its file.
        spacing_mm: where the source knows it, else None.
        findings: category, and box in pixels of the original image or None, of each.
        laterality: L or R.
        assumed_spacing_mm: spacing where neither the source nor the file knows it; None leaves the image out.
        accept: kinds of image that are taken beside ordinary mammograms (siamray.data.sources.accepted).
    """

    image_id: str
    path: str
    spacing_mm: float | None
    findings: tuple[tuple[str, Box | None], ...]
    laterality: str = "L"
    assumed_spacing_mm: float | None = None
    accept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class EntryJob:
    """What is to be prepared; key changes with everything the entry depends on."""

    entry_id: str
    woman_id: str
    exam_id: str
    view: str
    left: ImageRow
    right: ImageRow
    key: str
    config: PreparationConfig


@dataclass(frozen=True)
class _Side:
    """One image, read: original pixels and breast, the way of its crop into the store's spacing, and what is odd."""

    row: ImageRow
    pixels: Lazy
    breast: Breast
    geometry: Geometry
    crop_shape: tuple[int, int]
    notes: tuple[str, ...]


class LeftOut(Exception):
    """A pair cannot be used.

    Attributes:
        reasons: why not, by image id.
        registration: how well the sides fitted, where they were registered.
        seconds: the time limit that an image exceeded, or None.
    """

    def __init__(
        self, reasons: dict[str, str], registration: dict[str, Any] | None = None, seconds: float | None = None
    ) -> None:
        super().__init__("; ".join(dict.fromkeys(reasons.values())))
        self.reasons = reasons
        self.registration = registration
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        """Tells pickle how to make it again: from its reasons, not from their text."""
        return LeftOut, (self.reasons, self.registration, self.seconds)


def prepare_entry(job: EntryJob, store: Location, pair: Callable[[EntryJob], Pair] | None = None) -> None:
    """Prepares an entry and writes it into the store, or writes down why it is left out.

    Args:
        job: the two images and what is to be done to them.
        store: folder of the store.
        pair: does what registered_pair does, elsewhere.

    Raises:
        UserError: the store cannot be written.
    """
    try:
        arrays, record = (pair or registered_pair)(job)
    except LeftOut as error:
        exclude(job, store, error)
        return
    write_entry(store, job.entry_id, arrays, record, job.config.chunk_pixels)


def exclude(job: EntryJob, store: Location, why: LeftOut) -> None:
    """Writes down why an entry is left out.

    Args:
        job: the entry.
        store: folder of the store.
        why: the reasons; an image without one of its own is left out for its partner's sake.

    Raises:
        UserError: the store cannot be written.
    """
    partner = "its partner, the other side of the same view, cannot be used"
    reasons = {row.image_id: why.reasons.get(row.image_id, partner) for row in (job.left, job.right)}
    record = {"key": job.key, "reasons": reasons, "seconds": why.seconds, "registration": why.registration}
    write_exclusion(store, job.entry_id, record)


def registered_pair(job: EntryJob) -> Pair:
    """Reads both images of an entry and brings the right one onto the left one.

    Args:
        job: the two images and what is to be done to them.

    Returns:
        the arrays and the record of the entry, as siamray.data.store.write_entry takes them.

    Raises:
        LeftOut: an image cannot be used, or the two do not fit.
    """
    reasons: dict[str, str] = {}
    sides: list[_Side] = []
    seconds = None
    for row in (job.left, job.right):
        try:
            with time_limit(job.config.image_seconds):
                sides.append(_read(row, job.config))
        except ImageError as error:
            reasons[row.image_id] = str(error)
        except MemoryError:
            reasons[row.image_id] = "it needs more memory than there is; preparation.maximum_megapixels bounds it"
        except TimeUp:
            seconds = job.config.image_seconds
            reasons[row.image_id] = time_out(seconds)
    if reasons:
        raise LeftOut(reasons, seconds=seconds)
    try:
        with time_limit(job.config.image_seconds):
            arrays, record = _registered(job, *sides)
    except TimeUp:
        seconds = job.config.image_seconds
        raise _both_left_out(job, "its registration " + time_out(seconds), None, seconds) from None
    found, config = record["registration"], job.config.registration
    if found["dice"] < config.minimum_overlap:
        reason = f"the breasts overlap less than preparation.registration.minimum_overlap={config.minimum_overlap:g}"
        raise _both_left_out(job, f"not registered: {reason}", found)
    if found["quality"] < config.minimum_quality:
        reason = f"the fit's quality is below preparation.registration.minimum_quality={config.minimum_quality:g}"
        raise _both_left_out(job, f"not registered: {reason}", found)
    return arrays, record


def time_out(seconds: float) -> str:
    """Says that an image took too long."""
    return f"took longer than preparation.image_seconds={seconds:g}"


def _both_left_out(
    job: EntryJob, reason: str, registration: dict[str, Any] | None, seconds: float | None = None
) -> LeftOut:
    return LeftOut(dict.fromkeys((job.left.image_id, job.right.image_id), reason), registration, seconds)


def _read(row: ImageRow, config: PreparationConfig) -> _Side:
    """Reads an image, finds the breast, and lays down how it is oriented and cropped.

    Raises:
        ImageError: it cannot be used.
    """
    image = read_image(Path(row.path), row.accept, round(config.maximum_megapixels * 1e6))
    spacing = row.spacing_mm or image.spacing_mm or row.assumed_spacing_mm
    if not spacing:
        raise ImageError("its pixel spacing is unknown")
    breast = find_breast(image.grey, image.padded)
    if breast.inverted:
        raise ImageError("it looks inverted: its background is bright and the breast dark")
    mask = breast.blocks.values
    if np.count_nonzero(mask) / mask.size < max(config.minimum_breast_share, 1e-6):
        raise ImageError(
            "no breast found: the mask covers less than preparation.minimum_breast_share="
            f"{config.minimum_breast_share} of the image"
        )
    chest = orientation(mask, breast.greys)
    mirrored = chest.side == "right"
    notes = []
    if image.laterality is not None and image.laterality != row.laterality:
        notes.append(f"its header says laterality {image.laterality}, the source {row.laterality}")
    # Shown as radiologists hang them, a left breast has its chest wall at the left edge (IHE Mammography Image).
    expected = "left" if row.laterality == "L" else "right"
    if image.laterality is not None and chest.side != expected and chest.certainty >= CERTAIN:
        notes.append(f"its chest wall lies at the {chest.side}, laterality {row.laterality} says {expected}")
    top, start, bottom, end = crop_box(breast.blocks, round(config.margin_mm / spacing), mirrored)
    geometry = Geometry(mirrored, breast.blocks.shape[1], (top, start), spacing, config.spacing_mm)
    shape = (_pixels((bottom - top) * spacing, config), _pixels((end - start) * spacing, config))
    return _Side(row, image.grey, breast, geometry, shape, tuple(notes))


def _pixels(length_mm: float, config: PreparationConfig) -> int:
    return max(1, round(length_mm / config.spacing_mm))


def _registered(job: EntryJob, left: _Side, right: _Side) -> Pair:
    """Brings both sides into one grid; returns the arrays and the record of the entry."""
    config = job.config
    working = max(config.spacing_mm, config.registration.working_spacing_mm)
    (fixed, fixed_mask), (moving, moving_mask) = (_coarse(side, working) for side in (left, right))
    registration = register(fixed, moving, fixed_mask, moving_mask, working, config.registration)
    origin, shape = _common_grid(left.crop_shape, right, registration.transform, config.spacing_mm)
    record: dict[str, Any] = {
        "key": job.key,
        "entry_id": job.entry_id,
        "woman_id": job.woman_id,
        "exam_id": job.exam_id,
        "view": job.view,
        "shape": list(shape),
        "spacing_mm": config.spacing_mm,
        "findings": [],
    }
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, side in zip(SIDES, (left, right), strict=True):
        transform = Transform() if name == "left" else registration.transform
        geometry = replace(side.geometry, store_origin=origin, transform=transform)
        # Once more from the original pixels: what registration saw was interpolated already.
        pixels, mask = resample(side.pixels, geometry, shape), _mask(side.breast, geometry, shape)
        tissue = pixels[mask]
        arrays[name] = np.rint(np.clip(pixels, 0, 1) * WHITE).astype(np.uint16)
        arrays[f"{name}_mask"] = mask
        record[name] = {
            "image_id": side.row.image_id,
            "geometry": geometry.to_dict(),
            "mean": float(tissue.mean()) if tissue.size else 0.0,
            "deviation": float(tissue.std()) if tissue.size else 0.0,
            "note": "; ".join(side.notes),
        }
        row = side.row
        record["findings"] += [_carried(finding, row.image_id, name, geometry, shape) for finding in row.findings]
    quality = asdict(registration)
    record["registration"] = {key: quality[key] for key in REGISTRATION}
    return arrays, record


def _coarse(side: _Side, spacing_mm: float) -> tuple[Floats, Bools]:
    """Brings a crop and its mask to the spacing it is registered at: from the blocks' means, if these are finer."""
    geometry, blocks = replace(side.geometry, store_spacing_mm=spacing_mm), side.breast.blocks
    finer = blocks.edge * geometry.spacing_mm <= spacing_mm
    pixels = replace(blocks, values=side.breast.greys) if finer else side.pixels
    rows, cols = (max(1, round(size * side.geometry.store_spacing_mm / spacing_mm)) for size in side.crop_shape)
    return resample(pixels, geometry, (rows, cols)), _mask(side.breast, geometry, (rows, cols))


def _mask(breast: Breast, geometry: Geometry, shape: tuple[int, int]) -> Bools:
    """Brings the breast's mask into the store's grid; what is mostly padding there is no breast."""
    mask = resample_mask(breast.blocks, geometry, shape)
    return mask if breast.padding is None else mask & ~resample_mask(breast.padding, geometry, shape)


def _common_grid(
    crop_shape: tuple[int, int], right: _Side, transform: Transform, spacing: float
) -> tuple[tuple[float, float], tuple[int, int]]:
    """Widens the left crop so that the registered right breast, and any lesion in it, lies in the grid as well.

    Returns:
        the grid's upper left corner in mm in the left crop's frame, and its shape.
    """
    size = np.asarray(crop_shape)
    places = replace(right.geometry, transform=transform).to_store(_outline(right.breast.blocks) - 0.5) + 0.5
    low = np.minimum(0, np.floor(places.min(axis=0)).astype(int))
    high = np.maximum(size, np.ceil(places.max(axis=0)).astype(int))
    reach = np.ceil(REACH * size).astype(int)
    low, high = np.maximum(low, -reach), np.minimum(high, size + reach)
    return (float(low[0] * spacing), float(low[1] * spacing)), (int(high[0] - low[0]), int(high[1] - low[1]))


def _outline(mask: Blocks) -> Doubles:
    """Returns the corners of the blocks where a mask ends, in edges of the original's pixels, [N, 2]."""
    inner = np.pad(mask.values, 1)
    inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    blocks = np.argwhere(mask.values & ~inner)
    corners = np.concatenate([blocks + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))])
    return np.asarray(np.minimum(mask.edge * np.unique(corners, axis=0), mask.shape), dtype=np.float64)


def _carried(
    finding: tuple[str, Box | None], image_id: str, side: str, geometry: Geometry, shape: tuple[int, int]
) -> dict[str, Any]:
    """Carries a finding into the store; without a place where it has none, or lies outside the store image."""
    category, box = finding
    polygon = None if box is None else geometry.box_to_store(box)
    return {
        "image_id": image_id,
        "side": side,
        "category": category,
        "box": None if polygon is None else clip_box(polygon_box(polygon), shape),
        "polygon": None if polygon is None else polygon.tolist(),
    }
