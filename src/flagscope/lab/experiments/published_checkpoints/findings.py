"""Predictions of the experiment on published checkpoints, and the rules of its verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import stats

from flagscope.lab.experiment import Estimate, Finding, Measured, Prediction, beyond_the_paper
from flagscope.lab.experiments.published_checkpoints.published import PUBLISHED
from flagscope.lab.intervals import LEVEL, band_verdict, mean_interval, share_interval
from flagscope.null import mean_overlap

KINDS = {"qk": "Q-K", "ov": "V-O", "mlp": "MLP", "conv": "conv1-conv2"}
SPACES = ("q", "k", "v", "o")
LETTERS = {"C": "C", "rho": "ρ", "nu": "ν", "R": "R"}
# A diagnostic works on a network if it detects training in most places.
MOST = 0.5
# Size at nominal 5 %.
SIZE = (0.03, 0.07)
# Distance of means over draws from the Haar value; C and ν have heavier tails than R and ρ.
NEAR = {"R": 0.005, "rho": 0.005, "C": 0.05}
_CRITICAL = 1.959964
_HEADS = ("minilm", "antiberty")
_PAPER = "arXiv 2605.09861: the diagnostics work on MLPs, ResNets and language models"


@dataclass(frozen=True)
class CheckpointRuns:
    """The measured cells of the available checkpoints."""

    measured: Sequence[Measured]

    @property
    def present(self) -> list[str]:
        """Names of the measured checkpoints."""
        names = {m.cell.settings["checkpoint"] for m in self.measured if m.values}
        return [name for name in PUBLISHED if name in names]

    @property
    def absent(self) -> list[str]:
        """Titles of the missing checkpoints."""
        return [p.title for name, p in PUBLISHED.items() if name not in self.present]

    def cells(self, name: str, *, trained: bool) -> list[Measured]:
        """Cells of a checkpoint: the trained one, or all re-initialisations."""
        return [
            m
            for m in self.measured
            if m.values
            and m.cell.settings["checkpoint"] == name
            and (m.cell.settings["seed"] is None) == trained
        ]

    def trained(self, name: str, quantity: str) -> list[float]:
        """Trained values by layer."""
        return self.cells(name, trained=True)[0].values["places"][quantity]

    def initial(self, name: str, quantity: str) -> list[list[float]]:
        """Values by re-initialisation and layer."""
        return [m.values["places"][quantity] for m in self.cells(name, trained=False)]

    def kinds(self, name: str, of: Sequence[str], letter: str) -> list[str]:
        """Kinds of pairs, or spaces, that a checkpoint has."""
        places = self.cells(name, trained=True)[0].values["places"]
        return [kind for kind in of if f"{letter}_{kind}" in places]


def findings(measured: Sequence[Measured]) -> tuple[Finding, ...]:
    """One finding for each prediction.

    The paper claims that the diagnostics work, and admits that the Haar null may flag any training.
    """
    runs = CheckpointRuns(measured)
    papers = (_works, _flags)
    further = (_calibrated, _haar, _heads_above, _commutes, _correlates)
    return (
        *(finding for rule in papers for finding in rule(runs)),
        *beyond_the_paper(*(finding for rule in further for finding in rule(runs))),
    )


def beyond(trained: Sequence[float], initial: Sequence[Sequence[float]]) -> list[bool]:
    """For each layer, whether the trained value is beyond every re-initialisation.

    Examples
    --------
    >>> beyond([3.0, 1.5], [[1.0, 1.0], [2.0, 2.0]])
    [True, False]
    """
    ranges = [(min(layer), max(layer)) for layer in zip(*initial, strict=True)]
    return [not low <= x <= high for x, (low, high) in zip(trained, ranges, strict=True)]


def prediction_interval(name: str, trained: float, initial: Sequence[float]) -> Estimate:
    """Trained value minus the mean of re-initialisations, with the interval of a further draw.

    If the trained value were a further draw from a normal distribution of unknown mean and
    variance, the interval would exclude zero with probability 5 %.

    Examples
    --------
    >>> estimate = prediction_interval("R", 2.0, [0.9, 1.0, 1.1])
    >>> f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
    '1.00 [0.50, 1.50]'
    """
    k = len(initial)
    difference = trained - fmean(initial)
    if k < 2:
        return Estimate(name, difference, None, None, k)
    t = float(stats.t.ppf(0.5 + LEVEL / 2, k - 1))
    half = t * stdev(initial) * math.sqrt(1 + 1 / k)
    return Estimate(name, difference, difference - half, difference + half, k)


def _skipped(runs: CheckpointRuns) -> str:
    absent = runs.absent
    return f" Absent and skipped: {', '.join(absent)}." if absent else ""


def _works(runs: CheckpointRuns) -> Iterator[Finding]:
    for letter, of in (("R", SPACES), *((symbol, tuple(KINDS)) for symbol in ("rho", "nu", "C"))):
        estimates: list[Estimate] = []
        inside: list[str] = []
        draws = 0
        for name in runs.present:
            held: list[bool] = []
            for kind in runs.kinds(name, of, letter):
                quantity = f"{letter}_{kind}"
                draws = len(runs.initial(name, quantity))
                own = beyond(runs.trained(name, quantity), runs.initial(name, quantity))
                held += own
                if not all(own):
                    label = KINDS.get(kind, kind.upper())
                    inside.append(f"{PUBLISHED[name].title} {label} {own.count(False)}")
            if held:
                estimates.append(share_interval(f"share of places, {PUBLISHED[name].title}", held))
        sign = LETTERS[letter]
        chance = f"{2 / (draws + 1):.1%}" if draws else "2/(k+1)"
        yield Finding(
            f"{sign} works on {'language models' if letter == 'R' else 'every network'}: in most "
            "places training has taken it beyond every re-initialisation",
            Prediction(
                f"more than {MOST:.0%} of the places (layer and "
                f"{'space' if letter == 'R' else 'kind of pair'}) beyond all of k draws",
                None,
                _PAPER,
            ),
            tuple(estimates),
            band_verdict(estimates, MOST, 1.0),
            f"Either side counts. By chance it would be {chance} of the places. "
            + (f"Not beyond: {'; '.join(inside)}." if inside else "No place is inside.")
            + _skipped(runs),
        )


def _scores(runs: CheckpointRuns, name: str, *, trained: bool) -> list[float]:
    """(R - 1) in exact Haar standard deviations, for every space, layer and draw."""
    scores: list[float] = []
    for m in runs.cells(name, trained=trained):
        if "heads" not in m.values:
            continue
        heads, d = m.values["heads"]
        sd = mean_overlap([d // heads] * heads, d).sd
        scores += [(r - 1) / sd for space in SPACES for r in m.values["places"][f"R_{space}"]]
    return scores


def _flagged(runs: CheckpointRuns, *, trained: bool) -> dict[str, dict[str, list[bool]]]:
    """By test and network: for each trial, whether it exceeds the two-sided 5 % of the null."""
    flags: dict[str, dict[str, list[bool]]] = {"R of head groups": {}, "ρ of pairs": {}}
    for name in runs.present:
        title = PUBLISHED[name].title
        scores = _scores(runs, name, trained=trained)
        if scores:
            flags["R of head groups"][title] = [abs(z) > _CRITICAL for z in scores]
        counts = [
            count
            for m in runs.cells(name, trained=trained)
            for count in m.values["flagged"].values()
        ]
        flagged, total = (sum(column) for column in zip(*counts, strict=True))
        flags["ρ of pairs"][title] = [True] * flagged + [False] * (total - flagged)
    return flags


def _calibrated(runs: CheckpointRuns) -> Iterator[Finding]:
    # Pooled: a single network has too few groups for an interval within the band.
    flagged = _flagged(runs, trained=False)
    estimates = [
        share_interval(test, [held for trials in networks.values() for held in trials])
        for test, networks in flagged.items()
        if networks
    ]
    by_network = [
        f"{test}, {title} {fmean(trials):.1%} of {len(trials)}"
        for test, networks in flagged.items()
        for title, trials in networks.items()
    ]
    yield Finding(
        "The Haar null does not flag these networks' own initialisation more often than it says",
        Prediction(
            f"share beyond the two-sided 5 % in [{SIZE[0]}, {SIZE[1]}]: normal initialisers are "
            "orthogonally invariant, so the null is exact",
            0.05,
            "derived in the experiment; a null that flags any training might flag any start",
        ),
        tuple(estimates),
        band_verdict(estimates, *SIZE),
        "All maps are drawn independently, so each head group and each pair is a trial. "
        + (f"By network: {'; '.join(by_network)}. " if by_network else "")
        + "An initialiser that is not invariant, orthogonal or structured, is not covered."
        + _skipped(runs),
    )


def _flags(runs: CheckpointRuns) -> Iterator[Finding]:
    estimates = [
        share_interval(f"{test}, {title}", trials)
        for test, networks in _flagged(runs, trained=True).items()
        for title, trials in networks.items()
    ]
    yield Finding(
        "The Haar null flags these trained networks in most places",
        Prediction(
            f"share beyond the two-sided 5 % above {MOST:.0%}",
            None,
            "arXiv 2605.09861, limitations: Haar may flag any training",
        ),
        tuple(estimates),
        band_verdict(estimates, MOST, 1.0),
        "A flag says trained. That it does not say trained on something meaningful is the matter "
        "of lm-checkpoints, whose controls on destroyed text are flagged too." + _skipped(runs),
    )


def _haar(runs: CheckpointRuns) -> Iterator[Finding]:
    verdicts: list[str] = []
    estimates: list[Estimate] = []
    rows: list[tuple[Estimate, float]] = []
    for name in runs.present:
        cells, title = runs.cells(name, trained=False), PUBLISHED[name].title
        if runs.kinds(name, SPACES, "R"):
            means = [
                fmean(r for space in SPACES for r in m.values["places"][f"R_{space}"]) - 1
                for m in cells
            ]
            rows.append((mean_interval(f"R - 1, {title}", means), NEAR["R"]))
        for letter, centre in (("rho", 0.0), ("C", 1.0)):
            means = [
                fmean(v for key, v in m.values["means"].items() if key.startswith(f"{letter}_"))
                - centre
                for m in cells
            ]
            label = LETTERS[letter] + (" - 1" if centre else "")
            rows.append((mean_interval(f"{label}, {title}", means), NEAR[letter]))
    for estimate, near in rows:
        estimates.append(estimate)
        verdicts.append(band_verdict([estimate], -near, near, together=len(rows)))
    yield Finding(
        "An initialisation has the Haar values, so that distance from chance "
        "and distance from the start are one",
        Prediction(
            f"means over draws within {NEAR['R']:g} of R = 1 and of ρ = 0, within {NEAR['C']:g} of "
            "C = 1",
            0.0,
            "derived in the experiment",
        ),
        tuple(estimates),
        "refuted"
        if "refuted" in verdicts
        else "confirmed"
        if set(verdicts) == {"confirmed"}
        else "open",
        "Means over kinds of pairs of the mean over all pairs of a kind." + _skipped(runs),
    )


@dataclass(frozen=True)
class _Rise:
    """A quantity that training is predicted to change: up for sign 1, down for -1."""

    name: str
    quantity: str
    label: str
    sign: int = 1

    def estimate(self, runs: CheckpointRuns) -> Estimate:
        """Estimate of the mean over layers, positive as predicted."""
        trained = self.sign * fmean(runs.trained(self.name, self.quantity))
        initial = [self.sign * fmean(layers) for layers in runs.initial(self.name, self.quantity)]
        return prediction_interval(f"{self.label}, {PUBLISHED[self.name].title}", trained, initial)

    def against(self, runs: CheckpointRuns) -> int:
        """Number of layers in which training has moved it beyond all draws the other way."""
        initial = [[self.sign * v for v in d] for d in runs.initial(self.name, self.quantity)]
        least = [min(layer) for layer in zip(*initial, strict=True)]
        trained = runs.trained(self.name, self.quantity)
        return sum(self.sign * x < low for x, low in zip(trained, least, strict=True))


def _positive(
    runs: CheckpointRuns, claim: str, prediction: str, rises: Sequence[_Rise], source: str
) -> Finding:
    there = [rise for rise in rises if rise.name in runs.present]
    estimates = [rise.estimate(runs) for rise in there]
    other = [
        f"{rise.label}, {PUBLISHED[rise.name].title}, in {count} of "
        f"{len(runs.trained(rise.name, rise.quantity))}"
        for rise in there
        if (count := rise.against(runs))
    ]
    return Finding(
        claim,
        Prediction(prediction, None, source),
        tuple(estimates),
        band_verdict(estimates, 0.0, math.inf),
        "Means over layers; the interval is that of one more draw of the initialiser. Layers "
        f"that lie beyond every draw the other way: {'; '.join(other) or 'none'}." + _skipped(runs),
    )


def _heads_above(runs: CheckpointRuns) -> Iterator[Finding]:
    rises = [
        _Rise(name, f"R_{space}", f"R_{space.upper()} less its initialisation")
        for name in _HEADS
        for space in SPACES
    ]
    yield _positive(
        runs,
        "Heads overlap more than at their initialisation in every space, on average over layers",
        "R less its mean over re-initialisations is positive, for Q, K, V and O",
        rises,
        "figures of all-MiniLM-L6-v2, theory, section 4",
    )


def _commutes(runs: CheckpointRuns) -> Iterator[Finding]:
    rises = [
        rise
        for name in _HEADS
        for rise in (
            _Rise(name, "C_qk", "initial less trained C of Q-K", -1),
            _Rise(name, "C_ov", "initial less trained C of V-O", -1),
            _Rise(name, "C_mlp", "trained less initial C of MLP"),
        )
    ]
    yield _positive(
        runs,
        "Training lowers C of linear pairs and raises C of MLP pairs, on average over layers",
        "initial less trained C of Q-K and V-O, and trained less initial C of MLP, are positive",
        rises,
        "figures of all-MiniLM-L6-v2, theory, section 4",
    )


def _correlates(runs: CheckpointRuns) -> Iterator[Finding]:
    kinds = {name: "conv" if name == "resnet20" else "qk" for name in PUBLISHED}
    yield _positive(
        runs,
        "Training correlates the Grams of Q-K and of conv1-conv2 pairs",
        "ρ less its mean over re-initialisations is positive",
        [
            _Rise(name, f"rho_{kind}", f"ρ of {KINDS[kind]} less its initialisation")
            for name, kind in kinds.items()
        ],
        "figures of all-MiniLM-L6-v2 and ResNet-20, theory, section 4",
    )
