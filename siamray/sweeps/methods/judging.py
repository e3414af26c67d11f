"""What an experiment recorded goes in; paragraphs on how it was judged, and what that cannot say, come out."""

import math

from siamray.sweeps.contract import POWER
from siamray.sweeps.methods.recorded import Known, Paragraph, option_of
from siamray.sweeps.methods.wording import NOT_RECORDED, in_words, listed, numbered
from siamray.sweeps.metric_words import metric_name

_TASKS = {
    "patches": "abnormal or normal patch",
    "birads": "BI-RADS category of breast and exam",
    "outcome": "outcome of the woman",
    "density": "density of the breast",
    "detection": "detection of lesions on whole images",
}
# Fewer seeds say little of other seeds.
_FEW_SEEDS = 5


def describe_evaluation(known: Known) -> Paragraph:
    """Tasks, scores and classifiers."""
    tasks = known.option("downstream.tasks")
    named = listed([_TASKS.get(str(task), str(task)) for task in tasks]) if tasks else NOT_RECORDED
    text = f"Encoders were frozen and tested on women whom this training did not see. Tasks: {named}. "
    if tasks and "patches" in tasks:
        strengths = known.option("downstream.probe.strengths")
        tried = ", ".join(f"{value:g}" for value in strengths) if strengths else NOT_RECORDED
        text += (
            f"Per lesion {known.said('downstream.patches.per_lesion')} patches were cut around its centre, per image "
            f"{known.said('downstream.patches.normal_per_image')} normal ones that touch no lesion. A linear probe "
            "(logistic regression on standardized features) learnt from the labelled patches of training women; its "
            f"strength C ({tried}) was chosen by the AUC of validation women. Nearest neighbours (cosine, k = "
            f"{in_words(known.option('downstream.probe.neighbours'))}) vote without any choice; the distance between "
            "left and right needs no label. "
        )
        shares = [f"{100 * share:g} %" for share in known.option("downstream.label_fractions") or [] if share < 1]
        if shares:
            text += (
                f"Classifiers also learnt from {listed(shares)} of the labelled women, averaged over "
                f"{known.said('downstream.label_draws')} nested draws. "
            )
        epochs = known.option("downstream.fine_tuning.epochs")
        if epochs:
            text += f"Encoders were also fine-tuned, for up to {epochs} epochs, of which validation women chose one. "
    if tasks and any(task in tasks for task in ("birads", "outcome", "density")):
        text += (
            "Breasts, exams and women were told by gated attention over the frozen features of a grid of patches "
            f"(at most {known.said('downstream.attention.epochs')} epochs, stopped by the loss of validation women). "
        )
    if tasks and "detection" in tasks:
        text += (
            f"Lesions were sought on {known.said('downstream.detection.way')} maps of whole images; hits by the rule "
            f"{known.said('downstream.detection.hit')}. "
        )
    metrics = list(dict.fromkeys(known.results.comparison["metric"]))
    others = listed([metric_name(name) for name in metrics if name != known.metric])
    text += f"Primary metric: {metric_name(known.metric) if known.metric else NOT_RECORDED}"
    return Paragraph("Evaluation", f"{text}{f'; also compared: {others}' if others else ''}. Test women chose nothing.")


def describe_statistics(known: Known) -> Paragraph:
    """Intervals, tests, correction and what could have been found."""
    confidence = option_of(known.config, "downstream.intervals.confidence", math.nan)
    level = f"{100 * confidence:g} %" if not math.isnan(confidence) else f"({NOT_RECORDED}) %"
    replicates = known.option("downstream.intervals.replicates")
    drawn = f"{replicates:,}" if isinstance(replicates, int) else NOT_RECORDED
    if known.compared.empty:
        return Paragraph("Statistics", "Nothing is compared yet.")
    text = (
        "A difference is a variant's metric minus the reference's, averaged over seeds and folds, on the same women "
        f"and with the same seeds. Women were resampled in {drawn} bootstrap replicates (seed "
        f"{known.said('downstream.intervals.seed')}), each woman with all of her samples and alike for all trials. "
    )
    if known.seeds > 1:
        text += (
            "The variance of a mean is that of this paired bootstrap plus the variance between seeds over their "
            f"number; {level} intervals and two-sided p values are those of Student's t with Satterthwaite's degrees "
            "of freedom. "
        )
    else:
        text += (
            f"As there is one seed, {level} intervals are bias-corrected and accelerated (BCa) ones over women alone, "
            "and no "
            "p value is given: other seeds may give other numbers. "
        )
    families = known.compared.loc[known.compared["p_holm"].notna(), "role"].value_counts()
    corrected = [numbered(int(families[role]), role) for role in ("variant", "control") if role in families]
    if corrected:
        over = " and, as a family of their own, over ".join(corrected)
        text += f"P values were corrected by Holm's method over {over}, metric by metric. "
    margins = known.compared["equivalence_margin"].dropna()
    if len(margins) and known.compared["p_equivalence"].notna().any():
        text += (
            f"Equivalence was tested by two one-sided tests with a margin of {margins.iloc[0]:g} in units of the "
            "metric, corrected in the same families. "
        )
    else:
        text += "Equivalence was not tested. "
    reach = known.compared["detectable"].dropna()
    if len(reach):
        ends = list(dict.fromkeys(f"{end:.3f}" for end in (reach.min(), reach.max())))
        depending = ", depending on the row of the comparison," if len(ends) > 1 else ""
        text += (
            f"A true difference of {' to '.join(ends)} in the primary metric{depending} would have been found with a "
            "chance of "
            f"{POWER:g}, Holm's correction included. "
        )
    effects = known.results.effects()
    if effects["effect"].notna().any():
        text += (
            "Main effects of the factors, and interactions of two where the design tells them, are averages over the "
            "levels of the other factors (least squares, effect coding); p values were corrected over main effects, "
            "and over interactions. "
        )
    why = [str(note) for note in effects.loc[effects["effect"].isna(), "note"].dropna().unique() if note]
    return Paragraph("Statistics", text.strip(), [f"Effects that are not estimated: {reason}" for reason in why])


def describe_limits(known: Known) -> Paragraph:
    """What the numbers cannot say."""
    record = known.record
    items = ["All women are of one data source: there is no external validation."]
    if (record["data"] or {}).get("source") == "phantom":
        items.append("The women are generated: what holds on them need not hold on real ones.")
    folds, total = record["folds"] or [], known.option("data.folds")
    if folds and isinstance(total, int) and len(folds) < total and known.option("data.official_split") is not None:
        items.append(f"{len(folds)} of {total} folds were tested.")
    if 0 < known.seeds < _FEW_SEEDS:
        items.append(
            f"With {numbered(known.seeds, 'seed')} of each variant little is known of how far others would scatter."
        )
    if known.compared["effect"].notna().any():
        items.append("No evidence of a difference is not evidence of none; see the detectable difference.")
        items.append(
            "P values are corrected within one metric of this experiment, neither over its other metrics nor over "
            "other experiments on the same test women."
        )
    lost = known.results.trials["state"].isin(["failed", "broken"]).sum() + len(known.results.unfinished)
    if lost:
        items.append(f"{numbered(int(lost), 'trial')} without a result are missing from all numbers.")
    notes: dict[str, list[str]] = {}
    for row in known.compared.to_dict("records"):
        if isinstance(row["note"], str) and row["note"]:
            notes.setdefault(row["note"], []).append(str(row["variant"]))
    items += [
        f"{'All' if len(names) == len(known.compared) else listed(names)}: {note}." for note, names in notes.items()
    ]
    if known.option("data.source") is not None and known.seeds:
        items.append("All trials of a fold share their training women, whose choice is in no interval.")
    return Paragraph("Limits", "What these numbers cannot say:", items)
