"""A report of a scan: tables, findings, figures, JSON and a page."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Self

from flagscope.api.saved import saved_record, written
from flagscope.api.sharing import shared_result
from flagscope.records import ScanResult

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

    from flagscope.report import Finding


class Report:
    """The result of a scan, as frames, figures, JSON and a page.

    Attributes
    ----------
    result
        All records, frozen; also the published JSON schema `flagscope.scan/2`.
    """

    def __init__(self, result: ScanResult, *, given: Iterable[str] = ()) -> None:
        self.result = result
        self._given = tuple(given)  # paths, which stay on this machine

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> Self:
        """Read a report back from a file that `to_json` wrote.

        A file of schema `flagscope.scan/1` is read too. What it lacks is None, and since its
        p-values were not held at one error rate, its findings say that alone.

        Raises
        ------
        InputError
            If the file is not a scan of schema `flagscope.scan/2` or `flagscope.scan/1`.
        """
        result = saved_record(
            source,
            ScanResult,
            what="a scan of schema flagscope.scan/2 or /1",
            hint="give a file written by `flagscope scan --json` or Report.to_json",
        )
        # What is said of it is said anew: another release may say more.
        return cls(result.model_copy(update={"findings": []}))

    @cached_property
    def pairs(self) -> pandas.DataFrame:
        """One row for each adjacent pair."""
        from flagscope.report import pairs_frame

        return pairs_frame(self.result)

    @cached_property
    def heads(self) -> pandas.DataFrame:
        """One row for each layer's heads in each space of the stream."""
        from flagscope.report import heads_frame

        return heads_frame(self.result)

    @cached_property
    def edges(self) -> pandas.DataFrame:
        """One row for each link from head to head that the scan kept: those that stand out."""
        from flagscope.report import edges_frame

        return edges_frame(self.result)

    @cached_property
    def findings(self) -> list[Finding]:
        """What lies beyond chance, in plain words, strong ones first, in order of effect."""
        from flagscope.report import findings

        return findings(self.result)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Interactive figures by name."""
        from flagscope.report import all_figures

        return all_figures(self.result)

    def to_json(self, path: str | os.PathLike[str] | None = None, *, paths: bool = False) -> str:
        """The result and its findings as JSON text; also written to `path` if one is given.

        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        text = self._with_findings(paths).model_dump_json(by_alias=True, indent=1)
        return written(text, path)

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        title: str | None = None,
        paths: bool = False,
    ) -> str:
        """The result as one self-contained page; also written to `path` if one is given.

        `title` is its heading, and the beginning of the names of files saved from it; the name of
        the source if None. Absolute paths of this machine are shortened to their last part unless
        `paths` is True.
        """
        from flagscope.report import render_page

        return written(render_page(self._shared(paths), title=title), path)

    def _shared(self, paths: bool = False) -> ScanResult:
        return self.result if paths else shared_result(self.result, self._given)

    def _with_findings(self, paths: bool) -> ScanResult:
        """The result as others see it, and what is said of it."""
        from flagscope.report import findings

        result = self._shared(paths)
        return result.model_copy(update={"findings": findings(result)})

    def _repr_html_(self) -> str:
        from flagscope.report import render_summary

        return render_summary(self._shared())

    def __repr__(self) -> str:
        from flagscope.report import measured_share

        r = self.result
        share = "" if r.coverage is None else f"{measured_share(r.coverage)}, "
        return (
            f"Report({r.source!r}, family={r.family!r}, {share}{len(r.pairs)} pairs, "
            f"{len(r.heads)} head groups, {len(r.failures)} failures)"
        )
