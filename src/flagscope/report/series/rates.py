"""What is said of the rates of a series in a few lines, and its table."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

import pandas

from flagscope.records.series import SeriesRecord
from flagscope.records.series_rates import PairRate, SeriesRates
from flagscope.report.wording import counted

_NEAR = 0.02


def rates_frame(record: SeriesRecord) -> pandas.DataFrame:
    """One row for each linear pair of each training."""
    rows = [{**one.model_dump(), "run": found.run} for found in record.rates for one in found.rates]
    return pandas.DataFrame(rows, columns=[*PairRate.model_fields, "run"])


def rates_lines(rates: SeriesRates) -> list[str]:
    """How many pairs have each answer, with the rates, and what AdamW's own prediction gives."""
    groups: dict[tuple[str, str, bool], list[PairRate]] = defaultdict(list)
    for one in rates.rates:
        has_rate = one.answer == "rate"
        key = one.answer, "" if has_rate else one.reason, has_rate and one.predicted is None
        groups[key].append(one)
    run = "" if rates.run is None else f"{rates.run}: "
    if rates.rates and all(one.answer == "unknown-schedule" for one in rates.rates):
        reason = rates.rates[0].reason
        return [f"{run}no rates: {reason} (--learning-rate, --weight-decay, --optimiser)"]
    optimiser = "not known" if rates.optimiser is None else rates.optimiser
    lines = [f"{run}rates of {rates.diagnostic} in decay time; schedule: {rates.source}; "
             f"optimiser: {optimiser}"]  # fmt: skip
    for (answer, reason, _), own in groups.items():
        count = counted(len(own), "pair")
        lines.append(f"{count}: {_fitted(own) if answer == 'rate' else f'{answer}: {reason}'}")
    settled = [one for one in rates.rotations if one.angle_ratio is not None]
    if settled:
        ratios = [one.angle_ratio for one in settled if one.angle_ratio is not None]
        late = sum(one.settled is True for one in settled)
        lines.append(
            f"AdamW: between neighbours, matrices turn by {median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) times the angle of rotational equilibrium, "
            f"by samples; {late:,} of {len(settled):,} intervals begin late enough for it"
        )
    return lines


def _fitted(rates: list[PairRate]) -> str:
    values = [one.rate for one in rates if one.rate is not None]
    said = f"rate {median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
    if rates[0].predicted is None:
        return f"{said}; none is predicted"
    inside = sum(
        one.low is not None and one.high is not None and one.predicted is not None
        and one.low <= one.predicted <= one.high
        for one in rates
    )  # fmt: skip
    near = sum(abs((one.rate or 0.0) - 1) < _NEAR for one in rates)
    return (
        f"{said}; predicted 1: {near:,} lie within 2 % of it, and {inside:,} of the 95 % "
        "intervals, which are of scatter alone, hold it"
    )
