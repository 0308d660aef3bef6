"""All heads of a model against each other, across layers: `flagscope.head_overlaps`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from flagscope.api.progress import shown_progress
from flagscope.api.saved import written
from flagscope.api.sharing import named_paths, shareable, shared_name
from flagscope.api.source import check_device, checked_settings, mapped, opened, readable
from flagscope.diagnose import SpaceOverlaps
from flagscope.engine import Progress, all_head_overlaps, resolved_device, unplaced_matrices
from flagscope.errors import InputError
from flagscope.records import (
    HEAD_SPACES,
    FoldNorms,
    HeadOverlap,
    HeadOverlapsRecord,
    HeadSpace,
)

if TYPE_CHECKING:
    import pandas

    from flagscope.api.source import Config, Source
    from flagscope.report.heads import HeadsAnswer

# The widest space of a model of 8 billion parameters, 2.1 GB, and what is held along with it.
BASES_MEMORY = 3e9


@dataclass(frozen=True, eq=False)
class HeadOverlaps:
    """How all heads of a model overlap.

    Attributes
    ----------
    source, family, fold_norms
        What was read, and how.
    spaces
        One for each stack, kind of attention and space; their tables are `squared` (Σcos²),
        `ratios` (over chance) and `scores` (z), and `measured` names the rows.
    notes
        What could not be mapped, and what was assumed.
    asked
        The spaces that were asked for, whether the model has them or not.
    unplaced
        Number of matrices that could not be placed: heads may be among them.
    """

    source: str
    family: str
    fold_norms: FoldNorms
    spaces: tuple[SpaceOverlaps, ...]
    notes: tuple[str, ...]
    asked: tuple[HeadSpace, ...] = HEAD_SPACES
    unplaced: int = 0
    _given: tuple[str, ...] = ()

    def __getitem__(self, space: str) -> SpaceOverlaps:
        """The heads of the one stack that has this space.

        Raises
        ------
        InputError
            If none has it, or several have.
        """
        found = [one for one in self.spaces if one.space == space]
        if len(found) != 1:
            names = ", ".join(f"{one.stack} {one.space}" for one in self.spaces) or "none"
            raise InputError(
                f"{len(found)} sets of heads have the space {space!r}; there are: {names}",
                hint="choose one of .spaces",
            )
        return found[0]

    @cached_property
    def answer(self) -> HeadsAnswer:
        """Which heads are near-copies, or why none are, with its caveats, in words."""
        from flagscope.report.heads import heads_answer

        return heads_answer(self.record())

    @cached_property
    def summary(self) -> pandas.DataFrame:
        """One row for each stack, kind of attention and space: the mean overlap next to chance."""
        import pandas

        return pandas.DataFrame([_summary(space) for space in self.spaces])

    @cached_property
    def near_copies(self) -> pandas.DataFrame:
        """One row for each pair of near-copies, the closest of each space first, at most 200."""
        return _frame(self.spaces, "near_copies")

    @cached_property
    def pairs(self) -> pandas.DataFrame:
        """One row for each listed pair, those furthest above chance in each space."""
        return _frame(self.spaces, "pairs")

    def record(self, *, paths: bool = True) -> HeadOverlapsRecord:
        """Everything but the tables; absolute paths shortened unless `paths`."""
        short = str if paths else shareable((*named_paths(self.source), *self._given))
        spaces = [
            {
                **_summary(space),
                "basis": space.basis,
                "near_copies": [asdict(pair) for pair in space.near_copies],
                "near_copies_total": space.near_copies_total,
                "closest": None if space.closest is None else asdict(space.closest),
                "clusters": space.clusters,
                "pairs": [asdict(pair) for pair in space.pairs],
                "heads": [asdict(head) for head in space.heads],
            }
            for space in self.spaces
        ]
        return HeadOverlapsRecord.model_validate(
            {
                "version": version("flagscope"), "source": short(self.source),
                "family": short(self.family), "fold_norms": self.fold_norms, "asked": self.asked,
                "notes": [short(note) for note in self.notes], "unplaced": self.unplaced,
                "spaces": spaces,
            }
        )  # fmt: skip

    def to_dict(self, *, paths: bool = False) -> dict[str, Any]:
        """Contents but for the tables: means, pairs, clusters and heads; paths as in `to_json`."""
        return self.record(paths=paths).model_dump(mode="json", by_alias=True)

    def to_json(self, path: str | os.PathLike[str] | None = None, *, paths: bool = False) -> str:
        """`to_dict` as text; also written to `path` if one is given.

        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        text = json.dumps(self.to_dict(paths=paths), indent=1, ensure_ascii=False, allow_nan=False)
        return written(text, path)

    def to_html(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        paths: bool = False,
        title: str | None = None,
    ) -> str:
        """The answer, the tables and a map of each space as one self-contained page.

        Also written to `path` if one is given. Absolute paths of this machine are shortened to
        their last part unless `paths` is True. Of more than 400 heads, the map shows layers.

        Parameters
        ----------
        title
            Title of the page; the name of the source by default.
        """
        from flagscope.report.heads import render_heads

        ratios = [space.ratios for space in self.spaces]
        return written(render_heads(self.record(paths=paths), ratios, title=title), path)

    def _repr_html_(self) -> str:
        from flagscope.report.heads import render_heads_summary

        return render_heads_summary(self.record(paths=False))

    def __repr__(self) -> str:
        tables = ", ".join(f"{len(one.measured)} {one.space}" for one in self.spaces)
        near = sum(space.near_copies_total for space in self.spaces)
        source = shared_name(self.source, self._given)
        return (
            f"HeadOverlaps({source!r}, family={self.family!r}, heads: {tables or 'none'}; "
            f"{near} near-copies)"
        )


def head_overlaps(
    source: Source,
    *,
    config: Config | None = None,
    revision: str | None = None,
    base: str | os.PathLike[str] | None = None,
    tensors: str | None = None,
    family: str | None = None,
    heads: int | None = None,
    example_inputs: Any = None,
    spaces: HeadSpace | Iterable[HeadSpace] = HEAD_SPACES,
    fold_norms: Literal["all", "none"] = "all",
    top: int = 20,
    memory: float = BASES_MEMORY,
    device: str = "auto",
    progress: Progress | bool | None = None,
) -> HeadOverlaps:
    """Compare all heads of a model with each other, across layers, and with what chance gives.

    Parameters
    ----------
    source, config, revision, base, tensors, family, heads, example_inputs, device
        As for `scan`.
    spaces
        What to compare, of "q", "k", "v" (what heads read) and "o" (what they write). With
        grouped-query attention there are as many k and v as key-value heads.
    fold_norms
        "all" folds the gain of a pre-norm into the maps that read through it, so that heads of
        different layers are compared in the coordinates of the stream they share; "none" leaves
        weights as stored.
    top
        How many pairs to list in each space, those of the largest z.
    memory
        Bytes to hold beyond the imports, in a device's own memory if it has one. Where the
        bases of a space, 4 H r d bytes for H heads of rank r in R^d, do not fit, the checkpoint is
        read again for each block of their coordinates.
    progress
        As for `scan`; what is counted are the layers of each space.

    Returns
    -------
    HeadOverlaps

    Raises
    ------
    InputError
        If an argument is wrong, the device is not there, or `memory` is too small for one layer;
        the message then says what would do.
    SourceError
        If the checkpoint cannot be read.
    ArchitectureError
        If its tensors contradict its config.

    References
    ----------
    Σcos² between head spaces is the projection kernel of arXiv 2601.10266.

    Examples
    --------
    >>> import torch
    >>> from transformers import GPT2Config, GPT2Model
    >>> model = GPT2Model(GPT2Config(n_layer=3, n_head=4, n_embd=32))
    >>> found = head_overlaps(model, spaces="o")
    >>> found["o"].ratios.shape, found["o"].pairs_tested
    ((12, 12), 66)
    """
    chosen: tuple[Any, ...] = (spaces,) if isinstance(spaces, str) else tuple(spaces)
    _check(chosen, fold_norms, top, memory)
    settings = checked_settings(family=family, heads=heads, device=device, only=("heads",))
    check_device(settings)
    with (
        shown_progress(progress) as step,
        opened(source, config=config, revision=revision, base=base, tensors=tensors) as checkpoint,
    ):
        checkpoint, graph = mapped(checkpoint, settings, source, example_inputs)
        found = all_head_overlaps(
            checkpoint, graph, spaces=chosen, fold=fold_norms == "all", memory=memory,
            device=resolved_device(device), top=top, progress=step,
        )  # fmt: skip
        return HeadOverlaps(
            source=readable(checkpoint.source), family=graph.family, fold_norms=fold_norms,
            spaces=found, notes=(*checkpoint.notes, *graph.notes),
            asked=chosen, unplaced=unplaced_matrices(checkpoint, graph),
            _given=named_paths(source, base, config, family),
        )  # fmt: skip


def _check(spaces: tuple[str, ...], fold_norms: str, top: int, memory: float) -> None:
    wrong = [space for space in spaces if space not in HEAD_SPACES]
    if wrong or not spaces:
        raise InputError(
            f"spaces names {', '.join(map(repr, wrong)) or 'nothing'}",
            hint=f"give some of {', '.join(HEAD_SPACES)}",
        )
    if fold_norms not in ("all", "none"):
        raise InputError(f"fold_norms is {fold_norms!r}", hint="give 'all' or 'none'")
    if top < 0:
        raise InputError(f"top is {top}", hint="give a number of pairs, 0 for none")
    if not memory > 0:
        raise InputError(f"memory is {memory}", hint="give a number of bytes, such as 3e9")


def _frame(spaces: Iterable[SpaceOverlaps], listed: str) -> pandas.DataFrame:
    import pandas

    rows = [
        {"stack": space.stack, "space": space.space, **asdict(pair)}
        for space in spaces
        for pair in getattr(space, listed)
    ]
    return pandas.DataFrame(rows, columns=["stack", "space", *HeadOverlap.model_fields])


def _summary(space: SpaceOverlaps) -> dict[str, Any]:
    return {
        "stack": space.stack, "attention": space.attention, "space": space.space, "d": space.d,
        "heads_measured": len(space.measured), "pairs_tested": space.pairs_tested,
        "overlap_ratio": space.overlap_ratio, "overlap_ratio_sd": space.overlap_ratio_sd,
        "z": space.z, "p": space.p, "log10_p": space.log10_p, "form": space.form,
        "status": space.status,
    }  # fmt: skip
