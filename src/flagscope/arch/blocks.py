"""Builds the sub-blocks and residual streams of a stack from the maps that its rules found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from flagscope.arch.config_values import config_entry, config_truth
from flagscope.arch.graph import HeadGroup, PairGroup
from flagscope.arch.norm import Norm
from flagscope.arch.norm_finder import layer_scale, stream_norm
from flagscope.arch.pair_side import Side
from flagscope.arch.rule_context import RuleContext
from flagscope.arch.rules import AttentionRule, MlpRule, StackRule
from flagscope.arch.stream import Stream, StreamMap, SubBlock
from flagscope.records import Attention

POST_NORM = (
    "no residual pairs: each norm comes after the sum (post-norm), so the skip connection passes "
    "through its gain too, and folding the gain into the readers alone would change the function; "
    "so no links from head to head either"
)
NORM_UNKNOWN = (
    "no residual pairs: it is not known which norm lies between the residual stream and all that "
    "reads it"
)
_PARTNERS = {"q": "k", "k": "q", "v": "o", "o": "v"}
ORDER_UNKNOWN = (
    "attention and MLP of a layer may both read the stream as it enters the layer: nothing is "
    "listed along the stream between the two of one layer. In a family file, parallel = false says "
    "that the MLP follows"
)
EXPERTS = "experts are left out of the residual pairs"


@dataclass(frozen=True)
class Part:
    """The maps that one attention or MLP rule found in one layer."""

    rule: AttentionRule | MlpRule
    context: RuleContext
    stage: tuple[int, ...]
    label: str
    pairs: tuple[PairGroup, ...]
    heads: tuple[HeadGroup, ...] = ()


class _NoStreamError(Exception):
    """Raised, with the reason, if the readers of a stack's stream are not known."""


def stack_streams(
    rule: StackRule, parts: Sequence[Part], outside: RuleContext, *, noted: bool
) -> tuple[Stream, ...]:
    """The residual streams of a stack: one for each stage, none if a norm is not known.

    Parameters
    ----------
    rule
        The stack.
    parts
        Maps found, layer by layer in the order of execution.
    outside
        Context outside of the layers, which takes notes.
    noted
        Whether to note why there is no stream, or which blocks are left out of it.
    """
    depth = config_entry(outside.config, rule.depth)
    faced = [
        part for part in parts
        if part.pairs and not _mixes_tokens(part.rule)
        and (depth is None or (part.context.layer or 0) < depth[1])
    ]  # fmt: skip
    if not faced or not (outside.trusted or outside.norms):
        return ()
    try:
        blocks = list(_sub_blocks(rule, faced))
    except _NoStreamError as reason:
        if noted:
            outside.notes.add(str(reason), outside.label)
        return ()
    open_order = rule.norms_shown and config_truth(rule.parallel, outside.config)
    if noted and open_order and not outside.trusted and blocks:
        outside.notes.add(ORDER_UNKNOWN, outside.label)
    if noted and any(isinstance(part.rule, MlpRule) and part.rule.experts for part in faced):
        outside.notes.add(EXPERTS, outside.label)
    streams = []
    for (_, d), group in groupby(blocks, key=lambda entry: (entry[0], entry[1])):
        streams.append(Stream(outside.stack, d, tuple(block for _, _, block in group)))
    return tuple(stream for stream in streams if len(stream.blocks) > 1)


def _mixes_tokens(rule: AttentionRule | MlpRule) -> bool:
    return isinstance(rule, MlpRule) and rule.mixes_tokens


def _sub_blocks(
    rule: StackRule, parts: Sequence[Part]
) -> Iterator[tuple[tuple[int, ...], int, SubBlock]]:
    """Yield (stage, dimension, sub-block) in the order of execution."""
    parallel = config_truth(rule.parallel, parts[0].context.config)
    position = -1
    for _, layer in groupby(parts, key=lambda part: part.context.base):
        attended = False
        for together in _together(layer):
            first = together[0]
            attention = isinstance(first.rule, AttentionRule)
            position += 0 if parallel and attended and not attention else 1
            attended = attended or attention
            block = _sub_block(together, position)
            if block.readers or block.writers:
                yield first.stage, _dimension(block), block


def _together(layer: Iterable[Part]) -> list[list[Part]]:
    """Group the parts of a layer by sub-block: all MLPs, or one attention in several spaces."""
    sub_blocks: list[list[Part]] = []
    for part in layer:
        last = sub_blocks[-1][-1].rule if sub_blocks else None
        if isinstance(part.rule, MlpRule):
            joins = isinstance(last, MlpRule)
        else:
            joins = isinstance(last, AttentionRule) and bool(part.rule.name)
        if joins:
            sub_blocks[-1].append(part)
        else:
            sub_blocks.append([part])
    return sub_blocks


def _sub_block(parts: Sequence[Part], position: int) -> SubBlock:
    readers: list[StreamMap] = []
    writers: list[StreamMap] = []
    kind: Attention | None = None
    for part in parts:
        norm = _reader_norm(part)
        behind = stream_norm(part.rule.output_norm, part.context) or layer_scale(
            part.rule.output_scale, part.context
        )
        if isinstance(part.rule, AttentionRule):
            kind = "cross" if part.rule.kind == "cross" else "self"
            faces = list(_attention_maps(part, part.rule, norm, behind))
        else:
            faces = [] if part.rule.experts else list(_mlp_maps(part, norm, behind))
        for face in faces:
            side = writers if face.role in ("o", "down") else readers
            if all(other.joined != face.joined for other in side):
                side.append(face)
    context = parts[0].context
    return SubBlock(
        stack=context.stack, layer=context.layer or 0, kind="attention" if kind else "mlp",
        attention=kind, position=position, readers=tuple(readers), writers=tuple(writers),
    )  # fmt: skip


def _attention_maps(
    part: Part, rule: AttentionRule, norm: Norm | None, behind: Norm | None
) -> Iterator[StreamMap]:
    maps = {head.space: head.map for head in part.heads}
    for head in part.heads:
        label, partner = f"{part.label}.{head.space}", maps.get(_PARTNERS[head.space])
        inner = norm if rule.kind == "self" else None  # in cross-attention, k and v read elsewhere
        if head.space == "o":
            joined = Side(head.map.joined("read"))
            yield StreamMap(label, "o", joined, head.map, behind, partner, inner)
        elif rule.kind == "self" or head.space == "q":
            joined, beside = Side(head.map.joined("write")), behind if head.space == "v" else inner
            yield StreamMap(label, head.space, joined, head.map, norm, partner, beside)
    for name, map_rule in rule.reads.items():
        place = part.context.locate(map_rule)
        maps = part.context.solve([place]) if place is not None else None
        if maps is not None:
            (map_,) = maps.values()
            heads = map_ if map_.batch else None
            yield StreamMap(f"{part.label}.{name}", map_.role, Side(map_.joined("write")), heads,
                            norm)  # fmt: skip


def _mlp_maps(part: Part, norm: Norm | None, behind: Norm | None) -> Iterator[StreamMap]:
    for pair in part.pairs:
        for side, beside in ((pair.write, norm), (pair.read, behind)):
            label, role = f"{part.label}.{side.map.role}", side.map.role
            yield StreamMap(label, role, side, None, beside)


def _reader_norm(part: Part) -> Norm | None:
    """The norm of the stream before a block's readers; None if they read the bare stream."""
    rule = part.rule.norm
    if part.rule.bare or (rule is not None and rule.not_first and part.context.layer == 0):
        return None
    norm = stream_norm(rule, part.context)
    if norm is not None and norm.placement == "post":
        raise _NoStreamError(POST_NORM)
    if norm is None or norm.placement != "pre":
        raise _NoStreamError(NORM_UNKNOWN)
    return norm


def _dimension(block: SubBlock) -> int:
    sizes = {face.joined.dimension("read") for face in block.readers}
    sizes |= {face.joined.dimension("write") for face in block.writers}
    if len(sizes) > 1:
        raise _NoStreamError("no residual pairs: the maps of a block read and write streams of "
                             f"different dimensions: {sorted(sizes)}")  # fmt: skip
    return sizes.pop()
