"""adapter_config.json: which kind of adapter it is, and the scaling of each module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flagscope.checkpoint.configuration import json_object
from flagscope.checkpoint.files.placed import refuse_special
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import CorruptFileError, SourceError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
MERGE_IT = "merge it with PEFT (merge_and_unload) and scan the result."
# Anything larger is not a scale of weights, and an integer may have any number of digits.
_LARGEST_ALPHA = 1e9
_PATTERN = re.compile(r"\^?[\w.\\]+")
# Settings that change what B A means; none of them is a plain sum with the base's weights.
_VARIANTS = {
    "use_dora": "DoRA rescales the merged rows",
    "use_qalora": "QA-LoRA pools the inputs",
    "layer_replication": "layers of the base are replicated",
    "alora_invocation_tokens": "the adapter acts on some tokens only",
    "arrow_config": "several adapters are mixed by a router",
    "trainable_token_indices": "single tokens of the embedding are replaced",
}
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


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


def check_kind(path: Path | RemotePath, settings: Mapping[str, Any]) -> None:
    """Refuse adapters of another kind than LoRA, whose parts mean something else."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise SourceError(
            f"{path} is an adapter of type {brief(kind)}; only LORA is supported.", hint=MERGE_IT
        )


def variants(settings: Mapping[str, Any]) -> list[str]:
    """What makes the adapter another thing than W + s·B A, in words; empty for a plain one."""
    reasons = [reason for key, reason in _VARIANTS.items() if settings.get(key)]
    start = settings.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        reasons.append(f"its start {brief(start)} took something out of the base's weights")
    return reasons


def refuse_variants(path: Path | RemotePath, reasons: Sequence[str]) -> None:
    """Refuse what is not a plain sum with the base's weights, for the reasons of `variants`."""
    if reasons:
        raise SourceError(f"{path} is no plain LoRA adapter: {'; '.join(reasons)}.", hint=MERGE_IT)


def module_alpha(
    path: Path | RemotePath, module: str, settings: Mapping[str, Any]
) -> tuple[float, str | None]:
    """α of a module, and a pattern that may have changed it and is not run, if there is one.

    PEFT's patterns are names or their ends, a leading ^ for the whole name. Other regular
    expressions are not run: one of unknown origin may take for ever.
    """
    patterns = settings.get("alpha_pattern") or {}
    alpha = settings.get("lora_alpha", 8)
    doubt = None
    if isinstance(patterns, Mapping):
        for pattern, value in patterns.items():
            if not _PATTERN.fullmatch(pattern):
                doubt = doubt or pattern
                continue
            name = pattern.removeprefix("^").replace("\\.", ".")
            if module == name or (pattern[0] != "^" and module.endswith("." + name)):
                alpha = value
                break
    number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
    if not number or not abs(alpha) <= _LARGEST_ALPHA:  # NaN is not, either
        raise CorruptFileError(
            f"{path.parent / ADAPTER_CONFIG} gives {brief(alpha)} for lora_alpha.",
            hint=f"correct it: it is a number, {_LARGEST_ALPHA:g} at most.",
        )
    return float(alpha), doubt


def pattern_error(path: Path | RemotePath, pattern: str) -> SourceError:
    """The error for a pattern that is not run."""
    return SourceError(
        f"{path.parent / ADAPTER_CONFIG} has the alpha_pattern {pattern!r}, and only names are "
        "supported.",
        hint="write out the names of the modules.",
    )


def brief(value: Any) -> str:
    """A value of a setting, as long as a line has room for; Python prints no huge integer."""
    if isinstance(value, int) and abs(value) > _LARGEST_ALPHA:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)[:100]
