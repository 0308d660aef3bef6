"""The verdict where an adapter takes part: merged into a model or not, fitting or not."""

from __future__ import annotations

import json
from importlib import resources

from flagscope.records.comparison import (
    SIDE_A,
    SIDE_B,
    AdapterPairRecord,
    CoverageRecord,
    ReplayRecord,
    Verdict,
    VerdictCode,
)
from flagscope.report.wording import counted, number

_OF_OUTCOME: dict[str, tuple[VerdictCode, str]] = {
    "applied": ("adapter-applied", "the adapter is merged into B at its configured strength"),
    "not_applied": ("adapter-not-applied", "the adapter is not applied: B has A's weights"),
    "applied_at_strength": (
        "adapter-applied-at-strength",
        "the adapter is merged into B at another strength than its configured one",
    ),
    "applied_twice": ("adapter-applied-twice", "the adapter is merged into B twice"),
    "partly": ("adapter-partly", "the adapter is merged into B in part"),
    "other_scaling": (
        "adapter-other-scaling",
        "the adapter is merged into B with another scaling than its settings say",
    ),
    "transposed": ("adapter-transposed", "the adapter's product is merged into B transposed"),
    "subtracted": (
        "adapter-subtracted",
        "B is A less the adapter: it was subtracted, or A and B are given in the wrong order",
    ),
    "exchanged": (
        "adapter-exchanged",
        "A is the merged model and B its base: give them in the other order",
    ),
    "not_unloaded": (
        "adapter-not-unloaded",
        "B holds the base's weights and the adapter's factors next to them, not merged",
    ),
    "applied_and_more": (
        "adapter-applied-and-more",
        "the adapter is merged into B, and B changed further",
    ),
    "other_adapter": (
        "adapter-other-adapter",
        "B differs from A, and not by this adapter: by another one, or by training of some tensors",
    ),
    "other_base": (
        "adapter-other-base",
        "A is not the model that B was made of, or B was trained further",
    ),
    "other_change": (
        "adapter-other-change",
        "B differs from A by something else than this adapter",
    ),
    "requantised": (
        "adapter-requantised",
        "the adapter is merged into B, which was rounded to a coarser type afterwards",
    ),
    "dora": ("adapter-dora", "the adapter is a DoRA, and B holds it with its magnitudes"),
    "dora_without_magnitudes": (
        "adapter-dora-without-magnitudes",
        "the adapter is a DoRA, and B was merged without its magnitudes, as if it were a LoRA",
    ),
    "nothing_matches": (
        "adapter-nothing-matches",
        "none of the adapter's modules fits a tensor of A: loading it does nothing, or fails",
    ),
    "zero_effect": (
        "adapter-zero-effect",
        "the adapter would change no stored number of A: it does nothing",
    ),
    "unclear": ("adapter-unclear", "it is unclear whether the adapter is merged into B"),
}


def verdict_of_replay(replay: ReplayRecord) -> Verdict:
    """The verdict on a model that may hold an adapter."""
    code, text = _OF_OUTCOME[replay.outcome]
    if replay.outcome in ("applied", "partly", "applied_at_strength", "other_scaling"):
        held = sum(replay.counts.get(status, 0) for status in _HELD)
        text += f" ({held:,} of {counted(len(replay.modules), 'module')}{_strength(replay)})"
    return Verdict(
        code=code,
        text=text,
        evidence=(*replay.evidence, *(fault.text for fault in replay.faults)),
        cannot_tell=tuple(replay.cannot_tell),
    )


_HELD = (
    "applied", "applied_and_more", "at_strength", "twice", "other_scaling", "replaced", "dora"
)  # fmt: skip


def _strength(replay: ReplayRecord) -> str:
    if replay.strength is None:
        return ""
    error = replay.standard_error
    return f", strength {number(replay.strength, 4)}" + (f" ± {number(error, 1)}" if error else "")


def verdict_of_coverage(coverage: CoverageRecord) -> Verdict:
    """The verdict on a model and an adapter for it."""
    matched = coverage.counts.get("matched", 0) + len(coverage.whole_matched)
    idle = coverage.counts.get("zero_effect", 0)
    every = len(coverage.modules) + len(coverage.whole_matched) + len(coverage.whole_unmatched)
    code: VerdictCode
    found = f"{matched:,} of {counted(every, 'module')}"
    if matched == 0 and idle == 0:
        code = "adapter-nothing-matches"
        text = "the adapter does not fit: none of its modules can be added to a tensor of the model"
    elif matched == 0:
        code = "adapter-zero-effect"
        text = "the adapter would change no stored number of the model"
    elif matched == every and not coverage.missing_modules:
        code, text = "adapter-fits", f"the adapter fits: {found} find a tensor of the model"
    else:
        code, text = "adapter-fits-partly", f"the adapter fits in part: {found} change a tensor"
    return Verdict(
        code=code,
        text=text,
        evidence=tuple(fault.text for fault in coverage.faults),
        cannot_tell=tuple(coverage.cannot_tell),
    )


_OF_PAIR: dict[str, tuple[VerdictCode, str]] = {
    "same": ("adapters-same", "the two adapters make the same change"),
    "shared_beyond_start": (
        "adapters-shared-beyond-start",
        "the two adapters share more than chance and a common initialisation explain",
    ),
    "shared_by_start": (
        "adapters-shared-by-start",
        "the two adapters overlap because they started from the same random numbers, and no "
        "further",
    ),
    "chance": ("adapters-chance", "the two adapters overlap no more than by chance"),
    "nothing_in_common": (
        "adapters-nothing-in-common",
        "the two adapters change no module in common",
    ),
    "unclear": ("adapters-unclear", "it is unclear what the two adapters share"),
}


def _on_merging() -> str:
    """What the laboratory found of numbers of weights as predictors of what a merge costs."""
    place = resources.files("flagscope.report.comparison") / "merge_predictors.json"
    found = json.loads(place.read_text("utf-8"))
    data = {entry["name"] for entry in found["predictors"] if entry["needs_data"]}
    told = [v for v in found["verdicts"] if v["predictor"] not in data and v["tuning"] == "lora"]
    jointly = sum(verdict["predicts_jointly"] for verdict in told)
    singly = sum(verdict["predicts"] for verdict in told)
    return (
        "whether a merge of the two harms either, so no conflict is called: of the "
        f"{len(told)} combinations of a number of weights and a merge that the laboratory tried on "
        f"adapters, {singly} predicted the loss taken one by one and {jointly} taken together "
        "(merge-prediction)"
    )


def verdict_of_adapters(pair: AdapterPairRecord) -> Verdict:
    """The verdict on two adapters, with letters of sides still to be put in."""
    code, text = _OF_PAIR[pair.outcome]
    if pair.modules and pair.energy_cosine is not None:
        text += f" ({counted(len(pair.modules), 'module')}, energy cosine "
        text += number(pair.energy_cosine)
        left = pair.energy_cosine_left
        if left is not None and pair.outcome in ("shared_by_start", "shared_beyond_start"):
            text += f", {number(left)} with the common start taken out"
        text += ")"
    faults = (
        *(f"{SIDE_A}: {fault.text} ({fault.count:,})" for fault in pair.faults_a),
        *(f"{SIDE_B}: {fault.text} ({fault.count:,})" for fault in pair.faults_b),
    )
    return Verdict(
        code=code,
        text=text,
        evidence=(*pair.evidence, *faults),
        cannot_tell=(_on_merging(), *pair.cannot_tell),
    )
