"""Observed images go in; the record of what preparing would meet comes out: counts, distributions, labels, troubles.

The record is plain (`Inspection.to_dict`), so that a terminal and a page can show it and know nothing else.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from siamray.config import Config, NormalConfig
from siamray.data.exams import (
    BIRADS,
    BOX_COLUMNS,
    CATEGORIES,
    DENSITIES,
    OUTCOMES,
    SPLITS,
    VIEWS,
    assign_splits,
)
from siamray.data.normal import doubt
from siamray.data.observation import Observed, observe
from siamray.data.troubles import Trouble, are_pictures, relative, troubles
from siamray.data.vendors import VENDORS
from siamray.errors import UserError

# Distinct values of a distribution that are kept; sizes and spacings of an archive can be as many as its images.
KEPT = 40
UNKNOWN = "unknown"
# What a breast's tissue can be, in the order it is shown in.
_STATES = ("normal", "marked", "neither")
# Groups of the label table in their order, each with the order of its names; none where the data give them.
_GROUPS: dict[str, tuple[Any, ...]] = {
    "": (),
    "breasts by BI-RADS": BIRADS,
    "breasts by density": DENSITIES,
    "breasts by outcome": OUTCOMES,
    "breasts by what counts as normal": (),
    "findings": CATEGORIES,
    "images by vendor": VENDORS,
    "images by site": (),
}


@dataclass(frozen=True)
class Distribution:
    """How the values of one property are spread.

    Attributes:
        name: the property, with its unit.
        of: what is counted.
        counts: value -> count, the most frequent first, at most KEPT of them.
        further: number of other values, and how many have them.
        unknown: how many have none.
        range: least, median and greatest value where they are numbers.
    """

    name: str
    of: str
    counts: dict[str, int]
    further: tuple[int, int]
    unknown: int
    range: tuple[float, float, float] | None


@dataclass(frozen=True)
class LabelRow:
    """One line of the label table: a count of all that is listed, of what can be used, and of each split.

    Attributes:
        group: what is counted, as a heading.
        name: the value.
        listed: count over all listed images.
        usable: count over the images whose pair can be used, as far as headers tell.
        splits: the same for training, validation and test women; empty where they cannot be dealt.
    """

    group: str
    name: str
    listed: int
    usable: int
    splits: dict[str, int]


@dataclass(frozen=True)
class Inspection:
    """What a physicist wants to see before a week of compute.

    Attributes:
        source: data.source.
        root: data.root, or None for generated data.
        overview: what there is: name, count, remark.
        pairs: per view: view, left, right, pairs, usable; images of each side, pairs complete and pairs usable.
        headers: distributions over the images whose header can be read.
        labels: the label table.
        normal: data.normal, as options are written.
        ages: age of the exams and time to their outcomes.
        boxes: per category and for "all": category, boxes, images, unplaced, long side in mm at 5, 50 and 95 %.
        troubles: what is left out, contradictory, or good to know; the gravest first.
        timing: headers, seconds, per_second, and milliseconds of a header: median, high (95 %), slowest and its file.
    """

    source: str
    root: str | None
    overview: list[tuple[str, int, str]]
    pairs: list[dict[str, Any]]
    headers: list[Distribution]
    labels: list[LabelRow]
    normal: str
    ages: list[Distribution]
    boxes: list[dict[str, Any]]
    troubles: list[Trouble]
    timing: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Turns the record into dictionaries, lists, numbers and words."""
        return asdict(self)


def inspect(config: Config, *, progress: bool = True) -> Inspection:
    """Reads tables and headers of a data set, no pixels, and records what preparing would meet.

    Args:
        config: data and preparation.
        progress: whether to show a progress bar on stderr.

    Raises:
        UserError: as siamray.data.sources.read_exams.
    """
    return describe(observe(config, progress=progress), config)


def describe(observed: Observed, config: Config) -> Inspection:
    """Makes the record of observed images; see inspect."""
    images, findings = observed.images, observed.findings
    splits, refusal = _splits(observed, config)
    normal = config.data.normal
    breasts, usable = (breast_states(part, findings, normal) for part in (images, images[images["usable"]]))
    return Inspection(
        source=config.data.source,
        root=config.data.root,
        overview=_overview(observed),
        pairs=_pairs(images),
        headers=_headers(images[~images["unreadable"]]),
        labels=_labels(images, findings, splits, config.data.normal),
        normal=" ".join(_normal_options(config.data.normal)),
        ages=_ages(images),
        boxes=_boxes(images, findings),
        troubles=troubles(observed, breasts, usable, splits, refusal, config),
        timing=_timing(observed, config),
    )


def breast_states(images: pd.DataFrame, findings: pd.DataFrame, normal: NormalConfig) -> pd.DataFrame:
    """Says of every breast (side of an exam) whether its tissue counts as normal.

    Args:
        images: rows with exam_id, laterality, image_id, birads, outcome.
        findings: FINDING_COLUMNS; those of a breast's images mark it.
        normal: data.normal.

    Returns:
        Indexed by exam_id and laterality: birads (the most suspicious of its images), density, outcome (the worst), and
        state: "normal: ...", "marked: ..." or "neither: ...", with the reason.
    """
    marked = images["image_id"].isin(findings["image_id"])
    unplaced = images["image_id"].isin(findings.loc[findings["row_min"].isna(), "image_id"])
    ranks = {
        "birads": images["birads"].map({value: rank for rank, value in enumerate(BIRADS)}),
        "density": images["density"].map({value: rank for rank, value in enumerate(DENSITIES)}),
        "outcome": images["outcome"].map({value: rank for rank, value in enumerate(OUTCOMES)}),
    }
    worst = images[["exam_id", "laterality"]].assign(marked=marked, unplaced=unplaced, **ranks)
    breasts = worst.groupby(["exam_id", "laterality"]).max()
    for name, words in (("birads", BIRADS), ("density", DENSITIES), ("outcome", OUTCOMES)):
        values = [None if pd.isna(rank) else words[int(rank)] for rank in breasts[name]]
        breasts[name] = pd.Series(values, index=breasts.index, dtype="object")
    states = [_state(row, normal) for row in breasts.itertuples()]
    breasts["state"] = pd.Series(states, index=breasts.index, dtype="object")
    return breasts


def _state(breast: Any, normal: NormalConfig) -> str:
    if breast.unplaced:
        return "neither: a finding of unknown place"
    if breast.marked:
        if normal.beside_findings:
            return "marked: a lesion, and normal beside its boxes"
        return "marked: a lesion, and beside its boxes neither"
    against = doubt(breast.birads, breast.outcome, normal)
    return f"neither: nothing marked, but {against}" if against else "normal: nothing marked"


def _normal_options(normal: NormalConfig) -> list[str]:
    lists = [f"data.normal.{name}=[{','.join(map(str, getattr(normal, name)))}]" for name in ("birads", "outcomes")]
    return [*lists, f"data.normal.beside_findings={str(normal.beside_findings).lower()}"]


def _splits(observed: Observed, config: Config) -> tuple["pd.Series[str] | None", str | None]:
    """Deals the women of usable pairs as training will; None and the reason where that is not possible."""
    usable = observed.images[observed.images["usable"]]
    if usable.empty:
        return None, "no pair can be used, so that there is no woman to deal"
    options = config.data.folds, config.data.fold, config.data.split_seed, config.data.official_split
    try:
        return assign_splits(usable, observed.findings, *options), None
    except UserError as error:
        return None, str(error)


def _overview(observed: Observed) -> list[tuple[str, int, str]]:
    images = observed.images
    usable = images[images["usable"]]
    gone = observed.excluded[~observed.excluded["image_id"].isin(images["image_id"])]
    pictures = are_pictures(gone)
    rows = [
        ("women", images["woman_id"].nunique(), f"{usable['woman_id'].nunique():,} with a pair that can be used"),
        ("exams", images["exam_id"].nunique(), f"{usable['exam_id'].nunique():,} with a pair that can be used"),
        ("images in CC or MLO view", len(images), f"{len(usable):,} can be used"),
        ("images left out by the source", int(pictures.sum()), "other views, implants, rows without file, ..."),
        ("other rows it reports", int((~pictures).sum()), "marks and rows that it cannot use as they are"),
        ("headers that cannot be read", int(images["unreadable"].sum()), ""),
        ("findings", len(observed.findings), f"in {observed.findings['image_id'].nunique():,} images"),
    ]
    return [(name, int(count), remark) for name, count, remark in rows]


def _pairs(images: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for view in (*VIEWS, "all"):
        chosen = images if view == "all" else images[images["view"] == view]
        complete = chosen[chosen["left_out"].isna()]
        rows.append(
            {
                "view": view,
                "left": int((chosen["laterality"] == "L").sum()),
                "right": int((chosen["laterality"] == "R").sum()),
                "pairs": len(complete) // 2,
                "usable": int(chosen["usable"].sum()) // 2,
                "women": int(chosen.loc[chosen["usable"], "woman_id"].nunique()),
            }
        )
    return [row for row in rows if row["view"] == "all" or row["left"] or row["right"]]


def _headers(images: pd.DataFrame) -> list[Distribution]:
    """Distributions of what headers say, and of the spacing that preparation will use."""
    sizes = _joined(images["rows"], images["columns"], "{:.0f} x {:.0f}")
    # In centimetres a wrong spacing shows at once: detectors are 18 x 24 or 24 x 30 cm.
    long_side = images[["rows", "columns"]].max(axis=1) * images["used_spacing"] / 10
    bits = images["bits"].map(lambda value: f"{value:.0f}", na_action="ignore")
    return [
        distribution("file", images["kind"]),
        distribution("vendor", images["header_vendor"]),
        distribution("transfer syntax", images.loc[images["kind"] == "DICOM", "syntax"]),
        distribution("photometric", images["photometric"]),
        distribution("bits", bits),
        distribution("grey by", images["grey"]),
        distribution("padding", images["padding"].fillna("none")),
        distribution("spacing, mm", images["used_spacing"].round(5)),
        distribution("spacing from", images["spacing_origin"]),
        distribution("rows x columns", sizes),
        distribution("long side, cm", long_side.round(1)),
    ]


def distribution(name: str, values: "pd.Series[Any]", of: str = "images") -> Distribution:
    """Counts the values of a property.

    Args:
        name: the property.
        values: one value, or null, for each of what is counted.
        of: what is counted.
    """
    known = values.dropna()
    is_number = pd.api.types.is_numeric_dtype(known) and len(known) > 0
    counts = known.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    shown = {f"{value:g}" if is_number else str(value): int(count) for value, count in counts.head(KEPT).items()}
    numbers = known.to_numpy(dtype=float) if is_number else None
    spread = None if numbers is None else (float(numbers.min()), float(np.median(numbers)), float(numbers.max()))
    further = counts.iloc[KEPT:]
    return Distribution(name, of, shown, (len(further), int(further.sum())), len(values) - len(known), spread)


def binned(name: str, values: "pd.Series[Any]", width: int, of: str) -> Distribution:
    """Counts numbers in bins of a width, in their order; see distribution."""
    known = values.dropna()
    starts, sizes = np.unique(known.to_numpy(dtype=float) // width * width, return_counts=True)
    counts = {f"{low:.0f} to {low + width - 1:.0f}": int(size) for low, size in zip(starts, sizes, strict=True)}
    spread = (float(known.min()), float(known.median()), float(known.max())) if len(known) else None
    return Distribution(name, of, counts, (0, 0), len(values) - len(known), spread)


def _joined(first: "pd.Series[Any]", second: "pd.Series[Any]", form: str) -> "pd.Series[Any]":
    texts = [None if pd.isna(a) or pd.isna(b) else form.format(a, b) for a, b in zip(first, second, strict=True)]
    return pd.Series(texts, index=first.index, dtype="object")


def _ages(images: pd.DataFrame) -> list[Distribution]:
    exams = images.drop_duplicates("exam_id")
    rows = [binned("age at the exam, years", exams["age"], 10, "exams")]
    months = exams["outcome_months"]
    rows += [
        binned(f"months to {word}", months[exams["outcome"] == word], 12, "exams")
        for word in OUTCOMES
        if months[exams["outcome"] == word].notna().any()
    ]
    return rows


def _labels(
    images: pd.DataFrame, findings: pd.DataFrame, splits: "pd.Series[str] | None", normal: NormalConfig
) -> list[LabelRow]:
    """Makes the label table; what can be used is dealt into splits as training will deal it."""
    usable = images[images["usable"]]
    parts = {"listed": images, "usable": usable}
    if splits is not None:
        words = usable["woman_id"].map(splits)
        parts |= {word: usable[words == word] for word in SPLITS}
    counted = {name: _label_counts(part, findings, normal) for name, part in parts.items()}
    rows = []
    # A breast may count as another kind without the images that are left out.
    names = dict.fromkeys(key for values in counted.values() for key in values)
    for group, name in sorted(names, key=lambda key: (list(_GROUPS).index(key[0]), _state_order(key[1]))):
        counts = {part: values.get((group, name), 0) for part, values in counted.items()}
        rows.append(LabelRow(group, name, counts.pop("listed"), counts.pop("usable"), counts))
    return rows


def _state_order(name: str) -> int:
    """Places the states of breasts among each other, and leaves other names where they are."""
    state = name.partition(":")[0]
    return _STATES.index(state) if ":" in name else 0


def _label_counts(images: pd.DataFrame, findings: pd.DataFrame, normal: NormalConfig) -> dict[tuple[str, str], int]:
    """Counts women, breasts by label and findings by category, in the order they are shown in."""
    breasts = breast_states(images, findings, normal)
    own = findings[findings["image_id"].isin(images["image_id"])]
    counts = {
        ("", "women"): images["woman_id"].nunique(),
        ("", "exams"): images["exam_id"].nunique(),
        ("", "breasts"): len(breasts),
        ("", "images"): len(images),
    }
    vendors = images["vendor"].fillna(images["header_vendor"])
    for group, values in (
        ("breasts by BI-RADS", breasts["birads"]),
        ("breasts by density", breasts["density"]),
        ("breasts by outcome", breasts["outcome"]),
        ("breasts by what counts as normal", breasts["state"]),
        ("findings", own["category"]),
        ("images by vendor", vendors),
        ("images by site", images["site"]),
    ):
        found = values.value_counts()
        names = _GROUPS[group] or sorted(found.index)
        counts |= {(group, str(name)): int(found[name]) for name in names if name in found.index}
        if values.isna().any():
            counts[group, UNKNOWN] = int(values.isna().sum())
    return counts


def _boxes(images: pd.DataFrame, findings: pd.DataFrame) -> list[dict[str, Any]]:
    spacing = images.set_index("image_id")["used_spacing"]
    boxes = findings[BOX_COLUMNS].to_numpy(dtype=float)
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    table = findings.assign(
        long_mm=sides * findings["image_id"].map(spacing).to_numpy(dtype=float), placed=~np.isnan(boxes).any(axis=1)
    )
    rows = []
    for category in ("all", *CATEGORIES):
        own = table if category == "all" else table[table["category"] == category]
        if own.empty:
            continue
        lengths = own["long_mm"].dropna()
        percentiles = np.percentile(lengths, (5, 50, 95)).tolist() if len(lengths) else None
        rows.append(
            {
                "category": category,
                "boxes": int(own["placed"].sum()),
                "images": int(own.loc[own["placed"], "image_id"].nunique()),
                "unplaced": int((~own["placed"]).sum()),
                "long_mm": percentiles,
            }
        )
    return rows


def _timing(observed: Observed, config: Config) -> dict[str, Any]:
    seconds = observed.images["seconds"]
    if seconds.empty:
        return {"headers": 0, "seconds": 0.0}
    slowest = observed.images.iloc[int(seconds.argmax())]
    return {
        "headers": len(seconds),
        "seconds": observed.reading_seconds,
        "per_second": len(seconds) / max(observed.reading_seconds, 1e-9),
        "median_ms": 1000 * float(seconds.median()),
        "high_ms": 1000 * float(seconds.quantile(0.95)),
        "slowest_ms": 1000 * float(seconds.max()),
        "slowest_file": relative(str(slowest["path"]), config),
    }
