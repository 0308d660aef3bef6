"""The device that a scan computes on."""

from __future__ import annotations

import torch


def resolved_device(name: str) -> torch.device:
    """Resolve 'auto' or a torch device name."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
