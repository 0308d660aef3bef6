"""Heads of one attention block without the scales of the stream's coordinates that they share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from threading import Lock

import torch

from flagscope.arch import HeadGroup, Norm
from flagscope.engine.cache.norms import fold_before
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.run.foldings import is_layernorm
from flagscope.engine.settings import Settings
from flagscope.geometry import (
    DividedSpaces,
    HeadSpaces,
    Matrices,
    ScaleProfile,
    head_spaces,
    scale_profile,
    without_profile,
)


class HeadScales:
    """Divides out the scales that heads share because they read or write at one place.

    Queries, keys and values read through one norm, so they share its gain. The output of the heads
    is a separate place, and so is the input of the keys and values of cross-attention. Spaces and
    scales are computed on first use.

    Parameters
    ----------
    groups
        The heads of the task.
    reader, settings
        How their maps are read, and which norms are folded in. A LayerNorm's mean is left in:
        without it, the coordinates are no longer those that the gain scales.
    """

    def __init__(self, groups: Sequence[HeadGroup], reader: TaskReader, settings: Settings) -> None:
        self._groups, self._reader, self._settings = groups, reader, settings
        self._lock = Lock()
        self._spaces: dict[int, HeadSpaces] = {}
        self._profiles: dict[Hashable, ScaleProfile | None] = {}

    def divided(self, group: HeadGroup) -> DividedSpaces | None:
        """The heads without the scales of their place; None if all scales are equal."""
        place = _place(group)
        # One thread computes what all need.
        with self._lock:
            if place not in self._profiles:
                pool = [other for other in self._groups if _place(other) == place]
                self._profiles[place] = scale_profile([self._spaces_of(other) for other in pool])
        profile = self._profiles[place]
        if profile is None or not profile.differ:
            return None
        return DividedSpaces(without_profile(self._spaces_of(group), profile), profile)

    def spaces(self, group: HeadGroup, maps: Matrices) -> HeadSpaces:
        """The spaces of the heads of a group, all sound, from its maps with norms folded in.

        They are kept, unless a LayerNorm's mean is removed from the maps.
        """
        norm = folded_norm(group, self._settings)
        if is_layernorm(norm):
            return head_spaces(maps.values, noise=maps.delta)
        return self._spaces_of(group, maps)

    def _spaces_of(self, group: HeadGroup, maps: Matrices | None = None) -> HeadSpaces:
        index = next(i for i, other in enumerate(self._groups) if other is group)
        if index not in self._spaces:
            maps = maps or head_maps(group, self._reader, self._settings, centred=False)
            # Heads that are not finite have no space; the others keep theirs.
            sound = torch.tensor([fault is None for fault in maps.faults()])
            values = maps.values.where(sound.to(maps.values.device)[:, None, None], 0)
            self._spaces[index] = head_spaces(values, noise=maps.delta.where(sound, 0))
        return self._spaces[index]


def _place(group: HeadGroup) -> Hashable:
    if group.space == "o":
        where = "o"
    else:
        where = "kv" if group.attention == "cross" and group.space != "q" else "qkv"
    norm = None if group.norm is None else group.norm.name
    return group.stack, group.attention, group.layer, group.d, norm, where


def head_maps(
    group: HeadGroup, reader: TaskReader, settings: Settings, *, centred: bool = True
) -> Matrices:
    """Maps of the heads of a group, (H, r, d), with the gain of a pre-norm folded in on request.

    `centred` says whether the mean that a LayerNorm removes is removed.
    """
    maps = reader.for_size(group.d, [group.map]).maps(group.map)
    if group.space == "o":
        return maps.transposed()
    return fold_before(maps, folded_norm(group, settings), reader, centred=centred)


def folded_norm(group: HeadGroup, settings: Settings) -> Norm | None:
    """The norm to fold into the maps of a group, if any."""
    norm = group.norm
    folds = settings.fold_norms == "all" and norm is not None and norm.placement == "pre"
    return norm if folds and group.space != "o" else None
