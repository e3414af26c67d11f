"""The store and an encoder go in; the task lesion detection comes out: candidates, lesions, images, and metrics.

Predictions are rows of four tasks: ``detection_candidate`` (label 1 if it hits a lesion; value: its score),
``detection_lesion`` (label 1; value: the best score of a candidate that hits it, NaN where none does),
``detection_image`` (label 1 if a lesion is marked; value: the best score of its candidates, NaN without any) and
``detection_side`` (a lesion of a pair with lesions on one side only; label 1 if on the left; value: by how much the
left looks more abnormal there). FROC curves follow from them: an image row counts for the false positives per image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from siamray.config import Config, DetectionConfig, IntervalsConfig
from siamray.data.normal import not_normal
from siamray.data.pairs import SIDES, PairCutter
from siamray.data.store import Store
from siamray.downstream import intervals
from siamray.downstream.candidates import (
    ABNORMALITY,
    BRIGHTNESS,
    DISTANCE,
    LINEAR,
    OF_PAIR,
    Candidate,
    Probe,
    View,
    find_candidates,
    head_probe,
    measure,
    pixel_maps,
    side_evidence,
    side_maps,
    window_encoder,
)
from siamray.downstream.froc import CANDIDATE, IMAGE, LESION, binned_auc, froc, hits
from siamray.downstream.metrics import SPLITS, Metric, prefix
from siamray.downstream.patches import LEARNT_ON, SCORED_ON, sample_patches
from siamray.downstream.probes import linear_probe
from siamray.errors import UserError
from siamray.pretraining.encoder import PairEncoder

NAME = "detection"
SIDE = "detection_side"
BOX = ["row_min", "col_min", "row_max", "col_max"]
COLUMNS = [
    *("task", "score", "split", "woman_id", "sample_id", "entry_id", "side", "label", "value"),
    *("category", "density", "view", "note", *BOX),
]
# Pixels of a score are counted in so many bins, of equal share of all windows: ties move the AUROC by less than 1e-3.
BINS = 512


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of women by bins of rising score: [women, bins] in lesions and beside them; ``women`` names the rows."""

    women: list[str]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]


@dataclass(frozen=True)
class Detection:
    """Predictions (COLUMNS), and pixel counts by (split, score)."""

    predictions: pd.DataFrame
    pixels: dict[tuple[str, str], PixelCounts]


def learn_probe(encoder: PairEncoder, store: Store, cutter: PairCutter, config: Config) -> Probe:
    """Learns the linear score from the lesion and normal patches of training women; validation women choose C.

    Every patch stands for the window nearest to it, so that the probe learns the very features it is applied to.

    Raises:
        UserError: a split lacks lesion patches or normal ones.
    """
    samples = sample_patches(store, config)
    samples = samples[samples.split != "test"]
    windows = window_encoder(encoder, config)
    features, kept = [], []
    for entry_id, some in samples.groupby("entry_id", sort=True):
        view = measure(windows, encoder, store, cutter, str(entry_id), config.downstream.detection.minimum_tissue)
        if not view.tissue.any():
            continue
        number = np.cumsum(view.tissue).reshape(view.tissue.shape) - 1
        last = np.array(view.tissue.shape) - 1
        places = np.minimum(np.rint(some[["row", "col"]].to_numpy() / view.step).astype(np.int64), last)
        usable = view.tissue[places[:, 0], places[:, 1]]
        side = some.side.eq(SIDES[1]).to_numpy().astype(np.int64)[usable]
        features.append(view.features[side, number[places[usable, 0], places[usable, 1]]])
        kept.append(some[usable])
    found, used = np.concatenate(features), pd.concat(kept)
    train, validation = (used.split.eq(split).to_numpy() for split in (LEARNT_ON, "validation"))
    labels = used.label.to_numpy()
    # The score is affine: its values at the origin and at the unit vectors are its bias and weights.
    basis = np.vstack([np.zeros((1, found.shape[1])), np.eye(found.shape[1])])
    answer = linear_probe(
        found[train], labels[train], found[validation], labels[validation], basis, config.downstream.probe
    )
    bias = float(answer.test_scores[0])
    return Probe(answer.test_scores[1:] - bias, bias, answer.note or f"C={answer.strength:g}")


def feature_scores(
    encoder: PairEncoder, store: Store, cutter: PairCutter, config: Config, wanted: Sequence[str]
) -> dict[str, Probe]:
    """Makes the scores of features that are wanted, by name: the linear one is learnt, the abnormality is the head.

    Raises:
        UserError: the encoder has no head, or as `learn_probe`.
    """
    probes: dict[str, Probe] = {}
    if LINEAR in wanted:
        probes[LINEAR] = learn_probe(encoder, store, cutter, config)
    if ABNORMALITY in wanted:
        head = head_probe(encoder)
        if head is None:
            raise UserError(
                "downstream.detection.side=abnormality or score=abnormality: this encoder has no head; train it with "
                "pretraining.masses.head_weight=4, or say side=brightness and score=distance"
            )
        probes[ABNORMALITY] = head
    return probes


def detect(encoder: PairEncoder, store: Store, cutter: PairCutter, config: Config) -> Detection:
    """Looks for lesions in all views of validation and test women, by every score.

    Images count for false positives unless something speaks against calling their unmarked tissue normal
    (siamray.data.normal); in those that do not, only what hits a marked lesion is a candidate.

    Args:
        encoder: its weights stay as they are.
        store: the prepared exams.
        cutter: normalizes the images.
        config: data, pairs and downstream.

    Raises:
        UserError: a split lacks lesion patches or normal ones, or the step is no power of two.
    """
    rules, windows = config.downstream.detection, window_encoder(encoder, config)
    # Every encoder is tested by the linear score, one with a head by that as well.
    wanted = [LINEAR, rules.side, *([ABNORMALITY] if encoder.head is not None else [])]
    probes = feature_scores(encoder, store, cutter, config, wanted)
    scores = [DISTANCE, BRIGHTNESS, *probes]
    splits = store.split(config.data)
    doubtful = not_normal(store.entries, store.exams, store.findings, config.data.normal)
    entries = store.entries.assign(split=store.entries.woman_id.map(splits)).sort_values("entry_id")
    entries = entries[entries.split.isin(SCORED_ON)]
    rows: list[dict[str, Any]] = []
    views: list[tuple[dict[str, Any], View]] = []
    for entry in ({str(name): value for name, value in record.items()} for record in entries.to_dict("records")):
        view = measure(windows, encoder, store, cutter, str(entry["entry_id"]), rules.minimum_tissue)
        lesions = marked_lesions(store, str(entry["entry_id"]))
        known = {name: entry[name] for name in ("split", "woman_id", "entry_id", "density", "view")}
        spacing, counts = float(entry["spacing_mm"]), entry["entry_id"] not in doubtful
        for score in scores:
            note = probes[score].note if score in probes else rules.side if score == DISTANCE else BRIGHTNESS
            of_score = {**known, "score": score, "note": note}
            maps = side_maps(view, score, rules.side, probes)
            found = find_candidates(view, maps, score in OF_PAIR, rules)
            rows += list(_entry_rows(found, lesions, of_score, spacing, counts, rules))
        evidence = side_evidence(view, rules.side, probes)
        rows += list(_side_rows(view, evidence, lesions, {**known, "score": rules.side, "note": ""}))
        views.append((entry, _without_features(view, probes)))
    predictions = pd.DataFrame(rows, columns=COLUMNS).astype({"label": "int64", "value": "float64"})
    return Detection(predictions, _pixel_counts(views, store, set(doubtful), rules.side, list(probes)))


def marked_lesions(store: Store, entry_id: str) -> pd.DataFrame:
    """The located findings of a view: side, category, BOX in store pixels, and sample_id."""
    found = store.findings[store.findings.entry_id == entry_id].dropna(subset=["row_min"])
    numbers = found.groupby("side", sort=False).cumcount().astype(str)
    return found.assign(sample_id=entry_id + "_" + found.side.astype(str) + "_lesion" + numbers)


def _entry_rows(
    found: Sequence[Candidate],
    lesions: pd.DataFrame,
    known: dict[str, Any],
    spacing_mm: float,
    counts: bool,
    rules: DetectionConfig,
) -> Iterator[dict[str, Any]]:
    """Rows of a view's candidates, lesions and images, for one score."""
    for side in SIDES:
        own = [candidate for candidate in found if candidate.side == side]
        marked = lesions[lesions.side == side]
        hit = hits([candidate.box for candidate in own], marked[BOX].to_numpy(), spacing_mm, rules)
        values = np.array([candidate.value for candidate in own])
        categories = marked.category.astype(str).tolist()
        for number, candidate in enumerate(own):
            if not (counts or hit[number].any()):
                continue
            what = categories[int(np.argmax(hit[number]))] if hit[number].any() else "none"
            yield {
                **known,
                **dict(zip(BOX, candidate.box, strict=True)),
                "task": CANDIDATE,
                "sample_id": f"{known['entry_id']}_{side}_candidate{number}",
                "side": side,
                "label": int(hit[number].any()),
                "value": candidate.value,
                "category": what,
            }
        for number, lesion in enumerate(marked.to_dict("records")):
            yield {
                **known,
                **{name: lesion[name] for name in ("sample_id", "side", "category", *BOX)},
                "task": LESION,
                "label": 1,
                "value": values[hit[:, number]].max() if hit[:, number].any() else np.nan,
            }
        if counts and (rules.counted_on == "all" or marked.empty):
            yield {
                **known,
                "task": IMAGE,
                "sample_id": f"{known['entry_id']}_{side}",
                "side": side,
                "label": int(len(marked) > 0),
                "value": values.max() if len(values) else np.nan,
                "category": "lesion" if len(marked) else "normal",
            }


def _side_rows(
    view: View, evidence: NDArray[np.float64], lesions: pd.DataFrame, known: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows of the lesions of a view that has lesions on one side only: what the rule says in the window on them."""
    if lesions.side.nunique() != 1 or not view.tissue.any():
        return
    places = np.argwhere(view.tissue)
    for lesion in lesions.to_dict("records"):
        centre = np.array([lesion["row_min"] + lesion["row_max"], lesion["col_min"] + lesion["col_max"]]) / 2
        apart = np.linalg.norm(places * view.step + view.side_pixels / 2 - centre, axis=1)
        row, col = places[int(np.argmin(apart))]
        yield {
            **known,
            **{name: lesion[name] for name in ("sample_id", "side", "category", *BOX)},
            "task": SIDE,
            "label": int(lesion["side"] == SIDES[0]),
            "value": evidence[row, col],
        }


def _without_features(view: View, probes: Mapping[str, Probe]) -> View:
    """A view that keeps the scores of its features in their place, a hundredth of their size."""
    scores = np.stack(
        [np.stack([probe(features) for probe in probes.values()], axis=1) for features in view.features]
    ).astype(np.float32)
    return View(view.entry_id, view.side_pixels, view.step, view.tissue, scores, view.distance, view.brightness)


def _pixel_counts(
    views: Sequence[tuple[dict[str, Any], View]], store: Store, doubtful: set[str], rule: str, of_features: list[str]
) -> dict[tuple[str, str], PixelCounts]:
    """Counts the breasts' pixels in and beside lesions by bins of their score; doubtful views give lesions only."""
    kept = {name: Probe(unit, 0.0) for name, unit in zip(of_features, np.eye(len(of_features)), strict=True)}
    counts: dict[tuple[str, str], PixelCounts] = {}
    for score in (DISTANCE, BRIGHTNESS, *of_features):
        maps = [side_maps(view, score, rule, kept) for _, view in views]
        values = np.concatenate([found[np.isfinite(found)] for found in maps]) if maps else np.zeros(0)
        if not values.size:
            continue
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
        for split in SCORED_ON:
            of_split = [number for number, (entry, _) in enumerate(views) if entry["split"] == split]
            women = sorted({str(views[number][0]["woman_id"]) for number in of_split})
            total = np.zeros((2, len(women), len(edges) + 1), dtype=np.int64)
            for number in of_split:
                entry, view = views[number]
                row = women.index(str(entry["woman_id"]))
                total[:, row] += _entry_pixels(view, maps[number], store, edges, str(entry["entry_id"]) in doubtful)
            counts[split, score] = PixelCounts(women, total[1], total[0])
    return counts


def _entry_pixels(
    view: View, maps: NDArray[np.float64], store: Store, edges: NDArray[np.float64], doubtful: bool
) -> NDArray[np.int64]:
    """Counts [2, bins] of a view's pixels beside and in lesions, of both sides."""
    lesions = marked_lesions(store, view.entry_id)
    total = np.zeros((2, len(edges) + 1), dtype=np.int64)
    masks = [store.mask(view.entry_id, side) for side in SIDES]
    shape = (masks[0].shape[0], masks[0].shape[1])
    for score, mask, side in zip(pixel_maps(view, maps, shape), masks, SIDES, strict=True):
        inside = np.zeros(mask.shape, dtype=np.bool_)
        for box in lesions.loc[lesions.side == side, BOX].to_numpy():
            low, high = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
            inside[low[0] : high[0], low[1] : high[1]] = True
        for label, chosen in enumerate((~inside, inside)):
            if label == 0 and doubtful:
                continue
            pixels = score[mask & chosen & ~np.isnan(score)]
            bins = np.searchsorted(edges, pixels, side="right")
            total[label] += np.bincount(bins, minlength=len(edges) + 1)
    return total


def metrics(found: Detection, rules: DetectionConfig, config: IntervalsConfig) -> dict[str, Metric | float]:
    """Computes FROC sensitivities and areas with intervals by a bootstrap over women.

    Args:
        found: from `detect`.
        rules: the rates of false positives.
        config: replicates, confidence, seed.

    Returns:
        On test women, and on validation women with ``validation_`` before it, each {value, low, high}:
        ``detection_<score>_froc_<rate>``, the share of lesions found at a rate of false positives per image;
        ``detection_<score>_froc_mean`` of all rates; ``detection_<score>_pixel_auc``; ``detection_<score>_image_auc``
        (NaN where every image counted is normal); ``detection_side_accuracy``; and the numbers detection_lesions,
        detection_images and detection_women.
    """
    answers: dict[str, Metric | float] = {}
    for split in SPLITS:
        begin = f"{prefix(split)}{NAME}"
        rows = found.predictions[found.predictions.split == split]
        images = rows[(rows.task == IMAGE) & (rows.score == DISTANCE)]
        lesions = rows[(rows.task == LESION) & (rows.score == DISTANCE)]
        women = pd.Index(sorted(set(rows.woman_id)))
        if women.empty:
            continue
        drawn = intervals.women_weights(len(women), config.replicates, config.seed)
        weights = np.vstack([np.ones((1, len(women)), dtype=np.int64), drawn])
        for score in rows.score[rows.task == IMAGE].unique():
            name = f"{begin}_{score}"
            of_score = rows[rows.score == score]
            values = froc(of_score, _codes(women, of_score), rules.false_positives, weights)
            for place, rate in enumerate(rules.false_positives):
                answers[f"{name}_froc_{rate:g}"] = _metric(values[:, place], config.confidence)
            answers[f"{name}_froc_mean"] = _metric(values.mean(axis=1), config.confidence)
            if (split, score) in found.pixels:
                pixels = found.pixels[split, score]
                of_pixels = weights[:, women.get_indexer(pd.Index(pixels.women))]
                areas = binned_auc(pixels.positive, pixels.negative, of_pixels)
                answers[f"{name}_pixel_auc"] = _metric(areas, config.confidence)
            of_image = of_score[of_score.task == IMAGE]
            answers[f"{name}_image_auc"] = _metric(
                intervals.bootstrap(
                    "auc",
                    of_image.label,
                    of_image.value.fillna(of_image.value.min() - 1),
                    _codes(women, of_image),
                    weights,
                ),
                config.confidence,
            )
        sides = rows[rows.task == SIDE]
        right = ((sides.value >= 0).astype(int) == sides.label).to_numpy(dtype=np.float64)
        number = weights[:, _codes(women, sides)].astype(np.float64)
        total = number.sum(axis=1)
        shares = np.divide(number @ right, total, out=np.full(len(weights), np.nan), where=total > 0)
        answers[f"{begin}_side_accuracy"] = _metric(shares, config.confidence)
        answers |= {
            f"{begin}_lesions": float(len(lesions)),
            f"{begin}_images": float(len(images)),
            f"{begin}_women": float(len(women)),
        }
    return answers


def _codes(women: "pd.Index[str]", rows: pd.DataFrame) -> NDArray[np.intp]:
    """The column of each row's woman."""
    return women.get_indexer(pd.Index(rows.woman_id))


def _metric(values: NDArray[np.float64], confidence: float) -> Metric:
    """The first value is that of all women, the others are replicates."""
    low, high = intervals.interval(values[1:], confidence)
    return {"value": float(values[0]), "low": low, "high": high}
