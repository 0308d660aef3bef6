"""Finds the MLP blocks of transformer layers in unknown models."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from flagscope.arch.reading.modules import Matrix
from flagscope.arch.reading.words import mlp_role, role_of

# Factors of an update of another map, and modules that go down before they go up.
_FACTOR = re.compile(r"lora|(?:^|_)(?:a|b)_?proj$")
_ADAPTER = re.compile(r"adapter|adaptor|bottleneck|houlsby|pfeiffer|compress")


@dataclass(frozen=True)
class MlpBlock:
    """An MLP as read.

    Attributes
    ----------
    parent
        Path of the module that holds it; for experts, with "{expert}" for the number.
    maps
        up, down, and gate if there is one; those of the first expert if there are several.
    transposed
        Whether weights are stored as (in, out).
    tensors
        Names of all its tensors, including those of every expert.
    halves
        Names of the two halves of `up` if it holds two maps, else ().
    """

    parent: str
    maps: Mapping[str, Matrix]
    transposed: bool
    tensors: tuple[str, ...]
    halves: tuple[str, ...] = ()


# Gate and up in one map: by name, or in the module of an activation that splits its input.
_BOTH = re.compile(r"w_?12|(?:fc|w|c)?_?(?:gate_?up|up_?gate)(?:_?proj)?")
_SPLIT = re.compile(r"(?:.*\.)?0\.proj")
_KEY_VALUE = re.compile(r"kv|key|value")
# Small maps next to the weights of other maps, which go down first and then up.
_ADDED = re.compile(r"lora|adapter|\bia3\b|prompt|prefix")
_CHANNELS = re.compile(r"(?:^|\.)(?:ffn|feed_?forward|channel_?mix\w*|cmix)$")
HALVES = ("half1", "half2")


def read_mlp(
    parent: str,
    matrices: Sequence[Matrix],
    width: int,
    *,
    transposed: bool | None,
    gains: Collection[int] = (),
) -> MlpBlock | None:
    """The MLP formed by the matrices of one module, if they form exactly one.

    Two maps, one from the stream's `width` to another width and one back, are an MLP whatever their
    names; three are a gated MLP. If the two widths are equal, names decide. If the first map writes
    twice as many dimensions as the other reads, its halves are gate and up.

    Parameters
    ----------
    parent
        Path of the module.
    matrices
        All matrices in it that do not belong to attention.
    width
        Width of the stream that the layer reads and writes.
    transposed
        Whether the weights of other modules are stored as (in, out); None if that is not known.
    gains
        Lengths of the norms and scales in the layer.
    """
    if any(_FACTOR.search(matrix.name.lower()) for matrix in matrices):
        return None
    if _runs_down_first(parent, matrices):
        return _adapter(parent, matrices)
    if any(_ADDED.search(matrix.path.lower()) for matrix in matrices):
        return None
    plain = [matrix for matrix in matrices if len(matrix.shape) == 2 and width in matrix.shape]
    if not 2 <= len(plain) <= 3 or len(plain) != len(matrices):
        return None
    by_name: dict[str, Matrix] = {}
    for matrix in plain:
        role = mlp_role(matrix.name)
        if role is None or role in by_name:
            by_name = {}
            break
        by_name[role] = matrix
    by_shape = _by_shape(plain, width, by_name, transposed or False)
    if by_shape is None:
        return _fused(parent, plain, width, transposed or False, gains)
    maps, lies = by_shape
    modules = all(matrix.joint is not None for matrix in plain)
    if modules and transposed is not None and lies != transposed:
        return None
    return MlpBlock(parent, maps, lies, tuple(matrix.tensor for matrix in plain))


def _runs_down_first(parent: str, matrices: Sequence[Matrix]) -> bool:
    """Whether names say that maps go down to fewer dimensions first, and then up again."""
    path = f"{parent}." + " ".join(matrix.name for matrix in matrices)
    return _ADAPTER.search(path.lower()) is not None


def _adapter(parent: str, matrices: Sequence[Matrix]) -> MlpBlock | None:
    """Two maps of an adapter, the first of which is called down, if shapes agree."""
    down = [matrix for matrix in matrices if "down" in matrix.name.lower()]
    up = [matrix for matrix in matrices if "up" in matrix.name.lower()]
    if len(matrices) != 2 or len(down) != 1 or len(up) != 1 or None in (down[0].joint, up[0].joint):
        return None
    first, last = down[0], up[0]
    if len(first.shape) != 2 or first.shape != last.shape[::-1] or first.shape[0] >= first.shape[1]:
        return None
    return MlpBlock(parent, {"up": first, "down": last}, False, (first.tensor, last.tensor))


def channel_mix(parent: str, matrices: Sequence[Matrix]) -> MlpBlock | None:
    """The channel mix of RWKV: value(relu(key x)²), gated by receptance after the sum of value."""
    # The module also holds vectors of shape (1, 1, d) that mix a token with the previous one.
    by_name = {matrix.name: matrix for matrix in matrices if sum(n > 1 for n in matrix.shape) > 1}
    key, value, gate = (by_name.get(name) for name in ("key", "value", "receptance"))
    if key is None or value is None or set(by_name) - {"key", "value", "receptance"}:
        return None
    wide, d = key.shape if len(key.shape) == 2 else (0, 0)
    fits = wide > d and value.shape == (d, wide) and (gate is None or gate.shape == (d, d))
    if not fits or not _CHANNELS.search(parent):
        return None
    return MlpBlock(parent, {"up": key, "down": value}, False, (key.tensor, value.tensor))


def _by_shape(
    plain: Sequence[Matrix], width: int, by_name: Mapping[str, Matrix], transposed: bool
) -> tuple[dict[str, Matrix], bool] | None:
    """Roles and storage order from shapes, if names agree with them or say nothing."""
    inner_sizes = {n for matrix in plain for n in matrix.shape if n != width}
    if len(inner_sizes) > 1:
        return None
    if not inner_sizes:  # all square: shapes decide nothing
        named = dict(by_name)
        sure = set(named) == {"up", "down"} or (
            set(named) == {"up", "down", "gate"} and "gate" in named["gate"].name.lower()
        )
        bare = any(matrix.joint is None for matrix in plain)
        return (named, transposed) if sure and not bare else None
    (inner,) = inner_sizes
    tall = [matrix for matrix in plain if matrix.shape == (inner, width)]
    wide = [matrix for matrix in plain if matrix.shape == (width, inner)]
    if len(tall) + len(wide) != len(plain) or not tall or not wide:
        return None
    if len(plain) == 3:
        (down,) = wide if len(wide) == 1 else tall
        first = tall if len(wide) == 1 else wide
        gates = [matrix for matrix in first if mlp_role(matrix.name) == "gate"]
        gate = gates[0] if len(gates) == 1 else _gate_of_numbers(first, down)
        if gate is None:
            return None
        (up,) = [matrix for matrix in first if matrix is not gate]
        return {"up": up, "gate": gate, "down": down}, len(wide) != 1
    names = (by_name.get("up"), by_name.get("down"))
    if names == (wide[0], tall[0]):  # (in, out): up is (width, inner)
        return {"up": wide[0], "down": tall[0]}, True
    if names == (tall[0], wide[0]):
        return {"up": tall[0], "down": wide[0]}, False
    # Names say nothing: the weight of a module is (out, in), as in torch's Linear.
    if any(matrix.joint is None for matrix in plain) or by_name:
        return None
    first, last = (wide, tall) if transposed else (tall, wide)
    return {"up": first[0], "down": last[0]}, transposed


def _fused(
    parent: str, plain: Sequence[Matrix], width: int, transposed: bool, gains: Collection[int]
) -> MlpBlock | None:
    """An MLP whose gate and up are one map (2 f, d), with a last map (d, f).

    The halves are multiplied with each other and read by the last map; which of them is the gate is
    known only if the name says so. A norm or scale of the halves' length would come between.
    """
    if len(plain) != 2 or any(matrix.joint is None for matrix in plain):
        return None
    for fused, down in (plain, plain[::-1]):
        (twice, d), (e, inner) = (m.shape[::-1] if transposed else m.shape for m in (fused, down))
        if not (d == e == width and twice == 2 * inner):
            continue
        name = fused.name.lower()
        if role_of(fused.name) is not None or _KEY_VALUE.search(name):
            continue
        said = _BOTH.fullmatch(name) is not None or _SPLIT.fullmatch(fused.path) is not None
        # A square map, or a map to twice the stream's width, may be something else.
        roles = mlp_role(fused.name), mlp_role(down.name)
        if not said and (width in (inner, twice) or roles[0] == "down" or roles[1] != "down"):
            continue
        if {inner, twice} & (set(gains) - {width}):
            continue
        halves = HALVES
        if "gate" in name:
            halves = ("gate", "up") if name.index("gate") < name.index("up") else ("up", "gate")
        tensors = tuple(matrix.tensor for matrix in plain)
        return MlpBlock(parent, {"up": fused, "down": down}, transposed, tensors, halves)
    return None


def _gate_of_numbers(first: Sequence[Matrix], down: Matrix) -> Matrix | None:
    """w1 of w1, w2, w3, as in Llama: w1 is the gate, w3 is up, w2 is down."""
    names = {matrix.name.lower().replace("_", ""): matrix for matrix in (*first, down)}
    stems = {re.sub(r"\d+$", "", name) for name in names}
    numbers = {re.sub(r"^\D+", "", name) for name in names}
    if len(stems) != 1 or numbers != {"1", "2", "3"}:
        return None
    stem = stems.pop()
    return names[f"{stem}1"] if names.get(f"{stem}2") is down else None
