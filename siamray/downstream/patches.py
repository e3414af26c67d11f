"""The store and an encoder go in; the task abnormal-vs-normal patch comes out: samples, predictions and metrics."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from siamray.config import Config, IntervalsConfig, PatchesConfig
from siamray.data.normal import not_normal
from siamray.data.pairs import SIDES, common_tissue, patch_side, tissue_share
from siamray.data.store import Store
from siamray.downstream import controls, intervals, probes
from siamray.downstream.features import SAMPLES_AT_ONCE, Cut, Patches, extract
from siamray.downstream.fine_tuning import fine_tune
from siamray.downstream.label_fractions import LabelDraw, draw_women
from siamray.downstream.metrics import SPLITS, Metric, metrics_of_scores, prefix
from siamray.errors import UserError
from siamray.pretraining.distances import embed
from siamray.pretraining.encoder import PairEncoder
from siamray.pretraining.shifts import least_distances, shift_pixels, shifted
from siamray.seeds import named_seed

TASK = "patches"
LEARNT_ON = "training"
SCORED_ON = ("validation", "test")
SAMPLE_COLUMNS = [
    *("sample_id", "woman_id", "entry_id", "side", "row", "col"),
    *("label", "category", "split", "density", "view"),
]
NORMAL = "normal"
# Scores that are means over mirror images with downstream.patches.mirrors.
MIRRORED_SCORES = ("distance", "abnormality")
# Axes along which a patch is mirrored: as it is, left-right, up-down, both.
_MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))

Places = NDArray[np.int64]


class Placement(NamedTuple):
    """Samples (SAMPLE_COLUMNS), and what gave none: entry_id, side, category, reason."""

    samples: pd.DataFrame
    left_out: pd.DataFrame


class Answers(NamedTuple):
    """What a classifier answers to validation and to test samples, and what a reader must know of it."""

    score: str
    validation: NDArray[np.float64]
    test: NDArray[np.float64]
    note: str
    draw: int


def sample_patches(store: Store, config: Config) -> pd.DataFrame:
    """Places the labelled patches of all women; see `place_samples` for the rules.

    Args:
        store: the prepared exams.
        config: its data section deals the women and seeds the places; pairs gives patch side and tissue share.

    Returns:
        SAMPLE_COLUMNS, one row per patch: row and col are its top-left pixel in the store, label is 1 for a lesion
        patch, category is the finding's or "normal".

    Raises:
        UserError: a split lacks lesion patches or normal ones.
    """
    samples = place_samples(store, config).samples
    women = store.split(config.data).value_counts()
    for split in (LEARNT_ON, *SCORED_ON):
        labels = set(samples.label[samples.split == split])
        for label, name in ((1, "lesion"), (0, "normal")):
            if label not in labels:
                raise UserError(
                    f"data.fold={config.data.fold}: the {int(women.get(split, 0))} {split} women give no {name} patch; "
                    "take more women, another data.fold or data.split_seed, a smaller pairs.minimum_tissue, "
                    "or smaller patches (pairs.patch_pixels)"
                )
    return samples


def place_samples(store: Store, config: Config) -> Placement:
    """Places lesion and normal patches by rules that do not depend on config.seed: all trials get the same samples.

    Both kinds must have ``pairs.minimum_tissue`` of tissue common to both sides, or else air would tell them apart.

    - Lesion patches: ``per_lesion`` per located finding, seeded among the places at most a quarter of the patch side
      (half of it, where no such place qualifies) from the box's centre, inside the image. The overlap must be at least
      ``minimum_box_share``: the share of the box that the patch covers or the share of the patch that the box covers,
      whichever is larger (small lesions must lie in the patch, the patch may lie in large ones).
    - Normal patches: ``normal_per_image`` per side of an entry, seeded among the places that intersect no box of either
      side, as a lesion of the other side makes the pair abnormal too. An entry gives none where data.normal says that
      one of its breasts is not normal (siamray.data.normal.not_normal).

    Args:
        store: the prepared exams.
        config: data, pairs and downstream.patches.

    Returns:
        Samples, and what was left out with its reason.
    """
    side_pixels = patch_side(config)
    splits = store.split(config.data)
    findings = {str(key): group for key, group in store.findings.groupby("entry_id", sort=False)}
    doubtful = not_normal(store.entries, store.exams, store.findings, config.data.normal)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for entry in store.entries.sort_values("entry_id").to_dict("records"):
        share = tissue_share(common_tissue(store, entry["entry_id"]), side_pixels)
        known = {name: entry[name] for name in ("woman_id", "entry_id", "density", "view")}
        known["split"] = splits[entry["woman_id"]]
        marked = findings.get(entry["entry_id"], store.findings.iloc[:0])
        doubt = doubtful.get(entry["entry_id"], "")
        for found in (_lesions(share, marked, known, config), _normals(share, marked, doubt, known, config)):
            for row in found:
                (left_out if "reason" in row else rows).append(row)
    samples = pd.DataFrame(rows, columns=SAMPLE_COLUMNS).astype({"row": "int64", "col": "int64", "label": "int64"})
    return Placement(samples, pd.DataFrame(left_out, columns=["entry_id", "side", "category", "reason"]))


def left_out_findings(store: Store, config: Config) -> dict[str, int]:
    """Counts the findings that give no lesion patch, by the reason why not, the most frequent reason first."""
    left_out = place_samples(store, config).left_out
    counts = left_out.reason[left_out.category != NORMAL].value_counts()
    return {str(reason): int(count) for reason, count in counts.items()}


def overlap_share(places: Places, side_pixels: int, box: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much a patch is of a lesion: the larger of intersection / box area and intersection / patch area.

    Args:
        places: [n, 2] top-left row and column of patches.
        side_pixels: patch side.
        box: row_min, col_min, row_max, col_max of a box with an area.

    Returns:
        [n] shares in 0..1.
    """
    low = np.maximum(places, box[:2])
    high = np.minimum(places + side_pixels, box[2:])
    intersection = np.clip(high - low, 0, None).prod(axis=1)
    shares = intersection / min(float((box[2:] - box[:2]).prod()), float(side_pixels**2))
    return cast(NDArray[np.float64], shares)


def score(encoder: nn.Module, samples: pd.DataFrame, cut: Cut, config: Config) -> pd.DataFrame:
    """Scores validation and test samples by an encoder whose weights stay as they are, but for ``finetuned``.

    Scores: ``linear`` and ``knn<k>`` on the features of the sample's own side, learnt from training women's samples;
    ``finetuned``, where downstream.fine_tuning.epochs are more than 0, see `fine_tune`; ``distance``, the distance of
    both sides' projected embeddings (in the space that the encoder's metadata name "embedding", else unit; the least
    over shifts where they name "shift_share"); ``abnormality``, the log odds of the encoder's head on the sample's own
    side, where it has one (both the mean over mirror images with downstream.patches.mirrors); ``brightness`` and
    ``blob``, see `siamray.downstream.controls`. What was learnt from a part of the women has its name after it, such as
    ``linear@10`` (see siamray.downstream.label_fractions), and several draws.

    Args:
        encoder: turns [B, 1, P, P] into features and embeddings.
        samples: from `sample_patches`.
        cut: gives the normalized pairs [N, 2, P, P] of some samples; axis 1 is left, right.
        config: its downstream.probe, label and fine_tuning sections.

    Returns:
        One row per score, draw and sample: task, score, the columns of the sample, value (higher = more abnormal), draw
        and note: the C that validation chose, the number of neighbours that voted, or why values are missing.

    Raises:
        ValueError: the encoder gives features that are not finite.
    """
    embedding = (getattr(encoder, "metadata", None) or {}).get("embedding", "unit")
    features, unlearnt = _measure(encoder, samples, cut, config.downstream.patches)
    validation, test = (samples.split.eq(split).to_numpy() for split in SCORED_ON)
    scored = validation | test
    answers: list[Answers] = []
    for draw in draw_women(samples[samples.split == LEARNT_ON], config):
        answers += _probed(features, samples, draw, config)
        if config.downstream.fine_tuning.epochs > 0:
            answers.append(_fine_tuned(encoder, samples, cut, draw, config))
    answers += [
        Answers(name, values[validation[scored]], values[test[scored]], embedding if name == "distance" else "", 0)
        for name, values in unlearnt.items()
    ]
    kept = ["split", "woman_id", "sample_id", "entry_id", "side", "label", "value", "category", "density", "view"]
    tables = [
        samples[chosen].assign(
            task=TASK, score=found.score, value=values.astype(np.float64), draw=found.draw, note=found.note
        )
        for found in answers
        for chosen, values in ((validation, found.validation), (test, found.test))
    ]
    return pd.concat(tables, ignore_index=True)[["task", "score", *kept, "draw", "note"]]


def metrics(predictions: pd.DataFrame, config: IntervalsConfig) -> dict[str, Metric | float]:
    """Computes AUC and average precision of every score with intervals by a bootstrap over women.

    Args:
        predictions: from `score`.
        config: replicates, confidence, seed.

    Returns:
        ``patches_<score>_<auc|ap>`` on test women, each {value, low, high}; the numbers patches_prevalence (share of
        lesion patches), patches_women, patches_lesions, patches_normals and patches_undefined_replicates (those without
        one of the classes, left out of the intervals); the same on validation women with ``validation_`` before it.
    """
    found = metrics_of_scores(predictions, TASK, config)
    for split in SPLITS:
        rows = predictions[(predictions.task == TASK) & (predictions.split == split)]
        if rows.empty:
            continue
        first = rows[(rows.score == rows.score.iloc[0]) & (rows.draw == rows.draw.iloc[0])]
        codes, women = pd.factorize(first.woman_id, sort=True)
        weights = intervals.women_weights(len(women), config.replicates, config.seed)
        any_score = intervals.bootstrap("auc", first.label, np.zeros(len(first)), codes, weights)
        found |= {
            f"{prefix(split)}{TASK}_prevalence": float(first.label.mean()),
            f"{prefix(split)}{TASK}_women": float(len(women)),
            f"{prefix(split)}{TASK}_lesions": float(first.label.sum()),
            f"{prefix(split)}{TASK}_normals": float((1 - first.label).sum()),
            f"{prefix(split)}{TASK}_undefined_replicates": float(np.isnan(any_score).sum()),
        }
    return found


def _probed(features: NDArray[np.float32], samples: pd.DataFrame, draw: LabelDraw, config: Config) -> Iterator[Answers]:
    """Answers of the classifiers on frozen features that learn from the women of a draw."""
    probe_config = config.downstream.probe
    labels = samples.label.to_numpy()
    train = (samples.split.eq(LEARNT_ON) & samples.woman_id.isin(draw.women)).to_numpy()
    validation, test = (samples.split.eq(split).to_numpy() for split in SCORED_ON)
    learnt = (features[train], labels[train])
    linear = probes.linear_probe(*learnt, features[validation], labels[validation], features[test], probe_config)
    note = _joined(linear.note or f"C={linear.strength:g}", draw.note)
    yield Answers(f"linear{draw.suffix}", linear.validation_scores, linear.test_scores, note, draw.draw)
    for k in probe_config.neighbours:
        votes = [
            probes.knn_scores(*learnt, features[chosen], k, probe_config.temperature) for chosen in (validation, test)
        ]
        note = _joined(f"k={votes[0].neighbours}", draw.note)
        yield Answers(f"knn{k}{draw.suffix}", votes[0].scores, votes[1].scores, note, draw.draw)


def _fine_tuned(encoder: nn.Module, samples: pd.DataFrame, cut: Cut, draw: LabelDraw, config: Config) -> Answers:
    """Answers of the encoder that was trained further on the women of a draw."""
    training = samples[samples.split.eq(LEARNT_ON) & samples.woman_id.isin(draw.women)]
    validation, test = (samples[samples.split == split] for split in SCORED_ON)
    tuned = fine_tune(
        encoder,
        training,
        validation,
        test,
        cut,
        config.downstream.fine_tuning,
        config.pairs.augmentation,
        named_seed(config.seed, "fine-tuning", draw.suffix, draw.draw),
    )
    note = _joined(tuned.note, draw.note)
    return Answers(f"finetuned{draw.suffix}", tuned.validation_scores, tuned.test_scores, note, draw.draw)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _measure(
    encoder: nn.Module, samples: pd.DataFrame, cut: Cut, config: PatchesConfig
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
    """Features [N, F] of each sample's own side, and the scores that need no label of the M samples that are scored."""
    features: list[NDArray[np.float32]] = []
    scores: dict[str, list[NDArray[np.float64]]] = {}
    for start in range(0, max(len(samples), 1), SAMPLES_AT_ONCE):
        part = samples.iloc[start : start + SAMPLES_AT_ONCE]
        pairs = cut(part)
        right = part.side.eq(SIDES[1]).to_numpy().astype(np.int64)
        features.append(extract(encoder, pairs[np.arange(len(part)), right][:, None])[0])
        scored = part.split.isin(SCORED_ON).to_numpy()
        if not scored.any():
            continue
        found = {
            **_of_networks(encoder, pairs[scored], right[scored], partial(cut, part[scored]), config.mirrors),
            "brightness": controls.brightness_difference(pairs[scored]),
            "blob": controls.blob(pairs[scored, right[scored]]),
        }
        for name, values in found.items():
            scores.setdefault(name, []).append(values)
    return np.concatenate(features), {name: np.concatenate(parts) for name, parts in scores.items()}


def _of_networks(
    encoder: nn.Module, pairs: Patches, right: NDArray[np.int64], cut: Callable[[int], Patches], mirrors: bool
) -> dict[str, NDArray[np.float64]]:
    """Scores [N] of pairs [N, 2, P, P] that need no label.

    Args:
        encoder: gives embeddings, and abnormality where it has a head.
        pairs: normalized.
        right: [N] 1 where the sample's own side is the right one.
        cut: gives the same pairs with a context of so many pixels.
        mirrors: whether scores are means over mirror images.
    """
    known = getattr(encoder, "metadata", None) or {}
    embedding, share = known.get("embedding", "unit"), float(known.get("shift_share", 0))
    reach = shift_pixels(share, pairs.shape[-1])
    windows = cut(reach)[:, 1:] if reach else None
    has_head = getattr(encoder, "head", None) is not None
    seen: dict[str, list[NDArray[np.float64]]] = {}
    for axes in _MIRRORS if mirrors else _MIRRORS[:1]:
        turned = np.ascontiguousarray(np.flip(pairs, axes))
        features, projected = extract(encoder, turned.reshape(-1, 1, *pairs.shape[2:]))
        lefts, rights = (torch.from_numpy(projected[side :: len(SIDES)]) for side in range(len(SIDES)))
        if has_head:
            own = torch.from_numpy(features[len(SIDES) * np.arange(len(pairs)) + right])
            with torch.inference_mode():
                abnormality = cast(PairEncoder, encoder).abnormality(own)
            seen.setdefault("abnormality", []).append(abnormality.numpy().astype(np.float64))
        if windows is not None:
            around = shifted(torch.from_numpy(np.ascontiguousarray(np.flip(windows, axes))), reach)
            rights = torch.from_numpy(extract(encoder, around.numpy())[1])
        distance = least_distances(embed(lefts, embedding), embed(rights, embedding))
        seen.setdefault("distance", []).append(distance.numpy().astype(np.float64))
    return {name: np.mean(values, axis=0) for name, values in seen.items()}


def _boxes(findings: pd.DataFrame, height: float, width: float) -> NDArray[np.float64]:
    """Boxes [n, 4] of findings within the image, grown to whole pixels; NaN where the place is unknown."""
    boxes = findings[["row_min", "col_min", "row_max", "col_max"]].to_numpy(dtype=np.float64)
    limit = np.array([height, width])
    low = np.clip(np.floor(boxes[:, :2]), 0, limit)
    high = np.clip(np.maximum(np.ceil(boxes[:, 2:]), low + 1), 0, limit)
    return np.hstack([low, high])


def _lesions(
    share: NDArray[np.float64], marked: pd.DataFrame, known: dict[str, Any], config: Config
) -> Iterator[dict[str, Any]]:
    """Lesion patches of an entry; a row with "reason" for every finding that gives none."""
    side_pixels, rules = patch_side(config), config.downstream.patches
    numbers = marked.groupby("side", sort=False).cumcount().to_numpy()
    boxes = _boxes(marked, share.shape[0] + side_pixels - 1, share.shape[1] + side_pixels - 1)
    for finding, number, box in zip(marked.to_dict("records"), numbers, boxes, strict=True):
        side, category = str(finding["side"]), str(finding["category"])
        places, reason = _lesion_places(share, box, side_pixels, config.pairs.minimum_tissue, rules)
        if reason:
            yield {"entry_id": known["entry_id"], "side": side, "category": category, "reason": reason}
            continue
        seed = named_seed(config.data.split_seed, "lesion patches", known["entry_id"], side, int(number))
        chosen = np.random.default_rng(seed).permutation(places)[: rules.per_lesion]
        for count, (row, col) in enumerate(chosen):
            name = f"{known['entry_id']}_{side}_lesion{number}_{count}"
            place = {"side": side, "row": row, "col": col, "label": 1, "category": category}
            yield {**known, **place, "sample_id": name}


def _lesion_places(
    share: NDArray[np.float64], box: NDArray[np.float64], side_pixels: int, minimum_tissue: float, rules: PatchesConfig
) -> tuple[Places, str]:
    """Allowed places [n, 2] of a lesion's patches, or the reason why there is none."""
    none = np.empty((0, 2), dtype=np.int64)
    if np.isnan(box).any():
        return none, "place unknown"
    if share.size == 0:
        return none, "the image is smaller than a patch"
    if (box[2:] <= box[:2]).any():
        return none, "outside the image"
    last = np.array(share.shape) - 1
    centred = np.clip(np.round((box[:2] + box[2:] - side_pixels) / 2), 0, last).astype(np.int64)
    for reach in (side_pixels // 4, side_pixels // 2):
        low, high = np.maximum(centred - reach, 0), np.minimum(centred + reach, last) + 1
        enough = np.argwhere(share[low[0] : high[0], low[1] : high[1]] >= minimum_tissue) + low
        places = enough[overlap_share(enough, side_pixels, box) >= rules.minimum_box_share]
        if len(places):
            return places, ""
    return none, "too little tissue common to both sides, or overlap, around it"


def _normals(
    share: NDArray[np.float64],
    marked: pd.DataFrame,
    reason: str,
    known: dict[str, Any],
    config: Config,
) -> Iterator[dict[str, Any]]:
    """Normal patches of an entry, unless there is a reason; a row with "reason" for every side that gives none."""
    side_pixels, wanted = patch_side(config), config.downstream.patches.normal_per_image
    allowed = share >= config.pairs.minimum_tissue
    boxes = _boxes(marked, share.shape[0] + side_pixels - 1, share.shape[1] + side_pixels - 1)
    if not reason:
        for low_row, low_col, high_row, high_col in boxes.astype(np.int64):
            # The top-left pixels of the patches that intersect the box.
            allowed[max(low_row - side_pixels + 1, 0) : high_row, max(low_col - side_pixels + 1, 0) : high_col] = False
        reason = "" if allowed.any() else "no place with enough tissue common to both sides and free of lesions"
    if reason:
        for side in SIDES:
            yield {"entry_id": known["entry_id"], "side": side, "category": NORMAL, "reason": reason}
        return
    places = np.flatnonzero(allowed)
    for side in SIDES:
        seed = named_seed(config.data.split_seed, "normal patches", known["entry_id"], side)
        chosen = np.random.default_rng(seed).choice(places, size=min(wanted, len(places)), replace=False)
        for count, place in enumerate(chosen):
            row, col = divmod(int(place), share.shape[1])
            name = f"{known['entry_id']}_{side}_normal_{count}"
            yield {
                **known,
                "side": side,
                "row": row,
                "col": col,
                "label": 0,
                "category": NORMAL,
                "sample_id": name,
            }
