"""The command ``python -m siamray.detect``: one exam, an encoder; leaves maps, candidates and pictures of its views."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from siamray.compose import compose, to_dict
from siamray.config import Config
from siamray.data.geometry import Geometry, polygon_box
from siamray.data.pairs import SIDES, PairCutter
from siamray.data.preparation import prepare
from siamray.data.store import Store
from siamray.downstream.candidates import (
    LINEAR,
    Candidate,
    Probe,
    View,
    find_candidates,
    measure,
    pixel_maps,
    side_maps,
    window_encoder,
)
from siamray.downstream.capture import write_capture
from siamray.downstream.detection import BOX, learn_probe, marked_lesions
from siamray.downstream.evaluation import check_patches
from siamray.downstream.overlay import NOT_FOR_DIAGNOSIS, draw_overlay
from siamray.errors import UserError, nearest, run_command
from siamray.files import write_atomically, write_json
from siamray.pretraining import encoder
from siamray.provenance import git_state, versions

RECORD_FILE = "detection.json"


def main(words: list[str]) -> None:
    """Maps the views of an exam and writes what may be lesions.

    Args:
        words: the command line.

    Raises:
        UserError: whatever the user can mend.
    """
    config = compose("detect", words)
    if config.encoder.folder is None:
        raise UserError("encoder=DIR: name the folder of the encoder to detect with, such as runs/pretrain/encoder")
    network = encoder.load(config.encoder.folder)
    check_patches(config, network)
    store = prepare(config)
    entries = exam_entries(store, config.exam)
    cutter, rules = PairCutter(store, config.pairs), config.downstream.detection
    windows = window_encoder(network, config)
    if windows.reason:
        Console(stderr=True).print(f"patch by patch, as {windows.reason}", markup=False)
    learnt = rules.score == LINEAR or rules.side == "probe"
    probe = learn_probe(network, store, cutter, config) if learnt else None
    folder = Path(config.out)
    found = []
    for number, entry in enumerate(entries.to_dict("records"), start=1):
        view = measure(windows, network, store, cutter, str(entry["entry_id"]), rules.minimum_tissue)
        found.append(_write_view(view, entry, number, probe, store, config, folder))
    write_json(
        folder / RECORD_FILE,
        {
            "notice": f"{NOT_FOR_DIAGNOSIS}: research software",
            "exam": config.exam,
            "score": rules.score,
            "side_rule": None if rules.score == LINEAR else rules.side,
            "way": windows.way,
            "probe": probe.note if probe else None,
            "units": {
                "box_store": "row_min, col_min, row_max, col_max, half open, in pixels of the store",
                "box_original": "the same in pixels of the original image: the box around the carried corners",
                "size_mm": "height and width of box_store, in mm",
                "map": "[row, col] of windows; window (i, j) has its top-left store pixel at (i, j) * step_pixels",
                "score": "Euclidean distance of embeddings" if rules.score != LINEAR else "log-odds of a lesion patch",
            },
            "views": found,
            "encoder": config.encoder.folder,
            "config": to_dict(config),
            "data_fingerprint": store.fingerprint,
            "git": git_state(),
            "versions": versions(),
        },
    )
    Console().print(_table(found))
    print(f"{NOT_FOR_DIAGNOSIS}: maps, pictures and {RECORD_FILE}: {folder}")


def exam_entries(store: Store, exam: str | None) -> pd.DataFrame:
    """Finds the views of an exam.

    Args:
        store: the prepared exams.
        exam: an exam_id, or an entry_id for one view alone.

    Raises:
        UserError: nothing, or no exam of the store, is named.
    """
    entries = store.entries.sort_values("entry_id")
    if exam is None:
        raise UserError(f"exam=ID: name the exam to look at, such as exam={entries.exam_id.iloc[0]}")
    found = entries[(entries.exam_id.astype(str) == exam) | (entries.entry_id.astype(str) == exam)]
    if found.empty:
        images = store.exams.loc[store.exams.exam_id.astype(str) == exam, "image_id"]
        left_out = store.manifest[store.manifest.image_id.isin(images)]
        if len(left_out):
            raise UserError(f"exam={exam}: left out of the store, as {left_out.reason.iloc[0]}; name another exam")
        known = [*entries.exam_id.astype(str).unique(), *entries.entry_id.astype(str)]
        raise UserError(f"exam={exam}: no such exam in the store{nearest(exam, known)}")
    return found


def _write_view(
    view: View, entry: dict[Any, Any], number: int, probe: Probe | None, store: Store, config: Config, folder: Path
) -> dict[str, Any]:
    """Writes map, picture and capture of a view; returns its part of the record."""
    rules, name = config.downstream.detection, view.entry_id
    maps = side_maps(view, rules.score, rules.side, probe)
    candidates = find_candidates(view, maps, rules.score != LINEAR, rules)
    write_atomically(folder / f"{name}_map.npy", partial(_save_map, values=maps.astype(np.float32)))
    images = {side: store.image(name, side) for side in SIDES}
    masks = {side: store.mask(name, side) for side in SIDES}
    shape = (int(entry["height"]), int(entry["width"]))
    pixels = dict(zip(SIDES, pixel_maps(view, maps, shape), strict=True))
    lesions = marked_lesions(store, name)
    boxes = [(row["side"], tuple(row[part] for part in BOX)) for row in lesions.to_dict("records")]
    title = f"{name}  {rules.score}"
    picture = draw_overlay(images, masks, pixels, candidates, boxes, rules.opacity, title)
    write_atomically(folder / f"{name}_overlay.png", partial(picture.save, format="PNG"))
    files = {"map": f"{name}_map.npy", "overlay": f"{name}_overlay.png"}
    if rules.dicom:
        files["dicom"] = f"{name}_overlay.dcm"
        describes = f"{rules.score}, {Path(str(config.encoder.folder)).name}, {store.fingerprint[:12]}"
        write_capture(
            folder / files["dicom"],
            picture,
            woman_id=str(entry["woman_id"]),
            exam_id=str(entry["exam_id"]),
            number=number,
            view=str(entry["view"]),
            describes=describes,
        )
    record = store.record(name)
    places = {side: Geometry.from_dict(record[side]["geometry"]) for side in SIDES}
    return {
        "entry_id": name,
        "woman_id": entry["woman_id"],
        "exam_id": entry["exam_id"],
        "view": entry["view"],
        "files": files,
        "step_pixels": view.step,
        "window_pixels": view.side_pixels,
        "spacing_mm": float(entry["spacing_mm"]),
        "step_mm": view.step * float(entry["spacing_mm"]),
        "windows": int(view.tissue.sum()),
        "candidates": [
            describe(candidate, places[candidate.side], record[candidate.side]["image_id"]) for candidate in candidates
        ],
        "lesions": [
            {"side": row["side"], "category": row["category"], "box_store": [float(row[part]) for part in BOX]}
            for row in lesions.to_dict("records")
        ],
    }


def describe(candidate: Candidate, place: Geometry, image_id: str) -> dict[str, Any]:
    """Says what a candidate is and where: in store pixels, in pixels of the original image, and in mm.

    Args:
        candidate: on one side.
        place: the way of that side's original into the store.
        image_id: the original image.
    """
    row_min, col_min, row_max, col_max = candidate.box
    corners = np.array([[row_min, col_min], [row_min, col_max], [row_max, col_max], [row_max, col_min]])
    original = polygon_box(place.polygon_to_original(corners))
    limits = [0.0, 0.0, np.inf, float(place.width)]
    low = [max(value, limit) for value, limit in zip(original[:2], limits[:2], strict=True)]
    high = [min(value, limit) for value, limit in zip(original[2:], limits[2:], strict=True)]
    return {
        "side": candidate.side,
        "image_id": image_id,
        "score": candidate.value,
        "box_store": list(candidate.box),
        "box_original": [*low, *high],
        "size_mm": [candidate.size * place.store_spacing_mm] * 2,
        "original_spacing_mm": place.spacing_mm,
    }


def _save_map(path: Path, values: NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        np.save(file, values)


def _table(views: list[dict[str, Any]]) -> Table:
    table = Table("view", "side", "score", "box in the original image (row, col; row, col)", title="candidates")
    for view in views:
        for found in view["candidates"]:
            low_row, low_col, high_row, high_col = (round(value) for value in found["box_original"])
            box = f"{low_row}, {low_col}; {high_row}, {high_col}"
            table.add_row(view["entry_id"], found["side"], f"{found['score']:.3f}", box)
    return table


if __name__ == "__main__":
    run_command(main)
