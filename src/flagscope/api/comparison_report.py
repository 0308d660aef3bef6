"""A report of a comparison: verdict, findings, tables, JSON and a page."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from flagscope.api.base_report import BaseReport
from flagscope.api.saved import written
from flagscope.api.sharing import named_paths, shareable
from flagscope.records import with_texts
from flagscope.records.comparison import Comparison, ComparisonFinding, Verdict

if TYPE_CHECKING:
    import pandas


class ComparisonReport(BaseReport[Comparison]):
    """The result of `flagscope.compare`, as a verdict, frames, JSON and a page.

    Attributes
    ----------
    result
        All records, frozen; also the published JSON schema `flagscope.compare/1`.
    """

    _record = Comparison
    _what = "a comparison of schema flagscope.compare/1"
    _hint = "give a file written by `flagscope compare --json`"

    @property
    def verdict(self) -> Verdict:
        """What the two are to each other, with the evidence and what stays open."""
        return self.result.verdict

    @property
    def findings(self) -> list[ComparisonFinding]:
        """What the comparison shows besides its verdict, strong ones first; may be empty.

        As those of a scan, each has a stable `code`, a `severity`, a `plain` sentence, the
        technical `text` with counts, and `evidence`.
        """
        return list(self.result.findings)

    @cached_property
    def tensors(self) -> pandas.DataFrame:
        """One row for each tensor that both sides hold."""
        from flagscope.report.comparison import tensors_frame

        return tensors_frame(self.result)

    @cached_property
    def maps(self) -> pandas.DataFrame:
        """One row for each map that was measured on both sides."""
        from flagscope.report.comparison import maps_frame

        return maps_frame(self.result)

    @cached_property
    def heads(self) -> pandas.DataFrame:
        """One row for each head's circuit, those that moved most first."""
        from flagscope.report.comparison import heads_frame

        return heads_frame(self.result)

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        title: str | None = None,
        paths: bool = False,
    ) -> str:
        """The result as one self-contained page; also written to `path` if one is given.

        `title` is its heading; the names of both sources if None. Absolute paths of this machine
        are shortened to their last part unless `paths` is True.
        """
        from flagscope.report.comparison import render_comparison

        return written(render_comparison(self._shared(paths), title=title), path)

    def _shareable(self) -> Comparison:
        return shared_texts(self.result, self._given)

    def _repr_html_(self) -> str:
        from flagscope.report.comparison import render_comparison_summary

        return render_comparison_summary(self._shared())

    def __repr__(self) -> str:
        from flagscope.report.wording import counted

        result = self._shared()
        findings = counted(len(result.findings), "finding")
        return (
            f"ComparisonReport({result.a.source!r}, {result.b.source!r}: {result.verdict.text}, "
            f"{findings})"
        )


def shared_texts(result: Comparison, given: Iterable[str]) -> Comparison:
    """A comparison with every text shareable, wherever it stands."""
    sources = [side.source for side in (result.a, result.b, *result.parents)]
    if result.adapter is not None:
        sources.append(result.adapter.source)
    short = shareable((*named_paths(*sources), *given))
    return with_texts(result, short)
