"""A report of a scan: tables, findings, figures, JSON and a page."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Self

from flagscope.api.base_report import BaseReport
from flagscope.api.saved import written
from flagscope.api.sharing import shared_name, shared_result
from flagscope.records import ScanResult

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

    from flagscope.report import Finding, PlotKind, Theme


class Report(BaseReport[ScanResult]):
    """The result of a scan, as frames, figures, JSON and a page.

    Attributes
    ----------
    result
        All records, frozen; also the published JSON schema `flagscope.scan/2`.
    """

    _record = ScanResult
    _what = "a scan of schema flagscope.scan/2 or /1"
    _hint = "give a file written by `flagscope scan --json` or Report.to_json"

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
        result = super().from_json(source).result
        # What is said of it is said anew: another release may say more.
        return cls(result.model_copy(update={"findings": []}))

    @cached_property
    def pairs(self) -> pandas.DataFrame:
        """One row for each adjacent pair, in twelve columns; `pairs_all` has all of them."""
        from flagscope.report import MAIN_PAIR_COLUMNS

        return self.pairs_all.filter(items=MAIN_PAIR_COLUMNS)

    @cached_property
    def pairs_all(self) -> pandas.DataFrame:
        """One row for each adjacent pair, with every number, label and null of its record."""
        from flagscope.report import pairs_frame

        return pairs_frame(self.result)

    @cached_property
    def heads(self) -> pandas.DataFrame:
        """One row for each layer's heads in each space of the stream; all columns: `heads_all`."""
        from flagscope.report import MAIN_HEAD_COLUMNS

        return self.heads_all.filter(items=MAIN_HEAD_COLUMNS)

    @cached_property
    def heads_all(self) -> pandas.DataFrame:
        """One row for each layer's heads in each space, with every number of its record."""
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

    def plot(
        self,
        kind: PlotKind | None = None,
        *,
        observable: str | None = None,
        pair: str | None = None,
        layer: int | None = None,
        space: str | None = None,
        theme: Theme = "light",
    ) -> Figure:
        """One interactive figure, by kind.

        ============== ==================================== ==========================
        kind           shows                                takes
        ============== ==================================== ==========================
        ``map``        layers and heads: overlap with the   ``space``
                       closest other head of the layer
        ``depth``      a number of pairs over depth, with   ``observable``, ``pair``
                       what chance gives
        ``heads``      R, or the number of shared           ``observable``
                       directions, over depth
        ``matrix``     heads of a layer against each other  ``layer``, ``space``
        ``spectrum``   directions that heads of a layer     ``layer``, ``space``
                       share
        ``links``      links from head to head beyond       ``observable``
                       chance
        ``stream``     what reads what one kind of map      ``observable``, ``pair``
                       writes to the stream, over depth
        ``cosines``    principal cosines of one pair        ``pair``
        ``ranks``      overlap of one pair over rank        ``pair``
        ``incidence``  incidence surface of one pair        ``pair``
        ============== ==================================== ==========================

        Parameters
        ----------
        kind
            Which figure; by default the first of these that the report has something to draw for.
        observable
            Of ``depth``: ``"overlap_ratio"`` (default), ``"commutator_ratio"``,
            ``"gram_correlation"``, ``"commutation_defect"``, ``"intersection_beyond_chance"`` or
            ``"imbalance"``; of ``stream`` the first three; of ``heads`` ``"overlap_ratio"`` or
            ``"shared_directions"``; of ``links`` ``"overlap"`` or ``"composition"``.
        pair
            Of ``depth`` a kind of pairs (``"qk"``, ``"mlp"``), of ``stream`` the map that writes
            (``"o"``), of the last three the name of a pair; by default the first kind or map, and
            the pair whose overlap is furthest from chance.
        layer, space
            Of a group of heads; by default the one furthest from chance. Spaces are ``"q"``,
            ``"k"``, ``"v"`` and ``"o"``.
        theme
            ``"light"`` or ``"dark"``.

        Returns
        -------
        plotly.graph_objects.Figure

        Raises
        ------
        InputError
            If the kind is unknown, the report has nothing to draw for it, it does not take an
            argument, or what an argument names is not there. The hint says what there is.

        Examples
        --------
        >>> import flagscope, torch
        >>> report = flagscope.scan({f"{i}.weight": torch.randn(12, 12) for i in (0, 2, 4)})
        >>> report.plot("depth", observable="gram_correlation").layout.title.text
        'Sequential (unknown): Gram correlation'
        """
        from flagscope.report import plot

        return plot(
            self.result, kind, observable=observable, pair=pair, layer=layer, space=space,
            theme=theme,
        )  # fmt: skip

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

    def _shareable(self) -> ScanResult:
        return shared_result(self.result, self._given)

    def _stored(self, paths: bool) -> ScanResult:
        from flagscope.report import findings

        result = self._shared(paths)
        return result.model_copy(update={"findings": findings(result)})

    def _repr_html_(self) -> str:
        from flagscope.report import render_summary

        return render_summary(self._shared())

    def __repr__(self) -> str:
        from flagscope.report import measured_share

        r = self.result
        source = shared_name(r.source, self._given)
        share = "" if r.coverage is None else f"{measured_share(r.coverage)}, "
        return (
            f"Report({source!r}, family={r.family!r}, {share}{len(r.pairs)} pairs, "
            f"{len(r.heads)} head groups, {len(r.failures)} failures)"
        )
