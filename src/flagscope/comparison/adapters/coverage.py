"""An adapter against its base alone: what finds its place, and what would change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.dtypes import torch_dtype
from flagscope.checkpoint.lora import AdapterWeights, TargetNames
from flagscope.comparison.adapters.blocks import Source
from flagscope.comparison.adapters.expected import missing_modules
from flagscope.comparison.adapters.replays import Added
from flagscope.comparison.adapters.roundings import STANDARD, roundings
from flagscope.comparison.adapters.targets import Target, adapter_targets, target_names
from flagscope.records.comparison.adapters import CoverageRecord, Fault, FaultCode, TargetCoverage

# Names that a fault lists.
LISTED = 10
_CODES: dict[str, tuple[FaultCode, str]] = {
    "no_target": ("names_match_nothing", "modules of the adapter match no tensor of the base"),
    "shape_mismatch": ("shape_mismatch", "modules have a change of another shape than the base's"),
    "unusable": ("unusable_factors", "modules have factors that do not belong together"),
    "zero_effect": ("zero_effect", "modules would change no stored number of the base"),
}


def adapter_coverage(adapter: AdapterWeights, base: Checkpoint) -> CoverageRecord:
    """What of an adapter fits a base, by names, shapes and values.

    Parameters
    ----------
    adapter, base
        Both stay open.

    Returns
    -------
    CoverageRecord

    Raises
    ------
    CorruptFileError
        If a factor holds NaN or infinity.
    """
    targets = adapter_targets(adapter, base)
    still = {
        target.module: reason
        for target in targets
        if target.status == "matched" and (reason := _without_effect(adapter, base, target))
    }
    return coverage_record(adapter, base, targets, still)


def adapter_dtype(adapter: AdapterWeights, target: Target) -> torch.dtype:
    """Type that a module's factors are stored in."""
    if target.factors is None:
        return torch.float32
    return torch_dtype(adapter.file.tensors[target.factors.b].dtype) or torch.float32


def _without_effect(adapter: AdapterWeights, base: Checkpoint, target: Target) -> str | None:
    """Why a module would change nothing, or None if it would."""
    if target.factors is None or target.tensor is None or target.factors.magnitude is not None:
        return None
    left, right = adapter.matrices(target.module)
    if target.factors.scaling == 0 or not left.any() or not right.any():
        return "the product of the factors is 0"
    source = Source(
        base, base, target.tensor, target.tensor, target.factors, left, right,
        adapter_dtype(adapter, target),
    )  # fmt: skip
    if not source.standard:
        return None
    kind = source.types[0]
    replay = Added(roundings(kind if kind in STANDARD else torch.float32, kind, source.dtype)[0])
    for block in source.blocks():
        replay.add(block)
        if replay.moved:
            return None
    return "the change lies below rounding in every entry"


def coverage_record(
    adapter: AdapterWeights,
    base: Checkpoint,
    targets: list[Target],
    still: Mapping[str, str],
) -> CoverageRecord:
    """The record, from modules whose effect is known."""
    modules = [_module(target, still.get(target.module)) for target in targets]
    names = target_names(base)
    fits = {name: names.found(name) for name in adapter.whole}
    missing, unsure = missing_modules(adapter, base, targets)
    prefix = _suggested_prefix(targets, names)
    return CoverageRecord(
        modules=modules,
        counts=dict(sorted(Counter(module.status for module in modules).items())),
        whole_matched=[name for name, fit in fits.items() if fit is not None],
        whole_unmatched=[name for name, fit in fits.items() if fit is None],
        token_rows=list(adapter.tokens),
        missing_modules=missing,
        suggested_prefix=prefix,
        variants=list(adapter.variants),
        cannot_tell=[*_unread(adapter, targets), *unsure],
        faults=_faults(modules, targets, missing, [n for n in fits if fits[n] is None], prefix),
    )


def _module(target: Target, still: str | None) -> TargetCoverage:
    factors = target.factors
    zero = still is not None and target.status == "matched"
    return TargetCoverage(
        module=target.module, tensor=target.tensor,
        rank=None if factors is None else factors.rank,
        scaling=None if factors is None else factors.scaling,
        status="zero_effect" if zero else target.status,
        detail=still if zero and still is not None else target.detail,
    )  # fmt: skip


def _unread(adapter: AdapterWeights, targets: list[Target]) -> list[str]:
    lines = [f"{variant}: what this changes is not replayed" for variant in adapter.variants
             if not variant.startswith("DoRA")]  # fmt: skip
    lines += adapter.doubts
    if adapter.unknown and not adapter.doubts:
        lines.append(
            f"{len(adapter.unknown)} tensors of the adapter are not known here and not looked at, "
            f"such as {adapter.unknown[0]}"
        )
    patterns = dict.fromkeys(t.factors.doubt for t in targets if t.factors and t.factors.doubt)
    lines += [
        f"the alpha_pattern {pattern[:80]!r} is not a name and was not run: modules that it "
        "matches have another scaling than is given here"
        for pattern in patterns
    ]
    lines += [
        f"{name}: rows of single tokens replace those of the base, which is not replayed"
        for name in adapter.tokens
    ]
    return lines


def _faults(
    modules: list[TargetCoverage],
    targets: list[Target],
    missing: list[str],
    whole: list[str],
    prefix: tuple[str, str] | None,
) -> list[Fault]:
    faults = []
    for status, (code, text) in _CODES.items():
        named = [module.module for module in modules if module.status == status]
        if named:
            faults.append(fault(code, f"{len(named)} of {len(modules)} {text}", named))
    if prefix is not None:
        named = [module.module for module in modules if module.status == "no_target"]
        faults.append(
            fault(
                "prefix_mismatch",
                f"names start with {prefix[0]!r} where the base has {prefix[1]!r}",
                named,
            )
        )
    faults += _prefix_faults(targets)
    if whole:
        faults.append(
            fault("whole_match_nothing", f"{len(whole)} tensors stored whole match nothing", whole)
        )
    if missing:
        text = f"the settings target {len(missing)} modules that the file has no factors for"
        faults.append(fault("module_missing", text, missing))
    return faults


def _prefix_faults(targets: list[Target]) -> list[Fault]:
    """Names that fit only when a prefix is added or left out, which loaders may not do."""
    found: dict[str, list[str]] = {}
    for target in targets:
        if target.status != "matched" or target.factors is None or target.tensor is None:
            continue
        name, tensor = target.factors.target, target.tensor
        if name == tensor:
            continue
        if name.endswith(tensor):
            text = f"{name.removesuffix(tensor)!r} is left out of them"
        elif not tensor.endswith(name):
            continue  # written with underscores, as all loaders of such files expect
        else:
            text = f"{tensor.removesuffix(name)!r} is put in front of them"
        found.setdefault(text, []).append(target.module)
    return [
        fault(
            "prefix_mismatch",
            f"{len(named)} names match the base's file only when {text}; a loader that takes them "
            "as they are does nothing, unless the model's class does the same",
            named,
        )
        for text, named in found.items()
    ]


def _suggested_prefix(targets: list[Target], names: TargetNames) -> tuple[str, str] | None:
    lost = [t for t in targets if t.status == "no_target" and t.factors is not None]
    pairs = Counter(
        pair for t in lost if t.factors and (pair := names.prefix(t.factors.target)) is not None
    )
    if not pairs:
        return None
    pair, count = pairs.most_common(1)[0]
    return pair if 2 * count > len(lost) else None


def fault(code: FaultCode, text: str, names: list[str]) -> Fault:
    """A fault of so many names, of which the first few are listed."""
    return Fault(code=code, text=text, names=names[:LISTED], count=len(names))
