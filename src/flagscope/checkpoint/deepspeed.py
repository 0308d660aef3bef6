"""Folders of DeepSpeed: whole models are read, those spread over processes are refused by name.

A checkpoint is a folder with a file `latest`, which names the folder of a step. There,
`mp_rank_00_model_states.pt` holds the model whole (without ZeRO, and with its stages 1 and 2); with
stage 3 each `zero_pp_rank_*_model_states.pt` holds empty tensors in place of the weights, which
only the optimizer's files have, in pieces. DeepSpeed puts its script `zero_to_fp32.py` next to
`latest`.

References: deepspeed/runtime/engine.py (`_get_ckpt_name`, `save_checkpoint`) and
deepspeed/utils/zero_to_fp32.py.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from flagscope.checkpoint.files.checks import is_plain_name
from flagscope.checkpoint.files.placed import refuse_special
from flagscope.errors import MissingFileError, SourceError

LATEST = "latest"
SCRIPT = "zero_to_fp32.py"
_WHOLE = re.compile(r"mp_rank_\d+_model_states\.pt")
_SPREAD = re.compile(r"zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt")
_LAYER = re.compile(r"layer_\d+-model_\d+-model_states\.pt")
_OPTIMIZER = re.compile(r"\w*zero_pp_rank_\d+_mp_rank_\d+_?optim_states\.pt")
# The longest name of a folder, on all usual systems.
_LONGEST_TAG = 255
_OUTPUT = "OUTPUT"
# Of Accelerate and the Hugging Face Trainer: pieces of the model, with the optimiser's next to it.
FSDP_FOLDER = "pytorch_model_fsdp_0"


def step_folder(folder: Path) -> Path | None:
    """The folder of DeepSpeed's files that a folder is, or that its `latest` names.

    Raises
    ------
    MissingFileError
        If `latest` names a folder that is not there.
    """
    if any(map(_is_state, _names(folder))):
        return folder
    tag = _tag(folder)
    if tag is None:
        return None
    step = folder / tag
    if not step.is_dir():
        raise MissingFileError(
            f"{folder / LATEST} names the folder {tag!r}, which is not there.",
            hint=f"fetch it, or write the name of another step into {LATEST}.",
        )
    return step if any(map(_is_state, _names(step))) else None


def whole_model(step: Path) -> Path:
    """The file of a step that holds the whole model.

    Raises
    ------
    SourceError
        If the model is spread over the files of several processes.
    """
    names = _names(step)
    whole = [name for name in names if _WHOLE.fullmatch(name)]
    if any(map(_SPREAD.fullmatch, names)) or (not whole and any(map(_OPTIMIZER.fullmatch, names))):
        raise SourceError(
            f"{step} holds a model that DeepSpeed (ZeRO stage 3) spread over the files of the "
            "optimizer.",
            hint=joining_hint(step),
        )
    if len(whole) != 1 or any(map(_LAYER.fullmatch, names)):
        raise SourceError(
            f"{step} holds a model that tensor or pipeline parallelism spread over "
            f"{len(whole)} ranks.",
            hint="join it with the tools of what trained it (Megatron-DeepSpeed's converters), and "
            "scan the result.",
        )
    return step / whole[0]


def refuse_optimizer(path: Path) -> None:
    """Refuse a file of DeepSpeed's optimizer.

    Raises
    ------
    SourceError
        If it is one by its name.
    """
    if _OPTIMIZER.fullmatch(path.name):
        raise SourceError(
            f"{path} is one process's part of the optimizer that DeepSpeed (ZeRO) saved.",
            hint=joining_hint(path.parent),
        )


def refuse_empty(shapes: Mapping[str, tuple[int, ...]], *, source: str, path: Path | None) -> None:
    """Refuse weights of which most are empty, as ZeRO stage 3 leaves them.

    Parameters
    ----------
    shapes
        Of the tensors by name.
    source
        What the user named.
    path
        The file, None in memory.

    Raises
    ------
    SourceError
        If most of the tensors are empty, weights among them, and more than there are matrices.
    """
    empty = [name for name, shape in shapes.items() if shape == (0,)]
    matrices = sum(len(shape) > 1 and 0 not in shape for shape in shapes.values())
    weights = any(name.endswith("weight") for name in empty)
    if not weights or len(empty) <= max(matrices, len(shapes) // 2):
        return
    hint = (
        "gather the parameters first (deepspeed.zero.GatheredParameters), or save the model with "
        "stage3_gather_16bit_weights_on_model_save."
    )
    raise SourceError(
        f"{source}: {len(empty)} of {len(shapes)} tensors are empty, such as {empty[0]!r}. "
        "DeepSpeed (ZeRO stage 3) leaves them so where the weights are spread over processes.",
        hint=hint if path is None else joining_hint(path.parent),
    )


def joining_hint(step: Path) -> str:
    """Command to get the whole weights of a step, or of the folder above it."""
    top, tag = step, ""
    if not (step / SCRIPT).is_file() and _tag(step) is None:
        if not any(map(_is_state, _names(step))):
            return (
                f"join the checkpoint that it belongs to with DeepSpeed's {SCRIPT}, or save the "
                "model with stage3_gather_16bit_weights_on_model_save."
            )
        top = step.absolute().parent
        tag = "" if _tag(top) == step.name else f" --tag {shlex.quote(step.name)}"
    script, folder = "-m deepspeed.utils.zero_to_fp32", shlex.quote(str(top))
    if (top / SCRIPT).is_file():
        script = shlex.quote(str(top / SCRIPT))
    return f"join it with DeepSpeed: python {script} {folder} {_OUTPUT}{tag}; then scan {_OUTPUT}."


def settings_folder(weights: Path) -> Path:
    """The folder in which the config of a file of weights lies: above the folder of a step."""
    if weights.parent.name == FSDP_FOLDER:
        return weights.absolute().parent.parent
    if _is_state(weights.name):
        above = weights.absolute().parent.parent
        if (above / SCRIPT).is_file() or _tag(above) is not None:
            return above
    return weights.parent


def optimizer_files(step: Path) -> list[str]:
    """Names of the optimizer's files of a step."""
    return [name for name in _names(step) if _OPTIMIZER.fullmatch(name)]


def _is_state(name: str) -> bool:
    return any(kind.fullmatch(name) for kind in (_WHOLE, _SPREAD, _LAYER, _OPTIMIZER))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def _tag(folder: Path) -> str | None:
    """The name of a step that `latest` holds; None without such a file."""
    refuse_special(folder / LATEST)
    try:
        with (folder / LATEST).open("rb") as file:
            tag = file.read(_LONGEST_TAG).decode().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return tag if is_plain_name(tag) and "\n" not in tag else None
