"""PEFT's merge of an adapter replayed, and what it says of the merged model."""

from __future__ import annotations

from collections import Counter
from functools import partial

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.lora import AdapterWeights, TargetNames
from flagscope.comparison.adapters.blocks import Source
from flagscope.comparison.adapters.coverage import adapter_dtype, coverage_record
from flagscope.comparison.adapters.evidence import cannot_tell, evidence, faults
from flagscope.comparison.adapters.low_rank import is_low_rank
from flagscope.comparison.adapters.module import measured
from flagscope.comparison.adapters.outcome import Seen, outcome, pooled_strength
from flagscope.comparison.adapters.status import module_record
from flagscope.comparison.adapters.targets import Target, adapter_targets, merged_name, target_names
from flagscope.comparison.adapters.untouched import untouched_record, whole_records
from flagscope.comparison.in_order import in_order
from flagscope.engine import Progress
from flagscope.records.comparison.adapters import ModuleReplay, ReplayRecord

# Modules whose change is looked at for low rank.
_LOOKED_AT = 4


def replayed_merge(
    base: Checkpoint,
    merged: Checkpoint,
    adapter: AdapterWeights,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> ReplayRecord:
    """Whether, how and at which strength a merged model holds an adapter.

    Every module's merge is replayed in the rounding of PEFT's `merge_and_unload`, and its strength
    fitted. A block of a tensor of each side is in memory at a time, for each worker.

    Parameters
    ----------
    base, merged, adapter
        All stay open.
    workers
        Modules measured at a time.
    progress
        Called with modules done, modules in all, and the name of the one that was done.

    Returns
    -------
    ReplayRecord

    Raises
    ------
    CorruptFileError
        If a factor holds NaN or infinity, or a file is damaged.

    References
    ----------
    Hu et al., "LoRA", arXiv 2106.09685; Liu et al., "DoRA", arXiv 2402.09353; N. J. Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd edition, 2002, section 3.1.
    """
    targets = adapter_targets(adapter, base)
    names = target_names(merged)
    work = [
        (target.module, partial(_module, target, base, merged, adapter, names))
        for target in targets
    ]
    done = list(in_order(work, workers=workers, progress=progress))
    still = {m.module: m.detail for m in done if m.status == "zero_effect"}
    seen = Seen(
        modules=done,
        whole=whole_records(adapter, base, merged),
        untouched=untouched_record(adapter, base, merged, targets),
        coverage=coverage_record(adapter, base, targets, still),
        not_unloaded=sum(".lora_" in name for name in merged.tensors),
        low_rank=_low_rank(done, targets, base, merged, adapter, names),
    )
    kind = outcome(seen)
    strength, error = pooled_strength(seen.active)
    return ReplayRecord(
        outcome=kind, strength=strength, standard_error=error,
        modules=done, counts=dict(sorted(Counter(m.status for m in done).items())),
        whole=list(seen.whole), untouched=seen.untouched, coverage=seen.coverage,
        evidence=evidence(seen, kind, strength, error), cannot_tell=cannot_tell(seen, kind),
        faults=faults(seen, kind),
    )  # fmt: skip


def _module(
    target: Target,
    base: Checkpoint,
    merged: Checkpoint,
    adapter: AdapterWeights,
    names: TargetNames,
) -> ModuleReplay:
    source = _source(target, base, merged, adapter, names)
    if isinstance(source, ModuleReplay):
        return source
    return module_record(source, measured(source))


def _source(
    target: Target,
    base: Checkpoint,
    merged: Checkpoint,
    adapter: AdapterWeights,
    names: TargetNames,
) -> Source | ModuleReplay:
    """What to measure, or why nothing is."""
    factors, tensor = target.factors, target.tensor
    plain = ModuleReplay(
        module=target.module, tensor=tensor, merged_tensor=None,
        rank=None if factors is None else factors.rank,
        scaling=None if factors is None else factors.scaling,
        status="unclear", detail=target.detail,
    )  # fmt: skip
    if factors is None or tensor is None or target.status != "matched":
        status = "unusable" if target.status == "matched" else target.status
        return plain.model_copy(update={"status": status})
    other = merged_name(tensor, names)
    if other is None:
        return plain.model_copy(
            update={"status": "no_merged_tensor", "detail": "the merged model has no such tensor"}
        )
    plain = plain.model_copy(update={"merged_tensor": other})
    shapes = base.tensors[tensor].shape, merged.tensors[other].shape
    if shapes[0] != shapes[1]:
        detail = f"the merged model's tensor has shape {shapes[1]}, the base's {shapes[0]}"
        return plain.model_copy(update={"status": "shape_mismatch", "detail": detail})
    copy = adapter.whole.get(factors.target)
    if copy is not None and adapter.file.tensors[copy].shape != shapes[0]:
        detail = "the adapter's own copy of the tensor has another shape"
        return plain.model_copy(update={"status": "replaced", "detail": detail})
    left, right = adapter.matrices(target.module)
    magnitude = None if factors.magnitude is None else adapter.values(factors.magnitude).flatten()
    return Source(
        base, merged, tensor, other, factors, left, right, adapter_dtype(adapter, target),
        replaced=None if copy is None else adapter.file.read(copy), magnitude=magnitude,
    )  # fmt: skip


def _low_rank(
    modules: list[ModuleReplay],
    targets: list[Target],
    base: Checkpoint,
    merged: Checkpoint,
    adapter: AdapterWeights,
    names: TargetNames,
) -> bool | None:
    """Whether changes that the adapter does not explain are of low rank; None if not known."""
    odd = {m.module for m in modules if m.status in ("other_change", "applied_and_more")}
    found = []
    for target in [target for target in targets if target.module in odd][:_LOOKED_AT]:
        source = _source(target, base, merged, adapter, names)
        if isinstance(source, Source):
            found.append(is_low_rank(source))
    known = [value for value in found if value is not None]
    return all(known) if known else None
