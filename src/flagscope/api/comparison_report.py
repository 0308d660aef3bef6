"""A report of a comparison: verdict, findings, tables, JSON and a page."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flagscope.api.sharing import named_paths, shareable
from flagscope.errors import InputError
from flagscope.records.comparison import Comparison, Verdict
from flagscope.writing import write_whole

if TYPE_CHECKING:
    import pandas


class ComparisonReport:
    """The result of `flagscope.compare`, as a verdict, frames, JSON and a page.

    Attributes
    ----------
    result
        All records, frozen; also the published JSON schema `flagscope.compare/1`.
    """

    def __init__(self, result: Comparison, *, given: Iterable[str] = ()) -> None:
        self.result = result
        self._given = tuple(given)  # paths, which stay on this machine

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> Self:
        """Read a report back from a file that `to_json` wrote.

        Raises
        ------
        InputError
            If the file is not a comparison of schema `flagscope.compare/1`.
        """
        from pydantic import ValidationError

        try:
            if Path(source).exists() and not Path(source).is_file():
                raise OSError("not a file")  # reading a pipe may never end
            text = Path(source).read_text(encoding="utf-8")
            return cls(Comparison.model_validate_json(text))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"{os.fspath(source)} is not a comparison of schema flagscope.compare/1: {first}",
                hint="give a file written by `flagscope compare --json`",
            ) from error

    @property
    def verdict(self) -> Verdict:
        """What the two are to each other, with the evidence and what cannot be known."""
        return self.result.verdict

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

    def to_json(self, path: str | os.PathLike[str] | None = None, *, paths: bool = False) -> str:
        """The result as JSON text; also written to `path` if one is given.

        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        text = self._shared(paths).model_dump_json(by_alias=True, indent=1)
        if path is not None:
            write_whole(path, text)
        return text

    def to_html(self, path: str | os.PathLike[str] | None = None, *, paths: bool = False) -> str:
        """The result as one self-contained page; also written to `path` if one is given.

        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        from flagscope.report.comparison import render_comparison

        text = render_comparison(self._shared(paths))
        if path is not None:
            write_whole(path, text)
        return text

    def _shared(self, paths: bool) -> Comparison:
        if paths:
            return self.result
        return shared_texts(self.result, self._given)

    def _repr_html_(self) -> str:
        from flagscope.report.comparison import render_comparison_summary

        return render_comparison_summary(self._shared(paths=False))

    def __repr__(self) -> str:
        result = self.result
        return f"ComparisonReport({result.a.source!r}, {result.b.source!r}: {result.verdict.text})"


def shared_texts(result: Comparison, given: Iterable[str]) -> Comparison:
    """A comparison with every text shareable, wherever it stands."""
    sources = [side.source for side in (result.a, result.b, *result.parents)]
    if result.adapter is not None:
        sources.append(result.adapter.source)
    short = shareable((*named_paths(*sources), *given))

    def through(value: object) -> object:
        if isinstance(value, str):
            return short(value)
        if isinstance(value, list):
            return [through(entry) for entry in value]
        if isinstance(value, dict):
            return {key: through(entry) for key, entry in value.items()}
        return value

    return Comparison.model_validate(through(result.model_dump(mode="json", by_alias=True)))
