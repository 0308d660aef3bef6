"""`flagscope families`: what can be read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from flagscope.arch import FamilyInfo

FORMATS = {
    "safetensors": "one file, or shards with an index",
    "torch": ".pt .pth .th .bin .ckpt, zip and legacy; tensors only, pickled code is refused",
    "npz": "numpy archives",
    "hub": "a hub name; only the files needed, an offline cache is honoured",
}


@click.command("families")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def families_command(as_json: bool) -> None:
    """List the model families and file formats."""
    from flagscope.arch import families

    known = families()
    if as_json:
        listing = [
            {
                "name": f.name,
                "title": f.title,
                "model_types": list(f.model_types),
                "pairs": list(f.pairs),
                "proven": asdict(f.proof) if f.proof else None,
            }
            for f in known
        ]
        click.echo(json.dumps({"families": listing, "formats": FORMATS}, indent=1))
        return
    from flagscope.cli.console import Output, grid

    out = Output()
    out.table(
        grid(
            [("family", "left"), ("pairs", "left"), ("models (model_type in the config)", "left")],
            [(f.name, ", ".join(f.pairs), _models(f)) for f in known],
        )
    )
    out.print()
    out.table(grid([("format", "left"), ("what", "left")], FORMATS.items()))


def _models(family: FamilyInfo) -> str:
    types = f" ({', '.join(family.model_types)})" if family.model_types else ""
    return family.title + types
