"""Cache keys of stored results: weights, task, settings, versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version

import torch

from flagscope.checkpoint import Checkpoint
from flagscope.engine.device import resolved_device
from flagscope.engine.plan.tasks import Task
from flagscope.engine.settings import Settings
from flagscope.errors import UnknownDtypeError

# Settings that act on a task only through its maps (only, layers, kinds, family, heads, window), or
# only on the report. Every other setting is part of the key, including any that is added later.
_ELSEWHERE = frozenset(
    {"only", "layers", "kinds", "family", "heads", "window", "fdr", "device", "edges"}
)


def task_keys(
    tasks: Iterable[Task], settings: Settings, weights: str
) -> Iterator[bytes]:  # 16 bytes each
    """The key of each task's result.

    Two tasks have the same key only if they compute the same: the same maps, norms and names, read
    from the same weights, under settings that are equivalent for them, with the same versions of
    flagscope and PyTorch, on the same kind of device (since rounding differs between devices).

    Parameters
    ----------
    tasks, settings
        Of the scan.
    weights
        From `weights_identity`.
    """
    used = settings.model_dump(mode="json", exclude=set(_ELSEWHERE))
    device = resolved_device(settings.device).type
    common = [weights, version("flagscope"), torch_version(), device, used]
    for task in tasks:
        edges = settings.edges if task.links else 0
        # Frozen records of names, numbers and ordered mappings: their repr is complete.
        # Health does not depend on the blocks in which a tensor is read.
        looks = ((look.tensor, look.shape, look.kind) for look in task.looks)
        content = repr((task.name, task.pairs, task.heads, task.links, *looks))
        text = json.dumps([*common, edges, content])
        yield hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def torch_version() -> str:
    """PyTorch's version with its build, since rounding differs between libraries."""
    return torch.__version__


def weights_identity(checkpoint: Checkpoint, fingerprint: str) -> str:
    """Digest that changes whenever the weights of a checkpoint change.

    A fingerprint samples the weights, so it may miss a change of one head. The digest adds the size
    and modification time of each file, or all bytes of tensors in memory. A checkpoint that is
    moved keeps its identity; a copy without the original times does not.

    Parameters
    ----------
    checkpoint
        An open checkpoint.
    fingerprint
        Its fingerprint.

    Examples
    --------
    >>> from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict
    >>> weight = torch.zeros(64, 256)
    >>> before = from_state_dict({"weight": weight})
    >>> fingerprint = checkpoint_fingerprint(before)
    >>> identity = weights_identity(before, fingerprint)
    >>> weight[10, 7] = 1.0
    >>> after = from_state_dict({"weight": weight})
    >>> fingerprint == checkpoint_fingerprint(after)
    True
    >>> identity == weights_identity(after, fingerprint)
    False
    """
    digest = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    for name, info in sorted(checkpoint.tensors.items()):
        # Equal values may differ in noise: dequantised values have that of their grid.
        digest.update(json.dumps([name, info.dtype, info.shape, info.quantised]).encode())
        if info.file is None:
            _add_bytes(digest, checkpoint, name)
    # States at opening time: a file that changed since then gives no result to store.
    digest.update(json.dumps(sorted(checkpoint.stamps.values())).encode())
    quantiser = (checkpoint.config or {}).get("quantization_config")
    digest.update(json.dumps(quantiser, default=str).encode())
    if checkpoint.group:  # two groups in a file may differ by less than a fingerprint samples
        digest.update(json.dumps(["group", checkpoint.group]).encode())
    return digest.hexdigest()


def _add_bytes(digest: hashlib.blake2b, checkpoint: Checkpoint, name: str) -> None:
    try:
        tensor = checkpoint.read(name)
    except UnknownDtypeError:
        return
    plain = tensor.cpu().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
