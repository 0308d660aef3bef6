"""Puts what the commands print today between the marks in README.md and pages of the documentation.

    python scripts/readme_outputs.py           # write
    python scripts/readme_outputs.py --check   # say what is out of date, and exit with 1

A mark is `<!-- output: NAME -->`; what is between it and `<!-- end of output -->` is replaced. The
commands run on the bundled model, on a damaged copy of it, and on two checkpoints of its training.
The seconds that a scan took are left out, and long lines are cut at "…".
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

import flagscope
from flagscope.demo import checkpoints

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/index.md", "docs/guide.md", "docs/what-to-do.md")
WIDTH = 96
# The package that this script imports, from whatever folder, and lines as long as they are shown.
ENVIRONMENT = {
    "PYTHONPATH": str(Path(flagscope.__file__).parents[1]),
    "OMP_NUM_THREADS": "1",
    "COLUMNS": str(WIDTH),
    "PYTHONUTF8": "1",
}
_MARKED = re.compile(r"(<!-- output: ([\w-]+) -->\n).*?(<!-- end of output -->)", re.DOTALL)


class Excerpt(NamedTuple):
    """A command, and how many lines of each paragraph of its output to show; 0 leaves it out."""

    command: str
    lines: tuple[int, ...]


EXCERPTS = {
    "broken": Excerpt("scan damaged.safetensors --json damaged.json", (7,)),
    "changed": Excerpt("compare step-002000.safetensors step-010000.safetensors", (1, 0, 2, 4)),
    "near-copies": Excerpt("heads step-010000.safetensors", (6,)),
    "scan": Excerpt("scan step-010000.safetensors", (6, 11, 6)),
    # After "broken", which writes the file.
    "gate": Excerpt("report damaged.json --quiet --fail-on not-finite; echo $?", (2,)),
}


def make_models(folder: Path) -> None:
    """The last two bundled checkpoints, and a damaged copy of the last one."""
    for path in checkpoints()[-2:]:
        shutil.copy(path, folder)
    shutil.copy(checkpoints()[-1].with_name("config.json"), folder)
    state = load_file(checkpoints()[-1])
    # Every second neuron of an MLP is dead, as after a careless pruning; one weight is NaN.
    state["transformer.h.1.mlp.c_fc.weight"][:, ::2] = 0
    state["transformer.h.1.mlp.c_fc.bias"][::2] = 0
    state["transformer.h.1.mlp.c_proj.weight"][::2] = 0
    state["transformer.h.2.attn.c_proj.weight"][3, 5] = float("nan")
    save_file(state, folder / "damaged.safetensors")


@cache
def outputs() -> dict[str, str]:
    """Each excerpt as a block of Markdown."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder))
        return {name: _block(excerpt, Path(folder)) for name, excerpt in EXCERPTS.items()}


def _block(excerpt: Excerpt, folder: Path) -> str:
    command = f"{sys.executable} -m flagscope {excerpt.command}"
    # Both streams only where a gate speaks on stderr; progress is left out elsewhere.
    gate = "--fail-on" in command
    text = subprocess.run(
        command, cwd=folder, shell=True, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT if gate else subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
    ).stdout  # fmt: skip
    shown = [f"$ flagscope {excerpt.command}"]
    paragraphs = text.rstrip("\n").split("\n\n")
    for number, (paragraph, most) in enumerate(zip(paragraphs, excerpt.lines, strict=False)):
        if most == 0:
            continue
        lines = paragraph.splitlines()
        shown += [""] * (number > 0) + [_cut(line) for line in lines[:most]]
        shown += ["…"] * (len(lines) > most)
    if len(paragraphs) > len(excerpt.lines) and shown[-1] != "…":
        shown.append("…")
    return "```console\n" + "\n".join(shown) + "\n```\n"


def _cut(line: str) -> str:
    line = re.sub(r", [\d.]+ (?:s|min)$", "", line.rstrip())
    return line if len(line) <= WIDTH else line[: WIDTH - 2].rsplit(" ", 1)[0] + " …"


def filled(text: str) -> str:
    """A page with what the commands print today."""
    return _MARKED.sub(lambda match: match[1] + outputs()[match[2]] + match[3], text)


def main(*, check: bool) -> int:
    """Write the pages, or say which are out of date."""
    late = 0
    for name in PAGES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if (anew := filled(text)) != text:
            late += 1
            print(f"{name}: {'out of date' if check else 'written'}")
            if not check:
                path.write_text(anew, encoding="utf-8")
    return 1 if check and late else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
