"""Maps of sharp scans before norms are folded in, shared by the tasks that meet them.

The writers of a gated MLP meet its reader in one task, and as readers of the stream they meet the
attention before it in another. Their Gram matrices and signal ranks are the same in both.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Literal

from flagscope.arch import Norm, PairGroup, Side
from flagscope.diagnose import Folding, bare_map
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.plan.cost import other_dimension
from flagscope.engine.plan.depth import is_sharp
from flagscope.engine.settings import Settings
from flagscope.geometry import RankRule

View = Literal["write", "read"]


def folding(
    group: PairGroup, view: View, index: int, reader: TaskReader, settings: Settings
) -> Folding | None:
    """How a map of a pair comes about from the bare one; None where other than by scales.

    Parameters
    ----------
    group, view, index
        The pair, which of its sides, and the map's index in it.
    reader, settings
        How maps are read, and which norms are folded in.
    """
    before, behind = folded_norms(group, settings)
    norm = behind if view == "write" else before
    if view == "write" and is_layernorm(norm):
        return None
    side = _side(group, view)
    gram = not is_layernorm(before)
    rule = RankRule.parse(settings.rank)
    bare = reader.shared_value(
        _key(group, view, index, gram=gram),
        lambda: bare_map(
            lambda: reader.side(side, view).take([index]), read=view == "read", rule=rule,
            seed=settings.seed, gram=gram,
        ),
        lambda made: 0 if made is None else made.nbytes,
    )  # fmt: skip
    if bare is None:
        return None
    if norm is None:
        return Folding(bare)
    # As `fold_before` and `fold_behind` have it.
    statistics = norm.kind == "batchnorm" and view == "write"
    return Folding(bare, reader.batchnorm_scale(norm) if statistics else reader.gain(norm))


def folded_norms(group: PairGroup, settings: Settings) -> tuple[Norm | None, Norm | None]:
    """The norms before the readers and behind the writers of a pair, as far as they are folded."""
    if settings.fold_norms == "none":
        return None, None
    return group.read_norm, group.write_norm


def is_layernorm(norm: Norm | None) -> bool:
    """Whether a norm removes the mean of the coordinates."""
    return norm is not None and norm.kind == "layernorm"


def bare_keys(groups: Sequence[PairGroup], settings: Settings) -> Iterator[Hashable]:
    """Keys of the bare maps that a task with these pairs may share with others."""
    for group in groups:
        if is_sharp(group, settings.depth):
            gram = not is_layernorm(folded_norms(group, settings)[0])
            for member in group.members:
                yield _key(group, "write", member.write_index, gram=gram)
                yield _key(group, "read", member.read_index, gram=gram)


def _side(group: PairGroup, view: View) -> Side:
    return group.write if view == "write" else group.read


def _key(group: PairGroup, view: View, index: int, *, gram: bool) -> Hashable:
    side = _side(group, view)
    # Both Gram matrices of a square map are of the smaller size; filters are other maps by side.
    square = other_dimension(side, group.d) == group.d
    standing = (view == "write") != side.transposed
    which = standing if square or side.map.spatial else None
    return "bare", side.map.place, index, which, gram
