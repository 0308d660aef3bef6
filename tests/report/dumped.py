"""Pages as a headless Chromium leaves them, after their scripts and one of a test."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

_MEASURE = """<script>
const { scrollWidth, clientWidth } = document.documentElement;
document.body.dataset.said = scrollWidth - clientWidth;
</script>"""


def opened(page: str, folder: Path, *, width: int = 1400, height: int = 12_000) -> tuple[str, str]:
    """The document after its scripts ran, and what the console said."""
    assert CHROMIUM is not None
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}", "--virtual-time-budget=20000",
        "--enable-logging=stderr", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, encoding="utf-8"
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def driven(page: str, script: str, folder: Path, *, width: int = 1400) -> Any:
    """What a script at the end of a page leaves as JSON in ``document.body.dataset.said``."""
    document, console = opened(page.replace("</body>", f"{script}</body>"), folder, width=width)
    assert console == ""
    found = re.search(r'data-said="([^"]*)"', document)
    assert found is not None
    return json.loads(html.unescape(found.group(1)))


def overhang(page: str, folder: Path, *, width: int) -> int:
    """How many pixels a page is wider than its window."""
    return driven(page, _MEASURE, folder, width=width)
