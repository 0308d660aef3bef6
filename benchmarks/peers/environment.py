"""An environment for a peer: torch first and pinned, so that nothing can pull another build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
# What the figures in docs/performance.md were measured with. powerlaw is pinned beside it, as it
# does the fits that are part of `analyze()`.
WEIGHTWATCHER = ("weightwatcher==0.7.7", "powerlaw==2.0.0")


def peer_python(cache: Path, name: str, packages: tuple[str, ...]) -> Path:
    """The interpreter of an environment that holds `packages`, made on first use.

    Parameters
    ----------
    cache
        Where environments are kept.
    name
        Of this one.
    packages
        Requirements, installed under the constraints of this repository.
    """
    folder = cache / "peers" / name
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    wanted = "\n".join(packages)
    if python.is_file() and done.is_file() and done.read_text() == wanted:
        return python
    print(f"making an environment for {name} in {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["-c", str(_ROOT / "constraints.txt")]
    for requirements in (("torch", "numpy"), packages):
        subprocess.run([*pip, *requirements], check=True)
    done.write_text(wanted)
    return python
