"""What the callbacks of trainers have in common."""

from __future__ import annotations

from typing import Any

from flagscope.monitor.monitor import AlignmentMonitor


class MonitorCallback:
    """A monitor that is made once a trainer has its model, and measures at its steps.

    Parameters
    ----------
    settings
        As for `flagscope.AlignmentMonitor`, without the model.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self.monitor: AlignmentMonitor | None = None

    def _begin(self, model: Any, step: int, state: dict[str, Any] | None, **usual: Any) -> None:
        """Make the monitor; resume from a state, or measure the initial weights at step 0.

        `usual` stands in for what the settings do not say.
        """
        self.monitor = AlignmentMonitor(model, **{**usual, **self._settings})
        if state is not None:
            self.monitor.load_state_dict(state)
        elif not step:
            self.monitor.step(0)

    def _step(self, step: int) -> None:
        if self.monitor is not None:
            self.monitor.step(step)

    def _close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()
