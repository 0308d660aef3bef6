"""Modules outside of the layers that a checkpoint of a family holds, as its config implies."""

from __future__ import annotations

from flagscope.arch.config_values import config_entry
from flagscope.arch.family_match import Choice, Instance
from flagscope.arch.graph import Outside
from flagscope.arch.rules import FrameRule

# Classes of transformers whose last layer is the unembedding.
_WITH_UNEMBEDDING = ("ForCausalLM", "LMHeadModel")


def outside_modules(choice: Choice) -> tuple[Outside, ...]:
    """What the family of the config's own model type holds besides its layers.

    Nothing where the family was found by names, or named by the user: what else such a model holds
    is not known. An unembedding is among it only where the config says that it is not tied to the
    embedding, and names a class that has one, and where the names are those of such a class.
    """
    model_type = (choice.config or {}).get("model_type")
    if model_type not in choice.family.model_types:
        return ()
    found: dict[tuple[str, ...], Outside] = {}
    for instance in choice.instances:
        for names in instance.rule.outside:
            modules = tuple(instance.prefix + name for name in names.split("|"))
            found.setdefault(modules, Outside(modules, f"model_type = {model_type}"))
        if instance.rule.frame is not None:
            head = _unembedding(instance, instance.rule.frame, choice)
            if head is not None:
                found.setdefault(head.modules, head)
    return tuple(found.values())


def _unembedding(instance: Instance, rule: FrameRule, choice: Choice) -> Outside | None:
    tied = config_entry(choice.config, rule.tied)
    names = (choice.config or {}).get("architectures")
    if tied is None or tied[1] is not False or not isinstance(names, list) or not names:
        return None
    wrapped = bool(rule.root) and instance.prefix.endswith(rule.root)
    if not wrapped or not str(names[0]).endswith(_WITH_UNEMBEDDING):
        return None
    base = instance.prefix.removesuffix(rule.root)
    return Outside(tuple(base + name for name in rule.unembedding), f"{tied[0]} = false")
