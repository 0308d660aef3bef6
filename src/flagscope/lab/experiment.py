"""Base class of experiments: cells to measure, and a rule from measurements to verdicts.

Predictions and verdict rules are part of an experiment's code, so they are fixed before anything
is measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Verdict = Literal["confirmed", "refuted", "open"]
DataKind = Literal["images", "text", "none"]


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes
    ----------
    seeds
        Number of seeds; the experiment's own number if None.
    quick
        Whether to take less than half a minute on one core. Verdicts may then stay open.
    data
        Source of the data, see `flagscope.lab.data`; the experiment's own choice if None.
    """

    seeds: int | None = None
    quick: bool = False
    data: str | None = None


@dataclass(frozen=True)
class Cell:
    """An independent unit of measurement, specified before there is any result.

    Attributes
    ----------
    name
        Unique within its experiment; letters, digits, dots, hyphens and underscores.
    settings
        Everything that the measurement depends on, including seeds, as JSON values.
    cost
        Time relative to the experiment's other cells; costly cells start first.
    """

    name: str
    settings: dict[str, Any]
    cost: float = 1.0


@dataclass(frozen=True)
class Measured:
    """A cell with its measured values, as JSON, and the core-seconds that it took."""

    cell: Cell
    values: dict[str, Any]
    seconds: float


def of_kind(measured: Sequence[Measured], kind: str) -> list[Measured]:
    """Those whose cells have this value of the setting `kind`."""
    return [m for m in measured if m.cell.settings["kind"] == kind]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes
    ----------
    name
        The estimated quantity, with its unit if it has one.
    value
        The estimate.
    low, high
        Ends of the interval; None if there are too few numbers for one.
    n
        Number of independent values behind it, mostly seeds.
    bounds
        Least and greatest possible value, such as (0, 1) for a share. The interval is within them
        and symmetric on the logit scale; None for a symmetric interval.
    trials
        Whether the value is the share of successes in `n` trials, with the exact interval of
        Clopper and Pearson.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    bounds: tuple[float, float] | None = None
    trials: bool = False


@dataclass(frozen=True)
class Prediction:
    """A prediction of the theory, made before anything is measured.

    Attributes
    ----------
    text
        The prediction in words.
    value
        The predicted number, if it is one.
    source
        Section or equation from which it comes.
    """

    text: str
    value: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Finding:
    """One claim, with prediction, measurement and verdict.

    Attributes
    ----------
    claim
        One part of the experiment's claim, in a sentence.
    prediction, estimates, verdict
        What was predicted, what was measured, and the verdict by the rule in the code.
    words
        Remarks for the reader besides the numbers.
    beyond
        Whether this part goes beyond the paper's claims: an extension, a refinement, a control, or
        a counter-proposal of flagscope. The verdict on the paper does not depend on it.
    """

    claim: str
    prediction: Prediction
    estimates: tuple[Estimate, ...]
    verdict: Verdict
    words: str
    beyond: bool = False


def beyond_the_paper(*findings: Finding) -> tuple[Finding, ...]:
    """The same findings, marked as going beyond the paper's claims."""
    return tuple(replace(finding, beyond=True) for finding in findings)


class Experiment(ABC):
    """One claim, and the measurement that decides it.

    Attributes
    ----------
    name
        Name on the command line: that of its folder or file, with hyphens.
    title, claim, source
        A heading, the tested claim in a sentence or two, and who makes it.
    budget_minutes
        Core-minutes of a full run.
    data_kind
        Kind of data that the experiment accepts: "images", "text" or "none".
    figures
        (name, caption) of every figure.
    rank_rule
        Rule for the dimensions of dominant spaces, if the measurement depends on one:
        `flagscope.lab.rank_rule.LAB_RULE`.
    version
        To be raised when `measure` changes, so that earlier measurements are not reused.
    """

    name: str
    title: str
    claim: str
    source: str
    budget_minutes: float
    data_kind: DataKind = "images"
    figures: tuple[tuple[str, str], ...] = ()
    rank_rule: str | None = None
    version: int = 1

    @abstractmethod
    def cells(self, options: Options) -> list[Cell]:
        """The units of measurement."""

    @abstractmethod
    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Measure one cell in a worker process; `report` takes the fraction done.

        Deterministic given the cell's settings. The result must survive JSON: no NaN, no infinity,
        no tensors.
        """

    @abstractmethod
    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Compare measurements with predictions: a verdict for every part of the claim."""

    @abstractmethod
    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (cell, seed, time, quantity), as far as that is readable."""

    @abstractmethod
    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """The figures named in `figures`."""


def overall_verdict(findings: Sequence[Finding]) -> Verdict | None:
    """The verdict on the paper's claim: refuted if a part of it is, confirmed if all are, or open.

    None if there are findings and all of them go beyond the paper.

    Examples
    --------
    >>> overall_verdict([])
    'open'
    >>> part = Finding("It falls.", Prediction("below 1"), (), "confirmed", "")
    >>> further = Finding("So does this.", Prediction("below 1"), (), "refuted", "", beyond=True)
    >>> overall_verdict([part, further]), overall_verdict([further])
    ('confirmed', None)
    """
    verdicts = {finding.verdict for finding in findings if not finding.beyond}
    if findings and not verdicts:
        return None
    if "refuted" in verdicts:
        return "refuted"
    return "confirmed" if verdicts == {"confirmed"} else "open"
