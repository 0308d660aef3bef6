"""What tensors show, by name, as the outputs and inputs of maps, biases and norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from flagscope.arch import LinearMap, Norm
from flagscope.checkpoint import Checkpoint, widen
from flagscope.engine.health.map_flags import End, unit_flags, unit_labels
from flagscope.engine.health.tensor_health import Copies, TensorHealth, unpacked
from flagscope.engine.plan.look import Look
from flagscope.errors import FlagscopeError

Sides = dict[tuple[int, ...], np.ndarray]


class Shown:
    """Looks and what they gave, by the name of the tensor.

    Parameters
    ----------
    checkpoint
        Where the entries of biases are read if neurons may be copies.
    looks, health
        What was looked at, and what it showed.
    same
        The first name of a weight, by each of its further names.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        looks: Iterable[Look],
        health: Iterable[TensorHealth],
        same: Mapping[str, str],
    ) -> None:
        self._checkpoint, self._same = checkpoint, same
        self.looks = {look.tensor: look for look in looks}
        self.health = {one.tensor: one for one in health}

    def first_name(self, tensor: str) -> str:
        """The name under which a tensor was looked at."""
        return self._same.get(tensor, tensor)

    def zero(self, map_: LinearMap, end: End) -> np.ndarray | None:
        """Outputs or inputs of maps whose weights are all zero; None where that is not known."""
        sides = self._zero_sides(map_.tensor)
        return None if sides is None else unit_flags(map_, end, sides)

    def labels(self, map_: LinearMap, end: End = "out") -> np.ndarray | None:
        """A number for each output, or input, of maps, equal for those with equal weights.

        Outputs and inputs without weights are not compared: each has a number of its own.
        """
        found = self._found(map_.tensor)
        if found is None:
            return None
        look, health = found
        matrices, rows, columns, _ = look.sizes
        row_labels, column_labels = (
            _labels(copies, matrices * length).reshape(matrices, length)
            for copies, length in ((health.copied_rows, rows), (health.copied_columns, columns))
        )
        return unit_labels(map_, end, _keyed(look, row_labels, column_labels))

    def has_copies(self, map_: LinearMap) -> bool:
        """Whether some rows or columns of the maps' tensor are copies, and it has many values."""
        found = self._found(map_.tensor)
        if found is None or found[1].constant is not None:
            return False
        return bool(found[1].copied_rows.count or found[1].copied_columns.count)

    def bias_is_zero(self, map_: LinearMap) -> np.ndarray | None:
        """Where the bias of maps is zero, shape (count or 1, outputs); None where not known."""
        if map_.bias is None:
            return np.ones((1, map_.outputs), dtype=bool)
        flags = self._zero_entries(map_.bias)
        if flags is None:
            return None
        return _by_map(map_, flags)

    def bias(self, map_: LinearMap) -> np.ndarray | None:
        """The bias of maps, shape (count or 1, outputs); None where it is not known."""
        values = None if map_.bias is None else self.values(map_.bias)
        return None if values is None else _by_map(map_, values)

    def gain_is_zero(self, norm: Norm | None, length: int) -> np.ndarray:
        """Where the gain of a norm without offset is zero."""
        none = np.zeros(length, dtype=bool)
        if norm is None or norm.gain is None or norm.offset:
            return none
        flags = self._zero_entries(norm.gain)
        return flags.reshape(-1) if flags is not None and flags.size == length else none

    def values(self, name: str) -> np.ndarray | None:
        """The entries of a bias or of a norm's vector; None where they cannot be read."""
        try:
            raw, scale = self._checkpoint.read(name), self._checkpoint.scale(name)
            return widen(raw, torch.float64, scale=scale).cpu().numpy()
        except (FlagscopeError, OSError):
            return None

    def _found(self, tensor: str) -> tuple[Look, TensorHealth] | None:
        name = self.first_name(tensor)
        health = self.health.get(name)
        return None if health is None else (self.looks[name], health)

    def _zero_sides(self, tensor: str) -> Sides | None:
        found = self._found(tensor)
        if found is None or found[0].kind == "vector":
            return None
        look, health = found
        matrices, rows, columns, _ = look.sizes
        return _keyed(
            look,
            unpacked(health.zero_rows, matrices * rows).reshape(matrices, rows),
            unpacked(health.zero_columns, matrices * columns).reshape(matrices, columns),
        )

    def _zero_entries(self, tensor: str) -> np.ndarray | None:
        found = self._found(tensor)
        if found is None or found[0].kind != "vector":
            return None
        look, health = found
        return unpacked(health.zero_rows, look.entries).reshape(look.shape)


def _keyed(look: Look, rows: np.ndarray, columns: np.ndarray) -> Sides:
    if look.kind == "stack":
        return {(0, 1): rows, (0, 2): columns}
    return {(0,): rows[0], (1,): columns[0]}


def _by_map(map_: LinearMap, bias: np.ndarray) -> np.ndarray | None:
    """A bias, or flags of it, by map; None if its shape is not that of the maps' outputs."""
    try:
        by_map = map_.bias_vectors(torch.from_numpy(bias)).numpy()
    except (FlagscopeError, RuntimeError, ValueError):
        return None
    return by_map if by_map.shape[1] == map_.outputs and len(by_map) in (1, map_.count) else None


def _labels(copies: Copies, count: int) -> np.ndarray:
    labels = np.arange(count)
    if copies.pairs:
        pairs = np.array(copies.pairs)
        labels[pairs[:, 0]] = pairs[:, 1]
    return labels
