"""Adapters without adapter_config.json: the names of their tensors alone say what they are."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.folder import remote_weight_file, weight_file
from flagscope.checkpoint.formats import SAFETENSORS_SUFFIXES, opened_file
from flagscope.checkpoint.lora.names import factor_name
from flagscope.checkpoint.lora.settings import MERGE_IT
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.safetensors.reader import header_texts
from flagscope.errors import CorruptFileError, FlagscopeError, SourceError
from flagscope.shortening import listed

ALPHA = re.compile(r"(?P<module>.+)\.alpha")
CORE = re.compile(r"(?P<module>.+)\.lora_mid\.weight")
MAGNITUDE = re.compile(
    r"(?P<module>.+)\.(?:dora_scale|lora_magnitude_vector(?:\.\w+)??(?:\.weight)?)"
)
# Of LyCORIS and kohya's scripts: parts whose change of a weight is not one product of two factors.
_OTHER_KINDS = {
    "LoHa": re.compile(r".+\.hada_(?:w[12]_[ab]|t[12])"),
    "LoKr": re.compile(r".+\.lokr_(?:w[12](?:_[ab])?|t2)"),
    "OFT": re.compile(r".+\.oft_(?:blocks|diag)"),
    "whole changes": re.compile(r".+\.(?:diff|diff_b|w_norm|b_norm)"),
}
_EXTRA = re.compile(r".+\.(?:scalar|lora_B(?:\.\w+)??\.bias)")
# diffusers writes the settings of PEFT there, each with the name of its component in front.
_SETTINGS = "lora_adapter_metadata"
_LARGEST_ALPHA = 1e9
_LISTED = 3


def other_kind(name: str) -> str | None:
    """Which kind of adapter a tensor is a part of, where that is not LoRA; None for others."""
    return next((kind for kind, rule in _OTHER_KINDS.items() if rule.fullmatch(name)), None)


def is_adapter(names: Iterable[str]) -> bool:
    """Whether all tensors of a file are parts of adapters, and some are factors.

    Examples
    --------
    >>> is_adapter(["te_q.lora_down.weight", "te_q.lora_up.weight", "te_q.alpha"])
    True
    >>> is_adapter(["q.lora_down.weight", "q.lora_up.weight", "q.weight"]), is_adapter(["q.alpha"])
    (False, False)
    """
    factors = False
    for name in names:
        if factor_name(name) is not None or other_kind(name) is not None:
            factors = True
        elif not any(rule.fullmatch(name) for rule in (ALPHA, CORE, MAGNITUDE, _EXTRA)):
            return False
    return factors


def factor_file(path: Path | RemotePath) -> Path | RemotePath | None:
    """A safetensors file of adapters' parts alone, in a folder or itself; None for anything else.

    Its header is read.
    """
    try:
        if isinstance(path, Path):
            file = weight_file(path) if path.is_dir() else path
        else:
            is_file = path.name.endswith(SAFETENSORS_SUFFIXES)
            file = path if is_file else remote_weight_file(path)
        if not file.name.endswith(SAFETENSORS_SUFFIXES):
            return None
        with opened_file(file) as checkpoint:
            return file if is_adapter(checkpoint.tensors) else None
    except FlagscopeError:
        return None


def require_pairs(source: str, names: Iterable[str]) -> None:
    """Refuse adapters of which no part is a product of two factors.

    Raises
    ------
    SourceError
        With what they hold.
    """
    found: dict[str, str] = {}
    for name in names:
        if factor_name(name) is not None:
            return
        kind = other_kind(name)
        if kind is not None:
            found.setdefault(kind, name)
    kinds = listed([f"{kind} ({name})" for kind, name in found.items()], _LISTED)
    raise SourceError(
        f"{source} holds no LoRA factors but {kinds}: its change of a weight is not B A.",
        hint=MERGE_IT.replace("PEFT (merge_and_unload)", "the tool that wrote it"),
    )


def stored_alphas(file: Checkpoint, names: Mapping[str, str]) -> dict[str, float]:
    """α of each module that has a tensor of it.

    Parameters
    ----------
    file
        The adapter.
    names
        Of the tensors, by module.

    Raises
    ------
    CorruptFileError
        If one is not a number.
    """
    found = {}
    for module, name in names.items():
        if math.prod(file.tensors[name].shape) != 1:
            raise _no_alpha(file, name)
        value = float(file.read(name).reshape(()).to(torch.float64))
        if not abs(value) <= _LARGEST_ALPHA:  # NaN is not, either
            raise _no_alpha(file, name)
        found[module] = value
    return found


def header_settings(path: Path | RemotePath) -> dict[str, dict[str, Any]]:
    """PEFT's settings of each component as diffusers stores them; "" for those of all of a file.

    Empty where there are none, or none that can be read.
    """
    try:
        given = json.loads(header_texts(path).get(_SETTINGS, "{}"))
    except (ValueError, RecursionError):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for key, value in given.items() if isinstance(given, dict) else ():
        component, dot, setting = key.rpartition(".")
        found.setdefault(component if dot else "", {})[setting] = value
    return found


def _no_alpha(file: Checkpoint, name: str) -> CorruptFileError:
    return CorruptFileError(
        f"{name!r} of {file.source} is not a number: it should be the α of its module.",
        hint="fetch or save the adapter again.",
    )
