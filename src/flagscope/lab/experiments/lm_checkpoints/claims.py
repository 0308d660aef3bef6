"""Claims of the language-model experiment: predictions and rules, fixed before measuring.

Every estimate is a mean over seeds, of paired differences if it compares two arms, except for the
share of head groups flagged at the start; the rule is that of `flagscope.lab.claim`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from flagscope.lab.claim import Claim
from flagscope.lab.experiment import Estimate
from flagscope.lab.experiments.lm_checkpoints.runs import (
    Arm,
    ArmRuns,
    Values,
    at_end,
    at_loss,
    layer_mean,
    less,
    rise,
)
from flagscope.lab.gpt_alignment import LINEAR, SPACES
from flagscope.lab.intervals import SHARE, share_interval

_NAMES = {"qk": "Q-K", "ov": "V-O", "mlp": "MLP"}
_LETTERS = {"C": "C", "nu": "ν"}
_CONTROLS = ("shuffled", "random")
_LEVEL = 0.05
# Momentum and finite steps change the law of gradient flow by less than this at the rates used.
_LAW_TOLERANCE = 0.1
# An optimiser breaks the law if the final A - B is twice the law's prediction.
_BROKEN = 2.0

Measure = Callable[[ArmRuns], list[Estimate]]


def _joined(parts: Iterable[list[Estimate]]) -> list[Estimate]:
    return [estimate for group in parts for estimate in group]


def _decays(arm: Arm = Arm()) -> list[tuple[str, Arm]]:  # noqa: B008 (frozen)
    """An arm with and without weight decay, with names."""
    return [
        (name, Arm(arm.optimizer, arm.task, decayed))
        for name, decayed in (("decay", True), ("no decay", False))
    ]


def _linear_commute_more(letter: str) -> Measure:
    def difference(kind: str) -> Callable[[Values], float | None]:
        mlp, linear = at_end(f"{letter}_mlp"), at_end(f"{letter}_{kind}")
        return lambda values: less(mlp(values), linear(values))

    symbol = _LETTERS[letter]
    return lambda runs: _joined(
        runs.mean(f"{symbol} of MLP less {_NAMES[kind]}, {name}", arm, difference(kind))
        for kind in LINEAR
        for name, arm in _decays()
    )


def _falls(quantity: str, symbol: str) -> Measure:
    def fall(kind: str) -> Callable[[Values], float | None]:
        start_to_end = rise(f"{quantity}_{kind}")
        return lambda values: less(0.0, start_to_end(values))

    return lambda runs: _joined(
        runs.mean(f"fall of {symbol}, {_NAMES[kind]}, {name}", arm, fall(kind))
        for kind in LINEAR
        for name, arm in _decays()
    )


def _rises(space: str, arm: Arm) -> Measure:
    return lambda runs: _joined(
        runs.mean(f"rise of R_{space.upper()}, {name}", decay, rise(f"R_{space}"))
        for name, decay in _decays(arm)
    )


def _beyond_controls(quantity: str, symbol: str, sign: int) -> Measure:
    """`sign` times the final value on real text minus that on a control; positive as predicted."""

    def signed(values: Values) -> float | None:
        value = layer_mean(values, quantity, -1)
        return None if value is None else sign * value

    return lambda runs: _joined(
        runs.difference(
            f"{symbol}, {'real less ' + task if sign > 0 else task + ' less real'}, {name}",
            arm,
            Arm(arm.optimizer, task, arm.decayed),
            signed,
        )
        for task in _CONTROLS
        for name, arm in _decays()
    )


def rejected(values: Values, index: int) -> list[bool]:
    """For each head group of a checkpoint, whether the Haar null rejects it at 5 %."""
    tests = [p for space in SPACES for p in values["series"][f"log10_p_{space}"][index]]
    return [p < math.log10(_LEVEL) for p in tests if p is not None]


def flagged(values: Values, index: int) -> float:
    """Fraction of a checkpoint's head groups that the Haar null rejects at 5 %."""
    known = rejected(values, index)
    return sum(known) / len(known)


def _flagged_controls(runs: ArmRuns) -> list[Estimate]:
    return _joined(
        runs.mean(
            f"flagged on {task} text, {name}", arm, lambda values: flagged(values, -1), bounds=SHARE
        )
        for task in _CONTROLS
        for name, arm in _decays(Arm(task=task))
    )


def _flagged_starts(runs: ArmRuns) -> list[Estimate]:
    """Share of groups flagged at the start, each of which is a trial, as maps are independent."""
    flags = [flag for values in runs.of(Arm()).values() for flag in rejected(values, 0)]
    return [share_interval("flagged at step 0", flags)] if flags else []


def _decay_effect(quantities: dict[str, str], sign: int) -> Measure:
    """Effect of weight decay on quantities; positive if it has the given sign."""

    def signed(name: str) -> Callable[[Values], float | None]:
        end = at_end(name)
        return lambda values: less(0.0, end(values)) if sign < 0 else end(values)

    words = "decay less none" if sign > 0 else "none less decay"
    return lambda runs: _joined(
        runs.difference(f"{symbol}, {words}", Arm(), Arm(decayed=False), signed(name))
        for name, symbol in quantities.items()
    )


def _sgd_commutes_more(runs: ArmRuns) -> list[Estimate]:
    def matched(name: str) -> Callable[[Values, Values], float | None]:
        def difference(adamw: Values, sgd: Values) -> float | None:
            there = at_loss(adamw, name, sgd["loss"][-1])
            return less(there, layer_mean(sgd, name, -1))

        return difference

    adamw, sgd = Arm("adamw"), Arm("sgd")
    return _joined(
        runs.difference(
            f"C of {_NAMES[kind]}, AdamW less SGD, same steps", adamw, sgd, at_end(f"C_{kind}")
        )
        + runs.contrast(
            f"C of {_NAMES[kind]}, AdamW less SGD, same loss", adamw, sgd, matched(f"C_{kind}")
        )
        for kind in LINEAR
    )


def _conserved(arms: Sequence[tuple[str, Arm]]) -> Measure:
    """Final ‖A - B‖ over the law's prediction."""

    def ratio(kind: str) -> Callable[[Values], float | None]:
        def of(values: Values) -> float | None:
            start, end = (layer_mean(values, f"conserved_{kind}", i) for i in (0, -1))
            return None if not start or end is None else end / start / values["law"][-1]

        return of

    return lambda runs: _joined(
        runs.mean(f"‖A - B‖ over the law, {_NAMES[kind]}, {name}", arm, ratio(kind))
        for kind in LINEAR
        for name, arm in arms
    )


_LINEAR_C = {f"C_{kind}": f"C of {_NAMES[kind]}" for kind in LINEAR}
_PRODUCTS = {f"product_rank_{kind}": f"effective rank of {_NAMES[kind]}" for kind in LINEAR}
_ALL_R = {f"R_{space}": f"R_{space.upper()}" for space in SPACES}

# The paper says that activations obstruct alignment, that its diagnostics find alignment in
# language models, and, as a limitation, that the Haar null may flag any training.
_PAPERS: tuple[Claim[ArmRuns], ...] = (
    *(
        Claim(
            f"Linear pairs (Q-K, V-O) commute more than MLP pairs under AdamW, by {symbol}.",
            f"{symbol} of MLP pairs less {symbol} of linear pairs is positive",
            "prototype figures of theory §4; the paper's activations-obstruct claim",
            _linear_commute_more(letter),
        )
        for letter, symbol in _LETTERS.items()
    ),
    *(
        Claim(
            f"R of the {space.upper()} spaces rises above its own initialisation.",
            "the end value less the initial value is positive",
            "prototype figures of theory §4",
            _rises(space, Arm()),
        )
        for space in SPACES
    ),
    Claim(
        "The Haar null flags a training that teaches nothing (a limitation).",
        "it flags more than 5 % of the head groups of the controls, at the level 5 %",
        "theory §6, limitations",
        _flagged_controls,
        _LEVEL,
        1.0,
    ),
)

_FURTHER: tuple[Claim[ArmRuns], ...] = (
    Claim(
        "Linear pairs come to commute more than at their initialisation under AdamW.",
        "C falls from its initial value of about 1",
        "prototype figures of theory §4",
        _falls("C", "C"),
    ),
    *(
        Claim(
            f"R of the {space.upper()} spaces rises above the controls on destroyed text.",
            "real less shuffled and real less random are positive",
            "theory §5 (stronger nulls) and §6 (controls)",
            _beyond_controls(f"R_{space}", f"R_{space.upper()}", 1),
        )
        for space in SPACES
    ),
    Claim(
        "The Haar null is calibrated at the initialisation.",
        "it flags no more than a tenth of the head groups at step 0, at the level 5 %",
        "theory §5",
        _flagged_starts,
        0.0,
        0.1,
    ),
    Claim(
        "Weight decay makes linear pairs commute more.",
        "C without decay less C with it is positive",
        "theory §4: decay shrinks A - B",
        _decay_effect(_LINEAR_C, -1),
    ),
    Claim(
        "Weight decay raises the heads' overlap.",
        "R with decay less R without is positive",
        "carried over from the paper's adjacent layers, whose spaces ridge aligns",
        _decay_effect(_ALL_R, 1),
    ),
    Claim(
        "Weight decay lowers the effective rank of what the linear pairs compute.",
        "the participation ratio of W2 W1 without decay less that with it is positive",
        "an L2 penalty on factors is a nuclear-norm penalty on their product",
        _decay_effect(_PRODUCTS, -1),
    ),
    Claim(
        "Under SGD linear pairs commute more than under AdamW.",
        "C under AdamW less C under SGD is positive, at equal steps and at equal held-out loss",
        "theory §4: SGD keeps the conservation law, AdamW breaks it",
        _sgd_commutes_more,
    ),
    *(
        Claim(
            f"R of the {space.upper()} spaces rises under SGD too.",
            "the end value less the initial value is positive",
            "the rise is not AdamW's doing",
            _rises(space, Arm("sgd")),
        )
        for space in SPACES
    ),
    *(
        Claim(
            f"SGD with momentum {rate} keeps the conservation law of Q-K and V-O.",
            "‖A - B‖, biases included, over its law (e^-2λt for gradient flow) is 1 within a tenth",
            "theory §4",
            _conserved(arms),
            1 - _LAW_TOLERANCE,
            1 + _LAW_TOLERANCE,
        )
        for rate, arms in (
            ("at a rate that trains well", _decays(Arm("sgd"))),
            ("at a thirtieth of that rate", [("no decay", Arm("sgd", decayed=False, slow=True))]),
        )
    ),
    Claim(
        "AdamW breaks the conservation law of Q-K and V-O.",
        "‖A - B‖ ends at more than twice what the law leaves of it",
        "theory §4",
        _conserved(_decays()),
        _BROKEN,
    ),
    Claim(
        "Training lowers the effective rank of Q-K and V-O products, which no gauge can move.",
        "the participation ratio of W2 W1 falls from its initial value",
        "theory §2.4 (functional against gauge)",
        _falls("product_rank", "effective rank"),
    ),
    *(
        Claim(
            f"Real text leaves {_NAMES[kind]} products of lower effective rank than the controls.",
            "shuffled less real and random less real are positive",
            "theory §5 (stronger nulls)",
            _beyond_controls(f"product_rank_{kind}", f"effective rank of {_NAMES[kind]}", -1),
        )
        for kind in LINEAR
    ),
)

CLAIMS = (*_PAPERS, *(replace(claim, beyond=True) for claim in _FURTHER))
