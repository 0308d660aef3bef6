"""What an outcome rests on, what it cannot say, and what is wrong, each in a line."""

from __future__ import annotations

from flagscope.comparison.adapters.coverage import LISTED, fault
from flagscope.comparison.adapters.outcome import Seen, rank_scaled
from flagscope.records.comparison.adapters import (
    Fault,
    FaultCode,
    ModuleStatus,
    ReplayOutcome,
)

_SAID: dict[ModuleStatus, str] = {
    "applied": "are the base plus the adapter's change, up to rounding",
    "applied_and_more": "hold the adapter at strength 1 and something else",
    "not_applied": "are equal to the base's in every entry",
    "at_strength": "are the base plus another multiple of the adapter's change",
    "twice": "are the base plus two times the adapter's change",
    "other_scaling": "are the base plus the adapter's change at the other of α/r and α/√r",
    "subtracted": "are the base less the adapter's change",
    "exchanged": "are what the adapter's change would have to be added to for the base",
    "transposed": "are the base plus the transpose of the adapter's change",
    "requantised": "are the base plus the adapter's change, rounded to a coarser grid",
    "dora": "are the base plus the adapter's change with DoRA's magnitudes, up to rounding",
    "dora_without_magnitudes": "are the base plus the adapter's change without DoRA's magnitudes",
    "zero_effect": "would not be changed by the adapter in any stored number",
    "other_change": "differ from the base by something else than the adapter",
    "unclear": "fit several strengths, or none that has a name",
    "no_target": "have names that match no tensor of the base",
    "no_merged_tensor": "have no tensor in the merged model",
    "shape_mismatch": "have another shape",
    "unusable": "have factors that do not belong together",
    "not_replayed": "are of a kind that is not replayed",
    "not_finite": "hold NaN or infinity in the base or the merged model",
    "replaced": "are replaced by a tensor of another shape",
}
_FAULTY: dict[ReplayOutcome, tuple[FaultCode, str]] = {
    "not_applied": ("not_applied", "the merged model is the base: the adapter is not in it"),
    "applied_at_strength": ("other_strength", "the adapter is in it at another strength than 1"),
    "applied_twice": ("applied_twice", "the adapter is in it twice"),
    "partly": ("applied_partly", "only a part of the adapter is in it"),
    "other_scaling": ("other_scaling", "α/r was taken for α/√r, or the reverse"),
    "transposed": ("transposed", "the adapter's change was added transposed"),
    "subtracted": ("subtracted", "the adapter was subtracted"),
    "exchanged": ("exchanged", "base and merged model seem to be exchanged"),
    "not_unloaded": ("not_unloaded", "the merged file holds the adapter's factors unmerged"),
    "applied_and_more": ("changed_besides", "modules differ by more than the adapter"),
    "other_adapter": (
        "other_adapter",
        "the merged model differs by another adapter than this, or by other training",
    ),
    "other_base": ("other_base", "the merged model was made of another base, or trained further"),
    "other_change": ("other_change", "the merged model differs by something else"),
    "requantised": ("requantised", "the merged model was rounded to a coarser grid"),
    "dora_without_magnitudes": ("dora_without_magnitudes", "DoRA's magnitudes were left out"),
    "nothing_matches": ("nothing_matches", "no module of the adapter fits a tensor of the base"),
    "zero_effect": ("no_effect", "the adapter would change no stored number"),
}


def evidence(
    seen: Seen, kind: ReplayOutcome, strength: float | None, error: float | None
) -> list[str]:
    """What the outcome rests on, with numbers."""
    total = len(seen.modules)
    lines = []
    for status, said in _SAID.items():
        modules = [module for module in seen.modules if module.status == status]
        if modules:
            few = f": {_few([m.module for m in modules])}" if len(modules) < total else ""
            lines.append(f"{len(modules)} of {total} modules {said}{few}")
    entries = sum(m.entries for m in seen.active if m.entries_equal is not None)
    equal = sum(m.entries_equal or 0 for m in seen.active)
    outside = sum(m.entries_outside or 0 for m in seen.active)
    if entries and kind in ("applied", "partly"):
        lines.append(
            f"of {entries} entries the replay gives {equal} bit for bit, and {outside} cannot come "
            "from it in any order of summation"
        )
    if strength is not None and error is not None:
        lines.append(f"fitted strength {strength:.6g} ± {error:.2g} of the configured one")
    lines += _of_whole(seen)
    untouched = seen.untouched
    if untouched.changed:
        size = untouched.largest_relative
        lines.append(
            f"{untouched.changed} of {untouched.compared} tensors that the adapter does not touch "
            f"differ{'' if size is None else f', by up to {size:.2g} of their norm'}"
        )
    else:
        lines.append(f"{untouched.compared} tensors that the adapter does not touch are the same")
    if kind in ("other_adapter", "other_change") and seen.low_rank is not None:
        lines.append(
            "the change of the adapter's targets is "
            + ("of low rank, as an adapter's is" if seen.low_rank else "not of low rank")
        )
    if seen.not_unloaded:
        lines.append(f"{seen.not_unloaded} tensors of the merged file are factors of an adapter")
    return lines


def _of_whole(seen: Seen) -> list[str]:
    lines = []
    for status, said in (
        ("applied", "are in the merged model"),
        ("left_out", "are not: the merged model has the base's"),
        ("other", "are not, and neither are the base's"),
        ("same_as_base", "equal the base's"),
    ):
        names = [whole.name for whole in seen.whole if whole.status == status]
        if names:
            text = f"of the tensors that the adapter stores whole {said}: {_few(names)}"
            lines.append(f"{len(names)} {text}")
    return lines


def cannot_tell(seen: Seen, kind: ReplayOutcome) -> list[str]:
    """What was not looked at, or cannot be known."""
    lines = list(seen.coverage.cannot_tell)
    still = sum(module.status == "zero_effect" for module in seen.modules)
    if still and kind != "zero_effect":
        lines.append(f"whether {still} modules were merged: they change no stored number")
    if kind in ("applied_twice", "other_scaling", "applied_at_strength"):
        lines += _ambiguous(seen, kind)
    if kind == "subtracted":
        lines.append("whether the base and the merged model were given in the wrong order")
    if kind == "requantised":
        lines.append(
            "whether the error is that of rounding: noise of the same size on the same tensors "
            "looks alike"
        )
    if kind in ("other_adapter", "other_change") and seen.low_rank is None:
        lines.append("whether the change is of low rank: the tensors are too small to tell")
    lines += seen.untouched.not_compared
    if seen.untouched.only_base_count or seen.untouched.only_merged_count:
        lines.append(
            f"tensors in one model alone, which were not compared: "
            f"{seen.untouched.only_base_count} of the base, "
            f"{seen.untouched.only_merged_count} of the merged model"
        )
    return lines


def _ambiguous(seen: Seen, kind: ReplayOutcome) -> list[str]:
    ranks = {module.rank for module in seen.active}
    lines = []
    if kind != "other_scaling" and rank_scaled(seen.active):
        lines.append(
            f"α/√r in place of α/r gives the same strength at rank {min(r or 0 for r in ranks)}"
        )
    elif kind == "other_scaling" and len(ranks) == 1:
        lines.append("another α gives the same strength where all modules have one rank")
    if kind == "applied_at_strength":
        lines.append("a wrong α, or a weight given when adapters were joined, look alike")
    return lines


def faults(seen: Seen, kind: ReplayOutcome) -> list[Fault]:
    """What is wrong, with codes that stay."""
    shown = list(seen.coverage.faults)
    if kind in ("applied", "dora"):
        # The merge found the modules, so its names did fit.
        shown = [found for found in shown if found.code != "prefix_mismatch"]
    if kind in _FAULTY:
        code, text = _FAULTY[kind]
        named = [m.module for m in seen.active if m.status not in ("applied", "dora")]
        shown.insert(0, fault(code, text, named))
    odd = [m.module for m in seen.active if m.status == "applied" and m.entries_outside]
    if odd:
        text = "modules hold the adapter, and a few entries that cannot come from the merge"
        shown.append(fault("entries_differ", text, odd))
    out = [w.name for w in seen.whole if w.status in ("left_out", "other")]
    embeddings = _embeddings_left_out(seen)
    if embeddings or any("embed" in name or "lm_head" in name for name in out):
        text = "embeddings of the adapter are not in the merged model"
        shown.append(fault("embeddings_left_out", text, [*embeddings, *out]))
    elif out:
        text = "tensors that the adapter stores whole are not in the merged model"
        shown.append(fault("whole_left_out", text, out))
    untouched = seen.untouched
    if untouched.changed:
        shown.append(Fault(
            code="other_tensors_changed", text="tensors that the adapter does not touch differ",
            names=untouched.changed_names[:LISTED], count=untouched.changed,
        ))  # fmt: skip
    return shown


def _embeddings_left_out(seen: Seen) -> list[str]:
    """Modules not applied that are embeddings, where others are applied."""
    out = [m.module for m in seen.active if m.status == "not_applied"]
    return [name for name in out if "embed" in name or name.rpartition(".")[2] in ("wte", "wpe")]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
