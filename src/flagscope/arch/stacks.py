"""Applies a family's rules to each layer of each stack of a checkpoint, and to its sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from flagscope.arch.attention import attention_groups, attention_label
from flagscope.arch.blocks import Part, stack_streams
from flagscope.arch.config_values import Known, known_sizes
from flagscope.arch.depth import depth_note
from flagscope.arch.family_match import Choice, Instance, layer_base
from flagscope.arch.frame import Block, stream_frame
from flagscope.arch.graph import Frame, HeadGroup, PairGroup
from flagscope.arch.latent import latent_groups
from flagscope.arch.map_solver import Solved
from flagscope.arch.mlp import mlp_groups
from flagscope.arch.norm_finder import stream_norm
from flagscope.arch.notes import Notes
from flagscope.arch.rule_context import RuleContext, Shapes, attempted
from flagscope.arch.rules import StackRule
from flagscope.arch.sequence import sequence_groups
from flagscope.arch.series import series_groups
from flagscope.arch.stream import Stream

# Most gaps between layers that a note lists.
_MOST_GAPS = 20
# Buffers of two or more dimensions that are not weight matrices.
BUFFERS = ("*position_ids", "*inv_freq", "*num_batches_tracked", "*token_type_ids", "*.mask",
           "*.causal_mask", "*.attn_mask", "*.tril", "*.triu")  # fmt: skip


class StackBuilder:
    """Applies a family's rules to each layer of each stack."""

    def __init__(
        self,
        shapes: Shapes,
        config: Mapping[str, Any] | None,
        choice: Choice,
        known: Mapping[str, Known],
        notes: Notes,
        heads: int | None,
        *,
        residual: bool,
    ) -> None:
        self.shapes, self.config, self.choice = shapes, config, choice
        self.known, self.notes = known, notes
        self.heads, self.residual = heads, residual
        self.several = len(choice.instances) > 1
        self.frames: list[Frame] = []
        self.streams: list[Stream] = []
        self.solved: Solved = {}

    def build(self) -> tuple[list[PairGroup], list[HeadGroup]]:
        """Build pairs and head spaces; afterwards, attributes hold the streams and frames."""
        pairs: list[PairGroup] = []
        heads: list[HeadGroup] = []
        for instance in self.choice.instances:
            self._note_gaps(instance)
            self._note_defaults(instance.rule)
            contexts = [self._context(instance, i) for i in range(len(instance.numbers))]
            parts: list[Part] = []
            for context, numbers in zip(contexts, instance.numbers, strict=True):
                for rule in instance.rule.attention:
                    build = partial(attention_groups, rule, context)
                    block_pairs, spaces = attempted(build, ([], []), context)
                    pairs += block_pairs
                    heads += spaces
                    label = attention_label(rule, context)
                    parts.append(
                        Part(rule, context, numbers[:-1], label, tuple(block_pairs), tuple(spaces))
                    )
                for rule in instance.rule.latent:
                    pairs += attempted(partial(latent_groups, rule, context), [], context)
                for rule in instance.rule.mlp:
                    block_pairs = attempted(partial(mlp_groups, rule, context), [], context)
                    pairs += block_pairs
                    label = f"{context.label}.{rule.name}"
                    parts.append(Part(rule, context, numbers[:-1], label, tuple(block_pairs)))
            if instance.rule.sequence:
                pairs += sequence_groups(instance.rule, contexts, self._outside(instance))
            self._follow_stream(instance, parts)
        root = RuleContext(
            shapes=self.shapes, base="", label="main", stack="main", layer=None,
            config=self.config, notes=self.notes, trusted=self.choice.trusted,
        )  # fmt: skip
        return pairs + series_groups(self.choice.family.sequences, root), heads

    def _follow_stream(self, instance: Instance, parts: list[Part]) -> None:
        outside = self._outside(instance)
        self.streams += stack_streams(instance.rule, parts, outside, noted=self.residual)
        if instance.rule.frame is not None and not self.several and self.choice.trusted:
            ignored = (*BUFFERS, *self.choice.family.ignore)
            blocks = [
                Block(stream_norm(part.rule.norm, part.context), part.pairs) for part in parts
            ]
            frame = stream_frame(instance.rule.frame, blocks, outside, ignored)
            self.frames += [frame] if frame else []

    def _stack_name(self, instance: Instance) -> str:
        alike = sum(other.rule.name == instance.rule.name for other in self.choice.instances)
        return (
            instance.rule.name if alike == 1 else instance.prefix.rstrip(".") or instance.rule.name
        )

    def _context(self, instance: Instance, position: int) -> RuleContext:
        numbers = instance.numbers[position]
        base = layer_base(instance, numbers)
        single = len(numbers) == 1
        stack = self._stack_name(instance)
        label = f"layer.{numbers[0]}" if single else base.rstrip(".")
        if not numbers:  # a single layer
            label = stack
        elif self.several:
            label = f"{stack}.{label}"
        return RuleContext(
            shapes=self.shapes, base=base, label=label,
            stack=stack, layer=numbers[0] if single else position,
            known={axis: size.at(numbers[0] if numbers else 0)
                   for axis, size in self._sizes(instance.rule).items()},
            config=self.config, notes=self.notes, trusted=self.choice.trusted,
            norms=instance.rule.norms_shown, solved=self.solved,
        )  # fmt: skip

    def _sizes(self, rule: StackRule) -> dict[str, Known]:
        own = known_sizes(rule.sizes, self.config, None)
        heads = {"h": self.known["h"]} if self.heads and "h" in self.known else {}
        return {**self.known, **own, **heads}

    def _outside(self, instance: Instance) -> RuleContext:
        stack = self._stack_name(instance)
        return RuleContext(
            shapes=self.shapes, base=instance.prefix, label=stack, stack=stack, layer=None,
            known=self.known, config=self.config, notes=self.notes, trusted=self.choice.trusted,
            norms=instance.rule.norms_shown,
        )  # fmt: skip

    def _note_gaps(self, instance: Instance) -> None:
        if len(instance.numbers[0]) == 1:
            absent = missing_numbers([numbers[0] for numbers in instance.numbers])
            if absent:
                self.notes.add(
                    f"layers {absent} are missing under {instance.prefix + instance.path!r}"
                )
        if (note := depth_note(instance, self.choice)) is not None:
            self.notes.add(note)

    def _note_defaults(self, rule: StackRule) -> None:
        if self.config or not self.choice.trusted:
            return
        for block in rule.attention:
            if block.rotary:
                self.notes.add(
                    f"without a config the rotary embedding ({block.rotary.layout}) is taken to "
                    f"turn the fraction {block.rotary.fraction.default} of each head"
                )
        if rule.parallel.config and self.residual:
            order = "in parallel" if rule.parallel.default else "one behind the other"
            self.notes.add(f"without a config attention and MLP are taken to run {order}")
        for block in rule.mlp:
            self.notes.add(f"without a config the activation is taken as "
                           f"{block.activation.default!r}")  # fmt: skip


def missing_numbers(present: Sequence[int]) -> str:
    """The numbers missing from 0 to the largest; runs of three or more are given by their ends.

    The loop is over gaps only, since a number in a file may have any size.

    Examples
    --------
    >>> missing_numbers([0, 3, 10**8]), missing_numbers([2]), missing_numbers([0, 1])
    ('[1, 2, 4 to 99999999]', '[0, 1]', '')
    """
    runs: list[str] = []
    for before, after in pairwise([-1, *sorted(set(present))]):
        first, last = before + 1, after - 1
        if last - first > 1:
            runs.append(f"{first} to {last}")
        else:
            runs += [str(number) for number in range(first, last + 1)]
    more = [f"{len(runs) - _MOST_GAPS} more gaps"] if len(runs) > _MOST_GAPS else []
    return f"[{', '.join([*runs[:_MOST_GAPS], *more])}]" if runs else ""
