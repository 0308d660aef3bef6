"""Which entries of a folder are checkpoints of a series, wherever the folder lies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flagscope.checkpoint.folder import INDEX_SUFFIX, NO_WEIGHTS, SHARD
from flagscope.checkpoint.formats import SUFFIXES
from flagscope.series.step_names import step_name

# What writers call a checkpoint that is not whole: Trainer ("tmp-checkpoint-500"), the hub's client
# (".incomplete"), rsync and many scripts.
UNFINISHED = re.compile(r"^\.?tmp[-_.]|\.(tmp|temp|incomplete|part|partial|writing)$|^\.")
PATTERN = "*?["


def steps_inside(files: Sequence[str], folders: Sequence[str]) -> list[str] | None:
    """Names of the steps in a folder; None where the folder itself is a checkpoint.

    Parameters
    ----------
    files, folders
        Names of what lies in it, without empty folders.

    Examples
    --------
    >>> steps_inside(["step_5.safetensors", "step_9.safetensors", "log.txt"], [])
    ['step_5.safetensors', 'step_9.safetensors']
    >>> steps_inside(["model.safetensors"], []) is None, steps_inside(["log.txt"], ["checkpoint-5"])
    (True, ['checkpoint-5'])
    """
    if any(name.endswith(INDEX_SUFFIX) or SHARD.search(name) for name in (*files, *folders)):
        return None
    weights = [name for name in files if is_weights(name)]
    numbered = [name for name in weights if step_name(name) is not None]
    if len(numbered) > 1:
        return numbered
    steps = [name for name in folders if step_name(name) is not None]
    return None if weights and not steps else steps


def is_weights(name: str) -> bool:
    """Whether a file of this name may hold weights, also while it is being written."""
    whole = UNFINISHED.sub("", name)
    return whole.lower().endswith(SUFFIXES) and not NO_WEIGHTS.fullmatch(name)
