"""Left and right image of one view of one exam go in; an entry of the store, or the reason why not, comes out."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siamray.config import PreparationConfig
from siamray.data.breast import breast_mask, chest_side, crop_box
from siamray.data.dicom import ImageError, read_image
from siamray.data.geometry import Geometry, Transform, clip_box, polygon_box, resample, resample_mask
from siamray.data.registration import register
from siamray.data.store import SIDES, WHITE, write_entry, write_exclusion

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

# The right breast may reach beyond the left crop by this share of the crop's side: only a failed registration
# brings it further out.
REACH = 0.5


@dataclass(frozen=True)
class ImageRow:
    """One image of an entry: file, spacing where the source knows it, findings (category, and box or None)."""

    image_id: str
    path: str
    spacing_mm: float | None
    findings: tuple[tuple[str, Box | None], ...]


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
    """One image, read: original pixels and mask, and the way of its crop into the store's spacing."""

    row: ImageRow
    pixels: Floats
    mask: Bools
    geometry: Geometry
    crop_shape: tuple[int, int]


class _LeftOut(Exception):
    """An image cannot be used; the message is the reason."""


def prepare_entry(job: EntryJob, store: Path) -> None:
    """Prepares an entry and writes it into the store, or writes down why it is left out.

    Args:
        job: the two images and what is to be done to them.
        store: folder of the store.

    Raises:
        UserError: the store cannot be written.
    """
    reasons: dict[str, str] = {}
    sides: dict[str, _Side] = {}
    for name in SIDES:
        row = job.left if name == "left" else job.right
        try:
            sides[name] = _read(row, job.config)
        except _LeftOut as error:
            reasons[row.image_id] = str(error)
    if not reasons:
        arrays, record = _registered(job, sides["left"], sides["right"])
        dice = record["registration"]["dice"]
        if dice >= job.config.registration.minimum_overlap:
            write_entry(store, job.entry_id, arrays, record, job.config.chunk_pixels)
            return
        reasons = dict.fromkeys(
            (job.left.image_id, job.right.image_id),
            "not registered: the breasts overlap less than preparation.registration.minimum_overlap="
            f"{job.config.registration.minimum_overlap}",
        )
    for row in (job.left, job.right):
        reasons.setdefault(row.image_id, "its partner, the other side of the same view, cannot be used")
    write_exclusion(store, job.entry_id, {"key": job.key, "reasons": reasons})


def _read(row: ImageRow, config: PreparationConfig) -> _Side:
    """Reads an image, finds the breast, and lays down how it is oriented and cropped."""
    try:
        image = read_image(Path(row.path))
    except ImageError as error:
        raise _LeftOut(str(error)) from None
    spacing = row.spacing_mm or image.spacing_mm
    if not spacing:
        raise _LeftOut("its pixel spacing is unknown")
    mask = breast_mask(image.pixels, image.padding)
    if mask.mean() < max(config.minimum_breast_share, 1e-6):
        raise _LeftOut(
            "no breast found: the mask covers less than preparation.minimum_breast_share="
            f"{config.minimum_breast_share} of the image"
        )
    mirrored = chest_side(mask, image.pixels) == "right"
    top, start, bottom, end = crop_box(mask[:, ::-1] if mirrored else mask, round(config.margin_mm / spacing))
    geometry = Geometry(mirrored, mask.shape[1], (top, start), spacing, config.spacing_mm)
    shape = (_pixels((bottom - top) * spacing, config), _pixels((end - start) * spacing, config))
    return _Side(row, image.pixels, mask, geometry, shape)


def _pixels(length_mm: float, config: PreparationConfig) -> int:
    return max(1, round(length_mm / config.spacing_mm))


def _registered(job: EntryJob, left: _Side, right: _Side) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Brings both sides into one grid; returns the arrays and the record of the entry."""
    config = job.config
    fixed, moving = (resample(side.pixels, side.geometry, side.crop_shape) for side in (left, right))
    fixed_mask, moving_mask = (resample_mask(side.mask, side.geometry, side.crop_shape) for side in (left, right))
    registration = register(fixed, moving, fixed_mask, moving_mask, config.spacing_mm, config.registration)
    origin, shape = _common_grid(left.crop_shape, moving_mask, registration.transform, config.spacing_mm)
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
        pixels, mask = resample(side.pixels, geometry, shape), resample_mask(side.mask, geometry, shape)
        tissue = pixels[mask]
        arrays[name] = np.rint(np.clip(pixels, 0, 1) * WHITE).astype(np.uint16)
        arrays[f"{name}_mask"] = mask
        record[name] = {
            "image_id": side.row.image_id,
            "geometry": geometry.to_dict(),
            "mean": float(tissue.mean()) if tissue.size else 0.0,
            "deviation": float(tissue.std()) if tissue.size else 0.0,
        }
        row = side.row
        record["findings"] += [_carried(finding, row.image_id, name, geometry, shape) for finding in row.findings]
    quality = asdict(registration)
    record["registration"] = {key: quality[key] for key in ("kind", "dice", "correlation", "fell_back")}
    return arrays, record


def _common_grid(
    crop_shape: tuple[int, int], moving_mask: Bools, transform: Transform, spacing: float
) -> tuple[tuple[float, float], tuple[int, int]]:
    """Widens the left crop so that the registered right breast, and any lesion in it, lies in the grid as well.

    Returns:
        the grid's upper left corner in mm in the left crop's frame, and its shape.
    """
    rows, cols = np.nonzero(moving_mask)
    size = np.asarray(crop_shape)
    low, high = np.zeros(2, dtype=int), size.copy()
    if rows.size:
        step = max(1, rows.size // 4000)
        places = (np.stack([rows, cols], axis=1)[::step].astype(np.float64) + 0.5) * spacing
        found = transform.inverse(places) / spacing
        low = np.minimum(low, np.floor(found.min(axis=0)).astype(int))
        high = np.maximum(high, np.ceil(found.max(axis=0)).astype(int))
    reach = np.ceil(REACH * size).astype(int)
    low, high = np.maximum(low, -reach), np.minimum(high, size + reach)
    return (float(low[0] * spacing), float(low[1] * spacing)), (int(high[0] - low[0]), int(high[1] - low[1]))


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
