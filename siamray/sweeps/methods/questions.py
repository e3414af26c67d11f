"""What an experiment recorded goes in; paragraphs on question, women, images and pretraining come out."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from siamray.sweeps.methods.recorded import Known, Paragraph, option_of, variant_changes
from siamray.sweeps.methods.wording import NOT_RECORDED, in_words, listed, numbered
from siamray.sweeps.metric_words import metric_name

SOURCES = {
    "phantom": "generated women (siamray's phantom)",
    "mias": "mini-MIAS",
    "vindr": "VinDr-Mammo",
    "optimam": "the OPTIMAM Mammography Image Database",
    "cbis_ddsm": "CBIS-DDSM",
    "inbreast": "INbreast",
    "rsna": "RSNA Screening Mammography 2022",
    "folder": "the authors' own data (data=folder)",
}
# Options that say where files are and how much is shown, not what was done.
_PLACES = ("results", "store", "data.root", "experiments", "progress", "seeds", "encoder", "cluster.address")
_UNITS = {
    "patches": "patches",
    "birads": "breasts and exams",
    "outcome": "women",
    "density": "breasts",
    "detection": "lesions and images",
}


def describe_design(known: Known) -> Paragraph:
    """Question, variants, reference and primary metric."""
    record, design = known.record, known.record["design"] or {}
    question = str(record["question"] or NOT_RECORDED)
    if known.is_search:
        return Paragraph(
            "Question and design",
            f"The question was: {question} It was sought by a search of options on validation women. The choice of the "
            "best of many is no finding by itself: only its comparison with the untouched base on test women is one.",
        )
    variants, controls = list(record["variants"] or {}), list(record["controls"] or {})
    kind = str(design.get("kind") or "list").replace("_", " ")
    names = [
        name if kind in ("leave one out", "add one in") else f"{name} ({', '.join(map(str, levels))})"
        for name, levels in (design.get("factors") or {}).items()
    ]
    made = f" (design: {kind} of {listed(names)})" if names else ""
    beside = f", beside {numbered(len(controls), 'control')} ({listed(controls)})" if controls else ""
    text = (
        f"The question was: {question} {numbered(len(variants), 'variant')} of the method "
        f"{'was' if len(variants) == 1 else 'were'} compared{made}{beside}. The reference of all comparisons was "
        f"{record['reference'] or NOT_RECORDED}, the primary metric the "
        f"{metric_name(known.metric) if known.metric else NOT_RECORDED}."
    )
    fraction = design.get("fraction") or 1
    if fraction > 1:
        text += (
            f" One in {fraction} of the combinations was run (resolution {design.get('resolution') or NOT_RECORDED}), "
            "so that some effects are estimated as one."
        )
    if design.get("skipped"):
        text += f" {numbered(len(design['skipped']), 'combination')} of levels that make no sense were left out."
    return Paragraph("Question and design", text)


def describe_data(known: Known) -> Paragraph:
    """Women, images, splits and preparation."""
    data, config = known.record["data"] or {}, known.config
    source = str(data.get("source") or option_of(config, "data.source") or "")
    named = SOURCES.get(source, source) or NOT_RECORDED
    women = data.get("women") or {}
    folds = known.record["folds"] or []
    text = f"Images: {named}; fingerprint of the prepared exams {data.get('store_fingerprint') or NOT_RECORDED}. "
    if source == "phantom":
        text += "These women are generated and stand for no population. "
    counts = listed([f"{number:,} {split}" for split, number in women.items() if isinstance(number, int)])
    fold = _recorded_fold(known.record["base_overrides"] or [])
    text += f"Women per split, with fold {fold} as test fold: {counts or NOT_RECORDED}. "
    text += (
        f"Women, never images, were dealt into {known.said('data.folds')} folds (split seed "
        f"{known.said('data.split_seed')}), those with and those without a finding apart; one fold is for testing, "
        "the next "
        "for validation, the others for training. "
    )
    official = known.option("data.official_split")
    if official is True:
        text += "Where the data set itself names test or validation women, these were kept. "
    text += f"Tested folds: {', '.join(map(str, folds)) or NOT_RECORDED}. "
    if len(known.compared):
        tested = known.compared["women"].max()
        if not pd.isna(tested):
            text += f"Over the tested folds the comparison is of {int(tested):,} test women. "
    text += (
        f"Images were resampled to {known.said('preparation.spacing_mm')} mm, and the right one registered onto the "
        f"left one ({known.said('preparation.registration.kind')}). Pairs of patches were cut at corresponding places: "
        f"side {_patch_side(known)}, placement {known.said('pairs.placement')}, at least "
        f"{known.said('pairs.minimum_tissue')} "
        f"of each side's patch tissue, intensities standardized by {known.said('pairs.normalization')}. Images that "
        "were left out, and why, are listed in manifest.parquet of the prepared exams."
    )
    return Paragraph("Data and participants", text)


def describe_unit(known: Known) -> Paragraph:
    """What was scored, and what was resampled."""
    tasks = known.option("downstream.tasks")
    scored = listed([_UNITS.get(str(task), str(task)) for task in tasks]) if tasks else NOT_RECORDED
    text = (
        "The woman is the unit of analysis: women are dealt into splits and women are resampled, each with all of her "
        f"images. Scored units: {scored}"
    )
    first = known.compared.head(1)
    counts = [
        numbered(int(first[name].iloc[0]), *words)
        for name, words in (("lesions", ("lesion patch", "lesion patches")), ("normals", ("normal patch",
                                                                                       "normal patches")))
        if len(first) and not pd.isna(first[name].iloc[0])
    ]  # fmt: skip
    return Paragraph("Unit of analysis", text + (f"; {listed(counts)} of test women." if counts else "."))


def describe_pretraining(known: Known) -> Paragraph:
    """The reference's pretraining."""
    if not known.config:
        return Paragraph("Pretraining", f"Options of the reference: {NOT_RECORDED}.")
    said = known.said
    method = known.option("pretraining.method")
    start = said("encoder.weights")
    if known.option("encoder.folder") is not None:
        start = "those of an encoder exported before, which may have seen other women"
    text = (
        "Pretraining used the images of training women without their labels. "
        f"{'All settings started from' if known.is_search else 'The reference is'} an encoder "
        f"{said('encoder.backbone')} (weights at the start: {start}) with a projector of "
        f"{said('encoder.projector_hidden')} hidden units and {said('encoder.projector_features')} features, trained "
        f"by the method {said('pretraining.method')}. "
    )
    if method == "siamese":
        text += _siamese(known)
    elif method is not None:
        own = known.option("pretraining.rival") or {}
        options = listed([f"{name} {in_words(value)}" for name, value in own.items()])
        text += f"Options of such methods: {options or NOT_RECORDED}. "
    pairs = option_of(known.config, "pretraining.pairs_per_epoch", NOT_RECORDED)
    text += (
        f"It was trained for {_epochs(known.option('pretraining.epochs'))}, "
        f"{'all pairs' if pairs is None else f'{in_words(pairs)} pairs'} each, in batches of "
        f"{said('pretraining.batch_pairs')} pairs, by AdamW (greatest learning rate "
        f"{said('pretraining.learning_rate')}, "
        f"schedule {said('pretraining.schedule')}, weight decay {said('pretraining.weight_decay')}; arithmetic "
        f"{said('pretraining.precision')}). Augmentation: {_augmentation(known)}. The encoder after the last epoch was "
        "taken: no epoch was chosen."
    )
    base = [str(word) for word in known.record["base_overrides"] or [] if str(word).partition("=")[0] not in _PLACES]
    items = [f"Options given for all: {' '.join(base)}"] if base else []
    return Paragraph("Pretraining", text, items)


def _siamese(known: Known) -> str:
    said = known.said
    loss = f"loss {said('pretraining.loss')}"
    if known.option("pretraining.loss") == "hinge":
        loss += f" (margin {said('pretraining.margin')}, {said('pretraining.soft_margin')})"
    labels = f"labels {said('pretraining.labels')}"
    if known.option("pretraining.labels") in ("mixture", "hard"):
        labels += (
            f" (Gaussian mixture of the pairs' distances; components {said('pretraining.mixture.components')}, "
            f"covariance {said('pretraining.mixture.covariance')}, anchors {said('pretraining.mixture.anchors')}, "
            f"not used where Ashman's D is below {said('pretraining.mixture.minimum_separation')})"
        )
    peer = f"peer {said('pretraining.peer')}"
    if known.option("pretraining.peer") not in ("none", None):
        peer += (
            f" (labels of {said('pretraining.label_exchange')}, cross-regularization "
            f"{said('pretraining.cross_regularization.kind')} of weight "
            f"{said('pretraining.cross_regularization.weight')})"
        )
    collapse = f"term against collapse {said('pretraining.anti_collapse.kind')}"
    if known.option("pretraining.anti_collapse.kind") not in ("none", None):
        collapse += f" (weight {said('pretraining.anti_collapse.weight')})"
    masses = "no drawn masses"
    if any(option_of(known.config, f"pretraining.masses.{name}", NOT_RECORDED) for name in ("weight", "head_weight")):
        masses = (
            f"weight of pairs with a drawn mass {said('pretraining.masses.weight')}, of the head that tells it "
            f"{said('pretraining.masses.head_weight')} (greatest contrast {said('pretraining.masses.contrast')} "
            "deviations of the tissue)"
        )
    return (
        f"Its options: {said('pretraining.embedding')} embeddings, partners {said('pretraining.partners')}, {loss}, "
        f"{labels}, {said('pretraining.warmup_epochs')} warm-up epochs without labels, {peer}, {collapse}, {masses}. "
    )


def _augmentation(known: Known) -> str:
    own = option_of(known.config, "pairs.augmentation")
    if not isinstance(own, Mapping) or not own:
        return NOT_RECORDED
    return ", ".join(f"{str(name).replace('_', ' ')} {in_words(value)}" for name, value in own.items())


def describe_variants(known: Known) -> Paragraph | None:
    """What makes each variant another; nothing where no variant differs."""
    changes = {} if known.is_search else variant_changes(known.results)
    items = []
    for name, own in changes.items():
        if name == known.record["reference"]:
            continue
        control = name in (known.record["controls"] or {})
        differs = "; ".join(
            f"{option} = {in_words(value)}" + (f" instead of {in_words(before)}" if before is not None else "")
            for option, (value, before) in own.items()
        )
        items.append(f"{name}{' (control)' if control else ''}: {differs or 'differences ' + NOT_RECORDED}")
    if not items:
        return None
    return Paragraph("Variants", f"They differ from {known.record['reference']} in:", items)


def _recorded_fold(overrides: Iterable[str]) -> str:
    """The fold that the women of experiment.json were counted with: the command's own, 0 by default."""
    own = [str(word).partition("=")[2] for word in overrides if str(word).startswith("data.fold=")]
    return own[-1] if own else "0"


def _patch_side(known: Known) -> str:
    millimetres = known.option("pairs.patch_mm")
    if millimetres is not None:
        return f"{in_words(millimetres)} mm"
    pixels, spacing = known.option("pairs.patch_pixels"), known.option("preparation.spacing_mm")
    if isinstance(pixels, int | float) and isinstance(spacing, int | float):
        return f"{pixels} pixels ({pixels * spacing:.3g} mm)"
    return known.said("pairs.patch_pixels")


def _epochs(value: Any) -> str:
    return f"epochs {NOT_RECORDED}" if value is None else f"{in_words(value)} epochs"
