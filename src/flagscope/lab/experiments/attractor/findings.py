"""Predictions of the experiment on the attractor of ridge, and the rules of its verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.lab.experiment import Finding, Measured, Prediction, beyond_the_paper
from flagscope.lab.experiments.attractor.limits import (
    optimal_threshold,
    survival_threshold,
)
from flagscope.lab.experiments.attractor.orbit_findings import (
    agree,
    kempf_ness_finding,
    moment_finding,
)
from flagscope.lab.experiments.attractor.records import (
    DERIVED,
    ROUND_OFF,
    SINE,
    SOURCE,
    STRENGTHS,
    Run,
)
from flagscope.lab.shares import exact_finding


def findings(measured: Sequence[Measured]) -> tuple[Finding, ...]:
    """One finding for each statement.

    The paper claims flags, V contained in U, and the squared norm of a moment map. It is not known
    to claim that V is a proper subspace of U, so the strict flag does not count against it.
    """
    runs: dict[str, list[Run]] = {}
    for m in measured:
        runs_of_kind = runs.setdefault(m.cell.settings["kind"], [])
        strength = m.values.get("largest_strength", 0.0)
        runs_of_kind += [Run(m.cell.settings, values, strength) for values in m.values["runs"]]
    shallow, deep = (
        [run for run in runs["whitened"] if run.settings["depth"] == depth] for depth in (2, 3)
    )
    return (
        *beyond_the_paper(_ranks(shallow), _deep_values(deep), _deep_start(deep, runs["small"])),
        _aligned([*shallow, *deep, *runs["images"]]),
        *beyond_the_paper(
            _strict(runs), _convex(runs["images"]), kempf_ness_finding(runs["orbits"], shallow)
        ),
        moment_finding(runs["orbits"]),
        *beyond_the_paper(
            _without_ridge(runs["no ridge"], [f for f in runs["flag"] if not f.settings["decay"]]),
            _without_loss(runs["no loss"]),
        ),
    )


def _close(values: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether the leading values agree with the expected ones, and all others vanish."""
    padded = [*expected, *[0.0] * (len(values) - len(expected))]
    return all(abs(a - b) < ROUND_OFF for a, b in zip(values, padded, strict=True))


def _gap(runs: Sequence[Run]) -> str:
    """Text on the gap between the values that died and those that survived."""
    dead = max(run["largest_dead"] for run in runs if run["largest_dead"] is not None)
    alive = min(run["least_alive"] for run in runs if run["least_alive"] is not None)
    return (
        f"Singular values of layers that count as 0 are at most {dead:.0e}, others at least "
        f"{alive:.2f}."
    )


def _ranks(shallow: Sequence[Run]) -> Finding:
    decays = sorted({run.settings["decay"] for run in shallow})
    return exact_finding(
        "Depth 2: a direction of strength t survives exactly if t > λ, with singular value t - λ; "
        "the ranks of W1, W2 and W2 W1 fall together as λ grows.",
        Prediction(
            "whitened inputs: singular values max(0, t - λ) of W2 W1, all three ranks equal to the "
            "number of t > λ",
            1.0,
            f"{DERIVED}: soft thresholding",
        ),
        {
            "runs with all three ranks as predicted": [
                set(run.all_ranks) == {len(run.survivors)} for run in shallow
            ],
            f"runs with all singular values as predicted within {ROUND_OFF:g}": [
                _close(run["values"], run.survivors) for run in shallow
            ],
        },
        f"λ = {', '.join(f'{x:g}' for x in decays)} leave ranks "
        f"{', '.join(str(_common_rank(shallow, x)) for x in decays)}. {_gap(shallow)}",
    )


def _common_rank(runs: Sequence[Run], decay: float) -> str:
    ranks = {r for run in runs if run.settings["decay"] == decay for r in run.all_ranks}
    return " or ".join(map(str, sorted(ranks)))


def _deep_values(deep: Sequence[Run]) -> Finding:
    decays = sorted({run.settings["decay"] for run in deep})
    between = sum(
        survival_threshold(x, 3) < t < optimal_threshold(x, 3) for x in decays for t in STRENGTHS
    )
    return exact_finding(
        "Depth 3: what survives has the larger root of σ⁴ - tσ + λ = 0 in every layer, and no "
        "direction weaker than 4 (λ/3)^{3/4} survives.",
        Prediction(
            "whitened inputs: every singular value of the product is σ³ of a strength beyond the "
            "threshold, each strength once, or 0; the ranks of all layers and of the product agree",
            1.0,
            DERIVED,
        ),
        {
            "runs whose layers and product have one rank": [
                len(set(run.all_ranks)) == 1 for run in deep
            ],
            f"runs whose singular values are roots or 0 within {ROUND_OFF:g}": [
                _are_roots(run) for run in deep
            ],
            "runs with no more survivors than strengths beyond the threshold": [
                run["rank_of_product"] <= len(run.survivors) for run in deep
            ],
        },
        f"λ = {', '.join(f'{x:g}' for x in decays)} leave ranks "
        f"{', '.join(_common_rank(deep, x) for x in decays)}. {_gap(deep)} {between} pairs of "
        "strength and λ lie between that threshold and 2 λ^{3/4}, where dying would cost less.",
    )


def _are_roots(run: Run) -> bool:
    """Whether the non-zero values are a subset of the survivors' closed forms."""
    left = list(run.survivors)
    for value in run["values"]:
        if value < ROUND_OFF:
            continue
        root = next((x for x in left if abs(x - value) < ROUND_OFF), None)
        if root is None:
            return False
        left.remove(root)
    return True


def _deep_start(deep: Sequence[Run], small: Sequence[Run]) -> Finding:
    """Finding on strength as a necessary and sufficient condition, tested by small starts."""
    trapped = [
        norm * (run.strength + norm**3) < run.settings["decay"]
        for run in small
        for norm in [run["norm_start"]]
    ]
    return exact_finding(
        "Depth 3: beyond the threshold strength alone decides what survives.",
        Prediction(
            "no: σ = 0 attracts at every λ > 0, and from layers of spectral norm w with w (t + w³) "
            "< λ everything dies, however strong",
            None,
            DERIVED,
        ),
        {
            "usual starts: all strengths beyond the threshold survive": [
                run["rank_of_product"] == len(run.survivors) for run in deep
            ],
            "small starts: all strengths beyond the threshold survive": [
                run["rank_of_product"] == len(run.survivors) for run in small
            ],
        },
        f"Of {len(small)} small starts, {sum(trapped)} of which obey the bound, "
        f"{sum(max(run.all_ranks) == 0 for run in small)} end at 0 in all layers, at values of λ "
        "where usual starts keep directions. Ranks at depth 3 depend on λ and on the start.",
    )


def _aligned(runs: Sequence[Run]) -> Finding:
    alive = [run for run in runs if max(run.all_ranks)]
    imbalances = [max(run["imbalance"]) for run in alive]
    sines = [max(x for x in run["sines"] if x is not None) for run in alive]
    return exact_finding(
        "Ridge ends at flags: at the end A = B and V = U for every pair of adjacent layers.",
        Prediction(
            f"‖A - B‖ / (‖A‖ + ‖B‖) < {ROUND_OFF:g}, equal dimensions and largest sine < {SINE:g}",
            0.0,
            SOURCE,
        ),
        {
            "runs with A = B": [x < ROUND_OFF for x in imbalances],
            "runs with V = U": [
                x < SINE and len(set(run.all_ranks)) == 1
                for x, run in zip(sines, alive, strict=True)
            ],
        },
        f"Depths 2 and 3, whitened inputs and images; {len(runs) - len(alive)} runs are left out, "
        f"in which everything died. Largest relative imbalance {max(imbalances):.0e}, largest sine "
        f"{max(sines):.0e}.",
    )


def _strict(runs: dict[str, list[Run]]) -> Finding:
    ended = [*runs["whitened"], *runs["small"], *runs["images"]]
    # If everything died, there is no flag.
    ridge = [run for run in ended if max(run.all_ranks)]
    planted = [run for run in runs["flag"] if run.settings["decay"]]
    recognised = sum(all(run["strict_flags_start"]) for run in planted)
    write, read = planted[0]["ranks_start"]
    left = [f"{run['ranks'][0]} = {run['ranks'][1]}" for run in planted]
    return exact_finding(
        "A strict flag, V in U and not all of it, is an end of ridge descent.",
        Prediction(
            "never: no run ends at one, and runs that start at one leave it for V = U",
            0.0,
            SOURCE,
        ),
        {
            "runs from random starts that end at a strict flag": [
                any(run["strict_flags"]) for run in ridge
            ],
            "runs from a planted strict flag that end at one": [
                any(run["strict_flags"]) for run in planted
            ],
        },
        f"{recognised} of {len(planted)} planted starts are recognised as strict flags, dim V = "
        f"{write} and dim U = {read}. They end at dim V = dim U: {', '.join(sorted(set(left)))}. "
        "What U has beyond V is read for nothing, and ridge lets it die. V = U is a flag too, the "
        "one kind that ridge leads to.",
    )


def _convex(images: Sequence[Run]) -> Finding:
    decays = sorted({run.settings["decay"] for run in images})
    strength = images[0].strength
    return exact_finding(
        "Without whitening, depth 2 ends at the minimum of the loss plus λ times the nuclear norm "
        "of W2 W1; everything dies exactly if λ ≥ ‖E y xᵀ‖.",
        Prediction(
            f"R = E y xᵀ - M E x xᵀ has ‖R‖ ≤ λ and λ ‖M‖_* - ⟨R, M⟩, which bounds the excess over "
            f"the minimum, is 0, within {ROUND_OFF:g}",
            0.0,
            f"{DERIVED}; Srebro, Rennie and Jaakkola (2004)",
        ),
        {
            "runs certified as minima": [
                run["residual_excess"] < ROUND_OFF and abs(run["gap"]) < ROUND_OFF for run in images
            ],
            "runs with one rank of W1, W2 and W2 W1": [
                len(set(run.all_ranks)) == 1 for run in images
            ],
            "runs that die exactly if λ ≥ ‖E y xᵀ‖": [
                (max(run.all_ranks) == 0) == (run.settings["decay"] >= run.strength)
                for run in images
            ],
        },
        f"‖E y xᵀ‖ = {strength:.4f}; λ = {', '.join(f'{x:g}' for x in decays)} leave ranks "
        f"{', '.join(_common_rank(images, x) for x in decays)}.",
    )


def _without_ridge(plain: Sequence[Run], flags: Sequence[Run]) -> Finding:
    return exact_finding(
        "Control, λ = 0: ranks do not fall, A - B is conserved, and a strict flag stays.",
        Prediction(
            "ranks of all layers as at the start; A - B less what steps of finite size add is what "
            f"it was within {ROUND_OFF:g}; planted strict flags are strict flags at the end",
            1.0,
            DERIVED,
        ),
        {
            "runs with the ranks of the start": [
                run["ranks"] == run["ranks_start"] for run in plain
            ],
            "runs that conserve A - B": [run["off_law"] < ROUND_OFF for run in plain],
            "planted strict flags that stay": [
                all(run["strict_flags_start"]) and all(run["strict_flags"]) for run in flags
            ],
        },
        f"A - B itself moves by at most {max(run['drift'] for run in plain):.1%} in "
        f"{plain[0].settings['until'] / plain[0].settings['step']:.0f} steps, all of it the steps' "
        f"finite size. Least relative imbalance at the end "
        f"{min(min(run['imbalance']) for run in plain):.2f}, so nothing aligns. "
        f"{sum(any(run['strict_flags']) for run in plain)} of {len(plain)} runs from random starts "
        "end at a strict flag, as "
        f"{sum(any(run['strict_flags_start']) for run in plain)} begin: where a square layer "
        "writes all of R^d every read space lies in its write space.",
    )


def _without_loss(runs: Sequence[Run]) -> Finding:
    return exact_finding(
        "Control, no loss: ‖A - B‖ obeys its law with nothing to learn, and nothing aligns.",
        Prediction(
            "‖A - B‖ falls by (1 - ηλ)^{2n}; relative imbalance, angles and ranks stay",
            1.0,
            SOURCE,
        ),
        {
            "runs on the law": [abs(run["law_ratio"] - 1) < ROUND_OFF for run in runs],
            "runs with the relative imbalance of the start": [
                agree(run["imbalance"][0], run["imbalance_start"][0]) for run in runs
            ],
            "runs with the leading angle of the start": [
                agree(run["leading_sine"], run["leading_sine_start"]) for run in runs
            ],
            "runs with the ranks of the start": [
                run["ranks"] == run["ranks_start"] for run in runs
            ],
        },
        "Relative imbalance "
        f"{min(run['imbalance'][0] for run in runs):.2f} to "
        f"{max(run['imbalance'][0] for run in runs):.2f}, sines of leading spaces "
        f"{min(run['leading_sine'] for run in runs):.2f} to "
        f"{max(run['leading_sine'] for run in runs):.2f}. The law of ‖A - B‖ by itself is no test "
        "of alignment; angles and the relative imbalance are.",
    )
