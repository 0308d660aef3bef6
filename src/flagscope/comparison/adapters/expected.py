"""The modules of a base that an adapter's settings target and its file has no factors for."""

from __future__ import annotations

from typing import Any

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.lora import AdapterWeights
from flagscope.comparison.adapters.targets import Target


def missing_modules(
    adapter: AdapterWeights, base: Checkpoint, targets: list[Target]
) -> tuple[list[str], list[str]]:
    """Such modules by the base's names, and what could not be decided, in words.

    Only lists of names are understood, as PEFT matches them: a whole name, or its end after a dot.
    A regular expression is not run.
    """
    settings = adapter.settings
    if not settings:
        return [], ["no settings say which modules the adapter should have"]
    wanted = _names(settings.get("target_modules"))
    excluded = _names(settings.get("exclude_modules")) if settings.get("exclude_modules") else ()
    if wanted is None or excluded is None or settings.get("layers_pattern"):
        return [], ["the settings name the target modules by a pattern, which was not run: whether "
                    "the file lacks any of them is not known"]  # fmt: skip
    layers = settings.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    present = {target.tensor for target in targets} | {t.module + ".weight" for t in targets}
    missing = []
    for name, info in base.tensors.items():
        module = name.removesuffix(".weight")
        if module == name or len(info.shape) < 2 or name in present or name in base.auxiliary:
            continue
        if not _matches(module, wanted) or _matches(module, excluded):
            continue
        if layers and _layer(module) not in layers:
            continue
        missing.append(module)
    # Where nothing of a kind is there the settings may mean another part of a larger model.
    kinds = {target.module.rpartition(".")[2] for target in targets}
    return [name for name in missing if name.rpartition(".")[2] in kinds], []


def _names(value: Any) -> tuple[str, ...] | None:
    """A list of names; None for a pattern, and for what is neither."""
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    return None


def _matches(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith("." + name) for name in names)


def _layer(module: str) -> int | None:
    number = next((part for part in module.split(".") if part.isdecimal()), None)
    return int(number) if number is not None and len(number) < 10 else None
