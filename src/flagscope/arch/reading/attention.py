"""Finds attention blocks in unknown models: queries, keys, values and the output map.

Names propose roles and shapes decide: a block is read only if its four maps fit each other in
exactly one way. Whether weights are stored as (out, in) or (in, out) is decided for all blocks of a
model together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flagscope.arch.reading.head_axes import by_heads, heads_output
from flagscope.arch.reading.modules import Module, by_parent
from flagscope.arch.reading.proposals import (
    AttentionBlock,
    Proposal,
    RoleMap,
    contradicted,
    output_candidates,
    proposal,
)
from flagscope.arch.reading.stacked_heads import stacked_heads

_CROSS = re.compile(r"cross|attn_?2|enc_?dec|encoder_attn|multihead_attn|inter_attn|src_attn")
# Fused maps with these names hold Q, K and V for each head in turn, or all Q first.
_EITHER_ORDER = ("query_key_value", "linear_qkv")

# Tables whose lengths differ from the stream's, and norms of queries or keys.
_NO_WIDTH = re.compile(r"bias|rotary|rope|alibi")
_OF_HEADS = re.compile(r"(?:^|[._])[qkv](?:_|$)|query|key|value|head")

OUTPUT_UNKNOWN = "attention without an output map that fits: its V-O pairs are not listed"
DISORDERED = (
    "attention left out: which of its maps are Q, K, V and O, and how they lie, does not follow "
    "from their names and shapes"
)
CONVOLVED = (
    "attention left out: a convolution or filter that is not read stands between its maps, or it "
    "is none"
)


@dataclass(frozen=True)
class AttentionReading:
    """Attention blocks as read.

    Attributes
    ----------
    blocks
        The blocks in the order of their tensors.
    stacked
        Matrices that combine several tensors, one per head: names with a star for the number.
    doubted
        What was not read, with its module.
    transposed
        Whether weights of modules are stored as (in, out); None if no block shows it.
    """

    blocks: tuple[AttentionBlock, ...]
    stacked: Mapping[str, tuple[str, ...]]
    doubted: tuple[tuple[str, str], ...]
    transposed: bool | None


def read_attention(root: Module, known: Mapping[str, int] | None = None) -> AttentionReading:
    """The attention blocks of a model; `known` holds sizes by axis from a config."""
    groups = by_parent(root.matrices)
    stacked = stacked_heads(groups)
    proposals = [candidate for parent, matrices in groups.items() if parent not in stacked.sources
                 if (candidate := proposal(parent, matrices, groups))]  # fmt: skip
    # The output map of heads is in the module that holds them, or above.
    proposals += [
        Proposal(
            block.parent,
            block.roles,
            output_candidates(block.parent, set(), groups)[:3],
            block.count,
        )
        for block in stacked.blocks
    ]
    taken = {matrix.tensor for candidate in proposals for matrix in candidate.roles.values()}
    sizes = _Sizes(_widths(root, taken), known or {})
    readings = [
        {style: _readings(candidate, style == "in, out", sizes) for style in ("out, in", "in, out")}
        for candidate in proposals
    ]
    styles = {bare: _common_style(proposals, readings, bare) for bare in (False, True)}
    blocks, doubted = [], []
    for candidate, reading in zip(proposals, readings, strict=True):
        if contradicted(candidate, root.at(candidate.parent)):
            doubted.append((CONVOLVED, candidate.parent))
            continue
        style = styles[_is_bare(candidate)]
        fitting = reading[style] if style else []
        if len(fitting) == 1:
            blocks.append(fitting[0])
            if "o" not in fitting[0].maps:
                doubted.append((OUTPUT_UNKNOWN, candidate.parent))
        else:
            doubted.append((DISORDERED, candidate.parent))
    used = {role.matrix.tensor for block in blocks for role in block.maps.values()}
    stacked_tensors = {name: parts for name, parts in stacked.tensors.items() if name in used}
    transposed = None if styles[False] is None else styles[False] == "in, out"
    return AttentionReading(tuple(blocks), stacked_tensors, tuple(doubted), transposed)


@dataclass(frozen=True)
class _Sizes:
    """Counts of each length outside of attention, and sizes by axis from a config."""

    widths: Counter[int]
    known: Mapping[str, int]


def _widths(root: Module, taken: set[str]) -> Counter[int]:
    """Counts of the lengths of maps and norms, without those of single heads."""
    widths = Counter(size for matrix in root.matrices if matrix.tensor not in taken
                     and not _NO_WIDTH.search(matrix.tensor.lower())
                     for size in set(matrix.shape))  # fmt: skip
    norms = (module for module in root.walk() if not _OF_HEADS.search(module.path.lower()))
    widths.update(length for norm in norms if (length := norm.vector))
    return widths


def _is_bare(candidate: Proposal) -> bool:
    return any(matrix.joint is None for matrix in candidate.roles.values())


def _common_style(
    proposals: Sequence[Proposal], readings: Sequence[Mapping[str, list[AttentionBlock]]],
    bare: bool,
) -> str | None:  # fmt: skip
    """Whether the weights of all blocks are stored as (in, out); None if that is open.

    Blocks that fit neither style do not vote. If both fit, the weight of a module is (out, in), as
    in torch's Linear; bare parameters have no usual style.
    """
    votes = [{style for style, blocks in reading.items() if blocks}
             for candidate, reading in zip(proposals, readings, strict=True)
             if _is_bare(candidate) == bare]  # fmt: skip
    votes = [vote for vote in votes if vote]
    common = set.intersection(*votes) if votes else set()
    if len(common) == 2:
        either = all(
            reading["out, in"] == reading["in, out"]
            for candidate, reading in zip(proposals, readings, strict=True)
            if _is_bare(candidate) == bare
        )  # fmt: skip
        return None if bare and not either else "out, in"
    return common.pop() if common else None


def _readings(candidate: Proposal, transposed: bool, sizes: _Sizes) -> list[AttentionBlock]:
    """The ways in which a block's maps fit each other, for weights as (in, out) or (out, in)."""
    # Matrices of single heads are weights of modules, which are (out, in).
    transposed = transposed and candidate.heads is None
    roles = list(_role_readings(candidate, transposed, sizes))
    blocks = []
    for maps, inner, d in roles:
        cross = maps["k"].layout.split()[-1] == "c" or maps["k"].layout.startswith("c ")
        cross = cross or _CROSS.search(candidate.parent.lower()) is not None
        output, doubtful = _output_map(candidate, maps, inner, d, transposed)
        if doubtful:
            continue
        every = {**maps, "o": output} if output else maps
        blocks.append(AttentionBlock(candidate.parent, every, cross, d))
    return blocks


def _role_readings(
    candidate: Proposal, transposed: bool, sizes: _Sizes
) -> Iterator[tuple[dict[str, RoleMap], int, int]]:
    """Yield Q, K and V, the input length of the output map, and the width of the stream."""
    if "qkv" in candidate.roles:
        yield from _fused(candidate, transposed)
        return
    if "kv" in candidate.roles:
        yield from _half_fused(candidate, transposed)
        return
    query, key, value = (candidate.roles[role] for role in "qkv")
    dimensions = {len(matrix.shape) for matrix in (query, key, value)}
    if dimensions == {3}:
        yield from by_heads(candidate, sizes.widths, sizes.known)
    elif dimensions == {2}:
        (q, d), (k, c), (v, e) = (
            one_.shape[::-1] if transposed else one_.shape for one_ in (query, key, value)
        )
        if c != e or q % k or (k != v and k * v == 0):
            return
        if transposed and c != d and query.joint == ".":
            return  # two widths and weights as (in, out): shapes alone do not determine them
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


def _fused(candidate: Proposal, transposed: bool) -> Iterator[tuple[dict[str, RoleMap], int, int]]:
    matrix = candidate.roles["qkv"]
    if candidate.heads is not None and len(matrix.shape) == 3:
        _, three, d = matrix.shape
        layout, inner = "h (three k) d", three // 3 * candidate.heads
    elif len(matrix.shape) == 2 and matrix.name.lower() not in _EITHER_ORDER:
        three, d = matrix.shape[::-1] if transposed else matrix.shape
        layout, inner = _two(transposed, "three h k", "d"), three // 3
    else:
        return
    if three % 3 == 0:
        yield {role: RoleMap(matrix, layout, {"three": index}) for index, role in enumerate("qkv")
               }, inner, d  # fmt: skip


def _half_fused(
    candidate: Proposal, transposed: bool
) -> Iterator[tuple[dict[str, RoleMap], int, int]]:
    query, key_value = candidate.roles["q"], candidate.roles["kv"]
    if len(query.shape) != 2 or len(key_value.shape) != 2:
        return
    (q, d), (two, c) = (m.shape[::-1] if transposed else m.shape for m in (query, key_value))
    axis = "d" if c == d else "c"
    if two == 2 * q:
        layout = _two(transposed, "two h k", axis)
        parts = {role: RoleMap(key_value, layout, {"two": index}, inp=_unless(axis, "d"))
                 for index, role in enumerate("kv")}  # fmt: skip
        yield {"q": RoleMap(query, _two(transposed, "h k", "d")), **parts}, q, d


def _output_map(
    candidate: Proposal, maps: Mapping[str, RoleMap], inner: int, d: int, transposed: bool
) -> tuple[RoleMap | None, bool]:
    """The output map, and whether several candidates fit equally well."""
    for near in candidate.outputs:
        if len(maps["q"].matrix.shape) == 3 and "three" not in maps["q"].layout:
            fitting = [role for m in near if (role := heads_output(maps, m))]
        else:
            last = maps["v"].out or "k"
            layout = f"(h {last}) d" if transposed else f"d (h {last})"
            shape = (inner, d) if transposed else (d, inner)
            fitting = [RoleMap(m, layout, inp=_unless(last, "k")) for m in near if m.shape == shape]
        if len(fitting) == 1:
            return fitting[0], False
        if fitting:
            return None, near is not candidate.outputs[-1]
    # A fused map without a matching output map may hold anything.
    return None, "qkv" in candidate.roles
