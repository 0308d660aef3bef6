"""Settings of a scan."""

from __future__ import annotations

from pydantic import ConfigDict

from flagscope.records import ScanSettings


class Settings(ScanSettings):
    """Recorded settings of a scan, and its device.

    Attributes
    ----------
    device
        "auto", "cpu", "cuda" or another torch device.
    """

    model_config = ConfigDict(extra="forbid")

    device: str = "auto"

    def recorded(self) -> ScanSettings:
        """The settings that a result records: all that can change its numbers."""
        return ScanSettings.model_validate(self.model_dump(exclude={"device"}))
