"""The most memory that this process has taken."""

from __future__ import annotations

import sys


def peak_rss() -> int | None:
    """Bytes of resident memory at its peak; None where the system hides it."""
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
