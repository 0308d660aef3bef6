"""Attention blocks among tensors of unknown names: queries, keys, values and the output map.

A name proposes a role, shapes dispose: a block is read only where the four maps fit each other in
one way. How weights lie, as (out, in) or (in, out), is decided for all blocks of a model together.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flagscope.arch.reading.modules import Matrix, Module, joined
from flagscope.arch.reading.words import is_output, may_be_output, role_of

_KEY_VALUE = re.compile(r"(?:to_?|w_?|c_?|in_?)?kv(?:_?(?:proj|linear|lin|attn))?")
_CROSS = re.compile(r"cross|attn_?2|enc_?dec|encoder_attn|multihead_attn|inter_attn|src_attn")
# Fused maps of this name hold Q, K and V for each head in turn (GPT-NeoX) or all Q first.
_EITHER_ORDER = "query_key_value"

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
    by_parent: dict[str, list[Matrix]] = defaultdict(list)
    for matrix in root.matrices:
        by_parent[matrix.parent].append(matrix)
    stacked = _stacked_heads(by_parent)
    single = {parent for parent, _ in stacked.sources}
    proposals = [one for parent, found in by_parent.items() if parent not in single
                 if (one := _proposal(parent, found, by_parent))]  # fmt: skip
    proposals += stacked.proposals(by_parent)
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
    parent: str, siblings: Sequence[Matrix], by_parent: Mapping[str, list[Matrix]]
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
    return _Proposal(parent, roles, _outputs(parent, set(roles.values()), by_parent))


def _outputs(
    parent: str, taken: set[Matrix], by_parent: Mapping[str, list[Matrix]]
) -> tuple[tuple[Matrix, ...], ...]:
    """Candidates for the output map: siblings so named, those below, those one level up, any."""
    siblings = [one for one in by_parent.get(parent, ()) if one not in taken]
    named = tuple(one for one in siblings if is_output(one.name))
    below = tuple(
        one for child in ("to_out", "out", "output", "out_proj", "proj", "o", "dense")
        for one in by_parent.get(joined(parent, child), ())
    )  # fmt: skip
    above_path, _, _ = parent.rpartition(".")
    above: list[Matrix] = []
    if parent:
        above = [one for one in by_parent.get(above_path, ()) if is_output(one.name)]
        for child in ("output", "out", "to_out", "proj"):
            above += by_parent.get(joined(above_path, child), ())
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
    elif len(matrix.shape) == 2 and matrix.name.lower() != _EITHER_ORDER:
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


@dataclass(frozen=True)
class _Stacked:
    """Heads that are modules of their own, as matrices of all of them."""

    tensors: Mapping[str, tuple[str, ...]]
    sources: frozenset[tuple[str, str]]
    groups: tuple[tuple[str, Mapping[str, Matrix], int], ...]

    def proposals(self, by_parent: Mapping[str, list[Matrix]]) -> list[_Proposal]:
        """What they propose: the output map lies in the module that holds the heads, or above."""
        found = []
        for parent, roles, count in self.groups:
            outputs = _outputs(parent, set(), by_parent)
            found.append(_Proposal(parent, roles, outputs[:3], count))
        return found


def _stacked_heads(by_parent: Mapping[str, list[Matrix]]) -> _Stacked:
    """Lists of modules of one head each, with the output map of all of them beside the list.

    Two forms: ``heads.3.query`` and ``queries.3``. A list whose maps are square, or beside which no
    output map of the right shape stands, is a list of layers or of something else.
    """
    lists: dict[tuple[str, str], dict[int, dict[str, Matrix]]] = defaultdict(dict)
    for parent, matrices in by_parent.items():
        match = re.fullmatch(r"(?:(?P<over>.*)\.)?(?P<stem>\w*?)(?P<joint>[._]?)(?P<n>\d+)", parent)
        if match is None:
            continue
        roles = {role: m for m in matrices if (role := role_of(m.name)) and len(m.shape) == 2}
        if {"q", "k", "v"} <= set(roles) or "qkv" in roles:
            lists[match["over"] or "", match["stem"]][int(match["n"])] = roles
    for parent, matrices in by_parent.items():
        over, _, name = parent.rpartition(".")
        role = role_of(name)
        if role in ("q", "k", "v") and all(m.name.isdigit() for m in matrices):
            for m in matrices:
                lists[over, "*"].setdefault(int(m.name), {})[role] = m
    tensors: dict[str, tuple[str, ...]] = {}
    sources: set[tuple[str, str]] = set()
    groups = []
    for (over, stem), heads in lists.items():
        found = _one_stack(over, stem, heads, by_parent)
        if found is not None:
            parent, roles, parts = found
            groups.append((parent, roles, len(heads)))
            tensors |= parts
            sources |= {(m.parent, m.tensor) for one in heads.values() for m in one.values()}
    return _Stacked(tensors, frozenset(sources), tuple(groups))


def _one_stack(
    over: str, stem: str, heads: Mapping[int, Mapping[str, Matrix]],
    by_parent: Mapping[str, list[Matrix]],
) -> tuple[str, dict[str, Matrix], dict[str, tuple[str, ...]]] | None:  # fmt: skip
    count = len(heads)
    wanted = set(heads[min(heads)])
    fused = "qkv" in wanted and not {"q", "k", "v"} <= wanted
    names = ("qkv",) if fused else ("q", "k", "v")
    if set(heads) != set(range(count)) or not all(set(names) <= set(h) for h in heads.values()):
        return None
    first = heads[0]
    if any({h[n].shape for h in heads.values()} != {first[n].shape} for n in names):
        return None
    rows, d = first[names[0]].shape
    k = rows // 3 if fused else rows
    # Where the list is the module of attention itself, its output map stands in it; where it is a
    # part of that ("att.heads.3"), one level up.
    plain = stem == "*" or bool(stem)
    parent = over if plain else over.rpartition(".")[0]
    near = [m for place in dict.fromkeys((over, parent)) for m in by_parent.get(place, ())
            if m.shape == (d, count * k) and is_output(m.name)]  # fmt: skip
    if k >= d or len(near) != 1:
        return None
    parent = near[0].parent
    roles, parts = {}, {}
    for name in names:
        template = first[name]
        tensor = _starred([h[name].tensor for h in heads.values()])
        parts[tensor] = tuple(heads[at][name].tensor for at in range(count))
        roles[name] = replace(
            template, parent=parent, name=tensor.removeprefix(f"{parent}." if parent else ""),
            tensor=tensor, shape=(count, *template.shape), bias=None, joint=None,
        )  # fmt: skip
    return parent, roles, parts


def _starred(names: Sequence[str]) -> str:
    """One name for several that differ in a number: that number is a star."""
    pieces = [re.split(r"(\d+)", name) for name in names]
    return "".join(
        column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True)
    )


def used_tensors(blocks: Iterable[AttentionBlock]) -> set[str]:
    """Names of the tensors in these blocks."""
    return {role.matrix.tensor for block in blocks for role in block.maps.values()}
