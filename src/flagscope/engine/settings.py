"""What a scan is asked to do."""

from __future__ import annotations

from pydantic import ConfigDict

from flagscope.records import ScanSettings


class Settings(ScanSettings):
    """What a scan records that it was asked to do, and on which device.

    Attributes
    ----------
    device
        "auto", "cpu", "cuda" or another torch device.
    """

    model_config = ConfigDict(extra="forbid")

    device: str = "auto"

    def recorded(self) -> ScanSettings:
        """The settings that a result states: all that can change its numbers."""
        return ScanSettings.model_validate(self.model_dump(exclude={"device"}))
