"""A configuration goes in; the metrics that its sweep compares, and those it cannot have, come out."""

from siamray.config import Config
from siamray.downstream.evaluation import scores_of
from siamray.downstream.froc import RATES
from siamray.downstream.metrics import parse_metric
from siamray.errors import UserError, nearest

# Compared beside the primary metric, each a family of its own: what the encoder's features are worth to another
# classifier, what the distance tells without any label, and what they are worth in the other tasks.
SECONDARY_METRICS = {
    "patches": ("patches_linear_ap", "patches_knn20_auc", "patches_distance_auc"),
    "birads": ("birads_attention_macro_auc", "birads_attention_kappa", "birads_attention_macro_f1"),
    "outcome": ("outcome_attention_auc",),
    "density": ("density_attention_macro_auc",),
    "detection": ("detection_distance_froc_mean", "detection_linear_froc_mean"),
}


def check_metric(metric: str, config: Config, variant: str = "") -> None:
    """Refuses a metric that a trial would not have.

    Args:
        metric: its name.
        config: of the sweep, or of a variant.
        variant: the variant's name.

    Raises:
        UserError: the name is no metric's, or its task, its score, its share of the women or fine-tuning is not asked
            for.
    """
    _, task, score, _ = parse_metric(metric)
    asked = config.downstream
    if task not in asked.tasks:
        tasks = ",".join([*asked.tasks, task])
        raise UserError(
            f"metric {metric}: its task is not asked; say downstream.tasks=[{tasks}] or name another metric"
        )
    _, _, share = score.partition("@")
    if share and share not in {f"{100 * fraction:g}" for fraction in asked.label_fractions if fraction < 1}:
        raise UserError(f"metric {metric}: {share} % of the women is no share of downstream.label_fractions; add it")
    if metric.endswith("froc_mean") and tuple(asked.detection.false_positives) != RATES:
        raise UserError(
            f"metric {metric}: it is the mean at {', '.join(f'{rate:g}' for rate in RATES)} false positives per image; "
            "leave downstream.detection.false_positives as it is, or name the sensitivity at one rate, such as froc_1"
        )
    if score.startswith("finetuned") and asked.fine_tuning.epochs == 0:
        raise UserError(
            f"metric {metric}: nothing is fine-tuned; say downstream.fine_tuning.epochs=15 or another number"
        )
    known = scores_of(task, config)
    if score not in known:
        whose = f"the encoder of '{variant}'" if variant else f"the task {task}"
        raise UserError(f"metric {metric}: {whose} has no score '{score}'{nearest(score, known)}")


def secondary_metrics(config: Config) -> list[str]:
    """The metrics that every ablation compares beside its primary one."""
    return [metric for task in config.downstream.tasks for metric in SECONDARY_METRICS.get(task, ())]


def printed_metrics(config: Config) -> list[str]:
    """The metrics that the terminal shows beside the primary one: one of every task; the report shows all."""
    shown = {task: metrics[0] for task, metrics in SECONDARY_METRICS.items()} | {"patches": "patches_distance_auc"}
    return [shown[task] for task in config.downstream.tasks if task in shown]
