"""A folder of the RSNA screening challenge of 2022 goes in (train.csv, train_images/WOMAN/IMAGE.dcm); tables come out.

train.csv names neither exams nor dates: every woman has one exam there. test.csv has no labels and is not read;
machine_id numbers units without naming a manufacturer, so vendor is null; the spacing is the file's, and a copy that
was converted to PNG needs data.assumed_spacing_mm. site is site_id.

Outcome is the breast's: cancer=1 is malignant, biopsy=1 without cancer benign, all else normal. The challenge says of
cancer only "whether or not the breast was positive for malignant cancer"; its report (Chen et al., Radiology 2025)
says of the exams that it was scored on that cancers were confirmed by pathology, and the others followed up for a year
at least. How long each exam of train.csv was followed up it does not say: outcome_months is null. A recall (BI-RADS 0)
that ended without biopsy is normal by outcome, but not by BI-RADS. BI-RADS is 0, 1 or 2, and blank for half the
images.

No box says where a cancer lies. Every image of a breast with cancer has a finding of category "other" at an unknown
place, so that none of its tissue is taken for normal, whatever data.normal says. The benign lesion of a biopsied breast
is not marked either: experiments/data/rsna.yaml counts only outcome normal as normal.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from siamray.config import DataConfig
from siamray.data.exams import BIRADS, DENSITIES, LATERALITIES, VIEWS, ExamTables, tables
from siamray.data.sites import site_word
from siamray.data.sources.image_folders import files_of_no_row, image_files, set_folder, without_repeats
from siamray.data.sources.root import not_this_data_set

TABLE = "train.csv"
# The challenge's own folder, and the one that copies converted to PNG have.
FOLDERS = ("train_images", "train_images_png")
# Views of the set that are not compared: lateral ones, axillary tail, lateromedial oblique.
OTHER_VIEWS = ("ML", "LM", "AT", "LMO")

_LOOKED_FOR = f"{TABLE} and {FOLDERS[0]}/WOMAN/IMAGE.dcm"
_SUFFIXES = (".dcm", ".png")
_COLUMNS = [
    "patient_id",
    "image_id",
    "laterality",
    "view",
    "age",
    "cancer",
    "biopsy",
    "BIRADS",
    "implant",
    "density",
]
# Copies of the table may lack it.
_SITE = "site_id"
# pandas writes whole numbers of a column with blank cells as 1.0.
_FLAGS = {"0": False, "0.0": False, "1": True, "1.0": True}
_BIRADS_WORDS = {text: number for number in BIRADS for text in (f"{number}", f"{number}.0")}
_DENSITY_WORDS = {letter: letter for letter in DENSITIES}
_OLDEST = 120


def read(config: DataConfig, cache: Path) -> ExamTables:  # noqa: ARG001  (all sources share one signature)
    """Reads the tables of the RSNA screening set.

    Args:
        config: data.root names the folder; data.implants takes women with implants too.
        cache: not used, as no header is read.

    Returns:
        The tables, several images of one side and view among them; left out with a reason are views other than CC and
        MLO, implants, images without file, with a row that cannot be understood or rows that contradict each other,
        further rows that repeat one, and files of no row.

    Raises:
        UserError: no root, not this set, or train.csv without a column that is needed.
    """
    folder = set_folder(config, TABLE, FOLDERS, _LOOKED_FOR)
    images = next((name for name in FOLDERS if (folder / name).is_dir()), FOLDERS[0])
    files = image_files(folder / images, _SUFFIXES)
    if not files:
        raise not_this_data_set(config, folder, f"{images}/WOMAN/IMAGE.dcm")
    rows, excluded = without_repeats(folder / TABLE, _COLUMNS, (_SITE,))
    exams, reasons = _exams(rows, config.implants)
    women = {woman for woman, _ in files}
    kept = []
    for exam in exams:
        image, woman = exam["image_id"], exam["woman_id"]
        found = files.get((woman, image))
        if found:
            kept.append({**exam, "path": str(found[0])})
            continue
        what = f"file {images}/{woman}/{image}.dcm" if woman in women else f"folder {images}/{woman} with images"
        reasons[image] = f"listed in {TABLE}, but there is no {what}"
    paths = {stem: str(found[0]) for (_, stem), found in files.items()}
    excluded += [
        *({"image_id": i, "path": paths.get(i, str(folder / TABLE)), "reason": r} for i, r in reasons.items()),
        *files_of_no_row(files, set(zip(rows["patient_id"], rows["image_id"], strict=True)), TABLE),
    ]
    cancers = [{"image_id": exam["image_id"], "category": "other"} for exam in kept if exam["outcome"] == "malignant"]
    return tables(kept, cancers, excluded)


def _exams(rows: pd.DataFrame, implants: bool) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Returns the images that are compared, and the reasons of the others."""
    breasts = rows["patient_id"] + " " + rows["laterality"]
    disputed = rows["cancer"].map(_FLAGS).groupby(breasts).transform("nunique") > 1
    biopsied = set(breasts[rows["biopsy"].map(_FLAGS).eq(True)])
    several = rows["image_id"].duplicated(keep=False)
    reasons = {
        **dict.fromkeys(rows.loc[disputed, "image_id"], f"{TABLE} says of its breast both cancer=0 and cancer=1"),
        **dict.fromkeys(rows.loc[several, "image_id"], f"{TABLE} has several rows of it that contradict each other"),
    }
    exams = []
    for row in rows[~rows["image_id"].isin(reasons)].itertuples():
        try:
            exam = _exam(row, f"{row.patient_id} {row.laterality}" in biopsied)
        except ValueError as error:
            reasons[str(row.image_id)] = f"its row in {TABLE} cannot be understood: {error}"
            continue
        if exam["view"] in VIEWS and (implants or not _FLAGS[str(row.implant)]):
            exams.append(exam)
        elif exam["view"] in VIEWS:
            reasons[exam["image_id"]] = f"implant=1 in {TABLE}; data.implants=true takes it"
        else:
            reasons[exam["image_id"]] = f"view {exam['view']}: CC and MLO are compared"
    return exams, reasons


def _exam(row: Any, biopsied: bool) -> dict[str, Any]:
    """Returns the exam; raises ValueError with what is wrong in the row."""
    if not row.patient_id:
        raise ValueError("patient_id is blank")
    if row.laterality not in LATERALITIES:
        raise ValueError("laterality is neither L nor R")
    if row.view not in (*VIEWS, *OTHER_VIEWS):
        raise ValueError(f"view is none of {', '.join((*VIEWS, *OTHER_VIEWS))}")
    for name in ("cancer", "biopsy", "implant"):
        if getattr(row, name) not in _FLAGS:
            raise ValueError(f"{name} is neither 0 nor 1")
    return {
        "source": "rsna",
        "woman_id": row.patient_id,
        "exam_id": row.patient_id,
        "image_id": row.image_id,
        "laterality": row.laterality,
        "view": row.view,
        "birads": _word("BIRADS", row.BIRADS, _BIRADS_WORDS),
        "density": _word("density", row.density, _DENSITY_WORDS),
        "outcome": "malignant" if _FLAGS[row.cancer] else "benign" if biopsied else "normal",
        "age": _age(row.age),
        "site": site_word(row.site_id),
    }


def _word(column: str, text: str, words: dict[str, Any]) -> Any:
    """Returns what a word means, or None where the cell is blank."""
    if text and text not in words:
        raise ValueError(f"{column} is none of {', '.join(map(str, dict.fromkeys(words.values())))}")
    return words.get(text)


def _age(text: str) -> float | None:
    if not text:
        return None
    try:
        age = float(text)
    except ValueError:
        raise ValueError("age is no number") from None
    if not 0 < age <= _OLDEST:
        raise ValueError(f"age is not between 0 and {_OLDEST} years")
    return age
