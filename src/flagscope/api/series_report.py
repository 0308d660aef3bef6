"""A report of a series of checkpoints: what is wrong with it, its curves, JSON, CSV and a page."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from flagscope.api.base_report import BaseReport
from flagscope.api.saved import written
from flagscope.api.sharing import named_paths, shareable
from flagscope.records import with_texts
from flagscope.records.series import Integrity, SeriesFault, SeriesRecord

if TYPE_CHECKING:
    import pandas


class SeriesReport(BaseReport[SeriesRecord]):
    """The result of `flagscope.track`, as faults, frames, JSON and a page.

    Attributes
    ----------
    result
        All records, frozen; also the published JSON schema `flagscope.track/1`.
    """

    _record = SeriesRecord
    _what = "a series of schema flagscope.track/1"
    _hint = "give a file written by `flagscope track --json`"

    @property
    def integrity(self) -> Integrity:
        """Whether the checkpoints are what their names say, as far as samples show."""
        return self.result.integrity

    @property
    def faults(self) -> list[SeriesFault]:
        """What is wrong with the series, or may be."""
        return self.result.integrity.faults

    @cached_property
    def steps(self) -> pandas.DataFrame:
        """One row for each checkpoint, in the order of their numbers."""
        from flagscope.report.series import steps_frame

        return steps_frame(self.result)

    @cached_property
    def curves(self) -> pandas.DataFrame:
        """One row for each number of pairs, heads and health at each step, with its chance range.

        `part` says which of the three; `low` and `high` are missing where no random model applies.
        """
        from flagscope.report.series import curves_frame

        return curves_frame(self.result)

    @cached_property
    def adapters(self) -> pandas.DataFrame:
        """One row for each number of each module of a LoRA adapter at each step.

        `label` says whether B → B G, A → G⁻¹ A leaves the number (functional) or moves it (gauge);
        `sigma_1` … are the singular values of ΔW. What spikes and what is dead is in
        `result.adapters`.
        """
        from flagscope.report.series import adapters_frame

        return adapters_frame(self.result)

    @cached_property
    def onsets(self) -> pandas.DataFrame:
        """One row for each test and level of each pair: from which step on it is reached."""
        from flagscope.report.series import onsets_frame

        return onsets_frame(self.result)

    @cached_property
    def change_points(self) -> pandas.DataFrame:
        """One row for each jump of a curve, with the two steps between which it lies."""
        from flagscope.report.series import change_points_frame

        return change_points_frame(self.result)

    @cached_property
    def runs(self) -> pandas.DataFrame:
        """One row for each of several trainings; empty for one."""
        from flagscope.report.series import runs_frame

        return runs_frame(self.result.runs)

    @cached_property
    def relations(self) -> pandas.DataFrame:
        """One row for each two trainings: whether they are equal, and where they part."""
        from flagscope.report.series import relations_frame

        return relations_frame(self.result.runs)

    @cached_property
    def bands(self) -> pandas.DataFrame:
        """One row for each number of each pair at each step that several trainings have."""
        from flagscope.report.series import bands_frame

        return bands_frame(self.result.runs)

    @cached_property
    def motion(self) -> pandas.DataFrame:
        """One row for each map or product, side and step: how far it moved, its directions turned.

        Columns `turn_…` are against the step before, `last_…` against the last step.
        """
        from flagscope.report.series import motion_frame

        return motion_frame(self.result)

    @cached_property
    def rates(self) -> pandas.DataFrame:
        """One row for each linear pair: its rate in decay time, or why there is none."""
        from flagscope.report.series import rates_frame

        return rates_frame(self.result)

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        title: str | None = None,
        paths: bool = False,
    ) -> str:
        """The result as one self-contained page; also written to `path` if one is given.

        It has the faults, the steps, and a slider over them: a map of all pairs at one step, and
        the curves of one pair. Then onsets, jumps, motion, rates, adapters and runs, where there
        are any. `title` is its heading; the last part of the source if None.
        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        from flagscope.report.series import render_series

        return written(render_series(self._shared(paths), title=title), path)

    def _shareable(self) -> SeriesRecord:
        named = named_paths(*self.result.sources, *(step.source for step in self.result.steps))
        return with_texts(self.result, shareable((*named, *self._given)))

    def _repr_html_(self) -> str:
        from flagscope.report.series import render_series_summary

        return render_series_summary(self._shared())

    def __repr__(self) -> str:
        from flagscope.report.series import series_headline

        return f"SeriesReport({series_headline(self._shared())})"
