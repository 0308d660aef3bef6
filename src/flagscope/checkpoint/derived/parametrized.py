"""Weights that are stored in parts from which a layer computes them: given as the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.derived.checkpoint import DerivedCheckpoint
from flagscope.checkpoint.derived.tensor import LastTensor
from flagscope.checkpoint.indexing import Index

Method = Literal["weight_norm", "spectral_norm", "pruning"]
# Types in which the library computes such weights.
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_LORA = re.compile(r"(.+)\.lora_(?:embedding_)?[AB](?:\.|$)")


def whole_weights(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, its weights that are stored in parts given as what the layers use.

    Parameters
    ----------
    checkpoint
        Any; the result closes it.

    Returns
    -------
    Checkpoint
        The same one where nothing is stored in parts. Parts whose names do not say all that the
        layer does with them (an orthogonal map, custom factors) stay as they are.

    References
    ----------
    Salimans, Kingma, "Weight Normalization", arXiv 1602.07868; Miyato et al., "Spectral
    Normalization", arXiv 1802.05957; torch.nn.utils.prune.

    Examples
    --------
    >>> from flagscope.checkpoint.state_dict import StateDictCheckpoint
    >>> parts = {"0.weight_g": torch.tensor([[10.0]]), "0.weight_v": torch.tensor([[3.0, 4.0]])}
    >>> checkpoint = whole_weights(StateDictCheckpoint(parts, source="net"))
    >>> checkpoint.read("0.weight").tolist()
    [[6.0, 8.0]]
    """
    return ParametrizedCheckpoint(checkpoint) if _rules(checkpoint.tensors) else checkpoint


def unmerged_note(names: Iterable[str]) -> tuple[str, ...]:
    """A note on LoRA factors among the names of a model's own tensors.

    Examples
    --------
    >>> unmerged_note(["q.base_layer.weight", "q.lora_A.default.weight"])[0].partition(";")[0]
    'LoRA factors of 1 modules stand next to their weights, such as q'
    """
    modules = {match[1]: None for name in names if (match := _LORA.match(name))}
    if not modules:
        return ()
    return (
        f"LoRA factors of {len(modules)} modules stand next to their weights, such as "
        f"{next(iter(modules))}; by which factor they count is not stored, so the weights are "
        "taken without them: scan the live model, the adapter's folder, or the model after PEFT's "
        "merge_and_unload",
    )


@dataclass(frozen=True)
class _Rule:
    """How a weight is computed: the first part has its shape and type."""

    method: Method
    parts: tuple[str, ...]


class ParametrizedCheckpoint(DerivedCheckpoint):
    """A checkpoint whose weight-normed, spectrally normed and pruned weights are given as such.

    Each is computed as PyTorch's layers do in evaluation, in the stored type, when it is read; the
    last one is kept for the next slice.

    Parameters
    ----------
    inner
        The checkpoint as it is stored. It is closed with this one.
    """

    def __init__(self, inner: Checkpoint) -> None:
        self._rules = _rules(inner.tensors)
        self._last = LastTensor()
        parts = {part: name for name, rule in self._rules.items() for part in rule.parts}
        entries: dict[str, TensorInfo] = {}
        for stored, info in inner.tensors.items():
            name = parts.get(stored, stored)
            if name in self._rules:
                like = inner.tensors[self._rules[name].parts[0]]
                entries[name] = TensorInfo(name, like.shape, like.dtype, like.nbytes, like.file)
            else:
                entries[name] = info
        counts: dict[Method, list[str]] = {}
        for name, rule in self._rules.items():
            counts.setdefault(rule.method, []).append(name)
        notes = (
            f"{len(names)} weights are computed from their stored parts as torch's {method} "
            f"does, such as {names[0]}"
            for method, names in counts.items()
        )
        super().__init__(inner, entries, made=self._rules, notes=(*inner.header_notes, *notes))

    def __reduce__(self) -> tuple[Any, ...]:
        return ParametrizedCheckpoint, (self._inner,)

    def _made(self, name: str, index: Index) -> Tensor:
        return self._last.get(name, lambda: self._computed(self._rules[name]))[index]

    def _computed(self, rule: _Rule) -> Tensor:
        parts = [self._inner.read(part) for part in rule.parts]
        if rule.method == "weight_norm":
            return _weight_norm(*parts)
        if rule.method == "spectral_norm":
            return _spectral_norm(*parts)
        weight, mask = parts
        return mask.to(weight.dtype) * weight

    def _release(self) -> None:
        self._last.clear()
        super()._release()


def _weight_norm(v: Float[Tensor, "*s"], g: Float[Tensor, "*t"]) -> Float[Tensor, "*s"]:
    """g v / |v|, with one norm for each entry of g."""
    kept = [axis for axis, size in enumerate(g.shape) if size > 1]
    # Norms over all axes but one; over all where g is one number of one axis or none.
    if not kept:
        kept = [axis for axis, size in enumerate(v.shape) if g.ndim and size == 1] or [-1]
    return torch._weight_norm(v, g, kept[0])  # pyright: ignore[reportPrivateImportUsage]


def _spectral_norm(
    weight: Float[Tensor, "*s"], u: Float[Tensor, " a"], v: Float[Tensor, " b"]
) -> Float[Tensor, "*s"]:
    """W / (uᵀ W v), W with the axis of its outputs in front as a matrix.

    Names do not say which axis that is: the first, but the second of a transposed convolution.
    Where sizes leave the choice, it is the one by which u and v are singular vectors.
    """
    values: list[Tensor] = []
    fitting: list[Tensor] = []
    for axis in _outputs(tuple(weight.shape), len(u), len(v)):
        image = torch.mv(weight.movedim(axis, 0).flatten(1), v)
        sigma = torch.vdot(u, image)
        values.append(sigma)
        # u is the direction of W v but for steps of training since; vectors of a layer that never
        # ran are random, and say nothing.
        if sigma >= 0.9 * image.norm():
            fitting.append(sigma)
    return weight / max(fitting or values[:1], key=float)


def _outputs(shape: tuple[int, ...], rows: int, columns: int) -> list[int]:
    """The axes that may be that of the outputs: the first, or the second (transposed)."""
    return [
        axis for axis in range(min(2, len(shape)))
        if shape[axis] == rows and prod(shape) == rows * columns
    ]  # fmt: skip


def _rules(tensors: Mapping[str, TensorInfo]) -> dict[str, _Rule]:
    """The weights that are stored in parts, by their names."""
    rules: dict[str, _Rule] = {}
    several = _parametrizations(tensors)
    for name in tensors:
        found: tuple[str, _Rule | None] | None = None
        if name.endswith("_v") and _weight_normed(name[:-2], tensors):
            found = name[:-2], _Rule("weight_norm", (name, name[:-2] + "_g"))
        elif name.endswith("_orig"):
            found = name[:-5], _of_original(name[:-5], tensors)
        elif name.endswith(".original1") or name.endswith(".original"):
            found = _new_style(name, several)
        target, rule = found or ("", None)
        if rule is None or target in tensors or target in rules:
            continue
        if _fits(rule, tensors):
            rules[target] = rule
    return rules


def _weight_normed(weight: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """torch.nn.utils.weight_norm of "weight", or of an LSTM's "weight_hh_l0".

    Names such as "w_v" and "w_g" mean something else.
    """
    return f"{weight}_g" in tensors and "weight" in weight.rpartition(".")[2]


def _of_original(weight: str, tensors: Mapping[str, TensorInfo]) -> _Rule | None:
    """torch.nn.utils.spectral_norm and torch.nn.utils.prune."""
    orig, u, v, mask = (f"{weight}_{part}" for part in ("orig", "u", "v", "mask"))
    if u in tensors and v in tensors and mask not in tensors:
        return _Rule("spectral_norm", (orig, u, v))
    if mask in tensors and u not in tensors:
        return _Rule("pruning", (orig, mask))
    return None


def _parametrizations(tensors: Mapping[str, TensorInfo]) -> dict[str, set[str]]:
    """Contents of the entries of parametrisations, by the name before them."""
    found: dict[str, set[str]] = {}
    for name in tensors:
        if "parametrizations." in name:
            head, _, rest = name.rpartition("parametrizations.")
            parameter, _, part = rest.partition(".")
            found.setdefault(f"{head}parametrizations.{parameter}", set()).add(part)
    return found


def _new_style(name: str, several: Mapping[str, set[str]]) -> tuple[str, _Rule] | None:
    """torch.nn.utils.parametrizations, where nothing else is done to the weight."""
    at = name.rpartition(".")[0]
    head, _, parameter = at.rpartition("parametrizations.")
    parts = several.get(at, set())
    if not parameter or "." in parameter or (head and not head.endswith(".")):
        return None
    if parts == {"original0", "original1"}:
        return head + parameter, _Rule("weight_norm", (f"{at}.original1", f"{at}.original0"))
    if parts == {"original", "0._u", "0._v"}:
        return head + parameter, _Rule(
            "spectral_norm", (f"{at}.original", f"{at}.0._u", f"{at}.0._v")
        )
    return None


def _fits(rule: _Rule, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether the parts' shapes and types are those that the method gives them."""
    infos = [tensors[part] for part in rule.parts]
    weight, *others = infos
    shape = weight.shape
    if weight.dtype not in _FLOATS or 0 in shape or weight.quantised:
        return False
    if rule.method == "pruning":
        return others[0].shape == shape
    if len(shape) < 2 or any(info.dtype != weight.dtype for info in others):
        return False
    if rule.method == "spectral_norm":
        u, v = (info.shape for info in others)
        return len(u) == len(v) == 1 and bool(_outputs(shape, *u, *v))
    norms = others[0].shape
    if norms == ():
        return True
    kept = [axis for axis, size in enumerate(norms) if size > 1]
    alike = len(norms) == len(shape) and all(norms[axis] == shape[axis] for axis in kept)
    # One factor for a matrix without an axis of size 1 is not a norm that the library takes.
    return alike and (len(kept) == 1 or (not kept and 1 in shape))
