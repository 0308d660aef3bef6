"""The base model that an adapter's own file names: a file may not lead anywhere on the machine."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from flagscope.checkpoint.hub import is_hub_name
from flagscope.checkpoint.lora.settings import (
    ADAPTER_CONFIG,
    adapter_settings,
    adapter_weights,
)
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import SourceError
from flagscope.masking import masked

GIVE_BASE = "give the model that it was trained on: base=PATH (--base PATH)."


def named_base(adapter: Path | RemotePath) -> Path | str:
    """The base that adapter_config.json names: a path in the adapter's folder, or a hub name.

    Whoever made the adapter wrote the name. So a URL, and a path that leads out of the folder, are
    the user's to give; opened unasked they would connect to a server, or read a file, of the
    author's choice.

    Parameters
    ----------
    adapter
        Its file of weights.

    Raises
    ------
    SourceError
        If it names no base, or one that lies elsewhere.
    """
    named = adapter_settings(adapter.parent).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise SourceError(
            f"{adapter} is an adapter, and its {ADAPTER_CONFIG} names no base model.",
            hint=GIVE_BASE,
        )
    if _leads_out(named):
        raise SourceError(
            f"{adapter} is an adapter, and its {ADAPTER_CONFIG} names a base outside its folder, "
            f"{masked(named)!r}, which is not opened on a file's word.",
            hint="if it is the model that you mean, give it yourself: base=PATH (--base PATH).",
        )
    inside = adapter.parent / named if isinstance(adapter, Path) else None
    if inside is not None and os.path.lexists(inside):
        return inside
    if not is_hub_name(named):
        raise SourceError(
            f"{adapter} is an adapter, and its base model {named!r} is neither in its folder nor "
            "the name of a model on the hub.",
            hint=GIVE_BASE,
        )
    return named


def refuse_chain(adapter: Path | RemotePath, base: Path) -> None:
    """Refuse a base that is an adapter itself.

    Raises
    ------
    SourceError
        If it is one.
    """
    if adapter_weights(base) is not None:
        raise SourceError(
            f"the base {base} of the adapter {adapter} is an adapter itself.",
            hint="merge that one into its own base first, with PEFT's merge_and_unload.",
        )


def _leads_out(named: str) -> bool:
    parts = PurePosixPath(named.replace("\\", "/")).parts
    return (
        ":" in named  # a URL, a disk of Windows
        or "\0" in named
        or ".." in parts
        or named.startswith("~")
        or PurePosixPath(named).is_absolute()
        or PureWindowsPath(named).is_absolute()
    )
