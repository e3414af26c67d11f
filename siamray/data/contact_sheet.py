"""Observed images go in; a few pairs, prepared as preparation prepares them, come out small, with their boxes."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image as PillowImage
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from skimage.measure import approximate_polygon, find_contours

from siamray.config import Config
from siamray.data.entry import EntryJob, ImageRow, LeftOut, registered_pair
from siamray.data.exams import BOX_COLUMNS
from siamray.data.observation import Observed
from siamray.data.processes import processors, shared_out
from siamray.data.sources import accepted
from siamray.data.store import SIDES
from siamray.seeds import named_seed

PAIRS = 12
# Longest side of a small image: a calcification cluster can be found in it, and a sheet stays under a megabyte.
LONGEST_SIDE = 480
# How far the outline may leave the mask's edge, in pixels of the small image.
_OUTLINE_TOLERANCE = 1.0


@dataclass(frozen=True)
class Tile:
    """One pair as training will see it, or the reason why it will not.

    Attributes:
        woman_id: whose.
        exam_id: of which exam.
        view: CC or MLO.
        image_ids: of the left and the right image.
        reason: why the pair cannot be prepared, else "".
        images: grey values 0..255 of left and registered right image, [rows, cols]; none where there is a reason.
        boxes: side, category and BOX_COLUMNS in pixels of these images.
        unplaced: findings whose place is unknown, or outside the images.
        outline: edge of the left breast, polygons of (row, col) in pixels of these images: the right one should fit it.
        registration: kind, dice, correlation and quality, as the store's record has them.
    """

    woman_id: str
    exam_id: str
    view: str
    image_ids: tuple[str, str]
    reason: str = ""
    images: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    boxes: list[dict[str, Any]] = field(default_factory=list)
    unplaced: int = 0
    outline: list[list[tuple[float, float]]] = field(default_factory=list)
    registration: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Turns the tile into dictionaries, lists, numbers and words; the images stay arrays."""
        return asdict(self)


def contact_sheet(observed: Observed, config: Config, count: int = PAIRS, *, progress: bool = True) -> list[Tile]:
    """Prepares a few pairs, half of them with a marked lesion as far as there are, drawn by data.split_seed.

    Args:
        observed: images that siamray.data.observation.observe found; only usable pairs are drawn.
        config: data and preparation.
        count: number of pairs.
        progress: whether to show a progress bar on stderr.

    Returns:
        The tiles, those with a lesion first.
    """
    drawn = draw_pairs(observed, count, named_seed(config.data.split_seed, "contact sheet"))
    jobs = [_job(observed, exam, view, config) for exam, view in drawn]
    tiles: dict[int, Tile] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True)
    task = bar.add_task("preparing pairs for the contact sheet", total=len(jobs))
    for place, made in shared_out(tile, jobs, config.preparation.cpus or processors(), bar):
        tiles[place] = made
        bar.advance(task)
    return [tiles[place] for place in range(len(jobs))]


def draw_pairs(observed: Observed, count: int, seed: int) -> list[tuple[str, str]]:
    """Draws pairs (exam and view) at random, of as many women as there are, half of them with a lesion of known place.

    Returns:
        exam_id and view, those with a lesion first.
    """
    images = observed.images[observed.images["usable"]]
    placed = observed.findings.loc[observed.findings["row_min"].notna(), "image_id"]
    pairs = images.assign(marked=images["image_id"].isin(placed)).groupby(["exam_id", "view"], as_index=False)
    table = pairs.agg({"woman_id": "first", "marked": "max"}).sort_values(["exam_id", "view"])
    table = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    # Every woman once before any comes again.
    table = table.assign(turn=table.groupby(["woman_id", "marked"]).cumcount()).sort_values("turn", kind="stable")
    marked, others = table[table["marked"]], table[~table["marked"]]
    # Where one kind is rare the other fills up.
    wanted = min(len(marked), max(count - count // 2, count - len(others)))
    chosen = pd.concat([marked.head(wanted), others.head(count - wanted)])
    return [(str(exam), str(view)) for exam, view in zip(chosen["exam_id"], chosen["view"], strict=True)]


def _job(observed: Observed, exam: str, view: str, config: Config) -> EntryJob:
    """Makes what preparation would be asked to do for a pair."""
    images = observed.images
    rows = images[(images["exam_id"] == exam) & (images["view"] == view) & images["usable"]].sort_values("laterality")
    woman = str(rows["woman_id"].iloc[0])
    accept = accepted(config.data)
    left, right = (_image_row(rows.iloc[side], observed.findings, accept) for side in (0, 1))
    return EntryJob(f"{exam}_{view}", woman, exam, view, left, right, "", config.preparation)


def _image_row(row: "pd.Series[Any]", findings: pd.DataFrame, accept: frozenset[str]) -> ImageRow:
    own = findings[findings["image_id"] == row["image_id"]]
    boxes = [None if np.isnan(box).any() else tuple(map(float, box)) for box in own[BOX_COLUMNS].to_numpy(dtype=float)]
    found = tuple(zip(own["category"].astype("str"), boxes, strict=True))
    return ImageRow(
        image_id=str(row["image_id"]),
        path=str(row["path"]),
        spacing_mm=float(row["used_spacing"]),
        findings=found,  # type: ignore[arg-type]
        laterality=str(row["laterality"]),
        accept=accept,
    )


def tile(job: EntryJob) -> Tile:
    """Prepares one pair and makes its small pictures, or says why it cannot be prepared."""
    names = (job.woman_id, job.exam_id, job.view, (job.left.image_id, job.right.image_id))
    try:
        arrays, record = registered_pair(job)
    except LeftOut as error:
        return Tile(*names, reason=str(error))
    except Exception as error:  # a pair that fails unforeseen is a finding of the inspection, not its end
        return Tile(*names, reason=f"its preparation failed ({type(error).__name__})")
    scale = min(1.0, LONGEST_SIDE / max(arrays["left"].shape))
    placed = [finding for finding in record["findings"] if finding["box"] is not None]
    boxes = [
        {"side": finding["side"], "category": finding["category"]}
        | {name: float(value) * scale for name, value in zip(BOX_COLUMNS, finding["box"], strict=True)}
        for finding in placed
    ]
    return Tile(
        *names,
        images={side: _small(arrays[side], scale) for side in SIDES},
        boxes=boxes,
        unplaced=len(record["findings"]) - len(placed),
        outline=_outline(arrays["left_mask"], scale),
        registration={name: record["registration"][name] for name in ("kind", "dice", "correlation", "quality")},
    )


def _small(pixels: npt.NDArray[np.uint16], scale: float) -> npt.NDArray[np.uint8]:
    """Scales an image of the store down; its grey values stay as training sees them."""
    picture = PillowImage.fromarray((pixels >> 8).astype(np.uint8))
    shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(shape, PillowImage.Resampling.BOX if scale < 1 else None))


def _outline(mask: npt.NDArray[np.bool_], scale: float) -> list[list[tuple[float, float]]]:
    """Follows the mask's edge in pixels of the small image; where it meets the image's edge there is no line."""
    lines = find_contours(mask.astype(np.float32), 0.5)
    simple = [approximate_polygon((line + 0.5) * scale, _OUTLINE_TOLERANCE) for line in lines]
    return [[(float(row), float(col)) for row, col in line] for line in simple if len(line) > 2]
