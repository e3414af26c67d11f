"""A folder goes in; a small copy of INbreast, true to its format, comes out, drawn from phantoms.

``python -m tests.data.sources.inbreast_copy OUT``. True are the names of files, folders and columns, the words and the
lists of regions that OsiriX wrote, and what is odd in the set: a table that names no patient, several exams of a woman,
exams with one side only, ML for MLO in file names, a view FB, two images of one side and view, BI-RADS with letters and
different in the views of a breast, a cell of blanks for a density, misspelt names of regions, single points,
regions beyond the image's edge, regions without name, images without regions. The table is the csv that comes with the
set; its twin in Excel's old format cannot be written here.
"""

import plistlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from siamray.config import PhantomConfig
from siamray.data.sources.phantom import mammogram
from siamray.data.sources.phantom_anatomy import View, imagine, render

PHANTOMS = PhantomConfig(height_pixels=192, width_pixels=160, spacing_mm=0.9, lesion_share=0.0)
HEADER = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
WOMEN = ("6c613a14b80a8591", "036aff49b8ac84f0", "d713ef5849f98b6c", "fe7d005dcbbfb46d")
# image, woman (place in WOMEN), side, view, date, ACR, BI-RADS
IMAGES = [
    ("20586908", 0, "R", "CC", "200902", "2", "2"),
    ("20586934", 0, "L", "CC", "200902", "2", "5"),
    ("20586986", 0, "L", "MLO", "200902", "2", "4b"),
    ("20586960", 0, "R", "MLO", "200902", "2", "2"),
    # Her next exam, listed first in the files' order.
    ("20586100", 0, "R", "CC", "201001", "2", "1"),
    ("20586126", 0, "L", "CC", "201001", "2", "6"),
    ("22670094", 1, "R", "CC", "201001", "4", "4a"),
    ("22670124", 1, "L", "CC", "201001", "4", "2"),
    ("22670147", 1, "R", "MLO", "201001", "4", "3"),
    ("22670177", 1, "L", "MLO", "201001", "4", "2"),
    ("50994273", 2, "R", "CC", "200901", "3", "4a"),
    ("50994300", 2, "R", "FB", "200901", "3", "2"),
    ("50994327", 2, "L", "MLO", "200901", "3", "2"),
    ("50994354", 2, "R", "MLO", "200901", "3", "4a"),
    ("50994381", 2, "L", "CC", "200901", "3", "2"),
    ("50994408", 2, "R", "CC", "200901", "3", "2"),
    ("53582540", 3, "R", "MLO", "201001", " " * 193, "1"),
    ("53582567", 3, "R", "CC", "201001", "2", "1"),
]
_SQUARE = ((30.4, 60.2), (70.0, 60.0), (70.9, 99.5), (31.0, 100.7))
# Regions by image: name and points (x, y), which are mirrored in right breasts.
REGIONS: dict[str, list[tuple[str | None, tuple[tuple[float, float], ...]]]] = {
    "20586934": [("Mass", _SQUARE), ("Espiculated Region", _SQUARE), ("Calcification", ((50.5, 80.25),))],
    "20586986": [("Spiculated Region", _SQUARE), ("Unnamed", ((40.0, 2.0),)), ("Point 3", ((1.0, 80.0),))],
    "20586126": [("Cluster", _SQUARE), ("Distortion", ((-5.0, 50.0), (20.0, 50.0), (20.0, 80.0)))],
    "22670094": [("Assymetry", _SQUARE), ("Point 1", ((40.0, 90.0),)), ("Calcifications", _SQUARE)],
    "22670147": [("Asymmetry", _SQUARE), ("Spiculated region", _SQUARE), (None, _SQUARE), ("Cyst", _SQUARE)],
    "50994273": [],
}


def write_copy(root: Path) -> None:
    """Writes the copy."""
    (root / "AllDICOMs").mkdir(parents=True)
    (root / "AllXML").mkdir()
    lines = [HEADER]
    for image, woman, side, view, date, density, birads in IMAGES:
        lines.append(";".join(["removed", "removed", side, view, date, image, density, birads]))
        drawn = "CC" if view == "FB" else view
        film = _film(woman, side, drawn, bool(REGIONS.get(image)))
        dataset = mammogram(film, imagine(PHANTOMS, woman), side, view)
        dataset.PatientID, dataset.PatientName, dataset.Manufacturer = "removed", "removed", "SIEMENS"
        name = f"{image}_{WOMEN[woman]}_MG_{side}_{'ML' if view == 'MLO' else view}_ANON.dcm"
        dataset.save_as(root / "AllDICOMs" / name, enforce_file_format=True)
    # The footer counts what is above it.
    lines += [";;;;;;;", f";;;;;;;{len(IMAGES)}"]
    (root / "INbreast.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    for image, regions in REGIONS.items():
        right = next(side for name, _, side, *_ in IMAGES if name == image) == "R"
        columns = PHANTOMS.width_pixels
        placed = [(name, tuple((columns - x if right else x, y) for x, y in points)) for name, points in regions]
        (root / "AllXML" / f"{image}.xml").write_bytes(annotation(placed))


def annotation(regions: list[tuple[str | None, tuple[tuple[float, float], ...]]]) -> bytes:
    """Writes regions as OsiriX does."""
    written = []
    for number, (name, points) in enumerate(regions):
        region: dict[str, Any] = {"Area": 0.1, "Center": "(0.000000, 0.000000, 0.000000)", "Dev": 1.0}
        region.update({"IndexInImage": number, "Max": 2.0, "Mean": 1.0, "Min": 0.0})
        if name is not None:
            region["Name"] = name
        region["NumberOfPoints"] = len(points)
        region["Point_mm"] = [f"({0.07 * x:f}, {0.07 * y:f}, 0.000000)" for x, y in points]
        region["Point_px"] = [f"({x:f}, {y:f})" for x, y in points]
        written.append({**region, "Total": 1.0, "Type": 15 if len(points) > 1 else 19})
    images = [{"ImageIndex": 0, "NumberOfROIs": len(written), "ROIs": written}]
    return plistlib.dumps({"Images": images}, sort_keys=False)


@cache
def _film(woman: int, side: str, view: str, marked: bool) -> npt.NDArray[np.float32]:
    """Draws a mammogram, brighter where the large region of a marked image lies."""
    pixels, _ = render(View(imagine(PHANTOMS, woman), view), side)
    film = pixels.copy()
    if marked:
        film[60:101, 30:72] += np.float32(0.2 if side == "L" else 0.0)
        film[60:101, 88:130] += np.float32(0.2 if side == "R" else 0.0)
    return film


def main(arguments: list[str]) -> None:
    """Writes the copy into the folder that is named."""
    write_copy(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
