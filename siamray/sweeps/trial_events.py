"""What Ray Tune tells of its trials goes in; calls of three functions come out. And the other way: when to end."""

from collections.abc import Callable
from typing import Any

from ray import tune


class TrialEvents(tune.Callback):
    """Passes on starts, results and ends of trials."""

    def __init__(
        self,
        started: Callable[[Any], None],
        reported: Callable[[Any, dict[str, Any]], None],
        ended: Callable[[Any, bool], None],
    ) -> None:
        """Calls nothing yet.

        Args:
            started: called with the Tune trial.
            reported: called with the Tune trial and the result it reported.
            ended: called with the Tune trial and whether its process raised.
        """
        self._started, self._reported, self._ended = started, reported, ended

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore a sweep from; ours draw on this process's console and restore nothing.
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Called by Ray Tune."""
        self._started(trial)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Called by Ray Tune."""
        self._reported(trial, result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Called by Ray Tune."""
        self._ended(trial, False)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Called by Ray Tune."""
        self._ended(trial, True)


class AllStopper(tune.Stopper):
    """Ends all trials once a function says so; Tune asks every second or so."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        """Ends nothing yet.

        Args:
            stop: says whether to end all.
        """
        self._stop = stop

    def __getstate__(self) -> dict[str, Any]:
        # As above.
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Ends no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Called by Ray Tune."""
        return self._stop()
