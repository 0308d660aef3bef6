"""Layers that PEFT put around a model's own: taken out, their weights merged as they are read."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from flagscope.checkpoint.derived.tensor import DerivedTensor, LastTensor
from flagscope.errors import SourceError
from flagscope.live.structure import replace_children

_HINT = "merge it with PEFT (merge_and_unload) and scan the result."


class Merged:
    """A model without PEFT's layers, and how the weights come about that those change.

    Each layer is merged by itself. Where PEFT's merge writes into a tensor that another layer
    shares (an embedding and the head that is tied to it), the other keeps the base's weights here,
    with which the live model computes.

    Attributes
    ----------
    module
        The model, with the weights of its base.
    notes
        What was merged, and what was not looked at.
    """

    def __init__(self, module: nn.Module) -> None:
        self._layers: dict[int, tuple[nn.Module, Any]] = {}
        self._last = LastTensor()
        self.notes: list[str] = []
        self._unpacked = 0
        self._kept: list[str] = []
        self._whole: list[str] = []
        self._names: set[str] = set()
        module = replace_children(module, self._models(module))
        module = replace_children(module, self._exchange(module))
        left = next((n for n, one in module.named_modules() if _of_peft(one)), None)
        if left is not None:
            raise SourceError(
                f"the module {left or 'itself'!r} is a layer of PEFT that is not known.", hint=_HINT
            )
        self.module = module
        if self._names:
            names, count = ", ".join(sorted(self._names)), len(self._layers) + self._unpacked
            self.notes.append(f"{count} layers are merged with PEFT's adapters {names}")
        if self._whole:
            self.notes.append(
                f"{len(self._whole)} modules are those that PEFT's adapters trained whole, such as "
                f"{self._whole[0]}"
            )
        if self._kept:
            self.notes.append(
                f"adapters of {len(self._kept)} layers are not active and not merged, such as "
                f"{self._kept[0]}"
            )

    def derived(self) -> dict[str, DerivedTensor]:
        """The merged weights, by their names in the state dict of `module`."""
        found: dict[str, DerivedTensor] = {}
        for path, one in self.module.named_modules(remove_duplicate=False):
            if id(one) not in self._layers:
                continue
            base, layer = self._layers[id(one)]
            for name, tensor in base.state_dict(keep_vars=True).items():
                if isinstance(tensor, Tensor):
                    whole = f"{path}.{name}".lstrip(".")
                    compute = _merging(layer, name, whole)
                    found[whole] = DerivedTensor(whole, tensor, compute, self._last)
        return found

    def _models(self, module: nn.Module) -> dict[int, nn.Module]:
        """PEFT's classes around whole models, and the models in them."""
        exchange: dict[int, nn.Module] = {}
        for _, one in module.named_modules():
            kinds = _kinds(one)
            if kinds & {"PeftModel", "PeftMixedModel"}:
                base: Any = one._modules.get("base_model")
                settings: Any = getattr(one, "active_peft_config", None)
                if getattr(settings, "is_prompt_learning", False):
                    self.notes.append(
                        f"PEFT's {settings.peft_type.value} adds to the model's inputs or caches; "
                        "the model alone is measured"
                    )
                if base is not None:
                    exchange[id(one)] = base
            elif "BaseTuner" in kinds and isinstance(one._modules.get("model"), nn.Module):
                _allowed(one)
                exchange[id(one)] = one.model  # pyright: ignore[reportArgumentType]
        return exchange

    def _exchange(self, module: nn.Module) -> dict[int, nn.Module]:
        """PEFT's layers, and what they stand around."""
        exchange: dict[int, nn.Module] = {}
        inside: set[int] = set()
        for path, one in module.named_modules():
            if id(one) in inside or not _of_peft(one):
                continue
            layer: Any = one
            if hasattr(layer, "unload_and_optionally_merge_module"):
                exchange[id(one)] = self._unloaded(layer, path)
            elif "BaseTunerLayer" in _kinds(one) and hasattr(layer, "get_base_layer"):
                base = layer.get_base_layer()
                exchange[id(one)] = base
                active = _active(layer)
                if active:
                    self._layers[id(base)] = base, layer
                    self._names |= active
                else:
                    self._kept.append(path)
            else:
                continue
            inside |= {id(below) for below in one.modules()}
        return exchange

    def _unloaded(self, layer: Any, path: str) -> nn.Module:
        """What PEFT gives in place of a layer that knows itself how to be taken out."""
        if getattr(layer, "disable_adapters", False):
            self._kept.append(path)
            return getattr(layer, "original_module", None) or layer.get_base_layer()
        if "ModulesToSaveWrapper" in _kinds(layer) and not _adapted(layer):
            # Trained whole: its tensors are the weights, nothing has to be computed.
            (self._whole if layer.active_adapters else self._kept).append(path)
            return layer.unload_and_optionally_merge_module(False, False, None)
        self._unpacked += 1
        self._names |= {str(name) for name in layer.active_adapters}
        own = copy.deepcopy(layer)  # merging writes into the weights
        return _tried(lambda: own.unload_and_optionally_merge_module(True, False, None), path)


def _merging(layer: Any, name: str, path: str) -> Callable[[], Tensor]:
    def merged() -> Tensor:
        own = copy.deepcopy(layer)
        _tried(own.merge, path)
        return own.get_base_layer().state_dict()[name]

    return merged


def _allowed(tuner: Any) -> None:
    """PEFT's own checks whether this kind of adapter can be merged into this kind of model."""
    check = getattr(tuner, "_check_merge_allowed", None)
    if check is not None:
        _tried(check, type(tuner).__name__)


def _active(layer: Any) -> set[str]:
    """The adapters that a layer has and uses."""
    if layer.disable_adapters:
        return set()
    return set(layer.active_adapters) & set(layer._get_available_adapters())


def _tried(call: Callable[[], Any], path: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of adapters that are merged already
            return call()
    except Exception as error:  # PEFT raises many kinds
        raise SourceError(f"PEFT cannot merge {path!r}: {error}", hint=_HINT) from error


def _adapted(layer: Any) -> bool:
    """Whether a module that is trained whole holds an adapter again."""
    return any("BaseTunerLayer" in _kinds(one) for one in layer.modules())


def _of_peft(one: nn.Module) -> bool:
    return any(kind.__module__.partition(".")[0] == "peft" for kind in type(one).__mro__)


def _kinds(one: Any) -> set[str]:
    """Names of PEFT's classes that a module is of; PEFT need not be imported for that."""
    return {
        kind.__name__ for kind in type(one).__mro__ if kind.__module__.partition(".")[0] == "peft"
    }
