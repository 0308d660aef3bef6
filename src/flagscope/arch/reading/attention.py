"""Attention blocks among tensors of unknown names: queries, keys, values and the output map.

A name proposes a role, shapes dispose: a block is read only where the four maps fit each other in
one way. How weights lie, as (out, in) or (in, out), is decided for all blocks of a model together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flagscope.arch.reading.modules import Matrix, Module, by_parent, joined
from flagscope.arch.reading.stacked_heads import stacked_heads
from flagscope.arch.reading.words import is_output, may_be_output, role_of

_KEY_VALUE = re.compile(r"(?:to_?|w_?|c_?|in_?)?kv(?:_?(?:proj|linear|lin|attn))?")
_CROSS = re.compile(r"cross|attn_?2|enc_?dec|encoder_attn|multihead_attn|inter_attn|src_attn")
# Fused maps of these names hold Q, K and V for each head in turn, or all Q first.
_EITHER_ORDER = ("query_key_value", "linear_qkv")

OUTPUT_UNKNOWN = "attention without an output map that fits: its V-O pairs are not listed"
DISORDERED = (
    "attention left out: which of its maps are Q, K, V and O, and how they lie, does not follow "
    "from their names and shapes"
)


@dataclass(frozen=True)
class RoleMap:
    """One role of a block: its matrix, the layout of that, and which part of it is meant."""

    matrix: Matrix
    layout: str
    select: Mapping[str, int] = field(default_factory=dict)
    out: str | None = None
    inp: str | None = None


@dataclass(frozen=True)
class AttentionBlock:
    """An attention block as it was read.

    Attributes
    ----------
    parent
        Path of the module that holds it.
    maps
        q, k, v, and o where there is one.
    cross
        Whether keys and values read another stream than queries.
    d
        Width of the stream.
    """

    parent: str
    maps: Mapping[str, RoleMap]
    cross: bool
    d: int


@dataclass(frozen=True)
class _Proposal:
    """Matrices that names propose for the roles, and those that may be the output map."""

    parent: str
    roles: Mapping[str, Matrix]
    outputs: tuple[tuple[Matrix, ...], ...]  # by how near they stand, the nearest first
    heads: int | None = None  # of matrices that stand for one head each


@dataclass(frozen=True)
class AttentionReading:
    """What was read of attention.

    Attributes
    ----------
    blocks
        The blocks, in the order of their tensors.
    stacked
        Matrices that stand for several tensors, one a head: names with a star for the number.
    doubted
        What was not read, with the module in which it stands.
    transposed
        Whether modules' weights lie as (in, out); None where no block tells it.
    """

    blocks: tuple[AttentionBlock, ...]
    stacked: Mapping[str, tuple[str, ...]]
    doubted: tuple[tuple[str, str], ...]
    transposed: bool | None


def read_attention(root: Module) -> AttentionReading:
    """The attention blocks of a model."""
    groups = by_parent(root.matrices)
    stacked = stacked_heads(groups)
    proposals = [one for parent, found in groups.items() if parent not in stacked.sources
                 if (one := _proposal(parent, found, groups))]  # fmt: skip
    # The output map of heads lies in the module that holds them, or above.
    proposals += [
        _Proposal(one.parent, one.roles, _outputs(one.parent, set(), groups)[:3], one.count)
        for one in stacked.blocks
    ]
    taken = {matrix.tensor for one in proposals for matrix in one.roles.values()}
    widths = Counter(size for matrix in root.matrices if matrix.tensor not in taken
                     for size in set(matrix.shape))  # fmt: skip
    widths.update(n for module in root.walk() if (n := module.vector))
    readings = [
        {style: _readings(one, style == "in, out", widths) for style in ("out, in", "in, out")}
        for one in proposals
    ]
    styles = {bare: _common_style(proposals, readings, bare) for bare in (False, True)}
    blocks, doubted = [], []
    for one, reading in zip(proposals, readings, strict=True):
        style = styles[_is_bare(one)]
        found = reading[style] if style else []
        if len(found) == 1:
            blocks.append(found[0])
            if "o" not in found[0].maps:
                doubted.append((OUTPUT_UNKNOWN, one.parent))
        else:
            doubted.append((DISORDERED, one.parent))
    used = {role.matrix.tensor for block in blocks for role in block.maps.values()}
    kept = {name: parts for name, parts in stacked.tensors.items() if name in used}
    transposed = None if styles[False] is None else styles[False] == "in, out"
    return AttentionReading(tuple(blocks), kept, tuple(doubted), transposed)


def _is_bare(one: _Proposal) -> bool:
    return any(matrix.joint is None for matrix in one.roles.values())


def _common_style(
    proposals: Sequence[_Proposal], readings: Sequence[Mapping[str, list[AttentionBlock]]],
    bare: bool,
) -> str | None:  # fmt: skip
    """How the weights of all blocks lie: None where it cannot be told.

    Blocks of which neither style can be read do not vote. A module's weight is (out, in) where both
    fit, as torch's Linear has it; of bare parameters nothing is usual.
    """
    votes = [{style for style, found in reading.items() if found}
             for one, reading in zip(proposals, readings, strict=True)
             if _is_bare(one) == bare]  # fmt: skip
    votes = [vote for vote in votes if vote]
    common = set.intersection(*votes) if votes else set()
    if len(common) == 2:
        either = all(
            reading["out, in"] == reading["in, out"]
            for one, reading in zip(proposals, readings, strict=True) if _is_bare(one) == bare
        )  # fmt: skip
        return None if bare and not either else "out, in"
    return common.pop() if common else None


def _proposal(
    parent: str, siblings: Sequence[Matrix], groups: Mapping[str, list[Matrix]]
) -> _Proposal | None:
    roles: dict[str, Matrix] = {}
    for matrix in siblings:
        role = role_of(matrix.name) or ("kv" if _KEY_VALUE.fullmatch(matrix.name.lower()) else None)
        if role is None:
            continue
        if role in roles:
            return None
        roles[role] = matrix
    complete = {"q", "k", "v"} <= set(roles) or {"q", "kv"} <= set(roles)
    if complete:
        roles.pop("qkv", None)
        roles.pop("kv", None) if "k" in roles else None
    elif "qkv" in roles:
        roles = {"qkv": roles["qkv"]}
    else:
        return None
    return _Proposal(parent, roles, _outputs(parent, set(roles.values()), groups))


def _outputs(
    parent: str, taken: set[Matrix], groups: Mapping[str, list[Matrix]]
) -> tuple[tuple[Matrix, ...], ...]:
    """Candidates for the output map: siblings so named, those below, those one level up, any."""
    siblings = [one for one in groups.get(parent, ()) if one not in taken]
    named = tuple(one for one in siblings if is_output(one.name))
    below = tuple(
        one for child in ("to_out", "out", "output", "out_proj", "proj", "o", "dense")
        for one in groups.get(joined(parent, child), ())
    )  # fmt: skip
    above_path, _, _ = parent.rpartition(".")
    above: list[Matrix] = []
    if parent:
        above = [one for one in groups.get(above_path, ()) if is_output(one.name)]
        for child in ("output", "out", "to_out", "proj"):
            above += groups.get(joined(above_path, child), ())
    left = tuple(one for one in siblings if may_be_output(one.name))
    return named, below, tuple(one for one in above if one not in taken), left


def _readings(one: _Proposal, transposed: bool, widths: Counter[int]) -> list[AttentionBlock]:
    """The ways in which a block's maps fit each other if weights lie as (in, out), or (out, in)."""
    # What stands for one head each are weights of modules, and these are (out, in).
    transposed = transposed and one.heads is None
    roles = list(_role_readings(one, transposed, widths))
    found = []
    for maps, inner, d in roles:
        cross = maps["k"].layout.split()[-1] == "c" or maps["k"].layout.startswith("c ")
        cross = cross or _CROSS.search(one.parent.lower()) is not None
        output, doubtful = _output_map(one, maps, inner, d, transposed)
        if doubtful:
            continue
        every = {**maps, "o": output} if output else maps
        found.append(AttentionBlock(one.parent, every, cross, d))
    return found


def _role_readings(
    one: _Proposal, transposed: bool, widths: Counter[int]
) -> Iterator[tuple[dict[str, RoleMap], int, int]]:
    """Q, K and V, the length of what all heads hand to the output map, and the stream's width."""
    if "qkv" in one.roles:
        yield from _fused(one, transposed)
        return
    if "kv" in one.roles:
        yield from _half_fused(one, transposed)
        return
    query, key, value = (one.roles[role] for role in "qkv")
    dimensions = {len(matrix.shape) for matrix in (query, key, value)}
    if dimensions == {3}:
        yield from _by_heads(one, query, key, value, widths)
    elif dimensions == {2}:
        (q, d), (k, c), (v, e) = (
            one_.shape[::-1] if transposed else one_.shape for one_ in (query, key, value)
        )
        if c != e or q % k or (k != v and k * v == 0):
            return
        if transposed and c != d and query.joint == ".":
            return  # two widths and weights as (in, out): too much to read out of shapes alone
        axis = "d" if c == d else "c"
        last = "k" if k == v else "v"
        yield {
            "q": RoleMap(query, _two(transposed, "h k", "d")),
            "k": RoleMap(key, _two(transposed, "g k", axis), inp=_unless(axis, "d")),
            "v": RoleMap(value, _two(transposed, f"g {last}", axis), out=_unless(last, "k"),
                         inp=_unless(axis, "d")),
        }, v * (q // k), d  # fmt: skip


def _unless(axis: str, usual: str) -> str | None:
    return None if axis == usual else axis


def _two(transposed: bool, out: str, inp: str) -> str:
    return f"{inp} ({out})" if transposed else f"({out}) {inp}"


def _fused(one: _Proposal, transposed: bool) -> Iterator[tuple[dict[str, RoleMap], int, int]]:
    matrix = one.roles["qkv"]
    if one.heads is not None and len(matrix.shape) == 3:
        _, three, d = matrix.shape
        layout, inner = "h (three k) d", three // 3 * one.heads
    elif len(matrix.shape) == 2 and matrix.name.lower() not in _EITHER_ORDER:
        three, d = matrix.shape[::-1] if transposed else matrix.shape
        layout, inner = _two(transposed, "three h k", "d"), three // 3
    else:
        return
    if three % 3 == 0:
        yield {role: RoleMap(matrix, layout, {"three": at}) for at, role in enumerate("qkv")
               }, inner, d  # fmt: skip


def _half_fused(one: _Proposal, transposed: bool) -> Iterator[tuple[dict[str, RoleMap], int, int]]:
    query, both = one.roles["q"], one.roles["kv"]
    if len(query.shape) != 2 or len(both.shape) != 2:
        return
    (q, d), (two, c) = (m.shape[::-1] if transposed else m.shape for m in (query, both))
    axis = "d" if c == d else "c"
    if two == 2 * q:
        layout = _two(transposed, "two h k", axis)
        parts = {role: RoleMap(both, layout, {"two": at}, inp=_unless(axis, "d"))
                 for at, role in enumerate("kv")}  # fmt: skip
        yield {"q": RoleMap(query, _two(transposed, "h k", "d")), **parts}, q, d


_THREE = (("h d k", "h k d"), ("h k d", "h d k"), ("d h k", "h k d"))


def _by_heads(
    one: _Proposal, query: Matrix, key: Matrix, value: Matrix, widths: Counter[int]
) -> Iterator[tuple[dict[str, RoleMap], int, int]]:
    """Parameters with an axis of heads; which axis is the stream's is seen in other maps."""
    found = []
    for layout, _ in _THREE:
        if one.heads is not None and layout != "h k d":
            continue
        sizes = [dict(zip(layout.split(), matrix.shape, strict=True))
                 for matrix in (query, key, value)]  # fmt: skip
        q, k, v = sizes
        alike = q["d"] == k["d"] == v["d"] and q["k"] == k["k"] == v["k"]
        if alike and k["h"] == v["h"] and q["h"] % k["h"] == 0:
            grouped = layout.replace("h", "g")
            maps = {"q": RoleMap(query, layout), "k": RoleMap(key, grouped),
                    "v": RoleMap(value, grouped)}  # fmt: skip
            found.append((maps, q["h"] * q["k"], q["d"]))
    fitting = [one_ for one_ in found if any(_three_output(one_[0], m)
                                             for group in one.outputs for m in group)]  # fmt: skip
    kept = fitting or found
    if len(kept) > 1:
        most = max(widths[d] for _, _, d in kept)
        kept = [one_ for one_ in kept if widths[one_[2]] == most and most > 0]
    yield from kept


def _three_output(maps: Mapping[str, RoleMap], matrix: Matrix) -> RoleMap | None:
    """The output map with an axis of heads, or a plain one of the right shape."""
    layout = maps["q"].layout
    sizes = dict(zip(layout.split(), maps["q"].matrix.shape, strict=True))
    h, k, d = sizes["h"], sizes["k"], sizes["d"]
    if len(matrix.shape) == 3:
        for known, output in _THREE:
            expected = tuple(sizes[axis] for axis in output.split())
            if known == layout and matrix.shape == expected:
                return RoleMap(matrix, output)
        return None
    if matrix.shape == (d, h * k):
        # A module's weight is (out, in); a bare square one may be either.
        return RoleMap(matrix, "d (h k)") if matrix.joint or d != h * k else None
    return RoleMap(matrix, "(h k) d") if matrix.shape == (h * k, d) else None


def _output_map(
    one: _Proposal, maps: Mapping[str, RoleMap], inner: int, d: int, transposed: bool
) -> tuple[RoleMap | None, bool]:
    """The output map, and whether several fit equally well."""
    for near in one.outputs:
        if len(maps["q"].matrix.shape) == 3 and "three" not in maps["q"].layout:
            fitting = [role for m in near if (role := _three_output(maps, m))]
        else:
            last = maps["v"].out or "k"
            layout = f"(h {last}) d" if transposed else f"d (h {last})"
            shape = (inner, d) if transposed else (d, inner)
            fitting = [RoleMap(m, layout, inp=_unless(last, "k")) for m in near if m.shape == shape]
        if len(fitting) == 1:
            return fitting[0], False
        if fitting:
            return None, near is not one.outputs[-1]
    # A fused map that no output map bears out may hold anything.
    return None, "qkv" in one.roles
