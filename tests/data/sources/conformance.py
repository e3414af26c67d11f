"""What every source must keep: each source's test calls check_source with its tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom

from siamray.data.dicom import read_image
from siamray.data.exams import BOX_COLUMNS, ExamTables, check, exclude_incomplete_pairs


def check_source(
    read: Callable[[], ExamTables], seen: set[str], at_most: int = 12, accept: frozenset[str] = frozenset()
) -> ExamTables:
    """Reads a source twice and checks its tables against the contract and against its files.

    Args:
        read: reads the source; called twice, as a second read must give the same.
        seen: image ids that the data set holds; each must be in the exams, or left out with a reason.
        at_most: number of images whose pixels are read.
        accept: kinds of image that this source is known to use (siamray.data.dicom.ACCEPTABLE).
    """
    tables = read()
    # A source lists every image; preparation leaves out those without a partner, and the rest keeps the contract.
    paired = exclude_incomplete_pairs(tables, "first")
    check(paired)
    assert len(paired.exams) > 0, "the source yields no pair"
    assert set(tables.findings["image_id"]) <= set(tables.exams["image_id"]), "a finding lies in no image"
    assert tables.exams["image_id"].is_unique, "two images have one id"
    assert tables.exams["source"].nunique() == 1
    assert seen <= set(tables.exams["image_id"]) | set(tables.excluded["image_id"]), "an image vanished without reason"
    for path in tables.exams["path"]:
        assert Path(path).is_absolute(), f"{path} is not absolute"
        assert Path(path).is_file(), f"{path} is not there"
    marked = tables.exams[tables.exams["image_id"].isin(tables.findings["image_id"])]
    assert (marked["outcome"] != "normal").all(), "an image with a finding is called normal"
    # Marked images first: their boxes are compared with the size of the image.
    others = tables.exams[~tables.exams["image_id"].isin(marked["image_id"])]
    for row in pd.concat([marked, others]).head(at_most).itertuples():
        _check_file(row, tables.findings[tables.findings["image_id"] == row.image_id], accept)
    again = read()
    pd.testing.assert_frame_equal(tables.exams, again.exams)
    pd.testing.assert_frame_equal(tables.findings, again.findings)
    pd.testing.assert_frame_equal(tables.excluded, again.excluded)
    return tables


def _check_file(row: object, findings: pd.DataFrame, accept: frozenset[str]) -> None:
    path = Path(row.path)
    image = read_image(path, accept)
    assert image.pixels.ndim == 2
    assert image.pixels.dtype == np.float32
    assert 0 <= image.pixels.min() < image.pixels.max() <= 1
    assert image.laterality in (None, row.laterality), f"{row.image_id}: laterality is not that of the file"
    assert image.view in (None, row.view), f"{row.image_id}: view is not that of the file"
    if image.spacing_mm is not None and not pd.isna(row.spacing_mm):
        assert np.isclose(image.spacing_mm, row.spacing_mm)
    boxes = findings[BOX_COLUMNS].dropna().to_numpy(dtype=float)
    assert (boxes[:, :2] >= 0).all(), f"{row.image_id}: a box leaves the image"
    assert (boxes[:, 2:] <= image.pixels.shape).all(), f"{row.image_id}: a box leaves the image"
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    if path.suffix == ".dcm":
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert header.get("ImageLaterality", row.laterality) == row.laterality
        assert header.get("ViewPosition", row.view) == row.view
