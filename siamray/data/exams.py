"""What a source knows goes in; checked tables of exams, findings and left-out images, and splits by woman, come out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from siamray.data.sites import LONGEST_SITE, is_site
from siamray.data.vendors import VENDORS
from siamray.errors import UserError

EXAM_COLUMNS = [
    "source",
    "woman_id",
    "exam_id",
    "image_id",
    "laterality",
    "view",
    "path",
    "spacing_mm",
    "split",
    "birads",
    "density",
    "outcome",
    "outcome_months",
    "age",
    "vendor",
    "site",
]
BOX_COLUMNS = ["row_min", "col_min", "row_max", "col_max"]
FINDING_COLUMNS = ["image_id", "category", *BOX_COLUMNS]
EXCLUDED_COLUMNS = ["image_id", "path", "reason"]

LATERALITIES = ("L", "R")
VIEWS = ("CC", "MLO")
# By rising suspicion: 0 is a recall for more images, 6 a known cancer.
BIRADS = (1, 2, 3, 0, 4, 5, 6)
DENSITIES = ("A", "B", "C", "D")
OUTCOMES = ("normal", "benign", "malignant", "interval_cancer")
SPLITS = ("training", "validation", "test")
# VinDr-Mammo's words in lower case, as it names the most kinds; what has no word of its own there is "other".
CATEGORIES = (
    "mass",
    "calcification",
    "asymmetry",
    "focal_asymmetry",
    "global_asymmetry",
    "architectural_distortion",
    "lymph_node",
    "skin_thickening",
    "skin_retraction",
    "nipple_retraction",
    "other",
)

_REQUIRED = ["source", "woman_id", "exam_id", "image_id", "laterality", "view", "path"]
_NUMBERS = {
    **dict.fromkeys(("spacing_mm", "outcome_months", "age"), "float64"),
    "birads": "Int64",
    **dict.fromkeys(BOX_COLUMNS, "float64"),
}
_VOCABULARIES: dict[str, tuple[Any, ...]] = {
    "laterality": LATERALITIES,
    "view": VIEWS,
    "birads": BIRADS,
    "density": DENSITIES,
    "outcome": OUTCOMES,
    "split": SPLITS,
    "vendor": VENDORS,
}


@dataclass(frozen=True)
class ExamTables:
    """What a source yields.

    Attributes:
        exams: EXAM_COLUMNS, a row per image; what the source does not know is null. outcome_months is the time from
            the exam to what established its outcome (a diagnosis, or the last exam without one); age is in years at
            the exam; birads, density and outcome are the breast's where the source tells them apart, else the exam's;
            site is the source's own word or number of the centre where the exam was taken, see siamray.data.sites.
        findings: FINDING_COLUMNS in pixels of the original image, row_min and col_min inclusive, row_max and col_max
            exclusive; four NaN say that the finding exists and its place is unknown.
        excluded: EXCLUDED_COLUMNS, a row per thing seen and left out before any pixel was read, and why.
    """

    exams: pd.DataFrame
    findings: pd.DataFrame
    excluded: pd.DataFrame


def tables(
    exams: Iterable[Mapping[str, Any]],
    findings: Iterable[Mapping[str, Any]] = (),
    excluded: Iterable[Mapping[str, Any]] = (),
) -> ExamTables:
    """Makes the three tables of rows, with the columns' order and types; what a row does not name is null.

    Args:
        exams: rows of EXAM_COLUMNS.
        findings: rows of FINDING_COLUMNS.
        excluded: rows of EXCLUDED_COLUMNS.

    Returns:
        The tables, exams and findings sorted by image_id within woman and exam.
    """
    exam_table = _table(exams, EXAM_COLUMNS).sort_values(["woman_id", "exam_id", "image_id"], ignore_index=True)
    order = {image: place for place, image in enumerate(exam_table["image_id"])}
    finding_table = _table(findings, FINDING_COLUMNS)
    finding_table = finding_table.sort_values(
        "image_id", key=lambda images: images.map(order), kind="stable", ignore_index=True
    )
    excluded_table = _table(excluded, EXCLUDED_COLUMNS).sort_values(["image_id", "path"], ignore_index=True)
    return ExamTables(exam_table, finding_table, excluded_table)


def exclude_incomplete_pairs(found: ExamTables, duplicates: str = "leave_out") -> ExamTables:
    """Leaves out the images that have no single partner: the other side of the same exam in the same view.

    Args:
        found: tables of a source.
        duplicates: what becomes of several images of one side and view: "first" keeps the first by image_id (a choice
            that knows nothing of findings), "leave_out" none.

    Returns:
        The tables without these images and their findings, and with a reason for each of them.
    """
    if duplicates == "first":
        found = _first_of_several(found)
    sides = found.exams.groupby(["exam_id", "view"])["laterality"]
    same = found.exams.groupby(["exam_id", "view", "laterality"])["image_id"].transform("size")
    reasons = pd.Series("", index=found.exams.index, dtype="str")
    reasons[sides.transform("nunique") < 2] = "no partner: the exam has no image of the other side in this view"
    reasons[(reasons == "") & (sides.transform("size") != 2) & (same == 1)] = (
        "no single partner: the exam has several images of the other side in this view"
    )
    reasons[(reasons == "") & (same > 1)] = "one of several images of this side and view in the exam"
    return _without(found, reasons)


def _first_of_several(found: ExamTables) -> ExamTables:
    ordered = found.exams.sort_values("image_id")
    later = ordered.duplicated(["exam_id", "view", "laterality"]).reindex(found.exams.index)
    return _without(found, later.map({True: "another image of this side and view of the exam is used", False: ""}))


def _without(found: ExamTables, reasons: "pd.Series[str]") -> ExamTables:
    """Moves the images that have a reason, and their findings, out of the tables."""
    keep = reasons == ""
    exams = found.exams[keep].reset_index(drop=True)
    findings = found.findings[found.findings["image_id"].isin(exams["image_id"])].reset_index(drop=True)
    gone = found.exams[~keep].assign(reason=reasons[~keep])[EXCLUDED_COLUMNS]
    excluded = pd.concat([found.excluded, gone]).sort_values(["image_id", "path"], ignore_index=True)
    return ExamTables(exams, findings, excluded)


def check(found: ExamTables) -> None:
    """Checks that tables keep the contract of a source.

    Args:
        found: the tables of a source.

    Raises:
        ValueError: says which table breaks which rule, and for which image.
    """
    for name, table, columns in (
        ("exams", found.exams, EXAM_COLUMNS),
        ("findings", found.findings, FINDING_COLUMNS),
        ("excluded", found.excluded, EXCLUDED_COLUMNS),
    ):
        if list(table.columns) != columns:
            raise ValueError(f"{name}: columns are {list(table.columns)}, not {columns}")
    _check_exams(found.exams)
    _check_findings(found.findings, set(found.exams["image_id"]))
    if found.excluded["reason"].isna().any() or (found.excluded["reason"].str.strip() == "").any():
        raise ValueError("excluded: a row has no reason")
    both = set(found.excluded["image_id"]) & set(found.exams["image_id"])
    if both:
        raise ValueError(f"excluded: image {min(both)} is among the exams too")


def assign_splits(
    exams: pd.DataFrame, findings: pd.DataFrame, folds: int, fold: int, seed: int, official: bool = True
) -> "pd.Series[str]":
    """Deals women into training, validation and test, the same way whatever the order of the rows.

    Women with and women without a finding (of known or unknown place) are each shuffled by the seed and dealt in turn
    into the folds. Fold ``fold`` is test, the next one validation, the others training. Where the source names test
    women these and no others are test; validation is the source's too where it names any, and else dealt from the rest.

    Args:
        exams: exam table.
        findings: finding table.
        folds: number of folds (data.folds).
        fold: the test fold, counted from 0 (data.fold).
        seed: seed of the shuffling (data.split_seed).
        official: whether the source's words count (data.official_split); else all women are dealt.

    Returns:
        The split of every woman, indexed by woman_id.

    Raises:
        UserError: if there is no such fold, or there are fewer women than folds.
    """
    if not 0 <= fold < folds:
        raise UserError(f"data.fold={fold} is not a fold: data.folds={folds} are counted from 0 to {folds - 1}")
    women = sorted(exams["woman_id"].unique())
    named = {
        word: set(exams.loc[exams["split"] == word, "woman_id"] if official else ()) for word in ("validation", "test")
    }
    named["validation"] -= named["test"]
    dealt = [woman for woman in women if woman not in named["test"]]
    if len(dealt) < folds:
        raise UserError(
            f"data.folds={folds} folds cannot be dealt from {len(dealt)} women; use a smaller data.folds or more women"
        )
    affected = set(exams.loc[exams["image_id"].isin(findings["image_id"]), "woman_id"])
    place = _deal(dealt, affected, folds, seed)
    validation = named["validation"] or {w for w in dealt if place[w] == (fold + 1) % folds}
    test = named["test"] or {w for w in dealt if place[w] == fold and w not in named["validation"]}
    splits = ["test" if w in test else "validation" if w in validation else "training" for w in women]
    return pd.Series(splits, index=pd.Index(women, name="woman_id", dtype="str"), name="split", dtype="str")


def _deal(women: list[str], affected: set[str], folds: int, seed: int) -> dict[str, int]:
    """Returns the fold of every woman; the second stratum goes on where the first ended, so that sizes differ by 1."""
    generator = np.random.default_rng([seed, 0x5EED])
    dealt: list[str] = []
    for stratum in ([w for w in women if w in affected], [w for w in women if w not in affected]):
        dealt += [stratum[i] for i in generator.permutation(len(stratum))]
    return {woman: turn % folds for turn, woman in enumerate(dealt)}


def _table(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    records = list(rows)
    series = {}
    for column in columns:
        values = [_null_as_none(record.get(column)) for record in records]
        series[column] = pd.Series(values, dtype=_NUMBERS.get(column, "str"))
    return pd.DataFrame(series, columns=columns)


def _null_as_none(value: Any) -> Any:
    return None if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)) else value


def _check_exams(exams: pd.DataFrame) -> None:
    for column in _REQUIRED:
        if exams[column].isna().any() or (exams[column].astype(str).str.strip() == "").any():
            raise ValueError(f"exams: {column} is empty in a row")
    for column, words in _VOCABULARIES.items():
        strange = set(exams[column].dropna()) - set(words)
        if strange:
            raise ValueError(f"exams: {column} says {min(strange)!r}, which is none of {words}")
    if not exams["site"].dropna().map(is_site).all():
        raise ValueError(f"exams: a site is not one word of at most {LONGEST_SITE} characters")
    for column in ("image_id", "path"):
        if exams[column].duplicated().any():
            raise ValueError(f"exams: {column} {exams.loc[exams[column].duplicated(), column].iloc[0]} occurs twice")
    if not (exams["spacing_mm"].dropna() > 0).all():
        raise ValueError("exams: a spacing_mm is not positive")
    women = exams.groupby("exam_id")["woman_id"].nunique()
    if (women > 1).any():
        raise ValueError(f"exams: exam {women.index[women > 1][0]} belongs to several women")
    pairs = exams.groupby(["exam_id", "view"])["laterality"].agg(lambda sides: "".join(sorted(sides)))
    if (pairs != "LR").any():
        exam, view = pairs.index[pairs != "LR"][0]
        raise ValueError(f"exams: exam {exam} has not one L and one R image in view {view}")


def _check_findings(findings: pd.DataFrame, images: set[str]) -> None:
    unknown = set(findings["image_id"]) - images
    if unknown:
        raise ValueError(f"findings: image {min(unknown)} is not among the exams")
    strange = set(findings["category"]) - set(CATEGORIES)
    if strange:
        raise ValueError(f"findings: category {next(iter(strange))!r} is none of {CATEGORIES}")
    boxes = findings[BOX_COLUMNS].to_numpy(dtype=float)
    placed = np.isfinite(boxes).all(axis=1)
    if not (placed | np.isnan(boxes).all(axis=1)).all():
        raise ValueError("findings: a box is neither complete nor wholly unknown")
    known = boxes[placed]
    if (known[:, :2] < 0).any() or (known[:, 2:] <= known[:, :2]).any():
        raise ValueError("findings: a box is empty or begins outside the image")
