"""A LoRA adapter, as PEFT saves it, on its base model: W + s·B A, merged as tensors are read."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.configuration import json_object
from flagscope.checkpoint.files.placed import refuse_special
from flagscope.checkpoint.formats import opened_file
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.widen import widen
from flagscope.errors import CorruptFileError, SourceError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.\w+)??\.weight")
_EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<side>[AB])(\.\w+)?")
_WHOLE = re.compile(r"(\.modules_to_save(\.\w+)??|\.base_layer)(?=\.(weight|bias)$)")
# Anything larger is not a scale of weights, and an integer may have any number of digits.
_LARGEST_ALPHA = 1e9
_PATTERN = re.compile(r"\^?[\w.\\]+")
# Settings that change what B A means; none of them is a plain sum with the base's weights.
_REFUSED = {
    "use_dora": "DoRA rescales the merged rows",
    "use_qalora": "QA-LoRA pools the inputs",
    "layer_replication": "layers of the base are replicated",
    "alora_invocation_tokens": "the adapter acts on some tokens only",
    "arrow_config": "several adapters are mixed by a router",
    "trainable_token_indices": "single tokens of the embedding are replaced",
}
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class _Factors:
    """s·B A, or its transpose for embeddings and weights that lie as (in, out)."""

    a: str
    b: str
    scaling: float
    transposed: bool


class AdapterCheckpoint(Checkpoint):
    """The tensors of a base model, those merged that an adapter changes.

    A merged tensor is float32 (float64 on a float64 base), its storage noise that of the base's
    weight. Tensors that the adapter stores whole take the place of the base's.

    Parameters
    ----------
    path
        The adapter's weights; adapter_config.json lies next to them.
    base
        The model that it was trained on. It is closed with this checkpoint.
    source
        What the user named, if not the path.
    config
        The model's configuration, in place of the base's.

    Raises
    ------
    CorruptFileError
        If configuration, weights and base do not fit each other.
    SourceError
        If it is an adapter of another kind than LoRA, or of a variant that is not a sum.

    References
    ----------
    Hu et al., "LoRA", arXiv 2106.09685, section 4.1; Kalajdzievski, arXiv 2312.03732 (rank
    stabilised: s = α/√r).
    """

    def __init__(
        self,
        path: Path | RemotePath,
        base: Checkpoint,
        *,
        source: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._path, self._base, self._given = path, base, config
        settings = adapter_settings(path.parent)
        _check_plain(path, settings)
        self._adapter = opened_file(path)
        try:
            self._factors, self._whole = self._parts(settings)
            entries = {name: self._entry(name) for name in (*base.tensors, *self._whole)}
            notes = [*self._adapter.header_notes, *base.header_notes,
                     f"adapter {path} on {base.source}: {len(self._factors)} tensors merged, "
                     f"{len(self._whole)} replaced"]  # fmt: skip
            super().__init__(
                source or str(path),
                entries,
                config=base.config if config is None else config,
                notes=notes,
            )
        except BaseException:
            self._adapter.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        opening = functools.partial(AdapterCheckpoint, source=self._source, config=self._given)
        return opening, (self._path, self._base)

    @property
    def auxiliary(self) -> frozenset[str]:
        """Names of the base's tensors that scale others."""
        return self._base.auxiliary

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """States of the base's files and the adapter's."""
        return {**self._base.stamps, **self._adapter.stamps}

    @property
    def is_remote(self) -> bool:
        """Whether base or adapter is."""
        return self._base.is_remote or self._adapter.is_remote

    def _parts(self, settings: Mapping[str, Any]) -> tuple[dict[str, _Factors], dict[str, str]]:
        """Factors, and the adapter's names of whole tensors, by the base's names."""
        sides: dict[tuple[str, bool], dict[str, str]] = {}
        whole: dict[str, str] = {}
        for name in self._adapter.tensors:
            plain = name.removeprefix(_PREFIX)
            embedding = _EMBEDDING.fullmatch(plain)
            factor = embedding or _FACTOR.fullmatch(plain)
            if factor:
                at = sides.setdefault((factor["module"], embedding is not None), {})
                if factor["side"] in at:
                    raise self._corrupt(f"has several adapters for {factor['module']!r}")
                at[factor["side"]] = name
            elif ".lora_" in plain or ".token_adapter." in plain:
                raise SourceError(
                    f"{self._path} holds {name!r}, which is no part of a plain LoRA adapter.",
                    hint="merge it with PEFT (merge_and_unload) and scan the result.",
                )
            else:
                target = _WHOLE.sub("", plain)
                whole[self._found(target) or target] = name
        factors = {}
        for (module, embedding), at in sides.items():
            target = self._found(module + ".weight")
            if set(at) != {"A", "B"} or target is None or target in factors or target in whole:
                raise self._corrupt(
                    f"has factors {sorted(at)} for {module!r}, which do not belong to one tensor "
                    f"of {self._base.source}"
                )
            factors[target] = self._factors_of(module, target, at, embedding, settings)
        if not factors and not whole:
            raise self._corrupt("changes nothing")
        return factors, whole

    def _factors_of(
        self,
        module: str,
        target: str,
        at: Mapping[str, str],
        embedding: bool,
        settings: Mapping[str, Any],
    ) -> _Factors:
        a = self._adapter.tensors[at["A"]].shape
        b = self._adapter.tensors[at["B"]].shape
        shape = self._base.tensors[target].shape
        transposed = embedding or bool(settings.get("fan_in_fan_out"))
        product = (*b[:1], *a[1:])
        chained = len(a) == len(b) >= 2 and a[:1] == b[1:2] != (0,) and {*b[2:]} <= {1}
        if not chained or (product[::-1] if transposed else product) != shape:
            raise self._corrupt(f"has factors of shapes {a} and {b} for {target!r} of {shape}")
        alpha = _alpha(self._path, module, settings)
        rank = math.sqrt(b[1]) if settings.get("use_rslora") else b[1]
        return _Factors(at["A"], at["B"], alpha / rank, transposed)

    def _found(self, name: str) -> str | None:
        """The base's name of a tensor: model classes put a prefix in front, or leave it out."""
        tensors = self._base.tensors
        rest = name
        while "." in rest:
            if rest in tensors:
                return rest
            first, _, rest = rest.partition(".")
            if first.isdecimal():  # a layer's number is not a prefix
                break
        longer = [known for known in tensors if known.endswith("." + name)]
        return longer[0] if len(longer) == 1 else None

    def _entry(self, name: str) -> TensorInfo:
        if name in self._whole:
            info = self._adapter.tensors[self._whole[name]]
            expected = self._base.tensors[name].shape if name in self._base.tensors else info.shape
            if info.shape[1:] != expected[1:]:  # a larger vocabulary has more rows
                raise self._corrupt(f"replaces {name!r} of {expected} by one of {info.shape}")
            return replace(info, name=name)
        info = self._base.tensors[name]
        if name not in self._factors:
            return info
        dtype = "float64" if info.dtype == "float64" else "float32"
        size = math.prod(info.shape) * (8 if dtype == "float64" else 4)
        return TensorInfo(name, info.shape, dtype, size, info.file)

    def _read(self, name: str, index: Index) -> Tensor:
        if name in self._whole:
            return self._adapter.read(self._whole[name], index)
        values = self._base.read(name, index)
        factors = self._factors.get(name)
        if factors is None:
            return values
        dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
        wide = widen(values, torch.float64, scale=self._base.scale(name, index))
        b, a = (widen(self._adapter.read(side)).flatten(1) for side in (factors.b, factors.a))
        change = factors.scaling * (b @ a)
        if factors.transposed:
            change = change.T
        return (wide + change.reshape(self._base.tensors[name].shape)[index]).to(dtype)

    def _scale(self, name: str, index: Index) -> Tensor | None:
        changed = name in self._factors or name in self._whole
        return None if changed else self._base.scale(name, index)

    def _step(self, name: str, index: Index) -> Tensor | None:
        if name in self._whole:
            return self._adapter.step(self._whole[name], index)
        step = self._base.step(name, index)
        if step is not None or name not in self._factors:
            return step
        dtype = self._base.tensors[name].dtype
        if dtype in ("float64", "float32") or "float" not in dtype:  # integers have no spacing
            return None
        values, scale = self._base.read(name, index), self._base.scale(name, index)
        spacing = _spacing(values)
        return spacing if scale is None else spacing * scale.abs().to(torch.float32)

    def _corrupt(self, what: str) -> CorruptFileError:
        return CorruptFileError(
            f"the adapter {self._path} {what}.",
            hint=f"is {self._base.source} the model that it was trained on? Give another base.",
        )

    def _release(self) -> None:
        self._adapter.close()
        self._base.close()


def adapter_weights(path: Path | RemotePath | None) -> Path | RemotePath | None:
    """The adapter's file of weights in a folder, or the file itself; None if it is not an adapter.

    Raises
    ------
    CorruptFileError
        If there are settings of an adapter and nothing else.
    """
    if path is None:
        return None
    if isinstance(path, Path):
        refuse_special((path if path.is_dir() else path.parent) / ADAPTER_CONFIG)
    if isinstance(path, RemotePath) or path.is_file():
        if path.name not in ADAPTER_FILES:
            return None
        beside = (path.parent / ADAPTER_CONFIG).is_file()
        return path if beside else None
    if not (path / ADAPTER_CONFIG).is_file():
        return None
    return next((path / name for name in ADAPTER_FILES if (path / name).is_file()), None)


def adapter_settings(folder: Path | RemotePath) -> dict[str, Any]:
    """The content of adapter_config.json."""
    return json_object(folder / ADAPTER_CONFIG)


def _check_plain(path: Path | RemotePath, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise SourceError(
            f"{path} is an adapter of type {kind!r}; only LORA is supported.",
            hint="merge it with PEFT (merge_and_unload) and scan the result.",
        )
    reasons = [reason for key, reason in _REFUSED.items() if settings.get(key)]
    start = settings.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        reasons.append(f"its start {start!r} took something out of the base's weights")
    if reasons:
        raise SourceError(
            f"{path} is no plain LoRA adapter: {'; '.join(reasons)}.",
            hint="merge it with PEFT (merge_and_unload) and scan the result.",
        )


def _alpha(path: Path | RemotePath, module: str, settings: Mapping[str, Any]) -> float:
    """α of a module: PEFT's patterns are names or their ends, a leading ^ for the whole name."""
    patterns = settings.get("alpha_pattern") or {}
    alpha = settings.get("lora_alpha", 8)
    if isinstance(patterns, Mapping):
        for pattern, value in patterns.items():
            if not _PATTERN.fullmatch(pattern):
                # A regular expression of unknown origin may take for ever.
                raise SourceError(
                    f"{path.parent / ADAPTER_CONFIG} has the alpha_pattern "
                    f"{pattern!r}, and only names are supported.",
                    hint="write out the names of the modules.",
                )
            name = pattern.removeprefix("^").replace("\\.", ".")
            if module == name or (pattern[0] != "^" and module.endswith("." + name)):
                alpha = value
                break
    number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
    if not number or not abs(alpha) <= _LARGEST_ALPHA:  # NaN is not, either
        raise CorruptFileError(
            f"{path.parent / ADAPTER_CONFIG} gives {_brief(alpha)} for lora_alpha.",
            hint=f"correct it: it is a number, {_LARGEST_ALPHA:g} at most.",
        )
    return float(alpha)


def _brief(value: Any) -> str:
    """A value of a setting, as long as a line has room for; Python prints no huge integer."""
    if isinstance(value, int) and abs(value) > _LARGEST_ALPHA:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)[:100]


def _spacing(values: Tensor) -> Tensor:
    """Distance of neighbouring numbers of a floating-point type at each value, as float32."""
    kind = torch.finfo(values.dtype)
    _, exponent = torch.frexp(values.to(torch.float32))
    smallest = math.log2(kind.smallest_normal)
    power = (exponent - 1).to(torch.float32).clamp_min(smallest)
    return torch.exp2(power) * kind.eps
