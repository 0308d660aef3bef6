"""`flagscope families`: what can be read."""

from __future__ import annotations

import json

import click

FORMATS = {
    "safetensors": "one file, or shards with an index",
    "torch": ".pt .pth .th .bin, zip and legacy; tensors only, pickled code is refused",
    "npz": "numpy archives",
    "hub": "a hub name; only the files needed, an offline cache is honoured",
}


@click.command("families")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
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
            }
            for f in known
        ]
        click.echo(json.dumps({"families": listing, "formats": FORMATS}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("family", "models", "config model_type", "pairs", box=None, pad_edge=False)
    for f in known:
        table.add_row(f.name, f.title, ", ".join(f.model_types), ", ".join(f.pairs))
    formats = Table("format", "what", box=None, pad_edge=False)
    for name, what in FORMATS.items():
        formats.add_row(name, what)
    console = Console()
    console.print(table)
    console.print()
    console.print(formats)
