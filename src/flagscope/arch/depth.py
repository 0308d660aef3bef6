"""Compares the number of layers in a checkpoint with its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flagscope.arch.config_values import config_entry
from flagscope.arch.family_match import Choice, Instance
from flagscope.arch.rule_context import Shapes

_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# For models of two stacks; in T5, both have the same number if the second is not given.
_OF_STACK = {
    "encoder": ("encoder_layers", "num_encoder_layers", "num_layers", "num_hidden_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers", "num_layers"),
}
# Layers that predict further tokens follow the last one of the stream.
_BEHIND = ("num_nextn_predict_layers",)


def depth_note(instance: Instance, choice: Choice) -> str | None:
    """Note on a stack whose number of layers differs from the config; None if they agree.

    Only the largest stack of each rule is compared, and only if one number counts its layers.

    Examples
    --------
    >>> from flagscope.arch import build_graph
    >>> shapes = {f"h.{i}.{name}.weight": (8, 8) for i in range(2)
    ...           for name in ("mlp.c_fc", "mlp.c_proj", "attn.c_proj")}
    >>> build_graph(shapes, {"model_type": "gpt2", "n_layer": 3}).notes[0]
    "the config says 3 layers (n_layer), and 2 are in this checkpoint under 'h.'"
    """
    if any(len(numbers) != 1 for numbers in instance.numbers):
        return None
    alike = [other for other in choice.instances if other.rule.name == instance.rule.name]
    if instance is not max(alike, key=lambda other: len(other.numbers)):
        return None
    several = len(choice.family.stacks) > 1
    keys = _OF_STACK.get(instance.rule.name, ()) if several else _KEYS
    keys = (*(f"{instance.rule.name}_config.{key}" for key in _KEYS), *keys)
    present = [numbers[0] for numbers in instance.numbers]
    where = instance.prefix + instance.path.partition("{")[0]
    return _note(present, where, keys, choice.config)


def named_depth_note(shapes: Shapes, config: Mapping[str, Any] | None) -> str | None:
    """`depth_note` without a known family, if exactly one list counts the layers.

    Examples
    --------
    >>> named_depth_note({"blocks.0.mix.weight": (4, 4)}, {"n_layer": 2})
    "the config says 2 layers (n_layer), and 1 is in this checkpoint under 'blocks.'"
    """
    lists: dict[str, set[int]] = {}
    for name in shapes:
        parts = name.split(".")
        index = next(
            (i for i, part in enumerate(parts) if part.isascii() and part.isdecimal()), None
        )
        if index is not None and len(parts[index]) < 7:
            lists.setdefault(".".join(parts[:index]), set()).add(int(parts[index]))
    if len(lists) != 1:
        return None
    ((where, present),) = lists.items()
    return _note(sorted(present), f"{where}." if where else "", _KEYS, config)


def _note(
    present: Sequence[int], where: str, keys: Sequence[str], config: Mapping[str, Any] | None
) -> str | None:
    entry = config_entry(config, keys)
    if entry is None or isinstance(entry[1], bool) or not isinstance(entry[1], int):
        return None
    key, said = entry
    behind = config_entry(config, _BEHIND)
    here, most = len(present), max(present) + 1
    more = most - said
    if most == said or (behind is not None and behind[1] == more):
        return None
    layers = "1 layer" if said == 1 else f"{said} layers"
    text = f"the config says {layers} ({key}), and {here} {'is' if here == 1 else 'are'} in "
    text += f"this checkpoint under {where!r}"
    return text if more < 0 else f"{text}: do config and weights belong together?"
