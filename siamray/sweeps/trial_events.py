"""What Ray Tune tells of its trials goes in; calls of two functions come out, so that a console can draw them."""

from collections.abc import Callable
from typing import Any

from ray import tune


class TrialEvents(tune.Callback):
    """Passes on results and ends of trials.

    Args:
        ended: called with the Tune trial and whether it failed.
        reported: called with the Tune trial and the result it reported.
    """

    def __init__(
        self, ended: Callable[[Any, bool], None], reported: Callable[[Any, dict[str, Any]], None] | None = None
    ) -> None:
        self._ended = ended
        self._reported = reported

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore a sweep from; ours draw on this process's console and restore nothing.
        return {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Called by Ray Tune."""
        if self._reported is not None:
            self._reported(trial, result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Called by Ray Tune."""
        self._ended(trial, False)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Called by Ray Tune."""
        self._ended(trial, True)
