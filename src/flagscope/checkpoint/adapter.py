"""A LoRA adapter on its base model: W + s·B A, merged as tensors are read."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.lora.settings import (
    MERGE_IT,
    adapter_weights,
    pattern_error,
    refuse_variants,
)
from flagscope.checkpoint.lora.targets import TargetNames
from flagscope.checkpoint.lora.weights import AdapterWeights, Factors
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.widen import widen
from flagscope.errors import CorruptFileError, SourceError
from flagscope.spacing import spacing


class AdapterCheckpoint(Checkpoint):
    """The tensors of a base model, those merged that an adapter changes.

    A merged tensor is float32 (float64 on a float64 base), its storage noise that of the base's
    weight. Tensors that the adapter stores whole take the place of the base's.

    Parameters
    ----------
    path
        The adapter's weights, with adapter_config.json next to them or without.
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
        adapter = AdapterWeights(path, settled=adapter_weights(path) is not None)
        self._adapter = adapter.file
        try:
            refuse_variants(path, adapter.variants)
            self._names = TargetNames(base.tensors)
            self._factors, self._whole = self._parts(adapter)
            entries = {name: self._entry(name) for name in (*base.tensors, *self._whole)}
            notes = [*self._adapter.header_notes, *base.header_notes,
                     f"adapter {path} on {base.source}: {len(self._factors)} tensors merged, "
                     f"{len(self._whole)} replaced", *adapter.doubts]  # fmt: skip
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

    def _parts(self, adapter: AdapterWeights) -> tuple[dict[str, Factors], dict[str, str]]:
        """Factors, and the adapter's names of whole tensors, by the base's names."""
        extra = [part for f in adapter.factors.values() for part in (f.magnitude, f.bias) if part]
        for name in (*adapter.unknown, *adapter.tokens.values(), *extra):
            raise SourceError(
                f"{self._path} holds {name!r}, which is no part of a plain LoRA adapter.",
                hint=MERGE_IT,
            )
        for module in adapter.unusable:
            raise self._corrupt(
                f"has factors {', '.join(module.names)} for {module.module!r}, which do not belong "
                f"to one tensor of {self._base.source} ({module.reason})"
            )
        whole = {self._names.found(name) or name: file for name, file in adapter.whole.items()}
        factors: dict[str, Factors] = {}
        for module, pair in adapter.factors.items():
            target = self._names.found(pair.target)
            if target is None or target in factors or target in whole:
                raise self._corrupt(
                    f"has factors for {module!r}, which do not belong to one tensor of "
                    f"{self._base.source}"
                )
            shape = self._base.tensors[target].shape
            if pair.shape != shape:
                raise self._corrupt(
                    f"has factors of shapes {pair.shape_a} and {pair.shape_b} for {target!r} of "
                    f"{shape}"
                )
            if pair.doubt is not None:
                raise pattern_error(self._path, pair.doubt)
            factors[target] = pair
        if not factors and not whole:
            raise self._corrupt("changes nothing")
        return factors, whole

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
        if self._base.tensors[name].dtype in ("float64", "float32"):
            return None
        step = spacing(self._base.read(name, index))
        if step is None:
            return None
        step, scale = step.to(torch.float32), self._base.scale(name, index)
        return step if scale is None else step * scale.abs().to(torch.float32)

    def _corrupt(self, what: str) -> CorruptFileError:
        return CorruptFileError(
            f"the adapter {self._path} {what}.",
            hint=f"is {self._base.source} the model that it was trained on? Give another base.",
        )

    def _release(self) -> None:
        self._adapter.close()
        self._base.close()
