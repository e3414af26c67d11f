"""The task outcome: what became of a woman, in the words normal, benign, malignant and interval_cancer?"""

from siamray.config import OutcomeConfig
from siamray.downstream.bag_task import BagTask


def task(config: OutcomeConfig) -> BagTask:
    """Makes the task: AUC and average precision tell the positive outcomes from all others.

    Args:
        config: which outcomes are positive.
    """
    return BagTask("outcome", {"": "woman"}, tuple(config.positive))
