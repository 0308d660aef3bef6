"""How the maps of a series moved, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flagscope.cli.console import Output
    from flagscope.records.series import SeriesRecord

_MAPS = 10  # rows of maps on a terminal
_STEPS = 3


def print_motion(out: Output, record: SeriesRecord) -> None:
    """Path and straightness of all maps, and the maps that turned more than chance."""
    from flagscope.cli.console import grid
    from flagscope.report.series import tested_turns, turned_maps, whole_ways
    from flagscope.report.wording import measured
    from flagscope.shortening import listed

    for way in whole_ways(record):
        of = f"{way.run}: " if way.run else ""
        straight = ""
        if way.straightness is not None:
            straight = (
                f", straightness {measured(way.straightness)} (1 on a line; steps of these sizes "
                f"in independent directions give {measured(way.straightness_random)})"
            )
        out.paragraph(
            f"{of}way of {way.maps:,} map{'' if way.maps == 1 else 's'}: path length "
            f"{measured(way.path_length)}, from first to last {measured(way.displacement)}"
            f"{straight}"
        )
    tested, turned = tested_turns(record), turned_maps(record)
    if not tested:
        out.paragraph(
            "Whether leading directions turned more than a random update of equal size does cannot "
            "be said of any step: the reasons are in --csv F --csv-table motion."
        )
        return
    sides = 2 * len(record.motion)
    out.paragraph(
        f"Leading directions of {len(turned):,} of {sides:,} sides of maps turned more than a "
        f"random update of equal size does, at some step (5 % error rate; {tested:,} turns could "
        "be tested)."
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
    out.paragraph(
        f"{rest}gauge: part of a turn may be a change of basis that the network does not see. For "
        "every map and step: --csv F --csv-table motion."
    )
