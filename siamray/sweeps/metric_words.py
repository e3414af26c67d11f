"""The name of a metric goes in; what it is in words comes out."""

import re

_SCORES = {
    "linear": "linear probe",
    "knn20": "20 nearest neighbours",
    "knn200": "200 nearest neighbours",
    "distance": "left-right distance",
    "abnormality": "head's abnormality",
    "brightness": "brightness difference",
    "blob": "blob filter",
    "finetuned": "fine-tuned encoder",
    "attention": "attention pooling",
    "mean": "mean pooling",
    "exam_attention": "attention pooling of the exam",
    "exam_mean": "mean pooling of the exam",
}
# What ends a metric's name, the longest first.
_MEASURES = {
    "froc_mean": "mean FROC sensitivity",
    "macro_auc": "macro AUC",
    "macro_f1": "macro F1",
    "kappa": "quadratic kappa",
    "auc": "AUC",
    "ap": "average precision",
}


def metric_name(metric: str) -> str:
    """Says a metric's name in words: ``patches_linear_auc`` is "AUC of the linear probe on patches".

    ``linear@10`` is the linear probe that learnt from 10 % of the labelled women.
    """
    name = metric.removeprefix("validation_")
    where = " (validation women)" if metric.startswith("validation_") else ""
    rated = re.fullmatch(r"(.+)_froc_([0-9.]+)", name)
    end = next((end for end in _MEASURES if name.endswith(f"_{end}")), "")
    measure = f"sensitivity at {rated[2]} false positives an image" if rated else _MEASURES.get(end)
    task, _, asked = (rated[1] if rated else name.removesuffix(f"_{end}")).partition("_")
    score, _, share = asked.partition("@")
    if measure is None or score not in _SCORES:
        return " ".join(name.split("_")) + where
    women = f" with {share} % of the labelled women" if share else ""
    return f"{measure} of the {_SCORES[score]}{women} on {task}{where}"
