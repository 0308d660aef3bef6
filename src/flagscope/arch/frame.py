"""The residual stream of a stack of RMSNorm blocks, with all its readers and writers.

RMSNorm without its gain commutes with rotations of the stream, so the stream has no preferred
basis once the gains are folded into the readers (SliceGPT, arXiv 2401.15024; QuaRot, 2404.00456).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from flagscope.arch.config_values import config_entry
from flagscope.arch.graph import Frame, PairGroup
from flagscope.arch.maps import LinearMap, solved_map
from flagscope.arch.norm import Norm
from flagscope.arch.norm_finder import stream_norm
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import FrameRule


@dataclass(frozen=True)
class Block:
    """The pairs of one attention or MLP block, and the norm before it."""

    norm: Norm | None
    pairs: tuple[PairGroup, ...]

    def readers(self) -> tuple[LinearMap, ...]:
        """Maps that read the stream: queries, keys, values, up and gate."""
        maps = [pair.write.map for pair in self.pairs]
        maps += [pair.read.map for pair in self.pairs if pair.kind == "qk"]
        return _distinct(maps)

    def writers(self) -> tuple[LinearMap, ...]:
        """Maps that add to the stream: attention output and down."""
        return _distinct(pair.read.map for pair in self.pairs if pair.kind != "qk")


def stream_frame(
    rule: FrameRule, blocks: Sequence[Block], outside: RuleContext, ignored: Sequence[str]
) -> Frame | None:
    """The frame of a stack, or None if its stream may not be rotated.

    It may not if a norm before a block is missing or centres, if the model ends without an
    unembedding (its output is the stream itself), or if the checkpoint holds a tensor that is not
    accounted for and might touch the stream.
    """
    last = stream_norm(rule.norm, outside)
    embedding = _map("embedding", rule.embedding, outside.base, outside, out="d", inp="v")
    ends = _unembedding(rule, outside)
    norms = [block.norm for block in blocks]
    usable = all(norm is not None and _turns(norm) for norm in (*norms, last))
    if not usable or embedding is None or ends is None or last is None:
        return None
    unembedding, tied = ends
    pairs = [(block.norm, block.readers()) for block in blocks if block.norm is not None]
    frame = Frame(
        stack=outside.stack, d=embedding.outputs, embedding=embedding, unembedding=unembedding,
        tied=tied, norms=(*pairs, (last, (unembedding,))),
        writers=_distinct(writer for block in blocks for writer in block.writers()),
    )  # fmt: skip
    known = _tensors(frame, blocks)
    strange = [name for name in outside.shapes if name not in known
               and not any(fnmatchcase(name, pattern) for pattern in ignored)]  # fmt: skip
    return None if strange or not _fits(frame) else frame


def _turns(norm: Norm) -> bool:
    return norm.kind == "rmsnorm" and norm.placement == "pre" and norm.bias is None


def _map(
    role: str, modules: Sequence[str], base: str, context: RuleContext, *, out: str, inp: str
) -> LinearMap | None:
    for module in modules:
        name, bias = f"{base}{module}.weight", f"{base}{module}.bias"
        shape = context.shapes.get(name)
        if shape is not None and len(shape) == 2:
            return solved_map(role=role, tensor=name, shape=shape, layout="v d", out=out, inp=inp,
                              bias=bias if bias in context.shapes else None)  # fmt: skip
    return None


def _unembedding(rule: FrameRule, context: RuleContext) -> tuple[LinearMap, bool] | None:
    """The unembedding; if tied to the embedding, under the name that it would have."""
    if not context.base.endswith(rule.root):
        return None
    base = context.base.removesuffix(rule.root)
    own = _map("unembedding", rule.unembedding, base, context, out="v", inp="d")
    if own is not None:
        return own, False
    entry = config_entry(context.config, rule.tied)
    embedding = _map("unembedding", rule.embedding, context.base, context, out="v", inp="d")
    if entry is None or entry[1] is not True or embedding is None:
        return None
    return solved_map(
        role="unembedding", tensor=f"{base}{rule.unembedding[0]}.weight", shape=embedding.shape,
        layout="v d", out="v", inp="d",
    ), True  # fmt: skip


def _fits(frame: Frame) -> bool:
    readers = [reader for _, maps in frame.norms for reader in maps]
    return all(map_.inputs == frame.d for map_ in readers) and all(
        map_.outputs == frame.d for map_ in frame.writers
    )


def _tensors(frame: Frame, blocks: Sequence[Block]) -> set[str]:
    maps = [frame.embedding, *frame.writers, *(map_ for _, maps in frame.norms for map_ in maps)]
    norms = [norm for norm, _ in frame.norms]
    norms += [norm for block in blocks for pair in block.pairs
              for norm in (pair.query_norm, pair.key_norm) if norm is not None]  # fmt: skip
    names = {name for map_ in maps for name in (map_.tensor, map_.bias)}
    names |= {name for norm in norms for name in (norm.gain, norm.bias)}
    return {name for name in names if name is not None}


def _distinct(maps: Iterable[LinearMap]) -> tuple[LinearMap, ...]:
    distinct: list[LinearMap] = []
    for map_ in maps:
        if map_ not in distinct:
            distinct.append(map_)
    return tuple(distinct)
