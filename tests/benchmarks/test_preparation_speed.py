"""Generated DICOM mammograms go in; images per second of siamray and of a plain pydicom and OpenCV script come out.

Run: python -m pytest tests/benchmarks/test_preparation_speed.py --benchmark-only -s. Ratios of runs that take turns in
one process on one core, decoding and writing included; printed, never asserted: a slow machine is no failure.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_voi_lut
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

from siamray.config import PhantomConfig, PreparationConfig
from siamray.data import entry
from siamray.data.entry import EntryJob, ImageRow, prepare_entry
from siamray.data.sources.phantom import with_marker
from siamray.data.sources.phantom_anatomy import View, imagine, render
from siamray.data.store import read_entry
from tests.data.dicom_files import mammogram, write

pytestmark = pytest.mark.benchmark
ROUNDS = 4
# Rows, columns and pixel spacing in mm of the detectors of two vendors.
LARGE, SMALL = (3518, 2800, 0.07), (2294, 1914, 0.094)
# Detector, encoding, and pixel spacing of the store: what siamray stores unless asked, and what shows fine detail.
CASES = [
    (LARGE, None, 0.4),
    (LARGE, None, 0.1),
    (SMALL, None, 0.4),
    (SMALL, RLELossless, 0.4),
    (SMALL, JPEG2000Lossless, 0.4),
]
KINDS = ("none", "affine")
# Functions that prepare_entry calls, by the stage they make.
STAGES = {
    "decode": ("read_image",),
    "mask": ("find_breast", "orientation", "crop_box"),
    "registration": ("register",),
    "resample": ("resample", "resample_mask"),
    "write": ("write_entry",),
}


@dataclass(frozen=True)
class Pair:
    """A left and a right mammogram of one detector and encoding, and the pixel spacing they are brought to."""

    name: str
    paths: tuple[Path, Path]
    spacing_mm: float


def pairs(folder: Path) -> Iterator[Pair]:
    """Writes phantoms, drawn coarsely, enlarged and given a detector's noise, as DICOM files."""
    noise = np.random.default_rng(0)
    for number, ((rows, cols, spacing), syntax, spacing_mm) in enumerate(CASES):
        view = View(imagine(PhantomConfig(), number), "MLO")
        paths = []
        for side in ("L", "R"):
            drawn = Image.fromarray(with_marker(render(view, side)[0], side, "MLO"))
            grey = np.asarray(drawn.resize((cols, rows), Image.Resampling.BICUBIC))
            # Detectors cut the noise of the air off; in tissue it is a few of 4096 levels.
            spread = np.where(grey > 0.04, 12, 0)
            stored = np.clip(120 + 3840 * grey + spread * noise.standard_normal(grey.shape), 0, 4095)
            elements = {"ImageLaterality": side, "ImagerPixelSpacing": [spacing, spacing]}
            dataset = mammogram(stored.astype(np.uint16), **elements)
            if syntax is not None:
                # pydicom's own run-length encoder is plain Python, and slow, but it is not timed.
                dataset.compress(syntax)
            paths.append(write(folder, dataset, f"{number}{side}.dcm"))
        word = "uncompressed" if syntax is None else UID(syntax).name
        yield Pair(f"{rows} x {cols} {word}", (paths[0], paths[1]), spacing_mm)


def job(pair: Pair, kind: str) -> EntryJob:
    default = PreparationConfig(spacing_mm=pair.spacing_mm)
    config = replace(default, registration=replace(default.registration, kind=kind))
    left, right = (ImageRow(path.stem, str(path), None, (), side) for path, side in zip(pair.paths, "LR", strict=True))
    return EntryJob("entry", "woman", "exam", "MLO", left, right, "", config)


def plain(source: Path, target: Path, shape: tuple[int, int]) -> None:
    """What is usually done: window, stretch to 8 bit, threshold, largest contour, crop, resize, 16 bit PNG."""
    import cv2

    dataset = pydicom.dcmread(source)
    pixels = apply_voi_lut(dataset.pixel_array, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    _, mask = cv2.threshold((pixels * 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    col, row, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    crop = pixels[row : row + height, col : col + width]
    small = cv2.resize(crop, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    assert cv2.imwrite(str(target), (small * 65535).astype(np.uint16))


@contextmanager
def profiled(seconds: Counter[str]) -> Iterator[None]:
    """Adds up what each stage of prepare_entry takes, by stage."""

    def timed(stage: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **named: object) -> object:
            start = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                seconds[stage] += time.perf_counter() - start

        return run

    with pytest.MonkeyPatch.context() as patch:
        for stage, names in STAGES.items():
            for name in names:
                patch.setattr(entry, name, timed(stage, getattr(entry, name)))
        yield


def test_preparation_against_plain_script(tmp_path: Path, benchmark: Callable[..., object]) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.setNumThreads(1)
    print(f"\nimages/s on one core, best of {ROUNDS} rounds that take turns; ms an image of each stage")
    for pair in pairs(tmp_path):
        seconds = {"plain": [], **{kind: [] for kind in KINDS}}
        stages = {kind: Counter() for kind in KINDS}
        ratios = {kind: [] for kind in KINDS}
        shape = (0, 0)
        for number, kind in itertools.product(range(ROUNDS + 1), KINDS):
            store = tmp_path / f"{pair.paths[0].stem}-{kind}-{number}"
            counted = Counter()
            start = time.perf_counter()
            with profiled(counted):
                prepare_entry(job(pair, kind), store)
            ours = time.perf_counter() - start
            record = read_entry(store, "entry")
            assert record is not None, "left out"
            shape = tuple(record["shape"])
            start = time.perf_counter()
            for path in pair.paths:
                plain(path, path.with_suffix(".png"), shape)
            theirs = time.perf_counter() - start
            # The first round warms up.
            if number > 0:
                seconds[kind].append(ours)
                seconds["plain"].append(theirs)
                ratios[kind].append(theirs / ours)
                stages[kind] += counted + Counter({"else": ours - counted.total()})
        rates = {name: 2 / min(values) for name, values in seconds.items()}
        print(f"{pair.name} to {shape[0]} x {shape[1]}, {pair.spacing_mm} mm: plain {rates['plain']:.1f}")
        for kind in KINDS:
            parts = ", ".join(f"{name} {500 * value / ROUNDS:.0f}" for name, value in stages[kind].most_common())
            times = f"{np.median(ratios[kind]):.2f} times plain (aim: 2)"
            print(f"  registration {kind}: {rates[kind]:.1f}, {times}; {parts}")
    benchmark(lambda: None)
