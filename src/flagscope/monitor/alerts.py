"""Alerts: signs of trouble that persist."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flagscope.monitor.measurement import Measurement
from flagscope.monitor.signs import SEARCHES, AlertCode, Memory

# Measurements in a row that have to show a sign. Weights that are not finite do not come back.
_PERSISTENT = 2
_AT_ONCE = ("not-finite",)


@dataclass(frozen=True)
class Alert:
    """Trouble that the weights show.

    Attributes
    ----------
    code
        One of `flagscope.monitor.signs.ALERT_CODES`.
    step
        Of the measurement that it fired at.
    place
        The tensor, block or heads.
    text
        A sentence.
    """

    code: AlertCode
    step: int
    place: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Watch:
    """Finds alerts in the measurements of a training.

    An alert fires where two measurements in a row that looked at a place show the sign, and once
    until a measurement does not show it; weights that are not finite at the first.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Memory] = {name: {} for name in SEARCHES}
        self._rows: dict[str, int] = {}

    def alerts(self, measurement: Measurement) -> list[Alert]:
        """Those that fire at a measurement."""
        fired = []
        for name, search in SEARCHES.items():
            for sign in search(measurement, self._memory[name]):
                key = f"{sign.code} {sign.place}"
                if not sign.present:
                    self._rows.pop(key, None)
                    continue
                row = self._rows[key] = self._rows.get(key, 0) + 1
                if row == (1 if sign.code in _AT_ONCE else _PERSISTENT):
                    fired.append(Alert(sign.code, measurement.step, sign.place, sign.text))
        return fired

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as plain values."""
        return {"memory": self._memory, "rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._memory = {name: dict(state["memory"].get(name, {})) for name in SEARCHES}
        self._rows = dict(state["rows"])
