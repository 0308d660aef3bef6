"""The tensors of base and merged model that belong to each module of an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.lora import AdapterWeights, Factors, TargetNames

Fit = Literal["matched", "no_target", "shape_mismatch", "unusable", "not_replayed"]


@dataclass(frozen=True)
class Target:
    """A module of an adapter and the base's tensor that it would change.

    Attributes
    ----------
    module
        Its name in the adapter.
    factors
        None where they are unusable.
    tensor
        The base's tensor; None where none fits.
    status, detail
        Whether it fits, and why not.
    """

    module: str
    factors: Factors | None
    tensor: str | None
    status: Fit
    detail: str = ""


def adapter_targets(adapter: AdapterWeights, base: Checkpoint) -> list[Target]:
    """The base's tensor of every module of an adapter, in the order of its file."""
    names = target_names(base)
    targets, taken = [], set()
    for factors in adapter.factors.values():
        target = _target(factors, base, names)
        if target.tensor in taken and target.status == "matched":
            target = Target(
                factors.module, factors, target.tensor, "unusable",
                "another module of the adapter belongs to the same tensor",
            )  # fmt: skip
        taken.add(target.tensor)
        targets.append(target)
    reasons = {
        "incomplete": "the file has only one of A and B",
        "repeated": "the file has several factors for it",
        "shapes": "the factors have no product, or rank 0",
        "core": "a third factor stands between the two",
    }
    for module in adapter.unusable:
        tensor = names.found(module.module + ".weight")
        detail = f"{reasons[module.reason]}: {', '.join(module.names)}"
        targets.append(Target(module.module, None, tensor, "unusable", detail))
    return targets


def target_names(model: Checkpoint) -> TargetNames:
    """Names of a model's tensors that an adapter may change: not those that scale others."""
    return TargetNames(name for name in model.tensors if name not in model.auxiliary)


def merged_name(name: str, names: TargetNames) -> str | None:
    """The merged model's name of a tensor, where PEFT's wrappers may still be in it."""
    stem, _, last = name.rpartition(".")
    found = names.found(name)
    return found if found is not None else names.found(f"{stem}.base_layer.{last}")


def _target(factors: Factors, base: Checkpoint, names: TargetNames) -> Target:
    tensor = names.found(factors.target)
    if tensor is None:
        inside = next((n for n in base.tensors if f".{factors.module}." in f".{n}"), None)
        if inside is not None:
            return Target(
                factors.module, factors, None, "not_replayed",
                f"the base has {inside} under this module and no weight: parameters of experts "
                "and packed projections are not replayed",
            )  # fmt: skip
        return Target(factors.module, factors, None, "no_target", "no tensor has this name")
    shape = base.tensors[tensor].shape
    if factors.shape != shape:
        return Target(
            factors.module, factors, tensor, "shape_mismatch",
            f"the change has shape {factors.shape}, the tensor {shape}",
        )  # fmt: skip
    return Target(factors.module, factors, tensor, "matched")
