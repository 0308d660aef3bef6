"""How the maps of a series moved, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flagscope.cli.console import Output
    from flagscope.records.series import SeriesRecord

_MAPS = 10  # rows of maps on a terminal
_STEPS = 3


def print_motion(out: Output, record: SeriesRecord) -> None:
    """Path and straightness of all maps of each run, and the maps that turned more than chance."""
    from flagscope.report.series import product_changes_in_words, way_in_words, whole_way

    for run in dict.fromkeys(motion.run for motion in record.motion):
        way = whole_way(record, run)
        if way is not None:
            out.paragraph(f"{'' if run is None else f'{run}: '}{way_in_words(way)}")
    _print_turned(out, record, products=False)
    for line in product_changes_in_words(record):
        out.paragraph(line)
    if record.products:
        _print_turned(out, record, products=True)


def _print_turned(out: Output, record: SeriesRecord, *, products: bool) -> None:
    from flagscope.cli.console import grid
    from flagscope.report.series import tested_turns, turned_maps
    from flagscope.report.wording import measured
    from flagscope.shortening import listed

    motions = record.products if products else record.motion
    tested, turned = tested_turns(motions), turned_maps(record, products=products)
    what = "products" if products else "maps"
    if not tested:
        of = "of products " if products else ""
        out.paragraph(
            f"Whether leading directions {of}turned more than a random update of equal size does "
            "cannot be said of any step: the reasons are in --csv F --csv-table motion."
        )
        return
    out.paragraph(
        f"Leading directions of {len(turned):,} of {2 * len(motions):,} sides of {what} turned "
        f"more than a random update of equal size does, at some step (false discovery rate over "
        f"turns 5 %; {tested:,} turns could be tested)."
    )
    if not turned:
        return
    rows = [
        (one.name, one.side, measured(one.ratio), one.step, listed(one.steps, _STEPS),
         one.label or "")
        for one in turned[:_MAPS]
    ]  # fmt: skip
    titles = (("turned most", "left"), ("side", "left"), ("times chance", "right"),
              ("at", "left"), ("all such steps", "left"), ("label", "left"))  # fmt: skip
    out.table(grid(titles, rows))
    left = len(turned) - len(rows)
    more = f"{left:,} more sides are" if left > 1 else "1 more side is"
    rest = f"{more} left out here. " if left else ""
    meaning = (
        "functional: no change of the basis between the two maps moves a product."
        if products
        else "gauge: part of a turn may be a change of basis that the network does not see."
    )
    out.paragraph(f"{rest}{meaning} For every map and step: --csv F --csv-table motion.")
