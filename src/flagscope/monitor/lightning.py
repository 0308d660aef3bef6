"""The monitor as a callback of Lightning's `Trainer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flagscope.errors import MissingExtraError
from flagscope.monitor.callback import MonitorCallback

if TYPE_CHECKING:
    Callback: Any = object
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            Callback = object


class AlignmentCallback(MonitorCallback, Callback):
    """Watch the module of a `Trainer`.

    Steps are the trainer's `global_step`, which counts optimizer steps. The monitor's state is part
    of the trainer's checkpoints.

    Parameters
    ----------
    settings
        As for `flagscope.AlignmentMonitor`, without the model.

    Attributes
    ----------
    monitor
        The monitor; None before the training.

    Raises
    ------
    MissingExtraError
        If lightning is not installed.

    Examples
    --------
    >>> Trainer(callbacks=[AlignmentCallback(every=500, out="runs/a")])  # doctest: +SKIP
    """

    def __init__(self, **settings: Any) -> None:
        if Callback is object:
            raise MissingExtraError("lightning is not installed", hint="pip install lightning")
        super().__init__(**settings)
        self._state: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the monitor, and measure the weights that a new training begins with."""
        self._begin(pl_module, trainer.global_step, self._state)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure if it is time."""
        self._step(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the loggers."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """The monitor's state, for a checkpoint of the trainer."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from it."""
        self._state = state_dict or None
