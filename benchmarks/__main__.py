"""`python -m benchmarks`: measure the chosen parts, keep them, print the ratios, write the page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from benchmarks import angles, estimates, growth, machine, page, plots, rooflines, scans
from benchmarks.results import Results

# What each part measures, in the order in which they run.
_PARTS: dict[str, Callable[..., None]] = {
    "scan": scans.own,
    "peers": scans.peers,
    "intra": scans.intra,
    "angles": angles.angles,
    "rooflines": rooflines.rooflines,
    "estimates": estimates.estimates,
    "growth": growth.growth,
    "large": growth.large,
}
# The large checkpoint takes long and 5 GB of disk, so it is asked for by name.
_USUAL = [name for name in _PARTS if name != "large"]
_CACHE = Path.home() / ".cache" / "flagscope-benchmarks"


@click.command()
@click.option("--parts", default=",".join(_USUAL), show_default=True,
              help=f"Of {', '.join(_PARTS)}, separated by commas.")  # fmt: skip
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--quick", is_flag=True, help="Tiny models, once: whether it runs, not how fast.")
@click.option("--resume", is_flag=True, help="Go on with the results there are.")
@click.option("--large-layers", default="1,2,4,8", show_default=True,
              help="Layers of the 7B shape; 10 make a checkpoint of 4 GB.")  # fmt: skip
@click.option("--out", default="bench-results", show_default=True, type=click.Path(path_type=Path))
@click.option("--cache", default=_CACHE, type=click.Path(path_type=Path),
              help="Where models and the environments of other tools are kept.")  # fmt: skip
@click.option("--page", "docs", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Write the tables and plots of performance.md in this folder.")  # fmt: skip
@click.option("--no-measure", is_flag=True, help="Only print and write what is kept.")
def main(
    parts: str,
    repeats: int,
    quick: bool,
    resume: bool,
    large_layers: str,
    out: Path,
    cache: Path,
    docs: Path | None,
    no_measure: bool,
) -> None:
    """Measure flagscope beside the machine's own limits and beside other tools."""
    chosen = [] if no_measure else [name.strip() for name in parts.split(",")]
    for name in chosen:
        if name not in _PARTS:
            raise click.UsageError(f"there is no part {name!r}; there are {', '.join(_PARTS)}")
    results = Results(out / ("quick.json" if quick else "results.json"))
    sizes = [int(n) for n in large_layers.split(",")]
    for name in chosen:
        click.echo(f"{name} …", err=True)
        measure = _PARTS[name]
        if name == "large":
            measure = partial(measure, layers=sizes)
        results.begin(name, machine.described(), resume=resume)
        measure(results, cache, repeats=1 if quick else repeats, quick=quick)
    click.echo(page.summary(results.content))
    if docs is not None:
        plots.draw(results.content, docs / "performance")
        page.renew(docs / "performance.md", results.content)


if __name__ == "__main__":
    main()
