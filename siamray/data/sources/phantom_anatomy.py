"""Options and a woman's number go in; her four mammograms with the boxes of her lesions come out.

Lengths are in mm. A breast is described in its own frame: y counts down from the nipple's row, x from the chest wall;
both sides share the frame of a view, and a small smooth map of each side carries pixels into it.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from siamray.config import PhantomConfig
from siamray.data.exams import BOX_COLUMNS
from siamray.data.sources.phantom_structures import Canvas, Lesion, Rounded, draw_lesion, draw_rounded, draw_speck

Floats = npt.NDArray[np.float32]
Generator = np.random.Generator

# Exponents of the power spectra: about 3 in mammograms (Burgess, Med Phys 2001).
EXPONENTS = {"gland": 3.1, "strand": 2.8}
# Structures coarser than this look alike in both breasts of a woman, finer ones do not.
SHARED_STRUCTURE_MM = 12.0
# How much of the coarse variance both breasts share: symmetry is never perfect.
SHARED_AT_MOST = 0.93
# Threshold of the glandular field for densities A to D: less lets more gland appear.
DENSITY_THRESHOLDS = {"A": 1.55, "B": 0.95, "C": 0.3, "D": -0.4}
DENSITY_SHARES = {"A": 0.12, "B": 0.38, "C": 0.38, "D": 0.12}
CATEGORY_SHARES = {"mass": 0.5, "calcification": 0.3, "architectural_distortion": 0.2}
MALIGNANT_SHARES = {"mass": 0.55, "calcification": 0.4, "architectural_distortion": 0.6}

# Grey levels in presentation space, as in the films of mini-MIAS.
BACKGROUND, FAT, GLAND, MUSCLE = 0.035, 0.42, 0.24, 0.26
TEXTURE, STRANDS, VESSELS = 0.028, 0.05, 0.045
NOISE = 0.011


@dataclass(frozen=True)
class Woman:
    """What is decided about a woman before any pixel is drawn.

    Attributes:
        options: options of the phantom.
        number: the woman's number, counted from 0.
        density: letter A to D.
        inverted: whether her files are MONOCHROME1.
        affected: side of her lesions, or None.
        lesions: her lesions.
        rounded: benign round structures, each on both sides.
    """

    options: PhantomConfig
    number: int
    density: str
    inverted: bool
    affected: str | None
    lesions: tuple[Lesion, ...]
    rounded: tuple[Rounded, ...]

    def generator(self, *names: str) -> Generator:
        """Returns the random generator of one purpose, so that one option does not move what others decide."""
        return generator(self.options.seed, self.number, *names)


def generator(seed: int, number: int, *names: str) -> Generator:
    """Returns the generator of a purpose, named by words."""
    words = [int.from_bytes(name.encode(), "little") % (2**63) for name in names]
    return np.random.default_rng([seed, number, *words])


def has_lesion(options: PhantomConfig, number: int) -> bool:
    """Tells whether a woman has a lesion: spread evenly, so that any first n women hold lesion_share of them."""
    phase = float(np.random.default_rng([options.seed, 0xFA5E]).uniform())
    share = options.lesion_share
    return bool(np.floor((number + 1) * share + phase) > np.floor(number * share + phase))


def imagine(options: PhantomConfig, number: int) -> Woman:
    """Decides about a woman; she is the same whatever the number of women.

    Args:
        options: options of the phantom.
        number: her number, counted from 0.
    """
    rng = generator(options.seed, number, "woman")
    density = str(rng.choice(list(DENSITY_SHARES), p=list(DENSITY_SHARES.values())))
    inverted = bool(rng.random() < 0.15)
    rounded = tuple(_imagine_rounded(rng) for _ in range(int(rng.integers(1, 5))))
    lesions: tuple[Lesion, ...] = ()
    affected = None
    if has_lesion(options, number):
        rng = generator(options.seed, number, "lesions")
        affected = str(rng.choice(["L", "R"]))
        lesions = tuple(_imagine_lesion(rng) for _ in range(2 if rng.random() < 0.15 else 1))
    return Woman(options, number, density, inverted, affected, lesions, rounded)


def _imagine_rounded(rng: Generator) -> Rounded:
    return Rounded(
        diameter_mm=float(np.exp(rng.uniform(np.log(5), np.log(16)))),
        depth=float(rng.uniform(0.05, 0.95)),
        strength=float(rng.uniform(0.07, 0.19)),
        node=bool(rng.random() < 0.3),
        seed=int(rng.integers(2**31)),
    )


def _imagine_lesion(rng: Generator) -> Lesion:
    category = str(rng.choice(list(CATEGORY_SHARES), p=list(CATEGORY_SHARES.values())))
    malignant = bool(rng.random() < MALIGNANT_SHARES[category])
    low, high = {"mass": (6, 20), "calcification": (5, 15), "architectural_distortion": (12, 26)}[category]
    return Lesion(
        category=category,
        malignant=malignant,
        diameter_mm=float(np.exp(rng.uniform(np.log(low), np.log(high)))),
        depth=float(rng.uniform(0.05, 0.95)),
        strength=float(rng.uniform(0.7, 1.3)),
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class View:
    """What both sides of a woman share in one view.

    Attributes:
        woman: whose.
        name: "CC" or "MLO".
    """

    woman: Woman
    name: str
    size_mm: tuple[float, float] = field(init=False)
    depth_mm: float = field(init=False)
    half_mm: float = field(init=False)
    nipple_mm: float = field(init=False)
    roundness: float = field(init=False)
    armpit_mm: float = field(init=False)
    muscle_mm: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        options = self.woman.options
        height, width = options.height_pixels * options.spacing_mm, options.width_pixels * options.spacing_mm
        body = self.woman.generator("body")
        rng = self.woman.generator("body", self.name)
        depth = body.uniform(0.5, 0.74) * min(width, 165.0) * rng.uniform(0.95, 1.05)
        half = body.uniform(0.34, 0.44) * min(height, 200.0) * rng.uniform(0.95, 1.05)
        place = 0.5 * height + rng.uniform(-0.03, 0.03) * height
        if self.name == "MLO":
            half *= 0.85
            place = rng.uniform(0.52, 0.58) * height
        set_ = object.__setattr__
        set_(self, "size_mm", (height, width))
        set_(self, "depth_mm", float(depth))
        set_(self, "half_mm", float(half))
        set_(self, "nipple_mm", float(place))
        set_(self, "roundness", float(body.uniform(2.0, 2.7)))
        set_(self, "armpit_mm", float(depth * rng.uniform(0.4, 0.6)))
        set_(self, "muscle_mm", (float(height * rng.uniform(0.38, 0.6)), float(depth * rng.uniform(0.3, 0.48))))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return self.woman.options.height_pixels, self.woman.options.width_pixels

    def skin(self, y: Floats) -> Floats:
        """Returns how far the breast reaches from the chest wall at heights y."""
        share = np.clip(np.abs(y) / self.half_mm, 0, 1)
        reach = self.depth_mm * (1 - share**self.roundness) ** 0.5
        if self.name == "MLO":
            up = np.clip(-y / self.nipple_mm, 0, 1)
            fall = np.clip(np.cos(0.5 * np.pi * np.minimum(1.25 * up, 1)), 0, 1) ** 1.3
            reach = np.where(y < 0, self.armpit_mm + (self.depth_mm - self.armpit_mm) * fall, reach)
        return np.asarray(reach, dtype=np.float32)

    def inside(self, y: Floats, x: Floats) -> Floats:
        """Returns the distance from the skin, negative outside; near enough where the outline is not strongly bent."""
        # Looked up at steps of a tenth of a pixel: powers of every pixel would take most of the time.
        low, high = float(y.min()), float(y.max())
        step = 0.1 * self.woman.options.spacing_mm
        heights = np.arange(low, high + 2 * step, step, dtype=np.float32)
        reach = self.skin(heights)
        steep = (1 / np.hypot(1, np.gradient(reach, step))).astype(np.float32)
        index = ((y - np.float32(low)) * np.float32(1 / step)).astype(np.int32)
        body = (reach[index] - np.maximum(x, 0)) * steep[index]
        # The nipple in profile: a disc on the outline.
        nipple = 4.0 - np.hypot(y, x - self.depth_mm)
        return np.asarray(np.maximum(body, nipple), dtype=np.float32)

    def muscle(self, y: Floats, x: Floats) -> Floats:
        """Returns the depth inside the pectoral muscle, negative outside."""
        tall, wide = self.muscle_mm
        edge = wide * (1 - ((y + self.nipple_mm) / tall)) - x
        bulge = 0.06 * wide * np.sin(np.pi * np.clip((y + self.nipple_mm) / tall, 0, 1))
        return np.asarray((edge + bulge) / np.hypot(1, wide / tall), dtype=np.float32)

    def place(self, structure: Lesion | Rounded) -> tuple[float, float]:
        """Returns y and x of a structure's centre: at its depth, at a height that is anywhere in the breast alike.

        Were lesions likelier in the middle than normal patches are, their place would tell them apart.
        """
        rng = np.random.default_rng([structure.seed, len(self.name)])
        margin = min(0.4 * structure.diameter_mm + 2, 0.2 * self.depth_mm)
        for _ in range(400):
            y = np.asarray([rng.uniform(-self.nipple_mm, self.half_mm)], dtype=np.float32)
            reach = self.skin(y)
            x = np.float32(structure.depth) * reach
            likely = rng.random() < float(reach[0]) / self.depth_mm
            within = -self.nipple_mm + margin < float(y[0]) < self.size_mm[0] - self.nipple_mm - margin
            free = self.name == "CC" or float(self.muscle(y, x)[0]) < -margin
            if likely and within and free and margin < float(x[0]) and float(self.inside(y, x)[0]) > margin:
                return float(y[0]), float(x[0])
            if not likely:
                continue
            # At some depths there is hardly any room: the depth then gives way.
            structure = replace(structure, depth=0.9 * structure.depth + 0.1 * rng.uniform(0.2, 0.8))
        return 0.0, 0.5 * self.depth_mm

    @cached_property
    def shared(self) -> dict[str, Floats]:
        """The part of each tissue field that both sides share, on the pixels of the view's frame."""
        return {
            name: random_field(self.woman.generator("shared", self.name, name), shared, self.shape)
            for name, (shared, _) in self._amplitudes.items()
        }

    def own(self, side: str, name: str) -> Floats:
        """Returns the part of a tissue field that only this side has; with it and the shared part variance is one."""
        return random_field(self.woman.generator("own", self.name, side, name), self._amplitudes[name][1], self.shape)

    @cached_property
    def _amplitudes(self) -> dict[str, tuple[Floats, Floats]]:
        """Amplitudes over the half spectrum, of the shared and the own part of each tissue field."""
        options = self.woman.options
        rows = fft.fftfreq(self.shape[0], options.spacing_mm)[:, None]
        frequencies = np.hypot(rows, fft.rfftfreq(self.shape[1], options.spacing_mm)[None, :]).astype(np.float32)
        share = (SHARED_AT_MOST / (1 + (frequencies * SHARED_STRUCTURE_MM) ** 4)) ** options.asymmetry
        amplitudes = {}
        for name, exponent in EXPONENTS.items():
            # Nothing in a breast is coarser than the breast: the spectrum is flat below 1/60 mm.
            fall = np.maximum(frequencies, np.float32(1 / 60)) ** np.float32(-exponent / 2)
            fall[0, 0] = 0
            whole = fall * (self.shape[0] * self.shape[1] / 2 / float(np.sqrt((fall**2).sum())))
            amplitudes[name] = (
                np.asarray(whole * np.sqrt(share), dtype=np.float32),
                np.asarray(whole * np.sqrt(1 - share), dtype=np.float32),
            )
        return amplitudes


def random_field(rng: Generator, amplitude: Floats, shape: tuple[int, int]) -> Floats:
    """Draws a random field of a given spectrum.

    Args:
        rng: its randomness.
        amplitude: over the half spectrum (rows, cols // 2 + 1), of the inverse transform.
        shape: rows and columns.

    Returns:
        The field (rows, cols).
    """
    parts = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    return np.asarray(fft.irfft2(parts * amplitude, s=shape, overwrite_x=True), dtype=np.float32)


def render(view: View, side: str) -> tuple[Floats, list[dict[str, Any]]]:
    """Draws one mammogram, as it is seen: the right breast at the right image edge, the left one at the left.

    Args:
        view: the view that both sides share.
        side: "L" or "R".

    Returns:
        Grey values in 0..1 (rows, cols), and its findings: category, row_min, col_min, row_max, col_max in pixels.
    """
    woman = view.woman
    rng = woman.generator("side", view.name, side)
    y, x = _frame(view, rng)
    canvas = Canvas(_tissue(view, side, y, x), y, x, view.inside(y, x), woman.options.spacing_mm)
    _add_normal_structures(view, canvas, rng)
    boxes = [
        draw_lesion(canvas, canvas.pixel(*view.place(lesion)), lesion, woman.options.contrast)
        for lesion in (woman.lesions if side == woman.affected else ())
    ]
    pixels = _expose(canvas, rng)
    if side == "R":
        cols = float(view.shape[1])
        boxes = [(row_min, cols - col_max, row_max, cols - col_min) for row_min, col_min, row_max, col_max in boxes]
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    findings = [
        {"category": lesion.category, **dict(zip(BOX_COLUMNS, box, strict=True))}
        for lesion, box in zip(woman.lesions, boxes, strict=False)
    ]
    return pixels, findings


def _frame(view: View, rng: Generator) -> tuple[Floats, Floats]:
    """Returns y and x of every pixel in the view's frame: the side's position, rotation, compression and warp."""
    options = view.woman.options
    strength = options.asymmetry
    # Python's numbers, as NumPy's would turn the pictures into float64.
    down, right, turn, tall, wide = (strength * rng.normal(size=5) * (3.0, 1.5, 0.025, 0.03, 0.03)).tolist()
    rows, cols = view.shape
    y = (np.arange(rows, dtype=np.float32)[:, None] * options.spacing_mm - view.nipple_mm).astype(np.float32)
    x = (np.arange(cols, dtype=np.float32)[None, :] * options.spacing_mm).astype(np.float32)
    frame_y = y * (1 + tall) + x * turn + down
    frame_x = x * (1 + wide) - y * turn + abs(right)
    for _ in range(3):
        (a, b), phase = (rng.normal(size=2) * 2 * np.pi / 75).tolist(), rng.uniform(0, 2 * np.pi)
        push = (strength * rng.normal(size=2) * 0.9).tolist()
        # sin(a y + phase + b x), from rows and columns alone.
        wave = np.sin(a * y + phase) * np.cos(b * x) + np.cos(a * y + phase) * np.sin(b * x)
        frame_y, frame_x = frame_y + push[0] * wave, frame_x + push[1] * wave
    return frame_y.astype(np.float32), frame_x.astype(np.float32)


def _tissue(view: View, side: str, y: Floats, x: Floats) -> Floats:
    """Returns fat, gland, strands and muscle before compression falls off towards the skin."""
    spacing = view.woman.options.spacing_mm
    grain = _sampled(view, side, "gland", (y + view.nipple_mm) / spacing, x / spacing)
    fine = grain - _smoothed(grain, 5.0 / spacing)
    # Strands converge on the nipple: their field is drawn over angle and distance from it, and drawn out along it.
    ahead = view.depth_mm + 12 - x
    strand = _sampled(view, side, "strand", np.arctan2(y, ahead) * 70 / spacing, 0.3 * np.hypot(y, ahead) / spacing)
    # Ridges of a random field are curved lines.
    strand = strand - _smoothed(strand, 6.0 / spacing)
    strand = np.exp(-((strand / (0.3 * float(strand.std()))) ** 2))
    disc = ((x - 0.55 * view.depth_mm) / (0.45 * view.depth_mm)) ** 2 + ((y + 2) / (0.62 * view.half_mm)) ** 2
    level = grain - 0.3 * fine + 0.35 * (strand - 0.3)
    gland = _sigmoid((level + 1.1 - 1.2 * disc - DENSITY_THRESHOLDS[view.woman.density]) / 0.4)
    tissue = FAT + GLAND * gland + TEXTURE * fine / float(fine.std()) * (0.35 + 0.65 * gland)
    tissue += STRANDS * (strand - 0.3) * (0.6 + 0.4 * gland)
    if view.name == "MLO":
        muscle = _sigmoid(view.muscle(y, x) / 0.8)
        tissue += muscle * (FAT + MUSCLE + 0.25 * (tissue - FAT) - tissue)
    return np.asarray(tissue, dtype=np.float32)


def _sampled(view: View, side: str, name: str, rows: Floats, cols: Floats) -> Floats:
    """Returns a side's tissue field, shared and own part, at places in pixels of the view's frame."""
    whole = view.shared[name] + view.own(side, name)
    return np.asarray(ndimage.map_coordinates(whole, [rows, cols], order=1, mode="grid-wrap"), dtype=np.float32)


def _smoothed(values: Floats, size: float) -> Floats:
    """Returns the means over squares of a size in pixels."""
    return np.asarray(ndimage.uniform_filter(values, max(1, round(size))), dtype=np.float32)


def _add_normal_structures(view: View, canvas: Canvas, rng: Generator) -> None:
    """Draws what any woman may have: vessels, single calcifications, cysts and nodes on both sides."""
    strength = view.woman.options.asymmetry
    alike = [_vessel(view, view.woman.generator("vessel", view.name, str(i)), rng, strength) for i in range(3)]
    own = [_vessel(view, rng, rng, 0) for _ in range(int(rng.integers(3, 8)))]
    canvas.draw_curves([*alike, *own], width_mm=0.8, strengths=[VESSELS] * len(alike) + [0.6 * VESSELS] * len(own))
    for rounded in view.woman.rounded:
        place = canvas.pixel(*view.place(rounded))
        jitter = strength * rng.normal(size=4) * (1.2, 1.2, 0.06, 0.12)
        draw_rounded(canvas, (place[0] + jitter[0], place[1] + jitter[1]), rounded, 1 + jitter[2], 1 + jitter[3], rng)
    for _ in range(int(rng.poisson(3.0))):
        draw_speck(canvas, canvas.anywhere(rng), rng.uniform(0.5, 1.2), rng.uniform(0.1, 0.25))


def _vessel(view: View, course: Generator, rng: Generator, jitter: float) -> Floats:
    """Returns the points (n, 2) of a curve from the chest wall towards the nipple, in the view's frame."""
    share = np.linspace(0, 1, 160)
    start, end = course.uniform(-0.9, 0.9), course.uniform(-0.5, 0.5)
    reach = course.uniform(0.6, 0.95)
    shift = jitter * rng.normal(size=2) * 2.0
    bend = sum(course.normal() * 4 / k * np.sin(np.pi * k * share + course.uniform(0, 6)) for k in (1, 2, 3, 5))
    y = (start + (end - start) * share) * view.half_mm + bend + shift[0]
    return np.asarray(np.stack([y, reach * share * view.depth_mm + shift[1]], axis=1), dtype=np.float32)


def _expose(canvas: Canvas, rng: Generator) -> Floats:
    """Turns tissue into a picture: thinner towards the skin, a skin line, detector noise, a background above zero."""
    roll = 14.0
    share = np.clip(canvas.inside / roll, 0, 1)
    thickness = np.sqrt(1 - (1 - share) ** 2)
    # The breast's edge is sharp only to the detector's blur.
    body = np.clip(canvas.inside / 0.6, 0, 1)
    skin = 0.05 * np.exp(-(((canvas.inside - 0.9) / 0.7) ** 2))
    pixels = BACKGROUND + body * (canvas.tissue * (0.12 + 0.88 * thickness) + skin)
    pixels = pixels * rng.uniform(0.95, 1.05) + rng.uniform(-0.01, 0.01)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * NOISE * rng.uniform(0.8, 1.2)
    pixels = pixels + noise * np.sqrt(0.25 + np.clip(pixels, 0, 1))
    return np.asarray(np.clip(pixels, 0.001, 1), dtype=np.float32)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * values), dtype=np.float32)
