"""A breast's tissue and a structure go in; the structure is drawn into it, and the box of a lesion comes out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
Generator = np.random.Generator
Place = tuple[float, float]

# Brightness that lesions add at contrast 1, in grey levels of presentation space.
MASS, SPICULE, SPECK = 0.17, 0.12, 0.36


@dataclass(frozen=True)
class Rounded:
    """A cyst or lymph node that lies on both sides at mirrored places.

    Attributes:
        diameter_mm: its diameter.
        depth: its distance from the chest wall as a share of the breast's reach there.
        strength: added grey level at its centre.
        node: whether it has the dark, fatty hilum of a lymph node.
        seed: seed of its height in each view.
    """

    diameter_mm: float
    depth: float
    strength: float
    node: bool
    seed: int


@dataclass(frozen=True)
class Lesion:
    """A lesion, seen in both views of one breast.

    Attributes:
        category: "mass", "calcification" or "architectural_distortion".
        malignant: decides how irregular it is.
        diameter_mm: its diameter; of a cluster or distortion, the extent.
        depth: its distance from the chest wall as a share of the breast's reach there.
        strength: factor on its brightness.
        seed: seed of its shape, and of its height in each view.
    """

    category: str
    malignant: bool
    diameter_mm: float
    depth: float
    strength: float
    seed: int


@dataclass
class Canvas:
    """A breast that is being drawn.

    Attributes:
        tissue: grey levels before compression falls off towards the skin (rows, cols); changed in place.
        y: height of every pixel in the view's frame, in mm (rows, cols).
        x: distance of every pixel from the chest wall in the view's frame, in mm (rows, cols).
        inside: distance of every pixel from the skin in mm, negative outside (rows, cols).
        spacing_mm: pixel spacing.
    """

    tissue: Floats
    y: Floats
    x: Floats
    inside: Floats
    spacing_mm: float

    def pixel(self, y: float, x: float) -> tuple[int, int]:
        """Returns the pixel nearest to a place of the view's frame."""
        nearest = int(np.argmin((self.y - np.float32(y)) ** 2 + (self.x - np.float32(x)) ** 2))
        return nearest // self.y.shape[1], nearest % self.y.shape[1]

    def anywhere(self, rng: Generator) -> Place:
        """Returns a place in the breast, at least 5 mm from the skin where there is any."""
        rows, cols = self.tissue.shape
        for _ in range(50):
            row, col = int(rng.integers(rows)), int(rng.integers(cols))
            if self.inside[row, col] > 5:
                break
        return float(row), float(col)

    def around(self, place: Place, radius_mm: float) -> tuple[tuple[slice, slice], Floats, Floats]:
        """Returns the window around a place, and its pixels' offsets down and right of the place, in mm."""
        radius = int(np.ceil(radius_mm / self.spacing_mm)) + 1
        rows, cols = self.tissue.shape
        # Empty where the place lies too far outside the image.
        top, bottom = np.clip([int(place[0]) - radius, int(place[0]) + radius + 1], 0, rows).tolist()
        left, right = np.clip([int(place[1]) - radius, int(place[1]) + radius + 1], 0, cols).tolist()
        down = (np.arange(top, bottom, dtype=np.float32)[:, None] - place[0]) * self.spacing_mm
        across = (np.arange(left, right, dtype=np.float32)[None, :] - place[1]) * self.spacing_mm
        return (slice(top, bottom), slice(left, right)), down.astype(np.float32), across.astype(np.float32)

    def box(self, place: Place, half_mm: float) -> Box:
        """Returns the square box around a place, clipped to the image."""
        half = half_mm / self.spacing_mm
        rows, cols = self.tissue.shape
        row, col = place[0] + 0.5, place[1] + 0.5
        return max(0.0, row - half), max(0.0, col - half), min(float(rows), row + half), min(float(cols), col + half)

    def draw_curves(self, curves: list[Floats], width_mm: float, strengths: list[float]) -> None:
        """Draws curves given in the view's frame, shifted as a whole to where their middle lies in the image.

        Args:
            curves: points (n, 2) of each curve, y and x in mm.
            width_mm: full width at half their height.
            strengths: added grey level of each curve.
        """
        lines = []
        for curve in curves:
            middle = curve[len(curve) // 2]
            row, col = self.pixel(float(middle[0]), float(middle[1]))
            lines.append(np.asarray((curve - middle) / self.spacing_mm + (row, col), dtype=np.float32))
        most = max(strengths)
        picture = strokes(self.tissue.shape, lines, width_mm / self.spacing_mm, [s / most for s in strengths])
        self.tissue += np.float32(most) * picture


def strokes(shape: tuple[int, ...], lines: list[Floats], width: float, strengths: list[float] | None = None) -> Floats:
    """Draws soft lines.

    Args:
        shape: rows and columns of the picture.
        lines: points (n, 2) as row and column, in pixels.
        width: full width of the lines at half their height, in pixels.
        strengths: height of each line, at most 1; None for 1.

    Returns:
        A picture (rows, cols) with the lines' heights on their centres, 0 away from them.
    """
    picture = Image.new("L", (shape[1], shape[0]), 0)
    pen = ImageDraw.Draw(picture)
    for line, strength in zip(lines, strengths or [1.0] * len(lines), strict=True):
        pen.line([(float(col), float(row)) for row, col in line], fill=round(255 * strength))
    deviation = max(width, 1.0) / 2.355
    soft = ndimage.gaussian_filter(np.asarray(picture, dtype=np.float32) / 255, deviation)
    # A line one pixel wide keeps 1 / (deviation sqrt(2 pi)) of its height.
    return np.minimum(soft * np.float32(deviation * np.sqrt(2 * np.pi)), 1.3)


def draw_rounded(
    canvas: Canvas, place: Place, structure: Rounded, size: float, strength: float, rng: Generator
) -> None:
    """Draws a cyst or lymph node: smooth, round to oval.

    Args:
        canvas: where.
        place: row and column of its centre, before the side's jitter in pixels.
        structure: what.
        size: this side's factor on the diameter.
        strength: this side's factor on the brightness.
        rng: its turn and ovalness.
    """
    radius = 0.5 * structure.diameter_mm * size
    window, down, across = canvas.around(place, 1.6 * radius + 2)
    turn, oval = rng.uniform(0, np.pi), rng.uniform(0.8, 1.0)
    along = np.cos(turn) * down + np.sin(turn) * across
    beside = (np.cos(turn) * across - np.sin(turn) * down) / oval
    shape = _blob(np.hypot(along, beside), np.asarray(radius, dtype=np.float32), 0.5)
    if structure.node:
        shape = shape - 0.7 * _blob(np.hypot(along - 0.3 * radius, beside), np.float32(0.45 * radius), 0.5)
    canvas.tissue[window] += np.float32(structure.strength * strength) * shape


def draw_speck(canvas: Canvas, place: Place, diameter_mm: float, strength: float) -> None:
    """Draws a calcification; below the pixel size it fades by the share of the pixel that it fills."""
    deviation = max(diameter_mm / 2.355, 0.42 * canvas.spacing_mm)
    filled = min(1.0, (diameter_mm / 2.355 / deviation) ** 2)
    window, down, across = canvas.around(place, 4 * deviation)
    spot = np.exp(-0.5 * (down**2 + across**2) / deviation**2)
    canvas.tissue[window] += np.float32(strength * filled) * spot


def draw_lesion(canvas: Canvas, place: Place, lesion: Lesion, contrast: float) -> Box:
    """Draws a lesion.

    Args:
        canvas: where.
        place: row and column of its centre, in pixels.
        lesion: what.
        contrast: factor on its strength.

    Returns:
        Its box in pixels: row_min, col_min, row_max, col_max.
    """
    rng = np.random.default_rng([lesion.seed, len(lesion.category)])
    draw = {"mass": _draw_mass, "calcification": _draw_cluster, "architectural_distortion": _draw_distortion}
    return canvas.box(place, draw[lesion.category](canvas, place, lesion, contrast * lesion.strength, rng))


def _draw_mass(canvas: Canvas, place: Place, lesion: Lesion, strength: float, rng: Generator) -> float:
    """Draws a mass; malignant ones are irregular and spiculated. Returns half the side of its box in mm."""
    radius = 0.5 * lesion.diameter_mm
    spiculated = lesion.malignant and rng.random() < 0.7
    reach = radius * (2.4 if spiculated else 1.6) + 2
    window, down, across = canvas.around(place, reach)
    angle, distance = np.arctan2(down, across), np.hypot(down, across)
    unevenness = 0.16 if lesion.malignant else 0.07
    edge = np.ones_like(angle)
    for k in range(2, 9):
        edge += unevenness * rng.normal() / np.sqrt(k - 1) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    shape = _blob(distance, np.maximum(edge, 0.5) * np.float32(radius), 0.9 if lesion.malignant else 0.6)
    canvas.tissue[window] += np.float32(strength * MASS) * shape
    if spiculated:
        lines = _spicules(rng, int(rng.integers(9, 18)), 0.6 * radius, (1.3 * radius, 2.2 * radius))
        _draw_local(canvas, window, place, lines, strength * SPICULE)
    return radius * (1.35 if spiculated else 1.15) + 0.6


def _draw_cluster(canvas: Canvas, place: Place, lesion: Lesion, strength: float, rng: Generator) -> float:
    """Draws a cluster of calcifications. Returns half the side of its box in mm."""
    radius = 0.5 * lesion.diameter_mm
    number = int(rng.integers(10, 22)) if lesion.malignant else int(rng.integers(7, 14))
    for _ in range(number):
        angle, distance = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform(0, 1))
        offset = distance / canvas.spacing_mm
        speck = (place[0] + offset * np.sin(angle), place[1] + offset * np.cos(angle))
        draw_speck(canvas, speck, rng.uniform(0.3, 0.8), strength * SPECK * rng.uniform(0.6, 1.4))
    return radius + 1.0


def _draw_distortion(canvas: Canvas, place: Place, lesion: Lesion, strength: float, rng: Generator) -> float:
    """Pulls the tissue towards a point and draws fine spicules from it. Returns half the side of its box in mm."""
    radius = 0.5 * lesion.diameter_mm
    window, down, across = canvas.around(place, 2.2 * radius)
    distance = np.hypot(down, across)
    # Sampling further out shows tissue nearer to the centre than it lay: a pull.
    pull = 1 + min(strength, 2.0) * np.exp(-((distance / (0.8 * radius)) ** 2))
    rows = down * pull / canvas.spacing_mm + place[0] - window[0].start
    cols = across * pull / canvas.spacing_mm + place[1] - window[1].start
    canvas.tissue[window] = ndimage.map_coordinates(canvas.tissue[window], [rows, cols], order=1, mode="nearest")
    lines = _spicules(rng, int(rng.integers(9, 16)), 0.1 * radius, (0.6 * radius, 1.3 * radius))
    _draw_local(canvas, window, place, lines, strength * SPICULE)
    return radius


def _spicules(rng: Generator, number: int, start_mm: float, lengths_mm: tuple[float, float]) -> list[Floats]:
    """Returns slightly bent lines (n, 2) that leave a centre, as offsets down and right in mm."""
    share = np.linspace(0, 1, 24)
    lines = []
    for place in range(number):
        angle = 2 * np.pi * (place + rng.uniform(-0.35, 0.35)) / number
        distance = start_mm + (rng.uniform(*lengths_mm) - start_mm) * share
        angles = angle + rng.normal() * 0.25 * share**2
        lines.append(np.asarray(distance[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1), np.float32))
    return lines


def _draw_local(
    canvas: Canvas, window: tuple[slice, slice], place: Place, lines: list[Floats], strength: float
) -> None:
    """Draws lines, given as offsets from a place in mm, that fade outwards."""
    corner = (window[0].start, window[1].start)
    shape = canvas.tissue[window].shape
    pixels = [line / canvas.spacing_mm + np.subtract(place, corner) for line in lines]
    picture = strokes(shape, pixels, 0.5 / canvas.spacing_mm)
    furthest = max(float(np.hypot(*line[-1])) for line in lines)
    down = (np.arange(shape[0])[:, None] + corner[0] - place[0]) * canvas.spacing_mm
    across = (np.arange(shape[1])[None, :] + corner[1] - place[1]) * canvas.spacing_mm
    fade = np.clip(1.15 - np.hypot(down, across) / furthest, 0, 1)
    canvas.tissue[window] += (strength * picture * fade).astype(np.float32)


def _blob(distance: Floats, radius: Floats | np.float32, edge_mm: float) -> Floats:
    """Returns a soft-edged dome of height 1: the thickness of a ball, seen through."""
    inner = np.clip(1 - (distance / (1.25 * radius)) ** 2, 0, 1) ** 0.5
    rim = 0.5 + 0.5 * np.tanh((radius - distance) / edge_mm)
    return np.asarray(inner * rim, dtype=np.float32)
