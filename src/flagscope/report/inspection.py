"""What a scan would measure, as a small HTML fragment for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flagscope.records import Coverage
from flagscope.report import wording
from flagscope.report.coverage import left_out, measured_share
from flagscope.report.environment import environment


def render_inspection(
    coverage: Coverage,
    *,
    source: str,
    family: str,
    pairs: Mapping[str, int],
    head_groups: int,
    flops: float,
    bytes_read: float,
    seconds: float | None,
    notes: Sequence[str],
) -> str:
    """What a scan would measure, leave out and take, without script.

    Parameters
    ----------
    coverage
        How much of the checkpoint it would measure.
    source, family
        What was opened, and as what it is read.
    pairs
        Number of pairs by kind.
    head_groups
        Number of groups of heads: one for each layer and space.
    flops, bytes_read
        What the scan would compute and read.
    seconds
        Its estimated time; None if none was asked for.
    notes
        What could not be mapped, and what was assumed.
    """
    kinds = [(wording.KIND_WORDS.get(kind, kind), count) for kind, count in pairs.items()]
    return (
        environment()
        .get_template("inspection_summary.html.j2")
        .render(
            source=source,
            family=family,
            parameters=wording.size(coverage.parameters),
            share=measured_share(coverage).replace("measured", "would measure", 1),
            left_out=left_out(coverage),
            kinds=kinds,
            head_groups=head_groups,
            work=wording.size(flops, "FLOP"),
            data=wording.size(bytes_read, "B"),
            time=None if seconds is None else wording.duration(seconds),
            notes=notes,
        )
    )
