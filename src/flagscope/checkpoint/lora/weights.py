"""An adapter's factors, scalings and whole tensors, without the base that it was trained on."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.formats import opened_file
from flagscope.checkpoint.lora.names import factor_name
from flagscope.checkpoint.lora.parts import (
    ALPHA,
    CORE,
    MAGNITUDE,
    factor_file,
    header_settings,
    require_pairs,
    stored_alphas,
)
from flagscope.checkpoint.lora.settings import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    adapter_settings,
    adapter_weights,
    check_kind,
    module_alpha,
    variants,
)
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.widen import widen
from flagscope.errors import CorruptFileError, MissingFileError
from flagscope.guard import guarded
from flagscope.masking import masked

_PREFIX = "base_model.model."
_BIAS = re.compile(r"(?P<module>.+)\.lora_B(\.\w+)??\.bias")
_TOKENS = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta(\.\w+)?")
_WHOLE = re.compile(r"(\.modules_to_save(\.\w+)??|\.base_layer)(?=\.(weight|bias)$)")


_DORA = "magnitudes (dora_scale) rescale the merged weights"

Reason = Literal["incomplete", "repeated", "shapes", "core"]


@dataclass(frozen=True)
class Factors:
    """B and A of one module, and how they are scaled.

    Attributes
    ----------
    module
        The module's name, without the prefix that PEFT puts in front.
    a, b
        Names of the factors in the adapter's file.
    shape_a, shape_b
        Their shapes as stored.
    rank
        Columns of B, rows of A.
    scaling
        s = α/r, or α/√r where the adapter is rank stabilised.
    stabilised
        Whether it is.
    transposed
        Whether the change as stored in the weight is (B A)ᵀ: embeddings, and weights that lie as
        (in, out).
    embedding
        Whether it belongs to an embedding.
    magnitude
        Name of DoRA's magnitudes; None for plain LoRA.
    bias
        Name of the bias of B; None where there is none.
    doubt
        A pattern of the settings that may have given another α and was not run.
    """

    module: str
    a: str
    b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    rank: int
    scaling: float
    stabilised: bool
    transposed: bool
    embedding: bool
    magnitude: str | None = None
    bias: str | None = None
    doubt: str | None = None

    @property
    def target(self) -> str:
        """Name of the weight that is changed, without PEFT's prefix."""
        return self.module + ".weight"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the change, as the weight is stored."""
        product = (*self.shape_b[:1], *self.shape_a[1:])
        return product[::-1] if self.transposed else product


@dataclass(frozen=True)
class Unusable:
    """Factors of a module that do not belong together.

    Attributes
    ----------
    names
        What the file has for the module.
    reason
        "incomplete": B or A is missing. "repeated": several adapters. "shapes": B A is not defined,
        or it has rank 0. "core": a third factor stands between them (Tucker).
    """

    module: str
    names: tuple[str, ...]
    reason: Reason


class AdapterWeights:
    """What a LoRA adapter holds, whatever variant it is; a context manager that closes its file.

    Parameters
    ----------
    path
        The file of weights.
    source
        What the user named, if not the path.
    settled
        Whether adapter_config.json lies next to it. Without it the names of the tensors say what
        they are, and α is that of a tensor `MODULE.alpha`, else of the settings of PEFT that
        diffusers puts into the header, else r.

    Attributes
    ----------
    path, source, settings
        The file, what the user named, and the content of adapter_config.json, empty without it.
    file
        The file's tensors under their stored names.
    factors
        The factors by module.
    whole
        Names in the file of tensors that replace the base's, by the base's names as the adapter
        spells them: modules_to_save, trained biases, copies of embeddings.
    tokens
        Names of rows that replace those of single tokens, by the embedding's module.
    unusable
        Modules whose factors do not belong together.
    unknown
        Names of tensors that are not a part of an adapter as it is known here.
    variants
        What makes it another thing than W + s·B A, in words.
    assumed
        Modules for which no α is stored: s = 1 is taken, as kohya's scripts and diffusers do.

    Raises
    ------
    CorruptFileError
        If the settings or a stored α are damaged or there is no tensor.
    SourceError
        If it is an adapter of another kind than LoRA.

    References
    ----------
    Hu et al., "LoRA", arXiv 2106.09685, section 4.1; Kalajdzievski, arXiv 2312.03732 (rank
    stabilised: s = α/√r); Liu et al., "DoRA", arXiv 2402.09353. Names and α without settings:
    kohya-ss/sd-scripts, networks/lora.py; huggingface/diffusers, loaders/lora_conversion_utils.py.
    """

    def __init__(
        self, path: Path | RemotePath, *, source: str | None = None, settled: bool = True
    ) -> None:
        self.path, self.source = path, source or str(path)
        self.settings: Mapping[str, Any] = adapter_settings(path.parent) if settled else {}
        self._settled, self._alphas = settled, dict[str, float]()
        self._components: Mapping[str, Mapping[str, Any]] = {}
        self.assumed: tuple[str, ...] = ()
        if settled:
            check_kind(path, self.settings)
        self.file: Checkpoint = opened_file(path)
        try:
            self.variants = tuple(variants(self.settings))
            if not settled:
                self._read_settings()
            self._sort()
        except BaseException:
            self.file.close()
            raise

    def _read_settings(self) -> None:
        """What the file itself says of scalings and variants."""
        names = list(self.file.tensors)
        require_pairs(self.source, names)
        stored = {found["module"]: name for name in names if (found := ALPHA.fullmatch(name))}
        self._alphas = stored_alphas(self.file, stored)
        self._components = header_settings(self.path)
        said = [reason for one in self._components.values() for reason in variants(one)]
        if any(MAGNITUDE.fullmatch(name) for name in names):
            said.append(_DORA)
        self.variants = tuple(dict.fromkeys(said))

    def _sort(self) -> None:
        """Every tensor of the file by what it is."""
        sides: dict[tuple[str, bool], dict[str, list[str]]] = {}
        magnitudes: dict[str, str] = {}
        biases: dict[str, str] = {}
        self.whole: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        unknown = []
        for name in self.file.tensors:
            plain = name.removeprefix(_PREFIX)
            if factor := factor_name(plain):
                key = (factor.module, factor.embedding)
                sides.setdefault(key, {}).setdefault(factor.side, []).append(name)
            elif not self._settled and (ALPHA.fullmatch(name) or MAGNITUDE.fullmatch(name)):
                continue
            elif not self._settled and (part := CORE.fullmatch(name)):
                sides.setdefault((part["module"], False), {})["core"] = [name]
            elif not self._settled and not _BIAS.fullmatch(name):
                unknown.append(name)
            elif part := MAGNITUDE.fullmatch(plain):
                magnitudes[part["module"]] = name
            elif part := _BIAS.fullmatch(plain):
                biases[part["module"]] = name
            elif part := _TOKENS.fullmatch(plain):
                self.tokens[part["module"]] = name
            elif ".lora_" in plain or ".token_adapter." in plain:
                unknown.append(name)
            else:
                self.whole[_WHOLE.sub("", plain)] = name
        self.factors: dict[str, Factors] = {}
        unusable = []
        for (module, embedding), names in sides.items():
            extra = (magnitudes.pop(module, None), biases.pop(module, None))
            reason = self._reason(names) or ("repeated" if module in self.factors else None)
            if reason is None:
                self.factors[module] = self._factors(module, names, embedding, *extra)
            else:
                listed = tuple(name for side in names.values() for name in side)
                unusable.append(Unusable(module, listed, reason))
        self.unusable = tuple(unusable)
        self.unknown = (*unknown, *magnitudes.values(), *biases.values())

    def _reason(self, names: Mapping[str, list[str]]) -> Reason | None:
        if any(len(side) > 1 for side in names.values()):
            return "repeated"
        if "core" in names:
            return "core"
        if set(names) != {"A", "B"}:
            return "incomplete"
        a, b = (self.file.tensors[names[side][0]].shape for side in "AB")
        chained = len(a) == len(b) >= 2 and a[:1] == b[1:2] != (0,) and {*b[2:]} <= {1}
        return None if chained and math.prod(a) and math.prod(b) else "shapes"

    def _factors(
        self,
        module: str,
        names: Mapping[str, list[str]],
        embedding: bool,
        magnitude: str | None,
        bias: str | None,
    ) -> Factors:
        (a,), (b,) = names["A"], names["B"]
        rank = self.file.tensors[a].shape[0]
        alpha, stabilised, doubt = self._alpha(module, rank)
        return Factors(
            module=module, a=a, b=b,
            shape_a=self.file.tensors[a].shape, shape_b=self.file.tensors[b].shape,
            rank=rank, scaling=alpha / (math.sqrt(rank) if stabilised else rank),
            stabilised=stabilised,
            transposed=embedding or bool(self.settings.get("fan_in_fan_out")),
            embedding=embedding, magnitude=magnitude, bias=bias, doubt=doubt,
        )  # fmt: skip

    def _alpha(self, module: str, rank: int) -> tuple[float, bool, str | None]:
        """α of a module, whether it is rank stabilised, and a pattern that was not run."""
        settings, name = self.settings, module
        if not self._settled:
            if module in self._alphas:
                return self._alphas[module], False, None
            component, _, rest = module.partition(".")
            inside = component in self._components
            settings = self._components.get(component if inside else "", {})
            name = rest if inside else module
            if "lora_alpha" not in settings:
                self.assumed = (*self.assumed, module)
                return float(rank), False, None
        alpha, doubt = module_alpha(self.path, name, settings)
        return alpha, bool(settings.get("use_rslora")), doubt

    @property
    def doubts(self) -> list[str]:
        """What was assumed and what was not looked at, of a file without settings, in words."""
        said = []
        if self.assumed:
            said.append(
                f"no alpha is stored for {len(self.assumed):,} of {len(self.factors):,} modules, "
                f"such as {self.assumed[0]}: the scaling 1 is taken, as kohya's scripts and "
                "diffusers do"
            )
        if not self._settled and self.unknown:
            said.append(
                f"{len(self.unknown):,} tensors are not LoRA factors and not looked at, such as "
                f"{self.unknown[0]}"
            )
        return said

    def matrices(self, module: str) -> tuple[Tensor, Tensor]:
        """L (m, r) and R (r, n), float64: s·L R is the change, as the weight is stored.

        Axes of a kernel lie in the columns, as `weight.flatten(1)` has them.

        Raises
        ------
        CorruptFileError
            If a factor holds NaN or infinity.
        """
        factors = self.factors[module]
        b, a = (self.values(name).flatten(1) for name in (factors.b, factors.a))
        return (a.T, b.T) if factors.transposed else (b, a)

    def values(self, name: str) -> Tensor:
        """A tensor of the file as float64.

        Raises
        ------
        CorruptFileError
            If it holds NaN or infinity.
        """
        tensor = widen(self.file.read(name), torch.float64, scale=self.file.scale(name))
        if not bool(torch.isfinite(tensor).all()):
            raise CorruptFileError(
                f"{name!r} of the adapter {self.source} holds NaN or infinity.",
                hint="the training diverged or the file is damaged; take an earlier checkpoint.",
            )
        return tensor

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_adapter(path: str | os.PathLike[str]) -> AdapterWeights:
    """Open an adapter's folder or file on disk, or its URL, without its base.

    Raises
    ------
    MissingFileError
        If there is no adapter.
    CorruptFileError, SourceError
        As for `AdapterWeights`.
    """
    named = os.fspath(path)
    with guarded(f"reading {masked(named)}", hint="fetch or save the adapter again"):
        place = RemotePath(named) if "://" in named else Path(named).expanduser()
        if isinstance(place, RemotePath) and place.name not in ADAPTER_FILES:
            inside = [place / name for name in ADAPTER_FILES]
            place = next((file for file in inside if file.is_file()), place)
        file = adapter_weights(place)
        if file is None and (file := factor_file(place)) is not None:
            return AdapterWeights(file, source=masked(named), settled=False)
        if file is None:
            raise MissingFileError(
                f"{masked(named)!r} is not an adapter.",
                hint=f"an adapter is a folder with {ADAPTER_CONFIG} and adapter_model.safetensors, "
                "or a safetensors file of LoRA factors alone.",
            )
        return AdapterWeights(file, source=masked(named))
