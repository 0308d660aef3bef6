"""The monitor as a callback of the Hugging Face `Trainer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flagscope.errors import MissingExtraError
from flagscope.monitor.callback import MonitorCallback
from flagscope.writing import write_whole

if TYPE_CHECKING:
    TrainerCallback: Any = object
else:
    try:
        from transformers import TrainerCallback
    except ImportError:
        TrainerCallback = object

_STATE = "flagscope-monitor.json"


class AlignmentCallback(MonitorCallback, TrainerCallback):
    """Watch the model of a `Trainer`.

    Steps are the trainer's `global_step`, so accumulated gradients count once. Each checkpoint of
    the trainer holds the monitor's state too, and a training that resumes from it resumes the
    monitor. Without `out` the monitor writes to `flagscope` in the trainer's output folder.

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
        If transformers is not installed.

    Examples
    --------
    >>> trainer = Trainer(..., callbacks=[AlignmentCallback(every=500)])  # doctest: +SKIP
    """

    def __init__(self, **settings: Any) -> None:
        if TrainerCallback is object:
            raise MissingExtraError(
                "transformers is not installed", hint="pip install transformers accelerate"
            )
        super().__init__(**settings)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Make the monitor, and measure the weights that a new training begins with."""
        path = _saved(args, state)
        saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        out = Path(args.output_dir) / "flagscope"
        self._begin(given["model"], state.global_step, saved, out=out)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure if it is time."""
        self._step(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the monitor's state in the checkpoint."""
        path = _saved(args, state)
        if self.monitor is not None and state.is_world_process_zero and path.parent.exists():
            write_whole(path, json.dumps(self.monitor.state_dict()))

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Close the loggers."""
        self._close()


def _saved(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / _STATE
