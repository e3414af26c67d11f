"""Observed images go in; every kind of trouble comes out, with its count, three examples and the remedy where known."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from siamray.config import Config
from siamray.data.exams import BOX_COLUMNS, SPLITS
from siamray.data.observation import ASSUMED, Observed
from siamray.files import cache_folder

EXAMPLES = 3
# From what costs images or rests on a contradiction to what only has to be known.
LEFT_OUT, TO_CHECK, TO_KNOW = SEVERITIES = ("left out", "to check", "to know")
# Spacings of table and header may differ by this share: tables round, and some give the spacing at the detector.
SPACING_TOLERANCE = 0.05
_NOTHING = "nothing, as there is no other side to compare it with"
# Words of a reason, and what helps; the first that fits counts.
_REMEDIES = (
    ("for processing", "export the images FOR PRESENTATION: raw ones do not look like them"),
    ("implant", "data.implants=true takes them"),
    ("secondary capture", "data.secondary_captures=true takes them, if they are digitised films"),
    ("spacing is unknown", "set data.assumed_spacing_mm=MM, if you know what the scanner had"),
    ("not square", "nothing, as such pixels are not resampled"),
    ("maximum_megapixels", "raise preparation.maximum_megapixels, if these are mammograms"),
    ("no decoder", "convert the files, for example by gdcmconv --raw or dcmdjpeg"),
    ("no partner", "add the other side's image, if there is one: only pairs are used"),
    ("its partner", "what helps its partner: only pairs are used"),
    ("another image of this side", "data.duplicates=leave_out leaves the whole pair out instead"),
    ("several images of", "data.duplicates=first uses the first of them"),
    ("not listed|no row", "add them to the table, if they shall be used"),
    ("no file|no such file|not exist|(?:json|xml|csv) is missing", "complete the copy of the data set"),
    ("cannot be opened|permission", "change the files' permissions"),
    ("cannot be understood", "correct the table"),
    ("empty|damage|cut short|cannot be read|no pixel|not a DICOM|neither DICOM", "fetch these files again"),
    ("magnif|spot|tangential|rolled|specimen|frames|tomosynthesis|colour|capture|not a mammogram|view", _NOTHING),
)
_OF_HEADERS = "ask for another export: header and pixels do not go together"
_LOSSY = r"Baseline|Extended|Lossy"
# File names, and words with a digit that are no option's value: reasons that differ only in them are one kind.
_PARTICULARS = re.compile(
    r"\S*/\S+|\S+\.(?:dcm|dicom|png|pgm|tiff?|xml|json)\b|(?<![\w=.])[\w.-]*\d[\w-]*", re.IGNORECASE
)
_PICTURES = (".dcm", ".dicom", ".png", ".pgm", ".tif", ".tiff")
_SINGULARS = {"women": "woman", "boxes": "box"}


@dataclass(frozen=True)
class Example:
    """One image that has a trouble: its id, its file relative to data.root, and what is particular about it."""

    image_id: str
    file: str
    detail: str = ""


@dataclass(frozen=True)
class Trouble:
    """A kind of trouble.

    Attributes:
        severity: one of SEVERITIES.
        kind: what is the matter.
        count: how many have it.
        of: what is counted, in the plural where it is not one.
        remedy: what helps, or "".
        examples: up to three, spread over all that have it.
    """

    severity: str
    kind: str
    count: int
    of: str
    remedy: str
    examples: list[Example] = field(default_factory=list)


def troubles(
    observed: Observed,
    breasts: pd.DataFrame,
    usable: pd.DataFrame,
    splits: "pd.Series[str] | None",
    refusal: str | None,
    config: Config,
) -> list[Trouble]:
    """Finds all troubles, the gravest and most frequent first.

    Args:
        observed: images, findings, and what is left out.
        breasts: siamray.data.inspection.breast_states of all images.
        usable: the same of the usable images.
        splits: the split of every woman with a usable pair, or None.
        refusal: why the women cannot be dealt into splits, where they cannot.
        config: data and preparation.
    """
    found = [
        *_left_out(observed, config),
        *_contradictions(observed.images, config),
        *_unequal_pairs(observed.images, config),
        *_grey(observed.images, config),
        *_box_troubles(observed, config),
        *_label_troubles(observed.images, breasts, usable, config),
        *_split_troubles(observed, splits, refusal),
    ]
    return sorted(found, key=lambda trouble: (SEVERITIES.index(trouble.severity), -trouble.count))


def relative(path: str, config: Config) -> str:
    """Names a file relative to data.root; a file elsewhere by its name alone."""
    root = Path(config.data.root) if config.data.root else cache_folder()
    file = Path(path)
    if not file.is_relative_to(root):
        file, root = file.resolve(), root.resolve()
    return str(file.relative_to(root)) if file.is_relative_to(root) else file.name


def are_pictures(excluded: pd.DataFrame) -> "pd.Series[bool]":
    """Says which rows that a source left out are images, be they missing, and not rows of a table, marks or folders."""
    files = [Path(str(path)) for path in excluded["path"]]
    known = [file.suffix.lower() in _PICTURES or (file.suffix == "" and file.is_file()) for file in files]
    missing = excluded["reason"].astype("str").str.contains("no file|no such file")
    return missing.astype("bool") | pd.Series(known, index=excluded.index, dtype="bool")


def _trouble(
    severity: str, kind: str, rows: pd.DataFrame, config: Config, remedy: str = "", of: str = "images"
) -> Trouble:
    """Makes a trouble of the rows that have it: image_id, path and, where there is something to tell, detail."""
    places = sorted({round(place) for place in np.linspace(0, len(rows) - 1, EXAMPLES)})
    chosen = rows.sort_values("image_id", kind="stable").iloc[places]
    details = chosen["detail"] if "detail" in chosen else [""] * len(chosen)
    examples = [
        Example(str(image), relative(str(path), config), str(detail))
        for image, path, detail in zip(chosen["image_id"], chosen["path"], details, strict=True)
    ]
    return Trouble(severity, kind, len(rows), _number(len(rows), of), remedy, examples)


def _number(count: int, words: str) -> str:
    return words if count != 1 else _SINGULARS.get(words, words.removesuffix("s"))


def _remedy(kind: str, otherwise: str = "") -> str:
    remedy = next((remedy for words, remedy in _REMEDIES if re.search(words, kind, re.IGNORECASE)), otherwise)
    option = re.search(r"data\.\w+=", remedy)
    # Some reasons name the option themselves.
    return "" if option and option.group() in kind else remedy


def _left_out(observed: Observed, config: Config) -> Iterator[Trouble]:
    """Images that will not be in the store: left out by the source, for want of a partner, or by their header."""
    pictures = are_pictures(observed.excluded)
    # A row of a table or a mark that cannot be used costs no image, but may cost a label.
    yield from _by_reason(TO_CHECK, observed.excluded[~pictures], "reason", config, of="rows")
    yield from _by_reason(LEFT_OUT, observed.excluded[pictures], "reason", config)
    images = observed.images
    yield from _by_reason(LEFT_OUT, images[images["fault"].notna()], "fault", config)
    lost = images[images["left_out"].isna() & images["fault"].isna() & ~images["usable"]]
    if len(lost):
        kind = "its partner, the other side of the same view, cannot be used"
        yield _trouble(LEFT_OUT, kind, lost, config, _remedy(kind))
    # The choice among several images knows nothing of their headers.
    keys = ["exam_id", "view", "laterality"]
    used = images.loc[images["left_out"].isna(), [*keys, "fault"]].rename(columns={"fault": "used_fault"})
    spare = images[images["left_out"].notna() & images["fault"].isna()].merge(used, on=keys)
    spare = spare[spare["used_fault"].notna()]
    if len(spare):
        kind = "not used, though the image of this side and view that is used cannot be"
        remedy = "take the other image out of the data set's table"
        spare = spare.assign(detail="the other one: " + spare["used_fault"].astype("str"))
        yield _trouble(TO_CHECK, kind, spare, config, remedy)


def _by_reason(severity: str, rows: pd.DataFrame, column: str, config: Config, of: str = "images") -> Iterator[Trouble]:
    """Makes one trouble of all reasons that differ only in numbers and file names."""
    for general, own in rows.groupby(rows[column].map(_general), sort=False):
        distinct = own[column].unique()
        kind = str(distinct[0]) if len(distinct) == 1 else str(general)
        shown = own if len(distinct) == 1 else own.assign(detail=own[column])
        yield _trouble(severity, kind, shown, config, _remedy(kind, _OF_HEADERS if column == "fault" else ""), of)


def _general(reason: str) -> str:
    return _PARTICULARS.sub("...", reason)


def _contradictions(images: pd.DataFrame, config: Config) -> Iterator[Trouble]:
    """What table and header say differently, and what neither says."""
    for name, remedy in (
        ("laterality", "the table's word is used; look at these images before you trust the sides"),
        ("view", "the table's word is used; look at these images before you trust the views"),
        ("vendor", "the table's word is used"),
    ):
        told = images[images[name].notna() & images[f"header_{name}"].notna()]
        told = told[told[name] != told[f"header_{name}"]]
        if len(told):
            words = "table " + told[name].astype("str") + ", header " + told[f"header_{name}"].astype("str")
            yield _trouble(TO_CHECK, f"{name}: table and header differ", told.assign(detail=words), config, remedy)
    table, header = images["spacing_mm"], images["header_spacing"]
    unlike = images[(table - header).abs() > SPACING_TOLERANCE * table]
    if len(unlike):
        both = zip(table[unlike.index], header[unlike.index], strict=True)
        details = [f"table {a:g}, header {b:g} mm" for a, b in both]
        remedy = "the table's is used; correct the table or empty its cells if the header is right"
        yield _trouble(TO_CHECK, "spacing: table and header differ", unlike.assign(detail=details), config, remedy)
    assumed = images[images["spacing_origin"] == ASSUMED]
    if len(assumed):
        kind = f"spacing: neither table nor header says one; {ASSUMED}={config.data.assumed_spacing_mm:g} is used"
        yield _trouble(TO_KNOW, kind, assumed, config, "compare 'long side, cm' with the detector's or film's size")


def _unequal_pairs(images: pd.DataFrame, config: Config) -> Iterator[Trouble]:
    """Pairs whose sides were recorded differently: the encoder would see that as an asymmetry."""
    usable = images[images["usable"]]
    both = usable[usable["laterality"] == "L"].merge(
        usable[usable["laterality"] == "R"], on=["exam_id", "view"], suffixes=("", "_right")
    )
    for name, column in (
        ("vendor", "header_vendor"),
        ("photometric", "photometric"),
        ("bits", "bits"),
        ("grey step", "grey"),
        ("spacing", "used_spacing"),
    ):
        left, right = both[column], both[f"{column}_right"]
        if column == "used_spacing":
            unlike = (left - right).abs() > 1e-3 * left
        else:
            unlike = left.notna() & right.notna() & (left != right)
        rows = both[unlike]
        if len(rows):
            words = [f"L {_short(a)}, R {_short(b)}" for a, b in zip(left[unlike], right[unlike], strict=True)]
            kind = f"the two sides differ in {name}"
            remedy = "look at them on the contact sheet: a difference of recording looks like an asymmetry"
            yield _trouble(TO_CHECK, kind, rows.assign(detail=words), config, remedy, of="pairs")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _grey(images: pd.DataFrame, config: Config) -> Iterator[Trouble]:
    """How grey values come about, where that is not the same for all."""
    inverted = images[images["photometric"] == "MONOCHROME1"]
    if len(inverted) and (images["photometric"] == "MONOCHROME2").any():
        kind = "MONOCHROME1 beside MONOCHROME2: inverted on reading"
        yield _trouble(TO_KNOW, kind, inverted, config, "on the contact sheet all backgrounds must be black")
    raw = images[(images["kind"] == "DICOM") & (images["grey"] == "no window")]
    if len(raw):
        kind = "neither window nor VOI LUT: grey is scaled by each image's least and greatest value"
        yield _trouble(TO_KNOW, kind, raw, config, "pairs.normalization=image (the default) evens out the exposure")
    several = images[images["grey"].astype("object").fillna("").astype("str").str.contains("alternatives")]
    if len(several):
        kind = "several windows or VOI LUTs: the first is used"
        yield _trouble(TO_KNOW, kind, several.assign(detail=several["grey"]), config)
    lossy = images[images["syntax"].astype("object").fillna("").astype("str").str.contains(_LOSSY)]
    if len(lossy):
        kind = "compressed with loss"
        remedy = "get the archive's original, if there is one: fine calcifications may be gone"
        yield _trouble(TO_KNOW, kind, lossy.assign(detail=lossy["syntax"]), config, remedy)


def _box_troubles(observed: Observed, config: Config) -> Iterator[Trouble]:
    """Boxes that have no place, or whose place does not fit the image that the header describes."""
    columns = ["image_id", "path", "rows", "columns"]
    boxes = observed.findings.merge(observed.images[columns], on="image_id")
    low, high = boxes[["row_min", "col_min"]].to_numpy(dtype=float), boxes[["row_max", "col_max"]].to_numpy(dtype=float)
    size = boxes[["rows", "columns"]].to_numpy(dtype=float)
    words = [
        f"{row.category}: rows {row.row_min:.0f} to {row.row_max:.0f}, columns {row.col_min:.0f} to {row.col_max:.0f} "
        f"of {row.rows:.0f} x {row.columns:.0f}"
        for row in boxes.itertuples()
    ]
    outside = (low >= size).any(axis=1)
    beyond = (high > size).any(axis=1) & ~outside
    at_edge = ((low <= 0) | (high == size)).any(axis=1) & ~outside & ~beyond
    check = "compare the source's table with the image's size: is this the image it was drawn in?"
    for severity, kind, chosen, remedy in (
        (TO_CHECK, "wholly outside the image", outside, check),
        (TO_CHECK, "reaching beyond the image: cut at its edge", beyond, check),
        (TO_KNOW, "ending at the image's edge: cut there by the source, or drawn so", at_edge, ""),
    ):
        rows: pd.DataFrame = boxes.assign(detail=words).loc[np.flatnonzero(chosen)]
        if len(rows):
            yield _trouble(severity, kind, rows, config, remedy, of="boxes")
    unplaced = boxes[boxes[BOX_COLUMNS].isna().any(axis=1)]
    if len(unplaced):
        kind = "place unknown"
        remedy = "nothing, as their breasts give neither lesion patches nor normal ones"
        yield _trouble(TO_KNOW, kind, unplaced.assign(detail=unplaced["category"]), config, remedy, of="findings")


def _label_troubles(
    images: pd.DataFrame, breasts: pd.DataFrame, usable: pd.DataFrame, config: Config
) -> Iterator[Trouble]:
    """Breasts whose views are labelled differently, and breasts that are suspicious although nothing is marked."""
    keys = ["exam_id", "laterality"]
    first = images.sort_values("image_id").drop_duplicates(keys)
    for name in ("birads", "density", "outcome"):
        several = images.groupby(keys)[name].nunique()
        own = first[first.set_index(keys).index.isin(several.index[several > 1])]
        if len(own):
            kind = f"the views of a breast have different {name}: the worse counts"
            yield _trouble(TO_CHECK, kind, own, config, "correct the source's table", of="breasts")
    taken = first.merge(usable["state"].reset_index(), on=keys).merge(
        breasts["state"].rename("detail").reset_index(), on=keys
    )
    # Words of the states of siamray.data.inspection: with "normal" in it the breast gives normal tissue.
    own = taken[(taken["state"] != taken["detail"]) & taken["state"].str.contains(r"^normal|and normal")]
    if len(own):
        kind = "tissue counts as normal for want of what a view of the breast shows that is left out"
        remedy = "take these exams out of the table, unless that image can be had"
        yield _trouble(TO_CHECK, kind, own, config, remedy, of="breasts")
    stated = first.merge(breasts["state"].reset_index(), on=keys)
    for state, own in stated[stated["state"].str.startswith("neither: nothing marked")].groupby("state"):
        option = "birads" if "BI-RADS" in str(state) else "outcomes"
        remedy = f"data.normal.{option}=[...] decides; an unmarked cancer is not normal"
        words = str(state).removeprefix("neither: ")
        yield _trouble(TO_KNOW, f"{words}: neither normal nor a lesion", own, config, remedy, of="breasts")


def _split_troubles(observed: Observed, splits: "pd.Series[str] | None", refusal: str | None) -> Iterator[Trouble]:
    """Splits that cannot be dealt, or that no lesion patch can come from."""
    count = observed.images["woman_id"].nunique()
    if splits is None:
        yield Trouble(TO_CHECK, f"no splits: {refusal}", count, _number(count, "women"), "")
        return
    placed = observed.findings.loc[observed.findings["row_min"].notna(), "image_id"]
    images = observed.images[observed.images["usable"]]
    marked = splits.index.isin(images.loc[images["image_id"].isin(placed), "woman_id"])
    if not marked.any():
        kind = "no finding has a place: nothing can be learnt or scored on lesion patches"
        yield Trouble(TO_CHECK, kind, count, _number(count, "women"), "")
        return
    remedy = "fewer data.folds, another data.split_seed, or data.official_split=false"
    for word in SPLITS:
        dealt = splits == word
        if not (dealt & marked).any():
            kind = f"no finding with a place in the {word} split"
            yield Trouble(TO_CHECK, kind, int(dealt.sum()), _number(int(dealt.sum()), "women"), remedy)
